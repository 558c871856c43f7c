//! What can go wrong in the engine, in words for a musician: the thing and the remedy.

use crate::backend::BackendError;
use crate::checkpoint::CheckpointError;
use crate::codec::CodecError;
use crate::steering::directions::DirectionsError;
use crate::text::TextError;

/// Every error that leaves the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The checkpoint could not be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The directions could not be used; the model plays unsteered.
    #[error(transparent)]
    Directions(#[from] DirectionsError),
    /// The prompt could not be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The codec was given what it cannot decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What computes the steps cannot.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The model made numbers that are not finite.
    #[error(
        "{model} made numbers that are not finite; its weights are damaged or it is steered too hard: load it again"
    )]
    NotFinite { model: String },
    /// A fault of ours, caught where it would have ended a thread.
    #[error("the engine met a fault of its own ({what}); load the model again, and please report it")]
    Fault { what: String },
    /// A thread could not be started.
    #[error("the engine's thread could not be started: {0}")]
    Thread(std::io::Error),
}

impl EngineError {
    /// What a thread that was unwinding said.
    pub(crate) fn fault(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unnamed");
        Self::Fault { what: what.chars().take(200).collect() }
    }
}
