//! EnCodec, both directions, on our own kernels: an exact decoder stream for the runner thread, an encoder for learning.
//! Audio and latents are time-major (`[t][channels]`); transformers' modules are the reference for every number.

pub(crate) mod conv;
mod decoder;
mod encoder;
mod error;
pub(crate) mod layer;
mod lstm;
mod quantizer;
mod residual;
pub(crate) mod seanet;
mod stack;
pub(crate) mod upsample;

pub use decoder::{CodecDecoder, DecoderStream};
pub use encoder::{CodecEncoder, Departure};
pub use error::CodecError;

/// Codes of a sequence, `[codebooks][frames]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    codebooks: Vec<Vec<u32>>,
}

impl Codes {
    /// From one vector per codebook, all of the same length.
    pub(crate) fn from_codebooks(codebooks: Vec<Vec<u32>>) -> Self {
        Self { codebooks }
    }

    /// From `[frames][codebooks]`.
    ///
    /// # Errors
    /// A length that is not a whole number of frames.
    pub fn from_frames(codes: &[u32], codebooks: usize) -> Result<Self, CodecError> {
        if codebooks == 0 || !codes.len().is_multiple_of(codebooks) {
            return Err(CodecError::PartialFrame { found: codes.len(), codebooks });
        }
        let column = |k: usize| codes.iter().skip(k).step_by(codebooks).copied().collect();
        Ok(Self { codebooks: (0..codebooks).map(column).collect() })
    }

    /// Number of codebooks.
    pub fn codebooks(&self) -> usize {
        self.codebooks.len()
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.codebooks.first().map_or(0, Vec::len)
    }

    /// All frames of codebook `k`, 0 being the coarsest; empty past the last codebook.
    pub fn codebook(&self, k: usize) -> &[u32] {
        self.codebooks.get(k).map_or(&[], Vec::as_slice)
    }

    /// `[frames][codebooks]`, what a decoder stream takes.
    pub fn frame_major(&self) -> Vec<u32> {
        (0..self.frames()).flat_map(|f| self.codebooks.iter().map(move |codes| codes[f])).collect()
    }
}
