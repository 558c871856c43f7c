//! Hugging Face MusicGen directories exactly as published: config, safetensors weights, tokenizer. Loader thread.
//! Everything is read into memory that the process owns; every defect is a typed error that names file and remedy.

pub mod config;
pub mod error;
mod fields;
pub mod source;
pub mod weights;

pub use config::{Activation, CodecConfig, Config, DecoderConfig, Generation, TextConfig};
pub use error::CheckpointError;
pub use source::{Bytes, CheckpointSource};
pub use weights::Weights;

/// One checkpoint, read and checked as far as its headers go. Drop it once decoder, codec and text encoder are built.
pub struct Checkpoint {
    /// For people: the directory's name, or the embedded checkpoint's.
    pub name: String,
    pub config: Config,
    pub weights: Weights,
    /// `tokenizer.json`, not yet parsed.
    pub tokenizer: Bytes,
}

impl Checkpoint {
    /// Reads all of a checkpoint. `progress` hears the share of weight bytes read, 0 to 1.
    ///
    /// # Errors
    /// Anything that is missing, truncated, mis-shaped, of another architecture or not supported, by name.
    pub fn load(source: &CheckpointSource, progress: &dyn Fn(f32)) -> Result<Self, CheckpointError> {
        let config = Config::read(source)?;
        let tokenizer = source.read_required("tokenizer.json", "copy tokenizer.json from the published checkpoint")?;
        let weights = Weights::read(source, progress)?;
        Ok(Self { name: source.name(), config, weights, tokenizer })
    }
}
