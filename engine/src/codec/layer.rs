//! The layers of a SEANet half as a checkpoint has them, one after the other: what the processor packs into stages and a card is
//! given as operations. Weights are PyTorch's own, weight norm resolved. Loader thread.

use super::conv::{Conv, ConvShape, PadMode};
use super::lstm::{Lstm, LstmLayer};
use super::residual::Residual;
use super::stack::Stage;
use super::upsample::Upsample;
use crate::kernel::Linear;

/// A convolution, `[outputs][inputs][kernel]`; `elu` says that its input passes an ELU first.
pub(crate) struct ConvLayer {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub shape: ConvShape,
    pub causal: bool,
    pub mode: PadMode,
    pub elu: bool,
}

/// A kernel-1 convolution, `[outputs][inputs]`.
pub(crate) struct Pointwise {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub inputs: usize,
    pub outputs: usize,
}

/// A transposed convolution behind an ELU, `[inputs][outputs][kernel]`.
pub(crate) struct UpsampleLayer {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Surplus rows that go at the start.
    pub trim_left: usize,
}

/// ELU, convolution, ELU, pointwise; the input is added, or what the shortcut makes of it.
pub(crate) struct ResidualLayer {
    pub conv: ConvLayer,
    pub pointwise: Pointwise,
    pub shortcut: Option<Pointwise>,
}

/// One layer of an LSTM: `[4 hidden][hidden]` each, gates in PyTorch's order, and both biases summed.
pub(crate) struct LstmWeights {
    pub input: Vec<f32>,
    pub recurrent: Vec<f32>,
    pub bias: Vec<f32>,
}

/// One layer of the chain. The LSTM adds its input to its output.
pub(crate) enum Layer {
    Conv(ConvLayer),
    Upsample(UpsampleLayer),
    Lstm { layers: Vec<LstmWeights>, hidden: usize },
    Residual(ResidualLayer),
}

impl ConvLayer {
    fn pack(&self) -> Conv {
        Conv::new(&self.weight, Some(&self.bias), self.shape, self.causal, self.mode, self.elu)
    }
}

impl Pointwise {
    fn pack(&self) -> Linear {
        Linear::new(&self.weight, Some(&self.bias), self.outputs, self.inputs)
    }
}

impl Layer {
    /// As the processor plays it.
    pub(super) fn pack(&self) -> Stage {
        match self {
            Self::Conv(layer) => Stage::Conv(layer.pack()),
            Self::Upsample(layer) => Stage::Upsample(Upsample::new(
                &layer.weight,
                Some(&layer.bias),
                (layer.inputs, layer.outputs),
                (layer.kernel, layer.stride),
                layer.trim_left,
            )),
            Self::Lstm { layers, hidden } => {
                let pack = |one: &LstmWeights| LstmLayer::new(&one.input, &one.recurrent, &one.bias, *hidden);
                Stage::Lstm(Lstm::new(layers.iter().map(pack).collect(), *hidden))
            }
            Self::Residual(layer) => {
                let shortcut = layer.shortcut.as_ref().map(Pointwise::pack);
                Stage::Residual(Residual::new(layer.conv.pack(), layer.pointwise.pack(), shortcut))
            }
        }
    }
}
