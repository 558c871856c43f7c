//! Cached keys and values in bytes, a scale for each head and position: half the memory of 16 bits to read, for 0.4 % of
//! error. Queries and attention weights take part with 16 bits, in exact integers. Any thread; no allocation after
//! construction.

use super::activations::{CHUNK, GROUP, Head, Inputs, STEP, quantise_row};
use super::dots::{Bytes, DotPath, Dots, Portable};
#[cfg(target_arch = "x86_64")]
use super::dots::{avx2, avx512};
use super::elementary::ROUNDER;
use super::lanes::{Bf16Line, LANES, Line};
use super::pages::Pages;

/// What stands for zero.
const ZERO: u8 = 128;

/// Steps of four in a group.
const STEPS: usize = GROUP / STEP;

/// Lines between what is summed and what is asked for. A head's keys and values are two short stretches: the processor's own
/// prefetchers are late at the start of each, and go on past its end.
const AHEAD: usize = 32;

/// 1.0 as bf16, for sums that have no scale of their own.
const ONES: Bf16Line = Bf16Line([0x3f80; LANES]);

/// Keys and values of `heads` heads of `size` values.
pub struct ByteCache {
    heads: usize,
    size: usize,
    capacity: usize,
    pub(super) path: DotPath,
    /// `[heads][position / 16][size / 4]`: four dimensions of sixteen positions to a line.
    keys: Pages<Bytes>,
    /// `[heads][position / 16]`
    key_scales: Pages<Bf16Line>,
    /// `[heads][position / 4][size / 16]`: four positions of sixteen dimensions to a line.
    values: Pages<Bytes>,
    /// `[heads][position]`
    value_scales: Pages<f32>,
}

/// A stretch of up to [`GROUP`] numbers as integers.
struct Stretch {
    coarse: [i8; GROUP],
    fine: [i8; GROUP],
    whole: [i16; GROUP],
    heads: [Head; GROUP / CHUNK],
}

impl Stretch {
    fn new() -> Self {
        let head = Head { scale: 0.0, coarse: 0, whole: 0 };
        Self { coarse: [0; GROUP], fine: [0; GROUP], whole: [0; GROUP], heads: [head; GROUP / CHUNK] }
    }

    fn take(&mut self, x: &[f32]) {
        quantise_row(x, &mut self.coarse, &mut self.fine, &mut self.whole, &mut self.heads);
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { coarse: self.coarse.as_chunks().0, fine: self.fine.as_chunks().0, whole: self.whole.as_chunks().0 }
    }

    /// What bytes of zero would have summed up to.
    fn offset(&self) -> i32 {
        i32::from(ZERO) * self.heads.iter().map(|head| head.whole).sum::<i32>()
    }

    fn scale(&self) -> f32 {
        self.heads[0].scale
    }
}

impl ByteCache {
    /// Whether heads of this size can be kept in bytes: a query is one group, its dimensions whole lines.
    pub const fn holds(size: usize) -> bool {
        size <= GROUP && size.is_multiple_of(LANES)
    }

    /// Room for `capacity` positions.
    ///
    /// # Panics
    /// When it does not hold heads of that size.
    pub fn new(heads: usize, size: usize, capacity: usize) -> Self {
        assert!(Self::holds(size), "heads of {size}");
        let (tiles, fours) = (capacity.div_ceil(LANES), capacity.div_ceil(GROUP) * STEPS);
        let zero = Bytes([ZERO; 64]);
        Self {
            heads,
            size,
            capacity,
            path: DotPath::detect(),
            keys: Pages::filled(zero, heads * tiles * (size / STEP)),
            key_scales: Pages::filled(Bf16Line([0; LANES]), heads * tiles),
            values: Pages::filled(zero, heads * fours * (size / LANES)),
            value_scales: Pages::filled(0.0, heads * capacity),
        }
    }

    /// Bytes that one query row reads to attend to one position, all heads.
    pub fn bytes_per_position(&self) -> usize {
        self.heads * (2 * self.size + size_of::<u16>() + size_of::<f32>())
    }

    /// Stores the key and value of one position, `[heads * size]` each.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let (size, capacity) = (self.size, self.capacity);
        let (tiles, fours) = (capacity.div_ceil(LANES), capacity.div_ceil(GROUP) * STEPS);
        let (tile, lane) = (position / LANES, position % LANES);
        // None of these lines is in any cache, and stores that miss wait for each other.
        for head in 0..self.heads {
            ask_for(&self.keys[(head * tiles + tile) * (size / STEP)..][..size / STEP]);
            ask_for(&self.values[(head * fours + position / STEP) * (size / LANES)..][..size / LANES]);
        }
        for head in 0..self.heads {
            let lines = &mut self.keys[(head * tiles + tile) * (size / STEP)..][..size / STEP];
            let mut scale = 0.0;
            put_key(&key[head * size..][..size], lane, lines, &mut scale);
            self.key_scales[head * tiles + tile].0[lane] = (scale.to_bits() >> 16) as u16;
            let (four, within) = (position / STEP, position % STEP);
            let lines = &mut self.values[(head * fours + four) * (size / LANES)..][..size / LANES];
            put_value(&value[head * size..][..size], within, lines, &mut scale);
            self.value_scales[head * capacity + position] = scale;
        }
    }

    /// `scores[j] = factor * (query . key j)` of one head; up to 15 floats after the last hold nothing of use.
    pub fn scores(&self, head: usize, query: &[f32], positions: usize, factor: f32, scores: &mut [f32]) {
        let mut stretch = Stretch::new();
        stretch.take(query);
        let (tiles, lines) = (self.capacity.div_ceil(LANES), self.size / STEP);
        let used = positions.div_ceil(LANES);
        let keys = &self.keys[head * tiles * lines..][..used * lines];
        let scales = &self.key_scales[head * tiles..][..used];
        let keys = Keys { keys, scales, lines, next: self.values_of(head, positions) };
        let (out, _) = scores[..used * LANES].as_chunks_mut::<LANES>();
        // SAFETY: `detect` saw the features of `path`; the bodies touch memory through slices only.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                DotPath::Vnni512 => scores_vnni512(&keys, &stretch, factor, out),
                #[cfg(target_arch = "x86_64")]
                DotPath::Vnni256 => scores_vnni256(&keys, &stretch, factor, out),
                #[cfg(target_arch = "x86_64")]
                DotPath::Avx2 => scores_avx2(&keys, &stretch, factor, out),
                _ => scores_on::<Portable<2>>(&keys, &stretch, factor, out),
            }
        }
    }

    /// `out[d] = sum_j weights[j] value j [d]` of one head. Scales the weights on the way.
    pub fn mix(&self, head: usize, weights: &mut [f32], out: &mut [f32]) {
        let scales = &self.value_scales[head * self.capacity..][..weights.len()];
        weights.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
        let lines = self.size / LANES;
        let next = self.keys.get((head + 1) * self.capacity.div_ceil(LANES) * (self.size / STEP)..).unwrap_or(&[]);
        let values = Values { values: self.values_of(head, weights.len()), lines, next };
        // SAFETY: as in `scores`.
        let totals = unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                DotPath::Vnni512 => mix_vnni512(&values, weights),
                #[cfg(target_arch = "x86_64")]
                DotPath::Vnni256 => mix_vnni256(&values, weights),
                #[cfg(target_arch = "x86_64")]
                DotPath::Avx2 => mix_avx2(&values, weights),
                _ => mix_on::<Portable<2>>(&values, weights),
            }
        };
        out.chunks_mut(LANES).zip(totals).for_each(|(out, total)| out.copy_from_slice(&total.0[..out.len()]));
    }

    /// One head's values of so many positions, and of the rest of the last group.
    fn values_of(&self, head: usize, positions: usize) -> &[Bytes] {
        let (fours, lines) = (self.capacity.div_ceil(GROUP) * STEPS, self.size / LANES);
        &self.values[head * fours * lines..][..positions.div_ceil(GROUP) * STEPS * lines]
    }
}

/// What the scores of one head are made of.
struct Keys<'a> {
    /// `[position / 16][lines]`
    keys: &'a [Bytes],
    /// `[position / 16]`
    scales: &'a [Bf16Line],
    lines: usize,
    /// What is read after them.
    next: &'a [Bytes],
}

/// What the sums of one head are made of.
struct Values<'a> {
    /// `[position / 4][lines]`
    values: &'a [Bytes],
    lines: usize,
    /// What may be read after them.
    next: &'a [Bytes],
}

/// Asks for the line that comes [`AHEAD`] lines after this one, in what comes `next` when these end.
///
/// # Safety
/// The caller has the target features of `D`.
#[inline(always)]
unsafe fn ask_ahead<D: Dots>(lines: &[Bytes], next: &[Bytes], at: usize) {
    let place = at + AHEAD;
    if let Some(line) = lines.get(place).or_else(|| next.get(place - lines.len())) {
        // SAFETY: the caller's promise.
        unsafe { D::prefetch(line, 0) };
    }
}

/// A head's numbers as bytes around [`ZERO`], and what one step of them is worth: a bf16, NaN where a number is not finite.
#[inline(always)]
fn bytes(x: &[f32]) -> (f32, [u8; GROUP]) {
    let mut out = [ZERO; GROUP];
    // As bits: infinity and NaN come out above every finite value.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
    if !largest.is_finite() {
        return (f32::NAN, out);
    }
    // Up to the next bf16, so that the largest stays within 127 steps.
    let scale = f32::from_bits((largest / 127.0).to_bits().next_multiple_of(1 << 16));
    if scale < f32::MIN_POSITIVE {
        return (0.0, out);
    }
    let steps = 1.0 / scale;
    for (out, x) in out.iter_mut().zip(x) {
        let step = ((x * steps + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32).clamp(-127, 127);
        *out = (step + i32::from(ZERO)) as u8;
    }
    (scale, out)
}

wide! {
    /// One head's key into its place of each line, and its scale.
    pub fn put_key(x: &[f32], lane: usize, lines: &mut [Bytes], scale: &mut f32) {
        let (worth, each) = bytes(x);
        for (line, four) in lines.iter_mut().zip(each.as_chunks::<STEP>().0) {
            line.0[lane * STEP..][..STEP].copy_from_slice(four);
        }
        *scale = worth;
    }
}

wide! {
    /// One head's value into its byte of each four, and its scale.
    pub fn put_value(x: &[f32], within: usize, lines: &mut [Bytes], scale: &mut f32) {
        let (worth, each) = bytes(x);
        let shift = 8 * within as u32;
        for (line, sixteen) in lines.iter_mut().zip(each.as_chunks::<LANES>().0) {
            let cells = line.0.as_chunks_mut::<STEP>().0;
            for (cell, byte) in cells.iter_mut().zip(sixteen) {
                let kept = u32::from_le_bytes(*cell) & !(0xff << shift);
                *cell = (kept | u32::from(*byte) << shift).to_le_bytes();
            }
        }
        *scale = worth;
    }
}

/// Starts to bring lines into the caches.
fn ask_for(lines: &[Bytes]) {
    #[cfg(target_arch = "x86_64")]
    for line in lines {
        // SAFETY: a hint, which every x86-64 processor has.
        unsafe { avx2::prefetch(line, 0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = lines;
}

/// Defines a function for each instruction path that calls the generic one: `target_feature` is what lets LLVM inline the
/// intrinsics without `target-cpu=native`.
macro_rules! on_paths {
    ($generic:ident, $wide:ident, $pair:ident, $plain:ident, ($($arg:ident: $kind:ty),*) $(-> $out:ty)?) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
        unsafe fn $wide($($arg: $kind),*) $(-> $out)? {
            // SAFETY: this function has the features.
            unsafe { $generic::<avx512::Wide<2>>($($arg),*) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avxvnni,avx2,fma")]
        unsafe fn $pair($($arg: $kind),*) $(-> $out)? {
            // SAFETY: this function has the features.
            unsafe { $generic::<avx2::Pair<2>>($($arg),*) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $plain($($arg: $kind),*) $(-> $out)? {
            // SAFETY: this function has the features.
            unsafe { $generic::<avx2::Bytewise>($($arg),*) }
        }
    };
}

on_paths!(
    scores_on, scores_vnni512, scores_vnni256, scores_avx2,
    (keys: &Keys, query: &Stretch, factor: f32, out: &mut [[f32; LANES]])
);
on_paths!(
    mix_on, mix_vnni512, mix_vnni256, mix_avx2, (values: &Values, weights: &[f32]) -> [Line; GROUP / LANES]
);

/// One tile after another: their sums wait for nothing but memory, which is fastest when it is read in its order.
///
/// # Safety
/// The caller has the target features of `D`.
#[inline(always)]
unsafe fn scores_on<D: Dots>(keys: &Keys, query: &Stretch, factor: f32, out: &mut [[f32; LANES]]) {
    let inputs = query.inputs();
    let (offset, scale) = (query.offset(), query.scale() * factor);
    for (tile, (out, scales)) in out.iter_mut().zip(keys.scales).enumerate() {
        let lines = &keys.keys[tile * keys.lines..][..keys.lines];
        // SAFETY: the caller's promise, here and below.
        let mut sum = unsafe { D::zero() };
        for (step, line) in lines.iter().enumerate() {
            unsafe { ask_ahead::<D>(keys.keys, keys.next, tile * keys.lines + step) };
            sum = unsafe { sum.add(D::weights(line, 0), &inputs, step) };
        }
        *out = unsafe { D::store(sum.scaled(offset, scale, D::scales(scales), D::no_floats())) }.0;
    }
}

/// # Safety
/// As [`scores_on`].
#[inline(always)]
unsafe fn mix_on<D: Dots>(values: &Values, weights: &[f32]) -> [Line; GROUP / LANES] {
    // SAFETY: the caller's promise.
    unsafe {
        match values.lines {
            4 => mix_lines::<D, 4>(values, weights),
            3 => mix_lines::<D, 3>(values, weights),
            2 => mix_lines::<D, 2>(values, weights),
            _ => mix_lines::<D, 1>(values, weights),
        }
    }
}

/// # Safety
/// As [`scores_on`].
#[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
#[inline(always)]
unsafe fn mix_lines<D: Dots, const L: usize>(values: &Values, weights: &[f32]) -> [Line; GROUP / LANES] {
    // One group's integers are summed while the next one's are made, so that reading does not pause between groups.
    let mut stretches = [Stretch::new(), Stretch::new()];
    let mut weights = weights.chunks(GROUP);
    weights.next().iter().for_each(|first| stretches[0].take(first));
    // SAFETY: the caller's promise, here and below.
    let mut totals = [unsafe { D::no_floats() }; L];
    for (group, steps) in values.values.as_chunks::<L>().0.chunks_exact(STEPS).enumerate() {
        let [even, odd] = &mut stretches;
        let (now, coming) = if group % 2 == 0 { (&*even, odd) } else { (&*odd, even) };
        weights.next().iter().for_each(|next| coming.take(next));
        let inputs = now.inputs();
        let mut sums = [unsafe { D::zero() }; L];
        for (step, lines) in steps.iter().enumerate() {
            for l in 0..L {
                unsafe { ask_ahead::<D>(values.values, values.next, (group * STEPS + step) * L + l) };
                sums[l] = unsafe { sums[l].add(D::weights(&lines[l], 0), &inputs, step) };
            }
        }
        let (offset, scale) = (now.offset(), now.scale());
        for l in 0..L {
            totals[l] = unsafe { sums[l].scaled(offset, scale, D::scales(&ONES), totals[l]) };
        }
    }
    let mut out = [Line::ZERO; GROUP / LANES];
    for l in 0..L {
        out[l] = unsafe { D::store(totals[l]) };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::quantised::tests::noise;

    /// A cache with noise at `positions` positions, and what it was given.
    fn filled(heads: usize, size: usize, positions: usize) -> (ByteCache, Vec<f32>, Vec<f32>) {
        let width = heads * size;
        let (keys, values) = (noise(positions * width, 1), noise(positions * width, 2));
        let mut cache = ByteCache::new(heads, size, positions + 3);
        for j in 0..positions {
            cache.write(j, &keys[j * width..][..width], &values[j * width..][..width]);
        }
        // A stale position behind the last one must not count.
        cache.write(positions, &vec![50.0; width], &vec![1e6; width]);
        (cache, keys, values)
    }

    fn relative(found: &[f32], exact: &[f64]) -> f64 {
        let error: f64 = found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        (error / exact.iter().map(|b| b * b).sum::<f64>()).sqrt()
    }

    #[test]
    fn scores_and_sums_are_those_of_the_numbers_on_every_path() {
        for (heads, size, positions) in [(1, 16, 1), (3, 64, 70), (2, 32, 64), (4, 48, 200), (16, 64, 33)] {
            let (mut cache, keys, values) = filled(heads, size, positions);
            let (width, query) = (heads * size, noise(heads * size, 3));
            let weights: Vec<f32> = noise(positions, 4).iter().map(|x| x.abs()).collect();
            for (path, head) in DotPath::all().flat_map(|path| (0..heads).map(move |head| (path, head))) {
                cache.path = path;
                let own = head * size..(head + 1) * size;
                let mut scores = vec![f32::NAN; positions.next_multiple_of(GROUP)];
                cache.scores(head, &query[own.clone()], positions, 0.3, &mut scores);
                let dot = |j: usize| -> f64 {
                    let each = query[own.clone()].iter().zip(&keys[j * width + own.start..]);
                    0.3f32 as f64 * each.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                };
                let exact: Vec<f64> = (0..positions).map(dot).collect();
                let off = relative(&scores[..positions], &exact);
                assert!(off < 0.02, "{path:?} {heads} x {size}, {positions}: scores off by {off}");
                let mut out = vec![f32::NAN; size];
                cache.mix(head, &mut weights.clone(), &mut out);
                let sum = |d: usize| -> f64 {
                    (0..positions).map(|j| f64::from(weights[j]) * f64::from(values[j * width + own.start + d])).sum()
                };
                let exact: Vec<f64> = (0..size).map(sum).collect();
                let off = relative(&out, &exact);
                assert!(off < 0.02, "{path:?} {heads} x {size}, {positions}: sums off by {off}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        for odd in [f32::NAN, f32::INFINITY] {
            let (mut cache, _, _) = filled(1, 64, 20);
            let mut value = vec![0.5; 64];
            value[7] = odd;
            cache.write(5, &value, &value);
            let (mut scores, mut out) = (vec![0.0; GROUP], vec![0.0; 64]);
            cache.scores(0, &[1.0; 64], 20, 1.0, &mut scores);
            assert!(scores[5].is_nan() && scores[4].is_finite());
            cache.mix(0, &mut [0.05; 20], &mut out);
            assert!(out.iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn silence_is_silent_and_bytes_are_the_nearest() {
        assert_eq!(bytes(&[0.0; 64]).0, 0.0);
        let x = noise(64, 9);
        let (scale, each) = bytes(&x);
        assert!(each.iter().zip(&x).all(|(byte, x)| ((f32::from(*byte) - 128.0) * scale - x).abs() <= 0.501 * scale));
        assert_eq!(scale.to_bits() & 0xffff, 0);
    }
}
