//! The frame clock: where frame boundaries lie in host samples after an anchor. Pure arithmetic, audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use tiller_engine::link::StreamFormat;

/// Converts between frames of the model and samples of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameClock {
    /// Host rate times samples per frame: exact for every integral rate.
    scaled: f64,
    model_rate: f64,
}

impl FrameClock {
    /// `rate`: samples per second of the host.
    pub fn new(format: StreamFormat, rate: f64) -> Self {
        Self { scaled: rate * format.frame_samples as f64, model_rate: f64::from(format.model_rate) }
    }

    /// First sample of frame `index`, counted from the anchor: floor(index x rate x frame / model_rate).
    pub fn boundary(&self, index: u32) -> i64 {
        (f64::from(index) * self.scaled / self.model_rate).floor() as i64
    }

    /// Host samples in one frame, not rounded.
    pub fn frame_length(&self) -> f64 {
        self.scaled / self.model_rate
    }

    /// The frame that holds `sample` (0 before the anchor).
    pub fn frame_at(&self, sample: i64) -> u32 {
        let mut index = (sample.max(0) as f64 / self.frame_length()) as u32;
        // The division may land on the wrong side of a boundary; the boundaries decide.
        while self.boundary(index + 1) <= sample {
            index += 1;
        }
        while index > 0 && self.boundary(index) > sample {
            index -= 1;
        }
        index
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_at_whole_and_odd_rates() {
        let at_48k = FrameClock::new(StreamFormat::PUBLISHED, 48_000.0);
        assert_eq!([0, 1, 25, 50].map(|k| at_48k.boundary(k)), [0, 960, 24_000, 48_000]);
        let at_44k1 = FrameClock::new(StreamFormat::PUBLISHED, 44_100.0);
        assert_eq!([1, 2, 3].map(|k| at_44k1.boundary(k)), [882, 1_764, 2_646]);
        let at_11k = FrameClock::new(StreamFormat::PUBLISHED, 11_025.0);
        assert_eq!([1, 2, 3, 4].map(|k| at_11k.boundary(k)), [220, 441, 661, 882]);
    }

    #[test]
    fn a_day_does_not_drift() {
        let clock = FrameClock::new(StreamFormat::PUBLISHED, 44_100.0);
        assert_eq!(clock.boundary(24 * 3_600 * 50), 24 * 3_600 * 44_100);
    }

    #[test]
    fn frame_at_inverts_boundary() {
        for rate in [8_000.0, 11_025.5, 44_100.0, 767_999.25] {
            let clock = FrameClock::new(StreamFormat::PUBLISHED, rate);
            for index in [0, 1, 2, 3, 49, 50, 12_345, 4_320_000] {
                let first = clock.boundary(index);
                assert_eq!(clock.frame_at(first), index, "rate {rate}");
                if index > 0 {
                    assert_eq!(clock.frame_at(first - 1), index - 1, "rate {rate}");
                }
            }
        }
    }
}
