//! Whether there is music at all: silence and noise. Worker threads.

use super::spectrum::Spectra;

/// Frequencies that flatness looks at, in Hz.
const LOW: f64 = 60.0;
const HIGH: f64 = 14_000.0;
/// A frame with less than this mean square (-50 dB of full scale) is silence: the ear's own limit.
const SILENCE: f32 = 1e-5;

/// Mean over sounding frames of the spectral flatness between 60 Hz and 14 kHz: geometric over arithmetic mean of the
/// power. 0 for a sine, 0.56 for white noise; `None` when nothing sounds.
pub fn flatness(mono: &[f32], rate: f64) -> Option<f32> {
    let (size, hop) = (2048, 1024);
    let first = (LOW * size as f64 / rate).ceil() as usize;
    let last = ((HIGH * size as f64 / rate) as usize).min(size / 2);
    let (mut sum, mut count) = (0.0f64, 0u32);
    Spectra::new(size).visit(mono, hop, |_, power| {
        // Parseval, with what the window takes away: its mean square over its squared mean is 1.5.
        let energy = 2.0 * power.iter().sum::<f32>() / 1.5;
        if energy < SILENCE {
            return;
        }
        let bins = &power[first..=last];
        let mean = bins.iter().map(|p| f64::from(*p)).sum::<f64>() / bins.len() as f64;
        let logarithm = bins.iter().map(|p| f64::from(p.max(1e-20)).ln()).sum::<f64>() / bins.len() as f64;
        sum += logarithm.exp() / mean.max(1e-20);
        count += 1;
    });
    (count > 0).then(|| (sum / f64::from(count)) as f32)
}

/// The value that a share `p` of the values do not exceed, with linear interpolation; `None` without values.
pub fn percentile(values: &[f32], p: f64) -> Option<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let place = p.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * (place - place.floor()) as f32)
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{RATE, noise, sine};
    use super::*;

    #[test]
    fn noise_is_flat_and_tones_are_not() {
        let white = flatness(&noise(0.3, 2.0), RATE).expect("sounds");
        assert!((white - 0.56).abs() < 0.02, "{white}");
        let tone = flatness(&sine(440.0, 0.3, 2.0), RATE).expect("sounds");
        assert!(tone < 1e-3, "{tone}");
        assert_eq!(flatness(&[0.0; 64_000], RATE), None);
        assert_eq!(flatness(&noise(0.001, 2.0), RATE), None);
    }

    #[test]
    fn percentiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&values, 0.5), Some(2.5));
        assert_eq!(percentile(&values, 0.0), Some(1.0));
        assert_eq!(percentile(&values, 1.0), Some(4.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
