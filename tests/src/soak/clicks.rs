//! Whether a roll-over clicks: the largest step between neighbouring samples around each switch, against the same
//! statistic of equally long stretches everywhere else in the same music (rank sum, and the upper tail).

use serde_json::{Value, json};

/// Comparison of the stretches at switches with those elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clicks {
    /// Stretches at a switch, and elsewhere.
    pub counts: [usize; 2],
    /// Largest step of all stretches, at a switch and elsewhere.
    pub largest: [f32; 2],
    /// 50th, 99th and 99.9th percentile elsewhere.
    pub elsewhere: [f32; 3],
    /// Mean share of the stretches elsewhere that lie below one at a switch; 0.5 without any difference.
    pub mean_rank: f64,
    /// The same in standard deviations of the rank sum (Mann and Whitney 1947).
    pub deviations: f64,
    /// Stretches at a switch above the 99th percentile elsewhere, and the probability of so many or more by chance.
    pub above: usize,
    pub above_probability: f64,
    /// Probability that the largest of so many stretches lies so high by chance.
    pub largest_probability: f64,
}

impl Clicks {
    /// From the largest step of each frame: stretches go from `before` frames ahead of a switch to `after` behind it; the
    /// others lie end to end between them. `None` when there is nothing to compare.
    pub fn of(leaps: &[f32], switches: &[usize], before: usize, after: usize) -> Option<Self> {
        let length = before + 1 + after;
        let largest = |frames: &[f32]| frames.iter().copied().fold(0.0, f32::max);
        let (mut at, mut elsewhere, mut free) = (Vec::new(), Vec::new(), 0);
        for switch in switches {
            let (start, end) = (switch.checked_sub(before)?, switch + after + 1);
            elsewhere.extend(leaps.get(free..start)?.chunks_exact(length).map(largest));
            if end > leaps.len() {
                break;
            }
            at.push(largest(&leaps[start..end]));
            free = end;
        }
        elsewhere.extend(leaps.get(free..)?.chunks_exact(length).map(largest));
        if at.is_empty() || elsewhere.is_empty() {
            return None;
        }
        elsewhere.sort_unstable_by(f32::total_cmp);
        let (n, m) = (at.len() as f64, elsewhere.len() as f64);
        let percentile = |share: f64| elsewhere[((m * share) as usize).min(elsewhere.len() - 1)];
        let rank = |value: f32| {
            let below = elsewhere.partition_point(|other| *other < value);
            let equal = elsewhere.partition_point(|other| *other <= value) - below;
            (below as f64 + 0.5 * equal as f64) / m
        };
        let mean_rank = at.iter().map(|value| rank(*value)).sum::<f64>() / n;
        let deviation = ((n + m + 1.0) / (12.0 * n * m)).sqrt();
        let high = percentile(0.99);
        let above = at.iter().filter(|value| **value > high).count();
        let share = elsewhere.iter().filter(|value| **value > high).count() as f64 / m;
        let highest = largest(&at);
        // Of all stretches together, as many are as high as this one: is it likely that one of the n is among them?
        let as_high = 1.0 + elsewhere.iter().filter(|value| **value >= highest).count() as f64;
        Some(Self {
            counts: [at.len(), elsewhere.len()],
            largest: [highest, largest(&elsewhere)],
            elsewhere: [percentile(0.5), high, percentile(0.999)],
            mean_rank,
            deviations: (mean_rank - 0.5) / deviation,
            above,
            above_probability: at_least(above, at.len(), share),
            largest_probability: 1.0 - (1.0 - as_high / (m + 1.0)).powf(n),
        })
    }

    /// The highest step at a switch that is still believed to be chance: the largest elsewhere, and what the tail gains in
    /// one more decade. The largest elsewhere alone would not do: n stretches have the largest of all among them once in
    /// (n + m) / n runs, click or no click.
    pub fn highest_expected(&self) -> f32 {
        self.largest[1] + (self.elsewhere[2] - self.elsewhere[1])
    }

    /// Nothing sets the stretches at a switch apart: neither their ranks (3.1 deviations up, one in a thousand), nor their
    /// number in the highest hundredth (one in a thousand), nor the largest of them.
    pub fn is_clean(&self) -> bool {
        self.deviations < 3.1 && self.above_probability > 1e-3 && self.largest[0] <= self.highest_expected()
    }

    /// As JSON, with what it was asked for.
    pub fn report(&self) -> Value {
        let [at, elsewhere] = self.counts;
        let [median, high, highest] = self.elsewhere;
        json!({
            "clean": self.is_clean(), "switches": at, "stretches_elsewhere": elsewhere,
            "largest_step_at_switch": self.largest[0], "largest_step_elsewhere": self.largest[1],
            "elsewhere_p50": median, "elsewhere_p99": high, "elsewhere_p999": highest,
            "mean_rank": self.mean_rank, "rank_deviations": self.deviations,
            "above_p99": self.above, "above_p99_probability": self.above_probability,
            "largest_probability": self.largest_probability,
        })
    }
}

/// Probability of `count` or more among `n` when each comes with probability `share`.
fn at_least(count: usize, n: usize, share: f64) -> f64 {
    // P(k) by its logarithm, since a share of 0.01 to the power of hundreds underflows.
    let logarithm = |k: usize| -> f64 {
        let choose: f64 = (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum();
        choose + k as f64 * share.ln() + (n - k) as f64 * (1.0 - share).ln()
    };
    if count == 0 { 1.0 } else { (count..=n).map(|k| logarithm(k).exp()).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps without any pattern, between 0 and 1.
    fn noise(frames: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32
        };
        (0..frames).map(|_| next()).collect()
    }

    #[test]
    fn chance_is_clean_and_clicks_are_not() {
        let switches: Vec<usize> = (1..90).map(|i| 110 * i).collect();
        let mut leaps = noise(10_000);
        let clean = Clicks::of(&leaps, &switches, 1, 1).unwrap();
        assert!(clean.is_clean() && clean.deviations.abs() < 3.0, "{clean:?}");
        assert_eq!(clean.counts[0], 89);
        // One click, larger than anything else.
        leaps[switches[7]] = 1.5;
        assert!(!Clicks::of(&leaps, &switches, 1, 1).unwrap().is_clean());
        // Small ones, but always.
        let mut leaps = noise(10_000);
        switches.iter().for_each(|switch| leaps[*switch] = leaps[*switch].max(0.9));
        let small = Clicks::of(&leaps, &switches, 1, 1).unwrap();
        assert!(small.deviations > 5.0 && !small.is_clean(), "{small:?}");
    }

    #[test]
    fn binomial_tails() {
        assert_eq!(at_least(0, 5, 0.5), 1.0);
        assert!((at_least(5, 5, 0.5) - 1.0 / 32.0).abs() < 1e-12);
        assert!((at_least(1, 3, 0.1) - (1.0 - 0.9f64.powi(3))).abs() < 1e-12);
        assert!(at_least(468, 468, 0.01) < 1e-300);
    }
}
