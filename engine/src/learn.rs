//! Learning directions for a frozen checkpoint from labelled audio: what MusicRFM does offline (`method.md` 1 to 3), with
//! the engine's own codec and decoder. Worker threads; hours on a large checkpoint, so everything reports progress.

pub mod agop;
pub mod aside;
pub mod axes;
pub mod calibration;
pub mod chords;
pub mod detector;
pub mod eigen;
pub mod family;
pub mod folder;
pub mod joining;
pub mod kernel;
pub mod lessons;
pub mod library;
pub mod likelihood;
pub mod linear;
pub mod listener;
pub mod matrix;
pub mod mean;
pub mod orders;
pub mod rfm;
pub mod samples;
pub mod score;
pub mod search;
pub mod solver;
pub mod split;
pub mod states;
pub mod told;
pub mod watch;
pub mod work;
pub mod workers;

use crate::checkpoint::CheckpointError;
use crate::codec::CodecError;
use crate::dataset::DatasetError;
use crate::steering::directions::DirectionsError;

/// Why directions could not be learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The codec refused the audio.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The labelled audio could not be made.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The directions could not be written.
    #[error(transparent)]
    Directions(#[from] DirectionsError),
    /// The checkpoint's codec runs at a rate that nothing is rendered at.
    #[error(
        "{checkpoint} has a codec at {found} Hz, but learning renders at {expected} Hz; choose a checkpoint at that rate"
    )]
    SampleRate {
        /// Name of the checkpoint.
        checkpoint: String,
        /// The codec's rate in Hz.
        found: u32,
        /// The rate of rendered audio in Hz.
        expected: usize,
    },
    /// The model made numbers that are not finite.
    #[error(
        "{checkpoint} made numbers that are not finite in block {block}; its weights are damaged: download it again"
    )]
    NotFinite {
        /// Name of the checkpoint.
        checkpoint: String,
        /// The first such block.
        block: usize,
    },
    /// A direction could not be fitted.
    #[error(transparent)]
    Fit(#[from] samples::FitError),
    /// What was heard cannot be kept.
    #[error("cannot keep what was heard in {path}: {source}; make room there, or choose another folder with --states")]
    States {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder of the user's audio cannot be read.
    #[error("cannot read {path}: {source}; the folder must hold `with` and `without`, each with WAV or FLAC files")]
    Folder {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One of the user's files is no sound that can be read.
    #[error(transparent)]
    Sound(#[from] crate::sound_file::SoundFileError),
    /// A prompt could not be encoded.
    #[error(transparent)]
    Text(#[from] crate::text::TextError),
    /// It was told to end.
    #[error(transparent)]
    Stopped(#[from] watch::Stopped),
    /// Too little to learn from.
    #[error("{0}")]
    TooLittle(String),
}

impl LearnError {
    /// Whether nothing is wrong: it was told to end.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::Fit(samples::FitError::Stopped(_)))
    }
}
