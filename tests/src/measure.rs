//! What the tests and the demo measure in sound that came out of a host.

/// Shortest run of exact zeros that counts as a gap: the model's own silence is never exactly 0 for so long, and a late
/// frame leaves at least three quarters of 20 ms.
pub const GAP_SECONDS: f64 = 0.008;

/// Root mean square.
pub fn rms(samples: &[f32]) -> f64 {
    let sum: f64 = samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
    (sum / samples.len().max(1) as f64).sqrt()
}

/// Index of the first sample that is not exactly 0.
pub fn first_sound(samples: &[f32]) -> Option<usize> {
    samples.iter().position(|s| *s != 0.0)
}

/// Gaps inside the sound: runs of exact zeros after the first and before the last sounding sample, as (start, length).
pub fn gaps(samples: &[f32], rate: f64) -> Vec<(usize, usize)> {
    let shortest = (GAP_SECONDS * rate) as usize;
    let mut gaps = Vec::new();
    let Some(first) = first_sound(samples) else { return gaps };
    let mut zeros = 0;
    for (index, sample) in samples.iter().enumerate().skip(first) {
        if *sample == 0.0 {
            zeros += 1;
            continue;
        }
        if zeros >= shortest {
            gaps.push((index - zeros, zeros));
        }
        zeros = 0;
    }
    gaps
}

/// First index where two signals differ, or where the shorter one ends.
pub fn first_difference(a: &[f32], b: &[f32]) -> Option<usize> {
    let common = a.iter().zip(b).position(|(x, y)| x.to_bits() != y.to_bits());
    common.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))
}

/// The delay of `late` against `early`, in samples, at which the correlation of their slopes is largest. Slopes, since
/// what moves slowly or not at all agrees with itself at every delay.
pub fn delay(early: &[f32], late: &[f32], max_delay: usize) -> usize {
    let slopes =
        |signal: &[f32]| -> Vec<f64> { signal.windows(2).map(|w| f64::from(w[1]) - f64::from(w[0])).collect() };
    let (early, late) = (slopes(early), slopes(late));
    let correlation = |shift: usize| -> f64 { early.iter().zip(late.iter().skip(shift)).map(|(a, b)| a * b).sum() };
    (0..=max_delay).map(|shift| (shift, correlation(shift))).max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |best| best.0)
}

/// A signal at another rate: windowed-sinc interpolation, with no delay of its own, precise enough to find delays by.
pub fn at_rate(signal: &[f32], from: f64, to: f64) -> Vec<f32> {
    const REACH: i64 = 24;
    let length = (signal.len() as f64 * to / from) as usize;
    let sample = |out: usize| -> f32 {
        let place = out as f64 * from / to;
        let centre = place.floor() as i64;
        let mut sum = 0.0;
        for index in centre - REACH + 1..=centre + REACH {
            let Some(value) = usize::try_from(index).ok().and_then(|i| signal.get(i)) else { continue };
            let distance = place - index as f64;
            let angle = std::f64::consts::PI * distance;
            let sinc = if distance == 0.0 { 1.0 } else { angle.sin() / angle };
            let window = (angle / (2.0 * REACH as f64)).cos().powi(2);
            sum += f64::from(*value) * sinc * window;
        }
        sum as f32
    };
    (0..length).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found_inside_the_sound_only() {
        let mut samples = vec![0.0; 1_000];
        samples[100..900].fill(0.5);
        samples[300..310].fill(0.0);
        samples[400..403].fill(0.0);
        assert_eq!(gaps(&samples, 1_000.0), [(300, 10)]);
        assert_eq!(gaps(&[0.0; 100], 1_000.0), []);
    }

    #[test]
    fn delay_is_where_the_signals_agree() {
        let early: Vec<f32> = (0..400).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let mut late = vec![0.0; 23];
        late.extend_from_slice(&early);
        assert_eq!(delay(&early[..300], &late, 60), 23);
    }

    #[test]
    fn a_tone_keeps_its_place_at_another_rate() {
        let tone =
            |rate: f64, n: usize| (0..n).map(move |i| (440.0 * std::f64::consts::TAU * i as f64 / rate).sin() as f32);
        let low: Vec<f32> = tone(32_000.0, 3_200).collect();
        let high = at_rate(&low, 32_000.0, 44_100.0);
        for (index, expected) in tone(44_100.0, 4_000).enumerate().skip(100) {
            assert!((high[index] - expected).abs() < 1e-3, "{index}: {} {expected}", high[index]);
        }
    }

    #[test]
    fn differences_count_bits_and_lengths() {
        assert_eq!(first_difference(&[1.0, 0.0], &[1.0, -0.0]), Some(1));
        assert_eq!(first_difference(&[1.0], &[1.0, 2.0]), Some(1));
        assert_eq!(first_difference(&[1.0], &[1.0]), None);
    }
}
