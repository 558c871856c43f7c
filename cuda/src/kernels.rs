//! The compiled kernels, and how each is launched. Loader and runner threads.

use std::sync::Arc;

use crate::codec::launch::CodecKernels;
use crate::driver::{Context, Kernel, Launch, Module, Outcome, Stream};
use crate::error::CudaError;
use crate::layout::{Attend, Embed, Inject, Linear, Probe, Sample, into};

/// Machine code for compute capability 9.
#[cfg(feature = "kernels")]
const CODE_90: &[u8] = include_bytes!(concat!(env!("TILLER_CUDA_KERNELS"), "/sm_90.cubin"));
/// For later ones, compiled by the driver. PTX ends with a 0.
#[cfg(feature = "kernels")]
const PTX_90: &[u8] = concat_bytes(include_bytes!(concat!(env!("TILLER_CUDA_KERNELS"), "/compute_90.ptx")));
/// For compute capability 8.
#[cfg(feature = "kernels")]
const PTX_80: &[u8] = concat_bytes(include_bytes!(concat!(env!("TILLER_CUDA_KERNELS"), "/compute_80.ptx")));

/// Checks, while it is compiled, that a text is ended by a 0: the driver reads up to it.
#[cfg(feature = "kernels")]
const fn concat_bytes(text: &'static [u8]) -> &'static [u8] {
    assert!(text[text.len() - 1] == 0, "PTX without a 0 at its end");
    text
}

/// Warps of a layer's thread block, as kernels/linear.h has it.
fn linear_warps(rows: u32) -> u32 {
    if rows <= 2 { 16 } else { 8 }
}
/// Outputs of a thread block whose warps share none; with `split` to an output there are fewer.
const LINEAR_OUTPUTS: u32 = 32;
/// Most inputs of a layer with a norm.
pub const MOST_NORMED: u32 = 2048;
/// Positions that a thread block attends to.
pub const CHUNK: u32 = 128;
/// Most codes of a codebook.
pub const MOST_VOCAB: u32 = 4096;
const ATTEND_THREADS: u32 = 128;
const STEP_THREADS: u32 = 256;
/// Bytes of shared memory that a layer stages its inputs in.
const STAGE: u32 = 64 << 10;
/// Bytes of shared memory to an input of a layer with a norm besides: gain and offset.
const SCALES: u32 = 8;
/// Rows that there are kernels for.
pub const ROWS: [u32; 4] = [2, 4, 6, 8];
const SPLITS: [u32; 3] = [1, 2, 4];
/// Sizes of a head that there are kernels for.
pub const SIZES: [u32; 5] = [8, 16, 32, 64, 128];

/// Every kernel, loaded on one card.
pub struct Kernels {
    linear: [[Kernel; SPLITS.len()]; ROWS.len()],
    attend: [Kernel; SIZES.len()],
    embed: Kernel,
    inject: Kernel,
    sample: Kernel,
    probe: Kernel,
    /// Of the codec.
    pub codec: CodecKernels,
    multiprocessors: u32,
    /// Kernels know how to wait for the one before them.
    pub can_overlap: bool,
}

/// The image for a card.
fn image(context: &Context) -> Outcome<&'static [u8]> {
    if context.major < 8 {
        let (major, minor) = (context.major, context.minor);
        return Err(CudaError::OldDevice { name: context.name.clone(), major, minor });
    }
    #[cfg(feature = "kernels")]
    return Ok(match context.major {
        8 => PTX_80,
        9 => CODE_90,
        _ => PTX_90,
    });
    #[cfg(not(feature = "kernels"))]
    Err(CudaError::NoKernels)
}

impl Kernels {
    /// Loads what suits the card.
    pub fn load(context: &Context) -> Outcome<Self> {
        let image = image(context)?;
        context.enter()?;
        let module = Module::load(image)?;
        let plain = |name: &str| module.kernel(name, 0);
        let mut linear = Vec::new();
        for rows in ROWS {
            let own =
                SPLITS.map(|split| module.kernel(&format!("linear_{rows}_{split}"), STAGE + SCALES * MOST_NORMED));
            let [a, b, c] = own;
            linear.push([a?, b?, c?]);
        }
        let attend = SIZES.map(|size| plain(&format!("attend_{size}")));
        let [a, b, c, d, e] = attend;
        Ok(Self {
            linear: linear.try_into().unwrap_or_else(|_| unreachable!("as many as there are row counts")),
            attend: [a?, b?, c?, d?, e?],
            embed: plain("embed_codes")?,
            inject: plain("inject_rows")?,
            sample: plain("sample_codes")?,
            probe: plain("probe_memory")?,
            codec: CodecKernels::load(&module, context.multiprocessors)?,
            multiprocessors: context.multiprocessors,
            can_overlap: context.major >= 9,
        })
    }

    /// A layer for `rows` rows, one of [`ROWS`].
    ///
    /// # Safety
    /// What the arguments point to is as large as they say.
    pub unsafe fn linear(&self, stream: &Stream, rows: u32, argument: Linear, overlap: bool) -> Outcome<()> {
        let (inputs, outputs) = (argument.inputs as u32, argument.outputs as u32);
        let place = ROWS.iter().position(|one| *one == rows).unwrap_or(ROWS.len() - 1);
        let rows = ROWS[place];
        // Whole rounds of every split, so that chunks do not change the order of a sum.
        let most = STAGE / 4 / rows / 1024 * 1024;
        let chunk = inputs.min(most);
        let split = split_of(inputs, outputs, self.multiprocessors);
        let argument = Linear { chunk: chunk as i32, ..argument };
        let launch = Launch {
            grid: [outputs.div_ceil(LINEAR_OUTPUTS / SPLITS[split]), 1, 1],
            threads: 32 * linear_warps(rows),
            shared: rows * chunk * 4 + if argument.gain == 0 { 0 } else { SCALES * inputs },
            overlap,
        };
        // SAFETY: the kernel takes this structure; the rest is the caller's promise.
        unsafe { stream.launch(self.linear[place][split], launch, &argument) }
    }

    /// Attention of `rows` rows with heads of `size`; over a cache in chunks, over prompts in one thread block.
    ///
    /// # Safety
    /// As [`Kernels::linear`].
    pub unsafe fn attend(&self, stream: &Stream, rows: u32, size: u32, argument: Attend, overlap: bool) -> Outcome<()> {
        let place = SIZES.iter().position(|one| *one == size);
        let place = place.ok_or_else(|| CudaError::Shape { what: format!("heads of {size}") })?;
        let chunks = if argument.keys == 0 { 1 } else { argument.chunks as u32 };
        let launch =
            Launch { grid: [chunks, argument.heads as u32, rows], threads: ATTEND_THREADS, shared: 0, overlap };
        // SAFETY: as above.
        unsafe { stream.launch(self.attend[place], launch, &argument) }
    }

    /// Code embeddings of `rows` rows.
    ///
    /// # Safety
    /// As [`Kernels::linear`].
    pub unsafe fn embed(&self, stream: &Stream, rows: u32, argument: Embed) -> Outcome<()> {
        let grid = [(argument.width as u32).div_ceil(STEP_THREADS), rows, 1];
        // It follows a copy, which no kernel may overlap.
        let launch = Launch { grid, threads: STEP_THREADS, shared: 0, overlap: false };
        // SAFETY: as above.
        unsafe { stream.launch(self.embed, launch, &argument) }
    }

    /// Pushes and taps of `rows` rows.
    ///
    /// # Safety
    /// As [`Kernels::linear`].
    pub unsafe fn inject(&self, stream: &Stream, rows: u32, argument: Inject, overlap: bool) -> Outcome<()> {
        let launch = Launch { grid: [rows, 1, 1], threads: STEP_THREADS, shared: 0, overlap };
        // SAFETY: as above.
        unsafe { stream.launch(self.inject, launch, &argument) }
    }

    /// Draws the codes of `draws` pairs of rows.
    ///
    /// # Safety
    /// As [`Kernels::linear`].
    pub unsafe fn sample(&self, stream: &Stream, draws: u32, argument: Sample, overlap: bool) -> Outcome<()> {
        let launch = Launch { grid: [argument.codebooks as u32, draws, 1], threads: STEP_THREADS, shared: 0, overlap };
        // SAFETY: as above.
        unsafe { stream.launch(self.sample, launch, &argument) }
    }

    /// Reads memory.
    ///
    /// # Safety
    /// As [`Kernels::linear`].
    pub unsafe fn probe(&self, stream: &Stream, argument: Probe) -> Outcome<()> {
        let grid = [self.multiprocessors * 8, 1, 1];
        let launch = Launch { grid, threads: STEP_THREADS, shared: 0, overlap: false };
        // SAFETY: as above.
        unsafe { stream.launch(self.probe, launch, &argument) }
    }
}

/// The activation's number in the kernels is the engine's; checked where a model is opened.
pub const ACTIVATIONS: u32 = 4;

/// Which of [`SPLITS`] warps share an output: as few as give every processor of the card a thread block. More thread blocks than
/// that stage their inputs over and over, or wait for others to end. It does not depend on the rows, since sums are added in an
/// order that does depend on it.
fn split_of(inputs: u32, outputs: u32, multiprocessors: u32) -> usize {
    let enough = |split: u32| outputs.div_ceil(LINEAR_OUTPUTS / split) >= multiprocessors;
    let wide = |split: u32| inputs >= split * 256;
    let mut place = 0;
    while place + 1 < SPLITS.len() && !enough(SPLITS[place]) && wide(SPLITS[place + 1]) {
        place += 1;
    }
    place
}

/// A layer's weight with what it reads and writes; the rest is set by whoever knows.
pub fn layer(weight: u64, input: u64, output: u64, inputs: usize, outputs: usize) -> Linear {
    let (inputs, outputs) = (inputs as i32, outputs as i32);
    Linear { weight, input, output, inputs, outputs, into: into::STORE, ..Linear::default() }
}

/// Kernels of a context, shared by the models on it.
pub type Shared = Arc<Kernels>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_gets_a_thread_block_where_a_layer_is_wide_enough() {
        // large on an H100: query, key and value; an output projection; the second feed-forward layer.
        assert_eq!(split_of(2048, 6144, 132), 0);
        assert_eq!(split_of(2048, 2048, 132), 2);
        assert_eq!(split_of(2048, 8192, 132), 0);
        assert_eq!(split_of(8192, 2048, 132), 2);
        // small's output projection has 1024 outputs: 4 warps to a group leave 128 thread blocks.
        assert_eq!(split_of(1024, 1024, 132), 2);
        // The demo's layers are too short to be shared.
        assert_eq!(split_of(256, 256, 132), 0);
        assert_eq!(split_of(1024, 256, 132), 2);
    }
}
