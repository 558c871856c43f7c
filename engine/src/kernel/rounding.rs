//! Weights rounded with the inputs that they will meet in view: what rounding one of them changes in the outputs is taken
//! back by those that are rounded after it (OPTQ, Frantar et al. 2023, arXiv 2210.17323, in the form of LDLQ, Chee et al.
//! 2023, arXiv 2307.13304). Loader thread and a few of its own.

use parking_lot::Mutex;

use super::vectors::{add_scaled, dot};

/// Inputs that are looked at together: correlations with inputs farther away are not used, and nothing grows faster than
/// the layer does.
pub const SPAN: usize = 256;

/// Share of the mean energy of the inputs that is added to each: music that was not looked at has other correlations.
const DAMPING: f64 = 0.3;

/// What a layer's inputs were: their sums and, within each span, the sums of their products.
pub struct Moments {
    inputs: usize,
    rows: usize,
    sums: Vec<f64>,
    /// `[spans][SPAN][SPAN]`, the lower triangles; past the last input all are zero.
    products: Vec<f32>,
}

impl Moments {
    /// Of a layer with so many inputs, none of which was seen yet.
    pub fn new(inputs: usize) -> Self {
        let spans = inputs.div_ceil(SPAN);
        Self { inputs, rows: 0, sums: vec![0.0; inputs], products: vec![0.0; spans * SPAN * SPAN] }
    }

    /// Takes rows of `inputs` values side by side.
    pub fn add(&mut self, x: &[f32]) {
        self.rows += x.len() / self.inputs.max(1);
        for row in x.chunks_exact(self.inputs.max(1)) {
            self.sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            for (span, products) in row.chunks(SPAN).zip(self.products.as_chunks_mut::<{ SPAN * SPAN }>().0) {
                for (i, products) in products.as_chunks_mut::<SPAN>().0.iter_mut().take(span.len()).enumerate() {
                    add_scaled(&mut products[..=i], span[i], &span[..=i]);
                }
            }
        }
    }

    /// Mean of each input; zeros before any was seen.
    pub fn means(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| (sum / self.rows.max(1) as f64) as f32).collect()
    }

    /// How each input's rounding error is made up for by those behind it.
    pub fn feedback(&self) -> Feedback {
        let (spans, _) = self.products.as_chunks::<{ SPAN * SPAN }>();
        let mut factors = vec![0.0; spans.len() * SPAN * SPAN];
        let (slots, _) = factors.as_chunks_mut::<{ SPAN * SPAN }>();
        let next = Mutex::new(spans.iter().zip(slots));
        let work = || {
            loop {
                let item = next.lock().next();
                let Some((products, factors)) = item else { return };
                factor(products, factors);
            }
        };
        std::thread::scope(|scope| {
            (1..threads(spans.len())).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        Feedback { factors }
    }
}

/// What the error of one input's weight is worth to each input behind it in its span.
pub struct Feedback {
    /// `[spans][SPAN][SPAN]`, of which only what lies right of the diagonal is not zero.
    factors: Vec<f32>,
}

impl Feedback {
    /// Rounds one output's weights in ascending order: `round` gives the value that an input's weight becomes, of the one
    /// that would make up for the errors so far.
    pub fn round(&self, weights: &mut [f32], mut round: impl FnMut(usize, f32) -> f32) {
        let mut owed = [0.0f32; SPAN];
        for (span, (weights, factors)) in
            weights.chunks_mut(SPAN).zip(self.factors.as_chunks::<{ SPAN * SPAN }>().0).enumerate()
        {
            owed.fill(0.0);
            for (i, factors) in factors.as_chunks::<SPAN>().0.iter().take(weights.len()).enumerate() {
                let rounded = round(span * SPAN + i, weights[i] + owed[i]);
                let error = weights[i] - rounded;
                weights[i] = rounded;
                if error.is_finite() {
                    let behind = i + 1..weights.len();
                    add_scaled(&mut owed[behind.clone()], error, &factors[behind]);
                }
            }
        }
    }
}

/// Threads for so many parts.
pub fn threads(parts: usize) -> usize {
    const MOST: usize = 4;
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST)).min(parts.max(1))
}

/// With `H` the damped products, `H = (U + 1) D (U + 1)^T` where `U` has only what lies right of the diagonal: gives `U`.
fn factor(products: &[f32; SPAN * SPAN], out: &mut [f32; SPAN * SPAN]) {
    let mean = (0..SPAN).map(|i| f64::from(products[i * SPAN + i])).sum::<f64>() / SPAN as f64;
    // Inputs that are silent throughout owe nothing and are owed nothing.
    if !mean.is_finite() || mean <= 0.0 {
        return;
    }
    // The reversed Cholesky factor `R`, `H = R R^T`, row by row from the last column on.
    let mut root = vec![0.0f64; SPAN * SPAN];
    for j in (0..SPAN).rev() {
        for i in 0..=j {
            let (own, other) = (&root[i * SPAN + j + 1..][..SPAN - j - 1], &root[j * SPAN + j + 1..][..SPAN - j - 1]);
            let known = dot(own, other);
            let h = f64::from(products[j * SPAN + i]) + if i == j { DAMPING * mean } else { 0.0 };
            root[i * SPAN + j] = h - known;
        }
        let diagonal = root[j * SPAN + j].max(f64::MIN_POSITIVE).sqrt();
        for i in 0..j {
            root[i * SPAN + j] /= diagonal;
            out[i * SPAN + j] = (root[i * SPAN + j] / diagonal) as f32;
        }
        root[j * SPAN + j] = diagonal;
    }
}

#[cfg(test)]
mod tests {
    use super::super::quantised::tests::normal;
    use super::*;

    /// Rows that follow a few directions, as hidden states do.
    fn correlated(rows: usize, inputs: usize, seed: u32) -> Vec<f32> {
        let (directions, noise) = (normal(8 * inputs, 99), normal(rows * inputs, seed + 1));
        let weights = normal(8 * rows, seed);
        let value = |row: usize, input: usize| {
            let along: f32 = (0..8).map(|d| weights[row * 8 + d] * directions[d * inputs + input]).sum();
            along + 0.3 * noise[row * inputs + input]
        };
        (0..rows)
            .flat_map(|row| (0..inputs).map(move |input| (row, input)))
            .map(|(row, input)| value(row, input))
            .collect()
    }

    /// Squared error of a row of weights on inputs.
    fn error(x: &[f32], exact: &[f32], rounded: &[f32]) -> f64 {
        let off = |x: &[f32]| -> f64 {
            x.iter().zip(exact.iter().zip(rounded)).map(|(x, (a, b))| f64::from(*x) * f64::from(a - b)).sum()
        };
        x.chunks(exact.len()).map(|x| off(x).powi(2)).sum()
    }

    #[test]
    fn the_factors_are_those_of_the_products() {
        let (inputs, mut moments) = (SPAN, Moments::new(SPAN));
        moments.add(&correlated(300, inputs, 1));
        let (u, products) = (moments.feedback().factors, &moments.products);
        let mean = (0..inputs).map(|i| f64::from(products[i * SPAN + i])).sum::<f64>() / inputs as f64;
        // D follows from the last row upwards; (U + 1) D (U + 1)^T has to be H again.
        let full = |i: usize, k: usize| if i == k { 1.0 } else { f64::from(u[i * SPAN + k]) };
        let h = |i: usize, j: usize| {
            f64::from(products[i.max(j) * SPAN + i.min(j)]) + if i == j { DAMPING * mean } else { 0.0 }
        };
        let mut d = vec![0.0; SPAN];
        for j in (0..SPAN).rev() {
            d[j] = h(j, j) - (j + 1..SPAN).map(|k| full(j, k).powi(2) * d[k]).sum::<f64>();
            assert!(d[j] > 0.0);
        }
        for (i, j) in [(0, 0), (0, 1), (3, 200), (100, 101), (17, 255), (254, 255)] {
            let again: f64 = (j..SPAN).map(|k| full(i, k) * d[k] * full(j, k)).sum();
            assert!((again - h(i, j)).abs() < 1e-4 * mean, "{i} {j}: {again} for {}", h(i, j));
        }
    }

    #[test]
    fn errors_make_up_for_each_other_on_inputs_of_the_same_kind() {
        for inputs in [40, SPAN, SPAN + 60] {
            let mut moments = Moments::new(inputs);
            moments.add(&correlated(400, inputs, 5));
            let (exact, feedback) = (normal(inputs, 3), moments.feedback());
            let nearest: Vec<f32> = exact.iter().map(|w| (w * 16.0).round() / 16.0).collect();
            let mut rounded = exact.clone();
            feedback.round(&mut rounded, |_, w| (w * 16.0).round() / 16.0);
            assert!(rounded.iter().all(|w| w * 16.0 == (w * 16.0).round()));
            // Other rows than those that were looked at.
            let other = correlated(400, inputs, 77);
            let (plain, better) = (error(&other, &exact, &nearest), error(&other, &exact, &rounded));
            assert!(better < 0.5 * plain, "{inputs} inputs: {better} after {plain}");
        }
    }

    #[test]
    fn without_inputs_it_is_the_nearest_and_odd_weights_stay_where_they_are() {
        let mut weights = [0.3, f32::NAN, 0.7, f32::INFINITY, 0.4];
        let mut moments = Moments::new(5);
        assert_eq!(moments.means(), [0.0; 5]);
        moments.feedback().round(&mut weights, |_, w| w.round());
        assert!(weights[0] == 0.0 && weights[1].is_nan() && weights[2] == 1.0 && weights[4] == 0.0, "{weights:?}");
        moments.add(&[1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 2.0, 1.0, 0.0, -1.0]);
        assert_eq!(moments.means(), [2.0, 2.0, 2.0, 2.0, 2.0]);
        let mut weights = [0.3, f32::NAN, 0.7, f32::INFINITY, 0.4];
        moments.feedback().round(&mut weights, |_, w| w.round());
        assert!(weights.iter().enumerate().all(|(i, w)| w.is_finite() != [1, 3].contains(&i)), "{weights:?}");
    }
}
