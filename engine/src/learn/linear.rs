//! Linear probes, the baselines of the paper's table: ridge regression and logistic regression (`method.md` 3.8). In
//! f64 on the calling thread; nothing here is random.

use super::matrix::Matrix;
use super::samples::{FitError, Samples, Task, centred};
use super::score::{Scores, orient};
use super::solver::solve_ridge;

/// Penalties that the reference tries with ridge regression.
pub const RIDGE_PENALTIES: [f64; 6] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

/// Penalties that the reference tries with logistic regression: 1/C for C from 1000 to 0.01.
pub const LOGISTIC_PENALTIES: [f64; 6] = [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0];

/// A linear function of a row.
#[derive(Clone, Debug)]
pub struct LinearProbe {
    /// Unit vector `[width]`: the weights' direction, turned to rise with the training targets.
    pub direction: Vec<f32>,
    /// The penalty that won.
    pub penalty: f64,
    /// Scores on the validation rows.
    pub validation: Scores,
    line: Line,
}

impl LinearProbe {
    /// The probe's value at each row of `features` `[row][width]`: a probability with logistic regression.
    ///
    /// # Errors
    /// Features that are not whole rows.
    pub fn predict(&self, features: &[f32]) -> Result<Vec<f64>, FitError> {
        let width = self.direction.len();
        if !features.len().is_multiple_of(width) {
            return Err(FitError::Shape { features: features.len(), targets: features.len() / width, width });
        }
        Ok(self.line.at(features))
    }
}

#[derive(Clone, Debug)]
struct Line {
    weights: Vec<f64>,
    bias: f64,
    logistic: bool,
}

impl Line {
    fn at(&self, features: &[f32]) -> Vec<f64> {
        let value = |row: &[f32]| {
            let sum = self.bias + row.iter().zip(&self.weights).map(|(&x, w)| f64::from(x) * w).sum::<f64>();
            if self.logistic { sigmoid(sum) } else { sum }
        };
        features.chunks_exact(self.weights.len()).map(value).collect()
    }
}

/// Least squares with a bias and `penalty |w|²` for each of `penalties`; keeps the best on `validation`.
///
/// # Errors
/// Parts that do not agree, no penalty, a penalty that is not above 0, features that do not tell the targets apart at
/// all.
pub fn ridge(train: &Samples, validation: &Samples, penalties: &[f64]) -> Result<LinearProbe, FitError> {
    let (origin, rows) = prepare(train, validation)?;
    let targets = train.targets();
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let residuals: Vec<f64> = targets.iter().map(|t| t - mean).collect();
    let (gram, right) = (rows.gram(), weigh(&rows, &residuals));
    best(train, validation, penalties, false, |penalty| {
        let weights = solve_ridge(gram.clone(), penalty, &right)?;
        let bias = mean - dot(&origin, &weights);
        Ok((weights, bias))
    })
}

/// Logistic regression with a bias and `penalty / 2 |w|²` beside the summed log loss, by Newton's method, for each of
/// `penalties`; keeps the best on `validation`.
///
/// # Errors
/// As [`ridge`], and levels in place of classes.
pub fn logistic(train: &Samples, validation: &Samples, penalties: &[f64]) -> Result<LinearProbe, FitError> {
    if train.task() != Task::Class {
        return Err(FitError::Task);
    }
    let (origin, rows) = prepare(train, validation)?;
    best(train, validation, penalties, true, |penalty| {
        let (weights, bias) = newton(&rows, train.targets(), penalty)?;
        let bias = bias - dot(&origin, &weights);
        Ok((weights, bias))
    })
}

fn prepare(train: &Samples, validation: &Samples) -> Result<(Vec<f64>, Matrix), FitError> {
    train.agrees(validation)?;
    let origin = train.mean();
    let rows = centred(train.features(), &origin);
    Ok((origin, rows))
}

fn best(
    train: &Samples,
    validation: &Samples,
    penalties: &[f64],
    logistic: bool,
    solve: impl Fn(f64) -> Result<(Vec<f64>, f64), FitError>,
) -> Result<LinearProbe, FitError> {
    let mut best: Option<LinearProbe> = None;
    for &penalty in penalties {
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(FitError::Setting { name: "penalty", value: penalty, range: "finite and above 0" });
        }
        let (weights, bias) = solve(penalty)?;
        let mut direction = weights.clone();
        if !orient(&mut direction, train) {
            continue;
        }
        let direction = direction.iter().map(|&x| x as f32).collect();
        let line = Line { weights, bias, logistic };
        let scores = Scores::of(&line.at(validation.features()), validation);
        if best.as_ref().is_none_or(|best| scores.preferable(&best.validation)) {
            best = Some(LinearProbe { direction, penalty, validation: scores, line });
        }
    }
    best.ok_or(FitError::Setting { name: "number of usable penalties", value: 0.0, range: "at least 1" })
}

/// Weights and bias that minimise Σ log(1 + exp(-s (x.w + b))) + penalty / 2 |w|², with s = ±1 for the classes.
fn newton(rows: &Matrix, labels: &[f64], penalty: f64) -> Result<(Vec<f64>, f64), FitError> {
    const STEPS: usize = 100;
    let (count, width) = (rows.rows(), rows.width());
    let margins =
        |weights: &[f64], bias: f64| -> Vec<f64> { (0..count).map(|i| dot(rows.row(i), weights) + bias).collect() };
    let loss = |weights: &[f64], margins: &[f64]| -> f64 {
        let summed: f64 =
            margins.iter().zip(labels).map(|(m, label)| softplus(if *label > 0.5 { -m } else { *m })).sum();
        summed + 0.5 * penalty * dot(weights, weights)
    };
    let (mut weights, mut bias) = (vec![0.0; width], 0.0);
    let mut current = margins(&weights, bias);
    let mut value = loss(&weights, &current);
    for _ in 0..STEPS {
        let chances: Vec<f64> = current.iter().map(|m| sigmoid(*m)).collect();
        let errors: Vec<f64> = chances.iter().zip(labels).map(|(p, label)| p - label).collect();
        let curvature: Vec<f64> = chances.iter().map(|p| (p * (1.0 - p)).max(1e-12)).collect();
        let total: f64 = curvature.iter().sum();
        // The bias is eliminated: with rows less their mean under the curvature, weights and bias do not interact.
        let mean: Vec<f64> = weigh(rows, &curvature).into_iter().map(|x| x / total).collect();
        let mut scaled = rows.clone();
        for (i, c) in curvature.iter().enumerate() {
            let root = c.sqrt();
            scaled.row_mut(i).iter_mut().zip(&mean).for_each(|(x, m)| *x = root * (*x - m));
        }
        let error: f64 = errors.iter().sum();
        let mut right = weigh(rows, &errors);
        for ((r, m), w) in right.iter_mut().zip(&mean).zip(&weights) {
            *r = -(*r - error * m + penalty * w);
        }
        let step = solve_ridge(scaled.gram(), penalty, &right)?;
        let bias_step = -error / total - dot(&mean, &step);
        // Gain that the quadratic model promises; the sum of squares of Newton's decrement.
        let promise = dot(&right, &step) + error * error / total;
        if promise <= 1e-16 * (1.0 + value) {
            break;
        }
        let mut share = 1.0;
        let accepted = loop {
            let moved: Vec<f64> = weights.iter().zip(&step).map(|(w, s)| w + share * s).collect();
            let moved_bias = bias + share * bias_step;
            let moved_margins = margins(&moved, moved_bias);
            let moved_value = loss(&moved, &moved_margins);
            if moved_value <= value - 1e-4 * share * promise {
                break Some((moved, moved_bias, moved_margins, moved_value));
            }
            share *= 0.5;
            if share < 1e-6 {
                break None;
            }
        };
        let Some(next) = accepted else { break };
        (weights, bias, current, value) = next;
    }
    Ok((weights, bias))
}

/// Σ rows_i by their weights, `[width]`.
fn weigh(rows: &Matrix, weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; rows.width()];
    for (i, weight) in weights.iter().enumerate() {
        sum.iter_mut().zip(rows.row(i)).for_each(|(sum, x)| *sum += weight * x);
    }
    sum
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// log(1 + exp(x)) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::super::samples::normal;
    use super::*;

    const WIDTH: usize = 12;

    /// Gaussian rows around 21 and targets that depend on the first two features only, as 3 and -4.
    fn planted(rows: usize) -> (Vec<f32>, Vec<f64>, Vec<f64>) {
        let features: Vec<f32> = normal(9, rows * WIDTH).into_iter().map(|x| (x + 21.0) as f32).collect();
        let along: Vec<f64> =
            features.chunks(WIDTH).map(|row| 3.0 * f64::from(row[0] - 21.0) - 4.0 * f64::from(row[1] - 21.0)).collect();
        let labels = along.iter().map(|a| f64::from(u8::from(*a > 0.0))).collect();
        (features, along.iter().map(|a| a + 7.0).collect(), labels)
    }

    fn cosine(direction: &[f32]) -> f64 {
        0.6 * f64::from(direction[0]) - 0.8 * f64::from(direction[1])
    }

    #[test]
    fn ridge_recovers_a_planted_direction() {
        let (features, levels, labels) = planted(300);
        let (left, right) = features.split_at(200 * WIDTH);
        let train = Samples::new(Task::Level, WIDTH, left, &levels[..200]).expect("well formed");
        let validation = Samples::new(Task::Level, WIDTH, right, &levels[200..]).expect("well formed");
        let probe = ridge(&train, &validation, &RIDGE_PENALTIES).expect("fits");
        assert!(cosine(&probe.direction) > 0.9999, "{probe:?}");
        assert!(probe.validation.r_squared > 0.9999 && probe.penalty == 1e-4, "{probe:?}");
        let train = Samples::new(Task::Class, WIDTH, left, &labels[..200]).expect("well formed");
        let validation = Samples::new(Task::Class, WIDTH, right, &labels[200..]).expect("well formed");
        let probe = ridge(&train, &validation, &RIDGE_PENALTIES).expect("fits");
        assert!(cosine(&probe.direction) > 0.97, "{probe:?}");
        assert!(probe.validation.auc > Some(0.97), "{probe:?}");
    }

    #[test]
    fn logistic_recovers_a_planted_direction() {
        let (features, levels, labels) = planted(300);
        let (left, right) = features.split_at(200 * WIDTH);
        let train = Samples::new(Task::Class, WIDTH, left, &labels[..200]).expect("well formed");
        let validation = Samples::new(Task::Class, WIDTH, right, &labels[200..]).expect("well formed");
        let probe = logistic(&train, &validation, &LOGISTIC_PENALTIES).expect("fits");
        assert!(cosine(&probe.direction) > 0.99, "{probe:?}");
        assert!(probe.validation.auc > Some(0.99) && probe.validation.balanced_accuracy > Some(0.95), "{probe:?}");
        let flipped: Vec<f64> = labels.iter().map(|label| 1.0 - label).collect();
        let train = Samples::new(Task::Class, WIDTH, left, &flipped[..200]).expect("well formed");
        let validation = Samples::new(Task::Class, WIDTH, right, &flipped[200..]).expect("well formed");
        let mirrored = logistic(&train, &validation, &LOGISTIC_PENALTIES).expect("fits");
        assert!(cosine(&mirrored.direction) < -0.99, "{mirrored:?}");
        let levels = Samples::new(Task::Level, WIDTH, left, &levels[..200]).expect("well formed");
        assert!(matches!(logistic(&levels, &levels, &[1.0]), Err(FitError::Task)));
    }

    /// At the minimum the gradient is zero: Σ (p - y) x + penalty w = 0 and Σ (p - y) = 0.
    #[test]
    fn logistic_reaches_the_minimum() {
        let (features, _, labels) = planted(120);
        let samples = Samples::new(Task::Class, WIDTH, &features, &labels).expect("well formed");
        for penalty in LOGISTIC_PENALTIES {
            let probe = logistic(&samples, &samples, &[penalty]).expect("fits");
            let errors: Vec<f64> =
                probe.predict(&features).expect("whole rows").iter().zip(&labels).map(|(p, y)| p - y).collect();
            assert!(errors.iter().sum::<f64>().abs() < 1e-5, "penalty {penalty}");
            for (j, weight) in probe.line.weights.iter().enumerate() {
                let slope: f64 =
                    errors.iter().zip(features.chunks(WIDTH)).map(|(e, row)| e * f64::from(row[j] - 21.0)).sum();
                assert!((slope + penalty * weight).abs() < 1e-5, "penalty {penalty}, {j}: {slope} {weight}");
            }
        }
    }

    #[test]
    fn penalties_are_checked() {
        let (features, levels, _) = planted(20);
        let samples = Samples::new(Task::Level, WIDTH, &features, &levels).expect("well formed");
        assert!(matches!(ridge(&samples, &samples, &[]), Err(FitError::Setting { .. })));
        assert!(matches!(ridge(&samples, &samples, &[0.0]), Err(FitError::Setting { name: "penalty", .. })));
    }
}
