//! Our engine against golden values of Hugging Face transformers, every stage, on any checkpoint directory. Any thread that
//! may wait. `cargo xtask reference` makes such files; the keys are listed there and in the README.

mod audio;
mod language;
mod reference;
mod report;

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointSource};
use crate::codec::{CodecDecoder, CodecEncoder, CodecError};
use crate::decoder::Decoder;
use crate::text::{TextEncoder, TextError};
pub use reference::{Reference, Values};
pub use report::{CodesStage, Report, Stage};

/// Largest error of text states, hidden states and logits as a share of the stage's largest value.
const BOUND: f64 = 2e-5;
/// The same from the width of musicgen-small on: sums are longer, and both sides round.
const WIDE_BOUND: f64 = 5e-5;
/// Where [`WIDE_BOUND`] begins.
const WIDE: usize = 1024;
/// Largest error of latent and audio.
const CODEC_BOUND: f64 = 1e-5;
/// Two logits closer than this are a tie.
const GREEDY_TIE: f32 = 1e-4;
/// Two codes whose squared distances differ by less than this share are a tie.
const ENCODED_TIE: f64 = 1e-5;
/// transformers searches by |x|^2 - 2 x e + |e|^2 in f32, eight roundings of terms that may be far larger than the
/// distances (a latent that hardly moves): below this share of the terms the reference itself cannot tell two codes apart.
const REFERENCE_ROUNDING: f64 = 8.0 / (1u64 << 24) as f64;

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The reference's tokens cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The reference's codes or audio cannot be used.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The reference file as a whole.
    #[error("{file} is no reference file ({reason}); make one with `cargo xtask reference`")]
    File { file: String, reason: String },
    /// One of its tensors.
    #[error("{file}: {key}: {reason}; make the file with `cargo xtask reference` from this very checkpoint")]
    Tensor { file: String, key: String, reason: String },
}

/// Compares a checkpoint with a reference file. `progress` hears what is being done.
///
/// # Errors
/// When either of them cannot be used. A failed comparison is a report, not an error.
pub fn compare(checkpoint: &Path, reference: &Path, progress: &dyn Fn(&str)) -> Result<Report, ParityError> {
    let reference = Reference::open(reference)?;
    progress("reading the checkpoint");
    let source = CheckpointSource::directory(checkpoint);
    let loaded = Checkpoint::load(&source, &|_| ())?;
    let (config, weights) = (&loaded.config, &loaded.weights);
    let (mut stages, mut codes) = (Vec::new(), Vec::new());
    {
        let text = TextEncoder::load(weights, &config.text, &loaded.tokenizer, &source.file("tokenizer.json"))?;
        let decoder = Decoder::load(weights, config)?;
        let bound = if decoder.hidden() >= WIDE { WIDE_BOUND } else { BOUND };
        let language = language::Language { config, text: &text, decoder: &decoder, bound };
        progress("text states");
        codes.extend(language.tokens(&reference)?);
        let cross = language.text(&reference, &mut stages)?;
        codes.extend(language.prompts(&reference, &mut stages)?);
        language.padded(&reference, &mut stages)?;
        progress("hidden states and logits");
        language.teacher_forced(&reference, cross.as_ref(), &mut stages)?;
        progress("greedy codes");
        codes.push(language.greedy(&reference, cross.as_ref())?);
    }
    // All of the codec's codebooks here, whatever the language model plays: the reference may use any number of them.
    let codebooks = config.codec.num_quantizers;
    progress("codec: encoder");
    let encoder = CodecEncoder::load(weights, &config.codec, codebooks)?;
    codes.push(audio::encode(&reference, &encoder, &mut stages)?);
    progress("codec: decoder and stream");
    let codebooks = config.decoder.codebooks_per_channel();
    let decoder = Arc::new(CodecDecoder::load(weights, &config.codec, codebooks)?);
    audio::decode(&reference, &decoder, &mut stages)?;
    weights.log_unused();
    Ok(Report::new(stages, codes))
}
