//! The host's view of the instrument: parameter ids, ranges, texts. Ids and choice ids are frozen once released.

pub mod choices;
pub mod groups;

use std::sync::Arc;

use nice_plug::prelude::*;
use tiller_engine::control::{Chord, TRAITS};
use tiller_engine::decoder::sampling::Sampling;

use crate::params::choices::{ChordQuality, Late, Latency, Note, Quantise, Root, Run};
use crate::state::ProjectField;

/// Gain in dB; at the lower end it is silence.
pub const GAIN_DB: (f32, f32) = (-60.0, 12.0);
/// Sampling temperature.
pub const TEMPERATURE: (f32, f32) = (0.0, 2.0);
/// Guidance scale.
pub const GUIDANCE: (f32, f32) = (1.0, 6.0);
/// Most codes that sampling chooses from.
pub const TOP_K: i32 = 2_048;
/// Longest attack and release, in seconds: two bars of a slow song.
pub const LONGEST: f32 = 8.0;

/// Everything a host automates or stores. Floats are stepped so that a value that goes through a host's normalised
/// `f32` comes back the same: 0 dB is exactly 1, strength 0 is exactly unsteered.
#[derive(Params)]
pub struct TillerParams {
    /// Prompt, model and directions: one versioned JSON text, see `state.rs`.
    #[persist = "project"]
    pub project: ProjectField,

    /// Target of the note lane. A held MIDI key overrides it.
    #[id = "note"]
    pub note: EnumParam<Note>,
    /// Signed strength of the note lane, -1 to 1. It is 1 from the start, so that choosing a note steers at once.
    #[id = "note_strength"]
    pub note_strength: FloatParam,
    /// Root of the chord lane. Held MIDI keys override it.
    #[id = "chord_root"]
    pub chord_root: EnumParam<Root>,
    /// Quality of the chord lane; off is no chord.
    #[id = "chord_quality"]
    pub chord_quality: EnumParam<ChordQuality>,
    /// Signed strength of the chord lane, -1 to 1; 1 from the start, as that of the note lane.
    #[id = "chord_strength"]
    pub chord_strength: FloatParam,
    /// Slower to faster, -1 to 1.
    #[id = "tempo_strength"]
    pub tempo_strength: FloatParam,
    /// Strength of the first direction of the musician's own, -1 (away from it) to 1. Without a file in its slot it does nothing.
    #[id = "trait_1_strength"]
    pub trait_1_strength: FloatParam,
    /// Of the second.
    #[id = "trait_2_strength"]
    pub trait_2_strength: FloatParam,
    /// Of the third.
    #[id = "trait_3_strength"]
    pub trait_3_strength: FloatParam,
    /// Of the fourth.
    #[id = "trait_4_strength"]
    pub trait_4_strength: FloatParam,
    /// Master strength of all lanes, 0 to 1.
    #[id = "strength"]
    pub strength: FloatParam,
    /// Seconds in which a new target's dose rises, 0 to 8.
    #[id = "attack"]
    pub attack: FloatParam,
    /// Seconds in which the dose of a target that is left falls, 0 to 8.
    #[id = "release"]
    pub release: FloatParam,
    /// Sampling temperature, 0 to 2; 0 takes the most likely code.
    #[id = "temperature"]
    pub temperature: FloatParam,
    /// Guidance scale, 1 to 6.
    #[id = "guidance"]
    pub guidance: FloatParam,
    /// How many codes sampling chooses from, 0 to 2048; 0 means all.
    #[id = "top_k"]
    pub top_k: IntParam,
    /// Seed of the randomness, 0 to 9999.
    #[id = "seed"]
    pub seed: IntParam,
    /// Output gain in dB, -60 (silence) to 12.
    #[id = "gain"]
    pub gain: FloatParam,
    /// Whether new targets wait for the host's beat or bar.
    #[id = "quantise"]
    pub quantise: EnumParam<Quantise>,
    /// When the instrument sounds.
    #[id = "run"]
    pub run: EnumParam<Run>,
    /// What happens when a frame is late. Not automatable.
    #[id = "late"]
    pub late: EnumParam<Late>,
    /// Room for jitter in the latency. Not automatable.
    #[id = "latency"]
    pub latency: EnumParam<Latency>,
    /// Room for jitter in frames, 1 to 50, when `latency` is `frames`. Not automatable.
    #[id = "latency_frames"]
    pub latency_frames: IntParam,
    /// The host's bypass: silence at the output while the engine goes on.
    #[id = "bypass"]
    pub bypass: BoolParam,
}

impl TillerParams {
    /// The parameters at their defaults, storing the project in `project`.
    pub fn new(project: ProjectField) -> Self {
        Self {
            project,
            note: EnumParam::new("Note", Note::Off),
            note_strength: stepped("Note strength", 1.0, -1.0, 1.0, 0.001, 3),
            chord_root: EnumParam::new("Chord root", Root::C),
            chord_quality: EnumParam::new("Chord", ChordQuality::Off),
            chord_strength: stepped("Chord strength", 1.0, -1.0, 1.0, 0.001, 3),
            tempo_strength: stepped("Tempo", 0.0, -1.0, 1.0, 0.001, 3),
            trait_1_strength: stepped("Trait 1", 0.0, -1.0, 1.0, 0.001, 3),
            trait_2_strength: stepped("Trait 2", 0.0, -1.0, 1.0, 0.001, 3),
            trait_3_strength: stepped("Trait 3", 0.0, -1.0, 1.0, 0.001, 3),
            trait_4_strength: stepped("Trait 4", 0.0, -1.0, 1.0, 0.001, 3),
            strength: stepped("Strength", 1.0, 0.0, 1.0, 0.001, 3),
            attack: seconds("Attack"),
            release: seconds("Release"),
            temperature: stepped("Temperature", Sampling::DEFAULT.temperature, TEMPERATURE.0, TEMPERATURE.1, 0.01, 2),
            guidance: stepped("Guidance", Sampling::DEFAULT.guidance, GUIDANCE.0, GUIDANCE.1, 0.01, 2),
            top_k: IntParam::new("Top k", Sampling::DEFAULT.top_k as i32, IntRange::Linear { min: 0, max: TOP_K })
                .with_value_to_string(Arc::new(|value| if value == 0 { "all".into() } else { value.to_string() }))
                .with_string_to_value(Arc::new(|text| match text.trim() {
                    all if all.eq_ignore_ascii_case("all") => Some(0),
                    number => number.parse().ok().filter(|k| (0..=TOP_K).contains(k)),
                })),
            seed: IntParam::new("Seed", 0, IntRange::Linear { min: 0, max: 9999 }),
            gain: stepped("Gain", 0.0, GAIN_DB.0, GAIN_DB.1, 0.1, 1)
                .with_unit(" dB")
                .with_value_to_string(Arc::new(|db| match db {
                    silent if silent <= GAIN_DB.0 => "-inf".into(),
                    zero if zero.abs() < 0.05 => "0.0".into(),
                    db => format!("{db:.1}"),
                }))
                .with_string_to_value(Arc::new(|text| {
                    let number = text.trim().trim_end_matches(['d', 'D', 'b', 'B']).trim_end();
                    let db = number.parse::<f32>().ok().filter(|db| !db.is_nan())?;
                    Some(db.clamp(GAIN_DB.0, GAIN_DB.1))
                })),
            quantise: EnumParam::new("Quantise", Quantise::Off),
            run: EnumParam::new("Run", Run::Transport),
            late: EnumParam::new("Late", Late::Auto).non_automatable(),
            latency: EnumParam::new("Latency", Latency::Safe).non_automatable(),
            latency_frames: IntParam::new("Latency frames", 3, IntRange::Linear { min: 1, max: 50 }).non_automatable(),
            bypass: BoolParam::new("Bypass", false).make_bypass(),
        }
    }

    /// Strengths of the trait lanes.
    pub fn traits(&self) -> [&FloatParam; TRAITS] {
        [&self.trait_1_strength, &self.trait_2_strength, &self.trait_3_strength, &self.trait_4_strength]
    }

    /// The chord lane's target, or `None` when the lane is off.
    ///
    /// # Realtime safety
    /// Atomic loads and arithmetic.
    pub fn chord(&self) -> Option<Chord> {
        self.chord_quality
            .value()
            .quality()
            .map(|quality| Chord { root: self.chord_root.value().pitch_class(), quality })
    }

    /// The gain as a factor: exactly 1 at 0 dB and exactly 0 at the bottom.
    ///
    /// # Realtime safety
    /// Atomic loads and arithmetic.
    pub fn linear_gain(&self) -> f32 {
        let db = self.gain.value();
        if db <= GAIN_DB.0 { 0.0 } else { util::db_to_gain(db) }
    }
}

/// A time: fine where it is short.
fn seconds(name: &str) -> FloatParam {
    let range = FloatRange::Skewed { min: 0.0, max: LONGEST, factor: FloatRange::skew_factor(-1.0) };
    FloatParam::new(name, 0.0, range)
        .with_step_size(0.01)
        .with_unit(" s")
        .with_value_to_string(formatters::v2s_f32_rounded(2))
        .with_string_to_value(Arc::new(|text| {
            let number = text.trim().trim_end_matches(['s', 'S']).trim_end();
            let seconds = number.parse::<f32>().ok().filter(|seconds| seconds.is_finite())?;
            Some(seconds.clamp(0.0, LONGEST))
        }))
}

fn stepped(name: &str, default: f32, min: f32, max: f32, step: f32, digits: usize) -> FloatParam {
    FloatParam::new(name, default, FloatRange::Linear { min, max })
        .with_step_size(step)
        .with_value_to_string(formatters::v2s_f32_rounded(digits))
        .with_string_to_value(Arc::new(move |text| {
            text.trim().parse::<f32>().ok().filter(|value| value.is_finite()).map(|value| value.clamp(min, max))
        }))
}

#[cfg(test)]
mod tests;
