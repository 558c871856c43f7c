//! Eight-bit weights with a scale for every 64 inputs of every output: 0.6 % of error at half the size of f16. Any
//! thread.

use crate::kernel::activations::{GROUP, Head};
use crate::kernel::dots::Portable;
#[cfg(target_arch = "x86_64")]
use crate::kernel::dots::{avx2, avx512};
use crate::kernel::quantised::{Format, Quantised, nearest};

/// A linear layer of 8-bit weights.
pub type Int8Linear = Quantised<Int8>;

/// `scale * (byte - 128)` with bytes in 1..=255.
pub struct Int8;

impl Format for Int8 {
    const GROUP: usize = GROUP;
    const PARTS: usize = 1;
    const ZERO: u8 = 128;

    // Eight bits of the activations would add as much error as the weights have.
    type Plain = Portable<2>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = avx2::Bytewise;
    #[cfg(target_arch = "x86_64")]
    type Pair = avx2::Pair<2>;
    #[cfg(target_arch = "x86_64")]
    type Wide = avx512::Wide<2>;

    fn scale(weights: &[f32]) -> f32 {
        if !weights.iter().all(|w| w.is_finite()) {
            return f32::NAN;
        }
        let largest = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let mut best = (f32::INFINITY, 0.0);
        // A few of the largest may be cut off where that suits the others.
        for range in [127.0, 129.0, 131.0, 133.0, 136.0, 139.0, 142.0, 146.0] {
            // Up to the next bf16, so that the largest weight stays within 127 steps of the first.
            let scale = f32::from_bits((largest / range).to_bits().next_multiple_of(1 << 16));
            if scale < f32::MIN_POSITIVE {
                return 0.0;
            }
            let error = |w: &f32| (w - (nearest((w / scale).clamp(-127.0, 127.0)) * scale)).powi(2);
            let error = weights.iter().map(error).sum();
            if error < best.0 {
                best = (error, scale);
            }
        }
        best.1
    }

    #[inline(always)]
    fn cell(steps: f32) -> u8 {
        (nearest(steps.clamp(-127.0, 127.0)) as i32 + 128) as u8
    }

    #[inline(always)]
    fn seen(head: &Head) -> (i32, f32) {
        (head.whole, head.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::quantised::tests;

    #[test]
    fn arithmetic_is_that_of_the_quantised_values() {
        tests::follows_its_own_numbers::<Int8>(0.007);
    }

    #[test]
    fn bits_depend_on_nothing_else() {
        tests::keeps_its_bits::<Int8>();
    }

    #[test]
    fn extremes() {
        tests::survives_extremes::<Int8>();
    }

    #[test]
    fn large_channels_do_not_drown_the_rest() {
        let (outputs, inputs, rows) = (256, 4096, 2);
        let (w, mut x) = (tests::normal(outputs * inputs, 1), tests::normal(rows * inputs, 2));
        for x in x.chunks_mut(1024) {
            for channel in [17, 200, 201, 555, 990] {
                x[channel] *= 50.0;
            }
        }
        let y = tests::forward(&Int8Linear::new(&w, None, outputs, inputs), &x, rows);
        let off = tests::error(&tests::product(&w, &x, outputs, inputs), &y);
        assert!(off < 0.007, "{off}");
    }
}
