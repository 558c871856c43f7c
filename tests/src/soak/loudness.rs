//! Loudness by the minute, and how far it drifts.

/// Loudness of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Loudness {
    /// RMS of each whole minute in dB of full scale.
    pub minutes: Vec<f64>,
    /// Slope of the line of least squares through `minutes`, times their number: dB from the beginning to the end.
    pub drift: f64,
    /// The last two minutes' RMS against the first two's, dB.
    pub ends: f64,
}

impl Loudness {
    /// From the mean square of each frame. `None` when there are fewer than four minutes of `per_minute` frames.
    pub fn of(power: &[f32], per_minute: usize) -> Option<Self> {
        let mean = |power: &[f32]| power.iter().map(|p| f64::from(*p)).sum::<f64>() / power.len().max(1) as f64;
        let minutes: Vec<&[f32]> = power.chunks_exact(per_minute.max(1)).collect();
        if minutes.len() < 4 {
            return None;
        }
        let count = minutes.len();
        let ends = decibels(mean(&minutes[count - 2..].concat()) / mean(&minutes[..2].concat()));
        let minutes: Vec<f64> = minutes.into_iter().map(|minute| decibels(mean(minute))).collect();
        let (centre, average) = ((count - 1) as f64 / 2.0, minutes.iter().sum::<f64>() / count as f64);
        let deviation = |index: usize| index as f64 - centre;
        let both: f64 = minutes.iter().enumerate().map(|(i, level)| deviation(i) * (level - average)).sum();
        let square: f64 = (0..count).map(|i| deviation(i) * deviation(i)).sum();
        Some(Self { drift: both / square * count as f64, minutes, ends })
    }

    /// The larger of both measures.
    pub fn worst(&self) -> f64 {
        self.drift.abs().max(self.ends.abs())
    }

    /// The quietest minute.
    pub fn quietest(&self) -> f64 {
        self.minutes.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn decibels(power: f64) -> f64 {
    10.0 * power.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fade_of_nine_decibels_in_ten_minutes() {
        let power: Vec<f32> = (0..10).flat_map(|minute| [10f32.powf(-0.1 * minute as f32); 50]).collect();
        let loudness = Loudness::of(&power, 50).unwrap();
        assert!((loudness.drift + 10.0).abs() < 1e-3, "{loudness:?}");
        assert!((loudness.ends + 8.0).abs() < 0.01, "{loudness:?}");
        assert!((loudness.quietest() + 9.0).abs() < 1e-3);
    }

    #[test]
    fn a_steady_level_does_not_drift() {
        let loudness = Loudness::of(&[0.25; 400], 100).unwrap();
        assert_eq!((loudness.drift, loudness.ends), (0.0, 0.0));
        assert!((loudness.minutes[0] + 6.0206).abs() < 1e-3);
        assert_eq!(Loudness::of(&[0.25; 399], 100), None);
    }
}
