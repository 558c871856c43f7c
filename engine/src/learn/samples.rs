//! Labelled rows of features, checked before anything is fitted to them, and what can be wrong with a fit. Any thread.

use super::matrix::Matrix;
use super::watch::Stopped;

/// Why nothing could be fitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// The features are not whole rows, or rows and targets differ in number.
    #[error("{features} features and {targets} targets are not rows of {width}: pass one target for each row")]
    Shape {
        /// Numbers given.
        features: usize,
        /// Targets given.
        targets: usize,
        /// Features of a row.
        width: usize,
    },
    /// Rows of another width than those fitted to.
    #[error("rows of {found} features, but the others have {expected}: take both from the same block and checkpoint")]
    Width {
        /// Width of these rows.
        found: usize,
        /// Width of the others.
        expected: usize,
    },
    /// One part has classes, the other levels.
    #[error("one part is labelled with classes and the other with levels: label both the same way")]
    Task,
    /// A feature or target is infinite or not a number.
    #[error("row {row} has numbers that are not finite; its audio or the checkpoint is damaged: leave the row out")]
    NotFinite {
        /// The first such row.
        row: usize,
    },
    /// Not enough rows.
    #[error("{found} rows are too few, at least {needed} are needed: render more clips")]
    TooFew {
        /// Rows given.
        found: usize,
        /// Rows needed.
        needed: usize,
    },
    /// A class that is neither 0 nor 1.
    #[error("row {row} is labelled {label}: classes are 0 for the rest and 1 for the concept")]
    Label {
        /// The first such row.
        row: usize,
        /// Its label.
        label: f64,
    },
    /// Every row has the same target.
    #[error("every row is labelled {target}: add rows that differ in the concept")]
    OneTarget {
        /// The only target.
        target: f64,
    },
    /// Every row has the same features.
    #[error("every row has the same features: this block does not hear the sound, so choose another")]
    OneRow,
    /// A hyper-parameter out of its range, or none given at all.
    #[error("{name} is {value}, but must be {range}")]
    Setting {
        /// Name of the hyper-parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// The fitted function is constant as far as can be computed, so it has no direction.
    #[error("the fitted function is flat at bandwidth {bandwidth}: bring it near the median distance between rows")]
    Flat {
        /// Bandwidth of the kernel.
        bandwidth: f64,
    },
    /// The linear system has no stable solution.
    #[error("a system of {size} equations could not be solved with ridge {ridge}: raise the ridge")]
    Singular {
        /// Number of equations.
        size: usize,
        /// What was added to the diagonal.
        ridge: f64,
    },
    /// The fit was told to end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The eigenvalues did not converge.
    #[error("the eigenvalues of a {size} x {size} matrix did not converge: leave out rows with extreme features")]
    Eigenvalues {
        /// Rows of the matrix.
        size: usize,
    },
}

/// What the targets mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// 1 for rows of the concept, 0 for the others.
    Class,
    /// A level on a scale, best standardised to mean 0 and deviation 1: there is no bias term.
    Level,
}

/// Rows of features with one target each.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    task: Task,
    width: usize,
    features: &'a [f32],
    targets: &'a [f64],
}

/// Fewer rows than this say nothing.
const FEWEST: usize = 4;

impl<'a> Samples<'a> {
    /// Takes `features` `[row][width]` and `targets` `[row]`.
    ///
    /// # Errors
    /// Ragged, too few or not finite numbers, labels other than 0 and 1 with [`Task::Class`], targets that are all the
    /// same, rows that are all the same.
    pub fn new(task: Task, width: usize, features: &'a [f32], targets: &'a [f64]) -> Result<Self, FitError> {
        if width == 0 || features.len() != targets.len().saturating_mul(width) {
            return Err(FitError::Shape { features: features.len(), targets: targets.len(), width });
        }
        if targets.len() < FEWEST {
            return Err(FitError::TooFew { found: targets.len(), needed: FEWEST });
        }
        let finite = |(row, target): (&[f32], &f64)| target.is_finite() && row.iter().all(|x| x.is_finite());
        if let Some(row) = features.chunks_exact(width).zip(targets).position(|pair| !finite(pair)) {
            return Err(FitError::NotFinite { row });
        }
        if task == Task::Class
            && let Some(row) = targets.iter().position(|label| *label != 0.0 && *label != 1.0)
        {
            return Err(FitError::Label { row, label: targets[row] });
        }
        if targets.iter().all(|target| *target == targets[0]) {
            return Err(FitError::OneTarget { target: targets[0] });
        }
        if features.chunks_exact(width).all(|row| row == &features[..width]) {
            return Err(FitError::OneRow);
        }
        Ok(Self { task, width, features, targets })
    }

    /// What the targets mean.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.targets.len()
    }

    /// `[row][width]`.
    pub fn features(&self) -> &'a [f32] {
        self.features
    }

    /// `[row]`.
    pub fn targets(&self) -> &'a [f64] {
        self.targets
    }

    /// Checks that both parts have the same width and kind of target.
    ///
    /// # Errors
    /// When they do not.
    pub fn agrees(&self, other: &Samples) -> Result<(), FitError> {
        if self.width != other.width {
            return Err(FitError::Width { found: other.width, expected: self.width });
        }
        if self.task == other.task { Ok(()) } else { Err(FitError::Task) }
    }

    /// Mean of each feature, `[width]`.
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0f64; self.width];
        for row in self.features.chunks_exact(self.width) {
            mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        mean.iter_mut().for_each(|sum| *sum /= self.rows() as f64);
        mean
    }

    /// Each row's product with a direction `[width]`.
    pub fn project(&self, direction: &[f64]) -> Vec<f64> {
        let product = |row: &[f32]| row.iter().zip(direction).map(|(&x, d)| f64::from(x) * d).sum();
        self.features.chunks_exact(self.width).map(product).collect()
    }
}

/// `features` `[row][origin.len()]` with `origin` subtracted, so that distances far from 0 lose no digits.
pub(super) fn centred(features: &[f32], origin: &[f64]) -> Matrix {
    let rows = features.chunks_exact(origin.len());
    let data = rows.flat_map(|row| row.iter().zip(origin).map(|(&x, o)| f64::from(x) - o)).collect();
    Matrix::from_rows(data, origin.len())
}

/// Standard normal numbers for tests: a linear congruential generator (Knuth's MMIX) and Box and Muller's transform.
#[cfg(test)]
pub(crate) fn normal(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut next = move || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_projection() {
        let samples = Samples::new(Task::Level, 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[0.0, 1.0, 2.0, 3.0])
            .expect("well formed");
        assert_eq!(samples.mean(), [4.0, 5.0]);
        assert_eq!(samples.project(&[1.0, -1.0]), [-1.0; 4]);
        assert_eq!(centred(&[1.0, 2.0, 3.0, 4.0], &[4.0, 5.0]).row(1), [-1.0, -1.0]);
    }

    #[test]
    fn mistakes_are_named() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let refused = |task, width, features: &[f32], targets: &[f64]| {
            Samples::new(task, width, features, targets).expect_err("refused")
        };
        assert_eq!(refused(Task::Class, 3, &x, &[0.0, 1.0]), FitError::Shape { features: 4, targets: 2, width: 3 });
        assert_eq!(refused(Task::Class, 2, &x, &[0.0, 1.0]), FitError::TooFew { found: 2, needed: 4 });
        assert_eq!(refused(Task::Class, 1, &x, &[0.0, 1.0, 2.0, 0.0]), FitError::Label { row: 2, label: 2.0 });
        assert_eq!(refused(Task::Class, 1, &x, &[1.0; 4]), FitError::OneTarget { target: 1.0 });
        assert_eq!(refused(Task::Class, 1, &[5.0; 4], &[0.0, 1.0, 0.0, 1.0]), FitError::OneRow);
        let broken = [1.0, f32::NAN, 3.0, 4.0];
        assert_eq!(refused(Task::Level, 1, &broken, &[0.0, 1.0, 2.0, 3.0]), FitError::NotFinite { row: 1 });
        let infinite = [0.0, 1.0, 2.0, f64::INFINITY];
        assert_eq!(refused(Task::Level, 1, &x, &infinite), FitError::NotFinite { row: 3 });
        let level = Samples::new(Task::Level, 1, &x, &[0.0, 1.0, 0.0, 1.0]).expect("well formed");
        let class = Samples::new(Task::Class, 1, &x, &[0.0, 1.0, 0.0, 1.0]).expect("well formed");
        assert_eq!(level.agrees(&class), Err(FitError::Task));
    }
}
