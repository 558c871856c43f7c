//! Everything that is heard in one piece of audio. Worker threads.

use super::chroma::{Chroma, ChromaError};
use super::features::features;
use super::onsets::Onsets;
use super::sound::flatness;
use super::tonality::Pitches;
use serde::{Deserialize, Serialize};

/// What one piece sounds like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// Pitch classes, and how much of the piece is silent.
    pub pitches: Pitches,
    /// Onsets per second.
    pub onset_rate: f32,
    /// Spectral flatness over sounding frames; `None` for silence.
    pub flatness: Option<f32>,
    /// Root mean square.
    pub rms: f32,
    /// What the classifier sees; `None` for silence, or when nobody asked.
    pub features: Option<Vec<f32>>,
}

impl Heard {
    /// Listens to mono audio at `rate` Hz, pitch in frames of `hop` samples.
    ///
    /// # Errors
    /// When the ear cannot be set up for the rate.
    pub fn of(mono: &[f32], rate: f64, hop: usize, with_features: bool) -> Result<Self, ChromaError> {
        Ok(Self {
            pitches: Pitches::of(&Chroma::new(rate)?.frames(mono, hop)),
            onset_rate: Onsets::of(mono, rate).rate() as f32,
            flatness: flatness(mono, rate),
            rms: crate::dataset::render::rms(mono),
            features: if with_features { features(mono, rate) } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{RATE, noise, sine};
    use super::*;

    #[test]
    fn a_tone_noise_and_silence_are_told_apart() {
        let tone = Heard::of(&sine(440.0, 0.2, 2.0), RATE, 640, false).expect("rate");
        let hiss = Heard::of(&noise(0.2, 2.0), RATE, 640, false).expect("rate");
        let silence = Heard::of(&[0.0; 64_000], RATE, 640, true).expect("rate");
        assert_eq!((tone.pitches.max_share(), tone.pitches.counts[9]), (1.0, 100));
        assert!(hiss.flatness > Some(0.5) && tone.flatness < Some(0.01));
        assert!(hiss.pitches.entropy() > 1.0 && tone.pitches.entropy() == 0.0);
        assert_eq!((silence.pitches.silence_share(), silence.flatness, silence.features), (1.0, None, None));
    }
}
