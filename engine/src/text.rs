//! Prompts: the checkpoint's own tokenizer, its T5 encoder, and the cross-attention cache that the decoder plays from.
//! Loader thread.

mod charsmap;
mod t5;
mod tokenizer;

use crate::checkpoint::{Bytes, CheckpointError, TextConfig, Weights};
use crate::decoder::{CrossCache, Decoder};
use t5::T5Encoder;
use tokenizer::PromptTokenizer;

/// Longest prompt in tokens. T5 was trained on 512; attention over more only costs time.
const MOST_TOKENS: usize = 2048;

/// A prompt that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The tokenizer refused it.
    #[error("the prompt could not be split into tokens ({reason}); try other words")]
    Tokenizer { reason: String },
    /// Too much text.
    #[error("the prompt has {found} tokens, at most {most} can be used; shorten it")]
    TooLong { found: usize, most: usize },
    /// Tokenizer and text encoder do not belong together.
    #[error(
        "the tokenizer gave token {token}, but the text encoder knows {size}; \
         tokenizer.json and the weights are of different checkpoints: download both again"
    )]
    UnknownToken { token: u32, size: usize },
}

/// What the text encoder makes of a prompt.
pub struct TextStates {
    /// Token ids, the end token included.
    pub ids: Vec<u32>,
    /// `[tokens][text_width]`.
    pub states: Vec<f32>,
}

/// Tokenizer and T5 encoder of one checkpoint. Immutable.
pub struct TextEncoder {
    tokenizer: PromptTokenizer,
    t5: T5Encoder,
    eos: u32,
    vocab: usize,
}

impl TextEncoder {
    /// Parses the tokenizer and reads `text_encoder.`; `file` names the tokenizer in errors.
    ///
    /// # Errors
    /// A tokenizer that does not parse; a missing, mis-shaped or non-float tensor, by name.
    pub fn load(
        weights: &Weights,
        config: &TextConfig,
        tokenizer: &Bytes,
        file: &str,
    ) -> Result<Self, CheckpointError> {
        let refused = |reason| CheckpointError::Tokenizer { file: file.to_owned(), reason };
        let tokenizer = PromptTokenizer::parse(tokenizer).map_err(refused)?;
        let t5 = T5Encoder::load(weights, config)?;
        Ok(Self { tokenizer, t5, eos: config.eos_token_id, vocab: config.vocab_size })
    }

    /// Token ids and text states. An empty prompt is the end token alone.
    ///
    /// # Errors
    /// A prompt that is too long or that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<TextStates, TextError> {
        let mut ids = self.tokenizer.ids(text).map_err(|reason| TextError::Tokenizer { reason })?;
        if ids.is_empty() {
            ids.push(self.eos);
        }
        let states = self.states(&ids)?;
        Ok(TextStates { ids, states })
    }

    /// Text states `[tokens][text_width]` of token ids, which end with the end token as the tokenizer gives them.
    ///
    /// # Errors
    /// More tokens than can be used, or a token that the encoder does not know.
    pub fn states(&self, ids: &[u32]) -> Result<Vec<f32>, TextError> {
        if ids.len() > MOST_TOKENS {
            return Err(TextError::TooLong { found: ids.len(), most: MOST_TOKENS });
        }
        if let Some(&token) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(TextError::UnknownToken { token, size: self.vocab });
        }
        Ok(self.t5.forward(ids))
    }
}

/// A prompt ready to play. Immutable: share it in an `Arc`.
pub struct Prompt {
    /// What the musician wrote.
    pub text: String,
    /// Keys and values of every block, for the conditional row.
    pub cross: CrossCache,
    /// What they were made of, `[tokens][text_width]`: a card makes its own.
    pub states: Vec<f32>,
}

impl Prompt {
    /// Encodes `text` for `decoder`.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`].
    pub fn new(text: &str, encoder: &TextEncoder, decoder: &Decoder) -> Result<Self, TextError> {
        let encoded = encoder.encode(text)?;
        let cross = decoder.cross_cache(&encoded.states);
        Ok(Self { text: text.to_owned(), cross, states: encoded.states })
    }
}
