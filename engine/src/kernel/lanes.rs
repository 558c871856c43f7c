//! Sixteen floats at a time, on three instruction paths. Any thread. Intrinsics are here and in `dots`: LLVM gives
//! up unrolling several accumulators of sixteen array elements each.

/// Floats in one line: one AVX-512 register, one cache line.
pub const LANES: usize = 16;

/// Sixteen neighbouring values, aligned so that no vector load straddles a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

impl Line {
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Sixteen neighbouring half-precision values.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct F16Line(pub [u16; LANES]);

/// Sixteen neighbouring values with the exponent of f32 and seven bits of fraction.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Bf16Line(pub [u16; LANES]);

/// Sixteen weights as they are stored; in registers they are f32.
pub trait Cell: Copy {
    const ZERO: Self;

    /// # Safety
    /// The caller has the target features of `V`.
    unsafe fn lanes<V: Lanes>(&self) -> V;

    /// Stores one value if it can be stored without loss.
    fn put(&mut self, lane: usize, value: f32) -> bool;

    /// Stores the nearest value that can be stored.
    fn round(&mut self, lane: usize, value: f32) {
        self.put(lane, value);
    }
}

impl Cell for Line {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    unsafe fn lanes<V: Lanes>(&self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(self) }
    }

    fn put(&mut self, lane: usize, value: f32) -> bool {
        self.0[lane] = value;
        true
    }
}

impl Cell for F16Line {
    const ZERO: Self = Self([0; LANES]);

    #[inline(always)]
    unsafe fn lanes<V: Lanes>(&self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(self) }
    }

    fn put(&mut self, lane: usize, value: f32) -> bool {
        let Some(bits) = f16_bits(value) else { return false };
        self.0[lane] = bits;
        true
    }
}

impl Cell for Bf16Line {
    const ZERO: Self = Self([0; LANES]);

    #[inline(always)]
    unsafe fn lanes<V: Lanes>(&self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(self) }
    }

    fn put(&mut self, lane: usize, value: f32) -> bool {
        let bits = value.to_bits();
        self.0[lane] = (bits >> 16) as u16;
        bits & 0xffff == 0
    }

    #[inline(always)]
    fn round(&mut self, lane: usize, value: f32) {
        // To the nearest, ties to even; what is no number stays none, even where its low bits alone say so.
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        self.0[lane] = if value.is_nan() { 0x7fc0 } else { nearest as u16 };
    }
}

/// A value's half-precision bits, where it has any of its own.
fn f16_bits(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32 - 127, bits & 0x7f_ffff);
    match exponent {
        -14..=15 if fraction & 0x1fff == 0 => Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16),
        // Multiples of the smallest subnormal, zero among them.
        -127..=-15 => {
            let steps = value.abs() * 16_777_216.0;
            (steps.fract() == 0.0).then_some(sign | steps as u16)
        }
        _ => None,
    }
}

/// The nearest value that half precision has, ties to even. What is beyond its range or no number is left as it is.
pub fn nearest_half(value: f32) -> f32 {
    // The smallest normal number, and the step of those below it.
    const NORMAL: f32 = 6.103_515_6e-5;
    const STEPS: f32 = 16_777_216.0;
    if value.abs() < NORMAL {
        return (value * STEPS).round_ties_even() / STEPS;
    }
    let bits = value.to_bits();
    let nearest = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff);
    if nearest.abs() <= 65_504.0 { nearest } else { value }
}

/// The value that half-precision bits stand for.
fn f16_value(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Instruction path, chosen once per process. Bits are equal within a path, not across the fused and the portable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Avx512,
    Avx2,
    Portable,
}

impl Path {
    /// The fastest path of this processor.
    pub fn detect() -> Self {
        // std caches the CPUID answer: this is one atomic load after the first call.
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Path::Avx512;
            }
            let features = is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if is_x86_feature_detected!("avx2") && features {
                return Path::Avx2;
            }
        }
        Path::Portable
    }

    /// Every path that this processor has.
    #[cfg(test)]
    pub fn all() -> impl Iterator<Item = Self> {
        let fused = Self::detect() != Self::Portable;
        let wide = Self::detect() == Self::Avx512;
        [(true, Self::Portable), (fused, Self::Avx2), (wide, Self::Avx512)]
            .into_iter()
            .filter_map(|(has, path)| has.then_some(path))
    }

    /// Widest tile in lines: what leaves room in the register file for several rows of accumulators.
    pub fn max_lines(self) -> usize {
        match self {
            Path::Avx512 => 4,
            Path::Avx2 => 2,
            Path::Portable => 1,
        }
    }
}

/// Sixteen lanes in registers.
///
/// # Safety
/// Every method needs the target features of the implementing type.
pub trait Lanes: Copy {
    unsafe fn load(line: &Line) -> Self;
    unsafe fn load_f16(line: &F16Line) -> Self;
    unsafe fn load_bf16(line: &Bf16Line) -> Self;
    unsafe fn splat(x: f32) -> Self;
    /// `self + a * b`
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn store(self) -> Line;
}

/// Plain Rust lanes, multiplied and added in two roundings.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Lanes for Portable {
    #[inline(always)]
    unsafe fn load(line: &Line) -> Self {
        Portable(line.0)
    }

    #[inline(always)]
    unsafe fn load_f16(line: &F16Line) -> Self {
        Portable(line.0.map(f16_value))
    }

    #[inline(always)]
    unsafe fn load_bf16(line: &Bf16Line) -> Self {
        Portable(line.0.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Portable([x; LANES])
    }

    #[inline(always)]
    unsafe fn add_product(mut self, a: Self, b: Self) -> Self {
        for (sum, (a, b)) in self.0.iter_mut().zip(a.0.iter().zip(&b.0)) {
            *sum += a * b;
        }
        self
    }

    #[inline(always)]
    unsafe fn store(self) -> Line {
        Line(self.0)
    }
}

/// The x86 registers. Intrinsics rather than arrays: LLVM gives up unrolling 16 accumulators of 16 lanes.
#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use super::{Bf16Line, F16Line, LANES, Lanes, Line};
    use std::arch::x86_64::*;

    /// One AVX-512 register.
    #[derive(Clone, Copy)]
    pub struct Wide(__m512);

    // SAFETY (both impls): the trait's contract gives the features; `Line` is 16 aligned floats.
    impl Lanes for Wide {
        #[inline(always)]
        unsafe fn load(line: &Line) -> Self {
            Wide(unsafe { _mm512_load_ps(line.0.as_ptr()) })
        }

        #[inline(always)]
        unsafe fn load_f16(line: &F16Line) -> Self {
            Wide(unsafe { _mm512_cvtph_ps(_mm256_load_si256(line.0.as_ptr().cast())) })
        }

        #[inline(always)]
        unsafe fn load_bf16(line: &Bf16Line) -> Self {
            let bits = unsafe { _mm512_cvtepu16_epi32(_mm256_load_si256(line.0.as_ptr().cast())) };
            Wide(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)) })
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Wide(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            Wide(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn store(self) -> Line {
            let mut line = Line([0.0; LANES]);
            unsafe { _mm512_store_ps(line.0.as_mut_ptr(), self.0) };
            line
        }
    }

    /// Two AVX registers.
    #[derive(Clone, Copy)]
    pub struct Pair(__m256, __m256);

    impl Lanes for Pair {
        #[inline(always)]
        unsafe fn load(line: &Line) -> Self {
            unsafe { Pair(_mm256_load_ps(line.0.as_ptr()), _mm256_load_ps(line.0[8..].as_ptr())) }
        }

        #[inline(always)]
        unsafe fn load_f16(line: &F16Line) -> Self {
            let half = |from: usize| unsafe { _mm256_cvtph_ps(_mm_load_si128(line.0[from..].as_ptr().cast())) };
            Pair(half(0), half(8))
        }

        #[inline(always)]
        unsafe fn load_bf16(line: &Bf16Line) -> Self {
            let half = |from: usize| unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_load_si128(line.0[from..].as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            };
            Pair(half(0), half(8))
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Pair(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Pair(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }

        #[inline(always)]
        unsafe fn store(self) -> Line {
            let mut line = Line([0.0; LANES]);
            unsafe {
                _mm256_store_ps(line.0.as_mut_ptr(), self.0);
                _mm256_store_ps(line.0[8..].as_mut_ptr(), self.1);
            }
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_stored_only_where_nothing_is_lost() {
        for bits in 0..=u16::MAX {
            let value = f16_value(bits);
            // Infinities and the like are no weights.
            let expected = (bits & 0x7c00 != 0x7c00).then_some(bits);
            assert_eq!(f16_bits(value), expected, "{bits:#06x} is {value}");
        }
        for odd in [1.000_1, 65_536.0, 1e-9, 0.1, f32::MIN_POSITIVE, 1.0 + f32::EPSILON] {
            assert_eq!((f16_bits(odd), f16_bits(-odd)), (None, None), "{odd}");
        }
        let (mut half, mut brain) = (F16Line::ZERO, Bf16Line::ZERO);
        assert!(
            half.put(3, -0.333_251_95) && !half.put(3, 0.1) && brain.put(0, 2f32.powi(100)) && !brain.put(0, 1.001)
        );
    }

    #[test]
    fn halves_round_to_the_nearest() {
        for bits in (0..=u16::MAX).filter(|bits| bits & 0x7c00 != 0x7c00) {
            let value = f16_value(bits);
            assert_eq!(nearest_half(value).to_bits(), value.to_bits());
            // A little more or less comes back; half-way goes to the even one.
            let next = f16_value(bits + 1);
            if (bits + 1) & 0x7c00 != 0x7c00 {
                let (near, far, middle) =
                    (value + 0.3 * (next - value), value + 0.7 * (next - value), 0.5 * (value + next));
                let even = if bits & 1 == 0 { value } else { next };
                assert_eq!([near, far, middle].map(nearest_half), [value, next, even], "{bits:#06x}");
            }
        }
        for left in [1e6, -70_000.0, f32::INFINITY] {
            assert_eq!(nearest_half(left), left);
        }
        assert!(nearest_half(f32::NAN).is_nan() && f16_bits(nearest_half(0.1)).is_some());
    }

    #[test]
    fn brain_floats_round_to_the_nearest() {
        let mut line = Bf16Line::ZERO;
        let mut round = |value: f32| {
            line.round(0, value);
            f32::from_bits(u32::from(line.0[0]) << 16)
        };
        // 1 + 1/128 is the next one after 1: half of it is a tie and goes to the even one, which is 1.
        assert_eq!((round(1.0 + 1.0 / 256.0), round(1.0 + 3.0 / 256.0)), (1.0, 1.0 + 4.0 / 256.0));
        assert_eq!((round(1.0 + 1.1 / 256.0), round(-0.0), round(1e-40)), (1.0 + 1.0 / 128.0, 0.0, 2f32.powi(-133)));
        assert!(round(f32::NAN).is_nan() && round(f32::from_bits(0x7f80_0001)).is_nan());
        assert_eq!((round(f32::MAX), round(f32::NEG_INFINITY)), (f32::INFINITY, f32::NEG_INFINITY));
    }

    #[test]
    fn every_path_reads_what_was_stored() {
        let (mut half, mut brain, mut full) = (F16Line::ZERO, Bf16Line::ZERO, Line::ZERO);
        for lane in 0..LANES {
            let value = (lane as f32 - 7.5) * 0.062_5 * if lane == 3 { 5.960_464_5e-8 } else { 1.0 };
            assert!(half.put(lane, value) || lane == 3);
            assert!(brain.put(lane, value) && full.put(lane, value));
        }
        assert!(half.put(3, 5.960_464_5e-8) && f16_value(half.0[3]) == 5.960_464_5e-8);
        let mut halves = full;
        halves.0[3] = 5.960_464_5e-8;
        for path in Path::all() {
            // SAFETY: only paths that this processor has.
            let (a, b) = unsafe {
                match path {
                    #[cfg(target_arch = "x86_64")]
                    Path::Avx512 => (half.lanes::<x86::Wide>().store(), brain.lanes::<x86::Wide>().store()),
                    #[cfg(target_arch = "x86_64")]
                    Path::Avx2 => (half.lanes::<x86::Pair>().store(), brain.lanes::<x86::Pair>().store()),
                    _ => (half.lanes::<Portable>().store(), brain.lanes::<Portable>().store()),
                }
            };
            assert_eq!((a.0, b.0), (halves.0, full.0), "{path:?}");
        }
    }
}
