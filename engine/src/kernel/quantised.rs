//! A linear layer over quantised weights, the pass that all formats share. Any thread; immutable after construction.
//! Integer sums of a group are exact and groups are added in ascending order, so an output's bits depend neither on the
//! number of rows, nor on their neighbours, nor on which thread has which tiles.

use std::marker::PhantomData;
use std::ops::Range;

use crate::kernel::activations::{Activations, CHUNK, Head, Inputs, STEP};
use crate::kernel::columns::Columns;
use crate::kernel::dots::{Bytes, DotPath, Dots};
use crate::kernel::elementary::ROUNDER;
use crate::kernel::lanes::{Bf16Line, LANES, Line};
use crate::kernel::pages::Pages;
use crate::kernel::rounding::{self, Feedback};

/// Rows that share one pass over the weights.
const MOST_ROWS: usize = 8;

/// Bytes of weights that all rows go over before the next ones: with the activations they fit in the first cache.
const SPAN: usize = 16_384;

/// How one group of weights is stored.
pub trait Format {
    /// Inputs that share one weight scale: one or more chunks within a group of the activations.
    const GROUP: usize;
    /// Steps in one line of bytes: a weight has `8 / PARTS` bits.
    const PARTS: usize;
    /// What stands for a weight of zero, and is subtracted from all.
    const ZERO: u8;

    /// The dot products of each path, with as many bytes of the activations as the format is accurate for.
    type Plain: Dots;
    #[cfg(target_arch = "x86_64")]
    type Avx2: Dots;
    #[cfg(target_arch = "x86_64")]
    type Pair: Dots;
    #[cfg(target_arch = "x86_64")]
    type Wide: Dots;

    /// The scale that suits up to `GROUP` weights; it fits in a bf16. Zero where they are nothing, NaN where one of them is
    /// not finite.
    fn scale(weights: &[f32]) -> f32;

    /// The cell nearest to a weight that is worth so many steps.
    fn cell(steps: f32) -> u8;

    /// Sum and scale of what the dot products see of a chunk.
    fn seen(head: &Head) -> (i32, f32);
}

/// `y = x W^T + b` with `W` packed as `[outputs / tile][groups][inputs of a group / 4][lines][16 outputs][4 inputs]`; a
/// tile is 1, 2 or 4 lines of 16 outputs.
pub struct Quantised<F> {
    inputs: usize,
    outputs: usize,
    lines: usize,
    /// Lines of bytes in one group of one line of outputs. A field, not a constant: LLVM unrolls a loop of known length
    /// to the end and has to spill.
    depth: usize,
    path: DotPath,
    weight: Pages<Bytes>,
    /// `[tiles][groups][lines]`, zero past `outputs`.
    scales: Pages<Bf16Line>,
    /// `[tiles][lines]`, zero where the layer has no bias.
    bias: Vec<Line>,
    format: PhantomData<fn() -> F>,
}

/// One output's weights: a cell for every input, a scale for every group.
struct Row {
    cells: Vec<u8>,
    scales: Vec<f32>,
}

impl Row {
    /// Each weight becomes the nearest that its group's scale allows.
    fn nearest<F: Format>(weights: &[f32]) -> Self {
        let scales: Vec<f32> = weights.chunks(F::GROUP).map(F::scale).collect();
        let groups = weights.chunks(F::GROUP).zip(&scales);
        let cells = groups.flat_map(|(group, scale)| group.iter().map(|w| F::cell(w * steps(*scale)))).collect();
        Self { cells, scales }
    }

    /// Each weight makes up for the errors of those before it.
    fn rounded<F: Format>(weights: &[f32], feedback: &Feedback) -> Self {
        let scales: Vec<f32> = weights.chunks(F::GROUP).map(F::scale).collect();
        let ratios: Vec<f32> = scales.iter().map(|scale| steps(*scale)).collect();
        let mut cells = Vec::with_capacity(weights.len());
        feedback.round(&mut weights.to_vec(), |input, w| {
            let cell = F::cell(w * ratios[input / F::GROUP]);
            cells.push(cell);
            scales[input / F::GROUP] * (f32::from(cell) - f32::from(F::ZERO))
        });
        Self { cells, scales }
    }
}

/// Steps in one, of which each is worth `scale`; none of a scale that is zero or NaN.
fn steps(scale: f32) -> f32 {
    if scale == 0.0 || scale.is_nan() { 0.0 } else { 1.0 / scale }
}

/// The nearest whole number, halves to even.
#[inline(always)]
pub fn nearest(steps: f32) -> f32 {
    (steps + ROUNDER) - ROUNDER
}

impl<F: Format> Quantised<F> {
    /// Quantises and packs a row-major `[outputs][inputs]` weight; an optional `[outputs]` bias stays f32. A group with
    /// a weight that is not finite makes its output NaN.
    ///
    /// # Panics
    /// When a slice's length is not what the shape says: checkpoint readers verify shapes before they get here.
    pub fn new(weight: &[f32], bias: Option<&[f32]>, outputs: usize, inputs: usize) -> Self {
        Self::with_path(weight, bias, outputs, inputs, DotPath::detect())
    }

    /// The same without a bias, its weights rounded so that their errors make up for each other.
    ///
    /// # Panics
    /// As [`Quantised::new`], and when the feedback is that of fewer inputs.
    pub fn rounded(weight: &[f32], outputs: usize, inputs: usize, feedback: &Feedback) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight length");
        let mut layer = Self::shaped(outputs, inputs, DotPath::detect());
        let share = outputs.div_ceil(rounding::threads(outputs)).max(1);
        let parts: Vec<Vec<Row>> = std::thread::scope(|scope| {
            let round = |rows: &[f32]| rows.chunks(inputs.max(1)).map(|row| Row::rounded::<F>(row, feedback)).collect();
            let parts: Vec<_> =
                weight.chunks((share * inputs).max(1)).map(|rows| scope.spawn(move || round(rows))).collect();
            let join = |part: std::thread::ScopedJoinHandle<'_, Vec<Row>>| {
                part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            parts.into_iter().map(join).collect()
        });
        for (n, row) in parts.into_iter().flatten().enumerate() {
            layer.put(n, &row);
        }
        layer
    }

    pub(crate) fn with_path(
        weight: &[f32],
        bias: Option<&[f32]>,
        outputs: usize,
        inputs: usize,
        path: DotPath,
    ) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight length");
        assert!(bias.is_none_or(|b| b.len() == outputs), "bias length");
        let mut layer = Self::shaped(outputs, inputs, path);
        let lines = layer.lines;
        for n in 0..outputs {
            let (tile, line, lane) = (n / (lines * LANES), n / LANES % lines, n % LANES);
            layer.bias[tile * lines + line].0[lane] = bias.map_or(0.0, |bias| bias[n]);
            layer.put(n, &Row::nearest::<F>(&weight[n * inputs..][..inputs]));
        }
        layer
    }

    /// Stores one output's weights where nothing but zeros is.
    fn put(&mut self, n: usize, row: &Row) {
        let Self { lines, depth, .. } = *self;
        let (tile, line, lane) = (n / (lines * LANES), n / LANES % lines, n % LANES);
        let groups = self.inputs.div_ceil(F::GROUP);
        for (g, (cells, scale)) in row.cells.chunks(F::GROUP).zip(&row.scales).enumerate() {
            let group = tile * groups + g;
            self.scales[group * lines + line].0[lane] = (scale.to_bits() >> 16) as u16;
            for (k, cell) in cells.iter().enumerate() {
                let (step, input) = (k / STEP, k % STEP);
                let (at, shift) = (group * depth + step / F::PARTS, 8 / F::PARTS * (step % F::PARTS));
                let byte = &mut self.weight[at * lines + line].0[lane * STEP + input];
                // The bits hold a weight of zero so far.
                *byte ^= (cell ^ F::ZERO) << shift;
            }
        }
    }

    fn shaped(outputs: usize, inputs: usize, path: DotPath) -> Self {
        assert!(path.has(), "{path:?} on a processor without it");
        let lines = tile_lines(outputs, path.max_lines());
        let (tiles, groups) = (outputs.div_ceil(lines * LANES), inputs.div_ceil(F::GROUP));
        let depth = F::GROUP / STEP / F::PARTS;
        let zero = (0..F::PARTS).fold(0, |byte, part| byte | F::ZERO << (8 / F::PARTS * part));
        Self {
            inputs,
            outputs,
            lines,
            depth,
            path,
            weight: Pages::filled(Bytes([zero; 64]), tiles * groups * depth * lines),
            scales: Pages::filled(Bf16Line([0; LANES]), tiles * groups * lines),
            bias: vec![Line::ZERO; tiles * lines],
            format: PhantomData,
        }
    }

    /// The shape without its weights: all are zero.
    pub fn blank(outputs: usize, inputs: usize) -> Self {
        Self::shaped(outputs, inputs, DotPath::detect())
    }

    /// Weights and scales as bytes, in the order that this processor wants.
    pub fn storage(&self) -> [&[u8]; 2] {
        [self.weight.as_bytes(), self.scales.as_bytes()]
    }

    /// The same, to be filled.
    pub fn storage_mut(&mut self) -> [&mut [u8]; 2] {
        [self.weight.as_bytes_mut(), self.scales.as_bytes_mut()]
    }

    /// Width of one input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of one output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of weights and scales: what one call reads.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.weight) + size_of_val(&*self.scales)
    }

    /// Independent parts of the output, for threads to share.
    pub fn tiles(&self) -> usize {
        self.outputs.div_ceil(self.lines * LANES)
    }

    /// Columns of the outputs that some tiles stand for.
    pub fn columns(&self, tiles: Range<usize>) -> Range<usize> {
        let column = |tile: usize| (tile * self.lines * LANES).min(self.outputs);
        column(tiles.start)..column(tiles.end)
    }

    /// The columns of `tiles` of `rows` rows: `y = x W^T + b`, or `y += x W^T + b` with `ADD`.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// When `x` holds fewer rows or rows of another width, when there are no such tiles, or when `y` is too small.
    ///
    /// # Safety
    /// Until the call returns, no one else touches [`Quantised::columns`] of these tiles in `y`.
    pub unsafe fn forward<const ADD: bool>(&self, x: &Activations, rows: usize, tiles: Range<usize>, y: &Columns) {
        assert!(rows <= x.rows(), "{rows} rows of {}", x.rows());
        assert!(rows == 0 || x.inputs() == self.inputs, "rows of {} for {} inputs", x.inputs(), self.inputs);
        assert!(tiles.end <= self.tiles(), "no such tiles");
        // SAFETY: `with_path` saw the features of `path`; the columns are the caller's promise.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                DotPath::Vnni512 => self.vnni512::<ADD>(x, rows, tiles, y),
                #[cfg(target_arch = "x86_64")]
                DotPath::Vnni256 => self.vnni256::<ADD>(x, rows, tiles, y),
                #[cfg(target_arch = "x86_64")]
                DotPath::Avx2 => self.avx2::<ADD>(x, rows, tiles, y),
                _ => self.run::<ADD, F::Plain, 1>(x, rows, tiles, y),
            }
        }
    }

    /// All outputs of `rows` rows into `y[r * stride + n]`, on this thread.
    #[cfg(test)]
    pub fn forward_all(&self, x: &Activations, rows: usize, y: &mut [f32], stride: usize) {
        // SAFETY: `y` is borrowed for this call alone.
        unsafe { self.forward::<false>(x, rows, 0..self.tiles(), &Columns::new(y, stride)) };
    }

    // `target_feature` is what lets LLVM inline the intrinsics without `target-cpu=native`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
    unsafe fn vnni512<const ADD: bool>(&self, x: &Activations, rows: usize, tiles: Range<usize>, y: &Columns) {
        // SAFETY: this function has the features; the columns are the caller's promise.
        unsafe {
            match self.lines {
                4 => self.run::<ADD, F::Wide, 4>(x, rows, tiles, y),
                2 => self.run::<ADD, F::Wide, 2>(x, rows, tiles, y),
                _ => self.run::<ADD, F::Wide, 1>(x, rows, tiles, y),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avxvnni,avx2,fma")]
    unsafe fn vnni256<const ADD: bool>(&self, x: &Activations, rows: usize, tiles: Range<usize>, y: &Columns) {
        // SAFETY: as above.
        unsafe {
            match self.lines {
                2 => self.run::<ADD, F::Pair, 2>(x, rows, tiles, y),
                _ => self.run::<ADD, F::Pair, 1>(x, rows, tiles, y),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const ADD: bool>(&self, x: &Activations, rows: usize, tiles: Range<usize>, y: &Columns) {
        // SAFETY: as above.
        unsafe { self.run::<ADD, F::Avx2, 1>(x, rows, tiles, y) };
    }

    /// # Safety
    /// The caller has the target features of `D`, and the columns of these tiles to itself.
    #[inline(always)]
    unsafe fn run<const ADD: bool, D: Dots, const L: usize>(
        &self,
        x: &Activations,
        rows: usize,
        tiles: Range<usize>,
        y: &Columns,
    ) {
        for tile in tiles {
            // SAFETY: the caller's promise, here and below.
            match rows {
                1 => unsafe { self.few::<ADD, D, 1, L>(tile, x, y) },
                2 if D::ROWS >= 2 => unsafe { self.few::<ADD, D, 2, L>(tile, x, y) },
                _ => {
                    for first in (0..rows).step_by(MOST_ROWS) {
                        let rows = first..rows.min(first + MOST_ROWS);
                        let totals = unsafe { self.tile::<D, L>(tile, x, rows.clone()) };
                        for (row, totals) in rows.zip(totals) {
                            unsafe { self.put_out::<ADD, D, L>(tile, row, totals, y) };
                        }
                    }
                }
            }
        }
    }

    /// The `R` rows there are by the `L` lines of a tile: a step of one piece. All sums stay in registers to the end, since
    /// what happens between two tiles is time in which no weights are read.
    ///
    /// # Safety
    /// As [`Quantised::run`].
    #[inline(always)]
    unsafe fn few<const ADD: bool, D: Dots, const R: usize, const L: usize>(
        &self,
        tile: usize,
        x: &Activations,
        y: &Columns,
    ) {
        let (groups, depth) = (self.inputs.div_ceil(F::GROUP), self.depth);
        let weight = self.weight[tile * groups * depth * L..][..groups * depth * L].as_chunks().0;
        let scales = self.scales[tile * groups * L..][..groups * L].as_chunks().0;
        // SAFETY: the caller's promise, here and below.
        let mut totals = [[unsafe { D::no_floats() }; L]; R];
        let span = Span { weight, scales, depth, ahead: R > D::LIGHT, first: 0 };
        unsafe { block::<F, D, R, L>(&span, x, 0, &mut totals) };
        for (row, totals) in totals.into_iter().enumerate() {
            unsafe { self.put_out::<ADD, D, L>(tile, row, totals, y) };
        }
    }

    /// One row's outputs of a tile, with their bias.
    ///
    /// # Safety
    /// As [`Quantised::run`].
    #[inline(always)]
    unsafe fn put_out<const ADD: bool, D: Dots, const L: usize>(
        &self,
        tile: usize,
        row: usize,
        totals: [D::Floats; L],
        y: &Columns,
    ) {
        // SAFETY: the caller's promise, here and below.
        let y = unsafe { y.row(row, self.columns(tile..tile + 1)) };
        let bias = &self.bias[tile * L..][..L];
        for ((y, total), bias) in y.chunks_mut(LANES).zip(totals).zip(bias) {
            let total = unsafe { D::store(total) };
            // Whole lines as arrays: of slices the compiler makes sixteen scalar additions.
            match y.as_mut_array::<LANES>() {
                Some(y) => add_line::<ADD>(y, &total.0, &bias.0),
                None => {
                    let mut line = [0.0; LANES];
                    line[..y.len()].copy_from_slice(y);
                    add_line::<ADD>(&mut line, &total.0, &bias.0);
                    y.copy_from_slice(&line[..y.len()]);
                }
            }
        }
    }

    /// Up to eight rows by the `L` lines of a tile, all inputs.
    ///
    /// # Safety
    /// The caller has the target features of `D`.
    #[inline(always)]
    unsafe fn tile<D: Dots, const L: usize>(
        &self,
        tile: usize,
        x: &Activations,
        rows: Range<usize>,
    ) -> [[D::Floats; L]; MOST_ROWS] {
        // SAFETY: the caller's promise, here and below.
        let mut totals = [[unsafe { D::no_floats() }; L]; MOST_ROWS];
        let (groups, depth) = (self.inputs.div_ceil(F::GROUP), self.depth);
        let weight = &self.weight[tile * groups * depth * L..][..groups * depth * L];
        let scales = &self.scales[tile * groups * L..][..groups * L];
        // Rows that fit in the registers need not come back.
        let most = if rows.len() <= D::ROWS { groups.max(1) } else { SPAN / (depth * size_of::<[Bytes; L]>()) };
        let ahead = rows.len() > D::LIGHT;
        let spans = weight.as_chunks().0.chunks(most * depth).zip(scales.as_chunks().0.chunks(most)).enumerate();
        for (index, (weight, scales)) in spans {
            let span = Span { weight, scales, depth, ahead, first: index * most * (F::GROUP / CHUNK) };
            let mut done = 0;
            while done < rows.len() {
                let (first, totals) = (rows.start + done, &mut totals[done..]);
                done += unsafe {
                    match (rows.len() - done).min(D::ROWS) {
                        4.. => block::<F, D, 4, L>(&span, x, first, totals),
                        2 | 3 => block::<F, D, 2, L>(&span, x, first, totals),
                        _ => block::<F, D, 1, L>(&span, x, first, totals),
                    }
                };
            }
        }
        totals
    }
}

#[inline(always)]
fn add_line<const ADD: bool>(y: &mut [f32; LANES], sums: &[f32; LANES], bias: &[f32; LANES]) {
    for lane in 0..LANES {
        let sum = sums[lane] + bias[lane];
        y[lane] = if ADD { y[lane] + sum } else { sum };
    }
}

/// Some groups of one tile.
struct Span<'a, const L: usize> {
    /// `[groups][depth]`
    weight: &'a [[Bytes; L]],
    /// `[groups]`
    scales: &'a [[Bf16Line; L]],
    depth: usize,
    /// Whether to ask for weights ahead of the arithmetic.
    ahead: bool,
    /// Index of its first chunk of the activations.
    first: usize,
}

/// Adds `R` rows by `L` lines of a span to the totals; gives back `R`.
///
/// # Safety
/// The caller has the target features of `D`.
#[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
#[inline(always)]
unsafe fn block<F: Format, D: Dots, const R: usize, const L: usize>(
    span: &Span<L>,
    x: &Activations,
    row: usize,
    totals: &mut [[D::Floats; L]],
) -> usize {
    let (groups, steps) = (span.scales.len(), span.depth * F::PARTS);
    // Loops instead of closures here and in the dot products: a closure that LLVM does not inline has no target
    // features.
    let (mut inputs, mut heads) = ([Inputs::NONE; R], [[].as_slice(); R]);
    for r in 0..R {
        heads[r] = x.heads_of(row + r, span.first, groups * (F::GROUP / CHUNK));
        inputs[r] = x.inputs_of(row + r, span.first, groups * steps);
    }
    let (totals, _) = totals.as_chunks_mut::<R>();
    let mut total = totals[0];
    for (g, (weight, scales)) in span.weight.chunks_exact(span.depth).zip(span.scales).enumerate() {
        // SAFETY: the caller's promise, here and below.
        let mut sums = [[unsafe { D::zero() }; L]; R];
        for (depth, bytes) in weight.iter().enumerate() {
            if span.ahead {
                for bytes in bytes {
                    unsafe { D::prefetch(bytes, SPAN) };
                }
            }
            for part in 0..F::PARTS {
                let mut weights = [unsafe { D::weights(&bytes[0], part) }; L];
                for l in 1..L {
                    weights[l] = unsafe { D::weights(&bytes[l], part) };
                }
                let step = g * steps + depth * F::PARTS + part;
                for r in 0..R {
                    for l in 0..L {
                        sums[r][l] = unsafe { sums[r][l].add(weights[l], &inputs[r], step) };
                    }
                }
            }
        }
        let mut weights = [unsafe { D::scales(&scales[0]) }; L];
        for l in 1..L {
            weights[l] = unsafe { D::scales(&scales[l]) };
        }
        for r in 0..R {
            let heads = &heads[r][g * (F::GROUP / CHUNK)..][..F::GROUP / CHUNK];
            let offset = i32::from(F::ZERO) * heads.iter().map(|head| F::seen(head).0).sum::<i32>();
            let (_, scale) = F::seen(&heads[0]);
            for l in 0..L {
                total[r][l] = unsafe { sums[r][l].scaled(offset, scale, weights[l], total[r][l]) };
            }
        }
    }
    totals[0] = total;
    R
}

/// Lines per tile: the widest that pads no more columns than the narrowest would.
fn tile_lines(outputs: usize, most: usize) -> usize {
    let padded = |lines: usize| outputs.next_multiple_of(lines * LANES);
    [4, 2, 1].into_iter().find(|&lines| lines <= most && padded(lines) == padded(1)).unwrap_or(1)
}

#[cfg(test)]
pub mod tests;
