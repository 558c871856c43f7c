//! Reads the decoder's tensors and packs them. Loader thread.

use super::position::Positions;
use crate::checkpoint::{Activation, CheckpointError, Config, Weights};
use crate::kernel::Linear;
use crate::kernel::layer::Layer;
use crate::precision::Precision;

/// torch's layer-norm default; MusicGen has no field for it.
pub(super) const NORM_EPSILON: f32 = 1e-5;

/// Where the decoder's tensors lie.
const PREFIX: &str = "decoder.model.decoder";

/// Gain and bias of a layer norm.
pub(super) struct Norm {
    pub gain: Vec<f32>,
    pub bias: Vec<f32>,
}

/// One decoder layer.
pub(super) struct Block {
    pub self_norm: Norm,
    /// Query, key and value stacked: `[3 hidden][hidden]`.
    pub self_in: Layer,
    pub self_out: Layer,
    pub cross_norm: Norm,
    pub cross_query: Layer,
    /// Key and value stacked, used once per prompt: `[2 hidden][hidden]`.
    pub cross_in: Linear,
    pub cross_out: Layer,
    pub feed_norm: Norm,
    pub feed_in: Layer,
    pub feed_out: Layer,
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
    pub(super) heads_out: Layer,
    pub(super) precision: Precision,
}

impl Decoder {
    /// Reads `decoder.` and `enc_to_dec_proj` of a checkpoint, as exactly as it has them.
    ///
    /// # Errors
    /// A missing, mis-shaped or non-float tensor, by name.
    pub fn load(weights: &Weights, config: &Config) -> Result<Self, CheckpointError> {
        Self::load_at(weights, config, Precision::F32)
    }

    /// As [`Decoder::load`], at a precision. What a prompt needs but once is rounded no further than to bf16.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn load_at(weights: &Weights, config: &Config, precision: Precision) -> Result<Self, CheckpointError> {
        let shape = &config.decoder;
        let (hidden, vocab) = (shape.hidden_size, shape.vocab_size);
        let reader = Reader::new(weights, config, precision);
        let embeddings = (0..shape.num_codebooks)
            .map(|k| weights.tensor(&format!("{PREFIX}.embed_tokens.{k}.weight"), &[vocab + 1, hidden]))
            .collect::<Result<_, _>>()?;
        let blocks =
            (0..shape.num_hidden_layers).map(|index| reader.numbered_block(index)).collect::<Result<_, _>>()?;
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
            final_norm: reader.norm(&format!("{PREFIX}.layer_norm"))?,
            heads_out: reader.heads()?,
            precision,
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

    /// How exactly the weights are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of weights that one step reads, whatever its rows.
    pub fn bytes_per_step(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(|block| {
            [&block.self_in, &block.self_out, &block.cross_query, &block.cross_out, &block.feed_in, &block.feed_out]
        });
        blocks.chain([&self.heads_out]).map(Layer::bytes).sum()
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

pub(super) struct Reader<'a> {
    weights: &'a Weights,
    hidden: usize,
    feed: usize,
    /// Outputs of all codebooks' heads, and how many there are.
    vocab: usize,
    codebooks: usize,
    precision: Precision,
}

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a Weights, config: &Config, precision: Precision) -> Self {
        let shape = &config.decoder;
        let (vocab, codebooks) = (shape.vocab_size, shape.num_codebooks);
        Self { weights, hidden: shape.hidden_size, feed: shape.ffn_dim, vocab, codebooks, precision }
    }

    /// The heads of all codebooks as one layer.
    pub(super) fn heads(&self) -> Result<Layer, CheckpointError> {
        let names: Vec<String> = (0..self.codebooks).map(|k| format!("decoder.lm_heads.{k}.weight")).collect();
        let weight = self.weights.stacked(&names, &[self.vocab, self.hidden])?;
        Ok(Layer::new(&weight, self.codebooks * self.vocab, self.hidden, self.precision))
    }

    pub(super) fn numbered_block(&self, index: usize) -> Result<Block, CheckpointError> {
        self.block(&format!("{PREFIX}.layers.{index}"))
    }

    fn block(&self, path: &str) -> Result<Block, CheckpointError> {
        let (hidden, feed) = (self.hidden, self.feed);
        Ok(Block {
            self_norm: self.norm(&format!("{path}.self_attn_layer_norm"))?,
            self_in: self.stacked(&format!("{path}.self_attn"), &["q_proj", "k_proj", "v_proj"])?,
            self_out: self.stacked(&format!("{path}.self_attn"), &["out_proj"])?,
            cross_norm: self.norm(&format!("{path}.encoder_attn_layer_norm"))?,
            cross_query: self.stacked(&format!("{path}.encoder_attn"), &["q_proj"])?,
            cross_in: self.once(&format!("{path}.encoder_attn"), &["k_proj", "v_proj"])?,
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

    fn linear(&self, path: &str, outputs: usize, inputs: usize) -> Result<Layer, CheckpointError> {
        let weight = self.weights.tensor(&format!("{path}.weight"), &[outputs, inputs])?;
        Ok(Layer::new(&weight, outputs, inputs, self.precision))
    }

    /// Several `[hidden][hidden]` projections of one input as one layer.
    fn stacked(&self, path: &str, parts: &[&str]) -> Result<Layer, CheckpointError> {
        let weight = self.rows(path, parts)?;
        Ok(Layer::new(&weight, parts.len() * self.hidden, self.hidden, self.precision))
    }

    /// As [`Reader::stacked`], for what runs once per prompt.
    fn once(&self, path: &str, parts: &[&str]) -> Result<Linear, CheckpointError> {
        let weight = self.rows(path, parts)?;
        let pack = if self.precision == Precision::F32 { Linear::new } else { Linear::new_bf16 };
        Ok(pack(&weight, None, parts.len() * self.hidden, self.hidden))
    }

    fn rows(&self, path: &str, parts: &[&str]) -> Result<Vec<f32>, CheckpointError> {
        let names: Vec<String> = parts.iter().map(|part| format!("{path}.{part}.weight")).collect();
        self.weights.stacked(&names, &[self.hidden, self.hidden])
    }
}
