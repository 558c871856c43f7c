//! All eigenvalues and eigenvectors of a symmetric matrix: exact, where the reference's LOBPCG starts at random and may
//! not converge (`method.md` 3.5). Any thread.

use faer::Side;

use super::matrix::Matrix;
use super::samples::FitError;

/// Eigenvalues and unit eigenvectors.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Largest first.
    pub values: Vec<f64>,
    /// `[eigenvalue][component]`, orthonormal; the sign of each is arbitrary.
    pub vectors: Matrix,
}

impl Eigen {
    /// Decomposes a symmetric matrix, of which the lower half is read.
    ///
    /// # Errors
    /// When a number is not finite or the iteration does not converge.
    pub fn of(matrix: &Matrix) -> Result<Self, FitError> {
        let size = matrix.width();
        let failed = FitError::Eigenvalues { size };
        if matrix.rows() != size || matrix.data().iter().any(|x| !x.is_finite()) {
            return Err(failed);
        }
        let Ok(found) = matrix.view().self_adjoint_eigen(Side::Lower) else { return Err(failed) };
        let values: Vec<f64> = found.S().column_vector().iter().copied().collect();
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let vectors = order.iter().flat_map(|&j| found.U().col(j).iter().copied()).collect();
        Ok(Self { values: order.iter().map(|&j| values[j]).collect(), vectors: Matrix::from_rows(vectors, size) })
    }

    /// First eigenvalue over the second: near 1, the first vector is an arbitrary mixture of both.
    pub fn ratio(&self) -> f64 {
        match self.values[..] {
            [first, second, ..] if second > 0.0 => first / second,
            _ => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_matrices() {
        let found = Eigen::of(&Matrix::from_rows(vec![2.0, 1.0, 1.0, 2.0], 2)).expect("finite");
        assert!((found.values[0] - 3.0).abs() < 1e-12 && (found.values[1] - 1.0).abs() < 1e-12);
        assert!((found.ratio() - 3.0).abs() < 1e-12);
        let top = found.vectors.row(0);
        assert!((top[0] - top[1]).abs() < 1e-12 && (top[0].abs() - 0.5f64.sqrt()).abs() < 1e-12);

        // The second difference of n points: 2 - 2 cos(pi k / (n + 1)).
        let n = 40;
        let mut second_difference = Matrix::zeros(n, n);
        for i in 0..n {
            second_difference.row_mut(i)[i] = 2.0;
            if i > 0 {
                second_difference.row_mut(i)[i - 1] = -1.0;
                second_difference.row_mut(i - 1)[i] = -1.0;
            }
        }
        let found = Eigen::of(&second_difference).expect("finite");
        for (k, value) in found.values.iter().rev().enumerate() {
            let wanted = 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (n + 1) as f64).cos();
            assert!((value - wanted).abs() < 1e-12, "{k}: {value} {wanted}");
        }
    }

    #[test]
    fn vectors_rebuild_the_matrix() {
        let n = 70;
        let b = Matrix::from_rows((0..n * n).map(|i| ((i * i) as f64 * 0.37).sin()).collect(), n);
        let a = b.gram();
        let found = Eigen::of(&a).expect("finite");
        let mut scaled = found.vectors.clone();
        (0..n).for_each(|i| scaled.row_mut(i).iter_mut().for_each(|x| *x *= found.values[i]));
        let rebuilt = found.vectors.transposed_times(&scaled);
        let unit = found.vectors.times_transposed(&found.vectors);
        for i in 0..n {
            for j in 0..n {
                assert!((rebuilt.row(i)[j] - a.row(i)[j]).abs() < 1e-10 * found.values[0]);
                assert!((unit.row(i)[j] - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let broken = Matrix::from_rows(vec![f64::NAN, 0.0, 0.0, 1.0], 2);
        assert_eq!(Eigen::of(&broken).map(|e| e.values), Err(FitError::Eigenvalues { size: 2 }));
    }
}
