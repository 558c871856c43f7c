//! The GPUs of this machine, whoever drives them: NVIDIA's through the CUDA library, Apple's through candle where the engine is
//! built with the feature `metal`. Any thread that may wait.

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "candle")]
use super::candle::{CandleBackend, CandleDevice, CandleModel};
use super::cuda::abi::status;
use super::cuda::{self, Card, CudaBackend, CudaCodec, CudaModel, Library};
use super::proof::prove;
use super::{Backend, BackendError};
use crate::error::EngineError;
use crate::handle::ModelSource;
use crate::model::Model;
use crate::player::Player;

/// One GPU that models can play on. [`fmt::Display`] gives its number, name and memory.
#[derive(Clone, Debug)]
pub enum Gpu {
    /// Through the CUDA library.
    Cuda(Card),
    /// Through candle: a Metal device.
    #[cfg(feature = "candle")]
    Candle(CandleDevice),
}

impl Gpu {
    /// Those that the driver has. An engine that is built for Metal asks nobody else: no system has both.
    ///
    /// # Errors
    /// No driver or no GPU; the text says what to do.
    pub fn all() -> Result<Vec<Self>, BackendError> {
        #[cfg(feature = "metal")]
        {
            Ok(vec![Self::Candle(super::candle::metal()?)])
        }
        #[cfg(not(feature = "metal"))]
        {
            Ok(Library::open()?.cards()?.into_iter().map(Self::Cuda).collect())
        }
    }

    /// The one of that number, or the one with the most free memory.
    ///
    /// # Errors
    /// There is none, or none of that number.
    pub fn choose(number: Option<u32>) -> Result<Self, BackendError> {
        if cfg!(not(feature = "metal")) {
            return Ok(Self::Cuda(cuda::choose(Library::open()?, number)?));
        }
        let wanted = number.unwrap_or(0);
        let found = Self::all()?.into_iter().find(|gpu| gpu.number() == wanted);
        found.ok_or_else(|| BackendError::Card {
            status: status::NO_DEVICE,
            text: format!("GPU {wanted} is not there: there is one, with the number 0; choose it"),
        })
    }

    /// What [`Device::Gpu`](super::Device::Gpu) calls it.
    pub fn number(&self) -> u32 {
        match self {
            Self::Cuda(card) => card.number,
            #[cfg(feature = "candle")]
            Self::Candle(_) => 0,
        }
    }

    /// What it calls itself.
    pub fn name(&self) -> String {
        match self {
            Self::Cuda(card) => format!("{} {}", card.number, card.name),
            #[cfg(feature = "candle")]
            Self::Candle(device) => device.name().to_owned(),
        }
    }

    /// What computes a player's steps here: the model as other instances share it, and caches of its own. A GPU that has not yet
    /// shown that it computes what the processor does shows it first.
    ///
    /// # Errors
    /// A tensor of the checkpoint, the GPU's memory, a shape that does not run there, by name, or [`BackendError::Astray`].
    pub fn backend(
        &self,
        source: &ModelSource,
        model: &Arc<Model>,
        window: Option<usize>,
    ) -> Result<Box<dyn Backend>, EngineError> {
        prove(self)?;
        self.unproven(source, model, Player::capacity(model, window))
    }

    /// The same with caches of `capacity` positions, whatever the GPU computes.
    pub(super) fn unproven(
        &self,
        source: &ModelSource,
        model: &Arc<Model>,
        capacity: usize,
    ) -> Result<Box<dyn Backend>, EngineError> {
        match self {
            Self::Cuda(card) => {
                let shared = CudaModel::shared(Library::open()?, card, source, Player::capacity(model, None))?;
                Ok(Box::new(CudaBackend::new(shared, capacity)?))
            }
            #[cfg(feature = "candle")]
            Self::Candle(device) => {
                let shared = CandleModel::shared(device, source)?;
                Ok(Box::new(CandleBackend::new(shared, model.clone(), capacity)?))
            }
        }
    }

    /// Has a player's codes decoded here too, once it has shown that its samples are the processor's. Candle has no part in that:
    /// there the codec stays on the processor.
    ///
    /// # Errors
    /// Other samples, the GPU's memory, or a codec that does not run there. The processor decodes then.
    pub fn decode(&self, source: &ModelSource, model: &Model, player: &mut Player) -> Result<(), EngineError> {
        match self {
            Self::Cuda(card) => {
                let codec = CudaCodec::shared(Library::open()?, card, source, model.codec())?;
                codec.verify()?;
                Ok(player.decode_by(|| codec.boxed())?)
            }
            #[cfg(feature = "candle")]
            Self::Candle(_) => Ok(()),
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(card) => card.fmt(formatter),
            #[cfg(feature = "candle")]
            Self::Candle(device) => device.fmt(formatter),
        }
    }
}
