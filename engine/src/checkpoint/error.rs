//! What can be wrong with a checkpoint, in words for a musician: the file, what was expected, what was found, the remedy.

use std::path::PathBuf;

/// A checkpoint that cannot be used. File names are relative to `folder` unless they hold a path.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not a directory, or none of a checkpoint's files in it.
    #[error(
        "{} is no checkpoint: expected a folder with config.json, model.safetensors and tokenizer.json, found {found}; \
         choose the folder of a Hugging Face MusicGen checkpoint", folder.display()
    )]
    NotACheckpoint { folder: PathBuf, found: String },
    /// The operating system would not give the file.
    #[error("{file} could not be read ({reason}); check that the file exists and may be read")]
    Unreadable { file: String, reason: String },
    /// A file that every checkpoint has is not there.
    #[error("{folder} has no {file}; {remedy}")]
    MissingFile { folder: String, file: String, remedy: &'static str },
    /// Only Python pickles hold the weights.
    #[error(
        "{folder} holds its weights only as {found}, which can run code when opened; expected model.safetensors: \
         convert it once with transformers (from_pretrained, then save_pretrained)"
    )]
    PickleOnly { folder: String, found: String },
    /// A model of another kind.
    #[error(
        "{file} describes a {found} model, expected {expected}; Tiller plays MusicGen small, medium, large and their stereo forms"
    )]
    WrongArchitecture { file: String, expected: &'static str, found: String },
    /// A JSON file that does not parse.
    #[error("{file} is not valid JSON ({reason}); download the file again")]
    Json { file: String, reason: String },
    /// An index that does not name the files of its weights.
    #[error("{file} is no index of weight files ({reason}); download the file again")]
    Index { file: String, reason: String },
    /// A configuration value out of its range.
    #[error("{file}: {field} should be {expected}, found {found}; download the file again")]
    Field { file: String, field: String, expected: String, found: String },
    /// A configuration that is legal but that Tiller cannot play.
    #[error(
        "{file}: {field} = {found} is not supported ({reason}); use a checkpoint with MusicGen's published architecture"
    )]
    Unsupported { file: String, field: String, found: String, reason: &'static str },
    /// A weight file that ends too early.
    #[error("{file} is truncated: expected {expected} bytes {reason}, found {found}; download the file again")]
    Truncated { file: String, expected: u64, found: u64, reason: String },
    /// A file that something else wrote to while it was read.
    #[error("{file} changed while it was being read; wait until it is completely written, then load it again")]
    Changed { file: String },
    /// A configuration or tokenizer file of a size that none has.
    #[error("{file} has {found} bytes, expected at most {most} in a file of this kind; download the file again")]
    TooLarge { file: String, found: u64, most: u64 },
    /// A weight file with a header that makes no sense.
    #[error("{file} has a damaged safetensors header ({reason}); download the file again")]
    Header { file: String, reason: String },
    /// A tensor that the architecture needs.
    #[error(
        "{file} lacks the tensor {tensor}, expected with shape {expected:?}; the file does not fit its config.json: download both again"
    )]
    MissingTensor { file: String, tensor: String, expected: Vec<usize> },
    /// A tensor of another shape than config.json says.
    #[error(
        "{file}: tensor {tensor} should have shape {expected:?}, found {found:?}; the file does not fit its config.json: download both again"
    )]
    Shape { file: String, tensor: String, expected: Vec<usize>, found: Vec<usize> },
    /// A tensor that is not floating point, or of a rare kind.
    #[error("{file}: tensor {tensor} should be F32, F16 or BF16, found {found}; use an unquantised checkpoint")]
    Dtype { file: String, tensor: String, found: String },
    /// tokenizer.json does not make a tokenizer.
    #[error("{file} is no usable tokenizer ({reason}); copy tokenizer.json from the published checkpoint")]
    Tokenizer { file: String, reason: String },
    /// More memory than the system gives.
    #[error(
        "{file} needs {bytes} bytes of memory, which the system refused; close other programs or use a smaller checkpoint"
    )]
    Memory { file: String, bytes: u64 },
}

/// A name or message out of a file, short enough for an error text.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
