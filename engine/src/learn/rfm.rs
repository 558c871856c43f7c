//! Recursive feature machines: kernel ridge regression whose metric is the average gradient outer product of its own
//! fit, again and again (Radhakrishnan et al., Science 2024; `method.md` 3). The metric's top eigenvector is the
//! direction that a concept is steered along. One thread, seconds to minutes a fit; nothing here is random.

use super::agop::{average_outer_product, gradients};
use super::kernel::{Kernel, median_distance, squared_distances, squared_distances_within};
use super::matrix::Matrix;
use super::samples::{FitError, Samples, centred};
use super::score::Scores;
use super::solver::solve_ridge;
use super::watch::Stopped;

/// Hears the share done after every iteration; what it returns ends the fit.
pub type Progress<'a> = &'a dyn Fn(f32) -> Result<(), Stopped>;

/// How the kernel's bandwidth is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bandwidth {
    /// In the features' own units. It stays while the metric changes from 1 to one whose largest entry is 1, so the
    /// kernel grows much wider after the first iteration; the published method does so.
    Fixed(f64),
    /// A multiple of the median distance between training rows before there is a metric; stays as well.
    OfMedian(f64),
    /// A multiple of the median distance under the metric of each iteration.
    Refitted(f64),
}

/// Hyper-parameters of one fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Bandwidth L of the kernel.
    pub bandwidth: Bandwidth,
    /// Exponent q of the kernel, above 0 and at most 2; 1 is the Laplace kernel.
    pub exponent: f64,
    /// Ridge λ on the kernel matrix, above 0.
    pub ridge: f64,
    /// Whether the mean gradient is taken out of the outer product.
    pub centred: bool,
    /// How often the metric is learned anew; 0 is plain kernel regression.
    pub iterations: usize,
}

impl Settings {
    /// The six settings of `method.md` 8: λ 1e-3, Laplace kernel, half, once and twice the median distance, gradients
    /// as they are and centred, 8 iterations.
    pub fn grid() -> Vec<Self> {
        Self::product(&[0.5, 1.0, 2.0].map(Bandwidth::OfMedian), &[1.0], &[1e-3], &[false, true], 8)
    }

    /// Every combination of the values, centring changing fastest.
    pub fn product(
        bandwidths: &[Bandwidth],
        exponents: &[f64],
        ridges: &[f64],
        centred: &[bool],
        iterations: usize,
    ) -> Vec<Self> {
        let mut all = Vec::with_capacity(bandwidths.len() * exponents.len() * ridges.len() * centred.len());
        for &bandwidth in bandwidths {
            for &exponent in exponents {
                for &ridge in ridges {
                    all.extend(centred.iter().map(|&centred| Self { bandwidth, exponent, ridge, centred, iterations }));
                }
            }
        }
        all
    }

    fn check(&self) -> Result<(), FitError> {
        if !(self.ridge.is_finite() && self.ridge > 0.0) {
            return Err(FitError::Setting { name: "ridge", value: self.ridge, range: "finite and above 0" });
        }
        let (Bandwidth::Fixed(value) | Bandwidth::OfMedian(value) | Bandwidth::Refitted(value)) = self.bandwidth;
        Kernel::new(value, self.exponent).map(|_| ())
    }
}

/// A fitted function of a row: a detector of the concept. f(z) = Σ c_i k(x_i, z).
#[derive(Clone, Debug)]
pub struct Predictor {
    kernel: Kernel,
    /// Subtracted from every row; distances do not feel it.
    origin: Vec<f64>,
    /// Training rows less `origin`, `[centre][width]`.
    centres: Matrix,
    /// `[centre]`.
    coefficients: Vec<f64>,
    /// `[width][width]`; none is 1.
    metric: Option<Matrix>,
}

impl Predictor {
    /// The function's value at each row of `features` `[row][width]`: near 1 for the concept and 0 for the rest with
    /// classes.
    ///
    /// # Errors
    /// Features that are not whole rows.
    pub fn predict(&self, features: &[f32]) -> Result<Vec<f64>, FitError> {
        let points = self.points(features)?;
        Ok(predict(&points, &self.centres, self.metric.as_ref(), self.kernel, &self.coefficients))
    }

    /// The function's gradient at each row of `features`, `[row][width]` like them.
    ///
    /// # Errors
    /// Features that are not whole rows.
    pub fn gradients(&self, features: &[f32]) -> Result<Vec<f64>, FitError> {
        let points = self.points(features)?;
        let metric = self.metric.as_ref();
        let slopes = self.kernel.slopes(squared_distances(&self.centres, &points, metric));
        Ok(gradients(slopes, &self.coefficients, &self.centres, &points, metric).data().to_vec())
    }

    /// The bandwidth in use.
    pub fn bandwidth(&self) -> f64 {
        self.kernel.bandwidth()
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.origin.len()
    }

    fn points(&self, features: &[f32]) -> Result<Matrix, FitError> {
        let width = self.width();
        if features.is_empty() || !features.len().is_multiple_of(width) {
            let rows = features.len() / width;
            return Err(FitError::Shape { features: features.len(), targets: rows, width });
        }
        Ok(centred(features, &self.origin))
    }
}

fn predict(
    points: &Matrix,
    centres: &Matrix,
    metric: Option<&Matrix>,
    kernel: Kernel,
    coefficients: &[f64],
) -> Vec<f64> {
    let values = kernel.values(squared_distances(points, centres, metric));
    (0..values.rows()).map(|j| values.row(j).iter().zip(coefficients).map(|(k, c)| k * c).sum()).collect()
}

/// One fit's best iterate.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The predictor of the best iterate.
    pub predictor: Predictor,
    /// Average gradient outer product of that predictor, one step after the metric that it uses. Largest entry 1.
    pub outer_product: Matrix,
    /// Which iterate it is; 0 has no metric yet.
    pub iteration: usize,
    /// Its scores on the validation rows.
    pub validation: Scores,
    /// Scores of each iterate on the validation rows.
    pub history: Vec<Scores>,
}

/// What all fits to the same rows share.
pub(super) struct Parts<'a> {
    train: Samples<'a>,
    validation: Samples<'a>,
    origin: Vec<f64>,
    centres: Matrix,
    points: Matrix,
    /// Squared distances within `centres` without a metric, and the median of their roots.
    squared: Matrix,
    median: f64,
}

impl<'a> Parts<'a> {
    pub(super) fn new(train: &Samples<'a>, validation: &Samples<'a>) -> Result<Self, FitError> {
        train.agrees(validation)?;
        let origin = train.mean();
        let centres = centred(train.features(), &origin);
        let squared = squared_distances_within(&centres, None);
        Ok(Self {
            train: *train,
            validation: *validation,
            points: centred(validation.features(), &origin),
            median: median_distance(&squared),
            origin,
            centres,
            squared,
        })
    }

    pub(super) fn fit(&self, settings: &Settings, progress: Progress) -> Result<Fit, FitError> {
        settings.check()?;
        let mut metric: Option<Matrix> = None;
        let mut history: Vec<Scores> = Vec::with_capacity(settings.iterations + 1);
        let mut best: Option<Fit> = None;
        for iteration in 0..=settings.iterations {
            let squared = match &metric {
                None => self.squared.clone(),
                Some(metric) => squared_distances_within(&self.centres, Some(metric)),
            };
            let bandwidth = match settings.bandwidth {
                Bandwidth::Fixed(bandwidth) => bandwidth,
                Bandwidth::OfMedian(share) => share * self.median,
                Bandwidth::Refitted(share) if metric.is_none() => share * self.median,
                Bandwidth::Refitted(share) => share * median_distance(&squared),
            };
            // Where an iterate fails, what came before it stands.
            let Ok(kernel) = Kernel::new(bandwidth, settings.exponent) else { break };
            let (values, slopes) = kernel.values_and_slopes(squared);
            let coefficients = match solve_ridge(values, settings.ridge, self.train.targets()) {
                Ok(coefficients) => coefficients,
                Err(error) if best.is_none() => return Err(error),
                Err(_) => break,
            };
            let predictions = predict(&self.points, &self.centres, metric.as_ref(), kernel, &coefficients);
            let scores = Scores::of(&predictions, &self.validation);
            history.push(scores);
            let better = best.as_ref().is_none_or(|best| scores.beats(&best.validation));
            if best.as_ref().is_some_and(|best| scores.far_below(&best.validation)) {
                break;
            }
            if iteration == settings.iterations && !better {
                break;
            }
            let slopes = gradients(slopes, &coefficients, &self.centres, &self.centres, metric.as_ref());
            let Some(next) = average_outer_product(slopes, settings.centred) else { break };
            if better {
                best = Some(Fit {
                    predictor: Predictor {
                        kernel,
                        origin: self.origin.clone(),
                        centres: Matrix::zeros(0, self.centres.width()),
                        coefficients,
                        metric,
                    },
                    outer_product: next.clone(),
                    iteration,
                    validation: scores,
                    history: Vec::new(),
                });
            }
            metric = Some(next);
            progress((iteration + 1) as f32 / (settings.iterations + 1) as f32)?;
        }
        progress(1.0)?;
        let bandwidth = match settings.bandwidth {
            Bandwidth::Fixed(bandwidth) => bandwidth,
            Bandwidth::OfMedian(share) | Bandwidth::Refitted(share) => share * self.median,
        };
        let mut fit = best.ok_or(FitError::Flat { bandwidth })?;
        fit.predictor.centres = self.centres.clone();
        fit.history = history;
        Ok(fit)
    }
}

/// Fits with one set of hyper-parameters and keeps the iterate that is best on `validation`: by AUC with classes, by
/// squared error with levels, the earlier of equals. Ends early when an iterate is worse than the best by more than a
/// tenth. `progress` gets the share done.
///
/// # Errors
/// Parts that do not agree, settings out of range, a kernel matrix that cannot be solved, a fit that is flat.
pub fn fit(train: &Samples, validation: &Samples, settings: &Settings, progress: Progress) -> Result<Fit, FitError> {
    Parts::new(train, validation)?.fit(settings, progress)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::samples::{Task, normal};
    use super::*;

    pub struct Planted {
        pub direction: Vec<f64>,
        pub features: Vec<f32>,
        pub labels: Vec<f64>,
        pub levels: Vec<f64>,
    }

    /// Gaussian rows around 10, y = 1[u.x > 0] and a level that rises with u.x, for a random u.
    pub fn planted(rows: usize, width: usize) -> Planted {
        let mut direction = normal(5, width);
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|x| *x /= length);
        let rows = normal(6, rows * width);
        let along: Vec<f64> =
            rows.chunks(width).map(|row| row.iter().zip(&direction).map(|(x, u)| x * u).sum()).collect();
        Planted {
            features: rows.iter().map(|x| (x + 10.0) as f32).collect(),
            labels: along.iter().map(|a| f64::from(u8::from(*a > 0.0))).collect(),
            levels: along.iter().map(|a| a.tanh()).collect(),
            direction,
        }
    }

    pub fn settings(bandwidth: Bandwidth, centred: bool, iterations: usize) -> Settings {
        Settings { bandwidth, exponent: 1.0, ridge: 1e-3, centred, iterations }
    }

    #[test]
    fn the_predictor_is_the_fitted_function() {
        let data = planted(120, 16);
        let (left, right) = data.features.split_at(80 * 16);
        let train = Samples::new(Task::Level, 16, left, &data.levels[..80]).expect("well formed");
        let validation = Samples::new(Task::Level, 16, right, &data.levels[80..]).expect("well formed");
        let found = fit(&train, &validation, &settings(Bandwidth::OfMedian(1.0), false, 3), &|_| Ok(())).expect("fits");
        assert_eq!(Scores::of(&found.predictor.predict(right).expect("whole rows"), &validation), found.validation);
        assert_eq!(found.history[found.iteration], found.validation);
        assert!(found.history.iter().all(|scores| !scores.beats(&found.validation)));

        let rows = &right[..3 * 16];
        let gradients = found.predictor.gradients(rows).expect("whole rows");
        let step = 1.0 / 1024.0;
        for k in 0..16 {
            let moved = |by: f32| {
                let mut rows = rows.to_vec();
                rows.chunks_mut(16).for_each(|row| row[k] += by);
                found.predictor.predict(&rows).expect("whole rows")
            };
            let (up, down) = (moved(step), moved(-step));
            for j in 0..3 {
                let wanted = (up[j] - down[j]) / f64::from(2.0 * step);
                let size = gradients[j * 16..][..16].iter().map(|g| g.abs()).fold(0.0, f64::max);
                assert!((gradients[j * 16 + k] - wanted).abs() < 1e-3 * size, "row {j}, {k}");
            }
        }
        assert!(found.predictor.predict(&right[..17]).is_err());
    }
}
