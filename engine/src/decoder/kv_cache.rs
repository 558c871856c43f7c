//! Keys and values: the growing self-attention cache of one guidance row, and the fixed cross-attention one of a prompt.
//! Allocated once, before the runner needs them.

use super::Decoder;
use crate::kernel::attention::Context;

/// Most positions of any cache: what the attention's working memory holds.
pub(super) const MOST_POSITIONS: usize = (1 << 14) + 64;

/// Self-attention keys and values of one guidance row, `[block][position][hidden]` each.
pub struct KvCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    capacity: usize,
    hidden: usize,
}

impl KvCache {
    /// Room for `capacity` positions. What a row attends to is what was written at positions 0 up to its own.
    ///
    /// # Panics
    /// When `capacity` exceeds the longest play window that a configuration may have.
    pub fn new(decoder: &Decoder, capacity: usize) -> Self {
        assert!(capacity <= MOST_POSITIONS, "a KV cache longer than any play window");
        let len = decoder.blocks() * capacity * decoder.hidden();
        Self { keys: vec![0.0; len], values: vec![0.0; len], capacity, hidden: decoder.hidden() }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Stores one position of one block.
    pub(super) fn write(&mut self, block: usize, position: usize, key: &[f32], value: &[f32]) {
        assert!(position < self.capacity, "position past the KV cache's capacity");
        let at = (block * self.capacity + position) * self.hidden;
        self.keys[at..at + self.hidden].copy_from_slice(key);
        self.values[at..at + self.hidden].copy_from_slice(value);
    }

    /// One block, from position 0.
    pub(super) fn block(&self, block: usize) -> Context<'_> {
        let size = self.capacity * self.hidden;
        let range = block * size..(block + 1) * size;
        Context { keys: &self.keys[range.clone()], values: &self.values[range] }
    }
}

/// Cross-attention keys and values of one prompt, computed once. Immutable, shared between pieces.
pub struct CrossCache {
    /// `[block][token][hidden]`.
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) tokens: usize,
}

impl CrossCache {
    /// Tokens of the prompt, its end token included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn block(&self, block: usize, hidden: usize) -> Context<'_> {
        let size = self.tokens * hidden;
        let range = block * size..(block + 1) * size;
        Context { keys: &self.keys[range.clone()], values: &self.values[range] }
    }
}
