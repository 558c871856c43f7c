//! Judging what was made from its audio alone: the outside ear, measures of sound, key and rhythm, a classifier of
//! instrument and texture, and the figures made of them. Worker threads.

pub mod adherence;
pub mod alternatives;
pub mod bootstrap;
pub mod cache;
pub mod chord_ear;
pub mod chroma;
pub mod chromagram;
pub mod classes;
pub mod classifier;
pub mod codec;
pub mod curves;
pub mod drift;
pub mod ears;
pub mod features;
pub mod generation;
pub mod music;
pub mod onsets;
pub mod picture;
pub mod piece;
pub mod probe;
pub mod report;
pub mod response;
pub mod session;
pub mod sound;
pub mod spectrogram;
pub mod spectrum;
pub mod splits;
pub mod steered;
pub mod steering_figures;
pub mod steering_report;
pub mod tonality;
pub mod trait_runs;

use crate::checkpoint::CheckpointError;
use crate::codec::CodecError;
use crate::dataset::DatasetError;
use crate::error::EngineError;
use std::path::PathBuf;

/// Raised whenever any measure would give other figures for the same audio: results of another version are not reused.
pub const EVALUATION_VERSION: u32 = 1;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The model failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The codec refused its input.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Music to compare with could not be rendered.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The ear cannot be set up.
    #[error(transparent)]
    Ear(#[from] chroma::ChromaError),
    /// Sets of pieces could not be compared.
    #[error("sets of pieces cannot be compared: {0}")]
    Drift(#[from] crate::learn::samples::FitError),
    /// Directions to compare could not be learned.
    #[error(transparent)]
    Learn(Box<crate::learn::LearnError>),
    /// The checkpoint's codec runs at a rate that nothing is rendered at.
    #[error(
        "{checkpoint} has a codec at {found} Hz, but what it is compared with is rendered at {expected} Hz: \
         only `--only notes` works for it"
    )]
    SampleRate {
        /// Name of the checkpoint.
        checkpoint: String,
        /// The codec's rate in Hz.
        found: u32,
        /// The rate of rendered audio in Hz.
        expected: usize,
    },
    /// Results cannot be kept.
    #[error("cannot keep results in {path}: {source} (free some space, or make the folder writable)")]
    Cache {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of prompts and seeds that is compiled in cannot be used.
    #[error("assets/evaluation/splits.json is not as it should be: {0}")]
    Splits(String),
}

impl From<crate::learn::LearnError> for EvaluationError {
    fn from(error: crate::learn::LearnError) -> Self {
        Self::Learn(Box::new(error))
    }
}
