//! Times of many steps as a few figures. No thread of its own.

use serde_json::{Value, json};

/// Percentiles of step times, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Steps.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95 of 100 are no longer.
    pub p95: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Spread {
    /// Of times in seconds, in any order. All 0 without any.
    pub fn of(seconds: impl IntoIterator<Item = f32>) -> Self {
        let mut times: Vec<f32> = seconds.into_iter().collect();
        times.sort_unstable_by(f32::total_cmp);
        let Some(longest) = times.last() else { return Self::default() };
        let at = |share| f64::from(times[rank(times.len(), share)]) * 1e3;
        let sum: f64 = times.iter().map(|seconds| f64::from(*seconds)).sum();
        Self {
            count: times.len(),
            mean: sum / times.len() as f64 * 1e3,
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: f64::from(*longest) * 1e3,
        }
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        let Self { count, mean, p50, p95, p99, max } = *self;
        json!({ "count": count, "mean_ms": mean, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max })
    }
}

/// Index of the nearest rank: the smallest one that `share` of `count` sorted values do not exceed.
fn rank(count: usize, share: f64) -> usize {
    // Less a little, so that 0.95 x 100 is 95 and not the next number up.
    ((count as f64 * share - 1e-9).ceil() as usize).clamp(1, count.max(1)) - 1
}

/// The largest of several figures; 0 of none.
pub fn best(figures: impl IntoIterator<Item = f64>) -> f64 {
    figures.into_iter().fold(0.0, f64::max)
}

/// `a / b`, where there is one.
pub fn ratio(a: f64, b: f64) -> Option<f64> {
    (a > 0.0 && b > 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = Spread::of((1..=100).rev().map(|ms| ms as f32 * 1e-3));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-4;
        assert!(near(spread.p50, 50.0) && near(spread.p95, 95.0) && near(spread.p99, 99.0) && near(spread.max, 100.0));
        assert!(near(spread.mean, 50.5) && spread.count == 100, "{spread:?}");
        assert_eq!([1, 2, 3, 200].map(|count| rank(count, 0.99)), [0, 1, 2, 197]);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn nothing_has_no_ratio() {
        assert_eq!((ratio(3.0, 2.0), ratio(1.0, 0.0), ratio(0.0, 1.0)), (Some(1.5), None, None));
        assert_eq!((best([1.0, 3.0, 2.0]), best([])), (3.0, 0.0));
    }
}
