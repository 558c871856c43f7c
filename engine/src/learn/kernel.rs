//! The generalised Laplace kernel exp(-(D/L)^q) of RFM (Beaglehole et al., xRFM; `method.md` 3.1) and the distances
//! that it takes, in f64 on the calling thread.

use super::matrix::Matrix;
use super::samples::FitError;

/// Below this distance a centre adds nothing to the gradient: for q < 2 its term is 0 times infinity there.
const NEAREST: f64 = 1e-10;

/// A kernel of the distance D between two rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kernel {
    bandwidth: f64,
    exponent: f64,
}

impl Kernel {
    /// exp(-(D / bandwidth)^exponent): exponent 1 is the Laplace kernel, 2 the Gaussian.
    ///
    /// # Errors
    /// A bandwidth that is not positive, or an exponent outside (0, 2], where the kernel is not positive definite.
    pub fn new(bandwidth: f64, exponent: f64) -> Result<Self, FitError> {
        if !(bandwidth.is_finite() && bandwidth > 0.0) {
            return Err(FitError::Setting { name: "bandwidth", value: bandwidth, range: "finite and above 0" });
        }
        if !(exponent > 0.0 && exponent <= 2.0) {
            return Err(FitError::Setting { name: "exponent", value: exponent, range: "above 0 and at most 2" });
        }
        Ok(Self { bandwidth, exponent })
    }

    /// The distance at which the kernel is 1/e.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// (D / bandwidth)^exponent of a squared distance.
    fn power(&self, squared: f64) -> f64 {
        if self.exponent == 1.0 {
            squared.sqrt() / self.bandwidth
        } else {
            (squared / (self.bandwidth * self.bandwidth)).powf(0.5 * self.exponent)
        }
    }

    /// The kernel at a squared distance.
    pub fn value(&self, squared: f64) -> f64 {
        (-self.power(squared)).exp()
    }

    /// What the gradient by z multiplies `M (z - x)` with: -(q / L^q) k D^(q-2), 0 for rows that coincide.
    pub fn slope(&self, squared: f64) -> f64 {
        self.value_and_slope(squared).1
    }

    fn value_and_slope(&self, squared: f64) -> (f64, f64) {
        let power = self.power(squared);
        let value = (-power).exp();
        let apart = squared >= NEAREST * NEAREST;
        (value, if apart { -self.exponent * power * value / squared } else { 0.0 })
    }

    /// Turns squared distances into kernel values.
    pub fn values(&self, mut squared: Matrix) -> Matrix {
        squared.data_mut().iter_mut().for_each(|x| *x = self.value(*x));
        squared
    }

    /// Turns squared distances into slopes.
    pub fn slopes(&self, mut squared: Matrix) -> Matrix {
        squared.data_mut().iter_mut().for_each(|x| *x = self.slope(*x));
        squared
    }

    /// Values and slopes of the squared distances within one set of rows, both symmetric.
    pub fn values_and_slopes(&self, mut squared: Matrix) -> (Matrix, Matrix) {
        let mut values = Matrix::zeros(squared.rows(), squared.width());
        for i in 0..squared.rows() {
            for (value, slope) in values.row_mut(i)[..=i].iter_mut().zip(squared.row_mut(i)) {
                (*value, *slope) = self.value_and_slope(*slope);
            }
        }
        values.mirror_lower();
        squared.mirror_lower();
        (values, squared)
    }
}

/// (x - z)ᵀ M (x - z) for every row x of `a` and z of `b`, `[a][b]`; without a metric M is 1. Rows should lie around 0,
/// so that the expanded form loses no digits that count.
pub fn squared_distances(a: &Matrix, b: &Matrix, metric: Option<&Matrix>) -> Matrix {
    let mapped = metric.map(|m| a.times(m));
    let other = metric.map(|m| b.times(m));
    let (a_mapped, b_mapped) = (mapped.as_ref().unwrap_or(a), other.as_ref().unwrap_or(b));
    let mut squared = a_mapped.times_transposed(b);
    let across = norms(b_mapped, b);
    for (i, own) in norms(a_mapped, a).into_iter().enumerate() {
        let row = squared.row_mut(i).iter_mut();
        row.zip(&across).for_each(|(x, other)| *x = (own + other - 2.0 * *x).max(0.0));
    }
    squared
}

/// [`squared_distances`] of rows among themselves: symmetric, exactly 0 on the diagonal.
pub fn squared_distances_within(rows: &Matrix, metric: Option<&Matrix>) -> Matrix {
    let mapped = metric.map(|m| rows.times(m));
    let mapped = mapped.as_ref().unwrap_or(rows);
    let mut squared = mapped.times_transposed_symmetric(rows);
    let norms = norms(mapped, rows);
    for (i, own) in norms.iter().enumerate() {
        let row = squared.row_mut(i);
        row.iter_mut().zip(&norms).for_each(|(x, other)| *x = (own + other - 2.0 * *x).max(0.0));
        row[i] = 0.0;
    }
    squared
}

fn norms(mapped: &Matrix, rows: &Matrix) -> Vec<f64> {
    (0..rows.rows()).map(|i| mapped.row(i).iter().zip(rows.row(i)).map(|(a, b)| a * b).sum()).collect()
}

/// Median of the distances between different rows, the lower of two in the middle; the argument holds squares.
pub fn median_distance(squared: &Matrix) -> f64 {
    let mut below: Vec<f64> = (1..squared.rows()).flat_map(|i| squared.row(i)[..i].iter().copied()).collect();
    if below.is_empty() {
        return 0.0;
    }
    let middle = (below.len() - 1) / 2;
    below.select_nth_unstable_by(middle, f64::total_cmp).1.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Matrix {
        Matrix::from_rows(vec![0.0, 0.0, 3.0, 4.0, 0.0, 1.0, -3.0, 4.0], 2)
    }

    #[test]
    fn distances_by_hand() {
        let metric = Matrix::from_rows(vec![2.0, 1.0, 1.0, 3.0], 2);
        // 2 * 9 + 2 * 12 + 3 * 16, 3, 2 * 9 - 2 * 12 + 3 * 16
        let wanted = [0.0, 90.0, 3.0, 42.0];
        let across = squared_distances(&rows(), &rows(), Some(&metric));
        let within = squared_distances_within(&rows(), Some(&metric));
        for (j, wanted) in wanted.into_iter().enumerate() {
            assert!((across.row(0)[j] - wanted).abs() < 1e-12 && (within.row(j)[0] - wanted).abs() < 1e-12);
        }
        let plain = squared_distances_within(&rows(), None);
        assert_eq!(plain.row(0), [0.0, 25.0, 1.0, 25.0]);
        // 1, sqrt 18, sqrt 18, 5, 5, 6
        assert!((median_distance(&plain) - 18f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn values_and_slopes_by_hand() {
        for exponent in [0.7, 1.0, 1.4, 2.0] {
            let kernel = Kernel::new(3.0, exponent).expect("in range");
            assert!((kernel.value(9.0) - (-1f64).exp()).abs() < 1e-12);
            let distance = 2.5f64;
            let value = (-(distance / 3.0).powf(exponent)).exp();
            let slope = -exponent / 3f64.powf(exponent) * value * distance.powf(exponent - 2.0);
            assert!((kernel.value(6.25) - value).abs() < 1e-12, "q {exponent}");
            assert!((kernel.slope(6.25) - slope).abs() < 1e-12, "q {exponent}");
            assert_eq!((kernel.value(0.0), kernel.slope(0.0)), (1.0, 0.0));
            assert_eq!(kernel.slope(0.9e-20), 0.0);
            let squared = squared_distances_within(&rows(), None);
            let (values, slopes) = kernel.values_and_slopes(squared.clone());
            assert_eq!(values, kernel.values(squared.clone()));
            assert_eq!(slopes, kernel.slopes(squared));
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (bandwidth, exponent) in [(0.0, 1.0), (f64::NAN, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, 2.1), (1.0, f64::NAN)]
        {
            assert!(matches!(Kernel::new(bandwidth, exponent), Err(FitError::Setting { .. })));
        }
    }
}
