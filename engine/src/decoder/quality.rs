//! What fewer bits cost, measured while a checkpoint loads: the decoder continues its own music for a few steps, every layer
//! is run beside its exact form on what it meets there, and those that stray are kept in bf16. Real checkpoints may have
//! channels that dwarf the others; small ones have none (Dettmers et al. 2022, arXiv 2208.07339). Loader thread.

use std::mem;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::forward::Scratch;
use super::kv_cache::KvCache;
use super::sampling::{Sampler, Sampling};
use super::weights::{Block, CROSS_OUT, CROSS_QUERY, FEED_IN, FEED_OUT, HEADS, Reader, SELF_IN, SELF_OUT, layer_name};
use super::{CrossCache, Decoder, MAX_CODEBOOKS, Row};
use crate::checkpoint::{CheckpointError, Config, Weights};
use crate::kernel::layer::{Checked, Layer};
use crate::pool::Pool;
use crate::precision::Precision;

/// Steps of music that are looked at.
const STEPS: usize = 100;

/// Steps in one pass of the finished decoder.
const PASS: usize = 8;

/// The error of a layer's outputs, over their norm, above which it is kept in bf16.
const MOST_ERROR: f64 = 0.02;

/// What a decoder's weights lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Layers that are kept in bf16, by name, with the error that they would have had.
    pub wider: Vec<(String, f64)>,
    /// Largest error of the other layers.
    pub error: f64,
    /// Kullback-Leibler divergence of the guided distribution from the exact one, in nats a code, for each codebook.
    pub divergence: Vec<f64>,
    /// Share of the codes that the same draw makes the same, for each codebook.
    pub agreement: Vec<f64>,
}

/// Guided distributions of two decoders over the same columns, as they come.
pub struct Comparison {
    vocab: usize,
    sampler: Sampler,
    divergence: Vec<f64>,
    agreement: Vec<f64>,
    steps: usize,
}

impl Comparison {
    /// For logits `[codebooks * vocab]`.
    pub fn new(codebooks: usize, vocab: usize) -> Self {
        let zeros = || vec![0.0; codebooks];
        Self { vocab, sampler: Sampler::new(vocab), divergence: zeros(), agreement: zeros(), steps: 0 }
    }

    /// Takes one step's logits of both guidance rows, conditional first: the exact ones, and the others.
    pub fn add(&mut self, exact: [&[f32]; 2], other: [&[f32]; 2], sampling: &Sampling) {
        for codebook in 0..self.divergence.len() {
            let range = codebook * self.vocab..(codebook + 1) * self.vocab;
            let [exact, other] = [exact, other].map(|rows| rows.map(|row| &row[range.clone()]));
            let guided = |[c, u]: [&[f32]; 2]| {
                let logits = c.iter().zip(u).map(|(c, u)| f64::from(u + sampling.guidance * (c - u)));
                log_softmax(logits.collect())
            };
            let pairs = guided(exact).into_iter().zip(guided(other));
            self.divergence[codebook] += pairs.map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            let mut draw = |[c, u]: [&[f32]; 2]| self.sampler.sample(c, u, sampling, 1, self.steps as u32, codebook);
            let same = draw(exact) == draw(other);
            self.agreement[codebook] += f64::from(u8::from(same));
        }
        self.steps += 1;
    }

    /// Means over the steps: divergence in nats a code, and share of equal draws, for each codebook.
    pub fn means(&self) -> (Vec<f64>, Vec<f64>) {
        let mean = |sums: &[f64]| sums.iter().map(|sum| sum / self.steps.max(1) as f64).collect();
        (mean(&self.divergence), mean(&self.agreement))
    }
}

fn log_softmax(mut logits: Vec<f64>) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln() + most;
    logits.iter_mut().for_each(|logit| *logit -= total);
    logits
}

impl Decoder {
    /// Compares every layer with the checkpoint's own, on music that this decoder makes under a prompt with the given text
    /// states `[tokens][text_width]`, and keeps in bf16 those that stray by more than 2 %. Reads the weights again, one
    /// block at a time.
    ///
    /// # Errors
    /// When they cannot be read, or have changed.
    pub fn settle(
        &mut self,
        weights: &Weights,
        config: &Config,
        text: &[f32],
        pool: &Arc<Pool>,
    ) -> Result<Quality, CheckpointError> {
        let columns = self.continuation(text, pool);
        let rows = 2 * STEPS;
        let mut scratch = Scratch::on(self, rows, pool.clone());
        let (own, precision) = (mem::take(&mut self.blocks), mem::replace(&mut self.precision, Precision::F32));
        let reader = Reader::new(weights, config, Precision::F32);
        let mut quality = Quality { wider: Vec::new(), error: 0.0, divergence: Vec::new(), agreement: Vec::new() };
        // One block's caches at a time would do; all of them are small beside the weights.
        let mut caches = [KvCache::exact(self, own.len(), STEPS), KvCache::exact(self, own.len(), STEPS)];
        let [conditional, unconditional] = &mut caches;
        let mut caches = [conditional, unconditional];
        let mut cross = CrossCache { blocks: Vec::new(), tokens: text.len() / self.text_width };
        self.embed(&self.teacher(&columns, None), &mut scratch);
        for (index, own) in own.into_iter().enumerate() {
            let exact = reader.numbered_block(index)?;
            cross.blocks.push(self.cross_keys(&exact.cross_in, text));
            let block = exact.beside(own);
            let rows = self.teacher(&columns, Some(&cross));
            self.block(index, &block, &rows, &mut caches, &mut scratch);
            self.blocks.push(block.settled(index, &mut quality));
        }
        let heads = mem::replace(&mut self.heads_out, reader.heads()?);
        self.heads_out = Layer::Checked(Box::new(Checked::new(mem::replace(&mut self.heads_out, Layer::EMPTY), heads)));
        self.head(&self.teacher(&columns, None), &mut scratch);
        let checked = mem::replace(&mut self.heads_out, Layer::EMPTY);
        self.heads_out = quality.choose(HEADS.to_owned(), checked);
        self.precision = precision;
        let exact: Vec<Vec<f32>> = (0..rows).map(|row| scratch.logits(row).to_vec()).collect();
        drop(scratch);
        (quality.divergence, quality.agreement) = self.compare(&columns, text, &exact, pool);
        Ok(quality)
    }

    /// Input columns of the first steps of a piece that this decoder makes of its own.
    fn continuation(&self, text: &[f32], pool: &Arc<Pool>) -> Vec<[u32; MAX_CODEBOOKS]> {
        let cross = self.cross_cache(text);
        let mut caches = [KvCache::new(self, STEPS), KvCache::new(self, STEPS)];
        let [conditional, unconditional] = &mut caches;
        let mut caches = [conditional, unconditional];
        let mut scratch = Scratch::on(self, 2, pool.clone());
        let mut sampler = Sampler::new(self.vocab);
        let mut columns = vec![[self.bos; MAX_CODEBOOKS]];
        for position in 0..STEPS - 1 {
            let codes = columns[position];
            let row = |cache, text| Row { cache, position, codes, text, injection: None, pushes: &[], logits: true };
            self.forward(&[row(0, Some(&cross)), row(1, None)], &mut caches, &mut scratch, None);
            let mut next = [self.pad; MAX_CODEBOOKS];
            for (codebook, code) in next.iter_mut().enumerate().take(self.codebooks) {
                let range = codebook * self.vocab..(codebook + 1) * self.vocab;
                let [c, u] = [0, 1].map(|row| &scratch.logits(row)[range.clone()]);
                *code = sampler.sample(c, u, &Sampling::PUBLISHED, 0, position as u32, codebook);
            }
            columns.push(next);
        }
        columns
    }

    /// Both guidance rows of every column.
    fn teacher<'a>(&self, columns: &[[u32; MAX_CODEBOOKS]], text: Option<&'a CrossCache>) -> Vec<Row<'a>> {
        let row = |(position, codes): (usize, &[u32; MAX_CODEBOOKS])| {
            let row =
                |cache, text| Row { cache, position, codes: *codes, text, injection: None, pushes: &[], logits: true };
            [row(0, text), row(1, None)]
        };
        columns.iter().enumerate().flat_map(row).collect()
    }

    /// Divergence and agreement of this decoder's distributions over `columns` from the exact logits of each row.
    fn compare(
        &self,
        columns: &[[u32; MAX_CODEBOOKS]],
        text: &[f32],
        exact: &[Vec<f32>],
        pool: &Arc<Pool>,
    ) -> (Vec<f64>, Vec<f64>) {
        let cross = self.cross_cache(text);
        let mut caches = [KvCache::new(self, columns.len()), KvCache::new(self, columns.len())];
        let [conditional, unconditional] = &mut caches;
        let mut caches = [conditional, unconditional];
        let mut scratch = Scratch::on(self, 2 * PASS, pool.clone());
        let mut comparison = Comparison::new(self.codebooks, self.vocab);
        let rows = self.teacher(columns, Some(&cross));
        for (rows, exact) in rows.chunks(2 * PASS).zip(exact.chunks(2 * PASS)) {
            self.forward(rows, &mut caches, &mut scratch, None);
            for (step, exact) in exact.chunks_exact(2).enumerate() {
                let other = [scratch.logits(2 * step), scratch.logits(2 * step + 1)];
                comparison.add([&exact[0], &exact[1]], other, &Sampling::PUBLISHED);
            }
        }
        comparison.means()
    }
}

impl Quality {
    /// What a checked layer becomes: its stand-in, or bf16 where that strays.
    fn choose(&mut self, name: String, layer: Layer) -> Layer {
        let Layer::Checked(both) = layer else { return layer };
        let (exact, other, error) = both.into_parts();
        if error <= MOST_ERROR {
            self.error = self.error.max(error);
            return other;
        }
        self.wider.push((name, error));
        exact.into_bf16()
    }
}

impl Block {
    /// The exact block with its layers' stand-ins beside them. What runs once a prompt, and the norms, are the stand-in's.
    fn beside(self, own: Self) -> Self {
        let both = |exact, own| Layer::Checked(Box::new(Checked::new(exact, own)));
        Self {
            self_in: both(self.self_in, own.self_in),
            self_out: both(self.self_out, own.self_out),
            cross_query: both(self.cross_query, own.cross_query),
            cross_out: both(self.cross_out, own.cross_out),
            feed_in: both(self.feed_in, own.feed_in),
            feed_out: both(self.feed_out, own.feed_out),
            ..own
        }
    }

    fn settled(self, index: usize, quality: &mut Quality) -> Self {
        let mut choose = |name: &str, layer| quality.choose(layer_name(index, name), layer);
        Self {
            self_in: choose(SELF_IN, self.self_in),
            self_out: choose(SELF_OUT, self.self_out),
            cross_query: choose(CROSS_QUERY, self.cross_query),
            cross_out: choose(CROSS_OUT, self.cross_out),
            feed_in: choose(FEED_IN, self.feed_in),
            feed_out: choose(FEED_OUT, self.feed_out),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_diverge_by_nothing_and_others_by_the_textbook_sum() {
        let sampling = Sampling { guidance: 1.0, top_k: 0, temperature: 1.0 };
        let (exact, other, none) = ([2.0f32.ln(), 0.0, 0.0], [0.0f32; 3], [0.0f32; 3]);
        let mut comparison = Comparison::new(1, 3);
        comparison.add([&exact, &none], [&exact, &none], &sampling);
        assert_eq!(comparison.means(), (vec![0.0], vec![1.0]));
        comparison.add([&exact, &none], [&other, &none], &sampling);
        // p = (1/2, 1/4, 1/4) from q = 1/3 each.
        let divergence = 0.5 * 1.5f64.ln() + 0.5 * 0.75f64.ln();
        assert!((comparison.means().0[0] - divergence / 2.0).abs() < 1e-7);
    }
}
