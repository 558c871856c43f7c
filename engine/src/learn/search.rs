//! The search over a feature machine's hyper-parameters, and the direction of the best fit. One thread, minutes;
//! nothing here is random.

use super::eigen::Eigen;
use super::rfm::{Fit, Parts, Progress, Settings};
use super::samples::{FitError, Samples};
use super::score::{Scores, auc, correlation, orient};

/// What makes one set of hyper-parameters better than another, on the validation rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The predictor's AUC with classes, its squared error with levels: what the published method means to do.
    Prediction,
    /// AUC or correlation of the projections on the direction itself, all that steering uses: gradients centred may
    /// predict better and yet have the concept's axis taken out. Ties go by prediction.
    Direction,
}

/// One set of hyper-parameters that was tried, and how its best iterate did on the validation rows.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The hyper-parameters.
    pub settings: Settings,
    /// Scores, or why there are none.
    pub outcome: Result<Scores, FitError>,
}

/// A unit vector and what is known about it.
#[derive(Clone, Debug)]
pub struct Axis {
    /// `[width]`: the top eigenvector of the outer product, turned to rise with the training targets.
    pub direction: Vec<f32>,
    /// Eigenvalues of the outer product, largest first.
    pub eigenvalues: Vec<f64>,
    /// First eigenvalue over the second: near 1, the direction is an arbitrary mixture.
    pub eigenvalue_ratio: f64,
    /// AUC of the validation rows' projections on the direction; only with classes.
    pub auc: Option<f64>,
    /// Correlation of the validation rows' projections on the direction with their targets.
    pub correlation: f64,
}

impl Axis {
    /// The direction of a fit to `train`, scored on `validation`.
    ///
    /// # Errors
    /// When the eigenvalues do not converge.
    pub fn of(fit: &Fit, train: &Samples, validation: &Samples) -> Result<Self, FitError> {
        let eigen = Eigen::of(&fit.outer_product)?;
        let mut direction = eigen.vectors.row(0).to_vec();
        orient(&mut direction, train);
        let projected = validation.project(&direction);
        Ok(Self {
            direction: direction.iter().map(|&x| x as f32).collect(),
            eigenvalue_ratio: eigen.ratio(),
            eigenvalues: eigen.values,
            auc: fit.validation.auc.and_then(|_| auc(&projected, validation.targets())),
            correlation: correlation(&projected, validation.targets()),
        })
    }

    fn score(&self) -> f64 {
        self.auc.unwrap_or(self.correlation)
    }
}

/// A learned direction, the fit that it comes from and what else was tried.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The direction.
    pub axis: Axis,
    /// The hyper-parameters that won.
    pub settings: Settings,
    /// The winning fit: predictor, iterate, validation scores.
    pub fit: Fit,
    /// All that were tried, in their order.
    pub trials: Vec<Trial>,
}

/// Fits with each of `grid` and takes the direction of the best on `validation` by the criterion. Where AUC ties, as it
/// does when a concept is easy, the lower squared error wins, then the earlier. Settings that fit nothing are passed
/// over. `progress` gets the share done.
///
/// # Errors
/// As [`super::rfm::fit`], if none of the settings fits; an empty grid.
pub fn search(
    train: &Samples,
    validation: &Samples,
    grid: &[Settings],
    criterion: Criterion,
    progress: Progress,
) -> Result<Learned, FitError> {
    let parts = Parts::new(train, validation)?;
    let mut trials: Vec<Trial> = Vec::with_capacity(grid.len());
    let mut best: Option<(Settings, Fit, Option<Axis>)> = None;
    let mut failure = FitError::Setting { name: "number of settings", value: 0.0, range: "at least 1" };
    for (index, settings) in grid.iter().enumerate() {
        let found = parts.fit(settings, &|done| progress((index as f32 + done) / (grid.len() + 1) as f32));
        let found = found.and_then(|fit| match criterion {
            Criterion::Prediction => Ok((fit, None)),
            Criterion::Direction => Axis::of(&fit, train, validation).map(|axis| (fit, Some(axis))),
        });
        let outcome = found.as_ref().map(|(fit, _)| fit.validation).map_err(Clone::clone);
        trials.push(Trial { settings: *settings, outcome });
        match found {
            Ok((fit, axis)) => {
                let better = best.as_ref().is_none_or(|(_, best, best_axis)| {
                    let score = |axis: &Option<Axis>| axis.as_ref().map_or(0.0, Axis::score);
                    let (own, other) = (score(&axis), score(best_axis));
                    own > other || own == other && fit.validation.preferable(&best.validation)
                });
                if better {
                    best = Some((*settings, fit, axis));
                }
            }
            Err(error @ FitError::Stopped(_)) => return Err(error),
            Err(error) => failure = error,
        }
    }
    let (settings, fit, axis) = best.ok_or(failure)?;
    let axis = axis.map_or_else(|| Axis::of(&fit, train, validation), Ok)?;
    progress(1.0)?;
    Ok(Learned { axis, settings, fit, trials })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::rfm::tests::{planted, settings};
    use super::super::rfm::{Bandwidth, fit};
    use super::super::samples::{Task, normal};
    use super::*;

    fn cosine(a: &[f32], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
    }

    const WIDTH: usize = 64;

    #[test]
    fn finds_a_planted_direction_within_five_iterations() {
        let data = planted(500, WIDTH);
        let (left, right) = data.features.split_at(400 * WIDTH);
        for (task, targets) in [(Task::Class, &data.labels), (Task::Level, &data.levels)] {
            let train = Samples::new(task, WIDTH, left, &targets[..400]).expect("well formed");
            let validation = Samples::new(task, WIDTH, right, &targets[400..]).expect("well formed");
            for bandwidth in [Bandwidth::OfMedian(1.0), Bandwidth::Refitted(1.0)] {
                let grid = [settings(bandwidth, false, 5)];
                let found = search(&train, &validation, &grid, Criterion::Prediction, &|_| Ok(())).expect("fits").axis;
                let cosine = cosine(&found.direction, &data.direction);
                assert!(cosine > 0.95, "{task:?} {bandwidth:?}: cosine {cosine}, {found:?}");
                assert!(found.eigenvalue_ratio > 5.0);
                assert!(found.correlation > 0.7);
                assert_eq!(found.auc.is_some(), task == Task::Class);
                let length: f32 = found.direction.iter().map(|x| x * x).sum();
                assert!((length - 1.0).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_criterion_decides() {
        // Feature 0 raises the level; the product of 1 and 2 has no direction, but with gradients centred it is all
        // that is left to see, and here the better predictor has them centred.
        let rows = normal(8, 300 * 8);
        let features: Vec<f32> = rows.iter().map(|x| *x as f32).collect();
        let levels: Vec<f64> = rows.chunks(8).map(|row| row[0] + 0.8 * row[1] * row[2]).collect();
        let (left, right) = features.split_at(200 * 8);
        let train = Samples::new(Task::Level, 8, left, &levels[..200]).expect("well formed");
        let validation = Samples::new(Task::Level, 8, right, &levels[200..]).expect("well formed");
        let grid = [false, true].map(|centred| settings(Bandwidth::OfMedian(2.0), centred, 4));
        let found = |criterion| search(&train, &validation, &grid, criterion, &|_| Ok(())).expect("fits");
        let (prediction, direction) = (found(Criterion::Prediction), found(Criterion::Direction));
        assert!(prediction.settings.centred && !direction.settings.centred, "{prediction:?}");
        assert!(prediction.fit.validation.beats(&direction.fit.validation));
        assert!(prediction.axis.correlation < 0.3, "{:?}", prediction.axis);
        assert!(direction.axis.correlation > 0.7 && direction.axis.direction[0] > 0.95, "{:?}", direction.axis);
    }

    #[test]
    fn flipped_labels_flip_the_sign_and_nothing_is_random() {
        let data = planted(200, 24);
        let (left, right) = data.features.split_at(150 * 24);
        let direction = |labels: &[f64]| {
            let train = Samples::new(Task::Class, 24, left, &labels[..150]).expect("well formed");
            let validation = Samples::new(Task::Class, 24, right, &labels[150..]).expect("well formed");
            let grid = [settings(Bandwidth::OfMedian(1.0), false, 2)];
            search(&train, &validation, &grid, Criterion::Prediction, &|_| Ok(())).expect("fits").axis.direction
        };
        let flipped: Vec<f64> = data.labels.iter().map(|label| 1.0 - label).collect();
        let (own, other) = (direction(&data.labels), direction(&flipped));
        let other: Vec<f64> = other.into_iter().map(f64::from).collect();
        // There is no bias, so the two fits are not each other's mirror image.
        assert!(cosine(&own, &other) < -0.95);
        assert_eq!(own, direction(&data.labels));
    }

    #[test]
    fn the_search_reports_its_trials_and_passes_over_what_does_not_fit() {
        let data = planted(120, 16);
        let (left, right) = data.features.split_at(80 * 16);
        let train = Samples::new(Task::Class, 16, left, &data.labels[..80]).expect("well formed");
        let validation = Samples::new(Task::Class, 16, right, &data.labels[80..]).expect("well formed");
        // At a bandwidth of 1e-4 every row is alone: the function is flat everywhere else.
        let narrow = settings(Bandwidth::Fixed(1e-4), false, 2);
        let seen = RefCell::new(Vec::new());
        let grid = [narrow, settings(Bandwidth::OfMedian(1.0), true, 2)];
        let found = search(&train, &validation, &grid, Criterion::Prediction, &|done| {
            seen.borrow_mut().push(done);
            Ok(())
        })
        .expect("one of them fits");
        assert_eq!(found.settings, grid[1]);
        assert_eq!(found.trials[0].outcome, Err(FitError::Flat { bandwidth: 1e-4 }));
        assert_eq!(found.trials[1].outcome, Ok(found.fit.validation));
        assert!(seen.borrow().is_sorted() && seen.borrow().last() == Some(&1.0));
        let refused = |grid: &[Settings]| {
            search(&train, &validation, grid, Criterion::Prediction, &|_| Ok(())).expect_err("refused")
        };
        assert_eq!(refused(&[narrow]), FitError::Flat { bandwidth: 1e-4 });
        assert!(matches!(refused(&[]), FitError::Setting { value: 0.0, .. }));
        let no_ridge = Settings { ridge: 0.0, ..grid[1] };
        assert!(matches!(refused(&[no_ridge]), FitError::Setting { name: "ridge", .. }));
        let six = Settings::grid();
        assert_eq!((six.len(), six[0].centred, six[1].centred), (6, false, true));
        assert_eq!((six[1].bandwidth, six[2].bandwidth), (Bandwidth::OfMedian(0.5), Bandwidth::OfMedian(1.0)));
        let narrower = Samples::new(Task::Class, 8, &right[..40 * 8], &data.labels[80..]).expect("well formed");
        assert!(fit(&train, &narrower, &grid[1], &|_| Ok(())).is_err());
    }
}
