//! Intervals of a mean whose values come in groups: pieces under one prompt are not independent of each other, so whole
//! groups are drawn (clustered bootstrap). Pure arithmetic; any thread.

use super::sound::percentile;
use crate::dataset::random::Random;

/// Resamples.
const RESAMPLES: usize = 2_000;

/// 90 % interval of the mean of `(group, value)`; zeros without any.
pub fn interval(values: &[(usize, f32)]) -> [f32; 2] {
    let groups = values.iter().map(|(group, _)| group + 1).max().unwrap_or(0);
    let mut sums = vec![(0.0f32, 0.0f32); groups];
    for (group, value) in values {
        sums[*group].0 += value;
        sums[*group].1 += 1.0;
    }
    sums.retain(|(_, count)| *count > 0.0);
    let mut random = Random::new(1, 0, 90);
    let mut resample = |_| {
        let drawn =
            (0..sums.len()).map(|_| sums[random.below(sums.len())]).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        drawn.0 / drawn.1.max(1.0)
    };
    let means: Vec<f32> = (0..RESAMPLES).map(&mut resample).collect();
    [0.05, 0.95].map(|p| percentile(&means, p).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_differ_widen_the_interval() {
        let apart: Vec<(usize, f32)> = (0..400).map(|i| (i / 40, (i / 40 % 2) as f32)).collect();
        let mixed: Vec<(usize, f32)> = (0..400).map(|i| (i / 40, (i % 2) as f32)).collect();
        let width = |values: &[(usize, f32)]| {
            let [low, high] = interval(values);
            assert!(low <= 0.5 && high >= 0.5, "{low} {high}");
            high - low
        };
        assert!(width(&apart) > 0.3 && width(&mixed) < 0.01);
        assert_eq!(interval(&[]), [0.0, 0.0]);
    }
}
