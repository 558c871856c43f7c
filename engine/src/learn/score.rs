//! How well predictions agree with targets: true AUC, balanced accuracy, R², correlation. Plain arithmetic; any thread.

use super::samples::{Samples, Task};

/// Agreement of predictions with targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Area under the ROC curve of the predictions themselves, not of hard labels; only with classes.
    pub auc: Option<f64>,
    /// Mean of both classes' hit rates when predictions above one half are called the concept; only with classes.
    pub balanced_accuracy: Option<f64>,
    /// Mean squared error.
    pub squared_error: f64,
    /// Share of the targets' variance that is explained; below 0 when the mean would have done better.
    pub r_squared: f64,
    /// Pearson's correlation, 0 where one side is constant.
    pub correlation: f64,
}

impl Scores {
    /// Compares predictions `[row]` with the samples' targets.
    pub fn of(predictions: &[f64], samples: &Samples) -> Self {
        let targets = samples.targets();
        let classes = samples.task() == Task::Class;
        Self {
            auc: if classes { auc(predictions, targets) } else { None },
            balanced_accuracy: if classes { balanced_accuracy(predictions, targets, 0.5) } else { None },
            squared_error: squared_error(predictions, targets),
            r_squared: r_squared(predictions, targets),
            correlation: correlation(predictions, targets),
        }
    }

    /// True when this is strictly better: higher AUC with classes, lower squared error with levels.
    pub fn beats(&self, other: &Scores) -> bool {
        match (self.auc, other.auc) {
            (Some(own), Some(other)) => own > other,
            _ => self.squared_error < other.squared_error,
        }
    }

    /// True when this beats the other, or neither beats the other and this has the lower squared error: where a concept
    /// is easy, many AUCs are exactly 1.
    pub fn preferable(&self, other: &Scores) -> bool {
        self.beats(other) || !other.beats(self) && self.squared_error < other.squared_error
    }

    /// True when this is worse by more than a tenth: AUC below best / 1.1, or squared error above best * 1.1.
    pub fn far_below(&self, best: &Scores) -> bool {
        match (self.auc, best.auc) {
            (Some(own), Some(best)) => own < best / 1.1,
            _ => self.squared_error > best.squared_error * 1.1,
        }
    }
}

/// Probability that a row labelled 1 scores above one labelled 0, ties counted half. `None` when a class is missing.
pub fn auc(scores: &[f64], labels: &[f64]) -> Option<f64> {
    let mut order: Vec<(f64, bool)> = scores.iter().zip(labels).map(|(s, l)| (*s, *l > 0.5)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut won) = (0.0, 0.0);
    // `==` and not bits: 0 and -0 tie.
    for tie in order.chunk_by(|a, b| a.0 == b.0) {
        let positive = tie.iter().filter(|(_, label)| *label).count() as f64;
        let negative = tie.len() as f64 - positive;
        won += positive * (below + 0.5 * negative);
        below += negative;
    }
    let positives = order.iter().filter(|(_, label)| *label).count() as f64;
    let pairs = positives * below;
    (pairs > 0.0).then(|| won / pairs)
}

/// Mean of the share of rows labelled 1 that score above `threshold` and of rows labelled 0 that do not. `None` when a
/// class is missing.
pub fn balanced_accuracy(scores: &[f64], labels: &[f64], threshold: f64) -> Option<f64> {
    let share = |class: bool| {
        let own = || scores.iter().zip(labels).filter(|(_, label)| (**label > 0.5) == class);
        let right = own().filter(|(score, _)| (**score > threshold) == class).count();
        (own().count() > 0).then(|| right as f64 / own().count() as f64)
    };
    Some(0.5 * (share(true)? + share(false)?))
}

/// Mean squared difference.
pub fn squared_error(predictions: &[f64], targets: &[f64]) -> f64 {
    predictions.iter().zip(targets).map(|(p, t)| (p - t).powi(2)).sum::<f64>() / targets.len() as f64
}

/// 1 minus squared error over the targets' variance.
pub fn r_squared(predictions: &[f64], targets: &[f64]) -> f64 {
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let variance = targets.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / targets.len() as f64;
    1.0 - squared_error(predictions, targets) / variance
}

/// Pearson's correlation, 0 where one side is constant.
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut own, mut other) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        own += a * a;
        other += b * b;
    }
    let size = (own * other).sqrt();
    if size > 0.0 { both / size } else { 0.0 }
}

/// Scales `direction` to length 1 and turns it so that projections on it rise with the targets: + is more of the
/// concept. False when it has no length.
pub fn orient(direction: &mut [f64], samples: &Samples) -> bool {
    let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return false;
    }
    let up = correlation(&samples.project(direction), samples.targets()) > 0.0;
    let scale = if up { 1.0 / length } else { -1.0 / length };
    direction.iter_mut().for_each(|x| *x *= scale);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_by_hand() {
        let labels = [0.0, 0.0, 1.0, 1.0];
        assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &labels), Some(0.75));
        assert_eq!(auc(&[1.0, 2.0, 3.0, 4.0], &labels), Some(1.0));
        assert_eq!(auc(&[4.0, 3.0, 2.0, 1.0], &labels), Some(0.0));
        assert_eq!(auc(&[7.0; 4], &labels), Some(0.5));
        // Pairs (1, 2) won, (1, 1) tied, (2, 2) tied, (2, 1) lost... by hand: 1, 0.5, 0.5, 0.
        assert_eq!(auc(&[1.0, 2.0, 2.0, 1.0], &labels), Some(0.5));
        assert_eq!(auc(&[0.0, 1.0, 1.0, 2.0], &labels), Some(0.875));
        assert_eq!(auc(&[-0.0, 0.0, 0.0, -0.0], &labels), Some(0.5));
        assert_eq!(auc(&[1.0, 2.0], &[1.0, 1.0]), None);
    }

    #[test]
    fn balanced_accuracy_by_hand() {
        let labels = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        assert_eq!(balanced_accuracy(&[0.9, 0.9, 0.9, 0.1, 0.6, 0.2], &labels, 0.5), Some(0.625));
        assert_eq!(balanced_accuracy(&[0.5; 6], &labels, 0.5), Some(0.5));
        assert_eq!(balanced_accuracy(&[1.0], &[1.0], 0.5), None);
    }

    #[test]
    fn regression_by_hand() {
        let targets = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(squared_error(&[1.0, 2.0, 3.0, 6.0], &targets), 1.0);
        assert!((r_squared(&[1.0, 2.0, 3.0, 6.0], &targets) - 0.2).abs() < 1e-12);
        assert_eq!(r_squared(&[2.5; 4], &targets), 0.0);
        assert!((correlation(&[2.0, 4.0, 6.0, 8.0], &targets) - 1.0).abs() < 1e-12);
        assert!((correlation(&[-1.0, -2.0, -3.0, -4.0], &targets) + 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[3.0; 4], &targets), 0.0);
    }

    #[test]
    fn better_and_far_worse() {
        let with = |auc, squared_error| Scores {
            auc,
            balanced_accuracy: None,
            squared_error,
            r_squared: 0.0,
            correlation: 0.0,
        };
        assert!(with(Some(0.9), 9.0).beats(&with(Some(0.8), 1.0)));
        assert!(!with(Some(0.9), 1.0).beats(&with(Some(0.9), 9.0)));
        assert!(with(None, 1.0).beats(&with(None, 2.0)));
        assert!(with(Some(0.9), 1.0).preferable(&with(Some(0.9), 9.0)));
        assert!(!with(Some(0.8), 1.0).preferable(&with(Some(0.9), 9.0)));
        assert!(with(Some(0.8), 0.0).far_below(&with(Some(0.9), 0.0)));
        assert!(!with(Some(0.82), 0.0).far_below(&with(Some(0.9), 0.0)));
        assert!(with(None, 1.2).far_below(&with(None, 1.0)) && !with(None, 1.05).far_below(&with(None, 1.0)));
    }

    #[test]
    fn directions_point_to_more() {
        let features = [0.0, 5.0, 1.0, 5.0, 2.0, 5.0, 3.0, 5.0];
        let targets = [3.0, 2.0, 1.0, 0.0];
        let samples = Samples::new(Task::Level, 2, &features, &targets).expect("well formed");
        let mut direction = [2.0, 0.0];
        assert!(orient(&mut direction, &samples));
        assert_eq!(direction, [-1.0, 0.0]);
        assert!(!orient(&mut [0.0, 0.0], &samples));
    }
}
