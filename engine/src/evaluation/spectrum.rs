//! Short-time power spectra and mel bands, the ground of the measures. Worker threads.

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Power spectra of a mono signal, frame by frame.
pub struct Spectra {
    window: Vec<f32>,
    scale: f32,
    fft: Arc<dyn RealToComplex<f32>>,
    input: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl Spectra {
    /// Spectra through a Hann window of `size` samples, `size / 2 + 1` bins each. A sine of amplitude 1 in the middle of a
    /// bin has a power of 1/4 there.
    pub fn new(size: usize) -> Self {
        let step = std::f64::consts::TAU / size as f64;
        let window: Vec<f32> = (0..size).map(|i| (0.5 - 0.5 * (step * (i as f64 + 0.5)).cos()) as f32).collect();
        let fft = RealFftPlanner::new().plan_fft_forward(size);
        let sum: f32 = window.iter().sum();
        Self {
            scale: 1.0 / (sum * sum),
            window,
            input: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            power: vec![0.0; size / 2 + 1],
            fft,
        }
    }

    /// Frames that a signal of `samples` samples has at a hop.
    pub fn count(samples: usize, hop: usize) -> usize {
        samples.div_ceil(hop.max(1))
    }

    /// Calls `visit` with the number and the power spectrum of each frame; frame i is centred on sample
    /// `i * hop + hop / 2`, with silence beyond both ends. Samples that are not finite count as 0.
    pub fn visit(&mut self, mono: &[f32], hop: usize, mut visit: impl FnMut(usize, &[f32])) {
        let half = self.window.len() / 2;
        for frame in 0..Self::count(mono.len(), hop) {
            let centre = frame * hop + hop / 2;
            for (i, (slot, w)) in self.input.iter_mut().zip(&self.window).enumerate() {
                let sample = (centre + i).checked_sub(half).and_then(|at| mono.get(at)).copied().unwrap_or(0.0);
                *slot = if sample.is_finite() { sample * w } else { 0.0 };
            }
            let done = self.fft.process_with_scratch(&mut self.input, &mut self.spectrum, &mut self.scratch);
            debug_assert!(done.is_ok(), "the buffers come from the plan itself");
            for (power, bin) in self.power.iter_mut().zip(&self.spectrum) {
                *power = bin.norm_sqr() * self.scale;
            }
            visit(frame, &self.power);
        }
    }
}

/// Triangular bands, evenly spaced on the mel scale (O'Shaughnessy's 2595 log10(1 + f / 700)).
pub struct MelBank {
    bands: Vec<(usize, Vec<f32>)>,
}

impl MelBank {
    /// `bands` bands between two frequencies in Hz, for spectra through `size` samples at `rate` Hz.
    pub fn new(bands: usize, low: f64, high: f64, size: usize, rate: f64) -> Self {
        let mel = |f: f64| 2595.0 * (1.0 + f / 700.0).log10();
        let hz = |m: f64| 700.0 * (10f64.powf(m / 2595.0) - 1.0);
        let edge = |i: usize| hz(mel(low) + (mel(high) - mel(low)) * i as f64 / (bands + 1) as f64);
        let bin = rate / size as f64;
        let band = |i: usize| {
            let (left, centre, right) = (edge(i), edge(i + 1), edge(i + 2));
            // A band narrower than a bin still gets the bin next to its centre.
            let first = (left / bin).ceil().min((centre / bin).round()) as usize;
            let last = ((right / bin).floor().max((centre / bin).round()) as usize).min(size / 2);
            let weight = |k: usize| {
                let f = k as f64 * bin;
                let slope = if f < centre { (f - left) / (centre - left) } else { (right - f) / (right - centre) };
                slope.max(0.0) as f32
            };
            let mut weights: Vec<f32> = (first..=last.max(first)).map(weight).collect();
            if weights.iter().sum::<f32>() < 0.5 {
                let even = 1.0 / weights.len() as f32;
                weights.fill(even);
            }
            (first, weights)
        };
        Self { bands: (0..bands).map(band).collect() }
    }

    /// Power in each band.
    pub fn apply(&self, power: &[f32], out: &mut Vec<f32>) {
        out.extend(self.bands.iter().map(|(first, weights)| {
            power.iter().skip(*first).zip(weights).map(|(power, weight)| power * weight).sum::<f32>()
        }));
    }
}

/// Natural logarithm of the power in mel bands, frame by frame.
pub struct LogMel {
    /// Number of bands.
    pub bands: usize,
    /// Seconds per frame.
    pub hop_seconds: f64,
    /// `[frame][band]`.
    pub rows: Vec<f32>,
}

impl LogMel {
    /// `bands` bands from 40 Hz to 15 kHz (or just below half the rate) through windows of 32 ms, every 10 ms, with `floor`
    /// added to the power.
    pub fn new(mono: &[f32], rate: f64, bands: usize, floor: f32) -> Self {
        let size = 2 * (rate * 0.016).round() as usize;
        let hop = (rate * 0.01).round() as usize;
        let bank = MelBank::new(bands, 40.0, 15_000f64.min(0.47 * rate), size, rate);
        let mut rows = Vec::with_capacity(Spectra::count(mono.len(), hop) * bands);
        Spectra::new(size).visit(mono, hop, |_, power| bank.apply(power, &mut rows));
        rows.iter_mut().for_each(|power| *power = (*power + floor).ln());
        Self { bands, hop_seconds: hop as f64 / rate, rows }
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.rows.len() / self.bands
    }

    /// One frame; past the end, the last one, and nothing if there is none.
    pub fn row(&self, frame: usize) -> &[f32] {
        let frame = frame.min(self.frames().saturating_sub(1));
        self.rows.get(frame * self.bands..(frame + 1) * self.bands).unwrap_or(&[])
    }
}

#[cfg(test)]
pub(super) mod signals {
    use crate::dataset::random::Random;

    pub const RATE: f64 = 32_000.0;

    /// A sine of amplitude `a`.
    pub fn sine(frequency: f64, a: f64, seconds: f64) -> Vec<f32> {
        let step = std::f64::consts::TAU * frequency / RATE;
        (0..(seconds * RATE) as usize).map(|i| (a * (step * i as f64).sin()) as f32).collect()
    }

    /// White noise, uniform in -a to a.
    pub fn noise(a: f64, seconds: f64) -> Vec<f32> {
        let mut random = Random::new(1, 0, 0);
        (0..(seconds * RATE) as usize).map(|_| (a * (2.0 * random.unit() - 1.0)) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signals::{RATE, noise, sine};

    #[test]
    fn a_sine_has_its_power_at_its_frequency() {
        let mut spectra = Spectra::new(2048);
        let (mut frames, mut peak) = (0, (0, 0.0f32));
        spectra.visit(&sine(1_000.0, 1.0, 1.0), 1_000, |frame, power| {
            frames += 1;
            if frame == 16 {
                peak = power.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
            }
        });
        assert_eq!((frames, peak.0), (32, 64));
        assert!((peak.1 - 0.25).abs() < 1e-3, "{}", peak.1);
    }

    #[test]
    fn mel_bands_are_all_used_and_follow_frequency() {
        let strongest = |f: f64| {
            let mel = LogMel::new(&sine(f, 0.5, 0.5), RATE, 48, 1e-8);
            mel.row(20).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(band, _)| band)
        };
        let bands: Vec<_> = [60.0, 200.0, 800.0, 3_000.0, 12_000.0].map(strongest).into();
        assert!(bands.windows(2).all(|w| w[0] < w[1]), "{bands:?}");
        let mel = LogMel::new(&noise(0.5, 0.5), RATE, 48, 1e-8);
        assert!(mel.row(20).iter().all(|power| *power > -16.0), "{:?}", mel.row(20));
        assert_eq!(mel.frames(), 50);
    }
}
