//! When a piece starts over: starts, jumps and loop wraps of the host's transport, and the run modes. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use crate::quantise::SongPlace;

/// The `run` parameter: what makes the instrument sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunMode {
    /// While the host plays; a start or a jump is a new anchor.
    #[default]
    Transport,
    /// Always, whatever the transport does.
    Free,
    /// While a key is held; the first key is the anchor.
    Keys,
}

/// What the host says about its transport at the start of a sub-block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transport {
    /// The transport runs.
    pub playing: bool,
    /// Beats per minute.
    pub tempo: Option<f64>,
    /// Song position, host samples.
    pub pos_samples: Option<i64>,
    /// Song position, quarter notes.
    pub pos_beats: Option<f64>,
    /// Where the bar began, quarter notes.
    pub bar_start_beats: Option<f64>,
    /// Length of a bar, quarter notes.
    pub bar_beats: Option<f64>,
    /// Start of the active loop, host samples.
    pub loop_start_samples: Option<i64>,
    /// Start of the active loop, quarter notes.
    pub loop_start_beats: Option<f64>,
}

impl Transport {
    /// Whether the host has a transport at all. A JUCE host without a playhead shows as stopped, at 0, with no tempo.
    pub fn is_reported(&self) -> bool {
        self.playing || self.tempo.is_some()
    }
}

/// Steps further off than this are jumps, seconds.
const TOLERANCE: f64 = 0.02;

/// Follows the song position from block to block.
pub struct TransportWatch {
    rate: f64,
    playing: bool,
    /// The last position that was where it should be.
    position: Option<i64>,
    beats: Option<f64>,
    tempo: Option<f64>,
    /// Samples pulled since then.
    elapsed: i64,
    /// The last block was off already.
    deviant: bool,
}

impl TransportWatch {
    /// `rate`: samples per second of the host.
    pub fn new(rate: f64) -> Self {
        Self { rate, playing: false, position: None, beats: None, tempo: None, elapsed: 0, deviant: false }
    }

    /// Looks at the transport of the sub-block that begins now. A value is a new anchor (a start or a jump): how many
    /// samples ago it was, which is not 0 when a loop wrapped within the last block.
    pub fn observe(&mut self, transport: &Transport) -> Option<i64> {
        let was_playing = std::mem::replace(&mut self.playing, transport.playing);
        if !transport.playing {
            return None;
        }
        if !was_playing {
            self.agree(transport);
            return Some(0);
        }
        if let Some(ago) = self.wrapped(transport) {
            self.agree(transport);
            return Some(ago);
        }
        // A position that stands still while the transport plays is not being reported in this block.
        if self.elapsed > 0 && transport.pos_samples.is_some() && transport.pos_samples == self.position {
            return None;
        }
        let Some(off) = self.deviation(transport) else {
            self.agree(transport);
            return None;
        };
        if off <= TOLERANCE * self.rate || self.tempo_moved_it(transport) {
            self.agree(transport);
            return None;
        }
        if !std::mem::replace(&mut self.deviant, true) {
            return None;
        }
        self.agree(transport);
        Some(0)
    }

    /// Where the song is `after` samples from the start of the sub-block that was observed; `None` while it stands still or the
    /// host tells no beats.
    pub fn place(&self, transport: &Transport, after: i64) -> Option<SongPlace> {
        let (beats, tempo) = (self.beats?, self.tempo?);
        if !self.playing {
            return None;
        }
        // From the last position that was where it should be: some hosts repeat a block's position in its parts.
        let beat = beats + (self.elapsed + after) as f64 / self.rate * tempo / 60.0;
        let bar_length = transport.bar_beats.unwrap_or(4.0);
        Some(SongPlace { beat, bar_start: transport.bar_start_beats.unwrap_or(0.0), bar_length })
    }

    /// Counts the samples of the sub-block that was observed.
    pub fn advance(&mut self, samples: usize) {
        self.elapsed += samples as i64;
    }

    /// Forgets everything: the next playing block is a start.
    pub fn reset(&mut self) {
        *self = Self::new(self.rate);
    }

    fn agree(&mut self, transport: &Transport) {
        self.position = transport.pos_samples;
        self.beats = transport.pos_beats;
        self.tempo = transport.tempo;
        self.elapsed = 0;
        self.deviant = false;
    }

    /// How far the song position is from where the samples pulled would have brought it, host samples. Beats stand in
    /// where the host counts nothing else.
    fn deviation(&self, transport: &Transport) -> Option<f64> {
        if let (Some(now), Some(last)) = (transport.pos_samples, self.position) {
            return Some(now.saturating_sub(last).saturating_sub(self.elapsed).unsigned_abs() as f64);
        }
        let (now, last, tempo) = (transport.pos_beats?, self.beats?, transport.tempo?);
        (tempo > 0.0).then(|| ((now - last) * 60.0 / tempo * self.rate - self.elapsed as f64).abs())
    }

    /// A backward move to the loop start: how many samples ago the loop started over.
    fn wrapped(&self, transport: &Transport) -> Option<i64> {
        let within = |ago: i64| (0..=self.elapsed).contains(&ago).then_some(ago);
        if let (Some(now), Some(last), Some(start)) =
            (transport.pos_samples, self.position, transport.loop_start_samples)
            && now < last
            && let Some(ago) = within(now.saturating_sub(start))
        {
            return Some(ago);
        }
        if let (Some(now), Some(last), Some(start), Some(tempo)) =
            (transport.pos_beats, self.beats, transport.loop_start_beats, transport.tempo)
            && now < last
            && tempo > 0.0
        {
            return within(((now - start) * 60.0 / tempo * self.rate).round() as i64);
        }
        None
    }

    /// Hosts may derive the position from beats and tempo, and it then leaps when the tempo changes.
    fn tempo_moved_it(&self, transport: &Transport) -> bool {
        let (Some(tempo), Some(last_tempo)) = (transport.tempo, self.tempo) else {
            return false;
        };
        if tempo == last_tempo {
            return false;
        }
        let (Some(now), Some(last)) = (transport.pos_beats, self.beats) else {
            return true;
        };
        let minutes = self.elapsed as f64 / self.rate / 60.0;
        let (slow, fast) = (tempo.min(last_tempo), tempo.max(last_tempo));
        let margin = TOLERANCE / 60.0 * fast;
        (minutes * slow - margin..=minutes * fast + margin).contains(&(now - last))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    const RATE: f64 = 48_000.0;

    /// Feeds positions, one per block of `block` samples, and lists the blocks where an anchor was seen.
    fn anchors(block: usize, blocks: &[Transport]) -> Vec<(usize, i64)> {
        let mut watch = TransportWatch::new(RATE);
        let mut seen = Vec::new();
        for (index, transport) in blocks.iter().enumerate() {
            if let Some(ago) = watch.observe(transport) {
                seen.push((index, ago));
            }
            watch.advance(block);
        }
        seen
    }

    fn at(position: i64) -> Transport {
        Transport { playing: true, tempo: Some(120.0), pos_samples: Some(position), ..Transport::default() }
    }

    #[test]
    fn a_start_is_an_anchor_and_going_on_is_none() {
        let stopped = Transport { playing: false, ..at(500) };
        assert_eq!(anchors(480, &[stopped, at(500), at(980), at(1_460), stopped, at(1_940)]), [(1, 0), (5, 0)]);
    }

    #[test]
    fn a_seek_is_seen_in_its_second_block_and_a_glitch_never() {
        let seek = [at(0), at(480), at(90_000), at(90_480), at(90_960)];
        assert_eq!(anchors(480, &seek), [(0, 0), (3, 0)]);
        let back = [at(90_000), at(90_480), at(0), at(480), at(960)];
        assert_eq!(anchors(480, &back), [(0, 0), (3, 0)]);
        let glitch = [at(0), at(480), at(90_000), at(1_440), at(1_920), at(7), at(2_880)];
        assert_eq!(anchors(480, &glitch), [(0, 0)]);
    }

    #[test]
    fn small_steps_and_a_standing_position_are_no_jumps() {
        assert_eq!(anchors(480, &[at(0), at(1_000), at(1_100), at(2_500)]), [(0, 0)]);
        assert_eq!(anchors(4_800, &[at(7); 20]), [(0, 0)]);
        let unreported = Transport { playing: true, ..Transport::default() };
        assert_eq!(anchors(4_800, &[unreported; 20]), [(0, 0)]);
    }

    #[test]
    fn a_wrap_is_seen_at_once_and_dated_back() {
        let looping = |position| Transport { loop_start_samples: Some(1_000), ..at(position) };
        assert_eq!(anchors(480, &[looping(9_000), looping(9_480), looping(1_000)]), [(0, 0), (2, 0)]);
        assert_eq!(anchors(480, &[looping(9_000), looping(9_480), looping(1_123)]), [(0, 0), (2, 123)]);
        // VST3 reports the loop in beats only.
        let beats = |position, beat| Transport { pos_beats: Some(beat), loop_start_beats: Some(4.0), ..at(position) };
        let blocks = [beats(500_000, 7.98), beats(500_480, 8.0), beats(96_024, 4.001), beats(96_504, 4.021)];
        assert_eq!(anchors(480, &blocks), [(0, 0), (2, 24)]);
    }

    #[test]
    fn a_tempo_change_is_no_jump_but_a_seek_beside_one_is() {
        let beat = |position, beat, tempo| Transport { tempo: Some(tempo), pos_beats: Some(beat), ..at(position) };
        // 480 samples are 0.02 beats at 120 and 0.015 at 90; positions are beats / tempo.
        let change = [beat(96_000, 4.0, 120.0), beat(96_480, 4.02, 120.0), beat(129_280, 4.04, 90.0)];
        assert_eq!(anchors(480, &change), [(0, 0)]);
        let seek = [
            beat(96_000, 4.0, 120.0),
            beat(640_000, 20.0, 90.0),
            beat(640_480, 20.015, 90.0),
            beat(640_960, 20.03, 90.0),
        ];
        assert_eq!(anchors(480, &seek), [(0, 0), (2, 0)]);
        let no_beats = [at(96_000), Transport { tempo: Some(90.0), ..at(128_640) }, at(96_960)];
        assert_eq!(anchors(480, &no_beats), [(0, 0)]);
    }

    #[test]
    fn beats_stand_in_for_samples() {
        let beat = |beat, tempo| Transport {
            playing: true,
            tempo: Some(tempo),
            pos_beats: Some(beat),
            ..Transport::default()
        };
        let going_on = [beat(1.0, 120.0), beat(1.02, 120.0), beat(1.04, 90.0), beat(1.055, 90.0), beat(1.07, 90.0)];
        assert_eq!(anchors(480, &going_on), [(0, 0)]);
        let seek = [beat(1.0, 120.0), beat(1.02, 120.0), beat(9.0, 120.0), beat(9.02, 120.0), beat(9.04, 120.0)];
        assert_eq!(anchors(480, &seek), [(0, 0), (3, 0)]);
    }

    #[test]
    fn a_juce_host_without_playhead_reports_nothing() {
        let juce = Transport { pos_samples: Some(0), ..Transport::default() };
        assert!(!juce.is_reported());
        assert!(Transport { playing: false, ..at(0) }.is_reported());
    }
}
