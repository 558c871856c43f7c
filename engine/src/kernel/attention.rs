//! Cached keys and values of one attention layer, laid out for one query row at a time. Any thread; no allocation after
//! construction. Every score is one sum over ascending dimensions, every output one sum over ascending positions.

use super::byte_cache::ByteCache;
#[cfg(target_arch = "x86_64")]
use super::lanes::x86;
use super::lanes::{Bf16Line, Cell, LANES, Lanes, Line, Path, Portable};
use super::norm::softmax;
use super::pages::Pages;

/// Keys and values by position, `heads` heads of `size` values.
pub struct Attention {
    heads: usize,
    size: usize,
    capacity: usize,
    /// Lines that hold one head's values; the last one is padded with zeros.
    value_lines: usize,
    path: Path,
    kept: Kept,
}

/// How keys and values are kept. The arithmetic is f32 but for bytes.
enum Kept {
    F32(Store<Line>),
    Bf16(Store<Bf16Line>),
    Bytes(ByteCache),
}

struct Store<C> {
    /// `[position / 16][heads * size]`: one dimension of sixteen positions to a line.
    keys: Pages<C>,
    /// `[heads][position][value_lines]`: what one sum reads lies in one stretch.
    values: Pages<C>,
}

impl<C: Cell> Store<C> {
    fn new(heads: usize, size: usize, capacity: usize) -> Self {
        let lines = capacity * heads * size.div_ceil(LANES);
        Self {
            keys: Pages::filled(C::ZERO, capacity.div_ceil(LANES) * heads * size),
            values: Pages::filled(C::ZERO, lines),
        }
    }

    fn write(&mut self, position: usize, key: &[f32], value: &[f32], size: usize, stride: usize) {
        let tile = &mut self.keys[position / LANES * key.len()..][..key.len()];
        for (line, &key) in tile.iter_mut().zip(key) {
            line.round(position % LANES, key);
        }
        let lines = size.div_ceil(LANES);
        for (head, value) in self.values.chunks_exact_mut(stride.max(1)).zip(value.chunks_exact(size)) {
            for (line, value) in head[position * lines..].iter_mut().zip(value.chunks(LANES)) {
                value.iter().enumerate().for_each(|(lane, value)| line.round(lane, *value));
            }
        }
    }
}

impl Attention {
    /// Room for `capacity` positions in f32.
    pub fn new(heads: usize, size: usize, capacity: usize) -> Self {
        Self::with(Kept::F32(Store::new(heads, size, capacity)), heads, size, capacity)
    }

    /// Room for `capacity` positions, rounded to bf16: half the memory to read for a relative error of at most 1 / 256.
    pub fn new_bf16(heads: usize, size: usize, capacity: usize) -> Self {
        Self::with(Kept::Bf16(Store::new(heads, size, capacity)), heads, size, capacity)
    }

    /// Room for `capacity` positions in bytes; in bf16 where heads have a size that bytes do not suit.
    pub fn new_int8(heads: usize, size: usize, capacity: usize) -> Self {
        match ByteCache::holds(size) {
            true => Self::with(Kept::Bytes(ByteCache::new(heads, size, capacity)), heads, size, capacity),
            false => Self::new_bf16(heads, size, capacity),
        }
    }

    fn with(kept: Kept, heads: usize, size: usize, capacity: usize) -> Self {
        Self { heads, size, capacity, value_lines: size.div_ceil(LANES), path: Path::detect(), kept }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that one query row reads to attend to one position, all heads.
    pub fn bytes_per_position(&self) -> usize {
        let cell = match &self.kept {
            Kept::F32(_) => size_of::<f32>(),
            Kept::Bf16(_) => size_of::<u16>(),
            Kept::Bytes(cache) => return cache.bytes_per_position(),
        };
        (self.size + self.value_lines * LANES) * self.heads * cell
    }

    /// Floats that the working memory for `positions` positions must have.
    pub const fn scratch(positions: usize) -> usize {
        positions.next_multiple_of(LANES)
    }

    /// Stores the key and value of one position, `[heads * size]` each.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    ///
    /// # Panics
    /// When the position does not fit, or a slice has another length.
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        assert!(position < self.capacity, "position past the cache's capacity");
        assert!(key.len() == self.heads * self.size && value.len() == key.len(), "length of keys and values");
        let stride = self.capacity * self.value_lines;
        match &mut self.kept {
            Kept::F32(store) => store.write(position, key, value, self.size, stride),
            Kept::Bf16(store) => store.write(position, key, value, self.size, stride),
            Kept::Bytes(cache) => cache.write(position, key, value),
        }
    }

    /// Softmax attention of one query row `[heads * size]` over positions 0 to `positions - 1`, into `out`.
    /// `bias(head, weights)` may add to the scaled scores. `scratch` has at least [`Attention::scratch`] floats.
    ///
    /// # Realtime safety
    /// No allocation, no lock, as far as `bias` has none.
    ///
    /// # Panics
    /// When a slice is too short or the positions exceed the capacity.
    pub fn attend(
        &self,
        query: &[f32],
        positions: usize,
        factor: f32,
        scratch: &mut [f32],
        out: &mut [f32],
        bias: impl Fn(usize, &mut [f32]),
    ) {
        for head in 0..self.heads {
            let range = head * self.size..(head + 1) * self.size;
            self.attend_head(head, &query[range.clone()], positions, factor, scratch, &mut out[range], &bias);
        }
    }

    /// As [`Attention::attend`], for one head's `[size]` of the query and the output: heads are independent of each other.
    ///
    /// # Realtime safety
    /// No allocation, no lock, as far as `bias` has none.
    ///
    /// # Panics
    /// As [`Attention::attend`].
    #[allow(clippy::too_many_arguments, reason = "they are the operands of one operation")]
    pub fn attend_head(
        &self,
        head: usize,
        query: &[f32],
        positions: usize,
        factor: f32,
        scratch: &mut [f32],
        out: &mut [f32],
        bias: impl Fn(usize, &mut [f32]),
    ) {
        assert!(positions <= self.capacity, "more positions than the cache holds");
        match &self.kept {
            Kept::F32(store) => self.scores(store, head, query, positions, factor, scratch),
            Kept::Bf16(store) => self.scores(store, head, query, positions, factor, scratch),
            Kept::Bytes(cache) => cache.scores(head, query, positions, factor, scratch),
        }
        let weights = &mut scratch[..positions];
        bias(head, weights);
        softmax(weights);
        match &self.kept {
            Kept::F32(store) => self.mix(store, head, weights, out),
            Kept::Bf16(store) => self.mix(store, head, weights, out),
            Kept::Bytes(cache) => cache.mix(head, weights, out),
        }
    }

    /// `scores[j] = factor * (query . key j)` of one head; up to 15 floats after the last hold nothing of use.
    fn scores<C: Cell>(
        &self,
        store: &Store<C>,
        head: usize,
        query: &[f32],
        positions: usize,
        factor: f32,
        scores: &mut [f32],
    ) {
        let view = View { lines: &store.keys, head, heads: self.heads, size: self.size, capacity: self.capacity };
        // SAFETY: `path` comes from `detect`, which saw the features; the bodies touch memory through slices only.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => view.scores_avx512(query, positions, factor, scores),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => view.scores_avx2(query, positions, factor, scores),
                _ => view.scores_on::<Portable>(query, positions, factor, scores),
            }
        }
    }

    /// `out[d] = sum_j weights[j] value j [d]` of one head.
    fn mix<C: Cell>(&self, store: &Store<C>, head: usize, weights: &[f32], out: &mut [f32]) {
        let view = View { lines: &store.values, head, heads: self.heads, size: self.size, capacity: self.capacity };
        // SAFETY: as in `scores`.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => view.mix_avx512(weights, out),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => view.mix_avx2(weights, out),
                _ => view.mix_on::<Portable>(weights, out),
            }
        }
    }
}

/// Keys or values of one head.
struct View<'a, C> {
    lines: &'a [C],
    head: usize,
    heads: usize,
    size: usize,
    capacity: usize,
}

impl<C: Cell> View<'_, C> {
    // `target_feature` lets LLVM use the wide registers without `target-cpu=native`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn scores_avx512(&self, query: &[f32], positions: usize, factor: f32, scores: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.scores_on::<x86::Wide>(query, positions, factor, scores) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn scores_avx2(&self, query: &[f32], positions: usize, factor: f32, scores: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.scores_on::<x86::Pair>(query, positions, factor, scores) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn mix_avx512(&self, weights: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.mix_on::<x86::Wide>(weights, out) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mix_avx2(&self, weights: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.mix_on::<x86::Pair>(weights, out) }
    }

    /// # Safety
    /// The caller has the target features of `V`.
    #[inline(always)]
    unsafe fn scores_on<V: Lanes>(&self, query: &[f32], positions: usize, factor: f32, out: &mut [f32]) {
        let tiles = positions.div_ceil(LANES);
        let (out, _) = out[..tiles * LANES].as_chunks_mut::<LANES>();
        let mut tile = 0;
        while tile < tiles {
            // SAFETY: the caller's promise.
            tile += unsafe {
                match tiles - tile {
                    4.. => self.score_tiles::<V, 4>(query, tile, factor, &mut out[tile..]),
                    2 | 3 => self.score_tiles::<V, 2>(query, tile, factor, &mut out[tile..]),
                    _ => self.score_tiles::<V, 1>(query, tile, factor, &mut out[tile..]),
                }
            };
        }
    }

    /// `T` neighbouring tiles at once, so that the sums do not wait for each other; gives back `T`.
    ///
    /// # Safety
    /// The caller has the target features of `V`.
    #[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
    #[inline(always)]
    unsafe fn score_tiles<V: Lanes, const T: usize>(
        &self,
        query: &[f32],
        first: usize,
        factor: f32,
        out: &mut [[f32; LANES]],
    ) -> usize {
        let width = self.heads * self.size;
        let keys: [&[C]; T] =
            std::array::from_fn(|t| &self.lines[(first + t) * width + self.head * self.size..][..query.len()]);
        // SAFETY: the caller's promise, here and below.
        let mut sums = [unsafe { V::splat(0.0) }; T];
        for (d, &q) in query.iter().enumerate() {
            let q = unsafe { V::splat(q) };
            for t in 0..T {
                sums[t] = unsafe { sums[t].add_product(keys[t][d].lanes::<V>(), q) };
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = unsafe { sum.store() }.0.map(|score| score * factor);
        }
        T
    }

    /// `out[d] = sum_j weights[j] value j [d]` of one head.
    ///
    /// # Safety
    /// The caller has the target features of `V`.
    #[inline(always)]
    unsafe fn mix_on<V: Lanes>(&self, weights: &[f32], out: &mut [f32]) {
        let value_lines = self.size.div_ceil(LANES);
        let mut line = 0;
        while line < value_lines {
            let out = &mut out[line * LANES..];
            // SAFETY: the caller's promise.
            line += unsafe {
                match value_lines - line {
                    4.. => self.mix_lines::<V, 4>(weights, line, out),
                    2 | 3 => self.mix_lines::<V, 2>(weights, line, out),
                    _ => self.mix_lines::<V, 1>(weights, line, out),
                }
            };
        }
    }

    /// `L` lines of one head over all positions; gives back `L`.
    ///
    /// # Safety
    /// The caller has the target features of `V`.
    #[allow(clippy::needless_range_loop, reason = "index loops over arrays are what LLVM keeps in registers")]
    #[inline(always)]
    unsafe fn mix_lines<V: Lanes, const L: usize>(&self, weights: &[f32], first: usize, out: &mut [f32]) -> usize {
        let value_lines = self.size.div_ceil(LANES);
        let values = &self.lines[self.head * self.capacity * value_lines..][..weights.len() * value_lines];
        // SAFETY: the caller's promise, here and below.
        let mut sums = [unsafe { V::splat(0.0) }; L];
        for (&weight, position) in weights.iter().zip(values.chunks_exact(value_lines)) {
            let weight = unsafe { V::splat(weight) };
            let lines = &position[first..first + L];
            for l in 0..L {
                sums[l] = unsafe { sums[l].add_product(lines[l].lanes::<V>(), weight) };
            }
        }
        for (out, sum) in out.chunks_mut(LANES).zip(sums) {
            let sum = unsafe { sum.store() };
            out.copy_from_slice(&sum.0[..out.len()]);
        }
        L
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_a_plain_f64_attention() {
        let shapes = [(1, 1, 1), (2, 5, 7), (4, 64, 33), (3, 20, 100), (2, 80, 160), (1, 48, 16)];
        for (path, (heads, size, positions)) in Path::all().flat_map(|path| shapes.map(|shape| (path, shape))) {
            let width = heads * size;
            let wave = |i: usize, step: f64| (i as f64 * step).sin() as f32 * 2.0;
            let query: Vec<f32> = (0..width).map(|i| wave(i, 0.7)).collect();
            let keys: Vec<f32> = (0..positions * width).map(|i| wave(i, 0.31)).collect();
            let values: Vec<f32> = (0..positions * width).map(|i| wave(i, 0.13)).collect();
            let mut cache = Attention::new(heads, size, positions + 3);
            cache.path = path;
            // A stale position behind the last one must not count.
            cache.write(positions, &vec![50.0; width], &vec![1e6; width]);
            for j in 0..positions {
                cache.write(j, &keys[j * width..][..width], &values[j * width..][..width]);
            }
            let mut out = vec![f32::NAN; width];
            let mut scratch = vec![0.0; Attention::scratch(positions)];
            let bias = |head: usize, weights: &mut [f32]| {
                weights.iter_mut().enumerate().for_each(|(j, w)| *w += (j * head) as f32 * 0.01);
            };
            cache.attend(&query, positions, 0.3, &mut scratch, &mut out, bias);
            for d in 0..width {
                let (head, at) = (d / size, d / size * size);
                let score = |j: usize| -> f64 {
                    let dot = |i: usize| f64::from(query[at + i]) * f64::from(keys[j * width + at + i]);
                    ((0..size).map(dot).sum::<f64>() * 0.3 + (j * head) as f64 * 0.01).exp()
                };
                let total: f64 = (0..positions).map(score).sum();
                let exact: f64 = (0..positions).map(|j| score(j) / total * f64::from(values[j * width + d])).sum();
                assert!(
                    (f64::from(out[d]) - exact).abs() < 5e-6,
                    "{path:?} {heads} x {size}, {positions}: {} {exact}",
                    out[d]
                );
            }
        }
    }

    #[test]
    fn sixteen_bits_give_what_rounded_keys_and_values_give() {
        let (heads, size, positions) = (3, 20, 70);
        let width = heads * size;
        for path in Path::all() {
            let [mut kept, mut rounded] =
                [Attention::new_bf16(heads, size, positions), Attention::new(heads, size, positions)];
            (kept.path, rounded.path) = (path, path);
            let wave = |i: usize, step: f32| (i as f32 * step).sin() * 2.0;
            let round = |x: f32| f32::from_bits(((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) >> 16) << 16);
            for j in 0..positions {
                let key: Vec<f32> = (0..width).map(|i| wave(j * width + i, 0.31)).collect();
                let value: Vec<f32> = (0..width).map(|i| wave(j * width + i, 0.13)).collect();
                kept.write(j, &key, &value);
                let [key, value] = [key, value].map(|row| row.into_iter().map(round).collect::<Vec<f32>>());
                rounded.write(j, &key, &value);
            }
            let query: Vec<f32> = (0..width).map(|i| wave(i, 0.7)).collect();
            let run = |cache: &Attention| {
                let (mut out, mut scratch) = (vec![f32::NAN; width], vec![0.0; Attention::scratch(positions)]);
                cache.attend(&query, positions, 0.3, &mut scratch, &mut out, |_, _| ());
                out
            };
            assert_eq!(run(&kept), run(&rounded), "{path:?}");
            assert_eq!(2 * kept.bytes_per_position(), rounded.bytes_per_position());
        }
    }
}
