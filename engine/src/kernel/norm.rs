//! Row-wise layer norm and softmax with a fixed summation order. Any thread; no allocation.

use super::elementary::exp;

const LANES: usize = 16;

/// Sum of `f(x)`: sixteen running sums, then one after another. The order depends on the length alone.
#[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
#[inline(always)]
fn lane_sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in body {
        for lane in 0..LANES {
            lanes[lane] += f(chunk[lane]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    lanes.iter().sum()
}

wide! {
    /// `y = (x - mean) / sqrt(variance + epsilon) * gain + bias` over one row; all slices have the row's length.
    pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
        let count = x.len() as f32;
        let mean = lane_sum(x, |x| x) / count;
        let variance = lane_sum(x, |x| (x - mean) * (x - mean)) / count;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for ((y, &x), (&g, &b)) in y.iter_mut().zip(x).zip(gain.iter().zip(bias)) {
            *y = (x - mean) * inverse * g + b;
        }
    }
}

wide! {
    /// `y = x / sqrt(mean(x^2) + epsilon) * gain` over one row; all slices have the row's length.
    pub fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) {
        let square = lane_sum(x, |x| x * x) / x.len() as f32;
        let inverse = 1.0 / (square + epsilon).sqrt();
        for ((y, &x), &g) in y.iter_mut().zip(x).zip(gain) {
            *y = x * inverse * g;
        }
    }
}

wide! {
    /// Softmax of one row in place. An empty row stays empty.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    #[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
    pub fn softmax(x: &mut [f32]) {
        let (body, tail) = x.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        // NaN is never the largest here, but comes back through the sum.
        for chunk in body {
            for lane in 0..LANES {
                lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
            }
        }
        let highest = lanes.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max);
        for x in x.iter_mut() {
            *x = exp(*x - highest);
        }
        let inverse = 1.0 / lane_sum(x, |x| x);
        for x in x.iter_mut() {
            *x *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_has_the_asked_mean_and_deviation() {
        for len in [5, 16, 250] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 7) % 11) as f32 * 3.0 + 100.0).collect();
            let mut y = vec![0.0; len];
            layer_norm(&x, &vec![2.0; len], &vec![0.5; len], 1e-5, &mut y);
            let mean = y.iter().sum::<f32>() / len as f32;
            let deviation = (y.iter().map(|y| (y - mean).powi(2)).sum::<f32>() / len as f32).sqrt();
            assert!((mean - 0.5).abs() < 1e-4 && (deviation - 2.0).abs() < 1e-4, "{len}: {mean} {deviation}");
        }
    }

    #[test]
    fn softmax_sums_to_one_and_keeps_ratios() {
        let mut x: Vec<f32> = (0..77).map(|i| (i % 13) as f32 * 0.5 + 80.0).collect();
        softmax(&mut x);
        assert!((x.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((x[1] / x[0] - 0.5f32.exp()).abs() < 1e-5);
        softmax(&mut []);
    }
}
