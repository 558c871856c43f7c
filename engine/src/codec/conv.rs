//! Strided, dilated, padded convolution as a stream, through the `Linear` kernel on time-major data. Runner thread.
//! Padding follows transformers' `EncodecConv1d`, the reflection at both ends of the stream included.

use crate::kernel::{Linear, activation};
use crate::pool::Pool;

/// Rows gathered at a time where dilation keeps a window from being contiguous.
const GATHER_ROWS: usize = 32;

/// What lies beyond both ends of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PadMode {
    Reflect,
    Zero,
}

/// Size of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
}

impl ConvShape {
    fn span(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Rows of padding before the first and behind the last one.
    pub(crate) fn padding(&self, causal: bool) -> (usize, usize) {
        let total = self.span().saturating_sub(self.stride);
        let right = if causal { 0 } else { total / 2 };
        (total - right, right)
    }

    /// PyTorch's `[outputs][inputs][kernel]` as `[outputs][kernel][inputs]`: the window of one output is then a contiguous run
    /// of time-major rows.
    pub(crate) fn window(&self, weight: &[f32]) -> Vec<f32> {
        let Self { inputs, outputs, kernel, .. } = *self;
        let mut window = vec![0.0; weight.len()];
        for o in 0..outputs {
            for c in 0..inputs {
                for j in 0..kernel {
                    window[(o * kernel + j) * inputs + c] = weight[(o * inputs + c) * kernel + j];
                }
            }
        }
        window
    }
}

/// One convolution, immutable. `elu` says that its input passes an ELU first.
pub(super) struct Conv {
    linear: Linear,
    shape: ConvShape,
    pad_left: usize,
    pad_right: usize,
    mode: PadMode,
    elu: bool,
}

/// Left context of one stream through one [`Conv`].
pub(super) struct ConvState {
    /// Rows `[base, base + rows)` of the padded input; the first `pad_left` padded rows precede the stream.
    data: Vec<f32>,
    base: usize,
    rows: usize,
    seen: usize,
    made: usize,
    left_filled: bool,
    gather: Vec<f32>,
}

impl Conv {
    /// `weight` is PyTorch's `[outputs][inputs][kernel]`; the kernel must span at least one stride.
    pub(super) fn new(
        weight: &[f32],
        bias: Option<&[f32]>,
        shape: ConvShape,
        causal: bool,
        mode: PadMode,
        elu: bool,
    ) -> Self {
        let linear = Linear::new(&shape.window(weight), bias, shape.outputs, shape.kernel * shape.inputs);
        let (pad_left, pad_right) = shape.padding(causal);
        Self { linear, shape, pad_left, pad_right, mode, elu }
    }

    pub(super) fn inputs(&self) -> usize {
        self.shape.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.shape.outputs
    }

    /// Output rows that `seen` input rows determine before the end of the stream is known.
    pub(super) fn rows_ready(&self, seen: usize) -> usize {
        if seen == 0 || (self.mode == PadMode::Reflect && seen <= self.pad_left) {
            return 0; // the reflection at the start is not known yet
        }
        let padded = seen + self.pad_left;
        if padded < self.shape.span() { 0 } else { (padded - self.shape.span()) / self.shape.stride + 1 }
    }

    /// Most output rows that one push of `rows` can give, the end of the stream included.
    pub(super) fn most_rows_out(&self, rows: usize) -> usize {
        (rows + self.shape.span()) / self.shape.stride + 2
    }

    /// Input rows that may wait inside for their right context.
    pub(super) fn most_rows_kept(&self) -> usize {
        self.shape.span() + self.shape.stride
    }

    /// An empty stream for pushes of at most `rows` rows.
    pub(super) fn state(&self, rows: usize) -> ConvState {
        let capacity = rows + 4 * (self.shape.span() + self.shape.stride);
        let gathered = if self.shape.dilation > 1 { GATHER_ROWS * self.linear.inputs() } else { 0 };
        let mut state = ConvState {
            data: vec![0.0; capacity * self.shape.inputs],
            base: 0,
            rows: 0,
            seen: 0,
            made: 0,
            left_filled: false,
            gather: vec![0.0; gathered],
        };
        self.reset(&mut state);
        state
    }

    /// Back to the start of a stream.
    pub(super) fn reset(&self, state: &mut ConvState) {
        state.data[..self.pad_left * self.shape.inputs].fill(0.0);
        state.base = 0;
        state.rows = self.pad_left;
        state.seen = 0;
        state.made = 0;
        state.left_filled = self.pad_left == 0 || self.mode == PadMode::Zero;
    }

    /// Takes `rows` time-major rows, writes every newly determined output row to `out`, and gives their number.
    /// `last` says that the stream ends here.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub(super) fn push(
        &self,
        state: &mut ConvState,
        input: &[f32],
        rows: usize,
        last: bool,
        out: &mut [f32],
        pool: &Pool,
    ) -> usize {
        let channels = self.shape.inputs;
        self.drop_used(state);
        let end = state.rows * channels;
        let fresh = &mut state.data[end..end + rows * channels];
        fresh.copy_from_slice(&input[..rows * channels]);
        if self.elu {
            activation::elu(fresh);
        }
        state.rows += rows;
        state.seen += rows;
        if !state.left_filled && state.seen > self.pad_left {
            self.reflect_left(state);
        }
        let mut ready = self.rows_ready(state.seen);
        if last && state.seen > 0 {
            ready = state.seen.div_ceil(self.shape.stride);
            self.pad_end(state);
        }
        let count = ready - state.made;
        self.convolve(state, count, out, pool);
        state.made = ready;
        count
    }

    /// Forgets rows that neither a later window nor the reflection at the end can reach.
    fn drop_used(&self, state: &mut ConvState) {
        if !state.left_filled {
            return;
        }
        let reflected = (state.seen + self.pad_left).saturating_sub(1 + self.pad_right + self.shape.stride);
        let keep = (state.made * self.shape.stride).min(reflected).max(state.base);
        let drop = keep - state.base;
        if drop > 0 {
            let channels = self.shape.inputs;
            state.data.copy_within(drop * channels..state.rows * channels, 0);
            state.rows -= drop;
            state.base = keep;
        }
    }

    /// Fills the rows before the stream by reflection; what is not there (a very short stream) counts as zero.
    fn reflect_left(&self, state: &mut ConvState) {
        let channels = self.shape.inputs;
        for i in 1..=self.pad_left {
            let target = (self.pad_left - i) * channels;
            if i < state.seen {
                let source = (self.pad_left + i) * channels;
                state.data.copy_within(source..source + channels, target);
            } else {
                state.data[target..target + channels].fill(0.0);
            }
        }
        state.left_filled = true;
    }

    /// Appends the padding at the end: the right share, and what fills the last stride.
    fn pad_end(&self, state: &mut ConvState) {
        let (channels, seen) = (self.shape.inputs, state.seen);
        let right = self.pad_right + seen.next_multiple_of(self.shape.stride) - seen;
        let most = self.pad_left.max(right);
        // A sequence no longer than its padding is first continued with zeros, reflected, then cut again.
        let length = if seen <= most { most + 1 } else { seen };
        if !state.left_filled {
            self.reflect_left(state);
        }
        for position in seen..seen + right {
            let target = state.rows * channels;
            let source = if position < length { position } else { 2 * (length - 1) - position };
            if self.mode == PadMode::Reflect && source < seen {
                let at = (source + self.pad_left - state.base) * channels;
                state.data.copy_within(at..at + channels, target);
            } else {
                state.data[target..target + channels].fill(0.0);
            }
            state.rows += 1;
        }
    }

    /// The next `count` outputs from the window.
    fn convolve(&self, state: &mut ConvState, count: usize, out: &mut [f32], pool: &Pool) {
        let ConvShape { inputs: channels, outputs, kernel, stride, dilation } = self.shape;
        if count == 0 {
            return;
        }
        let first = state.made * stride - state.base;
        if dilation == 1 {
            self.linear.forward_on(pool, &state.data[first * channels..], stride * channels, count, out, outputs);
            return;
        }
        let width = kernel * channels;
        let mut done = 0;
        while done < count {
            let rows = (count - done).min(GATHER_ROWS);
            for r in 0..rows {
                for j in 0..kernel {
                    let from = (first + (done + r) * stride + j * dilation) * channels;
                    let to = r * width + j * channels;
                    state.gather[to..to + channels].copy_from_slice(&state.data[from..from + channels]);
                }
            }
            self.linear.forward_on(pool, &state.gather, width, rows, &mut out[done * outputs..], outputs);
            done += rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights and samples that are exact in f32, so that sums may be compared for equality.
    fn whole_numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7 + seed * 13 + i * i) % 11) as f32 - 5.0).collect()
    }

    /// The textbook sum over an explicitly padded sequence.
    fn naive(x: &[f32], weight: &[f32], shape: ConvShape, left: usize, right: usize) -> Vec<f32> {
        let rows = x.len() / shape.inputs;
        let at = |position: isize, c: usize| {
            let last = rows as isize - 1;
            let folded = if position < 0 { -position } else { position };
            let folded = if folded > last { 2 * last - folded } else { folded };
            x[folded as usize * shape.inputs + c]
        };
        let padded = rows + left + right;
        let mut out = Vec::new();
        let mut start = 0;
        while start + shape.span() <= padded {
            for o in 0..shape.outputs {
                let mut sum = 0.0;
                for c in 0..shape.inputs {
                    for j in 0..shape.kernel {
                        let position = (start + j * shape.dilation) as isize - left as isize;
                        sum += weight[(o * shape.inputs + c) * shape.kernel + j] * at(position, c);
                    }
                }
                out.push(sum);
            }
            start += shape.stride;
        }
        out
    }

    #[test]
    fn any_chunking_equals_the_textbook_convolution() {
        for (kernel, stride, dilation) in [(7, 1, 1), (3, 1, 3), (8, 4, 1), (10, 5, 1), (1, 1, 1), (4, 1, 2)] {
            for causal in [false, true] {
                let shape = ConvShape { inputs: 3, outputs: 2, kernel, stride, dilation };
                let weight = whole_numbers(2 * 3 * kernel, 1);
                let conv = Conv::new(&weight, None, shape, causal, PadMode::Reflect, false);
                for rows in [20, 21, 22, 23, 64] {
                    let x = whole_numbers(rows * 3, rows);
                    let right = conv.pad_right + rows.next_multiple_of(stride) - rows;
                    let want = naive(&x, &weight, shape, conv.pad_left, right);
                    for chunk in [1, 2, 7, 64] {
                        let mut state = conv.state(chunk);
                        let (mut got, mut seen) = (Vec::new(), 0);
                        let mut out = vec![f32::NAN; conv.most_rows_out(chunk) * 2];
                        for piece in x.chunks(chunk * 3) {
                            seen += piece.len() / 3;
                            let count =
                                conv.push(&mut state, piece, piece.len() / 3, seen == rows, &mut out, &Pool::new(1));
                            got.extend_from_slice(&out[..count * 2]);
                        }
                        assert_eq!(
                            got, want,
                            "kernel {kernel} stride {stride} dilation {dilation} rows {rows} chunk {chunk}"
                        );
                    }
                }
            }
        }
    }
}
