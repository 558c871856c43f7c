//! The decoder's forward pass over any mix of rows: guidance rows, an ending piece, positions of a rebuilt window.
//! Runner thread and the pool's; no allocation. A row's bits do not depend on the rows beside it, nor on the threads.

use std::sync::Arc;

use super::kv_cache::MOST_POSITIONS;
use super::weights::{Block, NORM_EPSILON, Norm};
use super::{CrossCache, Decoder, KvCache, MAX_CODEBOOKS, Row};
use crate::kernel::Linear;
use crate::kernel::activation;
use crate::kernel::activations::Activations;
use crate::kernel::attention::Attention;
use crate::kernel::columns::Columns;
use crate::kernel::norm::layer_norm;
use crate::pool::Pool;

/// Products of attention below which the calling thread does them alone: waking another one costs more.
const ALONE_PRODUCTS: usize = 1 << 16;

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
    /// What 8-bit layers make of their inputs.
    quantised: Activations,
    /// Attention weights over positions `[threads][MOST_POSITIONS]`.
    weights: Vec<f32>,
    /// Logits `[rows that want them][codebooks * vocab]`.
    logits: Vec<f32>,
    logits_width: usize,
    /// Row to place in `logits`.
    slots: Vec<usize>,
    pool: Arc<Pool>,
}

/// One row of attention: what is asked, and of which positions.
struct Query<'a> {
    cache: &'a Attention,
    query: &'a [f32],
    positions: usize,
}

/// Place of a row without logits.
const NO_SLOT: usize = usize::MAX;

impl Scratch {
    /// Room for `max_rows` rows, computed by the calling thread alone.
    pub fn new(decoder: &Decoder, max_rows: usize) -> Self {
        Self::on(decoder, max_rows, Arc::new(Pool::new(1)))
    }

    /// Room for `max_rows` rows, computed by the threads of `pool`.
    pub fn on(decoder: &Decoder, max_rows: usize, pool: Arc<Pool>) -> Self {
        let (hidden, logits_width) = (decoder.hidden, decoder.codebooks * decoder.vocab);
        Self {
            max_rows,
            hidden: vec![0.0; max_rows * hidden],
            normed: vec![0.0; max_rows * hidden],
            projected: vec![0.0; max_rows * 3 * hidden],
            attended: vec![0.0; max_rows * hidden],
            feed: vec![0.0; max_rows * decoder.feed],
            quantised: Activations::new(max_rows, decoder.feed.max(hidden)),
            weights: vec![0.0; pool.threads() * Attention::scratch(MOST_POSITIONS)],
            logits: vec![0.0; max_rows * logits_width],
            logits_width,
            slots: vec![NO_SLOT; max_rows],
            pool,
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
            self.block(index, block, rows, caches, scratch);
            for (r, row) in rows.iter().enumerate() {
                let output = &mut scratch.hidden[r * self.hidden..][..self.hidden];
                if let Some(injection) = row.injection {
                    assert_eq!(injection.len(), self.blocks.len() * self.hidden, "injection length");
                    activation::add(output, &injection[index * self.hidden..][..self.hidden]);
                }
                row.pushes.iter().for_each(|push| push.apply(index, output));
                if let Some(observe) = &mut observe {
                    observe(index, r, output);
                }
            }
        }
        self.head(rows, scratch);
    }

    /// One block's share of the residual stream.
    pub(super) fn block(
        &self,
        index: usize,
        block: &Block,
        rows: &[Row],
        caches: &mut [&mut KvCache],
        scratch: &mut Scratch,
    ) {
        self.self_attention(index, block, rows, caches, scratch);
        self.cross_attention(index, block, rows, scratch);
        self.feed_forward(index, block, rows.len(), scratch);
    }

    /// Sum of the code embeddings, then the position.
    pub(super) fn embed(&self, rows: &[Row], scratch: &mut Scratch) {
        for (row, x) in rows.iter().zip(scratch.hidden.chunks_exact_mut(self.hidden)) {
            self.embed_codes(&row.codes, row.position, x);
        }
    }

    /// What the first block is given of one row, `[hidden]`.
    pub(crate) fn embed_codes(&self, codes: &[u32; MAX_CODEBOOKS], position: usize, x: &mut [f32]) {
        x.fill(0.0);
        for (table, &code) in self.embeddings.iter().zip(codes) {
            activation::add(x, &table[code as usize * self.hidden..][..self.hidden]);
        }
        self.positions.add(position, x);
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
        let Scratch { normed, projected, attended, quantised, weights, pool, .. } = scratch;
        block.self_out.expect(pool);
        block.self_in.forward(normed, rows.len(), quantised, projected, pool, &|_| ());
        for (row, projected) in rows.iter().zip(projected.chunks_exact_mut(3 * hidden)) {
            projected[hidden..].iter_mut().zip(&block.usual).for_each(|(own, usual)| *own -= usual);
            let (key, value) = projected[hidden..].split_at(hidden);
            caches[row.cache].blocks[index].write(row.position, key, value);
        }
        let caches: &[&mut KvCache] = caches;
        let query = |r: usize| {
            let row = &rows[r];
            let query = &projected[r * 3 * hidden..][..hidden];
            Query { cache: &caches[row.cache].blocks[index], query, positions: row.position + 1 }
        };
        self.attend(rows.len(), &query, weights, attended, pool);
        // One number less in all keys moves all scores by the same, which the softmax does not see; the weights of the values
        // add up to one.
        if let Some(usual) = block.usual.get(hidden..) {
            attended.chunks_exact_mut(hidden).take(rows.len()).for_each(|row| activation::add(row, usual));
        }
        block.cross_query.expect(pool);
        block.self_out.forward_add(attended, rows.len(), quantised, &mut scratch.hidden, pool);
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
        let Scratch { normed, projected, attended, quantised, weights, pool, .. } = scratch;
        block.cross_out.expect(pool);
        block.cross_query.forward(normed, count, quantised, projected, pool, &|_| ());
        let prompts = || rows.iter().filter_map(|row| row.text);
        let query = |c: usize| {
            let text = prompts().nth(c)?;
            let query = &projected[c * hidden..][..hidden];
            Some(Query { cache: &text.blocks[index], query, positions: text.tokens })
        };
        self.attend(
            count,
            &|c| query(c).unwrap_or_else(|| unreachable!("as many prompts as counted")),
            weights,
            attended,
            pool,
        );
        block.feed_in.expect(pool);
        block.cross_out.forward(attended, count, quantised, normed, pool, &|_| ());
        for (c, (r, _)) in texts().enumerate() {
            activation::add(&mut scratch.hidden[r * hidden..][..hidden], &scratch.normed[c * hidden..][..hidden]);
        }
    }

    /// Softmax attention of `rows` queries, each head of each apart, into `out` `[rows][hidden]`.
    fn attend<'q>(
        &self,
        rows: usize,
        query: &(dyn Fn(usize) -> Query<'q> + Sync),
        weights: &mut [f32],
        out: &mut [f32],
        pool: &Pool,
    ) {
        if rows == 0 {
            return;
        }
        let size = self.hidden / self.heads;
        let factor = 1.0 / (size as f32).sqrt();
        let room = Attention::scratch(MOST_POSITIONS);
        let (weights, out) = (Columns::new(weights, room), Columns::new(out, self.hidden));
        let products: usize = (0..rows).map(|r| query(r).positions * self.hidden).sum();
        let alone = pool.active() == 1 || products < ALONE_PRODUCTS;
        let parts = if alone { 1 } else { rows * self.heads };
        pool.run(parts, &|thread, part| {
            // SAFETY: a thread has one part at a time, and each head of each row is in one part.
            let weights = unsafe { weights.row(thread, 0..room) };
            for item in part * rows * self.heads / parts..(part + 1) * rows * self.heads / parts {
                let (row, head) = (item / self.heads, item % self.heads);
                let Query { cache, query, positions } = query(row);
                let columns = head * size..(head + 1) * size;
                // SAFETY: as above.
                let out = unsafe { out.row(row, columns.clone()) };
                cache.attend_head(head, &query[columns], positions, factor, weights, out, |_, _| ());
            }
        });
    }

    fn feed_forward(&self, index: usize, block: &Block, rows: usize, scratch: &mut Scratch) {
        let hidden = self.hidden;
        for r in 0..rows {
            normalise(&block.feed_norm, &scratch.hidden[r * hidden..], &mut scratch.normed[r * hidden..]);
        }
        let Scratch { hidden, normed, feed, quantised, pool, .. } = scratch;
        block.feed_out.expect(pool);
        block.feed_in.forward(normed, rows, quantised, feed, pool, &|fresh| self.activation.apply(fresh));
        self.blocks.get(index + 1).map_or(&self.heads_out, |next| &next.self_in).expect(pool);
        block.feed_out.forward_add(feed, rows, quantised, hidden, pool);
    }

    /// Logits of the rows that want them.
    pub(super) fn head(&self, rows: &[Row], scratch: &mut Scratch) {
        let hidden = self.hidden;
        scratch.slots.fill(NO_SLOT);
        let mut count = 0;
        for (r, _) in rows.iter().enumerate().filter(|(_, row)| row.logits) {
            normalise(&self.final_norm, &scratch.hidden[r * hidden..], &mut scratch.normed[count * hidden..]);
            scratch.slots[r] = count;
            count += 1;
        }
        let Scratch { normed, logits, quantised, pool, .. } = scratch;
        // The next step's.
        if let Some(first) = self.blocks.first() {
            first.self_in.expect(pool);
        }
        self.heads_out.forward(normed, count, quantised, logits, pool, &|_| ());
    }

    /// Cross-attention keys and values of a prompt, from text states `[tokens][text_width]`.
    ///
    /// # Panics
    /// When there are no states, or not whole ones, or more than 16,000.
    pub fn cross_cache(&self, states: &[f32]) -> CrossCache {
        let blocks = self.blocks.iter().map(|block| self.cross_keys(&block.cross_in, states)).collect();
        CrossCache { blocks, tokens: states.len() / self.text_width }
    }

    /// Keys and values that one block makes of text states.
    pub(super) fn cross_keys(&self, cross_in: &Linear, states: &[f32]) -> Attention {
        let (hidden, tokens) = (self.hidden, states.len() / self.text_width);
        assert!(tokens > 0 && states.len().is_multiple_of(self.text_width), "text states are whole rows");
        assert!(tokens <= MOST_POSITIONS, "more text than any scratch has room for");
        let mut projected = vec![0.0; tokens * hidden];
        match &self.text_projection {
            Some(projection) => projection.forward(states, self.text_width, tokens, &mut projected, hidden),
            None => projected.copy_from_slice(states),
        }
        let mut both = vec![0.0; tokens * 2 * hidden];
        cross_in.forward(&projected, hidden, tokens, &mut both, 2 * hidden);
        let mut cache = self.text_cache(tokens);
        for (token, row) in both.chunks_exact(2 * hidden).enumerate() {
            cache.write(token, &row[..hidden], &row[hidden..]);
        }
        cache
    }
}

/// Layer norm of the first `gain.len()` values of `x` into `y`.
pub(super) fn normalise(norm: &Norm, x: &[f32], y: &mut [f32]) {
    let width = norm.gain.len();
    layer_norm(&x[..width], &norm.gain, &norm.bias, NORM_EPSILON, &mut y[..width]);
}
