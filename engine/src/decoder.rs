//! MusicGen's language model over codes: weights, KV caches, one forward pass over mixed rows, delay pattern, sampling.
//! Copet et al. 2023 (arXiv 2306.05284); arithmetic as transformers' `MusicgenForCausalLM`. Runner thread.

use crate::steering::push::Push;

pub mod delay_pattern;
mod forward;
pub mod gradient;
pub mod kv_cache;
pub mod packed;
pub(crate) mod position;
pub mod quality;
pub mod sampling;
mod weights;

pub use forward::{Observer, Scratch};
pub use kv_cache::{CrossCache, KvCache};
pub use weights::{Decoder, SMALL_STEP};

/// Most codebooks of any checkpoint, so that a column is a plain array. The published stereo ones have 8.
pub const MAX_CODEBOOKS: usize = 16;

/// One row of a forward pass: one position of one guidance row of one piece.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Index into the caches of the call.
    pub cache: usize,
    /// Position in that cache; everything before it was written by earlier rows.
    pub position: usize,
    /// Input codes, one for each codebook; BOS and PAD are `vocab`. The rest of the array is not read.
    pub codes: [u32; MAX_CODEBOOKS],
    /// The prompt; `None` is the unconditional row, whose cross-attention is exactly 0 and skipped.
    pub text: Option<&'a CrossCache>,
    /// `[blocks * hidden]`, added to each block's output.
    pub injection: Option<&'a [f32]>,
    /// What each block's output is brought to after that.
    pub pushes: &'a [Push<'a>],
    /// Whether the row's logits are wanted.
    pub logits: bool,
}
