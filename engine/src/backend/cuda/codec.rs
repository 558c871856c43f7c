//! The codec on a card: gives it a checkpoint's codec as operations, and plays its streams. Before a stream is trusted its first
//! samples are compared with the processor's. Loader and runner threads.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::abi::{Operation, operation};
use super::library::{Card, CodecObject, Library, StreamObject};
use crate::backend::{BackendError, CodecStream};
use crate::checkpoint::{Checkpoint, CodecConfig, Weights};
use crate::codec::conv::PadMode;
use crate::codec::layer::{ConvLayer, Layer, Pointwise, UpsampleLayer};
use crate::codec::{CodecDecoder, CodecError, DecoderStream, seanet, upsample};
use crate::control::MOST_HOP;
use crate::error::EngineError;
use crate::handle::ModelSource;

/// Largest difference from the processor's samples, as a share of the largest one.
pub const MOST_APART: f64 = 1e-3;

/// Frames that are compared before a stream is trusted: the look-ahead, and as many that are heard.
const COMPARED: usize = 12;

/// A checkpoint, whether its weights are rounded, and the card that it is on.
type Key = (ModelSource, bool, u32);

/// What every instance in the process shares.
static LOADED: Mutex<Vec<(Key, Weak<CudaCodec>)>> = Mutex::new(Vec::new());

/// A checkpoint's codec on one card. Share it in an `Arc`: streams keep it.
pub struct CudaCodec {
    object: CodecObject,
    /// The same on the processor.
    decoder: Arc<CodecDecoder>,
}

impl CudaCodec {
    /// As [`CudaCodec::load`], or the copy that another instance has loaded.
    ///
    /// # Errors
    /// As [`CudaCodec::load`].
    pub fn shared(
        library: &Library,
        card: &Card,
        source: &ModelSource,
        decoder: &Arc<CodecDecoder>,
    ) -> Result<Arc<Self>, EngineError> {
        let mut loaded = LOADED.lock();
        loaded.retain(|(_, codec)| codec.strong_count() > 0);
        let key = (source.clone(), decoder.is_half(), card.number);
        if let Some(codec) = loaded.iter().find(|(other, _)| *other == key).and_then(|(_, codec)| codec.upgrade()) {
            return Ok(codec);
        }
        let checkpoint = Checkpoint::load(&source.checkpoint(), &|_| ())?;
        let codec = Self::load(library, card, &checkpoint.weights, &checkpoint.config.codec, decoder)?;
        loaded.push((key, Arc::downgrade(&codec)));
        Ok(codec)
    }

    /// Uploads the codec that `decoder` was loaded from, its large weights rounded where that one's are.
    ///
    /// # Errors
    /// A tensor of the checkpoint, the card's memory, or a codec that does not run on cards, by name.
    pub fn load(
        library: &Library,
        card: &Card,
        weights: &Weights,
        config: &CodecConfig,
        decoder: &Arc<CodecDecoder>,
    ) -> Result<Arc<Self>, EngineError> {
        let mut chain = Chain { object: library.open_codec(card.number)?, operations: 0 };
        let (size, width, codebooks) = (config.codebook_size, config.codebook_dim, decoder.codebooks());
        let tables: Vec<String> =
            (0..codebooks).map(|k| format!("audio_encoder.quantizer.layers.{k}.codebook.embed")).collect();
        let latent = Operation { kind: operation::LATENT, kernel: size as u32, ..PLAIN };
        chain.append(latent, codebooks, width, &weights.stacked(&tables, &[size, width])?, &[])?;
        seanet::decoder_layers(weights, config, decoder.is_half(), &mut |layer| chain.layer(&layer))?;
        Ok(Arc::new(Self { object: chain.object, decoder: decoder.clone() }))
    }

    /// A stream that takes up to `frames` frames per push.
    ///
    /// # Errors
    /// The card's memory does not suffice, or it no longer answers.
    pub fn stream(self: &Arc<Self>, frames: usize) -> Result<CudaCodecStream, BackendError> {
        let (object, most) = self.object.open_stream()?;
        let capacity = self.decoder.queued(frames) + most;
        Ok(CudaCodecStream {
            object,
            part: vec![0.0; most],
            queue: VecDeque::with_capacity(capacity),
            capacity,
            most_frames: frames,
            ended: false,
            codec: self.clone(),
        })
    }

    /// A stream for a player's pieces.
    ///
    /// # Errors
    /// As [`CudaCodec::stream`].
    pub fn boxed(self: &Arc<Self>) -> Result<Box<dyn CodecStream>, BackendError> {
        Ok(Box::new(self.stream(MOST_HOP as usize)?))
    }

    /// How far a stream's samples are from the processor's, over the largest of them: a piece of a few frames, and after a reset
    /// another one.
    ///
    /// # Errors
    /// One of them gives up.
    pub fn apart(self: &Arc<Self>) -> Result<f64, EngineError> {
        let (mut ours, mut exact) = (self.stream(1)?, DecoderStream::new(self.decoder.clone()));
        let (codebooks, size) = (self.decoder.codebooks(), self.decoder.codebook_size());
        let (mut most, mut apart) = (0.0f64, 0.0f64);
        let mut codes = vec![0u32; codebooks];
        let mut state = 1u32;
        for _ in 0..2 {
            for frame in 0..=COMPARED {
                for code in &mut codes {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *code = (state >> 8) % size as u32;
                }
                if frame < COMPARED {
                    ours.push(&codes)?;
                    exact.push(&codes)?;
                } else {
                    ours.finish()?;
                    exact.finish()?;
                }
                ours.collect()?;
                let mut a = vec![0.0; CodecStream::available(&ours)];
                let mut b = vec![0.0; exact.available()];
                if a.len() != b.len() {
                    return Ok(f64::INFINITY);
                }
                CodecStream::read(&mut ours, &mut a);
                exact.read(&mut b);
                for (a, b) in a.iter().zip(&b) {
                    most = most.max(f64::from(b.abs()));
                    let difference = (f64::from(*a) - f64::from(*b)).abs();
                    apart = if difference.is_nan() { f64::INFINITY } else { apart.max(difference) };
                }
            }
            ours.reset();
            exact.reset();
        }
        Ok(apart / most.max(f64::MIN_POSITIVE))
    }

    /// Refuses a card whose samples are not the processor's.
    ///
    /// # Errors
    /// They are further apart than [`MOST_APART`], or one of the two gives up.
    pub fn verify(self: &Arc<Self>) -> Result<(), EngineError> {
        match self.apart()? {
            apart if apart <= MOST_APART => Ok(()),
            apart => Err(BackendError::Codec { apart: format!("{apart:.1e}") }.into()),
        }
    }
}

/// The operations so far.
struct Chain {
    object: CodecObject,
    operations: usize,
}

/// An operation that adds nothing, stretches nothing and pads nothing.
const PLAIN: Operation = Operation {
    kind: operation::CONVOLUTION,
    source: 0,
    skip: -1,
    inputs: 0,
    outputs: 0,
    kernel: 1,
    dilation: 1,
    phases: 1,
    left: 0,
    right: 0,
    trim: 0,
    reflect: 0,
    elu: 0,
};

fn padded(width: usize) -> usize {
    width.next_multiple_of(4)
}

/// Rows of `width` numbers, each continued with zeros to a multiple of four.
fn pad(weight: &[f32], width: usize) -> Vec<f32> {
    if width == padded(width) {
        return weight.to_vec();
    }
    let mut out = vec![0.0; weight.len() / width * padded(width)];
    for (to, from) in out.chunks_exact_mut(padded(width)).zip(weight.chunks_exact(width)) {
        to[..width].copy_from_slice(from);
    }
    out
}

impl Chain {
    fn newest(&self) -> u32 {
        (self.operations - 1) as u32
    }

    fn append(
        &mut self,
        facts: Operation,
        inputs: usize,
        outputs: usize,
        weight: &[f32],
        bias: &[f32],
    ) -> Result<(), EngineError> {
        let facts = Operation { inputs: inputs as u32, outputs: outputs as u32, ..facts };
        self.object.append(&facts, weight, bias)?;
        self.operations += 1;
        Ok(())
    }

    fn layer(&mut self, layer: &Layer) -> Result<(), EngineError> {
        match layer {
            Layer::Conv(conv) => self.convolution(conv),
            Layer::Upsample(layer) => self.upsample(layer),
            Layer::Lstm { layers, hidden } => {
                let (hidden, before) = (*hidden, self.newest());
                for (index, one) in layers.iter().enumerate() {
                    let mut weight = vec![0.0; 8 * hidden * hidden];
                    for (row, to) in weight.chunks_exact_mut(2 * hidden).enumerate() {
                        to[..hidden].copy_from_slice(&one.input[row * hidden..][..hidden]);
                        to[hidden..].copy_from_slice(&one.recurrent[row * hidden..][..hidden]);
                    }
                    // The input is added to what the last layer gives.
                    let skip = if index + 1 == layers.len() { before as i32 } else { -1 };
                    let facts = Operation { kind: operation::LSTM, source: self.newest(), skip, ..PLAIN };
                    self.append(facts, hidden, hidden, &weight, &one.bias)?;
                }
                Ok(())
            }
            Layer::Residual(layer) => {
                let before = self.newest();
                let skip = match &layer.shortcut {
                    Some(shortcut) => {
                        self.pointwise(shortcut, before, -1, false)?;
                        self.newest()
                    }
                    None => before,
                };
                self.convolution_of(&layer.conv, before)?;
                self.pointwise(&layer.pointwise, self.newest(), skip as i32, true)
            }
        }
    }

    fn convolution(&mut self, conv: &ConvLayer) -> Result<(), EngineError> {
        self.convolution_of(conv, self.newest())
    }

    fn convolution_of(&mut self, conv: &ConvLayer, source: u32) -> Result<(), EngineError> {
        let shape = &conv.shape;
        if shape.stride != 1 {
            let text = "a codec whose decoder has strides does not run on a GPU".to_owned();
            return Err(BackendError::Card { status: super::abi::status::SHAPE, text }.into());
        }
        let (left, right) = shape.padding(conv.causal);
        let facts = Operation {
            source,
            kernel: shape.kernel as u32,
            dilation: shape.dilation as u32,
            left: left as u32,
            right: right as u32,
            reflect: u32::from(conv.mode == PadMode::Reflect),
            elu: u32::from(conv.elu),
            ..PLAIN
        };
        let weight = pad(&shape.window(&conv.weight), shape.inputs);
        self.append(facts, padded(shape.inputs), shape.outputs, &weight, &conv.bias)
    }

    fn pointwise(&mut self, layer: &Pointwise, source: u32, skip: i32, elu: bool) -> Result<(), EngineError> {
        let facts = Operation { source, skip, elu: u32::from(elu), ..PLAIN };
        let weight = pad(&layer.weight, layer.inputs);
        self.append(facts, padded(layer.inputs), layer.outputs, &weight, &layer.bias)
    }

    fn upsample(&mut self, layer: &UpsampleLayer) -> Result<(), EngineError> {
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let taps = layer.kernel.div_ceil(layer.stride);
        let facts = Operation {
            kind: operation::TRANSPOSED,
            source: self.newest(),
            kernel: taps as u32,
            phases: layer.stride as u32,
            left: taps as u32 - 1,
            trim: layer.trim_left as u32,
            elu: 1,
            ..PLAIN
        };
        let window = upsample::window(&layer.weight, (inputs, outputs), (layer.kernel, layer.stride));
        self.append(facts, padded(inputs), outputs, &pad(&window, inputs), &layer.bias)
    }
}

/// One channel of one piece, decoded on a card.
pub struct CudaCodecStream {
    object: StreamObject,
    /// What a run made.
    part: Vec<f32>,
    queue: VecDeque<f32>,
    capacity: usize,
    most_frames: usize,
    ended: bool,
    codec: Arc<CudaCodec>,
}

impl CudaCodecStream {
    fn run(&mut self, codes: &[u32]) -> Result<(), EngineError> {
        self.collect()?;
        if self.queue.len() + self.part.len() > self.capacity {
            return Err(CodecError::QueueFull { waiting: self.queue.len(), capacity: self.capacity }.into());
        }
        Ok(self.object.push(codes)?)
    }
}

impl CodecStream for CudaCodecStream {
    fn push(&mut self, codes: &[u32]) -> Result<(), EngineError> {
        let decoder = &self.codec.decoder;
        decoder.check(codes)?;
        let codebooks = decoder.codebooks();
        let frames = codes.len() / codebooks;
        if frames > self.most_frames {
            return Err(CodecError::TooManyFrames { frames, most: self.most_frames }.into());
        }
        if self.ended {
            return Err(CodecError::Ended.into());
        }
        codes.chunks_exact(codebooks).try_for_each(|frame| self.run(frame))
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        if !self.ended {
            self.run(&[])?;
            self.ended = true;
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), EngineError> {
        let count = self.object.take(&mut self.part)?;
        self.queue.extend(&self.part[..count]);
        Ok(())
    }

    fn runs_aside(&self) -> bool {
        true
    }

    fn available(&self) -> usize {
        self.queue.len()
    }

    fn read(&mut self, out: &mut [f32]) -> usize {
        let count = out.len().min(self.queue.len());
        for (y, x) in out.iter_mut().zip(self.queue.drain(..count)) {
            *y = x;
        }
        count
    }

    fn reset(&mut self) {
        self.object.reset();
        self.queue.clear();
        self.ended = false;
    }
}
