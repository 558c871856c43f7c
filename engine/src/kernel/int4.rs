//! Four-bit weights with a scale for every 32 inputs of every output, for processors whose memory is slow. Any thread.

use crate::kernel::activations::{CHUNK, Head};
use crate::kernel::dots::Portable;
#[cfg(target_arch = "x86_64")]
use crate::kernel::dots::{avx2, avx512};
use crate::kernel::quantised::{Format, Quantised, nearest};

/// A linear layer of 4-bit weights.
pub type Int4Linear = Quantised<Int4>;

/// `scale * (nibble - 8)`; the scale may be negative.
pub struct Int4;

impl Format for Int4 {
    const GROUP: usize = CHUNK;
    const PARTS: usize = 2;
    const ZERO: u8 = 8;

    // One byte of the activations: the weights' error is ten times larger.
    type Plain = Portable<1>;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = avx2::Halfwise;
    #[cfg(target_arch = "x86_64")]
    type Pair = avx2::Pair<1>;
    #[cfg(target_arch = "x86_64")]
    type Wide = avx512::Wide<1>;

    fn scale(weights: &[f32]) -> f32 {
        if !weights.iter().all(|w| w.is_finite()) {
            return f32::NAN;
        }
        let mut group = [0.0; CHUNK];
        group[..weights.len()].copy_from_slice(weights);
        let largest = group.iter().fold(0.0f32, |most, w| if w.abs() > most.abs() { *w } else { most });
        if largest.abs() < 1e-30 {
            return 0.0;
        }
        let mut best = (f32::INFINITY, 0.0);
        // Where the largest weight comes to lie; -8 is one step further out than 7.
        for steps in [-8.75, -8.25, -7.75, -7.25, -6.75, 6.5, 7.0, 7.5] {
            let mut scale = bf16(largest / steps);
            // Once more with the scale that suits these cells best.
            for _ in 0..2 {
                let (mut product, mut square, mut error) = (0.0, 0.0, 0.0);
                let ratio = 1.0 / scale;
                for w in group {
                    let q = quantum(w * ratio);
                    product += w * q;
                    square += q * q;
                    error += (w - q * scale) * (w - q * scale);
                }
                if error < best.0 {
                    best = (error, scale);
                }
                scale = bf16(product / square);
            }
        }
        best.1
    }

    #[inline(always)]
    fn cell(steps: f32) -> u8 {
        (quantum(steps) as i32 + 8) as u8
    }

    #[inline(always)]
    fn seen(head: &Head) -> (i32, f32) {
        (head.coarse, head.coarse_scale())
    }
}

/// The nearest of the sixteen values, in steps.
#[inline(always)]
fn quantum(steps: f32) -> f32 {
    nearest(steps.clamp(-8.0, 7.0))
}

/// The nearest bf16.
fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::quantised::tests;

    #[test]
    fn arithmetic_is_that_of_the_quantised_values() {
        tests::follows_its_own_numbers::<Int4>(0.1);
    }

    #[test]
    fn bits_depend_on_nothing_else() {
        tests::keeps_its_bits::<Int4>();
    }

    #[test]
    fn extremes() {
        tests::survives_extremes::<Int4>();
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
        let y = tests::forward(&Int4Linear::new(&w, None, outputs, inputs), &x, rows);
        let off = tests::error(&tests::product(&w, &x, outputs, inputs), &y);
        assert!(off < 0.11, "{off}");
    }
}
