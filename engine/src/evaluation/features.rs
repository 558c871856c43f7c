//! A clip in a few hundred numbers: timbre, strikes and pitches, whatever its length and level. What the classifier of
//! instrument and texture sees. Worker threads.

mod pitches;
mod strikes;
mod timbre;

use super::onsets::Onsets;
use super::spectrum::LogMel;
use crate::dataset::render::{CLIP_RMS, rms};

/// Bands of the log-mel spectrum that timbre and strikes look at.
const BANDS: usize = 48;
/// Added to the power of each band, for a signal of [`CLIP_RMS`].
const FLOOR: f32 = 1e-8;
/// Cepstral coefficients kept.
const CEPSTRUM: usize = 20;
/// A clip quieter than this (-60 dB of full scale) has no features.
const SILENCE_RMS: f32 = 1e-3;

/// Raised with every change of what the numbers mean.
pub const FEATURES_VERSION: u32 = 1;

/// Features of mono audio at `rate` Hz; `None` when it is silent. All are finite, and their number is always the same.
pub fn features(mono: &[f32], rate: f64) -> Option<Vec<f32>> {
    let level = rms(mono);
    if !level.is_finite() || level < SILENCE_RMS {
        return None;
    }
    let scaled: Vec<f32> = mono.iter().map(|x| x * CLIP_RMS / level).collect();
    let mel = LogMel::new(&scaled, rate, BANDS, FLOOR);
    let onsets = Onsets::of(&scaled, rate);
    let cepstra = Cepstra::of(&mel);
    let mut out = Vec::with_capacity(400);
    timbre::write(&mel, &cepstra, &mut out);
    strikes::write(&mel, &cepstra, &onsets, &mut out);
    pitches::write(&scaled, rate, &onsets, &mut out);
    out.iter_mut().filter(|x| !x.is_finite()).for_each(|x| *x = 0.0);
    Some(out)
}

/// Those of the numbers that tell of timbre and rhythm and not of pitches: what steering to a note is to leave as it is.
pub fn without_pitches(features: &[f32]) -> &[f32] {
    &features[..features.len().saturating_sub(pitches::COUNT)]
}

/// Cosine transform of the log-mel spectrum, frame by frame.
struct Cepstra {
    rows: Vec<[f32; CEPSTRUM]>,
    /// Energy of each frame in dB, over all bands.
    energy: Vec<f32>,
}

impl Cepstra {
    fn of(mel: &LogMel) -> Self {
        let table: Vec<[f32; CEPSTRUM]> = (0..mel.bands)
            .map(|band| {
                let angle = std::f32::consts::PI * (band as f32 + 0.5) / mel.bands as f32;
                std::array::from_fn(|k| (angle * k as f32).cos() * (2.0 / mel.bands as f32).sqrt())
            })
            .collect();
        let transform = |frame: usize| {
            let mut row = [0.0; CEPSTRUM];
            for (value, cosines) in mel.row(frame).iter().zip(&table) {
                row.iter_mut().zip(cosines).for_each(|(sum, cosine)| *sum += value * cosine);
            }
            row
        };
        let energy = |frame: usize| 4.343 * mel.row(frame).iter().map(|x| x.exp()).sum::<f32>().max(1e-12).ln();
        Self { rows: (0..mel.frames()).map(transform).collect(), energy: (0..mel.frames()).map(energy).collect() }
    }

    /// Frames within 40 dB of the loudest.
    fn loud(&self) -> Vec<usize> {
        let most = self.energy.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (0..self.rows.len()).filter(|frame| self.energy[*frame] > most - 40.0).collect()
    }
}

/// Mean and standard deviation; zeros without values.
fn moments(values: impl Iterator<Item = f32> + Clone) -> [f32; 2] {
    let count = values.clone().count().max(1) as f32;
    let mean = values.clone().sum::<f32>() / count;
    [mean, (values.map(|x| (x - mean) * (x - mean)).sum::<f32>() / count).sqrt()]
}

/// Cosine of the angle between two vectors; 0 when one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// Shares of the values that fall between the edges, below the first and above the last too.
fn histogram(values: &[f32], edges: &[f32], out: &mut Vec<f32>) {
    let first = out.len();
    out.resize(first + edges.len() + 1, 0.0);
    for value in values {
        out[first + edges.iter().filter(|edge| value >= edge).count()] += 1.0 / values.len() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{RATE, noise, sine};
    use super::*;

    #[test]
    fn features_are_finite_and_know_neither_length_nor_level() {
        let tone: Vec<f32> = sine(440.0, 0.3, 6.0).iter().zip(&noise(0.01, 6.0)).map(|(a, b)| a + b).collect();
        let whole = features(&tone, RATE).expect("sounds");
        let half = features(&tone[..96_000], RATE).expect("sounds");
        let quiet: Vec<f32> = tone.iter().map(|x| 0.1 * x).collect();
        let quiet = features(&quiet, RATE).expect("sounds");
        assert!(whole.iter().all(|x| x.is_finite()));
        assert_eq!((whole.len(), whole.len()), (half.len(), quiet.len()));
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(far(&whole, &quiet) < 0.05, "{}", far(&whole, &quiet));
        for odd in [noise(0.3, 0.3), sine(50.0, 0.9, 0.05), vec![1.0; 3_000]] {
            let odd = features(&odd, RATE).expect("sounds");
            assert!(odd.len() == whole.len() && odd.iter().all(|x| x.is_finite()));
        }
        assert!(features(&[0.0; 32_000], RATE).is_none() && features(&[], RATE).is_none());
        assert!(features(&[f32::NAN; 32_000], RATE).is_none());
    }

    #[test]
    fn small_sums() {
        assert_eq!(moments([1.0, 3.0].into_iter()), [2.0, 1.0]);
        assert_eq!(cosine(&[1.0, 0.0], &[1.0, 1.0]), 0.5f32.sqrt());
        let mut out = Vec::new();
        histogram(&[0.5, 1.5, 1.6, 9.0], &[1.0, 2.0], &mut out);
        assert_eq!(out, [0.25, 0.5, 0.25]);
    }
}
