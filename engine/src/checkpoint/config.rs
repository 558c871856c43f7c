//! `config.json` and `generation_config.json` of a MusicGen checkpoint, checked. Absent fields take transformers' defaults.

use serde_json::Value;

use super::fields::Fields;
use super::{CheckpointError, CheckpointSource};
use crate::decoder::MAX_CODEBOOKS;
use crate::kernel::activation;

/// Largest configuration file; MusicGen's have 10 kB.
const MOST_BYTES: u64 = 1 << 20;
/// Play window of the published checkpoints, in positions.
const PUBLISHED_WINDOW: usize = 1500;
/// Shortest play window: a shorter one holds less than the delay pattern, the codec's look-ahead and a context.
const SHORTEST_WINDOW: usize = 64;
/// Longest play window: the caches have room for no more.
const LONGEST_WINDOW: usize = 1 << 14;
/// Most context of the codec, in frames and in samples; the published ones reach over 10 frames of 640 samples.
const MOST_REACH_FRAMES: f64 = 256.0;
const MOST_REACH_SAMPLES: f64 = 1_048_576.0;
/// Top-k of MusicGen's authors; transformers' files do not name it.
const PUBLISHED_TOP_K: usize = 250;

/// Everything that the engine reads of the two files.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub text: TextConfig,
    pub codec: CodecConfig,
    pub decoder: DecoderConfig,
    pub generation: Generation,
}

/// Activation of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The erf form.
    Gelu,
    /// The tanh form.
    GeluTanh,
    Relu,
    Silu,
}

impl Activation {
    /// Applies it in place.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn apply(self, x: &mut [f32]) {
        match self {
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_tanh(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
        }
    }
}

/// The T5 text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    pub vocab_size: usize,
    pub d_model: usize,
    /// Width of one head; heads x d_kv need not be d_model.
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f64,
    pub activation: Activation,
    /// Gated feed-forward (T5 1.1) instead of the plain one.
    pub gated: bool,
    pub eos_token_id: u32,
}

/// The EnCodec audio codec. Names are transformers'.
#[derive(Clone, Debug, PartialEq)]
pub struct CodecConfig {
    pub sampling_rate: u32,
    pub audio_channels: usize,
    pub hidden_size: usize,
    pub num_filters: usize,
    pub num_residual_layers: usize,
    pub upsampling_ratios: Vec<usize>,
    pub kernel_size: usize,
    pub last_kernel_size: usize,
    pub residual_kernel_size: usize,
    pub dilation_growth_rate: usize,
    pub use_causal_conv: bool,
    /// "reflect" or "constant".
    pub pad_mode: String,
    pub compress: usize,
    pub num_lstm_layers: usize,
    pub trim_right_ratio: f64,
    pub codebook_size: usize,
    pub codebook_dim: usize,
    pub use_conv_shortcut: bool,
    /// Codebooks stored in the checkpoint: what the largest target bandwidth pays for.
    pub num_quantizers: usize,
}

impl CodecConfig {
    /// Samples of one code frame.
    pub fn hop(&self) -> usize {
        self.upsampling_ratios.iter().product()
    }

    /// Frames of context that one output sample of the codec's decoder depends on through its convolutions.
    fn reach_frames(&self) -> f64 {
        let mut rows = 1.0;
        let mut reach = self.kernel_size as f64;
        let dilations =
            (0..self.num_residual_layers).map(|layer| (self.dilation_growth_rate as f64).powi(layer as i32));
        let residuals = (self.residual_kernel_size - 1) as f64 * dilations.sum::<f64>();
        for &ratio in &self.upsampling_ratios {
            rows *= ratio as f64;
            reach += (2.0 * ratio as f64 + residuals) / rows;
        }
        reach + self.last_kernel_size as f64 / rows
    }
}

/// The language model over codes.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Codes of one codebook; the embedding tables have one row more, for BOS and PAD.
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub ffn_dim: usize,
    /// All codebooks, left and right together.
    pub num_codebooks: usize,
    /// 1 mono, 2 stereo (codebooks interleave left, right).
    pub audio_channels: usize,
    pub activation: Activation,
    /// Size of transformers' position table; positions go on past it.
    pub max_position_embeddings: usize,
}

/// How the checkpoint wants to be played.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Play window in positions, BOS and delay columns included.
    pub max_length: usize,
    pub guidance_scale: f32,
    pub top_k: usize,
    pub temperature: f32,
    /// Code of column 0 in every codebook.
    pub bos: u32,
    /// Code where the delay pattern has no frame.
    pub pad: u32,
}

impl Config {
    /// Reads and checks both files; cheap, no weights are touched.
    ///
    /// # Errors
    /// When the source is no MusicGen checkpoint, or a value is out of range or not supported.
    pub fn read(source: &CheckpointSource) -> Result<Self, CheckpointError> {
        if let CheckpointSource::Directory(folder) = source
            && !source.has("config.json")
        {
            return Err(CheckpointError::NotACheckpoint { folder: folder.clone(), found: contents(folder) });
        }
        let bytes =
            source.read_required("config.json", MOST_BYTES, "copy config.json from the published checkpoint")?;
        let value = parse(source, "config.json", &bytes)?;
        let fields = Fields::new(source.file("config.json"), &value)?;
        if fields.get("model_type").is_none() {
            return Err(fields.wrong("model_type", "\"musicgen\"", None));
        }
        fields.expect_model_type("musicgen")?;
        let text = TextConfig::read(&fields.object("text_encoder")?)?;
        let codec = CodecConfig::read(&fields.object("audio_encoder")?)?;
        let in_decoder = fields.object("decoder")?;
        let decoder = DecoderConfig::read(&in_decoder)?;
        if decoder.vocab_size > codec.codebook_size {
            let expected = format!("at most audio_encoder.codebook_size ({})", codec.codebook_size);
            return Err(in_decoder.wrong("vocab_size", &expected, in_decoder.get("vocab_size")));
        }
        if decoder.codebooks_per_channel() > codec.num_quantizers {
            let expected = format!("at most {} for each channel, as the codec has", codec.num_quantizers);
            return Err(in_decoder.wrong("num_codebooks", &expected, in_decoder.get("num_codebooks")));
        }
        if codec.audio_channels > 1 && decoder.audio_channels > 1 {
            let reason = "a stereo decoder plays left and right through one mono codec";
            return Err(fields.object("audio_encoder")?.unsupported("audio_channels", reason));
        }
        if text.d_model != decoder.hidden_size && in_decoder.get("cross_attention_hidden_size").is_some() {
            let reason = "text states reach the decoder through enc_to_dec_proj only";
            return Err(in_decoder.unsupported("cross_attention_hidden_size", reason));
        }
        let file = "generation_config.json";
        let value = match source.read_at_most(file, MOST_BYTES)? {
            Some(bytes) => parse(source, file, &bytes)?,
            None => Value::Object(serde_json::Map::new()),
        };
        let generation = Generation::read(&Fields::new(source.file(file), &value)?, &in_decoder, decoder.vocab_size)?;
        Ok(Self { text, codec, decoder, generation })
    }
}

impl TextConfig {
    fn read(fields: &Fields) -> Result<Self, CheckpointError> {
        fields.expect_model_type("t5")?;
        let (activation, gated) = match fields.text("feed_forward_proj", "relu")? {
            "relu" => (Activation::Relu, false),
            "gelu" => (Activation::Gelu, false),
            "gelu_new" => (Activation::GeluTanh, false),
            // transformers' own exception: the plain word means the tanh form here.
            "gated-gelu" | "gated-gelu_new" => (Activation::GeluTanh, true),
            "gated-relu" => (Activation::Relu, true),
            "gated-silu" => (Activation::Silu, true),
            _ => return Err(fields.unsupported("feed_forward_proj", "T5 encoders use relu or gated-gelu")),
        };
        let config = Self {
            vocab_size: fields.integer("vocab_size", 32128, 1..=1 << 20)?,
            d_model: fields.integer("d_model", 512, 1..=1 << 14)?,
            d_kv: fields.integer("d_kv", 64, 1..=1 << 10)?,
            d_ff: fields.integer("d_ff", 2048, 1..=1 << 17)?,
            num_layers: fields.integer("num_layers", 6, 1..=256)?,
            num_heads: fields.integer("num_heads", 8, 1..=256)?,
            relative_attention_num_buckets: fields.integer("relative_attention_num_buckets", 32, 4..=4096)?,
            relative_attention_max_distance: fields.integer("relative_attention_max_distance", 128, 2..=1 << 16)?,
            layer_norm_epsilon: fields.number("layer_norm_epsilon", 1e-6, 0.0..=0.1)?,
            activation,
            gated,
            eos_token_id: fields.integer("eos_token_id", 1, 0..=1 << 20)? as u32,
        };
        if config.eos_token_id as usize >= config.vocab_size {
            let expected = format!("less than vocab_size ({})", config.vocab_size);
            return Err(fields.wrong("eos_token_id", &expected, fields.get("eos_token_id")));
        }
        if !config.relative_attention_num_buckets.is_multiple_of(2)
            || config.relative_attention_max_distance <= config.relative_attention_num_buckets / 4
        {
            let expected = "even, and less than four times relative_attention_max_distance";
            let name = "relative_attention_num_buckets";
            return Err(fields.wrong(name, expected, fields.get(name)));
        }
        Ok(config)
    }
}

impl CodecConfig {
    fn read(fields: &Fields) -> Result<Self, CheckpointError> {
        fields.expect_model_type("encodec")?;
        if fields.text("norm_type", "weight_norm")? != "weight_norm" {
            return Err(fields.unsupported("norm_type", "MusicGen's codec uses weight_norm"));
        }
        if fields.boolean("normalize", false)? {
            return Err(fields.unsupported("normalize", "a stream cannot know the loudness of what is to come"));
        }
        if fields.get("chunk_length_s").is_some() {
            return Err(fields.unsupported("chunk_length_s", "the codec is played as one stream, not in chunks"));
        }
        let pad_mode = fields.text("pad_mode", "reflect")?;
        if !matches!(pad_mode, "reflect" | "constant") {
            return Err(fields.unsupported("pad_mode", "reflect and constant are known"));
        }
        let hidden_size = fields.integer("hidden_size", 128, 1..=1 << 13)?;
        let codebook_size = fields.integer("codebook_size", 1024, 2..=1 << 17)?;
        let sampling_rate = fields.integer("sampling_rate", 24_000, 1000..=384_000)?;
        let upsampling_ratios = fields.integers("upsampling_ratios", &[8, 5, 4, 2], 1..=64)?;
        let hop: usize = upsampling_ratios.iter().take(9).product();
        if upsampling_ratios.len() > 8 || !(2..=1 << 16).contains(&hop) {
            let expected = "at most 8 ratios with a product from 2 to 65536";
            return Err(fields.wrong("upsampling_ratios", expected, fields.get("upsampling_ratios")));
        }
        let bandwidths = fields.numbers("target_bandwidths", &[1.5, 3.0, 6.0, 12.0, 24.0], 0.001..=1e5)?;
        // transformers: bits per second over frames per second times bits per code.
        let code_bits = (codebook_size as f64).log2().ceil();
        let frame_rate = sampling_rate.div_ceil(hop) as f64;
        let num_quantizers = (1000.0 * bandwidths[bandwidths.len() - 1] / (frame_rate * code_bits)).floor() as usize;
        if !(1..=64).contains(&num_quantizers) {
            let expected = "enough for 1 to 64 codebooks";
            return Err(fields.wrong("target_bandwidths", expected, fields.get("target_bandwidths")));
        }
        let num_filters = fields.integer("num_filters", 32, 1..=1 << 10)?;
        let config = Self {
            sampling_rate: sampling_rate as u32,
            audio_channels: fields.integer("audio_channels", 1, 1..=2)?,
            hidden_size,
            num_filters,
            num_residual_layers: fields.integer("num_residual_layers", 1, 0..=16)?,
            upsampling_ratios,
            kernel_size: fields.integer("kernel_size", 7, 1..=64)?,
            last_kernel_size: fields.integer("last_kernel_size", 7, 1..=64)?,
            residual_kernel_size: fields.integer("residual_kernel_size", 3, 1..=64)?,
            dilation_growth_rate: fields.integer("dilation_growth_rate", 2, 1..=16)?,
            use_causal_conv: fields.boolean("use_causal_conv", true)?,
            pad_mode: pad_mode.to_owned(),
            compress: fields.integer("compress", 2, 1..=num_filters)?,
            num_lstm_layers: fields.integer("num_lstm_layers", 2, 1..=8)?,
            trim_right_ratio: fields.number("trim_right_ratio", 1.0, 0.0..=1.0)?,
            codebook_size,
            codebook_dim: fields.integer("codebook_dim", hidden_size, 1..=1 << 13)?,
            use_conv_shortcut: fields.boolean("use_conv_shortcut", true)?,
            num_quantizers,
        };
        // The plugin's latency and every stream's buffers follow from it, before any tensor could contradict.
        let reach = config.reach_frames();
        if reach > MOST_REACH_FRAMES || reach * hop as f64 > MOST_REACH_SAMPLES {
            let name = "num_residual_layers";
            let expected =
                format!("so small, with kernels and dilations, that the layers see at most {MOST_REACH_FRAMES} frames");
            return Err(fields.wrong(name, &expected, fields.get(name)));
        }
        if config.codebook_dim != config.hidden_size {
            return Err(fields.unsupported("codebook_dim", "it must equal hidden_size: there is no projection"));
        }
        Ok(config)
    }
}

impl DecoderConfig {
    /// Weights that one step reads.
    pub fn weights_of_step(&self) -> u64 {
        let (hidden, feed) = (self.hidden_size as u64, self.ffn_dim as u64);
        let block = 6 * hidden * hidden + 2 * hidden * feed;
        self.num_hidden_layers as u64 * block + (self.num_codebooks * self.vocab_size) as u64 * hidden
    }

    /// Codebooks of one codec stream: left and right of a stereo checkpoint have as many each.
    pub fn codebooks_per_channel(&self) -> usize {
        self.num_codebooks / self.audio_channels
    }

    fn read(fields: &Fields) -> Result<Self, CheckpointError> {
        fields.expect_model_type("musicgen_decoder")?;
        let activation = match fields.text("activation_function", "gelu")? {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            _ => return Err(fields.unsupported("activation_function", "gelu, gelu_new, relu and silu are known")),
        };
        let config = Self {
            vocab_size: fields.integer("vocab_size", 2048, 2..=1 << 17)?,
            // At least 4: the position table divides by hidden_size / 2 - 1.
            hidden_size: fields.integer("hidden_size", 1024, 4..=1 << 14)?,
            num_hidden_layers: fields.integer("num_hidden_layers", 24, 1..=256)?,
            num_attention_heads: fields.integer("num_attention_heads", 16, 1..=256)?,
            ffn_dim: fields.integer("ffn_dim", 4096, 1..=1 << 17)?,
            num_codebooks: fields.integer("num_codebooks", 4, 1..=MAX_CODEBOOKS)?,
            audio_channels: fields.integer("audio_channels", 1, 1..=2)?,
            activation,
            max_position_embeddings: fields.integer("max_position_embeddings", 2048, 1..=1 << 20)?,
        };
        for (name, value, by, divisor) in [
            ("hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads),
            ("num_codebooks", config.num_codebooks, "audio_channels", config.audio_channels),
        ] {
            if !value.is_multiple_of(divisor) {
                return Err(fields.wrong(name, &format!("a multiple of {by} ({divisor})"), fields.get(name)));
            }
        }
        Ok(config)
    }
}

impl Generation {
    /// Special tokens come from the generation config, else from the decoder's; both name the embedding's last row.
    fn read(fields: &Fields, decoder: &Fields, vocab_size: usize) -> Result<Self, CheckpointError> {
        let token = |places: &[(&Fields, &str)]| -> Result<u32, CheckpointError> {
            for (place, name) in places {
                if place.get(name).is_some() {
                    return Ok(place.integer(name, vocab_size, 0..=vocab_size)? as u32);
                }
            }
            Ok(vocab_size as u32)
        };
        let bos = token(&[(fields, "decoder_start_token_id"), (fields, "bos_token_id"), (decoder, "bos_token_id")])?;
        let pad = token(&[(fields, "pad_token_id"), (decoder, "pad_token_id")])?;
        let wanted = fields.integer("max_length", PUBLISHED_WINDOW, 0..=usize::MAX)?;
        let max_length = wanted.clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
        if wanted != max_length {
            // transformers writes its own default, 20, for models that never had one.
            log::warn!("{}: max_length {wanted} cannot be played, {max_length} is used", fields.file());
        }
        Ok(Self {
            max_length,
            guidance_scale: fields.number("guidance_scale", 3.0, 0.0..=100.0)? as f32,
            top_k: fields.integer("top_k", PUBLISHED_TOP_K, 0..=1 << 20)?,
            temperature: fields.number("temperature", 1.0, 0.0..=100.0)? as f32,
            bos,
            pad,
        })
    }
}

fn parse(source: &CheckpointSource, file: &str, bytes: &[u8]) -> Result<Value, CheckpointError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CheckpointError::Json { file: source.file(file), reason: error.to_string() })
}

/// What a folder holds, in a few words for an error text.
fn contents(folder: &std::path::Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return if folder.exists() { "a file".to_owned() } else { "nothing there".to_owned() };
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok().map(|e| e.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    match names.len() {
        0 => "an empty folder".to_owned(),
        1..=4 => format!("only {}", names.join(", ")),
        count => format!("{}, ... ({count} entries)", names[..4].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published stereo small checkpoint, as far as its fields matter: no codec `audio_channels`, defaults left out.
    const PUBLISHED: &str = r#"{
        "model_type": "musicgen",
        "text_encoder": {"model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12,
            "feed_forward_proj": "relu", "vocab_size": 32128, "n_positions": 512},
        "audio_encoder": {"model_type": "encodec", "target_bandwidths": [2.2], "sampling_rate": 32000, "hidden_size": 128,
            "num_filters": 64, "upsampling_ratios": [8, 5, 4, 4], "codebook_size": 2048, "codebook_dim": 128,
            "use_causal_conv": false, "use_conv_shortcut": false, "chunk_length_s": null, "num_lstm_layers": 2},
        "decoder": {"model_type": "musicgen_decoder", "num_codebooks": 8, "audio_channels": 2, "scale_embedding": true}
    }"#;

    fn read(files: &[(&'static str, &'static str)]) -> Result<Config, CheckpointError> {
        let files: Vec<(&'static str, &'static [u8])> = files.iter().map(|(n, text)| (*n, text.as_bytes())).collect();
        Config::read(&CheckpointSource::Embedded { name: "test", files: files.leak() })
    }

    #[test]
    fn published_shapes_and_defaults() {
        let config = read(&[("config.json", PUBLISHED)]).unwrap();
        let decoder = &config.decoder;
        assert_eq!((decoder.num_hidden_layers, decoder.hidden_size, decoder.vocab_size), (24, 1024, 2048));
        assert_eq!((decoder.num_codebooks, decoder.audio_channels), (8, 2));
        assert_eq!((config.codec.num_quantizers, config.codec.hop(), config.codec.audio_channels), (4, 640, 1));
        assert_eq!((config.text.gated, config.text.eos_token_id), (false, 1));
        // Without generation_config.json: the published window and sampling, special tokens after the last code.
        let generation = &config.generation;
        assert_eq!((generation.max_length, generation.top_k, generation.bos, generation.pad), (1500, 250, 2048, 2048));
    }

    #[test]
    fn a_stereo_decoder_needs_a_mono_codec() {
        let both = PUBLISHED.replace(r#""sampling_rate": 32000"#, r#""sampling_rate": 32000, "audio_channels": 2"#);
        let error = read(&[("config.json", both.clone().leak())]).unwrap_err();
        assert!(matches!(error, CheckpointError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("audio_channels"), "{error}");
        let mono = both.replace(r#""num_codebooks": 8, "audio_channels": 2"#, r#""num_codebooks": 4"#);
        assert_eq!(read(&[("config.json", mono.leak())]).unwrap().codec.audio_channels, 2);
    }

    #[test]
    fn the_generation_config_is_believed() {
        let generation = r#"{"max_length": 600, "guidance_scale": 2.5, "top_k": 40, "pad_token_id": 2047,
            "decoder_start_token_id": 2048, "bos_token_id": 5}"#;
        let config = read(&[("config.json", PUBLISHED), ("generation_config.json", generation)]).unwrap();
        let expected =
            Generation { max_length: 600, guidance_scale: 2.5, top_k: 40, temperature: 1.0, bos: 2048, pad: 2047 };
        assert_eq!(config.generation, expected);
    }

    #[test]
    fn windows_that_cannot_be_played_are_moved_into_the_range() {
        let window = |generation: &'static str| {
            read(&[("config.json", PUBLISHED), ("generation_config.json", generation)]).map(|c| c.generation.max_length)
        };
        assert_eq!(window(r#"{"max_length": 20}"#).unwrap(), 64);
        assert_eq!(window(r#"{"max_length": 64}"#).unwrap(), 64);
        assert_eq!(window(r#"{"max_length": 4294967296}"#).unwrap(), 16_384);
        assert_eq!(window(r#"{"max_length": null}"#).unwrap(), 1500);
        let error = window(r#"{"max_length": "long"}"#).unwrap_err();
        assert!(
            error.to_string().contains("generation_config.json of the built-in checkpoint test: max_length"),
            "{error}"
        );
    }

    #[test]
    fn the_published_codec_reaches_over_few_frames() {
        let codec = read(&[("config.json", PUBLISHED)]).unwrap().codec;
        // 7 + (16 + 2) / 8 + (10 + 2) / 40 + (8 + 2) / 160 + (8 + 2) / 640 + 7 / 640
        assert!((codec.reach_frames() - 9.639_062_5).abs() < 1e-9, "{}", codec.reach_frames());
    }
}
