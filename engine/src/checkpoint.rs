//! Hugging Face MusicGen directories exactly as published: config, safetensors weights, tokenizer. Loader thread.
//! Weights are read into memory that the process owns, tensor by tensor; every defect is a typed error that names file
//! and remedy, and no buffer is sized by what a file only claims.

pub mod config;
pub mod error;
mod fields;
mod header;
pub mod source;
mod weight_file;
pub mod weights;

pub use config::{Activation, CodecConfig, Config, DecoderConfig, Generation, TextConfig};
pub use error::CheckpointError;
pub use source::{Bytes, CheckpointSource};
pub use weights::Weights;

/// Largest `tokenizer.json`; T5's has 2.4 MB.
const MOST_TOKENIZER_BYTES: u64 = 64 << 20;

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
    /// Reads a checkpoint's configuration, tokenizer and headers, and its weights once for their hash: tensors are read
    /// again when they are asked for. `progress` hears the share of weight bytes read, 0 to 1.
    ///
    /// # Errors
    /// Anything that is missing, truncated, mis-shaped, of another architecture or not supported, by name.
    pub fn load(source: &CheckpointSource, progress: &dyn Fn(f32)) -> Result<Self, CheckpointError> {
        let config = Config::read(source)?;
        let remedy = "copy tokenizer.json from the published checkpoint";
        let tokenizer = source.read_required("tokenizer.json", MOST_TOKENIZER_BYTES, remedy)?;
        let weights = Weights::read(source, progress)?;
        Ok(Self { name: source.name(), config, weights, tokenizer })
    }
}
