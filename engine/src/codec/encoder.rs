//! EnCodec's encoder: audio to codes, whole sequences of any length. Any thread but the audio thread; learning uses it.
//! Layer for layer as transformers' `EncodecEncoder`.

use std::sync::Arc;

use super::quantizer::{Quantizer, Search};
use super::seanet;
use super::stack::Stack;
use super::{CodecError, Codes};
use crate::checkpoint::{CheckpointError, CodecConfig, Weights};
use crate::pool::Pool;

/// Frames of audio per pass, which bounds the memory whatever the length.
const CHUNK_FRAMES: usize = 16;

/// A code that is not the expected one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Departure {
    pub frame: usize,
    pub codebook: usize,
    pub found: u32,
    pub expected: u32,
    /// How much farther the expected code lies, as a share of the found one's squared distance: tiny for a tie.
    pub gap: f64,
    /// The same difference as a share of |x|^2 + |e|^2, the terms that a search by |x|^2 - 2 x e + |e|^2 rounds.
    pub rounding: f64,
}

/// Weights of the encoder, immutable.
pub struct CodecEncoder {
    quantizer: Quantizer,
    search: Search,
    stack: Stack,
    hop: usize,
    channels: usize,
}

impl CodecEncoder {
    /// Reads `audio_encoder.quantizer` and `audio_encoder.encoder` of a MusicGen checkpoint, with as many codebooks as its
    /// language model plays: a codec may have more.
    ///
    /// # Errors
    /// A missing or mis-shaped tensor, or a setting that this codec does not have, by name.
    pub fn load(weights: &Weights, config: &CodecConfig, codebooks: usize) -> Result<Self, CheckpointError> {
        let quantizer = seanet::quantizer(weights, config, codebooks)?;
        let search = quantizer.search();
        let stack = seanet::encoder(weights, config)?;
        let hop = config.upsampling_ratios.iter().product();
        Ok(Self { quantizer, search, stack, hop, channels: config.audio_channels })
    }

    /// Samples per frame and channel.
    pub fn hop(&self) -> usize {
        self.hop
    }

    /// Channels of the interleaved audio.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Width of one latent frame.
    pub fn latent_width(&self) -> usize {
        self.quantizer.width()
    }

    /// Codes of `audio` (interleaved if there are two channels), one frame per started hop.
    ///
    /// # Errors
    /// A length that is not a whole number of samples.
    pub fn encode(&self, audio: &[f32]) -> Result<Codes, CodecError> {
        let latent = self.latent(audio)?;
        Ok(Codes::from_codebooks(self.quantizer.encode(&self.search, &latent)))
    }

    /// Follows `expected` through the residuals of `latent` (`[frames][latent_width]`) and gives every place where the
    /// nearest code is another one. Later codebooks are judged on the residual that the expected codes leave.
    ///
    /// # Errors
    /// Codes of another codec, or of another number of frames.
    pub fn departures(&self, latent: &[f32], expected: &Codes) -> Result<Vec<Departure>, CodecError> {
        let size = self.quantizer.size();
        for codebook in 0..expected.codebooks() {
            if let Some(frame) = expected.codebook(codebook).iter().position(|&code| code as usize >= size) {
                return Err(CodecError::UnknownCode {
                    code: expected.codebook(codebook)[frame],
                    codebook,
                    frame,
                    size,
                });
            }
        }
        let (found, frames) = (latent.len() / self.latent_width(), expected.frames());
        if found != frames || expected.codebooks() > self.quantizer.codebooks() {
            return Err(CodecError::OtherLength { frames, latent: found });
        }
        let mut residual = latent.to_vec();
        let mut departures = Vec::new();
        for codebook in 0..expected.codebooks() {
            let nearest = self.quantizer.nearest_codes(&self.search, codebook, &residual);
            for (frame, (row, found)) in residual.chunks_exact_mut(self.latent_width()).zip(nearest).enumerate() {
                let wanted = expected.codebook(codebook)[frame];
                if found != wanted {
                    let [near, far] = [found, wanted].map(|code| self.quantizer.distance(codebook, code, row));
                    let gap = (far - near) / near.max(f64::MIN_POSITIVE);
                    let rounding = (far - near) / self.quantizer.terms(codebook, wanted, row).max(f64::MIN_POSITIVE);
                    departures.push(Departure { frame, codebook, found, expected: wanted, gap, rounding });
                }
                self.quantizer.subtract(codebook, wanted, row);
            }
        }
        Ok(departures)
    }

    /// What the quantiser gets: `[frames][latent_width]`.
    ///
    /// # Errors
    /// A length that is not a whole number of samples.
    pub fn latent(&self, audio: &[f32]) -> Result<Vec<f32>, CodecError> {
        if !audio.len().is_multiple_of(self.channels) {
            return Err(CodecError::PartialSample { found: audio.len(), channels: self.channels });
        }
        let most = CHUNK_FRAMES * self.hop;
        let mut stream = self.stack.stream(most, Arc::new(Pool::new(1)));
        let frames = (audio.len() / self.channels).div_ceil(self.hop);
        let mut latent = Vec::with_capacity(frames * self.latent_width());
        let mut chunks = audio.chunks(most * self.channels).peekable();
        while let Some(chunk) = chunks.next() {
            let rows = chunk.len() / self.channels;
            let last = chunks.peek().is_none();
            latent.extend_from_slice(self.stack.push(&mut stream, rows, last, |x| x.copy_from_slice(chunk)));
        }
        Ok(latent)
    }
}
