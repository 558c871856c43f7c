//! Eases a lane off while its target is heard in the hidden states already: less dose, more music. After SMITIN (Koo et
//! al., "SMITIN: Self-monitored inference-time intervention for generative music transformers", 2024), which looks every
//! few tokens; here every frame is looked at and the dose moves smoothly. Runner thread; no allocation.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use super::detector::Detector;

/// Frames over which a projection is averaged: half a second at 50 frames a second, as far as single frames are from the
/// means that detectors were fitted to.
const FRAMES: f32 = 25.0;

/// Log-odds from which on the dose falls, and at which it is least.
const SURE: f32 = 1.0;
const CERTAIN: f32 = 4.0;

/// Share of the dose that always remains: without any the target would be left again.
const LEAST: f32 = 0.3;

/// State of one lane's guard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guard {
    class: Option<u8>,
    /// Mean projection, of so many frames up to [`FRAMES`].
    mean: f32,
    frames: f32,
    /// Log-odds of the target.
    value: f32,
}

impl Guard {
    /// The lane's target; another one is looked at afresh.
    pub fn follow(&mut self, class: Option<u8>) {
        if self.class != class {
            *self = Self { class, ..Self::default() };
        }
    }

    /// What is looked at, if anything.
    pub fn class(&self) -> Option<u8> {
        self.class
    }

    /// The projection of one frame's state, without what steering itself added.
    pub fn hear(&mut self, projection: f32, detector: Detector) {
        if !projection.is_finite() {
            return;
        }
        self.frames = (self.frames + 1.0).min(FRAMES);
        self.mean += (projection - self.mean) / self.frames;
        self.value = detector.value(self.mean);
    }

    /// Share of the dose to give. Whole until the target has been looked at for half a second.
    pub fn gain(&self) -> f32 {
        if self.frames < FRAMES {
            return 1.0;
        }
        let way = ((self.value - SURE) / (CERTAIN - SURE)).clamp(0.0, 1.0);
        1.0 - (1.0 - LEAST) * way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DETECTOR: Detector = Detector { slope: 2.0, offset: -1.0 };

    fn hear(guard: &mut Guard, projection: f32, frames: usize) {
        (0..frames).for_each(|_| guard.hear(projection, DETECTOR));
    }

    #[test]
    fn the_dose_falls_while_the_target_is_there_and_comes_back() {
        let mut guard = Guard::default();
        guard.follow(Some(3));
        hear(&mut guard, 10.0, 24);
        assert_eq!(guard.gain(), 1.0, "not yet");
        hear(&mut guard, 10.0, 1);
        assert!((guard.gain() - LEAST).abs() < 1e-6);
        hear(&mut guard, 0.0, 200);
        assert_eq!(guard.gain(), 1.0);
        // Log-odds 2.5 are half of the way.
        hear(&mut guard, 1.75, 400);
        assert!((guard.gain() - (1.0 + LEAST) / 2.0).abs() < 1e-3, "{guard:?}");
    }

    #[test]
    fn a_new_target_gets_the_whole_dose() {
        let mut guard = Guard::default();
        guard.follow(Some(3));
        hear(&mut guard, 10.0, 50);
        guard.follow(Some(3));
        assert!(guard.gain() < 0.5);
        guard.follow(Some(4));
        assert_eq!((guard.gain(), guard.class()), (1.0, Some(4)));
        guard.hear(f32::NAN, DETECTOR);
        assert_eq!(guard.gain(), 1.0);
    }
}
