//! How the codec's kernels are launched. Loader thread, while a graph is captured.

use crate::abi::{Operation, operation};
use crate::driver::{Kernel, Launch, Module, Outcome, Stream};
use crate::layout::{Latent, Recur, Window};

/// As kernels/codec.h has it.
const WINDOW_THREADS: u32 = 128;
/// Outputs of a thread block.
const OUTPUTS: u32 = 8;
const RECUR_THREADS: u32 = 256;
const UNITS: u32 = 4;
const LATENT_THREADS: u32 = 256;
/// Rows that there are kernels for.
const ROWS: [u32; 4] = [1, 2, 4, 8];
/// Bytes of shared memory that inputs are staged in.
pub const MOST_SHARED: u32 = 64 << 10;
/// Bytes of its weights that a thread block asks for before its input is ready.
pub const PREFETCH: i32 = 64 << 10;

/// The codec's kernels, loaded on one card.
pub struct CodecKernels {
    window: [Kernel; ROWS.len()],
    recur: Kernel,
    latent: Kernel,
    multiprocessors: u32,
}

/// Bytes that an operation stages for so many rows.
pub fn shared(facts: &Operation, rows: u32) -> u32 {
    match facts.kind {
        operation::LSTM => 8 * facts.inputs,
        _ => (rows + (facts.kernel - 1) * facts.dilation) * facts.inputs * 4,
    }
}

/// Which of [`ROWS`] share a pass over the weights: as many as leave every processor of the card something to do.
fn together(facts: &Operation, most: u32, multiprocessors: u32) -> usize {
    let blocks = |rows: u32| facts.outputs.div_ceil(OUTPUTS) * facts.phases * most.div_ceil(rows);
    let suits =
        |rows: u32| shared(facts, rows) <= MOST_SHARED && rows < 2 * most && blocks(rows) * 4 >= multiprocessors * 3;
    ROWS.iter().rposition(|rows| suits(*rows)).unwrap_or(0)
}

impl CodecKernels {
    pub fn load(module: &Module, multiprocessors: u32) -> Outcome<Self> {
        let [a, b, c, d] = ROWS.map(|rows| module.kernel(&format!("window_{rows}"), MOST_SHARED));
        Ok(Self {
            window: [a?, b?, c?, d?],
            recur: module.kernel("recur_lstm", MOST_SHARED)?,
            latent: module.kernel("sum_codes", 0)?,
            multiprocessors,
        })
    }

    /// A frame's latent.
    ///
    /// # Safety
    /// What the arguments point to is as large as they say.
    pub unsafe fn latent(&self, stream: &Stream, argument: Latent) -> Outcome<()> {
        let grid = [(argument.width as u32).div_ceil(LATENT_THREADS), 1, 1];
        // It follows a copy, which no kernel may overlap.
        let launch = Launch { grid, threads: LATENT_THREADS, shared: 0, overlap: false };
        // SAFETY: the kernel takes this structure; the rest is the caller's promise.
        unsafe { stream.launch(self.latent, launch, &argument) }
    }

    /// A convolution of either kind that makes at most `most` rows.
    ///
    /// # Safety
    /// As [`CodecKernels::latent`].
    pub unsafe fn window(
        &self,
        stream: &Stream,
        facts: &Operation,
        most: usize,
        argument: Window,
        overlap: bool,
    ) -> Outcome<()> {
        let most = (most as u32).div_ceil(facts.phases);
        let place = together(facts, most, self.multiprocessors);
        let rows = ROWS[place];
        let launch = Launch {
            grid: [facts.outputs.div_ceil(OUTPUTS), most.div_ceil(rows), facts.phases],
            threads: WINDOW_THREADS,
            shared: shared(facts, rows),
            overlap,
        };
        // SAFETY: as above.
        unsafe { stream.launch(self.window[place], launch, &argument) }
    }

    /// One row of one layer of an LSTM.
    ///
    /// # Safety
    /// As [`CodecKernels::latent`].
    pub unsafe fn recur(&self, stream: &Stream, facts: &Operation, argument: Recur, overlap: bool) -> Outcome<()> {
        let grid = [facts.outputs.div_ceil(UNITS), 1, 1];
        let launch = Launch { grid, threads: RECUR_THREADS, shared: shared(facts, 1), overlap };
        // SAFETY: as above.
        unsafe { stream.launch(self.recur, launch, &argument) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_layers_fill_an_h100() {
        let facts = |inputs, outputs, kernel, phases| Operation {
            kind: if phases > 1 { operation::TRANSPOSED } else { operation::CONVOLUTION },
            inputs,
            outputs,
            kernel,
            phases,
            dilation: 1,
            ..Operation::default()
        };
        // First convolution, first upsampler, a residual block's two halves, the second upsampler, the last convolution.
        for (facts, most, rows) in [
            (facts(128, 1024, 7, 1), 1, 1),
            (facts(1024, 512, 2, 8), 1, 1),
            (facts(512, 256, 3, 1), 8, 2),
            (facts(256, 512, 1, 1), 8, 4),
            (facts(512, 256, 2, 5), 8, 8),
            (facts(64, 1, 7, 1), 640, 4),
        ] {
            assert_eq!(ROWS[together(&facts, most, 132)], rows, "{facts:?}");
        }
    }
}
