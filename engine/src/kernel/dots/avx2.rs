//! Dot products in AVX registers: by AVX-VNNI, and without it by products of 16 bits. Any thread.

use std::arch::x86_64::*;

use super::{Bf16Line, Bytes, Dots, Inputs, Line};

/// Two AVX registers for each of `P` bytes of the activations, with the dot product of AVX-VNNI.
#[derive(Clone, Copy)]
pub struct Pair<const P: usize>([[__m256i; 2]; P]);

impl<const P: usize> Pair<P> {
    /// # Safety
    /// As the trait.
    #[inline(always)]
    unsafe fn whole(self, offset: i32) -> [__m256i; 2] {
        let mut sums = self.0[0];
        for (half, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the trait's contract gives the features.
            unsafe {
                if P == 2 {
                    *sum = _mm256_add_epi32(_mm256_slli_epi32::<8>(*sum), self.0[P - 1][half]);
                }
                *sum = _mm256_sub_epi32(*sum, _mm256_set1_epi32(offset));
            }
        }
        sums
    }
}

// SAFETY (every block of the three impls): the trait's contract gives the features; `Bytes`, `Line` and `Bf16Line` are
// as long and as aligned as the loads want.
impl<const P: usize> Dots for Pair<P> {
    type Weights = [__m256i; 2];
    type Floats = [__m256; 2];
    const ROWS: usize = 2 / P;
    const LIGHT: usize = if P == 2 { 1 } else { 0 };

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([[unsafe { _mm256_setzero_si256() }; 2]; P])
    }

    #[inline(always)]
    unsafe fn weights(bytes: &Bytes, part: usize) -> [__m256i; 2] {
        unsafe { if P == 2 { halves(bytes) } else { nibbles(bytes, part) } }
    }

    #[inline(always)]
    unsafe fn add(mut self, weights: [__m256i; 2], x: &Inputs, step: usize) -> Self {
        let planes = [x.coarse, x.fine];
        for (sums, x) in self.0.iter_mut().zip(planes) {
            let x = i32::from_ne_bytes(x[step].map(|x| x as u8));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = unsafe { _mm256_dpbusd_avx_epi32(*sum, weights, _mm256_set1_epi32(x)) };
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn scales(line: &Bf16Line) -> [__m256; 2] {
        unsafe { scales(line) }
    }

    #[inline(always)]
    unsafe fn scaled(self, offset: i32, scale: f32, scales: [__m256; 2], total: [__m256; 2]) -> [__m256; 2] {
        unsafe { scaled(self.whole(offset), scale, scales, total) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> [__m256; 2] {
        [unsafe { _mm256_setzero_ps() }; 2]
    }

    #[inline(always)]
    unsafe fn store(floats: [__m256; 2]) -> Line {
        unsafe { store(floats) }
    }

    #[inline(always)]
    unsafe fn prefetch(bytes: &Bytes, distance: usize) {
        unsafe { prefetch(bytes, distance) }
    }

    #[cfg(test)]
    unsafe fn integers(self, offset: i32) -> [i32; 16] {
        unsafe { std::mem::transmute(self.whole(offset)) }
    }
}

/// Four AVX registers, for weights of a byte: every output has a lane for its even and one for its odd pair of inputs.
/// Products of 16 bits by 16, so that nothing saturates and one pass takes both bytes of the activations.
#[derive(Clone, Copy)]
pub struct Bytewise([__m256i; 4]);

impl Bytewise {
    /// # Safety
    /// As the trait.
    #[inline(always)]
    unsafe fn whole(self, offset: i32) -> [__m256i; 2] {
        // SAFETY: the trait's contract gives the features.
        unsafe {
            // Within each 128 bits: outputs 0 1 4 5, then 2 3 6 7.
            let (a, b) = (_mm256_hadd_epi32(self.0[0], self.0[1]), _mm256_hadd_epi32(self.0[2], self.0[3]));
            let a = _mm256_permute4x64_epi64::<0b11_01_10_00>(a);
            let b = _mm256_permute4x64_epi64::<0b11_01_10_00>(b);
            let offset = _mm256_set1_epi32(offset);
            [_mm256_sub_epi32(a, offset), _mm256_sub_epi32(b, offset)]
        }
    }
}

impl Dots for Bytewise {
    type Weights = [__m256i; 4];
    type Floats = [__m256; 2];
    const ROWS: usize = 2;
    const LIGHT: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([unsafe { _mm256_setzero_si256() }; 4])
    }

    #[inline(always)]
    unsafe fn weights(bytes: &Bytes, _: usize) -> [__m256i; 4] {
        unsafe {
            let [a, b] = halves(bytes);
            [
                _mm256_cvtepu8_epi16(_mm256_castsi256_si128(a)),
                _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(a)),
                _mm256_cvtepu8_epi16(_mm256_castsi256_si128(b)),
                _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(b)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(mut self, weights: [__m256i; 4], x: &Inputs, step: usize) -> Self {
        let x = unsafe { _mm256_broadcastq_epi64(_mm_loadl_epi64(x.whole[step].as_ptr().cast())) };
        for (sum, weights) in self.0.iter_mut().zip(weights) {
            *sum = unsafe { _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, x)) };
        }
        self
    }

    #[inline(always)]
    unsafe fn scales(line: &Bf16Line) -> [__m256; 2] {
        unsafe { scales(line) }
    }

    #[inline(always)]
    unsafe fn scaled(self, offset: i32, scale: f32, scales: [__m256; 2], total: [__m256; 2]) -> [__m256; 2] {
        unsafe { scaled(self.whole(offset), scale, scales, total) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> [__m256; 2] {
        [unsafe { _mm256_setzero_ps() }; 2]
    }

    #[inline(always)]
    unsafe fn store(floats: [__m256; 2]) -> Line {
        unsafe { store(floats) }
    }

    #[inline(always)]
    unsafe fn prefetch(bytes: &Bytes, distance: usize) {
        unsafe { prefetch(bytes, distance) }
    }

    #[cfg(test)]
    unsafe fn integers(self, offset: i32) -> [i32; 16] {
        unsafe { std::mem::transmute(self.whole(offset)) }
    }
}

/// Two AVX registers, for weights of half a byte: every output has a 16-bit lane for its even and one for its odd pair
/// of inputs. Eight steps, a whole group, add up to 8 * 2 * 15 * 127 at most, so nothing saturates or wraps.
#[derive(Clone, Copy)]
pub struct Halfwise([__m256i; 2]);

impl Halfwise {
    /// # Safety
    /// As the trait.
    #[inline(always)]
    unsafe fn whole(self, offset: i32) -> [__m256i; 2] {
        // SAFETY: the trait's contract gives the features.
        unsafe {
            let (one, offset) = (_mm256_set1_epi16(1), _mm256_set1_epi32(offset));
            let (a, b) = (_mm256_madd_epi16(self.0[0], one), _mm256_madd_epi16(self.0[1], one));
            [_mm256_sub_epi32(a, offset), _mm256_sub_epi32(b, offset)]
        }
    }
}

impl Dots for Halfwise {
    type Weights = [__m256i; 2];
    type Floats = [__m256; 2];
    const ROWS: usize = 2;
    const LIGHT: usize = 0;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([unsafe { _mm256_setzero_si256() }; 2])
    }

    #[inline(always)]
    unsafe fn weights(bytes: &Bytes, part: usize) -> [__m256i; 2] {
        unsafe { nibbles(bytes, part) }
    }

    #[inline(always)]
    unsafe fn add(mut self, weights: [__m256i; 2], x: &Inputs, step: usize) -> Self {
        let x = i32::from_ne_bytes(x.coarse[step].map(|x| x as u8));
        for (sum, weights) in self.0.iter_mut().zip(weights) {
            *sum = unsafe { _mm256_add_epi16(*sum, _mm256_maddubs_epi16(weights, _mm256_set1_epi32(x))) };
        }
        self
    }

    #[inline(always)]
    unsafe fn scales(line: &Bf16Line) -> [__m256; 2] {
        unsafe { scales(line) }
    }

    #[inline(always)]
    unsafe fn scaled(self, offset: i32, scale: f32, scales: [__m256; 2], total: [__m256; 2]) -> [__m256; 2] {
        unsafe { scaled(self.whole(offset), scale, scales, total) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> [__m256; 2] {
        [unsafe { _mm256_setzero_ps() }; 2]
    }

    #[inline(always)]
    unsafe fn store(floats: [__m256; 2]) -> Line {
        unsafe { store(floats) }
    }

    #[inline(always)]
    unsafe fn prefetch(bytes: &Bytes, distance: usize) {
        unsafe { prefetch(bytes, distance) }
    }

    #[cfg(test)]
    unsafe fn integers(self, offset: i32) -> [i32; 16] {
        unsafe { std::mem::transmute(self.whole(offset)) }
    }
}

// SAFETY (what follows): as above; callers are the trait's methods.

#[inline(always)]
unsafe fn halves(bytes: &Bytes) -> [__m256i; 2] {
    unsafe { [_mm256_load_si256(bytes.0.as_ptr().cast()), _mm256_load_si256(bytes.0[32..].as_ptr().cast())] }
}

#[inline(always)]
unsafe fn nibbles(bytes: &Bytes, part: usize) -> [__m256i; 2] {
    unsafe {
        let ([a, b], mask) = (halves(bytes), _mm256_set1_epi8(15));
        if part == 0 {
            return [_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)];
        }
        let (a, b) = (_mm256_srli_epi16::<4>(a), _mm256_srli_epi16::<4>(b));
        [_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)]
    }
}

#[inline(always)]
unsafe fn scales(line: &Bf16Line) -> [__m256; 2] {
    unsafe {
        let a = _mm256_cvtepu16_epi32(_mm_load_si128(line.0.as_ptr().cast()));
        let b = _mm256_cvtepu16_epi32(_mm_load_si128(line.0[8..].as_ptr().cast()));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b))]
    }
}

#[inline(always)]
unsafe fn scaled(sums: [__m256i; 2], scale: f32, scales: [__m256; 2], total: [__m256; 2]) -> [__m256; 2] {
    unsafe {
        let scale = _mm256_set1_ps(scale);
        let (a, b) = (_mm256_mul_ps(scale, scales[0]), _mm256_mul_ps(scale, scales[1]));
        [
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[0]), a, total[0]),
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[1]), b, total[1]),
        ]
    }
}

#[inline(always)]
unsafe fn store(floats: [__m256; 2]) -> Line {
    let mut line = Line::ZERO;
    for (half, floats) in floats.into_iter().enumerate() {
        unsafe { _mm256_store_ps(line.0[8 * half..].as_mut_ptr(), floats) };
    }
    line
}

#[inline(always)]
pub(in crate::kernel) unsafe fn prefetch(bytes: &Bytes, distance: usize) {
    // Into the second cache: the first has no room, and few misses of it can be under way. A prefetch of an address
    // without memory is dropped.
    let ahead = std::ptr::from_ref(bytes).cast::<i8>().wrapping_add(distance);
    unsafe { _mm_prefetch::<_MM_HINT_T1>(ahead) };
}
