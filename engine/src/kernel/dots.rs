//! Dot products of unsigned weights and signed activations, four inputs of sixteen outputs at a time, on four
//! instruction paths with equal integers. Any thread.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;

use crate::kernel::activations::Inputs;
use crate::kernel::lanes::{Bf16Line, LANES, Line};

/// Sixteen outputs times four inputs, one AVX-512 register, one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Bytes(pub [u8; 64]);

/// Instruction path, chosen once per layer. Integers are equal on all; their f32 sums are fused on all but the portable
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DotPath {
    Vnni512,
    Vnni256,
    Avx2,
    Portable,
}

impl DotPath {
    /// The fastest path of this processor.
    pub fn detect() -> Self {
        [Self::Vnni512, Self::Vnni256, Self::Avx2].into_iter().find(|path| path.has()).unwrap_or(Self::Portable)
    }

    /// Whether this processor has the path.
    pub fn has(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let fused = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            match self {
                Self::Vnni512 => fused && wide && is_x86_feature_detected!("avx512vnni"),
                Self::Vnni256 => fused && is_x86_feature_detected!("avxvnni"),
                Self::Avx2 => fused,
                Self::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Portable
        }
    }

    /// Every path that this processor has.
    #[cfg(test)]
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Vnni256, Self::Vnni512].into_iter().filter(|path| path.has())
    }

    /// Widest tile in lines: what leaves room in the register file for the accumulators of a row or two.
    pub fn max_lines(self) -> usize {
        match self {
            Self::Vnni512 => 4,
            Self::Vnni256 => 2,
            Self::Avx2 | Self::Portable => 1,
        }
    }
}

/// Sixteen exact sums over one group of weights. The number `P` of an implementing type is that of the activations'
/// bytes that take part: 2 with weights of a byte, 1, the coarse one, with weights of half a byte.
///
/// # Safety
/// Every method needs the target features of the implementing type.
pub trait Dots: Copy {
    /// Sixty-four weights in registers.
    type Weights: Copy;
    /// Sixteen floats in registers.
    type Floats: Copy;
    /// Rows whose sums fit in the register file beside each other, at the widest tile.
    const ROWS: usize;
    /// Rows up to which the arithmetic waits for memory alone, measured on Zen 4. The processor's own prefetcher then
    /// does best by itself; with more rows it falls idle between them, and memory with it, unless weights are asked for
    /// ahead.
    const LIGHT: usize;

    unsafe fn zero() -> Self;
    /// Weights of one step: the bytes, or the low (0) or high (1) half of each.
    unsafe fn weights(bytes: &Bytes, part: usize) -> Self::Weights;
    /// Adds the products with one step of a row.
    unsafe fn add(self, weights: Self::Weights, x: &Inputs, step: usize) -> Self;
    unsafe fn scales(scales: &Bf16Line) -> Self::Floats;
    /// `total + (sums - offset) * (scale * scales)`
    unsafe fn scaled(self, offset: i32, scale: f32, scales: Self::Floats, total: Self::Floats) -> Self::Floats;
    unsafe fn no_floats() -> Self::Floats;
    unsafe fn store(floats: Self::Floats) -> Line;
    /// Asks for the cache line at `distance` bytes past `bytes`, which may lie outside of any buffer.
    unsafe fn prefetch(bytes: &Bytes, distance: usize);
    #[cfg(test)]
    unsafe fn integers(self, offset: i32) -> [i32; LANES];
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable<const P: usize>([i32; LANES]);

impl<const P: usize> Dots for Portable<P> {
    type Weights = [u8; 64];
    type Floats = [f32; LANES];
    const ROWS: usize = 2;
    const LIGHT: usize = 0;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; LANES])
    }

    #[inline(always)]
    unsafe fn weights(bytes: &Bytes, part: usize) -> [u8; 64] {
        if P == 2 { bytes.0 } else { bytes.0.map(|byte| byte >> (4 * part) & 15) }
    }

    #[inline(always)]
    unsafe fn add(mut self, weights: [u8; 64], x: &Inputs, step: usize) -> Self {
        let x = if P == 2 { x.whole[step].map(i32::from) } else { x.coarse[step].map(i32::from) };
        for (sum, w) in self.0.iter_mut().zip(weights.as_chunks::<4>().0) {
            let w = w.map(i32::from);
            *sum += (w[0] * x[0] + w[1] * x[1]) + (w[2] * x[2] + w[3] * x[3]);
        }
        self
    }

    #[inline(always)]
    unsafe fn scales(scales: &Bf16Line) -> [f32; LANES] {
        scales.0.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    unsafe fn scaled(self, offset: i32, scale: f32, scales: [f32; LANES], mut total: [f32; LANES]) -> [f32; LANES] {
        for lane in 0..LANES {
            total[lane] += (self.0[lane] - offset) as f32 * (scale * scales[lane]);
        }
        total
    }

    #[inline(always)]
    unsafe fn no_floats() -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn store(floats: [f32; LANES]) -> Line {
        Line(floats)
    }

    #[inline(always)]
    unsafe fn prefetch(_: &Bytes, _: usize) {}

    #[cfg(test)]
    unsafe fn integers(self, offset: i32) -> [i32; LANES] {
        self.0.map(|sum| sum - offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of one group of bytes, or of the low and the high halves.
    ///
    /// # Safety
    /// The caller has the target features of `D`.
    #[inline(always)]
    unsafe fn sums<D: Dots>(bytes: &[Bytes], x: &Inputs) -> [[i32; LANES]; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [D::zero(); 2];
            for (step, bytes) in bytes.iter().enumerate() {
                sums[0] = sums[0].add(D::weights(bytes, 0), x, step);
                sums[1] = sums[1].add(D::weights(bytes, 1), x, step);
            }
            sums.map(|sum| sum.integers(-12_345))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
    unsafe fn wide<D: Dots>(bytes: &[Bytes], x: &Inputs) -> [[i32; LANES]; 2] {
        // SAFETY: this function has the features.
        unsafe { sums::<D>(bytes, x) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avxvnni,avx2,fma")]
    unsafe fn pair<D: Dots>(bytes: &[Bytes], x: &Inputs) -> [[i32; LANES]; 2] {
        // SAFETY: this function has the features.
        unsafe { sums::<D>(bytes, x) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn plain<D: Dots>(bytes: &[Bytes], x: &Inputs) -> [[i32; LANES]; 2] {
        // SAFETY: this function has the features.
        unsafe { sums::<D>(bytes, x) }
    }

    fn every_path_has_the_integers_of<const P: usize>() {
        // What one group of a format holds.
        let (steps, most) = (8 * P, 127 * 256);
        let mut state = 1u32;
        for round in 0..200 {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            // The largest that a group holds, first.
            let mut values = [0; 64];
            values.fill_with(|| if round < 2 { most } else { next() as i32 % (2 * most + 1) - most });
            let whole: [i16; 64] = values.map(|v| if round == 1 { -v as i16 } else { v as i16 });
            let coarse = whole.map(|v| ((i32::from(v) + 128) >> 8) as i8);
            let mut fine = [0; 64];
            (0..64).for_each(|i| fine[i] = (i32::from(whole[i]) - 256 * i32::from(coarse[i])) as i8);
            let x = Inputs { coarse: coarse.as_chunks().0, fine: fine.as_chunks().0, whole: whole.as_chunks().0 };
            let mut bytes = vec![Bytes([255; 64]); steps];
            if round >= 2 {
                bytes.iter_mut().for_each(|bytes| bytes.0.fill_with(|| next() as u8));
            }
            let mut exact = [[12_345; LANES]; 2];
            for (k, lane) in (0..4 * steps).flat_map(|k| (0..LANES).map(move |lane| (k, lane))) {
                let byte = i32::from(bytes[k / 4].0[lane * 4 + k % 4]);
                let x = if P == 2 { i32::from(whole[k]) } else { i32::from(coarse[k]) };
                for (sum, w) in exact.iter_mut().zip(if P == 2 { [byte, byte] } else { [byte & 15, byte >> 4] }) {
                    sum[lane] += w * x;
                }
            }
            for path in DotPath::all() {
                // SAFETY: only paths that this processor has.
                let got = unsafe {
                    match path {
                        #[cfg(target_arch = "x86_64")]
                        DotPath::Vnni512 => wide::<avx512::Wide<P>>(&bytes, &x),
                        #[cfg(target_arch = "x86_64")]
                        DotPath::Vnni256 => pair::<avx2::Pair<P>>(&bytes, &x),
                        #[cfg(target_arch = "x86_64")]
                        DotPath::Avx2 if P == 2 => plain::<avx2::Bytewise>(&bytes, &x),
                        #[cfg(target_arch = "x86_64")]
                        DotPath::Avx2 => plain::<avx2::Halfwise>(&bytes, &x),
                        _ => sums::<Portable<P>>(&bytes, &x),
                    }
                };
                assert_eq!(got, exact, "{path:?}");
            }
        }
    }

    #[test]
    fn every_path_has_the_same_integers() {
        every_path_has_the_integers_of::<1>();
        every_path_has_the_integers_of::<2>();
    }
}
