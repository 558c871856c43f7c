//! SEANet's residual block as a stream: ELU, convolution, ELU, pointwise convolution, plus the input in step. Runner thread.

use super::conv::{Conv, ConvState};
use crate::kernel::{Linear, activation};
use crate::pool::Pool;

/// One residual block, immutable.
pub(super) struct Residual {
    conv: Conv,
    pointwise: Linear,
    /// A learned kernel-1 shortcut; without one the input itself is added.
    shortcut: Option<Linear>,
}

/// State of one stream through one [`Residual`].
pub(super) struct ResidualState {
    conv: ConvState,
    /// Input rows whose convolution waits for right context.
    skip: Vec<f32>,
    skip_rows: usize,
    hidden: Vec<f32>,
}

impl Residual {
    pub(super) fn new(conv: Conv, pointwise: Linear, shortcut: Option<Linear>) -> Self {
        Self { conv, pointwise, shortcut }
    }

    pub(super) fn inputs(&self) -> usize {
        self.conv.inputs()
    }

    pub(super) fn outputs(&self) -> usize {
        self.pointwise.outputs()
    }

    /// Output rows that `seen` input rows determine before the end of the stream is known.
    pub(super) fn rows_ready(&self, seen: usize) -> usize {
        self.conv.rows_ready(seen)
    }

    /// Most output rows that one push of `rows` can give, the end of the stream included.
    pub(super) fn most_rows_out(&self, rows: usize) -> usize {
        self.conv.most_rows_out(rows)
    }

    /// An empty stream for pushes of at most `rows` rows.
    pub(super) fn state(&self, rows: usize) -> ResidualState {
        ResidualState {
            conv: self.conv.state(rows),
            skip: vec![0.0; (rows + 2 * self.conv.most_rows_kept()) * self.inputs()],
            skip_rows: 0,
            hidden: vec![0.0; self.conv.most_rows_out(rows) * self.conv.outputs()],
        }
    }

    /// Back to the start of a stream.
    pub(super) fn reset(&self, state: &mut ResidualState) {
        self.conv.reset(&mut state.conv);
        state.skip_rows = 0;
    }

    /// Takes `rows` time-major rows, writes every newly determined output row to `out`, and gives their number.
    /// `last` says that the stream ends here.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub(super) fn push(
        &self,
        state: &mut ResidualState,
        input: &[f32],
        rows: usize,
        last: bool,
        out: &mut [f32],
        pool: &Pool,
    ) -> usize {
        let (width, hidden_width) = (self.inputs(), self.conv.outputs());
        let end = state.skip_rows * width;
        state.skip[end..end + rows * width].copy_from_slice(&input[..rows * width]);
        state.skip_rows += rows;

        let count = self.conv.push(&mut state.conv, input, rows, last, &mut state.hidden, pool);
        let hidden = &mut state.hidden[..count * hidden_width];
        activation::elu(hidden);
        self.pointwise.forward_on(pool, hidden, hidden_width, count, out, width);
        match &self.shortcut {
            Some(shortcut) => shortcut.forward_add_on(pool, &state.skip, width, count, out, width),
            None => {
                for (y, x) in out[..count * width].iter_mut().zip(&state.skip) {
                    *y += x;
                }
            }
        }
        state.skip.copy_within(count * width..state.skip_rows * width, 0);
        state.skip_rows -= count;
        count
    }
}
