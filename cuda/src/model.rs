//! A model's tensors on a card: weights in bf16, norms, embeddings and positions in f32, one allocation for all. Loader thread.

use std::ffi::c_void;
use std::sync::Arc;

use crate::abi::{AS_KEPT, F32, MOST_CODEBOOKS, Shape, Tensor};
use crate::driver::{Context, Driver, Outcome, Stream};
use crate::error::CudaError;
use crate::kernels::{ACTIVATIONS, Kernels, MOST_NORMED, MOST_VOCAB, SIZES, Shared};
use crate::memory::{Arena, Buffer};

/// Numbers that are converted and copied at a time.
const PART: usize = 1 << 22;

/// One checkpoint's decoder on one card. Immutable once its tensors are there; shared by its players.
pub struct Model {
    pub context: Arc<Context>,
    pub kernels: Shared,
    pub shape: Shape,
    memory: Buffer,
    /// Offset of each tensor's first block, and from block to block.
    places: [(usize, usize); Tensor::ALL.len()],
    /// Tensors that are there, one bit a block.
    filled: Vec<Vec<bool>>,
}

/// Whether a tensor is in every block, is kept in 16 bits, and its shape.
struct Facts {
    of_block: bool,
    half: bool,
    count: usize,
}

fn facts(shape: &Shape, tensor: Tensor) -> Facts {
    let [hidden, feed, vocab, codebooks, text, positions] =
        [shape.hidden, shape.feed, shape.vocab, shape.codebooks, shape.text_width, shape.positions].map(|n| n as usize);
    let norm = |of_block| Facts { of_block, half: false, count: hidden };
    let weight = |count| Facts { of_block: true, half: true, count };
    match tensor {
        Tensor::Embeddings => Facts { of_block: false, half: false, count: codebooks * (vocab + 1) * hidden },
        Tensor::Positions => Facts { of_block: false, half: false, count: positions * hidden },
        Tensor::SelfGain | Tensor::SelfOffset | Tensor::CrossGain | Tensor::CrossOffset => norm(true),
        Tensor::FeedGain | Tensor::FeedOffset => norm(true),
        Tensor::SelfIn => weight(3 * hidden * hidden),
        Tensor::CrossIn => weight(2 * hidden * hidden),
        Tensor::SelfOut | Tensor::CrossQuery | Tensor::CrossOut => weight(hidden * hidden),
        Tensor::FeedIn | Tensor::FeedOut => weight(hidden * feed),
        Tensor::FinalGain | Tensor::FinalOffset => norm(false),
        Tensor::Heads => Facts { of_block: false, half: true, count: codebooks * vocab * hidden },
        Tensor::TextProjection => {
            Facts { of_block: false, half: true, count: if shape.projected == 0 { 0 } else { hidden * text } }
        }
        Tensor::TextOffset => {
            Facts { of_block: false, half: false, count: if shape.projected == 0 { 0 } else { hidden } }
        }
    }
}

fn check(shape: &Shape) -> Outcome<()> {
    let refused = |what: String| Err(CudaError::Shape { what });
    let all = [shape.hidden, shape.heads, shape.feed, shape.vocab, shape.codebooks, shape.blocks, shape.text_width];
    if all.contains(&0) || shape.positions == 0 || shape.activation >= ACTIVATIONS {
        return refused("it has an empty side".to_owned());
    }
    let widths = [shape.hidden, shape.feed, shape.text_width];
    if !widths.iter().all(|width| width.is_multiple_of(8)) {
        return refused(format!("widths of {widths:?} are not all multiples of 8"));
    }
    if shape.hidden > MOST_NORMED {
        return refused(format!("a width of {}, at most {MOST_NORMED}", shape.hidden));
    }
    if !shape.hidden.is_multiple_of(shape.heads) || !SIZES.contains(&(shape.hidden / shape.heads)) {
        return refused(format!("{} heads of a width of {}", shape.heads, shape.hidden));
    }
    if shape.vocab > MOST_VOCAB {
        return refused(format!("codebooks of {} codes, at most {MOST_VOCAB}", shape.vocab));
    }
    if shape.codebooks as usize > MOST_CODEBOOKS {
        return refused(format!("{} codebooks, at most {MOST_CODEBOOKS}", shape.codebooks));
    }
    Ok(())
}

impl Model {
    /// Room for a model on card `device`.
    pub fn open(device: u32, shape: Shape) -> Outcome<Self> {
        check(&shape)?;
        let context = Context::open(Driver::open()?, device)?;
        let kernels = Arc::new(Kernels::load(&context)?);
        let mut arena = Arena::default();
        let mut filled = Vec::new();
        let places = Tensor::ALL.map(|tensor| {
            let Facts { of_block, half, count } = facts(&shape, tensor);
            let bytes = if half { 2 * count } else { 4 * count };
            let blocks = if of_block { shape.blocks as usize } else { 1 };
            filled.push(vec![count == 0; blocks]);
            let first = arena.place(bytes);
            let stride = arena.bytes() - first;
            for _ in 1..blocks {
                arena.place(bytes);
            }
            (first, stride)
        });
        let memory = Buffer::new(&context, arena.bytes())?;
        Ok(Self { context, kernels, shape, memory, places, filled })
    }

    /// Where a tensor of a block lies.
    pub fn tensor(&self, tensor: Tensor, block: usize) -> u64 {
        let (first, stride) = self.places[tensor as usize];
        self.memory.address() + (first + block * stride) as u64
    }

    /// Bytes that it takes on the card.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Copies a tensor to the card.
    ///
    /// # Safety
    /// `values` are `count` numbers in the format that is named.
    pub unsafe fn fill(
        &mut self,
        number: u32,
        block: u32,
        values: *const c_void,
        count: u64,
        format: u32,
    ) -> Outcome<()> {
        let refused = |what: String| CudaError::Argument { what };
        let tensor = Tensor::ALL.get(number as usize).ok_or_else(|| refused(format!("tensor {number}")))?;
        let facts = facts(&self.shape, *tensor);
        let filled = self.filled[number as usize].get_mut(block as usize);
        let filled = filled.ok_or_else(|| refused(format!("block {block} of {tensor:?}")))?;
        if facts.count as u64 != count || values.is_null() {
            return Err(refused(format!("{count} numbers for {tensor:?}, which has {}", facts.count)));
        }
        *filled = true;
        let to = self.tensor(*tensor, block as usize);
        self.context.enter()?;
        let stream = Stream::new(&self.context)?;
        match (format, facts.half) {
            (AS_KEPT, half) => {
                let bytes = facts.count * if half { 2 } else { 4 };
                // SAFETY: the room was laid out for so many; the values are the caller's promise.
                unsafe { stream.copy(to, values as u64, bytes) }?;
                stream.wait()
            }
            (F32, false) => {
                // SAFETY: as above.
                unsafe { stream.upload(to, values, 4 * facts.count) }?;
                stream.wait()
            }
            (F32, true) => {
                // SAFETY: the caller's promise.
                let values = unsafe { std::slice::from_raw_parts(values.cast::<f32>(), facts.count) };
                let mut half = Vec::with_capacity(PART.min(facts.count));
                for (part, values) in values.chunks(PART).enumerate() {
                    half.clear();
                    half.extend(values.iter().map(|value| to_bf16(*value)));
                    // SAFETY: as above; the stream is waited for before `half` changes.
                    unsafe { stream.upload(to + (2 * part * PART) as u64, half.as_ptr().cast(), 2 * half.len()) }?;
                    stream.wait()?;
                }
                Ok(())
            }
            _ => Err(refused(format!("format {format}"))),
        }
    }

    /// That nothing was forgotten.
    pub fn check_filled(&self) -> Outcome<()> {
        for (tensor, blocks) in Tensor::ALL.iter().zip(&self.filled) {
            if let Some(block) = blocks.iter().position(|filled| !filled) {
                return Err(CudaError::Argument { what: format!("{tensor:?} of block {block} was never given") });
            }
        }
        Ok(())
    }
}

/// The nearest bf16 number, ties to even; what is not finite stays so.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16 | 0x40) as u16;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_and_ties_go_to_even() {
        let cases =
            [(1.0, 0x3f80), (-2.0, 0xc000), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (1.004, 0x3f81)];
        for (value, bits) in cases {
            assert_eq!(to_bf16(value), bits, "{value}");
        }
        assert_eq!(to_bf16(f32::MAX), 0x7f80);
        assert!(f32::from_bits(u32::from(to_bf16(f32::NAN)) << 16).is_nan());
    }

    #[test]
    fn shapes_that_no_kernel_fits_are_refused_by_name() {
        let large = Shape {
            hidden: 2048,
            heads: 32,
            feed: 8192,
            vocab: 2048,
            codebooks: 8,
            blocks: 48,
            text_width: 768,
            activation: 0,
            positions: 1504,
            projected: 1,
        };
        assert!(check(&large).is_ok());
        let cases = [
            (Shape { hidden: 2056, ..large }, "2056"),
            (Shape { heads: 20, ..large }, "20 heads"),
            (Shape { feed: 8190, ..large }, "8190"),
            (Shape { vocab: 5000, ..large }, "5000"),
            (Shape { codebooks: 17, ..large }, "17 codebooks"),
            (Shape { blocks: 0, ..large }, "empty"),
        ];
        for (shape, named) in cases {
            let said = check(&shape).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(named) && said.contains("CPU"), "{said}");
        }
    }
}
