//! Dot products by AVX-512 VNNI. Any thread.

use std::arch::x86_64::*;

use super::{Bf16Line, Bytes, Dots, Inputs, Line};

/// One AVX-512 register for each of `P` bytes of the activations.
#[derive(Clone, Copy)]
pub struct Wide<const P: usize>([__m512i; P]);

impl<const P: usize> Wide<P> {
    /// # Safety
    /// As the trait.
    #[inline(always)]
    unsafe fn whole(self, offset: i32) -> __m512i {
        // SAFETY: the trait's contract gives the features.
        unsafe {
            let sum =
                if P == 2 { _mm512_add_epi32(_mm512_slli_epi32::<8>(self.0[0]), self.0[P - 1]) } else { self.0[0] };
            _mm512_sub_epi32(sum, _mm512_set1_epi32(offset))
        }
    }
}

// SAFETY (every block): the trait's contract gives the features; `Bytes`, `Line` and `Bf16Line` are
// as long and as aligned as the loads want.
impl<const P: usize> Dots for Wide<P> {
    type Weights = __m512i;
    type Floats = __m512;
    const ROWS: usize = 4 / P;
    const LIGHT: usize = if P == 2 { 2 } else { 0 };

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([unsafe { _mm512_setzero_si512() }; P])
    }

    #[inline(always)]
    unsafe fn weights(bytes: &Bytes, part: usize) -> __m512i {
        unsafe {
            let bytes = _mm512_load_si512(bytes.0.as_ptr().cast());
            if P == 2 {
                return bytes;
            }
            let shifted = if part == 0 { bytes } else { _mm512_srli_epi16::<4>(bytes) };
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn add(mut self, weights: __m512i, x: &Inputs, step: usize) -> Self {
        let planes = [x.coarse, x.fine];
        for (sum, x) in self.0.iter_mut().zip(planes) {
            let x = i32::from_ne_bytes(x[step].map(|x| x as u8));
            *sum = unsafe { _mm512_dpbusd_epi32(*sum, weights, _mm512_set1_epi32(x)) };
        }
        self
    }

    #[inline(always)]
    unsafe fn scales(scales: &Bf16Line) -> __m512 {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_load_si256(scales.0.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn scaled(self, offset: i32, scale: f32, scales: __m512, total: __m512) -> __m512 {
        unsafe {
            let scale = _mm512_mul_ps(_mm512_set1_ps(scale), scales);
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(self.whole(offset)), scale, total)
        }
    }

    #[inline(always)]
    unsafe fn no_floats() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn store(floats: __m512) -> Line {
        let mut line = Line::ZERO;
        unsafe { _mm512_store_ps(line.0.as_mut_ptr(), floats) };
        line
    }

    #[inline(always)]
    unsafe fn prefetch(bytes: &Bytes, distance: usize) {
        unsafe { super::avx2::prefetch(bytes, distance) }
    }

    #[cfg(test)]
    unsafe fn integers(self, offset: i32) -> [i32; 16] {
        unsafe { std::mem::transmute(self.whole(offset)) }
    }
}
