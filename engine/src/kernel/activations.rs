//! Rows of activations as integers with a scale per group, what the quantised kernels multiply. Any thread; one writes,
//! many read.

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::elementary::ROUNDER;

/// Inputs that share one scale.
pub const GROUP: usize = 64;

/// Inputs in one step of an integer dot product: four bytes make one 32-bit lane.
pub const STEP: usize = 4;

/// Inputs and steps in one chunk.
pub const CHUNK: usize = 32;
pub const STEPS: usize = CHUNK / STEP;

/// Steps of the whole range: the largest input of a group. 127 coarse steps of 256 fine ones each.
const MOST: f32 = (127 * FINE) as f32;

/// Fine steps in a coarse one.
const FINE: i32 = 256;

/// Groups that stay below this are zero: the reciprocal of their scale has no room in an f32.
const SILENCE: f32 = 1e-30;

/// Up to `max_rows` rows of inputs, quantised.
///
/// An input is `scale * whole` with `whole` in -32512..=32512, also split into `256 * coarse + fine` of one signed byte
/// each. `coarse` alone is the nearest int8. Kernels that want the accuracy take both bytes.
pub struct Activations {
    max_rows: usize,
    /// Allocated chunks of a row, whole groups.
    pitch: usize,
    rows: usize,
    inputs: usize,
    /// `[max_rows][pitch]`, as are the heads.
    coarse: Vec<[[i8; STEP]; STEPS]>,
    fine: Vec<[[i8; STEP]; STEPS]>,
    whole: Vec<[[i16; STEP]; STEPS]>,
    heads: Vec<Head>,
}

/// Some steps of one row. Dot products read the bytes that they want, or the 16-bit values.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub coarse: &'a [[i8; STEP]],
    pub fine: &'a [[i8; STEP]],
    pub whole: &'a [[i16; STEP]],
}

impl Inputs<'_> {
    pub const NONE: Self = Self { coarse: &[], fine: &[], whole: &[] };
}

/// What belongs to a chunk as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// What one fine step is worth, the same within a group. NaN where the group had an input that is not finite.
    pub scale: f32,
    /// Sums over the chunk.
    pub coarse: i32,
    pub whole: i32,
}

impl Head {
    /// What one coarse step is worth.
    #[inline(always)]
    pub fn coarse_scale(&self) -> f32 {
        self.scale * FINE as f32
    }
}

impl Activations {
    /// Room for `max_rows` rows of `max_inputs` values.
    pub fn new(max_rows: usize, max_inputs: usize) -> Self {
        let pitch = max_inputs.next_multiple_of(GROUP) / CHUNK;
        let len = max_rows * pitch;
        Self {
            max_rows,
            pitch,
            rows: 0,
            inputs: 0,
            coarse: vec![[[0; STEP]; STEPS]; len],
            fine: vec![[[0; STEP]; STEPS]; len],
            whole: vec![[[0; STEP]; STEPS]; len],
            heads: vec![Head { scale: 0.0, coarse: 0, whole: 0 }; len],
        }
    }

    /// Rows of the last [`Activations::quantise`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Width of the rows of the last [`Activations::quantise`].
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Takes `rows` rows of `inputs` values; row `r` starts at `x[r * stride]`. Halves round to even.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// When there is no room for so many values or `x` is too short.
    pub fn quantise(&mut self, x: &[f32], stride: usize, rows: usize, inputs: usize) {
        assert!(rows <= self.max_rows && inputs <= self.pitch * CHUNK, "no room for {rows} rows of {inputs}");
        (self.rows, self.inputs) = (rows, inputs);
        let len = inputs.next_multiple_of(GROUP) / CHUNK;
        for row in 0..rows {
            let range = row * self.pitch..row * self.pitch + len;
            quantise_row(
                &x[row * stride..][..inputs],
                self.coarse[range.clone()].as_flattened_mut().as_flattened_mut(),
                self.fine[range.clone()].as_flattened_mut().as_flattened_mut(),
                self.whole[range.clone()].as_flattened_mut().as_flattened_mut(),
                &mut self.heads[range],
            );
        }
    }

    /// `steps` steps of one row from those of chunk `first` on.
    #[inline(always)]
    pub(crate) fn inputs_of(&self, row: usize, first: usize, steps: usize) -> Inputs<'_> {
        let at = (row * self.pitch + first) * STEPS;
        Inputs {
            coarse: &self.coarse.as_flattened()[at..][..steps],
            fine: &self.fine.as_flattened()[at..][..steps],
            whole: &self.whole.as_flattened()[at..][..steps],
        }
    }

    /// `chunks` heads of one row from chunk `first` on.
    #[inline(always)]
    pub(crate) fn heads_of(&self, row: usize, first: usize, chunks: usize) -> &[Head] {
        &self.heads[row * self.pitch + first..][..chunks]
    }

    #[cfg(test)]
    pub(crate) fn head(&self, row: usize, chunk: usize) -> &Head {
        &self.heads_of(row, chunk, 1)[0]
    }
}

/// What one fine step is worth in a group with this largest size, and the fine steps in one.
#[inline(always)]
fn scale_and_ratio(largest: f32) -> (f32, f32) {
    if largest < SILENCE {
        (0.0, 0.0)
    } else if largest.is_finite() {
        (largest / MOST, MOST / largest)
    } else {
        (f32::NAN, 0.0)
    }
}

/// One group, on any processor.
#[inline(always)]
fn quantise_group(
    x: &[f32; GROUP],
    coarse: &mut [i8; GROUP],
    fine: &mut [i8; GROUP],
    whole: &mut [i16; GROUP],
    heads: &mut [Head; GROUP / CHUNK],
) {
    // As bits: infinity and NaN come out above every finite value, and the maximum of integers has no order.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
    let (scale, ratio) = scale_and_ratio(largest);
    // What is not finite times zero is no zero.
    let x = if ratio == 0.0 { &[0.0; GROUP] } else { x };
    let steps = x.map(|x| (x * ratio + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32);
    let near = steps.map(|whole| (whole + FINE / 2) >> 8);
    for i in 0..GROUP {
        coarse[i] = near[i] as i8;
        fine[i] = (steps[i] - near[i] * FINE) as i8;
        whole[i] = steps[i] as i16;
    }
    let chunks = near.as_chunks::<CHUNK>().0.iter().zip(steps.as_chunks::<CHUNK>().0);
    for (head, (near, steps)) in heads.iter_mut().zip(chunks) {
        *head = Head { scale, coarse: near.iter().sum(), whole: steps.iter().sum() };
    }
}

/// Defines a function for a whole row of what the second one does for a group; the last group is padded with zeros.
macro_rules! by_groups {
    ($(#[$attribute:meta])* $row:ident, $group:path) => {
        $(#[$attribute])*
        fn $row(x: &[f32], coarse: &mut [i8], fine: &mut [i8], whole: &mut [i16], heads: &mut [Head]) {
            let (groups, rest) = x.as_chunks::<GROUP>();
            let mut last = [0.0; GROUP];
            last[..rest.len()].copy_from_slice(rest);
            let groups = groups.iter().chain((!rest.is_empty()).then_some(&last));
            let out = coarse.as_chunks_mut::<GROUP>().0.iter_mut().zip(fine.as_chunks_mut::<GROUP>().0);
            let out = out.zip(whole.as_chunks_mut::<GROUP>().0).zip(heads.as_chunks_mut::<{ GROUP / CHUNK }>().0);
            for (group, (((coarse, fine), whole), heads)) in groups.zip(out) {
                $group(group, coarse, fine, whole, heads);
            }
        }
    };
}

by_groups!(row_plain, quantise_group);
by_groups!(
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx2")]
    row_avx512,
    avx512::quantise_group
);
by_groups!(
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    row_avx2,
    quantise_group
);

/// One row; the last group is padded with zeros. The numbers are the same on every processor.
pub fn quantise_row(x: &[f32], coarse: &mut [i8], fine: &mut [i8], whole: &mut [i16], heads: &mut [Head]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: only with the features that the processor has.
    unsafe {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            return row_avx512(x, coarse, fine, whole, heads);
        }
        if is_x86_feature_detected!("avx2") {
            return row_avx2(x, coarse, fine, whole, heads);
        }
    }
    row_plain(x, coarse, fine, whole, heads);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::quantised::tests::noise;

    fn taken(x: &[f32], stride: usize, rows: usize, inputs: usize) -> Activations {
        let mut activations = Activations::new(rows + 1, inputs + 70);
        // What an earlier call left must not show.
        activations.quantise(&vec![f32::NAN; (rows + 1) * (inputs + 70)], inputs + 70, rows + 1, inputs + 70);
        activations.quantise(x, stride, rows, inputs);
        activations
    }

    #[test]
    fn values_are_the_nearest_and_both_splits_agree() {
        for inputs in [1, 3, 4, 31, 32, 33, 63, 64, 65, 128, 200, 1024] {
            let (rows, stride) = (3, inputs + 5);
            let mut x = noise(rows * stride, inputs as u32);
            x[stride] *= 1e6;
            let activations = taken(&x, stride, rows, inputs);
            for row in 0..rows {
                for k in 0..inputs.next_multiple_of(GROUP) {
                    let chunk = k / CHUNK;
                    let part = activations.inputs_of(row, chunk, STEPS);
                    let (step, lane) = (k % CHUNK / STEP, k % STEP);
                    let whole = i32::from(part.whole[step][lane]);
                    let (coarse, fine) = (i32::from(part.coarse[step][lane]), i32::from(part.fine[step][lane]));
                    assert_eq!(whole, FINE * coarse + fine);
                    assert!((-127..=127).contains(&coarse));
                    let scale = activations.head(row, chunk).scale;
                    let x = if k < inputs { x[row * stride + k] } else { 0.0 };
                    let exact = f64::from(x) / f64::from(scale);
                    assert!((f64::from(whole) - exact).abs() < 0.51 && (whole != 0 || exact.abs() < 0.51));
                    assert!((f64::from(coarse) - exact / f64::from(FINE)).abs() < 0.51);
                }
                for chunk in 0..inputs.next_multiple_of(GROUP) / CHUNK {
                    let (part, head) = (activations.inputs_of(row, chunk, STEPS), activations.head(row, chunk));
                    assert_eq!(head.coarse, part.coarse.as_flattened().iter().map(|q| i32::from(*q)).sum::<i32>());
                    assert_eq!(head.whole, part.whole.as_flattened().iter().map(|q| i32::from(*q)).sum::<i32>());
                }
            }
        }
    }

    type Quantise = fn(&[f32], &mut [i8], &mut [i8], &mut [i16], &mut [Head]);

    #[test]
    fn every_path_has_the_same_numbers() {
        for (len, odd) in [(1, 0.5), (64, f32::NAN), (200, 0.0), (4096, f32::INFINITY), (500, 1e30), (130, 1e-31)] {
            let mut x = noise(len, len as u32);
            x[len / 2] = odd;
            let padded = len.next_multiple_of(GROUP);
            let run = |row: Quantise| {
                let (mut coarse, mut fine, mut whole) = (vec![1; padded], vec![1; padded], vec![1; padded]);
                let mut heads = vec![Head { scale: 1.0, coarse: 1, whole: 1 }; padded / CHUNK];
                row(&x, &mut coarse, &mut fine, &mut whole, &mut heads);
                let heads: Vec<_> = heads.iter().map(|head| (head.scale.to_bits(), head.coarse, head.whole)).collect();
                (coarse, fine, whole, heads)
            };
            let plain = run(row_plain);
            assert!(run(quantise_row) == plain, "{len} numbers, one of them {odd}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the feature was seen just now.
                let pairs = run(|x, coarse, fine, whole, heads| unsafe { row_avx2(x, coarse, fine, whole, heads) });
                assert!(pairs == plain, "AVX2: {len} numbers, one of them {odd}");
            }
        }
    }

    #[test]
    fn halves_round_to_even() {
        // The largest makes one fine step worth one.
        let activations =
            taken(&[MOST, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.0, 128.0, -128.0, -129.0, -MOST], 12, 1, 12);
        let part = activations.inputs_of(0, 0, STEPS);
        let most = MOST as i16;
        assert_eq!(part.whole[..3], [[most, 0, 2, 2], [0, -2, -2, 127], [128, -128, -129, -most]]);
        assert_eq!(part.coarse[..3], [[127, 0, 0, 0], [0, 0, 0, 0], [1, 0, -1, -127]]);
        assert_eq!(part.fine[..3], [[0, 0, 2, 2], [0, -2, -2, 127], [-128, -128, 127, 0]]);
    }

    #[test]
    fn extremes_stay_within_their_group() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-31, 1e-29, 0.0] {
            let mut x = vec![0.0; 3 * 128];
            x[128 + 70] = odd;
            x[128 + 71] = if odd.is_finite() { -odd } else { 1.0 };
            let activations = taken(&x, 128, 3, 128);
            for (row, chunk) in (0..3).flat_map(|row| (0..4).map(move |chunk| (row, chunk))) {
                let (head, part) = (activations.head(row, chunk), activations.inputs_of(row, chunk, STEPS));
                let here = (row, chunk / 2) == (1, 1);
                assert_eq!(head.scale.is_nan(), here && !odd.is_finite());
                assert_eq!(head.scale != 0.0, here && (!odd.is_finite() || odd > SILENCE));
                if here && odd.is_finite() && odd > SILENCE && chunk == 2 {
                    assert_eq!(part.whole.as_flattened()[6..8], [MOST as i16, -MOST as i16]);
                } else {
                    assert!(part.whole.iter().all(|step| *step == [0; STEP]));
                }
            }
        }
    }
}
