//! Guidance, temperature, top-k and the draw. Runner thread; no allocation after construction.
//! Randomness is counter-based: a pure function of (seed, frame, codebook), so nothing depends on what ran before.

use crate::kernel::activation::exp_shifted;

/// Below this temperature the most likely code is taken.
const GREEDY_BELOW: f32 = 1e-3;

/// The musician's settings for one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 1 is the model's own distribution, 0 the most likely code.
    pub temperature: f32,
    /// Guidance scale: 1 is the conditional row alone, 0 the unconditional one.
    pub guidance: f32,
    /// Codes to choose from; 0 is all.
    pub top_k: usize,
}

impl Sampling {
    /// MusicGen's published settings.
    pub const PUBLISHED: Self = Self { temperature: 1.0, guidance: 3.0, top_k: 250 };

    /// What Tiller plays with until it is told otherwise, chosen on the dev split of the embedded checkpoint: a little less
    /// guidance and temperature than published, so that a small model keeps to its key.
    pub const DEFAULT: Self = Self { temperature: 0.9, guidance: 1.75, top_k: 250 };
}

/// A uniform number in [0, 1) with 53 bits.
///
/// The counter goes through four rounds of xor-shift and odd multiplication (constants: fractional bits of the square
/// roots of 2, 3, 5 and 7, made odd), the codebook entering half-way, so that every input bit reaches every output bit.
pub fn uniform(seed: u32, frame: u32, codebook: u32) -> f64 {
    let mut x = u64::from(seed) << 32 | u64::from(frame);
    let mut round = |constant: u64| {
        x = (x ^ x >> 32).wrapping_mul(constant);
        x ^= x >> 29;
        x
    };
    round(0x6a09_e667_f3bc_c909);
    let half = round(0xbb67_ae85_84ca_a73b);
    let mut x = half.wrapping_add((u64::from(codebook) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for constant in [0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1] {
        x = (x ^ x >> 32).wrapping_mul(constant);
        x ^= x >> 29;
    }
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws codes from logits; owns the scratch for one vocabulary.
pub struct Sampler {
    logits: Vec<f32>,
    order: Vec<f32>,
}

impl Sampler {
    /// For codebooks of `vocab` codes.
    pub fn new(vocab: usize) -> Self {
        Self { logits: vec![0.0; vocab], order: vec![0.0; vocab] }
    }

    /// One code of `codebook` in `frame`, from the two guidance rows' logits `[vocab]`.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn sample(
        &mut self,
        conditional: &[f32],
        unconditional: &[f32],
        sampling: &Sampling,
        seed: u32,
        frame: u32,
        codebook: usize,
    ) -> u32 {
        for ((logit, c), u) in self.logits.iter_mut().zip(conditional).zip(unconditional) {
            *logit = u + sampling.guidance * (c - u);
        }
        let (best, highest) = argmax(&self.logits);
        if sampling.temperature < GREEDY_BELOW || sampling.top_k == 1 {
            return best as u32;
        }
        let lowest = self.kth_highest(sampling.top_k);
        // Codes below the k-th get no weight; ties with it stay, as in transformers.
        self.logits.iter_mut().filter(|logit| **logit < lowest).for_each(|logit| *logit = f32::NEG_INFINITY);
        self.logits.iter_mut().for_each(|logit| *logit = (*logit - highest) / sampling.temperature);
        self.order.copy_from_slice(&self.logits);
        exp_shifted(&mut self.order, 0.0);
        let weight = |index: usize| match self.logits[index] > f32::NEG_INFINITY {
            true => f64::from(self.order[index]),
            false => 0.0,
        };
        let total: f64 = (0..self.logits.len()).map(weight).sum();
        let mut left = uniform(seed, frame, codebook as u32) * total;
        for index in 0..self.logits.len() {
            let weight = weight(index);
            if left < weight {
                return index as u32;
            }
            left -= weight;
        }
        // Rounding used up the sum: the most likely code is as good as the last one.
        best as u32
    }

    /// The logit that a code needs to be among the `k` best.
    fn kth_highest(&mut self, k: usize) -> f32 {
        if k == 0 || k >= self.logits.len() {
            return f32::NEG_INFINITY;
        }
        self.order.copy_from_slice(&self.logits);
        *self.order.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }
}

/// Index and value of the largest logit, the first of equals.
pub fn argmax(logits: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (index, logit);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest gap between the empirical and the uniform distribution function (Kolmogorov-Smirnov).
    fn distance_from_uniform(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        values.iter().enumerate().map(|(i, v)| (v - i as f64 / count).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn draws_are_uniform_along_every_counter() {
        let n = 20_000u32;
        for fixed in [0, 7, 9999] {
            let along = [
                (0..n).map(|i| uniform(fixed, i, 0)).collect::<Vec<_>>(),
                (0..n).map(|i| uniform(i, fixed, 3)).collect(),
                (0..n).map(|i| uniform(fixed, i / 4, i % 4)).collect(),
            ];
            for values in along {
                // Probability below 1e-6 for a true uniform source.
                assert!(distance_from_uniform(values) < 2.7 / f64::from(n).sqrt());
            }
        }
    }

    #[test]
    fn neighbouring_counters_are_not_correlated() {
        let n = 50_000;
        let correlation = |pair: &dyn Fn(u32) -> (f64, f64)| -> f64 {
            (0..n).map(pair).map(|(a, b)| (a - 0.5) * (b - 0.5) * 12.0).sum::<f64>() / f64::from(n)
        };
        let bound = 5.0 / f64::from(n).sqrt();
        assert!(correlation(&|i| (uniform(1, i, 0), uniform(1, i + 1, 0))).abs() < bound);
        assert!(correlation(&|i| (uniform(1, i, 0), uniform(2, i, 0))).abs() < bound);
        assert!(correlation(&|i| (uniform(1, i, 0), uniform(1, i, 1))).abs() < bound);
        assert!(correlation(&|i| (uniform(1, i + 1, 0), uniform(1, i, 1))).abs() < bound);
    }

    #[test]
    fn codes_come_as_often_as_their_probability_says() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln() * 2.0).collect();
        let mut sampler = Sampler::new(4);
        let sampling = Sampling { temperature: 2.0, guidance: 1.0, top_k: 3 };
        let mut counts = [0.0; 4];
        let n = 40_000;
        for frame in 0..n {
            counts[sampler.sample(&logits, &[0.0; 4], &sampling, 5, frame, 2) as usize] += 1.0 / f64::from(n);
        }
        // Codes 2 and 3 tie for third place: both stay.
        for (share, expected) in counts.iter().zip([0.5, 0.25, 0.125, 0.125]) {
            assert!((share - expected).abs() < 0.012, "{counts:?}");
        }
        let sampling = Sampling { top_k: 2, ..sampling };
        assert!((0..1000).all(|frame| sampler.sample(&logits, &[0.0; 4], &sampling, 5, frame, 0) < 2));
    }

    #[test]
    fn guidance_and_greedy() {
        let mut sampler = Sampler::new(3);
        let greedy = |guidance| Sampling { temperature: 0.0, guidance, top_k: 0 };
        let (conditional, unconditional) = ([1.0, 0.9, 0.0], [1.0, 0.0, 1.1]);
        assert_eq!(sampler.sample(&conditional, &unconditional, &greedy(1.0), 0, 0, 0), 0);
        assert_eq!(sampler.sample(&conditional, &unconditional, &greedy(3.0), 0, 0, 0), 1);
        assert_eq!(sampler.sample(&conditional, &unconditional, &greedy(0.0), 0, 0, 0), 2);
    }
}
