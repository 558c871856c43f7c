//! Stacked LSTM with a residual add, its state carried from push to push. Runner thread. Gate order i, f, g, o (PyTorch).

use crate::kernel::{Linear, activation};
use crate::pool::Pool;

/// One layer's weights: gates of width `4 * hidden` from the input and from the last output.
pub(super) struct LstmLayer {
    input: Linear,
    recurrent: Linear,
}

impl LstmLayer {
    /// `w_ih` and `w_hh` are `[4 * hidden][hidden]`; PyTorch's two biases arrive summed.
    pub(super) fn new(w_ih: &[f32], w_hh: &[f32], bias: &[f32], hidden: usize) -> Self {
        Self {
            input: Linear::new(w_ih, Some(bias), 4 * hidden, hidden),
            recurrent: Linear::new(w_hh, None, 4 * hidden, hidden),
        }
    }
}

/// All layers of one EnCodec LSTM, immutable.
pub(super) struct Lstm {
    layers: Vec<LstmLayer>,
    hidden: usize,
}

/// Hidden and cell state of one stream, and the gates of one push.
pub(super) struct LstmState {
    /// `[layers][hidden]` each.
    output: Vec<f32>,
    cell: Vec<f32>,
    /// `[rows][4 * hidden]`.
    gates: Vec<f32>,
}

impl Lstm {
    pub(super) fn new(layers: Vec<LstmLayer>, hidden: usize) -> Self {
        Self { layers, hidden }
    }

    pub(super) fn width(&self) -> usize {
        self.hidden
    }

    /// A stream at rest for pushes of at most `rows` rows.
    pub(super) fn state(&self, rows: usize) -> LstmState {
        let size = self.layers.len() * self.hidden;
        LstmState { output: vec![0.0; size], cell: vec![0.0; size], gates: vec![0.0; rows * 4 * self.hidden] }
    }

    /// Back to the start of a stream.
    pub(super) fn reset(&self, state: &mut LstmState) {
        state.output.fill(0.0);
        state.cell.fill(0.0);
    }

    /// `out = lstm(input) + input` for `rows` time-major rows; gives `rows`.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub(super) fn push(
        &self,
        state: &mut LstmState,
        input: &[f32],
        rows: usize,
        out: &mut [f32],
        pool: &Pool,
    ) -> usize {
        let hidden = self.hidden;
        let out = &mut out[..rows * hidden];
        out.copy_from_slice(&input[..rows * hidden]);
        for (index, layer) in self.layers.iter().enumerate() {
            // The input's share of the gates is known for all rows: one pass over those weights.
            layer.input.forward_on(pool, out, hidden, rows, &mut state.gates, 4 * hidden);
            let h = &mut state.output[index * hidden..][..hidden];
            let c = &mut state.cell[index * hidden..][..hidden];
            for (gates, out) in state.gates.chunks_exact_mut(4 * hidden).zip(out.chunks_exact_mut(hidden)) {
                layer.recurrent.forward_add_on(pool, h, hidden, 1, gates, 4 * hidden);
                let (sigmoids, output_gate) = gates.split_at_mut(3 * hidden);
                let (input_forget, candidate) = sigmoids.split_at_mut(2 * hidden);
                activation::sigmoid(input_forget);
                activation::tanh(candidate);
                activation::sigmoid(output_gate);
                for i in 0..hidden {
                    c[i] = input_forget[hidden + i] * c[i] + input_forget[i] * candidate[i];
                    h[i] = c[i];
                }
                activation::tanh(h);
                for i in 0..hidden {
                    h[i] *= output_gate[i];
                }
                out.copy_from_slice(h);
            }
        }
        for (y, x) in out.iter_mut().zip(input) {
            *y += x;
        }
        rows
    }
}
