//! EnCodec's decoder on a card: its operations with their weights in f32, shared by the streams that run them. Loader thread.

pub mod exports;
pub mod launch;
mod schedule;
mod stream;

use std::sync::Arc;

use crate::abi::{MOST_CODEBOOKS, Operation, operation};
use crate::driver::{Context, Driver, Outcome, Stream};
use crate::error::CudaError;
use crate::kernels::Kernels;
use crate::layout::MOST_OPERATIONS;
use crate::memory::{Arena, Buffer};

pub use stream::CodecStream;

/// One operation and where its weights lie.
pub struct Placed {
    pub facts: Operation,
    pub weight: u64,
    pub bias: u64,
    _memory: Buffer,
}

/// One checkpoint's codec on one card. Immutable once it has streams.
pub struct Codec {
    pub context: Arc<Context>,
    pub kernels: Arc<Kernels>,
    pub operations: Vec<Placed>,
}

/// A row's width in memory.
pub fn padded(width: u32) -> u32 {
    width.next_multiple_of(4)
}

/// Numbers of an operation's weight and of its bias.
fn counts(facts: &Operation) -> (usize, usize) {
    let [inputs, outputs, kernel, phases] =
        [facts.inputs, facts.outputs, facts.kernel, facts.phases].map(|n| n as usize);
    match facts.kind {
        operation::LATENT => (inputs * kernel * outputs, 0),
        operation::LSTM => (4 * outputs * 2 * inputs, 4 * outputs),
        _ => (phases * outputs * kernel * inputs, outputs),
    }
}

impl Codec {
    /// An empty one on card `device`.
    pub fn open(device: u32) -> Outcome<Self> {
        let context = Context::open(Driver::open()?, device)?;
        let kernels = Arc::new(Kernels::load(&context)?);
        Ok(Self { context, kernels, operations: Vec::new() })
    }

    /// Appends an operation.
    pub fn append(&mut self, facts: Operation, weight: &[f32], bias: &[f32]) -> Outcome<()> {
        self.check(&facts)?;
        if counts(&facts) != (weight.len(), bias.len()) {
            let what = format!("{} weights and {} biases for {facts:?}", weight.len(), bias.len());
            return Err(CudaError::Argument { what });
        }
        let mut arena = Arena::default();
        let (weight_at, bias_at) = (arena.place(4 * weight.len()), arena.place(4 * bias.len()));
        let memory = Buffer::new(&self.context, arena.bytes())?;
        let stream = Stream::new(&self.context)?;
        let [to_weight, to_bias] = [weight_at, bias_at].map(|at| memory.address() + at as u64);
        for (to, from) in [(to_weight, weight), (to_bias, bias)] {
            if !from.is_empty() {
                // SAFETY: the room was laid out for so many, and the numbers outlive the wait.
                unsafe { stream.upload(to, from.as_ptr().cast(), 4 * from.len()) }?;
            }
        }
        stream.wait()?;
        self.operations.push(Placed { facts, weight: to_weight, bias: to_bias, _memory: memory });
        Ok(())
    }

    /// That an operation fits those before it, and the kernels.
    fn check(&self, facts: &Operation) -> Outcome<()> {
        let refused = |what: &str| Err(CudaError::Shape { what: format!("its codec: {what}") });
        let width = |index: usize| self.operations.get(index).map(|one| padded(one.facts.outputs));
        if self.operations.len() == MOST_OPERATIONS {
            return refused("more operations than are known");
        }
        if [facts.inputs, facts.outputs, facts.kernel, facts.phases, facts.dilation].contains(&0) {
            return refused("an empty side");
        }
        if facts.kind == operation::LATENT {
            let known = self.operations.is_empty() && facts.inputs as usize <= MOST_CODEBOOKS && facts.skip < 0;
            return if known { Ok(()) } else { refused("its codebooks") };
        }
        if width(facts.source as usize) != Some(facts.inputs) {
            return refused("a source of another width");
        }
        if facts.skip >= 0 && width(facts.skip as usize) != Some(padded(facts.outputs)) {
            return refused("a sum of other widths");
        }
        match facts.kind {
            operation::CONVOLUTION if facts.phases == 1 && facts.trim == 0 => {}
            operation::TRANSPOSED if facts.left + 1 == facts.kernel && facts.reflect == 0 && facts.dilation == 1 => {}
            operation::LSTM if facts.inputs == facts.outputs => {}
            _ => return refused("an operation that is not known"),
        }
        if launch::shared(facts, 1) > launch::MOST_SHARED {
            return refused("a window that is too large");
        }
        Ok(())
    }

    /// Samples of a row of its output.
    pub fn channels(&self) -> usize {
        self.operations.last().map_or(0, |one| one.facts.outputs as usize)
    }
}
