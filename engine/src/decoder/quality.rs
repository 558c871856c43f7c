//! Fewer bits while a checkpoint loads, and what they cost: the decoder makes some music of its own, every layer is rounded
//! with what it meets there in view, then run beside its exact form on other music, and those that stray are kept in bf16.
//! Real checkpoints may have channels that dwarf the others; small ones have none (Dettmers et al. 2022, arXiv 2208.07339).
//! Loader thread.

use std::collections::HashMap;
use std::mem;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::forward::Scratch;
use super::kv_cache::KvCache;
use super::sampling::{Sampler, Sampling};
use super::weights::{Block, HEADS, Reader, layer_name};
use super::{CrossCache, Decoder, MAX_CODEBOOKS, Row};
use crate::checkpoint::{CheckpointError, Config, Weights};
use crate::kernel::attention::Attention;
use crate::kernel::layer::{Checked, Layer};
use crate::kernel::rounding::Feedback;
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

/// Input columns of one piece of music, and its prompt.
struct Piece<'a> {
    columns: Vec<[u32; MAX_CODEBOOKS]>,
    /// Text states `[tokens][text_width]`.
    text: &'a [f32],
}

impl Decoder {
    /// Rounds every layer anew with what it meets in view, on music that this decoder makes under all prompts but the first
    /// (text states `[tokens][text_width]`), and finds what is usual of keys and values. Then compares every layer with the
    /// checkpoint's own, on music under the first prompt, and keeps in bf16 those of 8 bits that stray by more than 2 %.
    /// Reads the weights again, one block at a time.
    ///
    /// # Errors
    /// When they cannot be read, or have changed.
    ///
    /// # Panics
    /// Without a prompt.
    pub fn settle(
        &mut self,
        weights: &Weights,
        config: &Config,
        texts: &[Vec<f32>],
        pool: &Arc<Pool>,
    ) -> Result<Quality, CheckpointError> {
        let mut pieces = self.continuations(texts, pool);
        let met = pieces.split_off(1);
        let mut met = Trial::new(self, &met, pool);
        let mut checked = Trial::new(self, &pieces, pool);
        let precision = mem::replace(&mut self.precision, Precision::F32);
        let blocks = mem::take(&mut self.blocks).len();
        let (exact, mut rounding) =
            (Reader::new(weights, config, Precision::F32), Reader::new(weights, config, precision));
        let mut quality = Quality { wider: Vec::new(), error: 0.0, divergence: Vec::new(), agreement: Vec::new() };
        for trial in [&mut met, &mut checked] {
            self.embed(&trial.rows(&[]), &mut trial.scratch);
        }
        for index in 0..blocks {
            let mut block = exact.numbered_block(index)?.watched();
            met.pass(self, index, &block);
            let usual = block.usual_key_and_value(pool);
            rounding.set_feedback(block.feedback(index));
            block.stand_in(rounding.numbered_block(index)?);
            checked.pass(self, index, &block);
            let settled = block.settled(index, precision, &mut quality);
            self.blocks.push(Block { usual, ..settled });
        }
        self.heads_out = Layer::Checked(Box::new(Checked::new(exact.heads()?)));
        self.head(&met.rows(&[]), &mut met.scratch);
        if let Layer::Checked(both) = &mut self.heads_out {
            rounding.set_feedback(HashMap::from([(HEADS.to_owned(), both.moments().feedback())]));
            both.set(rounding.heads()?);
        }
        drop(met);
        self.head(&checked.rows(&[]), &mut checked.scratch);
        let heads = mem::replace(&mut self.heads_out, Layer::EMPTY);
        self.heads_out = quality.choose(HEADS.to_owned(), heads, precision);
        self.precision = precision;
        let exact: Vec<Vec<f32>> = (0..2 * STEPS).map(|row| checked.scratch.logits(row).to_vec()).collect();
        drop(checked);
        (quality.divergence, quality.agreement) = self.compare(&pieces[0], &exact, pool);
        Ok(quality)
    }

    /// The first steps of pieces that this decoder makes of its own, one under each prompt.
    fn continuations<'a>(&self, texts: &'a [Vec<f32>], pool: &Arc<Pool>) -> Vec<Piece<'a>> {
        let cross: Vec<CrossCache> = texts.iter().map(|text| self.cross_cache(text)).collect();
        let mut caches: Vec<KvCache> = (0..2 * texts.len()).map(|_| KvCache::new(self, STEPS)).collect();
        let mut caches: Vec<&mut KvCache> = caches.iter_mut().collect();
        let mut scratch = Scratch::on(self, 2 * texts.len(), pool.clone());
        let mut sampler = Sampler::new(self.vocab);
        let first = |text| Piece { columns: vec![[self.bos; MAX_CODEBOOKS]], text };
        let mut pieces: Vec<Piece> = texts.iter().map(|text| first(text)).collect();
        for position in 0..STEPS - 1 {
            let rows = teacher(&pieces, position..position + 1, &cross);
            self.forward(&rows, &mut caches, &mut scratch, None);
            for (seed, piece) in pieces.iter_mut().enumerate() {
                let mut next = [self.pad; MAX_CODEBOOKS];
                for (codebook, code) in next.iter_mut().enumerate().take(self.codebooks) {
                    let range = codebook * self.vocab..(codebook + 1) * self.vocab;
                    let [c, u] = [0, 1].map(|row| &scratch.logits(2 * seed + row)[range.clone()]);
                    *code = sampler.sample(c, u, &Sampling::PUBLISHED, seed as u32, position as u32, codebook);
                }
                piece.columns.push(next);
            }
        }
        pieces
    }

    /// Divergence and agreement of this decoder's distributions over a piece from the exact logits of each row.
    fn compare(&self, piece: &Piece, exact: &[Vec<f32>], pool: &Arc<Pool>) -> (Vec<f64>, Vec<f64>) {
        let (pieces, cross) = (slice::from_ref(piece), [self.cross_cache(piece.text)]);
        let mut caches = [KvCache::new(self, piece.columns.len()), KvCache::new(self, piece.columns.len())];
        let [conditional, unconditional] = &mut caches;
        let mut caches = [conditional, unconditional];
        let mut scratch = Scratch::on(self, 2 * PASS, pool.clone());
        let mut comparison = Comparison::new(self.codebooks, self.vocab);
        let rows = teacher(pieces, 0..piece.columns.len(), &cross);
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

/// Both guidance rows of each piece at some positions; a piece without cross-attention keys has none.
fn teacher<'a>(pieces: &[Piece], positions: Range<usize>, cross: &'a [CrossCache]) -> Vec<Row<'a>> {
    let both = |(index, piece): (usize, &Piece), position: usize| {
        let row = |cache, text| {
            let codes = piece.columns[position];
            Row { cache, position, codes, text, injection: None, pushes: &[], logits: true }
        };
        [row(2 * index, cross.get(index)), row(2 * index + 1, None)]
    };
    let at = |position| pieces.iter().enumerate().flat_map(move |piece| both(piece, position));
    positions.flat_map(at).collect()
}

/// Some pieces on their way through the exact blocks.
struct Trial<'a> {
    pieces: &'a [Piece<'a>],
    caches: Vec<KvCache>,
    scratch: Scratch,
}

impl<'a> Trial<'a> {
    fn new(decoder: &Decoder, pieces: &'a [Piece<'a>], pool: &Arc<Pool>) -> Self {
        // One block's caches at a time would do; all of them are small beside the weights.
        let cache = |_| KvCache::exact(decoder, decoder.blocks(), STEPS);
        let rows = 2 * pieces.len() * STEPS;
        Self {
            pieces,
            caches: (0..2 * pieces.len()).map(cache).collect(),
            scratch: Scratch::on(decoder, rows, pool.clone()),
        }
    }

    fn rows<'c>(&self, cross: &'c [CrossCache]) -> Vec<Row<'c>> {
        teacher(self.pieces, 0..STEPS, cross)
    }

    /// One block's share.
    fn pass(&mut self, decoder: &Decoder, index: usize, block: &Block) {
        let keys = |piece: &Piece| {
            // Blocks before this one are not asked.
            let mut blocks: Vec<Attention> = (0..index).map(|_| decoder.text_cache(0)).collect();
            blocks.push(decoder.cross_keys(&block.cross_in, piece.text));
            CrossCache { blocks, tokens: piece.text.len() / decoder.text_width }
        };
        let cross: Vec<CrossCache> = self.pieces.iter().map(keys).collect();
        let rows = self.rows(&cross);
        let mut caches: Vec<&mut KvCache> = self.caches.iter_mut().collect();
        decoder.block(index, block, &rows, &mut caches, &mut self.scratch);
    }
}

impl Quality {
    /// What a checked layer becomes: its stand-in, or bf16 where one of 8 bits strays.
    fn choose(&mut self, name: String, layer: Layer, precision: Precision) -> Layer {
        let Layer::Checked(both) = layer else { return layer };
        match both.into_parts() {
            (exact, Some(_), error) if precision == Precision::Int8 && error > MOST_ERROR => {
                self.wider.push((name, error));
                exact.into_bf16()
            }
            (_, Some(other), error) => {
                self.error = self.error.max(error);
                other
            }
            (exact, None, _) => exact,
        }
    }
}

impl Block {
    /// The exact block with an eye on every layer of a step.
    fn watched(mut self) -> Self {
        for (_, layer) in self.layers_mut() {
            *layer = Layer::Checked(Box::new(Checked::new(mem::replace(layer, Layer::EMPTY))));
        }
        self
    }

    /// What makes up for each layer's rounding errors, by name.
    fn feedback(&mut self, index: usize) -> HashMap<String, Feedback> {
        let watched = self.layers_mut().into_iter().filter_map(|(name, layer)| match layer {
            Layer::Checked(both) => Some((layer_name(index, name), both.moments().feedback())),
            _ => None,
        });
        watched.collect()
    }

    /// Mean key and value of what was met.
    fn usual_key_and_value(&mut self, pool: &Pool) -> Vec<f32> {
        let Layer::Checked(both) = &mut self.self_in else { return Vec::new() };
        both.mean_outputs(pool).split_off(self.self_norm.gain.len())
    }

    /// From now on the layers of another block are looked at beside this one's.
    fn stand_in(&mut self, mut other: Self) {
        for ((_, layer), (_, other)) in self.layers_mut().into_iter().zip(other.layers_mut()) {
            if let Layer::Checked(both) = layer {
                both.set(mem::replace(other, Layer::EMPTY));
            }
        }
        // These run once a prompt.
        self.cross_in = other.cross_in;
    }

    fn settled(mut self, index: usize, precision: Precision, quality: &mut Quality) -> Self {
        for (name, layer) in self.layers_mut() {
            *layer = quality.choose(layer_name(index, name), mem::replace(layer, Layer::EMPTY), precision);
        }
        self
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
