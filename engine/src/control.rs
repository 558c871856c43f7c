//! What the audio thread says about one frame. `Copy`, no heap: it crosses the lock-free queue to the runner.
#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use crate::decoder::sampling::Sampling;

/// A pitch class, 0 = C to 11 = B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PitchClass(u8);

impl PitchClass {
    /// Names with sharps, indexed by pitch class.
    pub const NAMES: [&'static str; 12] = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

    /// `None` when `index` is not in `0..12`.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 12 { Some(Self(index)) } else { None }
    }

    /// The pitch class of a MIDI key (60 = middle C).
    pub const fn of_key(key: u8) -> Self {
        Self(key % 12)
    }

    /// 0 = C to 11 = B.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// "C", "C#", ... "B".
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.0 as usize]
    }
}

/// The steering targets of one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lanes {
    /// Target of the note lane; `None` is off.
    pub note: Option<PitchClass>,
    /// Signed strength of the note lane in [-1, 1]; 1 is the calibrated full dose of the checkpoint.
    pub note_strength: f32,
    /// Master strength in [0, 1], multiplies every lane.
    pub strength: f32,
}

impl Lanes {
    /// No steering: the frame is bit-equal to the unsteered model's.
    pub const OFF: Self = Self { note: None, note_strength: 0.0, strength: 0.0 };
}

/// What a message on the control queue asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// One more frame of the piece: exactly one decoder step, answered by exactly one frame of audio.
    Frame,
    /// The piece ended before frame `index`: flush what the delay pattern and the codec still hold.
    End,
}

/// Everything that the runner must know about one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControlFrame {
    /// Number of the piece; it rises by one at every anchor.
    pub piece: u32,
    /// Frame index since the piece's anchor.
    pub index: u32,
    /// A frame, or the end of the piece.
    pub kind: ControlKind,
    /// Generation of the prompt that the frame should sound under (`Handle::set_prompt` returns it).
    pub prompt: u32,
    /// Seed of the randomness, with the frame index and the codebook.
    pub seed: u32,
    /// Steering targets and strengths.
    pub lanes: Lanes,
    /// Sampling temperature; 0 takes the most likely code.
    pub temperature: f32,
    /// Guidance scale (CFG).
    pub guidance: f32,
    /// How many codes sampling chooses from; 0 means all.
    pub top_k: u32,
    /// Output gain, linear. It acts on this frame's audio, L later, like everything else here.
    pub gain: f32,
    /// Silence at the output while the engine goes on.
    pub bypass: bool,
}

impl ControlFrame {
    /// An unsteered frame with MusicGen's published sampling settings.
    pub const fn new(piece: u32, index: u32) -> Self {
        Self {
            piece,
            index,
            kind: ControlKind::Frame,
            prompt: 0,
            seed: 0,
            lanes: Lanes::OFF,
            temperature: Sampling::PUBLISHED.temperature,
            guidance: Sampling::PUBLISHED.guidance,
            top_k: Sampling::PUBLISHED.top_k as u32,
            gain: 1.0,
            bypass: false,
        }
    }

    /// The same frame with other sampling settings.
    pub const fn sampled(mut self, sampling: Sampling) -> Self {
        (self.temperature, self.guidance, self.top_k) =
            (sampling.temperature, sampling.guidance, sampling.top_k as u32);
        self
    }

    /// The message that ends `self.piece` after `frames` frames.
    pub const fn end(piece: u32, frames: u32) -> Self {
        let mut end = Self::new(piece, frames);
        end.kind = ControlKind::End;
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitch_class_of_keys() {
        assert_eq!(PitchClass::of_key(60).name(), "C");
        assert_eq!(PitchClass::of_key(69).name(), "A");
        assert_eq!(PitchClass::of_key(127).name(), "G");
        assert_eq!(PitchClass::new(12), None);
    }
}
