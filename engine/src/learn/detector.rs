//! Fits the detectors of directions: one number in, log-odds or a level out (`method.md` 3.6). Plain arithmetic; any thread.

use super::samples::Task;
use crate::steering::detector::Detector;

/// By least squares to levels, by logistic regression to classes, which weigh the same however many rows they have, so that
/// 0 is where they cross.
pub fn fit(projections: &[f64], targets: &[f64], task: Task) -> Detector {
    let count = projections.len().max(1) as f64;
    let mean = projections.iter().sum::<f64>() / count;
    let variance = projections.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt();
    if deviation.is_nan() || deviation < 1e-12 {
        return Detector::default();
    }
    let z: Vec<f64> = projections.iter().map(|x| (x - mean) / deviation).collect();
    let (slope, offset) = match task {
        Task::Level => {
            let level = targets.iter().sum::<f64>() / count;
            (z.iter().zip(targets).map(|(z, t)| z * t).sum::<f64>() / count, level)
        }
        Task::Class => logistic(&z, targets),
    };
    Detector { slope: (slope / deviation) as f32, offset: (offset - slope * mean / deviation) as f32 }
}

/// Newton's method on the balanced log loss with a small penalty: separable classes would send the slope to infinity.
fn logistic(z: &[f64], labels: &[f64]) -> (f64, f64) {
    const PENALTY: f64 = 1e-2;
    let positive = labels.iter().filter(|label| **label > 0.5).count() as f64;
    let negative = labels.len() as f64 - positive;
    let weight = |label: f64| 0.5 / if label > 0.5 { positive.max(1.0) } else { negative.max(1.0) };
    let (mut slope, mut offset) = (0.0, 0.0);
    for _ in 0..50 {
        let mut gradient = [PENALTY * slope, 0.0];
        let mut curvature = [PENALTY, 0.0, 1e-9];
        for (z, label) in z.iter().zip(labels) {
            let p = 1.0 / (1.0 + (-(slope * z + offset)).exp());
            let (error, curve) = (weight(*label) * (p - label), weight(*label) * p * (1.0 - p));
            gradient[0] += error * z;
            gradient[1] += error;
            curvature[0] += curve * z * z;
            curvature[1] += curve * z;
            curvature[2] += curve;
        }
        let determinant = curvature[0] * curvature[2] - curvature[1] * curvature[1];
        if determinant < 1e-15 {
            break;
        }
        let step = [
            (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant,
            (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant,
        ];
        // At most one unit at a time: far out the curvature says nothing.
        let size = step[0].abs().max(step[1].abs()).max(1.0);
        slope -= step[0] / size;
        offset -= step[1] / size;
        if step[0].abs().max(step[1].abs()) < 1e-9 {
            break;
        }
    }
    (slope, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cross_at_zero_however_many_rows_they_have() {
        let projections = [3.0, 3.2, 3.4, 3.0, 3.2, 3.4, 3.0, 3.2, 3.4, 5.0, 5.2, 5.4];
        let labels = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let detector = fit(&projections, &labels, Task::Class);
        assert!(detector.slope > 1.0, "{detector:?}");
        assert!((-detector.offset / detector.slope - 4.2).abs() < 0.15, "{detector:?}");
        assert!(detector.value(3.2) < -1.0 && detector.value(5.2) > 1.0);
    }

    #[test]
    fn levels_are_least_squares() {
        let detector = fit(&[0.0, 1.0, 2.0, 3.0], &[1.0, 3.0, 5.0, 7.0], Task::Level);
        assert!((detector.slope - 2.0).abs() < 1e-6 && (detector.offset - 1.0).abs() < 1e-6);
        assert_eq!(fit(&[1.0; 4], &[0.0, 1.0, 0.0, 1.0], Task::Class), Detector::default());
    }
}
