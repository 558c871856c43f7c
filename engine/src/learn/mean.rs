//! Difference of class means: the simplest direction there is, and the baseline that MusicRFM lacks (`method.md` 3.8).
//! Plain arithmetic; any thread.

use super::matrix::Matrix;
use super::samples::{FitError, Samples, centred};
use super::score::orient;

/// Unit vector `[width]` from the mean of the other rows to the mean of the concept's. With levels, the direction of
/// their covariance with the features, which is the same where there are only two.
///
/// # Errors
/// [`FitError::OneRow`] where the means do not differ at all.
pub fn mean_difference(train: &Samples) -> Result<Vec<f32>, FitError> {
    let rows: Matrix = centred(train.features(), &train.mean());
    let targets = train.targets();
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let mut direction = vec![0.0; train.width()];
    for (i, target) in targets.iter().enumerate() {
        direction.iter_mut().zip(rows.row(i)).for_each(|(sum, x)| *sum += (target - mean) * x);
    }
    match orient(&mut direction, train) {
        true => Ok(direction.into_iter().map(|x| x as f32).collect()),
        false => Err(FitError::OneRow),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::Task;
    use super::*;

    #[test]
    fn it_points_from_the_rest_to_the_concept() {
        // Means (1, 0) and (4, 4), with more rows on one side: the difference is (3, 4).
        let features = [1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0, 0.0, 4.0, 3.0, 4.0, 5.0];
        let labels = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        let samples = Samples::new(Task::Class, 2, &features, &labels).expect("well formed");
        let direction = mean_difference(&samples).expect("they differ");
        assert!((direction[0] - 0.6).abs() < 1e-6 && (direction[1] - 0.8).abs() < 1e-6, "{direction:?}");
        let flipped: Vec<f64> = labels.iter().map(|label| 1.0 - label).collect();
        let flipped = Samples::new(Task::Class, 2, &features, &flipped).expect("well formed");
        assert!((mean_difference(&flipped).expect("they differ")[1] + 0.8).abs() < 1e-6);
    }
}
