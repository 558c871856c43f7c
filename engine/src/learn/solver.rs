//! Symmetric linear systems with a ridge, by Cholesky in f64. Any thread.

use faer::Side;
use faer::linalg::solvers::Solve;

use super::matrix::Matrix;
use super::samples::FitError;

/// Solves `(matrix + ridge I) x = right` for a symmetric matrix, of which the lower half is read. Where that is not
/// positive definite, 1 % of the largest absolute row sum is added to the diagonal and it is tried once more, as xRFM
/// does.
///
/// # Errors
/// When that fails too, or when numbers are not finite.
pub fn solve_ridge(mut matrix: Matrix, ridge: f64, right: &[f64]) -> Result<Vec<f64>, FitError> {
    let size = right.len();
    if matrix.rows() != size || matrix.width() != size {
        return Err(FitError::Shape { features: matrix.data().len(), targets: size, width: matrix.width() });
    }
    let add = |matrix: &mut Matrix, more: f64| (0..size).for_each(|i| matrix.row_mut(i)[i] += more);
    add(&mut matrix, ridge);
    if let Some(solution) = cholesky(&matrix, right) {
        return Ok(solution);
    }
    let sums = (0..size).map(|i| matrix.row(i).iter().map(|x| x.abs()).sum::<f64>());
    let more = 0.01 * sums.fold(0.0, f64::max);
    add(&mut matrix, more);
    cholesky(&matrix, right).ok_or(FitError::Singular { size, ridge: ridge + more })
}

fn cholesky(matrix: &Matrix, right: &[f64]) -> Option<Vec<f64>> {
    let factor = matrix.view().llt(Side::Lower).ok()?;
    let right = faer::ColRef::from_slice(right);
    let solution: Vec<f64> = factor.solve(right).iter().copied().collect();
    solution.iter().all(|x| x.is_finite()).then_some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth kernel matrix of `size` points on a line.
    fn kernel(size: usize) -> Matrix {
        let at = |i: usize, j: usize| (-(i as f64 - j as f64).abs() / 9.0).exp();
        Matrix::from_rows((0..size * size).map(|k| at(k / size, k % size)).collect(), size)
    }

    #[test]
    fn the_solution_solves() {
        let size = 150;
        let right: Vec<f64> = (0..size).map(|i| (i as f64 * 0.7).sin()).collect();
        let solution = solve_ridge(kernel(size), 1e-3, &right).expect("positive definite");
        let matrix = kernel(size);
        for (i, wanted) in right.iter().enumerate() {
            let row: f64 = matrix.row(i).iter().zip(&solution).map(|(a, x)| a * x).sum();
            assert!((row + 1e-3 * solution[i] - wanted).abs() < 1e-10, "equation {i}");
        }
    }

    #[test]
    fn a_singular_system_gets_a_ridge_or_an_error() {
        let ones = Matrix::from_rows(vec![1.0; 9], 3);
        // 1 % of the row sum 3 makes (1 1ᵀ + 0.03 I) x = 1, so x = 1 / 3.03.
        let solution = solve_ridge(ones.clone(), -1e-9, &[1.0; 3]).expect("a ridge of its own");
        assert!(solution.iter().all(|x| (x - 1.0 / 3.03).abs() < 1e-6), "{solution:?}");
        assert!(matches!(solve_ridge(ones, f64::NAN, &[1.0; 3]), Err(FitError::Singular { size: 3, .. })));
        let negative = Matrix::from_rows(vec![-1.0, 0.0, 0.0, -1.0], 2);
        assert!(matches!(solve_ridge(negative, 0.0, &[1.0; 2]), Err(FitError::Singular { .. })));
    }
}
