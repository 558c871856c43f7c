//! A linear layer at the precision that it was packed in, its outputs split over a pool. Any thread; immutable after
//! construction. Bits depend neither on the number of threads nor on the rows beside a row.

use std::ops::Range;

use parking_lot::Mutex;

use super::activations::Activations;
use super::columns::Columns;
use super::dots::DotPath;
use super::int4::Int4Linear;
use super::int8::Int8Linear;
use super::lanes::Path;
use super::linear::Linear;
use super::rounding::{Feedback, Moments};
use crate::pool::Pool;
use crate::precision::Precision;

/// Weights below this size are read by the calling thread alone: waking another one costs more.
const ALONE_BYTES: usize = 128 << 10;

/// Parts for each thread: enough that one which is taken off its core leaves its share to the others, and that what the last
/// to finish still does is short.
const PARTS: usize = 8;

/// `y = x W^T` without a bias, as in MusicGen's decoder.
pub enum Layer {
    /// Products in f32, weights in 32 or 16 bits.
    Float(Linear),
    /// Weights in 8 bits, inputs in 16.
    Int8(Int8Linear),
    /// Weights in 4 bits, inputs in 8.
    Int4(Int4Linear),
    /// Two of them, while a checkpoint is being loaded.
    Checked(Box<Checked>),
}

/// An exact layer, and its stand-in once it has one. What it gives is exact; it learns what its inputs are, and then how far
/// the stand-in is from exact. Loader thread.
pub struct Checked {
    exact: Layer,
    other: Option<Layer>,
    moments: Mutex<Moments>,
    /// Sum of the squared differences, and of the squared exact outputs.
    squares: Mutex<[f64; 2]>,
}

impl Checked {
    /// Without a stand-in.
    pub fn new(exact: Layer) -> Self {
        let moments = Mutex::new(Moments::new(exact.inputs()));
        Self { exact, other: None, moments, squares: Mutex::new([0.0; 2]) }
    }

    /// What it has met so far.
    pub fn moments(&mut self) -> &Moments {
        self.moments.get_mut()
    }

    /// What it makes of the mean of its inputs.
    pub fn mean_outputs(&mut self, pool: &Pool) -> Vec<f32> {
        let means = self.moments.get_mut().means();
        let mut outputs = vec![0.0; self.exact.outputs()];
        self.exact.forward(&means, 1, &mut Activations::new(1, means.len()), &mut outputs, pool, &|_| ());
        outputs
    }

    /// From now on the stand-in, of the same shape, is looked at.
    pub fn set(&mut self, other: Layer) {
        self.other = Some(other);
    }

    /// The exact layer, the stand-in, and the norm of the stand-in's error over that of the exact outputs.
    pub fn into_parts(self) -> (Layer, Option<Layer>, f64) {
        let [error, norm] = self.squares.into_inner();
        (self.exact, self.other, (error / norm.max(f64::MIN_POSITIVE)).sqrt())
    }

    fn run<const ADD: bool>(
        &self,
        x: &[f32],
        rows: usize,
        work: &mut Activations,
        y: &mut [f32],
        pool: &Pool,
        after: After<'_>,
    ) {
        let count = rows * self.exact.outputs();
        let mut exact = vec![0.0; count];
        self.exact.forward(x, rows, work, &mut exact, pool, &|_| ());
        match &self.other {
            None => self.moments.lock().add(&x[..rows * self.exact.inputs()]),
            Some(stand_in) => {
                let mut other = vec![0.0; count];
                stand_in.forward(x, rows, work, &mut other, pool, &|_| ());
                let square = |x: f32| f64::from(x) * f64::from(x);
                let error: f64 = exact.iter().zip(&other).map(|(a, b)| square(a - b)).sum();
                let norm: f64 = exact.iter().map(|a| square(*a)).sum();
                let mut squares = self.squares.lock();
                *squares = [squares[0] + error, squares[1] + norm];
            }
        }
        for (y, exact) in y.iter_mut().zip(exact) {
            *y = if ADD { *y + exact } else { exact };
        }
        after(&mut y[..count]);
    }
}

/// What happens to fresh outputs, in place, while they are at hand.
pub type After<'a> = &'a (dyn Fn(&mut [f32]) + Sync);

impl Layer {
    /// No inputs, no outputs.
    pub const EMPTY: Self = Self::Float(Linear::EMPTY);

    /// The same weights rounded to bf16; those that are not f32 stay as they are.
    pub fn into_bf16(self) -> Self {
        match self {
            Self::Float(linear) => Self::Float(linear.into_bf16()),
            other => other,
        }
    }

    /// Packs a row-major `[outputs][inputs]` weight.
    ///
    /// # Panics
    /// When its length is not what the shape says.
    pub fn new(weight: &[f32], outputs: usize, inputs: usize, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::Float(Linear::new(weight, None, outputs, inputs)),
            Precision::Bf16 => Self::Float(Linear::new_bf16(weight, None, outputs, inputs)),
            Precision::Int8 => Self::Int8(Int8Linear::new(weight, None, outputs, inputs)),
            Precision::Int4 => Self::Int4(Int4Linear::new(weight, None, outputs, inputs)),
        }
    }

    /// As [`Layer::new`], rounded with what the layer's inputs are in view; the other precisions have no use for that.
    ///
    /// # Panics
    /// As [`Layer::new`], and when the feedback is that of fewer inputs.
    pub fn rounded(weight: &[f32], outputs: usize, inputs: usize, precision: Precision, feedback: &Feedback) -> Self {
        match precision {
            Precision::Int8 => Self::Int8(Int8Linear::rounded(weight, outputs, inputs, feedback)),
            Precision::Int4 => Self::Int4(Int4Linear::rounded(weight, outputs, inputs, feedback)),
            Precision::F32 | Precision::Bf16 => Self::new(weight, outputs, inputs, precision),
        }
    }

    /// What the order of packed weights in memory depends on, besides the shape.
    pub fn order() -> String {
        format!("{:?} {:?} {}", DotPath::detect(), Path::detect(), cfg!(target_endian = "little"))
    }

    /// A layer of this kind and shape to be filled; `None` for a kind that is not known.
    pub fn blank(kind: &str, outputs: usize, inputs: usize) -> Option<Self> {
        match kind {
            "int8" => Some(Self::Int8(Int8Linear::blank(outputs, inputs))),
            "int4" => Some(Self::Int4(Int4Linear::blank(outputs, inputs))),
            _ => Linear::blank(kind, outputs, inputs).map(Self::Float),
        }
    }

    /// Kind, and weights and scales as bytes; `None` while a checkpoint is being loaded.
    pub fn storage(&self) -> Option<(&'static str, [&[u8]; 2])> {
        Some(match self {
            Self::Float(linear) => {
                let (kind, weight) = linear.storage();
                (kind, [weight, &[]])
            }
            Self::Int8(linear) => ("int8", linear.storage()),
            Self::Int4(linear) => ("int4", linear.storage()),
            Self::Checked(_) => return None,
        })
    }

    /// Weights and scales as bytes, to be filled.
    pub fn storage_mut(&mut self) -> Option<[&mut [u8]; 2]> {
        Some(match self {
            Self::Float(linear) => [linear.storage_mut(), &mut []],
            Self::Int8(linear) => linear.storage_mut(),
            Self::Int4(linear) => linear.storage_mut(),
            Self::Checked(_) => return None,
        })
    }

    /// Width of one input row.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Float(linear) => linear.inputs(),
            Self::Int8(linear) => linear.inputs(),
            Self::Int4(linear) => linear.inputs(),
            Self::Checked(both) => both.exact.inputs(),
        }
    }

    /// Width of one output row.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Float(linear) => linear.outputs(),
            Self::Int8(linear) => linear.outputs(),
            Self::Int4(linear) => linear.outputs(),
            Self::Checked(both) => both.exact.outputs(),
        }
    }

    /// Bytes of weights and scales, all of which a call reads.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Float(linear) => linear.bytes(),
            Self::Int8(linear) => linear.bytes(),
            Self::Int4(linear) => linear.bytes(),
            Self::Checked(both) => both.exact.bytes(),
        }
    }

    /// Lets threads with nothing to do fetch what this layer reads first, before it is run and beside the job that comes before.
    pub fn expect(&self, pool: &Pool) {
        if let Some((_, [weights, _])) = self.storage() {
            pool.expect(weights, self.parts(pool));
        }
    }

    fn parts(&self, pool: &Pool) -> usize {
        match pool.active() {
            1 => 1,
            _ if self.bytes() < ALONE_BYTES => 1,
            threads => self.tiles().min(threads * PARTS),
        }
    }

    fn tiles(&self) -> usize {
        match self {
            Self::Float(linear) => linear.tiles(),
            Self::Int8(linear) => linear.tiles(),
            Self::Int4(linear) => linear.tiles(),
            Self::Checked(both) => both.exact.tiles(),
        }
    }

    fn columns(&self, tiles: Range<usize>) -> Range<usize> {
        match self {
            Self::Float(linear) => linear.columns(tiles),
            Self::Int8(linear) => linear.columns(tiles),
            Self::Int4(linear) => linear.columns(tiles),
            Self::Checked(both) => both.exact.columns(tiles),
        }
    }

    /// `y[r][n] = sum_k W[n][k] x[r][k]` for `rows` rows of `inputs` values side by side, then `after`.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// When `x`, `y` or the working memory is too short.
    pub fn forward(
        &self,
        x: &[f32],
        rows: usize,
        work: &mut Activations,
        y: &mut [f32],
        pool: &Pool,
        after: After<'_>,
    ) {
        self.run::<false>(x, rows, work, y, pool, after);
    }

    /// As [`Layer::forward`], but adds to what `y` holds.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// As [`Layer::forward`].
    pub fn forward_add(&self, x: &[f32], rows: usize, work: &mut Activations, y: &mut [f32], pool: &Pool) {
        self.run::<true>(x, rows, work, y, pool, &|_| ());
    }

    fn run<const ADD: bool>(
        &self,
        x: &[f32],
        rows: usize,
        work: &mut Activations,
        y: &mut [f32],
        pool: &Pool,
        after: After<'_>,
    ) {
        if rows == 0 {
            return;
        }
        if let Self::Checked(both) = self {
            return both.run::<ADD>(x, rows, work, y, pool, after);
        }
        let (inputs, outputs, tiles) = (self.inputs(), self.outputs(), self.tiles());
        if !matches!(self, Self::Float(_)) {
            work.quantise(x, inputs, rows, inputs);
        }
        let work = &*work;
        let columns = Columns::new(y, outputs);
        let parts = self.parts(pool);
        pool.run(parts, &|_, part| {
            let tiles = part * tiles / parts..(part + 1) * tiles / parts;
            // SAFETY: each part has tiles, and so columns, of its own.
            unsafe {
                match self {
                    Self::Float(linear) => {
                        linear.forward_tiles::<ADD>(x, inputs, rows, tiles.clone(), &columns);
                    }
                    Self::Int8(linear) => linear.forward::<ADD>(work, rows, tiles.clone(), &columns),
                    Self::Int4(linear) => linear.forward::<ADD>(work, rows, tiles.clone(), &columns),
                    Self::Checked(_) => {}
                }
                for row in 0..rows {
                    after(columns.row(row, self.columns(tiles.clone())));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::quantised::tests::noise;
    use super::*;

    /// Half of what comes out, so that a part that is left out or done twice shows.
    fn halve(fresh: &mut [f32]) {
        fresh.iter_mut().for_each(|y| *y *= 0.5);
    }

    #[test]
    fn every_precision_gives_the_same_bits_on_any_number_of_threads() {
        let pools = [1, 2, 3].map(Pool::new);
        for precision in Precision::ALL {
            for (outputs, inputs) in [(40, 33), (512, 700), (1030, 256)] {
                let layer = Layer::new(&noise(outputs * inputs, 1), outputs, inputs, precision);
                assert_eq!((layer.outputs(), layer.inputs()), (outputs, inputs));
                let (x, mut work) = (noise(3 * inputs, 2), Activations::new(3, inputs));
                let mut results = pools.iter().map(|pool| {
                    let mut y = vec![f32::NAN; 3 * outputs];
                    layer.forward(&x, 3, &mut work, &mut y, pool, &halve);
                    layer.forward_add(&x, 3, &mut work, &mut y, pool);
                    y
                });
                let alone = results.next().expect("three pools");
                assert!(alone.iter().all(|y| y.is_finite()));
                assert!(results.all(|shared| shared == alone), "{precision} {outputs}x{inputs}");
            }
        }
    }

    #[test]
    fn a_layer_filled_with_the_bytes_of_another_is_that_layer() {
        let (outputs, inputs, pool) = (70, 130, Pool::new(1));
        for precision in Precision::ALL {
            let layer = Layer::new(&noise(outputs * inputs, 1), outputs, inputs, precision);
            let (kind, parts) = layer.storage().expect("packed");
            let mut copy = Layer::blank(kind, outputs, inputs).expect("a known kind");
            let room = copy.storage_mut().expect("packed");
            room.into_iter().zip(parts).for_each(|(to, from)| to.copy_from_slice(from));
            let (x, mut work) = (noise(inputs, 2), Activations::new(1, inputs));
            let results = [&layer, &copy].map(|layer| {
                let mut y = vec![f32::NAN; outputs];
                layer.forward(&x, 1, &mut work, &mut y, &pool, &|_| ());
                y
            });
            assert!(results[0] == results[1] && results[0].iter().all(|y| y.is_finite()), "{precision}");
        }
        assert!(Layer::blank("int3", outputs, inputs).is_none());
    }

    #[test]
    fn a_checked_layer_gives_the_exact_outputs_and_learns_the_error_of_the_other() {
        let (outputs, inputs) = (96, 128);
        let weight = noise(outputs * inputs, 3);
        let [exact, int8, int4] =
            [Precision::F32, Precision::Int8, Precision::Int4].map(|at| Layer::new(&weight, outputs, inputs, at));
        let (x, pool, mut work) = (noise(2 * inputs, 4), Pool::new(1), Activations::new(2, inputs));
        let mut expected = vec![0.0; 2 * outputs];
        exact.forward(&x, 2, &mut work, &mut expected, &pool, &halve);
        exact.forward_add(&x, 2, &mut work, &mut expected, &pool);
        let errors = [int8, int4].map(|other| {
            let exact = Layer::new(&weight, outputs, inputs, Precision::F32);
            let mut layer = Layer::Checked(Box::new(Checked::new(exact)));
            let mut y = vec![0.0; 2 * outputs];
            layer.forward(&x, 2, &mut work, &mut y, &pool, &halve);
            // What it met is known before it has a stand-in.
            let Layer::Checked(both) = &mut layer else { panic!("checked") };
            let mean = (x[5] + x[inputs + 5]) / 2.0;
            assert!((both.moments().means()[5] - mean).abs() < 1e-6);
            both.set(other);
            layer.forward(&x, 2, &mut work, &mut y, &pool, &halve);
            layer.forward_add(&x, 2, &mut work, &mut y, &pool);
            assert_eq!(y, expected);
            let Layer::Checked(both) = layer else { panic!("checked") };
            both.into_parts().2
        });
        assert!(errors[0] > 1e-4 && errors[0] < 0.01 && errors[1] > 0.02 && errors[1] < 0.2, "{errors:?}");
    }
}
