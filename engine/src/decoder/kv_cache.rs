//! Keys and values: the growing self-attention cache of one guidance row, and the fixed cross-attention one of a prompt.
//! Allocated once, before the runner needs them.

use super::Decoder;
use crate::kernel::attention::Attention;
use crate::precision::Precision;

/// Most positions of any cache: what the attention's working memory holds.
pub(super) const MOST_POSITIONS: usize = (1 << 14) + 64;

/// Self-attention keys and values of one guidance row, for every block.
pub struct KvCache {
    pub(super) blocks: Vec<Attention>,
    capacity: usize,
}

impl KvCache {
    /// Room for `capacity` positions. What a row attends to is what was written at positions 0 up to its own.
    ///
    /// # Panics
    /// When `capacity` exceeds the longest play window that a configuration may have.
    pub fn new(decoder: &Decoder, capacity: usize) -> Self {
        assert!(capacity <= MOST_POSITIONS, "a KV cache longer than any play window");
        Self { blocks: decoder.caches(capacity), capacity }
    }

    /// Room for `capacity` positions of `blocks` blocks in f32, whatever the decoder's precision.
    pub(super) fn exact(decoder: &Decoder, blocks: usize, capacity: usize) -> Self {
        let new = || Attention::new(decoder.heads, decoder.hidden / decoder.heads, capacity);
        Self { blocks: (0..blocks).map(|_| new()).collect(), capacity }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that a step reads of it for each position that it attends to.
    pub fn bytes_per_position(&self) -> usize {
        self.blocks.iter().map(Attention::bytes_per_position).sum()
    }
}

/// Cross-attention keys and values of one prompt, computed once. Immutable, shared between pieces.
pub struct CrossCache {
    pub(super) blocks: Vec<Attention>,
    pub(super) tokens: usize,
}

impl CrossCache {
    /// Tokens of the prompt, its end token included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Decoder {
    /// One cache for each block.
    pub(super) fn caches(&self, capacity: usize) -> Vec<Attention> {
        (0..self.blocks()).map(|_| self.cache(capacity)).collect()
    }

    /// One block's cache of a prompt: so few positions that no bits need be saved.
    pub(super) fn text_cache(&self, tokens: usize) -> Attention {
        let new = if self.precision() == Precision::F32 { Attention::new } else { Attention::new_bf16 };
        new(self.heads, self.hidden / self.heads, tokens)
    }

    /// One block's cache.
    pub(super) fn cache(&self, capacity: usize) -> Attention {
        let new = match self.precision() {
            Precision::F32 => Attention::new,
            Precision::Bf16 => Attention::new_bf16,
            // A small decoder has the time to read them whole, and half of what 8 bits cost it would be theirs.
            Precision::Int8 if self.small => Attention::new_bf16,
            Precision::Int8 | Precision::Int4 => Attention::new_int8,
        };
        new(self.heads, self.hidden / self.heads, capacity)
    }
}
