//! The tensors that the engine asks for when it plays a checkpoint of a given configuration, and how each is drawn so that a
//! random model stays finite and its logits are worth sampling from. Arithmetic only.

use tiller_engine::checkpoint::{CodecConfig, Config, DecoderConfig, TextConfig};

/// One tensor of a random checkpoint: normally distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Mean of its values.
    pub mean: f32,
    /// Deviation of its values.
    pub deviation: f32,
}

impl Tensor {
    /// Numbers in it.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Everything that playing needs: text encoder, decoder, and the codec's quantizer and decoder half.
pub fn of(config: &Config) -> Vec<Tensor> {
    let mut list = List(Vec::new());
    list.text(&config.text);
    list.decoder(&config.decoder);
    if config.text.d_model != config.decoder.hidden_size {
        list.matrix("enc_to_dec_proj.weight", config.decoder.hidden_size, config.text.d_model, 1.0);
        list.bias("enc_to_dec_proj.bias", config.decoder.hidden_size);
    }
    list.codec(&config.codec);
    list.0
}

struct List(Vec<Tensor>);

impl List {
    fn push(&mut self, name: impl Into<String>, shape: &[usize], mean: f32, deviation: f32) {
        self.0.push(Tensor { name: name.into(), shape: shape.to_vec(), mean, deviation });
    }

    /// `[outputs][inputs]`; with a gain of 1 it keeps the deviation of what it is given.
    fn matrix(&mut self, name: impl Into<String>, outputs: usize, inputs: usize, gain: f32) {
        self.push(name, &[outputs, inputs], 0.0, gain / (inputs as f32).sqrt());
    }

    fn gain(&mut self, name: impl Into<String>, width: usize) {
        self.push(name, &[width], 1.0, 0.1);
    }

    fn bias(&mut self, name: impl Into<String>, width: usize) {
        self.push(name, &[width], 0.0, 0.02);
    }

    fn text(&mut self, text: &TextConfig) {
        let (width, inner) = (text.d_model, text.num_heads * text.d_kv);
        let root = "text_encoder.encoder";
        self.push("text_encoder.shared.weight", &[text.vocab_size, width], 0.0, 1.0);
        let bias = format!("{root}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        self.push(bias, &[text.relative_attention_num_buckets, text.num_heads], 0.0, 0.3);
        for index in 0..text.num_layers {
            let (attention, feed) = (format!("{root}.block.{index}.layer.0"), format!("{root}.block.{index}.layer.1"));
            // T5's attention has no factor of its own: the queries carry it.
            let query = 1.0 / (text.d_kv as f32).sqrt();
            for (part, gain) in [("q", query), ("k", 1.0), ("v", 1.0)] {
                self.matrix(format!("{attention}.SelfAttention.{part}.weight"), inner, width, gain);
            }
            self.matrix(format!("{attention}.SelfAttention.o.weight"), width, inner, 0.5);
            self.gain(format!("{attention}.layer_norm.weight"), width);
            let inputs: &[&str] = if text.gated { &["wi_0", "wi_1"] } else { &["wi"] };
            for part in inputs {
                self.matrix(format!("{feed}.DenseReluDense.{part}.weight"), text.d_ff, width, 1.0);
            }
            self.matrix(format!("{feed}.DenseReluDense.wo.weight"), width, text.d_ff, 0.5);
            self.gain(format!("{feed}.layer_norm.weight"), width);
        }
        self.gain(format!("{root}.final_layer_norm.weight"), width);
    }

    fn decoder(&mut self, shape: &DecoderConfig) {
        let (hidden, feed) = (shape.hidden_size, shape.ffn_dim);
        let root = "decoder.model.decoder";
        for book in 0..shape.num_codebooks {
            self.push(format!("{root}.embed_tokens.{book}.weight"), &[shape.vocab_size + 1, hidden], 0.0, 0.5);
            // Logits of deviation 2: what is sampled is neither one code nor all of them.
            self.matrix(format!("decoder.lm_heads.{book}.weight"), shape.vocab_size, hidden, 2.0);
        }
        for layer in 0..shape.num_hidden_layers {
            let path = format!("{root}.layers.{layer}");
            for attention in ["self_attn", "encoder_attn"] {
                for (part, gain) in [("q_proj", 1.0), ("k_proj", 1.0), ("v_proj", 1.0), ("out_proj", 0.5)] {
                    self.matrix(format!("{path}.{attention}.{part}.weight"), hidden, hidden, gain);
                }
            }
            self.matrix(format!("{path}.fc1.weight"), feed, hidden, 1.0);
            self.matrix(format!("{path}.fc2.weight"), hidden, feed, 0.5);
            for norm in ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"] {
                self.norm(&format!("{path}.{norm}"), hidden);
            }
        }
        self.norm(&format!("{root}.layer_norm"), hidden);
    }

    fn norm(&mut self, path: &str, width: usize) {
        self.gain(format!("{path}.weight"), width);
        self.bias(format!("{path}.bias"), width);
    }

    fn codec(&mut self, codec: &CodecConfig) {
        for book in 0..codec.num_quantizers {
            let shape = [codec.codebook_size, codec.codebook_dim];
            self.push(format!("audio_encoder.quantizer.layers.{book}.codebook.embed"), &shape, 0.0, 0.5);
        }
        // Layers are counted as the reference's module list counts them: an ELU is one.
        let path = |index: usize| format!("audio_encoder.decoder.layers.{index}");
        let mut width = codec.num_filters << codec.upsampling_ratios.len();
        self.conv(&path(0), [width, codec.hidden_size, codec.kernel_size], 1.0);
        for layer in 0..codec.num_lstm_layers {
            for part in ["weight_ih", "weight_hh"] {
                self.matrix(format!("{}.lstm.{part}_l{layer}", path(1)), 4 * width, width, 0.6);
            }
            for part in ["bias_ih", "bias_hh"] {
                self.bias(format!("{}.lstm.{part}_l{layer}", path(1)), 4 * width);
            }
        }
        let mut index = 2;
        for &ratio in &codec.upsampling_ratios {
            // Transposed: normed over what one input channel gives; every output sample hears two taps of all channels.
            self.transposed(&path(index + 1), [width, width / 2, 2 * ratio], (ratio as f32 / 2.0).sqrt());
            width /= 2;
            index += 2;
            for _ in 0..codec.num_residual_layers {
                let hidden = width / codec.compress;
                self.conv(&format!("{}.block.1", path(index)), [hidden, width, codec.residual_kernel_size], 1.0);
                self.conv(&format!("{}.block.3", path(index)), [width, hidden, 1], 0.7);
                if codec.use_conv_shortcut {
                    self.conv(&format!("{}.shortcut", path(index)), [width, width, 1], 1.0);
                }
                index += 1;
            }
        }
        self.conv(&path(index + 1), [codec.audio_channels, codec.num_filters, codec.last_kernel_size], 0.2);
    }

    /// A weight-normed convolution: `[outputs][inputs][kernel]`, every output of this norm.
    fn conv(&mut self, path: &str, shape: [usize; 3], norm: f32) {
        self.normed(path, shape, norm);
        self.bias(format!("{path}.conv.bias"), shape[0]);
    }

    /// As `conv`, but `[inputs][outputs][kernel]`.
    fn transposed(&mut self, path: &str, shape: [usize; 3], norm: f32) {
        self.normed(path, shape, norm);
        self.bias(format!("{path}.conv.bias"), shape[1]);
    }

    fn normed(&mut self, path: &str, shape: [usize; 3], norm: f32) {
        self.push(format!("{path}.conv.weight_g"), &[shape[0], 1, 1], norm, 0.0);
        self.push(format!("{path}.conv.weight_v"), &shape, 0.0, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shape::{Shape, config_of};

    #[test]
    fn small_has_as_many_decoder_weights_as_published() {
        let tensors = of(&config_of(Shape::Small).unwrap());
        let count = |prefix: &str| -> usize {
            tensors.iter().filter(|tensor| tensor.name.starts_with(prefix)).map(Tensor::elements).sum()
        };
        // 24 x (8 x 1024^2 + 2 x 1024 x 4096 + 6 norms) + final norm + 4 x (2049 + 2048) x 1024
        assert_eq!(count("decoder."), 24 * (16 * 1_048_576 + 6 * 1024) + 2 * 1024 + 4 * 4097 * 1024);
        // t5-base's encoder.
        assert_eq!(count("text_encoder."), 109_628_544);
    }

    #[test]
    fn no_name_comes_twice() {
        let mut names: Vec<String> = of(&config_of(Shape::Large).unwrap()).into_iter().map(|t| t.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
