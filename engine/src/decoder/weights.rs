//! Reads the decoder's tensors and packs them. Loader thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::packed::PackedFile;
use super::position::Positions;
use crate::checkpoint::{Activation, CheckpointError, Config, Weights};
use crate::kernel::Linear;
use crate::kernel::layer::Layer;
use crate::kernel::rounding::Feedback;
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
    /// What is usual of a key and a value, `[2 hidden]`, and not kept with each: a share of what 8 bits have to tell that is
    /// the same at every position. Empty at 16 and 32 bits.
    pub usual: Vec<f32>,
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
    /// Whether a step's weights are few.
    pub(super) small: bool,
}

/// Weights of a step, or bytes of them, that one thread reads in a few milliseconds.
pub const SMALL_STEP: u64 = 32_000_000;

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
        Self::read(&Reader::new(weights, config, precision), weights, config, precision)
    }

    /// As [`Decoder::load_at`], with layers that were packed before; `None` when one of them is missing or damaged.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn load_packed(
        weights: &Weights,
        config: &Config,
        precision: Precision,
        packed: &PackedFile,
    ) -> Result<Option<Self>, CheckpointError> {
        let reader = Reader { packed: Some(packed), ..Reader::new(weights, config, precision) };
        let decoder = Self::read(&reader, weights, config, precision)?;
        Ok((!reader.repacked.load(Ordering::Relaxed)).then_some(decoder))
    }

    fn read(
        reader: &Reader,
        weights: &Weights,
        config: &Config,
        precision: Precision,
    ) -> Result<Self, CheckpointError> {
        let shape = &config.decoder;
        let (hidden, vocab) = (shape.hidden_size, shape.vocab_size);
        let embeddings = (0..shape.num_codebooks)
            .map(|k| weights.tensor(&format!("{PREFIX}.embed_tokens.{k}.weight"), &[vocab + 1, hidden]))
            .collect::<Result<_, _>>()?;
        let blocks = reader.all_blocks(shape.num_hidden_layers)?;
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
            small: shape.weights_of_step() <= SMALL_STEP,
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
        self.layers().iter().map(|(_, layer)| layer.bytes()).sum()
    }

    /// Every layer of a step, by name.
    pub(super) fn layers(&self) -> Vec<(String, &Layer)> {
        let blocks = self
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(index, block)| block.layers().map(|(name, layer)| (layer_name(index, name), layer)));
        blocks.chain([(HEADS.to_owned(), &self.heads_out)]).collect()
    }

    /// Every block's usual key and value as bytes, by name.
    pub(super) fn usual(&self) -> Vec<(String, Vec<u8>)> {
        let bytes = |block: &Block| block.usual.iter().flat_map(|x| x.to_le_bytes()).collect();
        let named = |(index, block)| (layer_name(index, USUAL), bytes(block));
        self.blocks.iter().enumerate().map(named).collect()
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

/// Names of a block's layers, as `settle` and the packed file call them.
pub(super) const SELF_IN: &str = "self_attn.in";
pub(super) const SELF_OUT: &str = "self_attn.out_proj";
pub(super) const CROSS_QUERY: &str = "encoder_attn.q_proj";
pub(super) const CROSS_OUT: &str = "encoder_attn.out_proj";
pub(super) const FEED_IN: &str = "fc1";
pub(super) const FEED_OUT: &str = "fc2";
pub(super) const HEADS: &str = "lm_heads";
/// Name of a block's usual key and value.
pub(super) const USUAL: &str = "self_attn.usual";

/// A layer's name among those of all blocks.
pub(super) fn layer_name(block: usize, name: &str) -> String {
    format!("layers.{block}.{name}")
}

/// The transposes of a block's weights: what takes a gradient from a layer's outputs to its inputs.
pub(super) struct Reversed {
    pub self_in: Linear,
    pub self_out: Linear,
    pub cross_query: Linear,
    pub cross_out: Linear,
    pub feed_in: Linear,
    pub feed_out: Linear,
}

impl Block {
    /// As [`Decoder::layers`], to be changed.
    pub(super) fn layers_mut(&mut self) -> [(&'static str, &mut Layer); 6] {
        [
            (SELF_IN, &mut self.self_in),
            (SELF_OUT, &mut self.self_out),
            (CROSS_QUERY, &mut self.cross_query),
            (CROSS_OUT, &mut self.cross_out),
            (FEED_IN, &mut self.feed_in),
            (FEED_OUT, &mut self.feed_out),
        ]
    }

    fn layers(&self) -> [(&'static str, &Layer); 6] {
        [
            (SELF_IN, &self.self_in),
            (SELF_OUT, &self.self_out),
            (CROSS_QUERY, &self.cross_query),
            (CROSS_OUT, &self.cross_out),
            (FEED_IN, &self.feed_in),
            (FEED_OUT, &self.feed_out),
        ]
    }
}

/// Most threads that pack weights.
const PACKERS: usize = 4;

pub(super) struct Reader<'a> {
    weights: &'a Weights,
    hidden: usize,
    feed: usize,
    /// Outputs of all codebooks' heads, and how many there are.
    vocab: usize,
    codebooks: usize,
    precision: Precision,
    /// Layers that were packed before.
    packed: Option<&'a PackedFile>,
    /// What makes up for rounding errors, of the layers that have been looked at.
    feedback: HashMap<String, Feedback>,
    /// One of them could not be used.
    repacked: AtomicBool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a Weights, config: &Config, precision: Precision) -> Self {
        let shape = &config.decoder;
        Self {
            weights,
            hidden: shape.hidden_size,
            feed: shape.ffn_dim,
            vocab: shape.vocab_size,
            codebooks: shape.num_codebooks,
            precision,
            packed: None,
            feedback: HashMap::new(),
            repacked: AtomicBool::new(false),
        }
    }

    /// All blocks, by a few threads: packing a weight takes longer than reading it.
    fn all_blocks(&self, count: usize) -> Result<Vec<Block>, CheckpointError> {
        let threads =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(PACKERS)).min(count.max(1));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return own;
                }
                own.push((index, self.numbered_block(index)));
            }
        };
        let mut made: Vec<(usize, Result<Block, CheckpointError>)> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for other in others {
                match other.join() {
                    Ok(own) => all.extend(own),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        made.sort_by_key(|(index, _)| *index);
        made.into_iter().map(|(_, block)| block).collect()
    }

    /// Has the layers of these names rounded with their inputs in view, and no others.
    pub(super) fn set_feedback(&mut self, feedback: HashMap<String, Feedback>) {
        self.feedback = feedback;
    }

    fn head_names(&self) -> Vec<String> {
        (0..self.codebooks).map(|k| format!("decoder.lm_heads.{k}.weight")).collect()
    }

    /// The heads of all codebooks as one layer.
    pub(super) fn heads(&self) -> Result<Layer, CheckpointError> {
        self.layer(HEADS, &self.head_names(), [self.vocab, self.hidden])
    }

    pub(super) fn numbered_block(&self, index: usize) -> Result<Block, CheckpointError> {
        let (hidden, feed) = (self.hidden, self.feed);
        let path = format!("{PREFIX}.layers.{index}");
        let layer = |name: &str, part: &str, tensors: &[&str], shape: [usize; 2]| {
            let names: Vec<String> = tensors.iter().map(|tensor| format!("{path}{part}.{tensor}.weight")).collect();
            self.layer(&layer_name(index, name), &names, shape)
        };
        let (own, cross, square) = (".self_attn", ".encoder_attn", [hidden, hidden]);
        Ok(Block {
            self_norm: self.norm(&format!("{path}.self_attn_layer_norm"))?,
            self_in: layer(SELF_IN, own, &["q_proj", "k_proj", "v_proj"], square)?,
            usual: self.usual(index),
            self_out: layer(SELF_OUT, own, &["out_proj"], square)?,
            cross_norm: self.norm(&format!("{path}.encoder_attn_layer_norm"))?,
            cross_query: layer(CROSS_QUERY, cross, &["q_proj"], square)?,
            cross_in: self.once(&format!("{path}.encoder_attn"), &["k_proj", "v_proj"])?,
            cross_out: layer(CROSS_OUT, cross, &["out_proj"], square)?,
            feed_norm: self.norm(&format!("{path}.final_layer_norm"))?,
            feed_in: layer(FEED_IN, "", &["fc1"], [feed, hidden])?,
            feed_out: layer(FEED_OUT, "", &["fc2"], [hidden, feed])?,
        })
    }

    /// The transposes of a block's weights.
    pub(super) fn reversed_block(&self, index: usize) -> Result<Reversed, CheckpointError> {
        let (hidden, feed) = (self.hidden, self.feed);
        let path = format!("{PREFIX}.layers.{index}");
        let reversed = |part: &str, tensors: &[&str], shape: [usize; 2]| {
            let names: Vec<String> = tensors.iter().map(|tensor| format!("{path}{part}.{tensor}.weight")).collect();
            self.reversed(&names, shape)
        };
        let (own, cross, square) = (".self_attn", ".encoder_attn", [hidden, hidden]);
        Ok(Reversed {
            self_in: reversed(own, &["q_proj", "k_proj", "v_proj"], square)?,
            self_out: reversed(own, &["out_proj"], square)?,
            cross_query: reversed(cross, &["q_proj"], square)?,
            cross_out: reversed(cross, &["out_proj"], square)?,
            feed_in: reversed("", &["fc1"], [feed, hidden])?,
            feed_out: reversed("", &["fc2"], [hidden, feed])?,
        })
    }

    /// The transpose of all codebooks' heads.
    pub(super) fn reversed_heads(&self) -> Result<Linear, CheckpointError> {
        self.reversed(&self.head_names(), [self.vocab, self.hidden])
    }

    fn reversed(&self, tensors: &[String], shape: [usize; 2]) -> Result<Linear, CheckpointError> {
        let (outputs, inputs) = (tensors.len() * shape[0], shape[1]);
        let weight = self.weights.stacked(tensors, &shape)?;
        let transposed: Vec<f32> =
            (0..inputs).flat_map(|k| (0..outputs).map(move |n| (n, k))).map(|(n, k)| weight[n * inputs + k]).collect();
        Ok(Linear::new(&transposed, None, inputs, outputs))
    }

    pub(super) fn norm(&self, path: &str) -> Result<Norm, CheckpointError> {
        let read = |part: &str| self.weights.tensor(&format!("{path}.{part}"), &[self.hidden]);
        Ok(Norm { gain: read("weight")?, bias: read("bias")? })
    }

    /// A block's usual key and value as they were packed, if they were.
    fn usual(&self, index: usize) -> Vec<f32> {
        let Some(packed) = self.packed else { return Vec::new() };
        match packed.numbers(&layer_name(index, USUAL), 2 * self.hidden) {
            Some(usual) => usual,
            None => {
                self.repacked.store(true, Ordering::Relaxed);
                Vec::new()
            }
        }
    }

    /// Several tensors of one shape, projections of one input, as one layer.
    fn layer(&self, name: &str, tensors: &[String], shape: [usize; 2]) -> Result<Layer, CheckpointError> {
        let (outputs, inputs) = (tensors.len() * shape[0], shape[1]);
        if let Some(packed) = self.packed {
            self.weights.check(tensors, &shape)?;
            match packed.layer(name, outputs, inputs) {
                Some(layer) => return Ok(layer),
                None => self.repacked.store(true, Ordering::Relaxed),
            }
        }
        let weight = self.weights.stacked(tensors, &shape)?;
        Ok(match self.feedback.get(name) {
            Some(feedback) => Layer::rounded(&weight, outputs, inputs, self.precision, feedback),
            None => Layer::new(&weight, outputs, inputs, self.precision),
        })
    }

    /// Several `[hidden][hidden]` projections of one input as one layer that runs once per prompt.
    fn once(&self, path: &str, parts: &[&str]) -> Result<Linear, CheckpointError> {
        let names: Vec<String> = parts.iter().map(|part| format!("{path}.{part}.weight")).collect();
        let weight = self.weights.stacked(&names, &[self.hidden, self.hidden])?;
        let pack = if self.precision == Precision::F32 { Linear::new } else { Linear::new_bf16 };
        Ok(pack(&weight, None, parts.len() * self.hidden, self.hidden))
    }
}
