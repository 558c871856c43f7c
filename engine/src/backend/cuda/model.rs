//! Gives a card a checkpoint's decoder, tensor by tensor: no more of it than one tensor is in host memory at a time. Loader
//! thread.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::abi::{Shape, Tensor};
use super::library::{Card, Library, ModelObject};
use crate::backend::BackendError;
use crate::checkpoint::{Activation, Checkpoint, Config, Weights};
use crate::decoder::position::Positions;
use crate::error::EngineError;
use crate::handle::ModelSource;

/// Where the decoder's tensors lie.
const PREFIX: &str = "decoder.model.decoder";

/// A checkpoint, the card that it is on, and the positions that it has room for.
type Key = (ModelSource, u32, usize);

/// What every instance in the process shares.
static LOADED: Mutex<Vec<(Key, Weak<CudaModel>)>> = Mutex::new(Vec::new());

/// A checkpoint's decoder on one card. Share it in an `Arc`: players keep it.
pub struct CudaModel {
    pub(super) object: ModelObject,
    pub(super) shape: Shape,
    card: Card,
}

impl CudaModel {
    /// As [`CudaModel::load`], or the copy that another instance has loaded.
    ///
    /// # Errors
    /// As [`CudaModel::load`].
    pub fn shared(
        library: &Library,
        card: &Card,
        source: &ModelSource,
        positions: usize,
    ) -> Result<Arc<Self>, EngineError> {
        // Held while loading: a second instance waits for the first one's copy instead of making its own.
        let mut loaded = LOADED.lock();
        loaded.retain(|(_, model)| model.strong_count() > 0);
        let key = (source.clone(), card.number, positions);
        if let Some(model) = loaded.iter().find(|(other, _)| *other == key).and_then(|(_, model)| model.upgrade()) {
            return Ok(model);
        }
        let checkpoint = Checkpoint::load(&source.checkpoint(), &|_| ())?;
        let model = Self::load(library, card, &checkpoint.weights, &checkpoint.config, positions)?;
        loaded.push((key, Arc::downgrade(&model)));
        Ok(model)
    }

    /// Uploads the decoder for play windows of up to `positions` positions.
    ///
    /// # Errors
    /// A tensor of the checkpoint, the card's memory, or a shape that does not run on cards, by name.
    pub fn load(
        library: &Library,
        card: &Card,
        weights: &Weights,
        config: &Config,
        positions: usize,
    ) -> Result<Arc<Self>, EngineError> {
        let decoder = &config.decoder;
        let (hidden, feed, text) = (decoder.hidden_size, decoder.ffn_dim, config.text.d_model);
        let (vocab, codebooks, blocks) = (decoder.vocab_size, decoder.num_codebooks, decoder.num_hidden_layers);
        let activation = match decoder.activation {
            Activation::Gelu => 0,
            Activation::GeluTanh => 1,
            Activation::Relu => 2,
            Activation::Silu => 3,
        };
        let shape = Shape {
            hidden: hidden as u32,
            heads: decoder.num_attention_heads as u32,
            feed: feed as u32,
            vocab: vocab as u32,
            codebooks: codebooks as u32,
            blocks: blocks as u32,
            text_width: text as u32,
            activation,
            positions: positions as u32,
            projected: u32::from(text != hidden),
        };
        let mut object = library.open_model(card.number, &shape)?;
        let mut give = |tensor: Tensor, block: usize, names: &[String], shape: &[usize]| -> Result<(), EngineError> {
            let values = weights.stacked(names, shape)?;
            Ok(object.fill(tensor as u32, block as u32, &values)?)
        };
        let books = |name: &dyn Fn(usize) -> String| (0..codebooks).map(name).collect::<Vec<_>>();
        let embeddings = books(&|k| format!("{PREFIX}.embed_tokens.{k}.weight"));
        give(Tensor::Embeddings, 0, &embeddings, &[vocab + 1, hidden])?;
        give(Tensor::Heads, 0, &books(&|k| format!("decoder.lm_heads.{k}.weight")), &[vocab, hidden])?;
        for block in 0..blocks {
            let path = format!("{PREFIX}.layers.{block}");
            for (norm, gain, offset) in [
                ("self_attn_layer_norm", Tensor::SelfGain, Tensor::SelfOffset),
                ("encoder_attn_layer_norm", Tensor::CrossGain, Tensor::CrossOffset),
                ("final_layer_norm", Tensor::FeedGain, Tensor::FeedOffset),
            ] {
                give(gain, block, &[format!("{path}.{norm}.weight")], &[hidden])?;
                give(offset, block, &[format!("{path}.{norm}.bias")], &[hidden])?;
            }
            for (tensor, part, names, shape) in [
                (Tensor::SelfIn, ".self_attn", &["q_proj", "k_proj", "v_proj"][..], [hidden, hidden]),
                (Tensor::SelfOut, ".self_attn", &["out_proj"], [hidden, hidden]),
                (Tensor::CrossQuery, ".encoder_attn", &["q_proj"], [hidden, hidden]),
                (Tensor::CrossIn, ".encoder_attn", &["k_proj", "v_proj"], [hidden, hidden]),
                (Tensor::CrossOut, ".encoder_attn", &["out_proj"], [hidden, hidden]),
                (Tensor::FeedIn, "", &["fc1"], [feed, hidden]),
                (Tensor::FeedOut, "", &["fc2"], [hidden, feed]),
            ] {
                let names: Vec<String> = names.iter().map(|name| format!("{path}{part}.{name}.weight")).collect();
                give(tensor, block, &names, &shape)?;
            }
        }
        give(Tensor::FinalGain, 0, &[format!("{PREFIX}.layer_norm.weight")], &[hidden])?;
        give(Tensor::FinalOffset, 0, &[format!("{PREFIX}.layer_norm.bias")], &[hidden])?;
        if shape.projected != 0 {
            give(Tensor::TextProjection, 0, &["enc_to_dec_proj.weight".to_owned()], &[hidden, text])?;
            give(Tensor::TextOffset, 0, &["enc_to_dec_proj.bias".to_owned()], &[hidden])?;
        }
        let mut table = vec![0.0; positions * hidden];
        let embeddings = Positions::new(hidden);
        table.chunks_exact_mut(hidden).enumerate().for_each(|(position, row)| embeddings.add(position, row));
        object.fill(Tensor::Positions as u32, 0, &table).map_err(EngineError::from)?;
        Ok(Arc::new(Self { object, shape, card: card.clone() }))
    }

    /// The card that it is on, as it was before the upload.
    pub fn card(&self) -> &Card {
        &self.card
    }
}

/// The card that is asked for: the one of that number, or the one with the most free memory.
///
/// # Errors
/// There is none, or none of that number.
pub fn choose(library: &Library, number: Option<u32>) -> Result<Card, BackendError> {
    let cards = library.cards()?;
    let count = cards.len();
    let chosen = match number {
        Some(number) => cards.into_iter().find(|card| card.number == number),
        None => cards.into_iter().max_by_key(|card| (card.free, std::cmp::Reverse(card.number))),
    };
    chosen.ok_or_else(|| BackendError::Card {
        status: super::abi::status::NO_DEVICE,
        text: format!("GPU {} is not there: the driver has {count}; choose another one", number.unwrap_or(0)),
    })
}
