//! Analytic gradients of a kernel predictor and their average outer product, the metric that RFM learns (`method.md`
//! 3.2). The calling thread.

use super::matrix::Matrix;

/// Gradients of f(z) = Σ c_i k(x_i, z) at each of `points`, `[point][width]`: Σ c_i S_i(z) M (z - x_i).
///
/// `slopes` `[centre][point]` are the S of [`super::kernel::Kernel::slopes`]; no metric is M = 1. Sizes that do
/// not fit panic.
pub fn gradients(
    mut slopes: Matrix,
    coefficients: &[f64],
    centres: &Matrix,
    points: &Matrix,
    metric: Option<&Matrix>,
) -> Matrix {
    let mut sums = vec![0.0; points.rows()];
    for (i, coefficient) in coefficients.iter().enumerate() {
        for (slope, sum) in slopes.row_mut(i).iter_mut().zip(&mut sums) {
            *slope *= coefficient;
            *sum += *slope;
        }
    }
    let mut gradients = slopes.transposed_times(centres);
    for (j, sum) in sums.into_iter().enumerate() {
        let row = gradients.row_mut(j).iter_mut();
        row.zip(points.row(j)).for_each(|(g, z)| *g = sum * z - *g);
    }
    match metric {
        Some(metric) => gradients.times(metric),
        None => gradients,
    }
}

/// The average outer product of gradients, scaled so that its largest entry is 1 and symmetric to the last bit;
/// `centred` takes the mean gradient out first, which for a nearly linear concept is the concept itself. `None` when
/// the gradients vanish or are not finite.
pub fn average_outer_product(mut gradients: Matrix, centred: bool) -> Option<Matrix> {
    if centred {
        let mut mean = vec![0.0; gradients.width()];
        for i in 0..gradients.rows() {
            mean.iter_mut().zip(gradients.row(i)).for_each(|(sum, g)| *sum += g);
        }
        mean.iter_mut().for_each(|sum| *sum /= gradients.rows() as f64);
        for i in 0..gradients.rows() {
            gradients.row_mut(i).iter_mut().zip(&mean).for_each(|(g, mean)| *g -= mean);
        }
    }
    let mut product = gradients.gram();
    let largest = product.data().iter().copied().fold(0.0, f64::max);
    // The largest entry of a Gram matrix lies on its diagonal, so this finds any overflow as well.
    if !(f64::MIN_POSITIVE..f64::INFINITY).contains(&largest) || product.data().iter().any(|x| x.is_nan()) {
        return None;
    }
    product.data_mut().iter_mut().for_each(|x| *x /= largest);
    Some(product)
}

#[cfg(test)]
mod tests {
    use super::super::eigen::Eigen;
    use super::super::kernel::{Kernel, squared_distances};
    use super::*;

    fn wave(rows: usize, width: usize, step: f64) -> Matrix {
        Matrix::from_rows((0..rows * width).map(|i| ((i * i) as f64 * step).sin()).collect(), width)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let width = 7;
        let (centres, points) = (wave(23, width, 0.37), wave(5, width, 0.91));
        let coefficients: Vec<f64> = (0..23).map(|i| (f64::from(i) * 1.7).cos()).collect();
        let metric = wave(4, width, 0.53).gram();
        for (exponent, metric) in [0.7, 1.0, 1.4].into_iter().flat_map(|q| [(q, None), (q, Some(&metric))]) {
            let kernel = Kernel::new(1.3, exponent).expect("in range");
            let value = |points: &Matrix| -> Vec<f64> {
                let values = kernel.values(squared_distances(points, &centres, metric));
                (0..points.rows()).map(|j| values.row(j).iter().zip(&coefficients).map(|(k, c)| k * c).sum()).collect()
            };
            let slopes = kernel.slopes(squared_distances(&centres, &points, metric));
            let found = gradients(slopes, &coefficients, &centres, &points, metric);
            let size = (found.data().iter().map(|g| g * g).sum::<f64>() / found.data().len() as f64).sqrt();
            for k in 0..width {
                let moved = |by: f64| {
                    let mut moved = points.clone();
                    (0..moved.rows()).for_each(|j| moved.row_mut(j)[k] += by);
                    value(&moved)
                };
                let (up, down) = (moved(1e-5), moved(-1e-5));
                for j in 0..points.rows() {
                    let wanted = (up[j] - down[j]) / 2e-5;
                    let error = (found.row(j)[k] - wanted).abs();
                    assert!(error < 1e-6 * size, "q {exponent}, point {j}, {k}: {} {wanted}", found.row(j)[k]);
                }
            }
        }
    }

    #[test]
    fn the_product_is_a_metric() {
        for centred in [false, true] {
            let product = average_outer_product(wave(30, 20, 0.77), centred).expect("not flat");
            let largest = product.data().iter().copied().fold(f64::MIN, f64::max);
            assert_eq!(largest, 1.0);
            for i in 0..20 {
                for j in 0..i {
                    assert_eq!(product.row(i)[j], product.row(j)[i]);
                }
            }
            let values = Eigen::of(&product).expect("finite").values;
            assert!(values[19] >= -1e-5 * values[0], "{values:?}");
        }
        let mut shifted = wave(30, 20, 0.77);
        (0..30).for_each(|i| shifted.row_mut(i)[3] += 50.0);
        let (plain, centred) = (average_outer_product(shifted.clone(), false), average_outer_product(shifted, true));
        let without = average_outer_product(wave(30, 20, 0.77), true).expect("not flat");
        assert_eq!(plain.expect("not flat").row(3)[3], 1.0);
        for (a, b) in centred.expect("not flat").data().iter().zip(without.data()) {
            assert!((a - b).abs() < 1e-9, "the mean gradient is gone");
        }
    }

    #[test]
    fn flat_functions_have_no_product() {
        assert_eq!(average_outer_product(Matrix::zeros(5, 3), false), None);
        assert_eq!(average_outer_product(Matrix::from_rows(vec![f64::NAN; 6], 3), false), None);
        assert_eq!(average_outer_product(Matrix::from_rows(vec![1e200; 6], 3), false), None);
    }
}
