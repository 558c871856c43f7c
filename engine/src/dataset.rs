//! Labelled music from seeds, for training, learning and evaluation. Runs on worker threads, never in a host.
//!
//! A clip is a pure function of (seed, clip index, SoundFont): [`music`] composes it, [`prompt`] words it, [`render`]
//! makes it sound and [`files`] lays many of them out on disk, [`codes`] as a codec's codes. [`concepts`] makes the short labelled
//! clips that directions are learned from (after SynTheory, brown-palm/syntheory). Pitch is kept free on purpose: keys are
//! uniform, pitch classes are balanced in the middle register, and no prompt word depends on either.

pub mod codes;
pub mod concepts;
pub mod files;
pub mod harmony;
pub mod instruments;
pub mod music;
pub mod prompt;
pub mod random;
pub mod render;
pub mod texture;
pub mod tones;

/// Sample rate of everything rendered here, in Hz: that of the 32 kHz EnCodec.
pub const SAMPLE_RATE: usize = 32_000;

/// Version of the generator: raised whenever the same seed would give other music or other words.
pub const GENERATOR_VERSION: u32 = 6;

/// Why a clip could not be rendered or written.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The SoundFont cannot be opened.
    #[error(
        "cannot open SoundFont {path}: {source} (on Debian: apt-get install timgm6mb-soundfont, or pass --soundfont)"
    )]
    SoundFontMissing {
        /// The path that was tried.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a SoundFont that can be played.
    #[error("{path} is not a playable SoundFont: {reason}")]
    SoundFontInvalid {
        /// The path that was read.
        path: std::path::PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The synthesizer refused its settings.
    #[error("the synthesizer refused to start: {0}")]
    Synthesizer(String),
    /// A rendered clip has no sound in it.
    #[error("clip {index} of seed {seed} is silent: does the SoundFont hold GM program {program}?")]
    Silent {
        /// Seed of the data set.
        seed: u64,
        /// Index of the clip.
        index: u64,
        /// GM program (0-based) of its first voice.
        program: u8,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The checkpoint whose codec is asked for cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// The codec refused a clip.
    #[error(transparent)]
    Codec(#[from] crate::codec::CodecError),
    /// The request cannot be met.
    #[error("{0}")]
    Request(String),
}
