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
    /// A thread could not be started.
    #[error("the engine's thread could not be started: {0}")]
    Thread(std::io::Error),
}
