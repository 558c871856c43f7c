//! A packed linear layer in f32 arithmetic, the one matrix kernel of the run path. Any thread; immutable after
//! construction. Every output is a sum over ascending k in blocks of fixed length, so its bits depend neither on the number
//! of rows nor on their neighbours. A step is bound by reading weights: those that come from 16-bit files stay 16 bits wide
//! in memory, which changes no bit of what comes out.

use super::columns::Columns;
#[cfg(target_arch = "x86_64")]
use super::lanes::x86;
use super::lanes::{Bf16Line, Cell, F16Line, LANES, Lanes, Line, Path, Portable};
use super::pages::Pages;
use crate::pool::Pool;
use std::ops::Range;

/// Products in one running sum. Sums of sums keep rounding small: the codec's widest layers have 16,384 inputs, and one
/// running sum over them costs five times torch's error.
const SUM_BLOCK: usize = 128;

/// Products below which the calling thread does them alone: waking another one costs more.
const ALONE_PRODUCTS: usize = 1 << 18;

/// Parts for each thread: enough that one which is taken off its core leaves its share to the others.
const PARTS: usize = 4;

/// Rows of the smallest part.
const LEAST_ROWS: usize = 8;

/// `y = x W^T + b` with `W` packed as `[outputs / tile][k][tile]`; a tile is 16, 32 or 64 columns.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    lines: usize,
    path: Path,
    weight: Packed,
    /// `[tiles][lines]`, zero where the layer has no bias.
    bias: Vec<Line>,
}

/// `[tiles][inputs][lines]`, columns past `outputs` are zero.
enum Packed {
    F32(Pages<Line>),
    F16(Pages<F16Line>),
    Bf16(Pages<Bf16Line>),
}

impl Linear {
    /// No inputs, no outputs.
    pub const EMPTY: Self = Self {
        inputs: 0,
        outputs: 0,
        lines: 1,
        path: Path::Portable,
        weight: Packed::F32(Pages::EMPTY),
        bias: Vec::new(),
    };

    /// The same layer with weights rounded to bf16; those in half precision stay as they are, being as small.
    pub fn into_bf16(self) -> Self {
        let Packed::F32(weight) = &self.weight else { return self };
        let mut lines = Pages::filled(Bf16Line::ZERO, weight.len());
        for (line, weights) in lines.iter_mut().zip(weight.iter()) {
            weights.0.iter().enumerate().for_each(|(lane, value)| line.round(lane, *value));
        }
        Self { weight: Packed::Bf16(lines), ..self }
    }

    /// Packs a row-major `[outputs][inputs]` weight and an optional `[outputs]` bias.
    ///
    /// # Panics
    /// When a slice's length is not what the shape says: checkpoint readers verify shapes before they get here.
    pub fn new(weight: &[f32], bias: Option<&[f32]>, outputs: usize, inputs: usize) -> Self {
        Self::with_path(weight, bias, outputs, inputs, Path::detect())
    }

    /// As [`Linear::new`], weights rounded to bf16: half the memory to read, for a relative error of at most 1 / 256 each.
    ///
    /// # Panics
    /// As [`Linear::new`].
    pub fn new_bf16(weight: &[f32], bias: Option<&[f32]>, outputs: usize, inputs: usize) -> Self {
        let mut line = Bf16Line::ZERO;
        let mut round = |weight: &f32| {
            line.round(0, *weight);
            f32::from_bits(u32::from(line.0[0]) << 16)
        };
        Self::new(&weight.iter().map(&mut round).collect::<Vec<f32>>(), bias, outputs, inputs)
    }

    fn with_path(weight: &[f32], bias: Option<&[f32]>, outputs: usize, inputs: usize, path: Path) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight length");
        assert!(bias.is_none_or(|b| b.len() == outputs), "bias length");
        let lines = tile_lines(outputs, path.max_lines());
        let tiles = outputs.div_ceil(lines * LANES);
        let mut packed_bias = vec![Line::ZERO; tiles * lines];
        for (n, bias) in bias.unwrap_or(&[]).iter().enumerate() {
            packed_bias[n / (lines * LANES) * lines + n / LANES % lines].0[n % LANES] = *bias;
        }
        let shape = (outputs, inputs, lines);
        // Widening costs the portable path more than it saves.
        let narrow = path != Path::Portable;
        let weight = if narrow && holds::<F16Line>(weight) {
            Packed::F16(pack(weight, shape))
        } else if narrow && holds::<Bf16Line>(weight) {
            Packed::Bf16(pack(weight, shape))
        } else {
            Packed::F32(pack(weight, shape))
        };
        Self { inputs, outputs, lines, path, weight, bias: packed_bias }
    }

    /// A layer of this shape in bf16, f16 or f32 whose weights are all zero; `None` for another kind.
    pub fn blank(kind: &str, outputs: usize, inputs: usize) -> Option<Self> {
        let path = Path::detect();
        let lines = tile_lines(outputs, path.max_lines());
        let tiles = outputs.div_ceil(lines * LANES);
        let count = tiles * inputs * lines;
        let weight = match kind {
            "f32" => Packed::F32(Pages::filled(Line::ZERO, count)),
            "f16" => Packed::F16(Pages::filled(F16Line::ZERO, count)),
            "bf16" => Packed::Bf16(Pages::filled(Bf16Line::ZERO, count)),
            _ => return None,
        };
        Some(Self { inputs, outputs, lines, path, weight, bias: vec![Line::ZERO; tiles * lines] })
    }

    /// The kind of the weights, and the weights as bytes in the order that this processor wants.
    pub fn storage(&self) -> (&'static str, &[u8]) {
        match &self.weight {
            Packed::F32(weight) => ("f32", weight.as_bytes()),
            Packed::F16(weight) => ("f16", weight.as_bytes()),
            Packed::Bf16(weight) => ("bf16", weight.as_bytes()),
        }
    }

    /// The same, to be filled.
    pub fn storage_mut(&mut self) -> &mut [u8] {
        match &mut self.weight {
            Packed::F32(weight) => weight.as_bytes_mut(),
            Packed::F16(weight) => weight.as_bytes_mut(),
            Packed::Bf16(weight) => weight.as_bytes_mut(),
        }
    }

    /// Width of one input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of one output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y[r * y_stride + n] = sum_k W[n][k] x[r * x_stride + k] + b[n]` for `rows` rows.
    ///
    /// `x_stride` may be smaller than `inputs`: overlapping windows make a convolution over time-major data.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// When `x` or `y` is too short for `rows` rows, or `y_stride` is smaller than `outputs`.
    pub fn forward(&self, x: &[f32], x_stride: usize, rows: usize, y: &mut [f32], y_stride: usize) {
        self.run::<false>(x, x_stride, rows, y, y_stride);
    }

    /// As [`Linear::forward`], but adds to what `y` holds: `y += x W^T + b`.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn forward_add(&self, x: &[f32], x_stride: usize, rows: usize, y: &mut [f32], y_stride: usize) {
        self.run::<true>(x, x_stride, rows, y, y_stride);
    }

    /// As [`Linear::forward`], on the threads of `pool`: large weights are split by tiles, many rows by rows.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// As [`Linear::forward`].
    pub fn forward_on(&self, pool: &Pool, x: &[f32], x_stride: usize, rows: usize, y: &mut [f32], y_stride: usize) {
        self.run_on::<false>(pool, x, x_stride, rows, y, y_stride);
    }

    /// As [`Linear::forward_on`], but adds to what `y` holds.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// As [`Linear::forward`].
    pub fn forward_add_on(&self, pool: &Pool, x: &[f32], x_stride: usize, rows: usize, y: &mut [f32], y_stride: usize) {
        self.run_on::<true>(pool, x, x_stride, rows, y, y_stride);
    }

    fn run_on<const ADD: bool>(
        &self,
        pool: &Pool,
        x: &[f32],
        x_stride: usize,
        rows: usize,
        y: &mut [f32],
        y_stride: usize,
    ) {
        let (threads, tiles) = (pool.active(), self.tiles());
        if threads == 1 || rows * self.outputs * self.inputs < ALONE_PRODUCTS {
            return self.run::<ADD>(x, x_stride, rows, y, y_stride);
        }
        let columns = Columns::new(y, y_stride);
        assert!(columns.holds(rows, self.outputs), "output too short, or its rows overlap");
        let most = threads * PARTS;
        let by_rows = (rows / LEAST_ROWS).min(most);
        if by_rows > tiles.min(most) {
            pool.run(by_rows, &|_, part| {
                let first = part * rows / by_rows;
                let count = (part + 1) * rows / by_rows - first;
                // SAFETY: each part has rows of its own.
                unsafe {
                    self.forward_tiles::<ADD>(
                        &x[first * x_stride..],
                        x_stride,
                        count,
                        0..tiles,
                        &columns.from_row(first),
                    );
                }
            });
            return;
        }
        let parts = tiles.min(most);
        pool.run(parts, &|_, part| {
            let tiles = part * tiles / parts..(part + 1) * tiles / parts;
            // SAFETY: each part has tiles, and so columns, of its own.
            unsafe { self.forward_tiles::<ADD>(x, x_stride, rows, tiles, &columns) }
        });
    }

    fn run<const ADD: bool>(&self, x: &[f32], x_stride: usize, rows: usize, y: &mut [f32], y_stride: usize) {
        // SAFETY: `y` is borrowed for this call alone.
        unsafe { self.forward_tiles::<ADD>(x, x_stride, rows, 0..self.tiles(), &Columns::new(y, y_stride)) }
    }

    /// Parts of the output that may be computed apart, on any threads.
    pub fn tiles(&self) -> usize {
        self.outputs.div_ceil(self.lines * LANES)
    }

    /// The outputs that some tiles stand for.
    pub fn columns(&self, tiles: Range<usize>) -> Range<usize> {
        let column = |tile: usize| (tile * self.lines * LANES).min(self.outputs);
        column(tiles.start)..column(tiles.end)
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Packed::F32(weight) => size_of_val(&weight[..]),
            Packed::F16(weight) => size_of_val(&weight[..]),
            Packed::Bf16(weight) => size_of_val(&weight[..]),
        }
    }

    /// As [`Linear::forward`] (or, with `ADD`, [`Linear::forward_add`]) for the outputs of some tiles.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Safety
    /// Nobody else reads or writes these tiles' columns of `y` meanwhile.
    ///
    /// # Panics
    /// When `x` or `y` is too short for `rows` rows, or the rows of `y` overlap.
    pub unsafe fn forward_tiles<const ADD: bool>(
        &self,
        x: &[f32],
        x_stride: usize,
        rows: usize,
        tiles: Range<usize>,
        y: &Columns,
    ) {
        if rows == 0 || tiles.is_empty() {
            return;
        }
        assert!(x.len() >= (rows - 1) * x_stride + self.inputs, "input too short");
        assert!(y.holds(rows, self.outputs), "output too short, or its rows overlap");
        assert!(tiles.end <= self.tiles(), "no such tile");
        let call = Call { x, x_stride, rows, tiles, y };
        // SAFETY: the caller's promise.
        unsafe {
            match &self.weight {
                Packed::F32(weight) => self.on_path::<ADD, _>(weight, call),
                Packed::F16(weight) => self.on_path::<ADD, _>(weight, call),
                Packed::Bf16(weight) => self.on_path::<ADD, _>(weight, call),
            }
        }
    }

    /// # Safety
    /// As [`Linear::forward_tiles`].
    unsafe fn on_path<const ADD: bool, C: Cell>(&self, weight: &[C], call: Call) {
        // SAFETY: `path` comes from `detect`, which saw the features at run time; the columns are the caller's promise.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => self.tiles_avx512::<ADD, C>(weight, call),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => self.tiles_avx2::<ADD, C>(weight, call),
                _ => self.rows::<ADD, Portable, C, 1>(weight, call, 2),
            }
        }
    }

    // `target_feature` is what lets LLVM use the wide registers and fused multiply-add without `target-cpu=native`;
    // the row limits leave every accumulator in a register.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn tiles_avx512<const ADD: bool, C: Cell>(&self, weight: &[C], call: Call) {
        // SAFETY: this function has the features; the columns are the caller's promise.
        unsafe {
            match self.lines {
                4 => self.rows::<ADD, x86::Wide, C, 4>(weight, call, 4),
                2 => self.rows::<ADD, x86::Wide, C, 2>(weight, call, 8),
                _ => self.rows::<ADD, x86::Wide, C, 1>(weight, call, 8),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tiles_avx2<const ADD: bool, C: Cell>(&self, weight: &[C], call: Call) {
        // SAFETY: this function has the features; the columns are the caller's promise.
        unsafe {
            match self.lines {
                2 => self.rows::<ADD, x86::Pair, C, 2>(weight, call, 2),
                _ => self.rows::<ADD, x86::Pair, C, 1>(weight, call, 4),
            }
        }
    }

    /// The call's tiles of `L` lines; at most `most` rows share a pass over a tile.
    ///
    /// # Safety
    /// The caller has the target features of `V`, and the columns as [`Linear::forward_tiles`] asks.
    #[inline(always)]
    unsafe fn rows<const ADD: bool, V: Lanes, C: Cell, const L: usize>(&self, weight: &[C], call: Call, most: usize) {
        for t in call.tiles.clone() {
            let (weight, _) = weight[t * self.inputs * L..][..self.inputs * L].as_chunks::<L>();
            let (bias, _) = self.bias[t * L..][..L].as_chunks::<L>();
            let tile = Tile { weight, bias: &bias[0], first: t * L * LANES, outputs: self.outputs };
            let mut row = 0;
            while row < call.rows {
                // SAFETY: the caller's promise.
                row += unsafe {
                    match (call.rows - row).min(most) {
                        8.. => block::<ADD, V, C, 8, L>(&tile, &call, row),
                        4..8 => block::<ADD, V, C, 4, L>(&tile, &call, row),
                        2 | 3 => block::<ADD, V, C, 2, L>(&tile, &call, row),
                        _ => block::<ADD, V, C, 1, L>(&tile, &call, row),
                    }
                };
            }
        }
    }
}

/// Arguments of one call, lengths already checked.
struct Call<'a> {
    x: &'a [f32],
    x_stride: usize,
    rows: usize,
    tiles: Range<usize>,
    y: &'a Columns<'a>,
}

/// One packed tile: its weights by k, its bias, and the columns that it stands for.
struct Tile<'a, C, const L: usize> {
    weight: &'a [[C; L]],
    bias: &'a [Line; L],
    first: usize,
    outputs: usize,
}

/// `R` rows from `row` on by `L` lines, all k; gives back `R`.
///
/// # Safety
/// As [`Linear::rows`].
#[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
#[inline(always)]
unsafe fn block<const ADD: bool, V: Lanes, C: Cell, const R: usize, const L: usize>(
    tile: &Tile<C, L>,
    call: &Call,
    row: usize,
) -> usize {
    let x: [&[f32]; R] = std::array::from_fn(|r| &call.x[(row + r) * call.x_stride..][..tile.weight.len()]);
    // SAFETY: the caller's promise, here and below.
    // The bias comes last: a sum that starts at a large bias rounds every small product to its grain.
    let (zero, one) = unsafe { (V::splat(0.0), V::splat(1.0)) };
    let mut total = [[zero; L]; R];
    for (index, weights) in tile.weight.chunks(SUM_BLOCK).enumerate() {
        let x: [&[f32]; R] = std::array::from_fn(|r| &x[r][index * SUM_BLOCK..][..weights.len()]);
        let mut sum = [[zero; L]; R];
        for (k, weight) in weights.iter().enumerate() {
            let weight: [V; L] = std::array::from_fn(|l| unsafe { weight[l].lanes() });
            for r in 0..R {
                let x = unsafe { V::splat(x[r][k]) };
                for l in 0..L {
                    sum[r][l] = unsafe { sum[r][l].add_product(weight[l], x) };
                }
            }
        }
        for r in 0..R {
            for l in 0..L {
                total[r][l] = unsafe { total[r][l].add_product(sum[r][l], one) };
            }
        }
    }
    for (r, sums) in total.into_iter().enumerate() {
        for (l, sum) in sums.into_iter().enumerate() {
            let first = (tile.first + l * LANES).min(tile.outputs);
            let last = (first + LANES).min(tile.outputs);
            let (sum, y) = unsafe { (sum.store(), call.y.row(row + r, first..last)) };
            for ((y, s), b) in y.iter_mut().zip(&sum.0).zip(&tile.bias[l].0) {
                *y = if ADD { *y + (s + b) } else { s + b };
            }
        }
    }
    R
}

/// Whether cells of this kind hold all values without loss.
fn holds<C: Cell>(weight: &[f32]) -> bool {
    let mut probe = C::ZERO;
    weight.iter().all(|value| probe.put(0, *value))
}

/// `[tiles][inputs][lines]` of a row-major `[outputs][inputs]`.
fn pack<C: Cell>(weight: &[f32], (outputs, inputs, lines): (usize, usize, usize)) -> Pages<C> {
    let tiles = outputs.div_ceil(lines * LANES);
    let mut packed = Pages::filled(C::ZERO, tiles * inputs * lines);
    for n in 0..outputs {
        let (tile, line, lane) = (n / (lines * LANES), n / LANES % lines, n % LANES);
        for k in 0..inputs {
            packed[(tile * inputs + k) * lines + line].put(lane, weight[n * inputs + k]);
        }
    }
    packed
}

/// Lines per tile: the widest that pads no more columns than the narrowest would.
fn tile_lines(outputs: usize, most: usize) -> usize {
    let padded = |lines: usize| outputs.next_multiple_of(lines * LANES);
    [4, 2, 1].into_iter().find(|&lines| lines <= most && padded(lines) == padded(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests;
