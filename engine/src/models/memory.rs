//! How much memory a checkpoint takes while it plays on the processor, from its configuration alone: no weight is read.

use crate::checkpoint::{CheckpointError, CheckpointSource, CodecConfig, Config, DecoderConfig, TextConfig};
use crate::decoder::SMALL_STEP;
use crate::precision::Precision;

use super::snapshot;

/// Rows that are kept of every position: two guidance rows each of what plays and of what ends or is rebuilt.
const CACHES: u64 = 4;

/// Of a checkpoint whose files are there. Files of 16 bits a weight stay so wide in memory.
///
/// # Errors
/// When the configuration cannot be read.
pub(super) fn of_checkpoint(source: &CheckpointSource) -> Result<Vec<(Precision, u64)>, CheckpointError> {
    let config = Config::read(source)?;
    let bytes = match source {
        CheckpointSource::Directory(folder) => snapshot::bytes_of_checkpoint(folder),
        CheckpointSource::Embedded { files, .. } => files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
    };
    Ok(estimates(&config, bytes < 3 * weights_of(&config)))
}

/// By precision; `half` when the files hold 16 bits a weight.
pub(super) fn estimates(config: &Config, half: bool) -> Vec<(Precision, u64)> {
    Precision::ALL.into_iter().map(|precision| (precision, estimate(config, half, precision))).collect()
}

fn estimate(config: &Config, half: bool, precision: Precision) -> u64 {
    let exact = if half { 2 } else { 4 };
    let float = if precision == Precision::F32 { exact } else { 2 };
    let decoder = &config.decoder;
    let (hidden, blocks) = (decoder.hidden_size as u64, decoder.num_hidden_layers as u64);
    let step = decoder.weights_of_step();
    let layers = match precision {
        Precision::F32 => exact * step,
        Precision::Bf16 => 2 * step,
        // A scale of 16 bits for every 64 or 32.
        Precision::Int8 => step + step / 32,
        Precision::Int4 => step / 2 + step / 16,
    };
    // The keys and values of a prompt are made by layers of their own.
    let once = 2 * blocks * hidden * hidden * float;
    let tables = 4 * table_weights(decoder);
    let cell = match precision {
        Precision::F32 => 4,
        Precision::Int8 | Precision::Int4 if step > SMALL_STEP || precision == Precision::Int4 => 1,
        _ => 2,
    };
    let cache = CACHES * blocks * config.generation.max_length as u64 * 2 * hidden * cell;
    let (table, text) = text_weights(&config.text);
    layers + once + tables + cache + 4 * table + exact * text + float * codec_weights(&config.codec, false)
}

/// Weights in a checkpoint's files.
fn weights_of(config: &Config) -> u64 {
    let decoder = &config.decoder;
    let (hidden, blocks) = (decoder.hidden_size as u64, decoder.num_hidden_layers as u64);
    let (table, text) = text_weights(&config.text);
    let codec = codec_weights(&config.codec, true);
    decoder.weights_of_step() + 2 * blocks * hidden * hidden + table_weights(decoder) + table + text + codec
}

fn table_weights(decoder: &DecoderConfig) -> u64 {
    (decoder.num_codebooks * (decoder.vocab_size + 1) * decoder.hidden_size) as u64
}

/// Those of the table of words, and those of the layers.
fn text_weights(text: &TextConfig) -> (u64, u64) {
    let feed = if text.gated { 3 } else { 2 } * text.d_ff;
    let layer = text.d_model * (4 * text.num_heads * text.d_kv + feed);
    ((text.vocab_size * text.d_model) as u64, (text.num_layers * layer) as u64)
}

/// Those of the codec's decoder, or of both its halves.
fn codec_weights(codec: &CodecConfig, both: bool) -> u64 {
    let mut width = codec.num_filters << codec.upsampling_ratios.len();
    let mut weights = codec.hidden_size * width * codec.kernel_size + codec.num_lstm_layers * 8 * width * width;
    for ratio in &codec.upsampling_ratios {
        weights += width * (width / 2) * 2 * ratio;
        width /= 2;
        let hidden = width / codec.compress;
        let shortcut = if codec.use_conv_shortcut { width * width } else { 0 };
        weights += codec.num_residual_layers * (width * hidden * (codec.residual_kernel_size + 1) + shortcut);
    }
    weights += width * codec.audio_channels * codec.last_kernel_size;
    let tables = codec.num_quantizers * codec.codebook_size * codec.codebook_dim;
    (if both { 2 * weights } else { weights } + tables) as u64
}
