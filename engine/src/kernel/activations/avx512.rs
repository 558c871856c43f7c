//! One group of activations as integers by AVX-512, with the numbers of the plain code: the compiler makes of that twice the
//! time, most of it for the sums. Any thread; no allocation.

use std::arch::x86_64::*;

use super::{CHUNK, FINE, GROUP, Head, ROUNDER, scale_and_ratio};

/// Sums over each of four registers, in their order.
#[target_feature(enable = "avx512f")]
fn sums([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    // Each lane of 128 bits has sums of two numbers, of four, and then lanes are added.
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
    let quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let mut sums = [0; 4];
    // SAFETY: four numbers of 32 bits; unaligned.
    unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), quarter) };
    sums
}

/// One group.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
pub fn quantise_group(
    x: &[f32; GROUP],
    coarse: &mut [i8; GROUP],
    fine: &mut [i8; GROUP],
    whole: &mut [i16; GROUP],
    heads: &mut [Head; GROUP / CHUNK],
) {
    const LINES: usize = GROUP / 16;
    let mut lines = [_mm512_setzero_ps(); LINES];
    let mut most = _mm512_setzero_si512();
    for (line, x) in lines.iter_mut().zip(x.as_chunks::<16>().0) {
        // SAFETY: sixteen floats; unaligned.
        *line = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        let size = _mm512_and_si512(_mm512_castps_si512(*line), _mm512_set1_epi32(0x7fff_ffff));
        most = _mm512_max_epu32(most, size);
    }
    let (scale, ratio) = scale_and_ratio(f32::from_bits(_mm512_reduce_max_epu32(most)));
    // What is not finite times zero is no zero.
    let keep = _mm512_set1_epi32(if ratio == 0.0 { 0 } else { -1 });
    let (ratio, ones) = (_mm512_set1_ps(ratio), _mm512_set1_ps(ROUNDER));
    let (mut steps, mut near) = ([_mm512_setzero_si512(); LINES], [_mm512_setzero_si512(); LINES]);
    let out = coarse.as_chunks_mut::<16>().0.iter_mut().zip(fine.as_chunks_mut::<16>().0);
    for (i, ((coarse, fine), whole)) in out.zip(whole.as_chunks_mut::<16>().0).enumerate() {
        let kept = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(lines[i]), keep));
        // Not fused: the plain code rounds the product, too.
        let shifted = _mm512_add_ps(_mm512_mul_ps(kept, ratio), ones);
        steps[i] = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(ones));
        near[i] = _mm512_srai_epi32::<8>(_mm512_add_epi32(steps[i], _mm512_set1_epi32(FINE / 2)));
        let rest = _mm512_sub_epi32(steps[i], _mm512_slli_epi32::<8>(near[i]));
        // SAFETY: sixteen numbers of 8, 8 and 16 bits; unaligned.
        unsafe {
            _mm_storeu_si128(coarse.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(near[i]));
            _mm_storeu_si128(fine.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rest));
            _mm256_storeu_si256(whole.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(steps[i]));
        }
    }
    let pair = |of: &[__m512i; LINES], chunk: usize| _mm512_add_epi32(of[2 * chunk], of[2 * chunk + 1]);
    let [near_0, steps_0, near_1, steps_1] = sums([pair(&near, 0), pair(&steps, 0), pair(&near, 1), pair(&steps, 1)]);
    *heads = [Head { scale, coarse: near_0, whole: steps_0 }, Head { scale, coarse: near_1, whole: steps_1 }];
}
