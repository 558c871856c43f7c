//! The last thing before the host's buffers: no sample above full scale, none that is no number, none too small to be
//! normal. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

/// Samples up to here (-1 dBFS) pass bit for bit.
pub const KNEE: f32 = 0.891_250_94;

/// What is left above the knee.
const ROOM: f32 = 1.0 - KNEE;

/// Bends what is above the knee: 1 in slope there, ever nearer to full scale above. It has no memory, so a sample never
/// depends on another one and the sound below the knee is untouched, before and after a peak. Division and addition alone,
/// which are the same on every machine.
///
/// # Realtime safety
/// Arithmetic.
pub fn limit(samples: &mut [f32]) {
    for sample in samples {
        let level = sample.abs();
        if level <= KNEE {
            // Hosts' effects slow down on subnormals; nobody hears them.
            if sample.is_subnormal() {
                *sample = 0.0;
            }
            continue;
        }
        let over = (level - KNEE) / ROOM;
        let bent = KNEE + ROOM * (1.0 - 1.0 / (1.0 + over));
        *sample = if level.is_finite() { bent.min(1.0).copysign(*sample) } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(sample: f32) -> f32 {
        let mut samples = [sample];
        limit(&mut samples);
        samples[0]
    }

    #[test]
    fn below_the_knee_every_bit_stays() {
        let steps = (0..=1_000_000).map(|step| step as f32 / 1_000_000.0 * KNEE);
        for sample in steps.chain([f32::MIN_POSITIVE, 1e-30, KNEE]).filter(|sample| sample.is_normal()) {
            assert_eq!(limited(sample).to_bits(), sample.to_bits());
            assert_eq!(limited(-sample).to_bits(), (-sample).to_bits());
        }
        assert_eq!([0.0, -0.0].map(|zero: f32| limited(zero).to_bits()), [0.0f32.to_bits(), (-0.0f32).to_bits()]);
    }

    #[test]
    fn above_it_the_curve_rises_without_a_corner_and_never_passes_full_scale() {
        let mut last = KNEE;
        for step in 1..=400_000 {
            let sample = KNEE + step as f32 * 1e-5;
            let out = limited(sample);
            assert!(out >= last && out <= 1.0 && out <= sample, "{sample}: {out} after {last}");
            assert!(out - last <= 1.2e-5, "a corner at {sample}");
            assert_eq!(limited(-sample), -out);
            last = out;
        }
        // 12 dB of gain on a sample at full scale.
        assert!((0.99..1.0).contains(&limited(3.98)));
        assert_eq!((limited(f32::MAX), limited(f32::MIN)), (1.0, -1.0));
    }

    #[test]
    fn what_is_no_number_or_too_small_is_silence() {
        for sample in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE / 2.0, f32::from_bits(1)] {
            assert_eq!((limited(sample), limited(-sample)), (0.0, 0.0), "{sample}");
        }
    }
}
