//! How many bytes one decoder step has to read: what turns steps per second into a share of the machine's bandwidth.
//! Arithmetic only.

use tiller_engine::checkpoint::DecoderConfig;

use super::subject::Precision;

/// Guidance rows of a step: each has keys and values of its own.
const ROWS: u64 = 2;

/// Bytes that one step with both guidance rows reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBytes {
    /// Matrices of all blocks and the heads, once for both rows.
    pub weights: u64,
    /// Keys and values of both rows.
    pub cache: u64,
}

impl StepBytes {
    /// Both.
    pub fn total(self) -> u64 {
        self.weights + self.cache
    }
}

/// Weights that one step multiplies with: four matrices of self-attention, query and output of cross-attention, whose keys
/// and values are cached with the prompt, the feed-forward layers, the heads. Embedding rows, norms and the prompt's keys
/// and values are some kilobytes and not counted.
pub fn weights_per_step(shape: &DecoderConfig) -> u64 {
    let (hidden, feed) = (shape.hidden_size as u64, shape.ffn_dim as u64);
    let block = (4 + 2) * hidden * hidden + 2 * hidden * feed;
    shape.num_hidden_layers as u64 * block + (shape.num_codebooks * shape.vocab_size) as u64 * hidden
}

/// Key and value numbers that one step reads at `positions` positions.
pub fn cached_per_step(shape: &DecoderConfig, positions: usize) -> u64 {
    ROWS * 2 * (shape.num_hidden_layers * shape.hidden_size * positions) as u64
}

/// Bytes of one step.
///
/// The one place that knows how the engine stores things. To be replaced by `Decoder::bytes_per_step()` when the engine
/// can tell: what falls back to another format per layer is known there only.
pub fn bytes_per_step(shape: &DecoderConfig, positions: usize, precision: Precision, wide_files: bool) -> StepBytes {
    let eighths = match precision {
        // The engine keeps weights of 16-bit files 16 bits wide, except on its portable path.
        Precision::F32 if !wide_files && vector_path() => 16,
        Precision::F32 => 32,
        Precision::Bf16 => 16,
        Precision::Int8 => 8,
        // A 16-bit scale for every 32 weights: 4.5 bits each.
        Precision::Int4 => return with_cache(shape, positions, weights_per_step(shape) * 9 / 16, 2),
    };
    let cached = if precision == Precision::F32 { 4 } else { 2 };
    with_cache(shape, positions, weights_per_step(shape) * eighths / 8, cached)
}

fn with_cache(shape: &DecoderConfig, positions: usize, weights: u64, bytes: u64) -> StepBytes {
    StepBytes { weights, cache: cached_per_step(shape, positions) * bytes }
}

/// Whether the engine's own dispatch finds anything better than its portable path.
fn vector_path() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f")
            || (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shape::{Shape, config_of};

    #[test]
    fn small_reads_361_million_weights() {
        let small = config_of(Shape::Small).unwrap().decoder;
        // 24 x (6 x 1024^2 + 2 x 1024 x 4096) + 4 x 2048 x 1024
        assert_eq!(weights_per_step(&small), 360_710_144);
        let at = |precision, wide| bytes_per_step(&small, 500, precision, wide);
        assert_eq!(at(Precision::F32, true).weights, 1_442_840_576);
        assert_eq!(at(Precision::Bf16, true).weights, 721_420_288);
        assert_eq!(at(Precision::Int8, false).weights, 360_710_144);
        assert_eq!(at(Precision::Int4, false).weights, 202_899_456);
        // 2 rows x 24 blocks x (key + value) x 1024 x 500 positions x 2 bytes
        assert_eq!(at(Precision::Bf16, false).cache, 98_304_000);
        assert_eq!(at(Precision::F32, true).total(), 1_442_840_576 + 196_608_000);
    }
}
