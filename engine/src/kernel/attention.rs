//! One query row against cached keys and values, head by head. Any thread; no allocation.
//! Keys and values are position-major `[position][heads * head_size]`; the sums run over positions in ascending order.

use super::norm::softmax;

const LANES: usize = 16;

/// Where one row attends: `[positions][width]` keys and values of one block.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

wide! {
    /// `scores[j] = factor * (query . keys[j])` for one head; `keys` starts at this head, rows `width` apart.
    pub fn scores(query: &[f32], keys: &[f32], width: usize, factor: f32, scores: &mut [f32]) {
        let size = query.len();
        let (query, query_tail) = query.as_chunks::<LANES>();
        for (j, score) in scores.iter_mut().enumerate() {
            let (key, key_tail) = keys[j * width..][..size].as_chunks::<LANES>();
            let mut lanes = [0.0f32; LANES];
            for (q, k) in query.iter().zip(key) {
                for lane in 0..LANES {
                    lanes[lane] += q[lane] * k[lane];
                }
            }
            for (lane, (q, k)) in lanes.iter_mut().zip(query_tail.iter().zip(key_tail)) {
                *lane += q * k;
            }
            // A tree, so that the reduction is a handful of vector adds.
            let mut span = LANES / 2;
            while span > 0 {
                for lane in 0..span {
                    lanes[lane] += lanes[lane + span];
                }
                span /= 2;
            }
            *score = lanes[0] * factor;
        }
    }
}

wide! {
    /// `out[d] = sum_j weights[j] values[j][d]` for one head; `values` starts at this head, rows `width` apart.
    pub fn mix(weights: &[f32], values: &[f32], width: usize, out: &mut [f32]) {
        let mut first = 0;
        while first < out.len() {
            let count = (out.len() - first).min(LANES);
            let mut lanes = [0.0f32; LANES];
            if count == LANES {
                for (j, &weight) in weights.iter().enumerate() {
                    let (value, _) = values[j * width + first..][..LANES].as_chunks::<LANES>();
                    for lane in 0..LANES {
                        lanes[lane] += weight * value[0][lane];
                    }
                }
            } else {
                for (j, &weight) in weights.iter().enumerate() {
                    for (lane, value) in lanes.iter_mut().zip(&values[j * width + first..][..count]) {
                        *lane += weight * value;
                    }
                }
            }
            out[first..first + count].copy_from_slice(&lanes[..count]);
            first += count;
        }
    }
}

/// Multi-head attention of one query row `[width]` over `positions` cached positions, into `out` `[width]`.
/// `scratch` holds at least `positions` floats.
///
/// # Realtime safety
/// No allocation, no lock.
pub fn attend(query: &[f32], context: Context, positions: usize, heads: usize, scratch: &mut [f32], out: &mut [f32]) {
    let width = query.len();
    let size = width / heads;
    let factor = 1.0 / (size as f32).sqrt();
    let weights = &mut scratch[..positions];
    for head in 0..heads {
        let at = head * size;
        scores(&query[at..at + size], &context.keys[at..], width, factor, weights);
        softmax(weights);
        mix(weights, &context.values[at..], width, &mut out[at..at + size]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_a_plain_f64_attention() {
        for (heads, size, positions) in [(1, 1, 1), (2, 5, 7), (4, 64, 33), (3, 20, 100)] {
            let width = heads * size;
            let wave = |i: usize, step: f64| (i as f64 * step).sin() as f32 * 2.0;
            let query: Vec<f32> = (0..width).map(|i| wave(i, 0.7)).collect();
            let keys: Vec<f32> = (0..positions * width).map(|i| wave(i, 0.31)).collect();
            let values: Vec<f32> = (0..positions * width).map(|i| wave(i, 0.13)).collect();
            let mut out = vec![f32::NAN; width];
            let context = Context { keys: &keys, values: &values };
            attend(&query, context, positions, heads, &mut vec![0.0; positions + 3], &mut out);
            for d in 0..width {
                let at = d / size * size;
                let score = |j: usize| -> f64 {
                    let dot = |i: usize| f64::from(query[at + i]) * f64::from(keys[j * width + at + i]);
                    ((0..size).map(dot).sum::<f64>() / (size as f64).sqrt()).exp()
                };
                let total: f64 = (0..positions).map(score).sum();
                let exact: f64 = (0..positions).map(|j| score(j) / total * f64::from(values[j * width + d])).sum();
                assert!((f64::from(out[d]) - exact).abs() < 2e-6, "{heads} x {size}, {positions}: {} {exact}", out[d]);
            }
        }
    }
}
