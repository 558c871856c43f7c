//! The decoder's forward pass over any mix of rows: guidance rows, an ending piece, positions of a rebuilt window.
//! Runner thread; no allocation. A row's bits do not depend on the rows beside it.

use super::kv_cache::MOST_POSITIONS;
use super::weights::{Block, NORM_EPSILON, Norm};
use super::{CrossCache, Decoder, KvCache, Row};
use crate::kernel::activation;
use crate::kernel::attention::Attention;
use crate::kernel::norm::layer_norm;

/// Hears every block's output: block, row and the hidden state `[hidden]`, injection included.
pub type Observer<'a> = &'a mut dyn FnMut(usize, usize, &[f32]);

/// Working memory of [`Decoder::forward`] for up to a fixed number of rows.
pub struct Scratch {
    max_rows: usize,
    /// Residual stream `[rows][hidden]`.
    hidden: Vec<f32>,
    normed: Vec<f32>,
    /// Query, key, value `[rows][3 hidden]`; the cross-attention's queries `[rows][hidden]`.
    projected: Vec<f32>,
    attended: Vec<f32>,
    feed: Vec<f32>,
    /// Attention weights over positions.
    weights: Vec<f32>,
    /// Logits `[rows that want them][codebooks * vocab]`.
    logits: Vec<f32>,
    logits_width: usize,
    /// Row to place in `logits`.
    slots: Vec<usize>,
}

/// Place of a row without logits.
const NO_SLOT: usize = usize::MAX;

impl Scratch {
    /// Room for `max_rows` rows.
    pub fn new(decoder: &Decoder, max_rows: usize) -> Self {
        let (hidden, logits_width) = (decoder.hidden, decoder.codebooks * decoder.vocab);
        Self {
            max_rows,
            hidden: vec![0.0; max_rows * hidden],
            normed: vec![0.0; max_rows * hidden],
            projected: vec![0.0; max_rows * 3 * hidden],
            attended: vec![0.0; max_rows * hidden],
            feed: vec![0.0; max_rows * decoder.feed],
            weights: vec![0.0; Attention::scratch(MOST_POSITIONS)],
            logits: vec![0.0; max_rows * logits_width],
            logits_width,
            slots: vec![NO_SLOT; max_rows],
        }
    }

    /// Logits `[codebooks * vocab]` of a row of the last pass.
    ///
    /// # Panics
    /// When the row did not ask for them.
    pub fn logits(&self, row: usize) -> &[f32] {
        let slot = self.slots[row];
        assert!(slot != NO_SLOT, "the row's logits were not asked for");
        &self.logits[slot * self.logits_width..][..self.logits_width]
    }
}

impl Decoder {
    /// One pass over the weights for all `rows`. Keys and values are written at each row's position; a row attends to
    /// positions 0 up to its own, so several consecutive positions of one cache may share a pass.
    /// `observe` hears each block's output.
    ///
    /// # Realtime safety
    /// No allocation, no lock; as long as the weights take to read.
    ///
    /// # Panics
    /// More rows than the scratch has, a cache index, position or code out of range, an injection of another length.
    pub fn forward(
        &self,
        rows: &[Row],
        caches: &mut [&mut KvCache],
        scratch: &mut Scratch,
        mut observe: Option<Observer<'_>>,
    ) {
        assert!(rows.len() <= scratch.max_rows, "more rows than the scratch was made for");
        self.embed(rows, scratch);
        for (index, block) in self.blocks.iter().enumerate() {
            self.self_attention(index, block, rows, caches, scratch);
            self.cross_attention(index, block, rows, scratch);
            self.feed_forward(block, rows.len(), scratch);
            for (r, row) in rows.iter().enumerate() {
                let output = &mut scratch.hidden[r * self.hidden..][..self.hidden];
                if let Some(injection) = row.injection {
                    assert_eq!(injection.len(), self.blocks.len() * self.hidden, "injection length");
                    activation::add(output, &injection[index * self.hidden..][..self.hidden]);
                }
                if let Some(observe) = &mut observe {
                    observe(index, r, output);
                }
            }
        }
        self.head(rows, scratch);
    }

    /// Sum of the code embeddings, then the position.
    fn embed(&self, rows: &[Row], scratch: &mut Scratch) {
        for (row, x) in rows.iter().zip(scratch.hidden.chunks_exact_mut(self.hidden)) {
            x.fill(0.0);
            for (table, &code) in self.embeddings.iter().zip(&row.codes) {
                activation::add(x, &table[code as usize * self.hidden..][..self.hidden]);
            }
            self.positions.add(row.position, x);
        }
    }

    fn self_attention(
        &self,
        index: usize,
        block: &Block,
        rows: &[Row],
        caches: &mut [&mut KvCache],
        scratch: &mut Scratch,
    ) {
        let hidden = self.hidden;
        for r in 0..rows.len() {
            normalise(&block.self_norm, &scratch.hidden[r * hidden..], &mut scratch.normed[r * hidden..]);
        }
        block.self_in.forward(&scratch.normed, hidden, rows.len(), &mut scratch.projected, 3 * hidden);
        for (row, projected) in rows.iter().zip(scratch.projected.chunks_exact(3 * hidden)) {
            let (key, value) = projected[hidden..].split_at(hidden);
            caches[row.cache].blocks[index].write(row.position, key, value);
        }
        for (r, row) in rows.iter().enumerate() {
            let query = &scratch.projected[r * 3 * hidden..][..hidden];
            let out = &mut scratch.attended[r * hidden..][..hidden];
            self.attend(&caches[row.cache].blocks[index], query, row.position + 1, &mut scratch.weights, out);
        }
        block.self_out.forward_add(&scratch.attended, hidden, rows.len(), &mut scratch.hidden, hidden);
    }

    /// Only rows with a prompt take part: they are packed to the front of the working rows.
    fn cross_attention(&self, index: usize, block: &Block, rows: &[Row], scratch: &mut Scratch) {
        let hidden = self.hidden;
        let texts = || rows.iter().enumerate().filter_map(|(r, row)| row.text.map(|text| (r, text)));
        let mut count = 0;
        for (r, _) in texts() {
            normalise(&block.cross_norm, &scratch.hidden[r * hidden..], &mut scratch.normed[count * hidden..]);
            count += 1;
        }
        block.cross_query.forward(&scratch.normed, hidden, count, &mut scratch.projected, hidden);
        for (c, (_, text)) in texts().enumerate() {
            let query = &scratch.projected[c * hidden..][..hidden];
            let out = &mut scratch.attended[c * hidden..][..hidden];
            self.attend(&text.blocks[index], query, text.tokens, &mut scratch.weights, out);
        }
        block.cross_out.forward(&scratch.attended, hidden, count, &mut scratch.normed, hidden);
        for (c, (r, _)) in texts().enumerate() {
            activation::add(&mut scratch.hidden[r * hidden..][..hidden], &scratch.normed[c * hidden..][..hidden]);
        }
    }

    fn attend(&self, cache: &Attention, query: &[f32], positions: usize, weights: &mut [f32], out: &mut [f32]) {
        let factor = 1.0 / ((self.hidden / self.heads) as f32).sqrt();
        cache.attend(query, positions, factor, weights, out, |_, _| ());
    }

    fn feed_forward(&self, block: &Block, rows: usize, scratch: &mut Scratch) {
        let hidden = self.hidden;
        for r in 0..rows {
            normalise(&block.feed_norm, &scratch.hidden[r * hidden..], &mut scratch.normed[r * hidden..]);
        }
        block.feed_in.forward(&scratch.normed, hidden, rows, &mut scratch.feed, self.feed);
        let feed = &mut scratch.feed[..rows * self.feed];
        self.activation.apply(feed);
        block.feed_out.forward_add(&scratch.feed, self.feed, rows, &mut scratch.hidden, hidden);
    }

    /// Logits of the rows that want them.
    fn head(&self, rows: &[Row], scratch: &mut Scratch) {
        let hidden = self.hidden;
        scratch.slots.fill(NO_SLOT);
        let mut count = 0;
        for (r, _) in rows.iter().enumerate().filter(|(_, row)| row.logits) {
            normalise(&self.final_norm, &scratch.hidden[r * hidden..], &mut scratch.normed[count * hidden..]);
            scratch.slots[r] = count;
            count += 1;
        }
        self.heads_out.forward(&scratch.normed, hidden, count, &mut scratch.logits, scratch.logits_width);
    }

    /// Cross-attention keys and values of a prompt, from text states `[tokens][text_width]`.
    ///
    /// # Panics
    /// When there are no states, or not whole ones, or more than 16,000.
    pub fn cross_cache(&self, states: &[f32]) -> CrossCache {
        let (hidden, tokens) = (self.hidden, states.len() / self.text_width);
        assert!(tokens > 0 && states.len().is_multiple_of(self.text_width), "text states are whole rows");
        assert!(tokens <= MOST_POSITIONS, "more text than any scratch has room for");
        let mut projected = vec![0.0; tokens * hidden];
        match &self.text_projection {
            Some(projection) => projection.forward(states, self.text_width, tokens, &mut projected, hidden),
            None => projected.copy_from_slice(states),
        }
        let mut both = vec![0.0; tokens * 2 * hidden];
        let mut caches = self.caches(tokens);
        for (block, cache) in self.blocks.iter().zip(&mut caches) {
            block.cross_in.forward(&projected, hidden, tokens, &mut both, 2 * hidden);
            for (token, row) in both.chunks_exact(2 * hidden).enumerate() {
                cache.write(token, &row[..hidden], &row[hidden..]);
            }
        }
        CrossCache { blocks: caches, tokens }
    }
}

/// Layer norm of the first `gain.len()` values of `x` into `y`.
fn normalise(norm: &Norm, x: &[f32], y: &mut [f32]) {
    let width = norm.gain.len();
    layer_norm(&x[..width], &norm.gain, &norm.bias, NORM_EPSILON, &mut y[..width]);
}
