//! Reads the decoder's tensors and packs them. Loader thread.

use super::position::Positions;
use crate::checkpoint::{Activation, CheckpointError, Config, Weights};
use crate::kernel::Linear;

/// torch's layer-norm default; MusicGen has no field for it.
pub(super) const NORM_EPSILON: f32 = 1e-5;

/// Gain and bias of a layer norm.
pub(super) struct Norm {
    pub gain: Vec<f32>,
    pub bias: Vec<f32>,
}

/// One decoder layer.
pub(super) struct Block {
    pub self_norm: Norm,
    /// Query, key and value stacked: `[3 hidden][hidden]`.
    pub self_in: Linear,
    pub self_out: Linear,
    pub cross_norm: Norm,
    pub cross_query: Linear,
    /// Key and value stacked, used once per prompt: `[2 hidden][hidden]`.
    pub cross_in: Linear,
    pub cross_out: Linear,
    pub feed_norm: Norm,
    pub feed_in: Linear,
    pub feed_out: Linear,
}

/// A frozen MusicGen language model, packed for the run path. Immutable: share it in an `Arc`.
pub struct Decoder {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) feed: usize,
    pub(super) vocab: usize,
    pub(super) codebooks: usize,
    pub(super) channels: usize,
    pub(super) text_width: usize,
    pub(super) pad: u32,
    pub(super) bos: u32,
    pub(super) activation: Activation,
    /// `[codebook][vocab + 1][hidden]`.
    pub(super) embeddings: Vec<Vec<f32>>,
    pub(super) positions: Positions,
    /// From the text encoder's width; absent when the widths are equal.
    pub(super) text_projection: Option<Linear>,
    pub(super) blocks: Vec<Block>,
    pub(super) final_norm: Norm,
    /// All codebooks stacked: `[codebooks vocab][hidden]`.
    pub(super) heads_out: Linear,
}

impl Decoder {
    /// Reads `decoder.` and `enc_to_dec_proj` of a checkpoint.
    ///
    /// # Errors
    /// A missing, mis-shaped or non-float tensor, by name.
    pub fn load(weights: &Weights, config: &Config) -> Result<Self, CheckpointError> {
        let shape = &config.decoder;
        let (hidden, vocab) = (shape.hidden_size, shape.vocab_size);
        let prefix = "decoder.model.decoder";
        let reader = Reader { weights, hidden, feed: shape.ffn_dim };
        let embeddings = (0..shape.num_codebooks)
            .map(|k| weights.tensor(&format!("{prefix}.embed_tokens.{k}.weight"), &[vocab + 1, hidden]))
            .collect::<Result<_, _>>()?;
        let blocks = (0..shape.num_hidden_layers)
            .map(|layer| reader.block(&format!("{prefix}.layers.{layer}")))
            .collect::<Result<_, _>>()?;
        let heads: Vec<String> = (0..shape.num_codebooks).map(|k| format!("decoder.lm_heads.{k}.weight")).collect();
        let heads = weights.stacked(&heads, &[vocab, hidden])?;
        let text_width = config.text.d_model;
        let text_projection = match text_width == hidden {
            true => None,
            false => {
                let weight = weights.tensor("enc_to_dec_proj.weight", &[hidden, text_width])?;
                let bias = weights.tensor("enc_to_dec_proj.bias", &[hidden])?;
                Some(Linear::new(&weight, Some(&bias), hidden, text_width))
            }
        };
        Ok(Self {
            hidden,
            heads: shape.num_attention_heads,
            feed: shape.ffn_dim,
            vocab,
            codebooks: shape.num_codebooks,
            channels: shape.audio_channels,
            text_width,
            pad: config.generation.pad,
            bos: config.generation.bos,
            activation: shape.activation,
            embeddings,
            positions: Positions::new(hidden),
            text_projection,
            blocks,
            final_norm: reader.norm(&format!("{prefix}.layer_norm"))?,
            heads_out: Linear::new(&heads, None, shape.num_codebooks * vocab, hidden),
        })
    }

    /// Decoder blocks (layers).
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Width of the hidden state.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Codes of one codebook, special ones not counted.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Codebooks of all channels.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// 1 mono, 2 stereo.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Width of the text encoder's states.
    pub fn text_width(&self) -> usize {
        self.text_width
    }

    /// Code where the delay pattern has no frame.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Code of every codebook in column 0.
    pub fn bos(&self) -> u32 {
        self.bos
    }
}

struct Reader<'a> {
    weights: &'a Weights,
    hidden: usize,
    feed: usize,
}

impl Reader<'_> {
    fn block(&self, path: &str) -> Result<Block, CheckpointError> {
        let (hidden, feed) = (self.hidden, self.feed);
        Ok(Block {
            self_norm: self.norm(&format!("{path}.self_attn_layer_norm"))?,
            self_in: self.stacked(&format!("{path}.self_attn"), &["q_proj", "k_proj", "v_proj"])?,
            self_out: self.stacked(&format!("{path}.self_attn"), &["out_proj"])?,
            cross_norm: self.norm(&format!("{path}.encoder_attn_layer_norm"))?,
            cross_query: self.stacked(&format!("{path}.encoder_attn"), &["q_proj"])?,
            cross_in: self.stacked(&format!("{path}.encoder_attn"), &["k_proj", "v_proj"])?,
            cross_out: self.stacked(&format!("{path}.encoder_attn"), &["out_proj"])?,
            feed_norm: self.norm(&format!("{path}.final_layer_norm"))?,
            feed_in: self.linear(&format!("{path}.fc1"), feed, hidden)?,
            feed_out: self.linear(&format!("{path}.fc2"), hidden, feed)?,
        })
    }

    fn norm(&self, path: &str) -> Result<Norm, CheckpointError> {
        let read = |part: &str| self.weights.tensor(&format!("{path}.{part}"), &[self.hidden]);
        Ok(Norm { gain: read("weight")?, bias: read("bias")? })
    }

    fn linear(&self, path: &str, outputs: usize, inputs: usize) -> Result<Linear, CheckpointError> {
        let weight = self.weights.tensor(&format!("{path}.weight"), &[outputs, inputs])?;
        Ok(Linear::new(&weight, None, outputs, inputs))
    }

    /// Several `[hidden][hidden]` projections of one input as one layer.
    fn stacked(&self, path: &str, parts: &[&str]) -> Result<Linear, CheckpointError> {
        let names: Vec<String> = parts.iter().map(|part| format!("{path}.{part}.weight")).collect();
        let weight = self.weights.stacked(&names, &[self.hidden, self.hidden])?;
        Ok(Linear::new(&weight, None, parts.len() * self.hidden, self.hidden))
    }
}
