//! exp, tanh, sigmoid and erf in plain f32 that vectorises: libm's are slow, and differ between platforms. Any thread.
//! exp: reduction by powers of two and a Taylor polynomial; erf: two Chebyshev fits, of `erf(z) / z` in `z^2` below 1
//! and of `erfc(z) exp(z^2)` in `1 / (1 + z / 2)` above.

use std::f32::consts::{FRAC_2_SQRT_PI, LOG2_E};

/// 1.5 * 2^23: past it a float's last bit counts ones, so adding this rounds to the nearest whole number, halves to even, and leaves
/// it in the low bits. On every instruction path alike, where the method would call into libm on a baseline processor.
pub const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few enough bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `x = n ln 2 + r`: gives `2^n` and `e^r - 1`.
#[inline(always)]
fn reduce(x: f32) -> (f32, f32) {
    let rounded = x * LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23);
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0] {
        p = p * r + c;
    }
    (power, p * r)
}

/// `e^x`, clamped to finite results; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (power, p) = reduce(x.clamp(-87.0, 88.0));
    power + power * p
}

/// `e^x - 1` without cancellation near 0, for the same range as [`exp`].
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let (power, p) = reduce(x.clamp(-87.0, 88.0));
    power * p + (power - 1.0)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let t = exp_m1(-2.0 * x.abs());
    (-t / (t + 2.0)).copysign(x)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Error function.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let z = x.abs();
    let w = z * z;
    let mut near = -9.673_59e-6;
    for c in [
        1.126_825_4e-4,
        -8.484_396_4e-4,
        5.221_053_5e-3,
        -2.686_543_8e-2,
        1.128_378_3e-1,
        -3.761_263_8e-1,
        FRAC_2_SQRT_PI,
    ] {
        near = near * w + c;
    }
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut far = 7.338_687e-2;
    for c in [
        -1.603_549_9e-1,
        -9.531_031e-3,
        1.322_563_1e-1,
        1.453_501_1e-1,
        2.566_746e-1,
        2.803_367e-1,
        2.822_630_7e-1,
        -6.718_491_5e-6,
    ] {
        far = far * t + c;
    }
    let magnitude = if z < 1.0 { z * near } else { 1.0 - exp(-w) * far };
    magnitude.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(low: f64, high: f64) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| (low + (high - low) * f64::from(i) / 200_000.0) as f32)
    }

    fn worst(range: (f64, f64), ours: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        sweep(range.0, range.1)
            .filter(|&x| exact(f64::from(x)) != 0.0)
            .map(|x| (f64::from(ours(x)) / exact(f64::from(x)) - 1.0).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponentials_are_good_to_a_few_units_in_the_last_place() {
        assert!(worst((-86.0, 87.0), exp, f64::exp) < 2.5e-7);
        assert!(worst((-20.0, 20.0), exp_m1, f64::exp_m1) < 3e-7);
        assert!(worst((-12.0, 12.0), tanh, f64::tanh) < 4e-7);
        assert!(worst((-30.0, 30.0), sigmoid, |x| 1.0 / (1.0 + (-x).exp())) < 4e-7);
    }

    /// `2/sqrt(pi)` times the integral of `exp(-t^2)`, by its Taylor series in f64 (good to 1e-12 up to 4).
    fn erf_exact(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn erf_is_good_to_a_few_units_in_the_last_place() {
        assert!(worst((-4.0, 4.0), erf, erf_exact) < 3e-7);
        assert_eq!(erf(7.0), 1.0);
        assert_eq!(erf(-7.0), -1.0);
    }

    #[test]
    fn the_ends_are_finite_and_nan_survives() {
        for f in [exp, exp_m1, tanh, sigmoid, erf] {
            assert!(f(f32::INFINITY).is_finite() && f(f32::NEG_INFINITY).is_finite());
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!(tanh(0.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }
}
