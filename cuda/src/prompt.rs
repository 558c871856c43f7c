//! A prompt's cross-attention keys and values, computed on the card once. Whoever gives a player a prompt: the loader or the
//! runner thread.

use crate::abi::Tensor;
use crate::driver::{Outcome, Stream};
use crate::error::CudaError;
use crate::kernels::layer;
use crate::layout::{Linear, into};
use crate::memory::{Arena, Buffer};
use crate::model::Model;

/// Tokens that share a pass over the weights.
const TOGETHER: usize = 8;
/// Most tokens of any prompt.
const MOST_TOKENS: usize = 2048;

/// `[block][key, value][head][token][size]` in bf16.
pub struct Prompt {
    memory: Buffer,
    pub tokens: usize,
}

impl Prompt {
    /// Of text states `[tokens][text_width]`.
    pub fn new(model: &Model, stream: &Stream, states: &[f32]) -> Outcome<Self> {
        let shape = &model.shape;
        let [hidden, heads, blocks, width] =
            [shape.hidden, shape.heads, shape.blocks, shape.text_width].map(|n| n as usize);
        let tokens = states.len() / width;
        if tokens == 0 || tokens > MOST_TOKENS || tokens * width != states.len() {
            return Err(CudaError::Argument { what: format!("text states of {} numbers", states.len()) });
        }
        let memory = Buffer::new(&model.context, 2 * blocks * 2 * hidden * tokens)?;
        let padded = tokens.next_multiple_of(TOGETHER);
        let mut arena = Arena::default();
        let given = arena.place(4 * padded * width);
        let projected = arena.place(4 * padded * hidden);
        let work = Buffer::new(&model.context, arena.bytes())?;
        let (given, projected) = (work.address() + given as u64, work.address() + projected as u64);
        // SAFETY: the room was laid out above, and `states` outlives the wait below.
        unsafe {
            stream.clear(work.address(), arena.bytes())?;
            stream.upload(given, states.as_ptr().cast(), 4 * states.len())?;
        }
        for first in (0..padded).step_by(TOGETHER) {
            let mut input = given + (4 * first * width) as u64;
            if shape.projected != 0 {
                let output = projected + (4 * first * hidden) as u64;
                let projection = model.tensor(Tensor::TextProjection, 0);
                let bias = model.tensor(Tensor::TextOffset, 0);
                let argument = Linear { bias, ..layer(projection, input, output, width, hidden) };
                // SAFETY: sizes are those of the tensors and of the room above.
                unsafe { model.kernels.linear(stream, TOGETHER as u32, argument, false) }?;
                input = output;
            }
            for block in 0..blocks {
                let weight = model.tensor(Tensor::CrossIn, block);
                let argument = Linear {
                    into: into::TEXT,
                    keys: memory.address() + (2 * block * 2 * hidden * tokens) as u64,
                    value_stride: (hidden * tokens) as i64,
                    hidden: hidden as i32,
                    size: (hidden / heads) as i32,
                    capacity: tokens as i32,
                    first: first as i32,
                    rows: (tokens - first).min(TOGETHER) as i32,
                    ..layer(weight, input, 0, hidden, 2 * hidden)
                };
                // SAFETY: as above; rows past the last token are not written.
                unsafe { model.kernels.linear(stream, TOGETHER as u32, argument, false) }?;
            }
        }
        stream.wait()?;
        Ok(Self { memory, tokens })
    }

    pub fn address(&self) -> u64 {
        self.memory.address()
    }
}
