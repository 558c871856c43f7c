//! A checkpoint's decoder as candle's tensors, and what it makes of a prompt. Loader thread; immutable once loaded.

use std::sync::{Arc, Weak};

use candle_core::{DeviceLocation, Result, Tensor};
use candle_nn::ops;
use parking_lot::Mutex;

use super::device::{CandleDevice, Numbers};
use super::failed;
use crate::backend::cuda::abi::status;
use crate::checkpoint::{Activation, Checkpoint, Config, Weights};
use crate::error::EngineError;
use crate::handle::ModelSource;

/// Where the decoder's tensors lie.
const PREFIX: &str = "decoder.model.decoder";

/// torch's layer-norm default; MusicGen has no field for it.
const NORM_EPSILON: f32 = 1e-5;

/// A checkpoint, and where and how exactly it is kept.
type Key = (ModelSource, DeviceLocation, Numbers);

/// What every instance in the process shares.
static LOADED: Mutex<Vec<(Key, Weak<CandleModel>)>> = Mutex::new(Vec::new());

/// Gain and bias of a layer norm.
pub(super) struct Norm {
    gain: Tensor,
    bias: Tensor,
}

/// One decoder layer. Weights are views `[inputs][outputs]` of what the checkpoint has.
pub(super) struct Block {
    pub self_norm: Norm,
    /// Of a query it has attention's factor in it, here and below.
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
    pub self_out: Tensor,
    pub cross_norm: Norm,
    pub cross_query: Tensor,
    pub cross_key: Tensor,
    pub cross_value: Tensor,
    pub cross_out: Tensor,
    pub feed_norm: Norm,
    pub feed_in: Tensor,
    pub feed_out: Tensor,
}

/// A checkpoint's decoder on one device. Share it in an `Arc`: players keep it. The embedding tables are the processor's own
/// decoder's: a step takes a few rows of them.
pub struct CandleModel {
    pub(super) device: CandleDevice,
    pub(super) blocks: Vec<Block>,
    pub(super) final_norm: Norm,
    /// All codebooks stacked.
    pub(super) heads_out: Tensor,
    /// From the text encoder's width, and its bias; absent when the widths are equal.
    text_projection: Option<(Tensor, Tensor)>,
    activation: Activation,
    text_width: usize,
    pub(super) heads: usize,
    pub(super) hidden: usize,
}

/// Every block's keys and values of a prompt, `[heads][tokens][head]`.
pub(super) type PromptCache = Vec<[Tensor; 2]>;

impl CandleModel {
    /// As [`CandleModel::load`], or the copy that another instance has loaded, on its own handle of the same device.
    ///
    /// # Errors
    /// As [`CandleModel::load`].
    pub fn shared(device: &CandleDevice, source: &ModelSource) -> std::result::Result<Arc<Self>, EngineError> {
        // Held while loading: a second instance waits for the first one's copy instead of making its own.
        let mut loaded = LOADED.lock();
        loaded.retain(|(_, model)| model.strong_count() > 0);
        let key = (source.clone(), device.device.location(), device.numbers);
        if let Some(model) = loaded.iter().find(|(other, _)| *other == key).and_then(|(_, model)| model.upgrade()) {
            return Ok(model);
        }
        let checkpoint = Checkpoint::load(&source.checkpoint(), &|_| ())?;
        let model = Self::load(device, &checkpoint.weights, &checkpoint.config)?;
        loaded.push((key, Arc::downgrade(&model)));
        Ok(model)
    }

    /// Puts the decoder on the device, tensor by tensor.
    ///
    /// # Errors
    /// A tensor of the checkpoint, by name, or the device's memory.
    pub fn load(
        device: &CandleDevice,
        weights: &Weights,
        config: &Config,
    ) -> std::result::Result<Arc<Self>, EngineError> {
        let decoder = &config.decoder;
        let (hidden, feed, text) = (decoder.hidden_size, decoder.ffn_dim, config.text.d_model);
        let refused = |error| EngineError::from(failed(status::MEMORY, "the model cannot be put on the GPU", &error));
        let read = |name: &str, width: usize| -> std::result::Result<Tensor, EngineError> {
            device.exact(weights.tensor(name, &[width])?, width).map_err(refused)
        };
        let norm = |path: &str| -> std::result::Result<Norm, EngineError> {
            Ok(Norm { gain: read(&format!("{path}.weight"), hidden)?, bias: read(&format!("{path}.bias"), hidden)? })
        };
        let scaled = |name: &str, [outputs, inputs]: [usize; 2], factor: f32| {
            let mut values = weights.tensor(name, &[outputs, inputs])?;
            values.iter_mut().for_each(|value| *value *= factor);
            device.rounded(values, (outputs, inputs)).and_then(|weight| weight.t()).map_err(refused)
        };
        let linear = |name: &str, shape| scaled(name, shape, 1.0);
        let square = [hidden, hidden];
        let factor = 1.0 / ((hidden / decoder.num_attention_heads) as f32).sqrt();
        let block = |index: usize| -> std::result::Result<Block, EngineError> {
            let path = format!("{PREFIX}.layers.{index}");
            let (own, cross) = (format!("{path}.self_attn"), format!("{path}.encoder_attn"));
            Ok(Block {
                self_norm: norm(&format!("{path}.self_attn_layer_norm"))?,
                query: scaled(&format!("{own}.q_proj.weight"), square, factor)?,
                key: linear(&format!("{own}.k_proj.weight"), square)?,
                value: linear(&format!("{own}.v_proj.weight"), square)?,
                self_out: linear(&format!("{own}.out_proj.weight"), square)?,
                cross_norm: norm(&format!("{path}.encoder_attn_layer_norm"))?,
                cross_query: scaled(&format!("{cross}.q_proj.weight"), square, factor)?,
                cross_key: linear(&format!("{cross}.k_proj.weight"), square)?,
                cross_value: linear(&format!("{cross}.v_proj.weight"), square)?,
                cross_out: linear(&format!("{cross}.out_proj.weight"), square)?,
                feed_norm: norm(&format!("{path}.final_layer_norm"))?,
                feed_in: linear(&format!("{path}.fc1.weight"), [feed, hidden])?,
                feed_out: linear(&format!("{path}.fc2.weight"), [hidden, feed])?,
            })
        };
        let heads: Vec<String> = (0..decoder.num_codebooks).map(|k| format!("decoder.lm_heads.{k}.weight")).collect();
        let heads_out = weights.stacked(&heads, &[decoder.vocab_size, hidden])?;
        let heads_out = device.rounded(heads_out, (decoder.num_codebooks * decoder.vocab_size, hidden));
        let text_projection = match text == hidden {
            true => None,
            false => {
                let bias = weights.tensor("enc_to_dec_proj.bias", &[hidden])?;
                let bias = device.rounded(bias, hidden).map_err(refused)?;
                Some((linear("enc_to_dec_proj.weight", [hidden, text])?, bias))
            }
        };
        Ok(Arc::new(Self {
            blocks: (0..decoder.num_hidden_layers).map(block).collect::<std::result::Result<_, _>>()?,
            final_norm: norm(&format!("{PREFIX}.layer_norm"))?,
            heads_out: heads_out.and_then(|weight| weight.t()).map_err(refused)?,
            text_projection,
            activation: decoder.activation,
            text_width: text,
            heads: decoder.num_attention_heads,
            hidden,
            device: device.clone(),
        }))
    }

    /// The device that it is on, as it was before the upload.
    pub fn device(&self) -> &CandleDevice {
        &self.device
    }

    /// Layer norm of rows of the residual stream, ready to be multiplied.
    pub(super) fn normed(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &norm.gain, &norm.bias, NORM_EPSILON)?.to_dtype(self.device.dtype())
    }

    /// What a block's feed-forward layers add.
    pub(super) fn feed_forward(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let wide = self.normed(&block.feed_norm, x)?.matmul(&block.feed_in)?;
        let wide = match self.activation {
            Activation::Gelu => wide.gelu_erf()?,
            Activation::GeluTanh => wide.gelu()?,
            Activation::Relu => wide.relu()?,
            Activation::Silu => wide.silu()?,
        };
        wide.matmul(&block.feed_out)
    }

    /// Width of a head.
    pub(super) fn head(&self) -> usize {
        self.hidden / self.heads
    }

    /// Keys and values of a prompt, from text states `[tokens][text_width]`.
    pub(super) fn prompt(&self, states: &[f32]) -> Result<PromptCache> {
        let tokens = states.len() / self.text_width;
        let states = self.device.rounded(states.to_vec(), (tokens, self.text_width))?;
        let states = match &self.text_projection {
            Some((weight, bias)) => states.matmul(weight)?.broadcast_add(bias)?,
            None => states,
        };
        let by_heads = |weight: &Tensor| {
            states.matmul(weight)?.reshape((tokens, self.heads, self.head()))?.transpose(0, 1)?.contiguous()
        };
        self.blocks.iter().map(|block| Ok([by_heads(&block.cross_key)?, by_heads(&block.cross_value)?])).collect()
    }
}
