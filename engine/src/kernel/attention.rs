//! Cached keys and values of one attention layer, laid out for one query row at a time. Any thread; no allocation after
//! construction. Every score is one sum over ascending dimensions, every output one sum over ascending positions.

#[cfg(target_arch = "x86_64")]
use super::lanes::x86;
use super::lanes::{LANES, Lanes, Line, Path, Portable};
use super::norm::softmax;

/// Keys and values by position, `heads` heads of `size` values.
pub struct Attention {
    heads: usize,
    size: usize,
    capacity: usize,
    /// Lines that hold one head's values; the last one is padded with zeros.
    value_lines: usize,
    path: Path,
    /// `[position / 16][heads * size]`: one dimension of sixteen positions to a line.
    keys: Vec<Line>,
    /// `[heads][position][value_lines]`: what one sum reads lies in one stretch.
    values: Vec<Line>,
}

impl Attention {
    /// Room for `capacity` positions.
    pub fn new(heads: usize, size: usize, capacity: usize) -> Self {
        let value_lines = size.div_ceil(LANES);
        Self {
            heads,
            size,
            capacity,
            value_lines,
            path: Path::detect(),
            keys: vec![Line::ZERO; capacity.div_ceil(LANES) * heads * size],
            values: vec![Line::ZERO; capacity * heads * value_lines],
        }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
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
    /// When the position does not fit.
    pub fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        assert!(position < self.capacity, "position past the cache's capacity");
        let width = self.heads * self.size;
        let tile = &mut self.keys[position / LANES * width..][..width];
        for (line, &key) in tile.iter_mut().zip(key) {
            line.0[position % LANES] = key;
        }
        let heads = self.values.chunks_exact_mut((self.capacity * self.value_lines).max(1));
        for (lines, value) in heads.zip(value.chunks_exact(self.size)) {
            for (line, value) in lines[position * self.value_lines..].iter_mut().zip(value.chunks(LANES)) {
                line.0[..value.len()].copy_from_slice(value);
            }
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
        assert!(positions <= self.capacity, "more positions than the cache holds");
        for head in 0..self.heads {
            let range = head * self.size..(head + 1) * self.size;
            self.scores(head, &query[range.clone()], positions, factor, scratch);
            let weights = &mut scratch[..positions];
            bias(head, weights);
            softmax(weights);
            self.mix(head, weights, &mut out[range]);
        }
    }

    /// `scores[j] = factor * (query . key j)` of one head; up to 15 floats after the last hold nothing of use.
    fn scores(&self, head: usize, query: &[f32], positions: usize, factor: f32, scores: &mut [f32]) {
        // SAFETY: `path` comes from `detect`, which saw the features; the bodies touch memory through slices only.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => self.scores_avx512(head, query, positions, factor, scores),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => self.scores_avx2(head, query, positions, factor, scores),
                _ => self.scores_on::<Portable>(head, query, positions, factor, scores),
            }
        }
    }

    fn mix(&self, head: usize, weights: &[f32], out: &mut [f32]) {
        // SAFETY: as in `scores`.
        unsafe {
            match self.path {
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => self.mix_avx512(head, weights, out),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => self.mix_avx2(head, weights, out),
                _ => self.mix_on::<Portable>(head, weights, out),
            }
        }
    }

    // `target_feature` lets LLVM use the wide registers without `target-cpu=native`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn scores_avx512(&self, head: usize, query: &[f32], positions: usize, factor: f32, scores: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.scores_on::<x86::Wide>(head, query, positions, factor, scores) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn scores_avx2(&self, head: usize, query: &[f32], positions: usize, factor: f32, scores: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.scores_on::<x86::Pair>(head, query, positions, factor, scores) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn mix_avx512(&self, head: usize, weights: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.mix_on::<x86::Wide>(head, weights, out) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mix_avx2(&self, head: usize, weights: &[f32], out: &mut [f32]) {
        // SAFETY: this function has the features.
        unsafe { self.mix_on::<x86::Pair>(head, weights, out) }
    }

    /// # Safety
    /// The caller has the target features of `V`.
    #[inline(always)]
    unsafe fn scores_on<V: Lanes>(&self, head: usize, query: &[f32], positions: usize, factor: f32, out: &mut [f32]) {
        let tiles = positions.div_ceil(LANES);
        let (out, _) = out[..tiles * LANES].as_chunks_mut::<LANES>();
        let mut tile = 0;
        while tile < tiles {
            // SAFETY: the caller's promise.
            tile += unsafe {
                match tiles - tile {
                    4.. => self.score_tiles::<V, 4>(head, query, tile, factor, &mut out[tile..]),
                    2 | 3 => self.score_tiles::<V, 2>(head, query, tile, factor, &mut out[tile..]),
                    _ => self.score_tiles::<V, 1>(head, query, tile, factor, &mut out[tile..]),
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
        head: usize,
        query: &[f32],
        first: usize,
        factor: f32,
        out: &mut [[f32; LANES]],
    ) -> usize {
        let width = self.heads * self.size;
        let keys: [&[Line]; T] =
            std::array::from_fn(|t| &self.keys[(first + t) * width + head * self.size..][..query.len()]);
        // SAFETY: the caller's promise, here and below.
        let mut sums = [unsafe { V::splat(0.0) }; T];
        for (d, &q) in query.iter().enumerate() {
            let q = unsafe { V::splat(q) };
            for t in 0..T {
                sums[t] = unsafe { sums[t].add_product(V::load(&keys[t][d]), q) };
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
    unsafe fn mix_on<V: Lanes>(&self, head: usize, weights: &[f32], out: &mut [f32]) {
        let mut line = 0;
        while line < self.value_lines {
            let out = &mut out[line * LANES..];
            // SAFETY: the caller's promise.
            line += unsafe {
                match self.value_lines - line {
                    4.. => self.mix_lines::<V, 4>(head, weights, line, out),
                    2 | 3 => self.mix_lines::<V, 2>(head, weights, line, out),
                    _ => self.mix_lines::<V, 1>(head, weights, line, out),
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
    unsafe fn mix_lines<V: Lanes, const L: usize>(
        &self,
        head: usize,
        weights: &[f32],
        first: usize,
        out: &mut [f32],
    ) -> usize {
        let values = &self.values[head * self.capacity * self.value_lines..][..weights.len() * self.value_lines];
        // SAFETY: the caller's promise, here and below.
        let mut sums = [unsafe { V::splat(0.0) }; L];
        for (&weight, position) in weights.iter().zip(values.chunks_exact(self.value_lines)) {
            let weight = unsafe { V::splat(weight) };
            let lines = &position[first..first + L];
            for l in 0..L {
                sums[l] = unsafe { sums[l].add_product(V::load(&lines[l]), weight) };
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
}
