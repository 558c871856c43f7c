//! The checkpoints that Meta published, by name.

use crate::checkpoint::{Activation, CodecConfig, Config, DecoderConfig, Generation, TextConfig};

/// A published checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// What people call it.
    pub name: &'static str,
    /// Where it lies on the hub.
    pub repository: &'static str,
    /// 1, or 2 for the stereo forms.
    pub channels: usize,
    /// Decoder blocks.
    pub blocks: usize,
    /// Width of its hidden state.
    pub hidden: usize,
    /// About so many bytes are downloaded.
    pub bytes: u64,
}

/// All of them, the smallest first, mono before stereo.
pub const PUBLISHED: [Published; 6] = [
    published("musicgen-small", "facebook/musicgen-small", 1, 24, 1024),
    published("musicgen-medium", "facebook/musicgen-medium", 1, 48, 1536),
    published("musicgen-large", "facebook/musicgen-large", 1, 48, 2048),
    published("musicgen-stereo-small", "facebook/musicgen-stereo-small", 2, 24, 1024),
    published("musicgen-stereo-medium", "facebook/musicgen-stereo-medium", 2, 48, 1536),
    published("musicgen-stereo-large", "facebook/musicgen-stereo-large", 2, 48, 2048),
];

/// The files hold f32: those of the decoder (16 squares of its width a block, and tables of 2,049 and 2,048 rows for each
/// codebook), of T5's base encoder (110 million) and of EnCodec (59 million).
const fn published(
    name: &'static str,
    repository: &'static str,
    channels: usize,
    blocks: usize,
    hidden: usize,
) -> Published {
    let decoder = (16 * blocks * hidden + 4 * channels * 4097) * hidden;
    Published { name, repository, channels, blocks, hidden, bytes: 4 * (decoder as u64 + 169_000_000) }
}

impl Published {
    /// Its configuration, as far as sizes go.
    pub fn config(&self) -> Config {
        let text = TextConfig {
            vocab_size: 32_128,
            d_model: 768,
            d_kv: 64,
            d_ff: 3072,
            num_layers: 12,
            num_heads: 12,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            activation: Activation::Relu,
            gated: false,
            eos_token_id: 1,
        };
        let codec = CodecConfig {
            sampling_rate: 32_000,
            audio_channels: 1,
            hidden_size: 128,
            num_filters: 64,
            num_residual_layers: 1,
            upsampling_ratios: vec![8, 5, 4, 4],
            kernel_size: 7,
            last_kernel_size: 7,
            residual_kernel_size: 3,
            dilation_growth_rate: 2,
            use_causal_conv: false,
            pad_mode: "reflect".to_owned(),
            compress: 2,
            num_lstm_layers: 2,
            trim_right_ratio: 1.0,
            codebook_size: 2048,
            codebook_dim: 128,
            use_conv_shortcut: false,
            num_quantizers: 4,
        };
        let decoder = DecoderConfig {
            vocab_size: 2048,
            hidden_size: self.hidden,
            num_hidden_layers: self.blocks,
            num_attention_heads: self.hidden / 64,
            ffn_dim: 4 * self.hidden,
            num_codebooks: 4 * self.channels,
            audio_channels: self.channels,
            activation: Activation::Gelu,
            max_position_embeddings: 2048,
        };
        let generation =
            Generation { max_length: 1500, guidance_scale: 3.0, top_k: 250, temperature: 1.0, bos: 2048, pad: 2048 };
        Config { text, codec, decoder, generation }
    }
}
