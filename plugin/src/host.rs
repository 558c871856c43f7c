//! nice-plug's transport, events and parameters in the audio thread's own words. Audio thread: no allocation, no lock.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use nice_plug::midi::{Channel, Key};
use nice_plug::prelude::{NoteEvent, Transport as HostTransport};

use crate::lanes::LaneValues;
use crate::latency::LatencySetting;
use crate::midi::{KeyEvent, TimedEvent};
use crate::params::TillerParams;
use crate::params::choices::{Late, Latency, Quantise, Run};
use crate::quantise::Grid;
use crate::slack::LateMode;
use crate::transport::{RunMode, Transport};

/// What the host says about its transport. Nothing is derived that the host did not say in samples or beats, except
/// samples from seconds: positions from beats and tempo jump when the tempo changes.
pub fn transport(host: &HostTransport) -> Transport {
    let samples = |seconds: f64| (seconds * f64::from(host.sample_rate)).round() as i64;
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    Transport {
        playing: host.playing,
        tempo: finite(host.tempo),
        pos_samples: host.pos_samples.or_else(|| finite(host.pos_seconds).map(samples)),
        pos_beats: finite(host.pos_beats),
        bar_start_beats: finite(host.bar_start_pos_beats),
        bar_beats: match (host.time_sig_numerator, host.time_sig_denominator) {
            (Some(beats @ 1..), Some(unit @ 1..)) => Some(4.0 * f64::from(beats) / f64::from(unit)),
            _ => None,
        },
        loop_start_samples: (host.loop_range_samples.map(|(start, _)| start))
            .or_else(|| finite(host.loop_range_seconds.map(|(start, _)| start)).map(samples)),
        loop_start_beats: finite(host.loop_range_beats.map(|(start, _)| start)),
    }
}

/// The event, if the instrument acts on it.
pub fn event<S>(host: &NoteEvent<S>) -> Option<TimedEvent> {
    let number = |key: Key| key.number();
    let on_channel = |channel: Channel| channel.number().unwrap_or(0);
    let event = match *host {
        NoteEvent::NoteOn { channel, key, velocity, .. } => {
            KeyEvent::note_on(on_channel(channel), number(key)?, velocity)
        }
        NoteEvent::NoteOff { channel, key, .. } | NoteEvent::Choke { channel, key, .. } => match number(key) {
            Some(key) => KeyEvent::Off { channel: on_channel(channel), key },
            None => KeyEvent::AllOff,
        },
        NoteEvent::MidiCC { cc, value, .. } => KeyEvent::controller(cc, value)?,
        NoteEvent::MidiProgramChange { program, .. } => KeyEvent::Program(program),
        _ => return None,
    };
    Some(TimedEvent { offset: host.timing(), event })
}

/// What the parameters say now; the generations are the engine's newest.
pub fn lanes(params: &TillerParams, prompt: u32, directions: u32) -> LaneValues {
    LaneValues {
        note: params.note.value().pitch_class(),
        note_strength: params.note_strength.value(),
        chord_root: params.chord_root.value().pitch_class(),
        chord_quality: params.chord_quality.value().quality(),
        chord_strength: params.chord_strength.value(),
        tempo_strength: params.tempo_strength.value(),
        traits: params.traits().map(|strength| strength.value()),
        attack: params.attack.value(),
        release: params.release.value(),
        strength: params.strength.value(),
        temperature: params.temperature.value(),
        guidance: params.guidance.value(),
        top_k: u32::try_from(params.top_k.value()).unwrap_or(0),
        seed: u32::try_from(params.seed.value()).unwrap_or(0),
        gain: params.linear_gain(),
        bypass: params.bypass.value(),
        prompt,
        directions,
    }
}

/// The `run` parameter.
pub fn run(params: &TillerParams) -> RunMode {
    match params.run.value() {
        Run::Transport => RunMode::Transport,
        Run::Free => RunMode::Free,
        Run::Keys => RunMode::Keys,
    }
}

/// The `quantise` parameter.
pub fn grid(params: &TillerParams) -> Grid {
    match params.quantise.value() {
        Quantise::Off => Grid::Off,
        Quantise::Beat => Grid::Beat,
        Quantise::Bar => Grid::Bar,
    }
}

/// The `late` parameter.
pub fn late(params: &TillerParams) -> LateMode {
    match params.late.value() {
        Late::Auto => LateMode::Auto,
        Late::Wait => LateMode::Wait,
        Late::Fade => LateMode::Fade,
    }
}

/// The `latency` and `latency_frames` parameters.
pub fn latency(params: &TillerParams) -> LatencySetting {
    match params.latency.value() {
        Latency::Tight => LatencySetting::Tight,
        Latency::Safe => LatencySetting::Safe,
        Latency::Frames => LatencySetting::Frames(u32::try_from(params.latency_frames.value()).unwrap_or(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nice_plug::midi::VoiceID;

    fn cc(number: u8, value: f32) -> NoteEvent<()> {
        NoteEvent::MidiCC { timing: 3, channel: 2, cc: number, value }
    }

    #[test]
    fn events_that_count_keep_their_place() {
        let on = |velocity| NoteEvent::<()>::NoteOn {
            timing: 17,
            voice_id: VoiceID::Wildcard,
            channel: Channel::Number(1),
            key: Key::Number(64),
            velocity,
        };
        let at = |offset, event| Some(TimedEvent { offset, event });
        assert_eq!(event(&on(0.5)), at(17, KeyEvent::On { channel: 1, key: 64, velocity: 64 }));
        assert_eq!(event(&on(0.0)), at(17, KeyEvent::Off { channel: 1, key: 64 }));
        assert_eq!(event(&cc(123, 0.0)), at(3, KeyEvent::AllOff));
        assert_eq!(event(&cc(123, 0.5)), None, "Ardour sends every controller at half when it loads a plugin");
        assert_eq!(event(&cc(1, 0.0)), at(3, KeyEvent::Controller { number: 1, value: 0 }));
        assert_eq!(event(&cc(74, 90.0 / 127.0)), at(3, KeyEvent::Controller { number: 74, value: 90 }));
        assert_eq!(event(&cc(74, f32::NAN)), None);
        let program = NoteEvent::<()>::MidiProgramChange { timing: 5, channel: 9, program: 12 };
        assert_eq!(event(&program), at(5, KeyEvent::Program(12)));
        let off = NoteEvent::<()>::NoteOff {
            timing: 0,
            voice_id: VoiceID::Wildcard,
            channel: Channel::Wildcard,
            key: Key::Wildcard,
            velocity: 0.0,
        };
        assert_eq!(event(&off), at(0, KeyEvent::AllOff), "a release of any key is a release of all");
    }

    #[test]
    fn positions_come_from_samples_or_seconds() {
        let mut host = HostTransport::new(48_000.0);
        assert!(!transport(&host).is_reported());
        host.playing = true;
        host.pos_seconds = Some(1.5);
        host.pos_beats = Some(4.0);
        host.loop_range_seconds = Some((0.5, 2.0));
        let seen = transport(&host);
        assert_eq!((seen.pos_samples, seen.loop_start_samples), (Some(72_000), Some(24_000)));
        assert_eq!((seen.bar_start_beats, seen.bar_beats), (None, None));
        (host.bar_start_pos_beats, host.time_sig_numerator, host.time_sig_denominator) = (Some(3.0), Some(6), Some(8));
        assert_eq!((transport(&host).bar_start_beats, transport(&host).bar_beats), (Some(3.0), Some(3.0)));
        host.time_sig_denominator = Some(0);
        assert_eq!(transport(&host).bar_beats, None);
        host.pos_samples = Some(7);
        assert_eq!(transport(&host).pos_samples, Some(7));
        host.pos_samples = None;
        host.pos_seconds = Some(f64::NAN);
        assert_eq!(transport(&host).pos_samples, None, "a position that is no number is none");
    }
}
