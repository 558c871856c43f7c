//! Builds both SEANet halves from checkpoint tensors. Loading thread.
//! Layer order and numbering are those of transformers' `EncodecEncoder` and `EncodecDecoder`, ELUs counted.

use super::conv::{ConvShape, PadMode};
use super::layer::{ConvLayer, Layer, LstmWeights, Pointwise, ResidualLayer, UpsampleLayer};
use super::quantizer::Quantizer;
use super::stack::Stack;
use crate::checkpoint::{CheckpointError, CodecConfig, Weights};
use crate::kernel::nearest_half;

/// The first `codebooks` codebooks of a checkpoint's codec.
pub(super) fn quantizer(
    weights: &Weights,
    config: &CodecConfig,
    codebooks: usize,
) -> Result<Quantizer, CheckpointError> {
    let shape = (config.codebook_size, config.codebook_dim);
    Quantizer::load(weights, "audio_encoder.quantizer.", codebooks.min(config.num_quantizers), shape)
}

/// Latent frames to samples. With `half` the large weights, those of the LSTM and the upsamplers, are rounded to f16.
pub(super) fn decoder(weights: &Weights, config: &CodecConfig, half: bool) -> Result<Stack, CheckpointError> {
    let mut stages = Vec::new();
    decoder_layers(weights, config, half, &mut |layer| {
        stages.push(layer.pack());
        Ok::<(), CheckpointError>(())
    })?;
    Ok(Stack::new(stages))
}

/// As [`decoder`], layer by layer: no more of them than one is in memory at a time.
pub(crate) fn decoder_layers<E: From<CheckpointError>>(
    weights: &Weights,
    config: &CodecConfig,
    half: bool,
    take: &mut dyn FnMut(Layer) -> Result<(), E>,
) -> Result<(), E> {
    let mut build = Builder { half, ..Builder::new(weights, config, "audio_encoder.decoder.layers", take) };
    let mut width = config.num_filters << config.upsampling_ratios.len();
    build.conv(config.hidden_size, width, config.kernel_size, 1, false)?;
    build.lstm(width)?;
    for &ratio in &config.upsampling_ratios {
        build.elu();
        build.upsample(width, width / 2, ratio)?;
        width /= 2;
        build.residuals(width)?;
    }
    build.elu();
    build.conv(config.num_filters, config.audio_channels, config.last_kernel_size, 1, true)
}

/// Samples to latent frames.
pub(super) fn encoder(weights: &Weights, config: &CodecConfig) -> Result<Stack, CheckpointError> {
    let mut stages = Vec::new();
    let mut take = |layer: Layer| {
        stages.push(layer.pack());
        Ok::<(), CheckpointError>(())
    };
    let mut build = Builder::new(weights, config, "audio_encoder.encoder.layers", &mut take);
    let mut width = config.num_filters;
    build.conv(config.audio_channels, width, config.kernel_size, 1, false)?;
    for &ratio in config.upsampling_ratios.iter().rev() {
        build.residuals(width)?;
        build.elu();
        build.conv(width, width * 2, ratio * 2, ratio, true)?;
        width *= 2;
    }
    build.lstm(width)?;
    build.elu();
    build.conv(width, config.hidden_size, config.last_kernel_size, 1, true)?;
    Ok(Stack::new(stages))
}

/// Gives layers away; `index` is the number of the next entry of the reference's module list.
struct Builder<'a, E> {
    weights: &'a Weights,
    config: &'a CodecConfig,
    prefix: &'static str,
    mode: PadMode,
    index: usize,
    take: &'a mut dyn FnMut(Layer) -> Result<(), E>,
    /// Round large weights to half precision.
    half: bool,
}

impl<'a, E: From<CheckpointError>> Builder<'a, E> {
    fn new(
        weights: &'a Weights,
        config: &'a CodecConfig,
        prefix: &'static str,
        take: &'a mut dyn FnMut(Layer) -> Result<(), E>,
    ) -> Self {
        let mode = if config.pad_mode == "reflect" { PadMode::Reflect } else { PadMode::Zero };
        Self { weights, config, prefix, mode, index: 0, take, half: false }
    }

    /// Path of the next module.
    fn next(&mut self) -> String {
        let path = format!("{}.{}", self.prefix, self.index);
        self.index += 1;
        path
    }

    /// A large weight as it is kept.
    fn kept(&self, mut weight: Vec<f32>) -> Vec<f32> {
        if self.half {
            weight.iter_mut().for_each(|w| *w = nearest_half(*w));
        }
        weight
    }

    /// An ELU is a module of its own in the reference; here it belongs to the layer behind it.
    fn elu(&mut self) {
        self.index += 1;
    }

    fn conv(&mut self, inputs: usize, outputs: usize, kernel: usize, stride: usize, elu: bool) -> Result<(), E> {
        let path = self.next();
        let shape = ConvShape { inputs, outputs, kernel, stride, dilation: 1 };
        let conv = self.conv_at(&path, shape, elu)?;
        (self.take)(Layer::Conv(conv))
    }

    fn conv_at(&self, path: &str, shape: ConvShape, elu: bool) -> Result<ConvLayer, CheckpointError> {
        let weight = self.weights.weight_norm(&format!("{path}.conv"), &[shape.outputs, shape.inputs, shape.kernel])?;
        let bias = self.weights.tensor(&format!("{path}.conv.bias"), &[shape.outputs])?;
        Ok(ConvLayer { weight, bias, shape, causal: self.config.use_causal_conv, mode: self.mode, elu })
    }

    /// A kernel-1 convolution, which needs no context.
    fn pointwise_at(&self, path: &str, inputs: usize, outputs: usize) -> Result<Pointwise, CheckpointError> {
        let weight = self.weights.weight_norm(&format!("{path}.conv"), &[outputs, inputs, 1])?;
        let bias = self.weights.tensor(&format!("{path}.conv.bias"), &[outputs])?;
        Ok(Pointwise { weight, bias, inputs, outputs })
    }

    fn upsample(&mut self, inputs: usize, outputs: usize, ratio: usize) -> Result<(), E> {
        let path = self.next();
        let kernel = 2 * ratio;
        let weight = self.kept(self.weights.weight_norm(&format!("{path}.conv"), &[inputs, outputs, kernel])?);
        let bias = self.weights.tensor(&format!("{path}.conv.bias"), &[outputs])?;
        let surplus = kernel - ratio;
        let trim_right = if self.config.use_causal_conv {
            ((surplus as f64 * self.config.trim_right_ratio).ceil() as usize).min(surplus)
        } else {
            surplus / 2
        };
        let trim_left = surplus - trim_right;
        (self.take)(Layer::Upsample(UpsampleLayer { weight, bias, inputs, outputs, kernel, stride: ratio, trim_left }))
    }

    fn residuals(&mut self, width: usize) -> Result<(), E> {
        for j in 0..self.config.num_residual_layers {
            let path = self.next();
            let hidden = width / self.config.compress;
            let shape = ConvShape {
                inputs: width,
                outputs: hidden,
                kernel: self.config.residual_kernel_size,
                stride: 1,
                dilation: self.config.dilation_growth_rate.pow(j as u32),
            };
            let conv = self.conv_at(&format!("{path}.block.1"), shape, true)?;
            let pointwise = self.pointwise_at(&format!("{path}.block.3"), hidden, width)?;
            let shortcut = match self.config.use_conv_shortcut {
                true => Some(self.pointwise_at(&format!("{path}.shortcut"), width, width)?),
                false => None,
            };
            (self.take)(Layer::Residual(ResidualLayer { conv, pointwise, shortcut }))?;
        }
        Ok(())
    }

    fn lstm(&mut self, hidden: usize) -> Result<(), E> {
        let path = self.next();
        let mut layers = Vec::with_capacity(self.config.num_lstm_layers);
        for l in 0..self.config.num_lstm_layers {
            let read = |name: &str, shape: &[usize]| self.weights.tensor(&format!("{path}.lstm.{name}_l{l}"), shape);
            let input = self.kept(read("weight_ih", &[4 * hidden, hidden])?);
            let recurrent = self.kept(read("weight_hh", &[4 * hidden, hidden])?);
            let mut bias = read("bias_ih", &[4 * hidden])?;
            for (sum, b) in bias.iter_mut().zip(read("bias_hh", &[4 * hidden])?) {
                *sum += b;
            }
            layers.push(LstmWeights { input, recurrent, bias });
        }
        (self.take)(Layer::Lstm { layers, hidden })
    }
}
