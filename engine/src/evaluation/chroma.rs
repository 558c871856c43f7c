//! The outside ear: which pitch class sounds, heard from audio alone, never from the model that made it. Worker threads.
//! Harmonic pitch class profile (Gomez, "Tonal description of polyphonic audio", 2006): spectral peaks vote for the
//! pitch classes that they can be partials of.

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Length of the window in seconds, before rounding to a power of two.
const WINDOW_SECONDS: f64 = 0.25;
/// Lowest fundamental that a peak may vote for, in Hz.
const LOWEST_FUNDAMENTAL: f64 = 50.0;
/// Highest peak that votes, in Hz: the second partial of B6.
const HIGHEST_PEAK: f64 = 4_200.0;
/// Partials that a peak may be: it votes for its frequency divided by 1 to this.
const PARTIALS: usize = 8;
/// Weight of partial n relative to partial n - 1.
const PARTIAL_DECAY: f64 = 0.8;
/// Peaks below this share of the frame's strongest do not vote.
const PEAK_FLOOR: f32 = 0.01;
/// A window quieter than this root mean square (-50 dB of full scale) is silence.
const SILENCE_RMS: f32 = 0.003_16;

/// The ear cannot be set up.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ChromaError {
    /// The sample rate is too low to hold the peaks, or not a rate at all.
    #[error("a sample rate of {0} Hz cannot be heard: it must lie between 8,400 and 768,000 Hz; resample first")]
    SampleRate(f64),
}

/// Hears pitch classes in mono audio.
pub struct Chroma {
    sample_rate: f64,
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    input: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    magnitudes: Vec<f32>,
}

impl Chroma {
    /// An ear for audio at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`ChromaError::SampleRate`] when the rate is below 8,400 Hz, above 768,000 Hz or not finite.
    pub fn new(sample_rate: f64) -> Result<Self, ChromaError> {
        if !(2.0 * HIGHEST_PEAK..=768_000.0).contains(&sample_rate) {
            return Err(ChromaError::SampleRate(sample_rate));
        }
        let length = ((sample_rate * WINDOW_SECONDS).log2().round() as u32).clamp(10, 18);
        let length = 1usize << length;
        let step = std::f64::consts::TAU / length as f64;
        let window = (0..length).map(|i| (0.5 - 0.5 * (step * (i as f64 + 0.5)).cos()) as f32).collect();
        // Padded to twice the window: finer bins, so that a parabola through three of them finds a peak's top.
        let fft = RealFftPlanner::new().plan_fft_forward(2 * length);
        Ok(Self {
            sample_rate,
            window,
            input: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            magnitudes: vec![0.0; length + 1],
            fft,
        })
    }

    /// The pitch class energies of each span of `hop` samples: frame i is heard through a window centred on the middle
    /// of `[i * hop, (i + 1) * hop)`, with silence assumed beyond both ends. Index 0 is C. Twelve zeros are silence.
    /// The unit is arbitrary; compare energies within a frame only. `hop` 0 counts as 1.
    pub fn frames(&mut self, mono: &[f32], hop: usize) -> Vec<[f32; 12]> {
        let hop = hop.max(1);
        (0..mono.len().div_ceil(hop)).map(|i| self.frame(mono, i * hop + hop / 2)).collect()
    }

    fn frame(&mut self, mono: &[f32], centre: usize) -> [f32; 12] {
        let half = self.window.len() / 2;
        let mut power = 0.0f32;
        for (i, (slot, w)) in self.input.iter_mut().zip(&self.window).enumerate() {
            let sample = (centre + i).checked_sub(half).and_then(|at| mono.get(at)).copied().unwrap_or(0.0);
            let sample = if sample.is_finite() { sample } else { 0.0 };
            power += sample * sample;
            *slot = sample * w;
        }
        self.input[self.window.len()..].fill(0.0);
        if (power / self.window.len() as f32).sqrt() < SILENCE_RMS {
            return [0.0; 12];
        }
        let done = self.fft.process_with_scratch(&mut self.input, &mut self.spectrum, &mut self.scratch);
        debug_assert!(done.is_ok(), "the buffers come from the plan itself");
        for (magnitude, bin) in self.magnitudes.iter_mut().zip(&self.spectrum) {
            *magnitude = bin.norm();
        }
        self.votes()
    }

    /// Collects the votes of the peaks in `magnitudes`.
    fn votes(&self) -> [f32; 12] {
        let bin = self.sample_rate / (2 * self.window.len()) as f64;
        let first = ((LOWEST_FUNDAMENTAL / bin) as usize).max(1);
        let last = ((HIGHEST_PEAK / bin) as usize).min(self.magnitudes.len() - 2);
        let floor = PEAK_FLOOR * self.magnitudes[first..=last].iter().fold(0.0f32, |a, &b| a.max(b));
        let mut votes = [0.0f64; 12];
        for k in first..=last {
            let [below, here, above] = [self.magnitudes[k - 1], self.magnitudes[k], self.magnitudes[k + 1]];
            if here <= below || here < above || here < floor {
                continue;
            }
            let [l, c, r] = [below, here, above].map(|m| f64::from(m.max(1e-12)).ln());
            let frequency = (k as f64 + 0.5 * (l - r) / (l - 2.0 * c + r).min(-1e-9)) * bin;
            let mut weight = f64::from(here);
            for partial in 1..=PARTIALS {
                let fundamental = frequency / partial as f64;
                if fundamental < LOWEST_FUNDAMENTAL {
                    break;
                }
                let pitch = 69.0 + 12.0 * (fundamental / 440.0).log2();
                let nearest = pitch.round();
                // A vote counts less the further it lies from the middle of its semitone.
                let aim = (std::f64::consts::PI * (pitch - nearest)).cos();
                votes[(nearest as i64).rem_euclid(12) as usize] += weight * aim * aim;
                weight *= PARTIAL_DECAY;
            }
        }
        votes.map(|vote| (vote * vote) as f32)
    }
}

/// The strongest pitch class of a frame, 0 = C; `None` for silence.
pub fn strongest(frame: &[f32; 12]) -> Option<usize> {
    let (best, energy) = frame.iter().enumerate().fold((0, 0.0f32), |a, (i, &e)| if e > a.1 { (i, e) } else { a });
    (energy > 0.0).then_some(best)
}

/// Share of the targeted frames whose strongest pitch class is the target, 0 to 1. Frames without a target do not
/// count, silent ones with a target are misses, and so are targets beyond the last frame. `None` without any target.
pub fn share_on_target(frames: &[[f32; 12]], targets: &[Option<usize>]) -> Option<f32> {
    let wanted = targets.iter().flatten().count();
    let hits = frames.iter().zip(targets).filter(|(frame, target)| target.is_some() && strongest(frame) == **target);
    (wanted > 0).then(|| hits.count() as f32 / wanted as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::concepts::{Concept, PROGRAMS};
    use crate::dataset::render::{DEFAULT_SOUNDFONT, Renderer};
    use std::path::Path;

    fn tone(midi: u8, rate: f64, partials: &[f64]) -> Vec<f32> {
        let f0 = 440.0 * 2f64.powf((f64::from(midi) - 69.0) / 12.0);
        let sample = |i: usize| {
            let phase = std::f64::consts::TAU * f0 * i as f64 / rate;
            let partial = |(n, a): (usize, &f64)| {
                if f0 * (n + 1) as f64 > rate / 2.0 { 0.0 } else { a * (phase * (n + 1) as f64).sin() }
            };
            (0.1 * partials.iter().enumerate().map(partial).sum::<f64>()) as f32
        };
        (0..rate as usize).map(sample).collect()
    }

    #[test]
    fn harmonic_tones_are_always_heard_right() {
        for rate in [32_000.0, 44_100.0, 48_000.0] {
            let mut ear = Chroma::new(rate).expect("rate");
            // A falling spectrum, a clarinet's odd partials, and a third partial louder than the fundamental.
            for partials in [&[1.0, 0.5, 0.33, 0.25, 0.2][..], &[1.0, 0.0, 0.6, 0.0, 0.4], &[0.6, 0.5, 1.0, 0.4, 0.3]] {
                for midi in 36..95u8 {
                    for frame in ear.frames(&tone(midi, rate, partials), 3_200) {
                        assert_eq!(strongest(&frame), Some(usize::from(midi) % 12), "{midi} at {rate} {partials:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn rendered_notes_are_heard_right() {
        let renderer = Renderer::open(Path::new(DEFAULT_SOUNDFONT)).unwrap_or_else(|error| panic!("{error}"));
        let mut ear = Chroma::new(32_000.0).expect("rate");
        let (mut right, mut sounding) = (0, 0);
        // Every seventh of all notes meets every instrument and pitch class.
        for note in Concept::Notes.clips(&PROGRAMS).into_iter().step_by(7) {
            let Some(audio) = note.render(&renderer).expect("renders") else { continue };
            for heard in ear.frames(&audio, 6_400).iter().filter_map(strongest) {
                sounding += 1;
                right += usize::from(heard == note.class);
            }
        }
        let share = f64::from(right as u32) / f64::from(sounding);
        assert!(share >= 0.95, "{right} of {sounding} sounding frames heard right");
    }

    #[test]
    fn triads_put_their_three_tones_first() {
        let mut ear = Chroma::new(32_000.0).expect("rate");
        for root in 48..72u8 {
            let tones = [root, root + 4, root + 7].map(|midi| tone(midi, 32_000.0, &[1.0, 0.5, 0.3, 0.2]));
            let sum: Vec<f32> = (0..32_000).map(|i| tones.iter().map(|t| t[i]).sum()).collect();
            let frame = ear.frames(&sum, 32_000)[0];
            let mut order: Vec<usize> = (0..12).collect();
            order.sort_by(|&a, &b| frame[b].total_cmp(&frame[a]));
            let mut first: Vec<usize> = order[..3].to_vec();
            let mut wanted = [root, root + 4, root + 7].map(|m| usize::from(m) % 12);
            first.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(first, wanted, "root {root}: {frame:?}");
        }
    }

    #[test]
    fn silence_and_bad_samples_are_nothing() {
        let mut ear = Chroma::new(32_000.0).expect("rate");
        assert!(ear.frames(&[0.0; 64_000], 640).iter().all(|frame| strongest(frame).is_none()));
        assert!(ear.frames(&[f32::NAN; 64_000], 640).iter().all(|frame| strongest(frame).is_none()));
        assert!(ear.frames(&[], 640).is_empty());
        assert_eq!(Chroma::new(8_000.0).err(), Some(ChromaError::SampleRate(8_000.0)));
        assert!(Chroma::new(f64::NAN).is_err());
    }

    #[test]
    fn silent_frames_are_misses() {
        let mut c = [0.0f32; 12];
        c[0] = 1.0;
        let frames = [c, [0.0; 12], c, c];
        assert_eq!(share_on_target(&frames, &[Some(0), Some(0), None, Some(4)]), Some(1.0 / 3.0));
        assert_eq!(share_on_target(&frames, &[None; 4]), None);
        assert_eq!(share_on_target(&frames[..1], &[Some(0); 2]), Some(0.5));
    }
}
