//! Transposed convolution as a stream: each phase of the output is an ordinary window over a few input rows, so that
//! nothing is overlap-added and the bits do not depend on the hop. Trimmed as transformers' `EncodecConvTranspose1d`. Runner thread.

use crate::kernel::{Linear, activation};
use crate::pool::Pool;

/// One transposed convolution behind an ELU, immutable.
pub(super) struct Upsample {
    /// `[stride * outputs][taps * inputs]`: one input row gives `stride` output rows.
    linear: Linear,
    inputs: usize,
    outputs: usize,
    stride: usize,
    taps: usize,
    trim_left: usize,
}

/// Left context of one stream through one [`Upsample`].
pub(super) struct UpsampleState {
    /// `taps - 1` earlier rows, then the rows of this push.
    data: Vec<f32>,
    seen: usize,
    /// Output rows computed, those that the trim at the start removes included.
    computed: usize,
    /// Output rows given out.
    made: usize,
}

/// PyTorch's `[inputs][outputs][kernel]` as `[stride][outputs][taps][inputs]`, a window over the newest `taps` input rows for each
/// phase of the output, the oldest row first.
pub(crate) fn window(weight: &[f32], (inputs, outputs): (usize, usize), (kernel, stride): (usize, usize)) -> Vec<f32> {
    let taps = kernel.div_ceil(stride);
    let width = taps * inputs;
    let mut window = vec![0.0; stride * outputs * width];
    for phase in 0..stride {
        for tap in 0..taps {
            // The oldest row of the window reaches this phase with the last taps of the kernel.
            let j = phase + stride * (taps - 1 - tap);
            if j >= kernel {
                continue;
            }
            for o in 0..outputs {
                let row = &mut window[(phase * outputs + o) * width + tap * inputs..][..inputs];
                for (c, w) in row.iter_mut().enumerate() {
                    *w = weight[(c * outputs + o) * kernel + j];
                }
            }
        }
    }
    window
}

impl Upsample {
    /// `weight` is PyTorch's `[inputs][outputs][kernel]`; `trim_left` of the `kernel - stride` surplus rows go at the start.
    pub(super) fn new(
        weight: &[f32],
        bias: Option<&[f32]>,
        (inputs, outputs): (usize, usize),
        (kernel, stride): (usize, usize),
        trim_left: usize,
    ) -> Self {
        let taps = kernel.div_ceil(stride);
        let window = window(weight, (inputs, outputs), (kernel, stride));
        let bias: Option<Vec<f32>> = bias.map(|b| b.repeat(stride));
        let linear = Linear::new(&window, bias.as_deref(), stride * outputs, taps * inputs);
        Self { linear, inputs, outputs, stride, taps, trim_left }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Output rows that `seen` input rows determine before the end of the stream is known.
    pub(super) fn rows_ready(&self, seen: usize) -> usize {
        (seen * self.stride).saturating_sub(self.trim_left)
    }

    /// Most output rows that one push of `rows` computes, the end of the stream included.
    pub(super) fn most_rows_out(&self, rows: usize) -> usize {
        (rows + self.taps) * self.stride
    }

    /// An empty stream for pushes of at most `rows` rows.
    pub(super) fn state(&self, rows: usize) -> UpsampleState {
        let data = vec![0.0; (rows + 2 * self.taps) * self.inputs];
        UpsampleState { data, seen: 0, computed: 0, made: 0 }
    }

    /// Back to the start of a stream.
    pub(super) fn reset(&self, state: &mut UpsampleState) {
        state.data.fill(0.0);
        state.seen = 0;
        state.computed = 0;
        state.made = 0;
    }

    /// Takes `rows` time-major rows, writes every newly determined output row to `out`, and gives their number.
    /// `last` says that the stream ends here.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub(super) fn push(
        &self,
        state: &mut UpsampleState,
        input: &[f32],
        rows: usize,
        last: bool,
        out: &mut [f32],
        pool: &Pool,
    ) -> usize {
        let history = (self.taps - 1) * self.inputs;
        let fresh = &mut state.data[history..history + rows * self.inputs];
        fresh.copy_from_slice(&input[..rows * self.inputs]);
        activation::elu(fresh);
        state.seen += rows;
        let mut windows = rows;
        if last && state.seen > 0 {
            let end = history + rows * self.inputs;
            state.data[end..end + history].fill(0.0);
            windows += self.taps - 1;
        }
        let block = self.stride * self.outputs;
        self.linear.forward_on(pool, &state.data, self.inputs, windows, out, block);
        state.data.copy_within(windows * self.inputs..windows * self.inputs + history, 0);

        let mut count = windows * self.stride;
        let skip = self.trim_left.saturating_sub(state.computed).min(count);
        state.computed += count;
        count -= skip;
        if skip > 0 {
            out.copy_within(skip * self.outputs..(skip + count) * self.outputs, 0);
        }
        if last {
            count = count.min(state.seen * self.stride - state.made);
        }
        state.made += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_chunking_equals_the_textbook_overlap_add() {
        let (inputs, outputs) = (3, 2);
        for (kernel, stride, trim_left) in [(8, 4, 2), (10, 5, 3), (6, 3, 0), (4, 2, 2), (7, 2, 4)] {
            let weight: Vec<f32> = (0..inputs * outputs * kernel).map(|i| ((i * i + 3 * i) % 9) as f32 - 4.0).collect();
            let bias = [1.0, -2.0];
            let layer = Upsample::new(&weight, Some(&bias), (inputs, outputs), (kernel, stride), trim_left);
            for rows in [1, 2, 9] {
                // Positive samples: the ELU before the layer leaves them as they are.
                let x: Vec<f32> = (0..rows * inputs).map(|i| ((i * 5) % 7) as f32 + 1.0).collect();
                let mut full = bias.repeat((rows - 1) * stride + kernel);
                for t in 0..rows {
                    for c in 0..inputs {
                        for o in 0..outputs {
                            for j in 0..kernel {
                                full[(t * stride + j) * outputs + o] +=
                                    x[t * inputs + c] * weight[(c * outputs + o) * kernel + j];
                            }
                        }
                    }
                }
                let want = &full[trim_left * outputs..(trim_left + rows * stride) * outputs];
                for chunk in [1, 2, 9] {
                    let mut state = layer.state(chunk);
                    let mut out = vec![f32::NAN; layer.most_rows_out(chunk) * outputs];
                    let (mut got, mut seen) = (Vec::new(), 0);
                    for piece in x.chunks(chunk * inputs) {
                        seen += piece.len() / inputs;
                        let count =
                            layer.push(&mut state, piece, piece.len() / inputs, seen == rows, &mut out, &Pool::new(1));
                        if seen < rows {
                            assert_eq!(got.len() / outputs + count, layer.rows_ready(seen));
                        }
                        got.extend_from_slice(&out[..count * outputs]);
                    }
                    assert_eq!(got, want, "kernel {kernel} stride {stride} rows {rows} chunk {chunk}");
                }
            }
        }
    }
}
