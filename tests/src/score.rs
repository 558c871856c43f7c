//! What the test host plays to the plugin: moves at host samples, and a transport that starts, stops, loops and jumps.

use clack_host::events::event_types::{
    MidiEvent, NoteOffEvent, NoteOnEvent, ParamValueEvent, TransportEvent, TransportFlags,
};
use clack_host::events::{EventFlags, EventHeader, Pckn};
use clack_host::prelude::EventBuffer;
use clack_host::utils::{BeatTime, ClapId, SecondsTime};

use crate::host::{Outcome, clap_id};

/// Something that reaches the plugin at one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Move {
    /// A parameter gets a new value.
    Param(ClapId, f64),
    /// A key goes down.
    KeyDown(u8),
    /// A key comes up.
    KeyUp(u8),
    /// A MIDI controller moves: number, value.
    Controller(u8, u8),
    /// A MIDI program is selected.
    Program(u8),
    /// Three bytes of MIDI, whatever they are.
    Midi([u8; 3]),
}

/// What the transport does from one host sample on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    /// First host sample.
    host: u64,
    /// Song position there, in samples.
    song: u64,
    playing: bool,
}

/// A loop region of the song, in samples.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LoopRegion {
    start: u64,
    end: u64,
}

/// Moves and transport over host time.
#[derive(Clone, Debug)]
pub struct Score {
    moves: Vec<(u64, Move)>,
    segments: Vec<Segment>,
    region: Option<LoopRegion>,
    /// Beats per minute.
    tempo: f64,
}

impl Score {
    /// The host plays from song position 0 at host sample 0 on, at 120 beats per minute.
    pub fn playing() -> Self {
        Self::playing_from(0)
    }

    /// The host plays from this song position on.
    pub fn playing_from(song: u64) -> Self {
        let start = Segment { host: 0, song, playing: true };
        Self { moves: Vec::new(), segments: vec![start], region: None, tempo: 120.0 }
    }

    /// The transport stands still at song position 0.
    pub fn stopped() -> Self {
        let mut score = Self::playing();
        score.segments[0].playing = false;
        score
    }

    /// A host that sends no transport at all.
    pub fn without_transport() -> Self {
        Self { segments: Vec::new(), ..Self::playing() }
    }

    /// The host loops over `start..end` for `wraps` rounds, from the loop's start, then plays on past its end.
    pub fn looping(start: u64, end: u64, wraps: u64) -> Self {
        let segments =
            (0..wraps).map(|wrap| Segment { host: wrap * (end - start), song: start, playing: true }).collect();
        Self { segments, region: Some(LoopRegion { start, end }), ..Self::playing() }
    }

    /// The transport stops at this host sample.
    pub fn stop(mut self, host: u64) -> Self {
        let song = self.song(host);
        self.segments.push(Segment { host, song, playing: false });
        self
    }

    /// The transport plays from this song position on, from this host sample on: a start or a jump.
    pub fn play_from(mut self, host: u64, song: u64) -> Self {
        self.segments.push(Segment { host, song, playing: true });
        self
    }

    /// Adds a move. Moves may be added in any order.
    pub fn add(&mut self, at: u64, what: Move) {
        let place = self.moves.partition_point(|(other, _)| *other <= at);
        self.moves.insert(place, (at, what));
    }

    /// Adds a parameter move.
    pub fn param(&mut self, at: u64, name: &str, value: f64) -> Outcome<()> {
        self.add(at, Move::Param(clap_id(name)?, value));
        Ok(())
    }

    fn segment(&self, host: u64) -> Option<&Segment> {
        self.segments.iter().rev().find(|s| s.host <= host)
    }

    fn song(&self, host: u64) -> u64 {
        self.segment(host).map_or(0, |s| if s.playing { s.song + (host - s.host) } else { s.song })
    }

    /// Where the transport next starts, stops or jumps after `host`.
    pub fn next_jump(&self, host: u64) -> Option<u64> {
        self.segments.iter().map(|s| s.host).find(|h| *h > host)
    }

    /// Fills `events` with the moves of one block, in order, with their offsets.
    pub fn events(&self, at: u64, length: usize, events: &mut EventBuffer) {
        let from = self.moves.partition_point(|(when, _)| *when < at);
        for (when, what) in &self.moves[from..] {
            if *when >= at + length as u64 {
                break;
            }
            let offset = (*when - at) as u32;
            match *what {
                Move::Param(id, value) => events.push(&ParamValueEvent::new(offset, id, Pckn::match_all(), value)),
                Move::KeyDown(key) => events.push(&NoteOnEvent::new(offset, key_address(key), 0.8)),
                Move::KeyUp(key) => events.push(&NoteOffEvent::new(offset, key_address(key), 0.0)),
                Move::Program(number) => events.push(&MidiEvent::new(offset, 0, [0xc0, number, 0])),
                Move::Controller(number, value) => events.push(&MidiEvent::new(offset, 0, [0xb0, number, value])),
                Move::Midi(bytes) => events.push(&MidiEvent::new(offset, 0, bytes)),
            }
        }
    }

    /// What the host says about its transport at a block's start.
    pub fn transport(&self, host: u64, rate: f64) -> Option<TransportEvent> {
        let segment = self.segment(host)?;
        let seconds = |song: u64| song as f64 / rate;
        let beats = |song: u64| BeatTime::from_float(seconds(song) * self.tempo / 60.0);
        let song = self.song(host);
        let mut flags = TransportFlags::HAS_TEMPO
            | TransportFlags::HAS_BEATS_TIMELINE
            | TransportFlags::HAS_SECONDS_TIMELINE
            | TransportFlags::HAS_TIME_SIGNATURE;
        if segment.playing {
            flags |= TransportFlags::IS_PLAYING;
        }
        let region = self.region.unwrap_or(LoopRegion { start: 0, end: 0 });
        if self.region.is_some() {
            flags |= TransportFlags::IS_LOOP_ACTIVE;
        }
        let bar = (seconds(song) * self.tempo / 60.0 / 4.0).floor();
        Some(TransportEvent {
            header: EventHeader::new_core(0, EventFlags::empty()),
            flags,
            song_pos_beats: beats(song),
            song_pos_seconds: SecondsTime::from_float(seconds(song)),
            tempo: self.tempo,
            tempo_inc: 0.0,
            loop_start_beats: beats(region.start),
            loop_end_beats: beats(region.end),
            loop_start_seconds: SecondsTime::from_float(seconds(region.start)),
            loop_end_seconds: SecondsTime::from_float(seconds(region.end)),
            bar_start: BeatTime::from_float(bar * 4.0),
            bar_number: bar as i32,
            time_signature_numerator: 4,
            time_signature_denominator: 4,
        })
    }
}

fn key_address(key: u8) -> Pckn {
    Pckn::new(0_u16, 0_u16, u16::from(key), clack_host::events::Match::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_starts_stops_and_wraps() {
        let score = Score::playing_from(100).stop(50).play_from(80, 10);
        assert_eq!([0, 49, 50, 79, 80, 90].map(|h| score.song(h)), [100, 149, 150, 150, 10, 20]);
        assert_eq!(score.next_jump(0), Some(50));
        assert_eq!(score.next_jump(80), None);
        let looped = Score::looping(1_000, 1_100, 3);
        assert_eq!([0, 99, 100, 250, 300].map(|h| looped.song(h)), [1_000, 1_099, 1_000, 1_050, 1_100]);
    }

    #[test]
    fn moves_keep_their_order_and_offsets() {
        let mut score = Score::playing();
        score.add(70, Move::KeyUp(60));
        score.add(5, Move::KeyDown(60));
        score.add(70, Move::KeyDown(62));
        let mut events = EventBuffer::new();
        score.events(64, 64, &mut events);
        assert_eq!(events.iter().map(|e| e.header().time()).collect::<Vec<_>>(), [6, 6]);
        let down = events.get(1).and_then(|e| e.as_event::<NoteOnEvent>()).map(|n| n.key());
        assert_eq!(down, Some(clack_host::events::Match::Specific(62)));
    }
}
