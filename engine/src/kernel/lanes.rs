//! Sixteen floats at a time, on three instruction paths. Any thread. The only intrinsics of the engine are here: LLVM gives
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
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
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
    use super::{LANES, Lanes, Line};
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
