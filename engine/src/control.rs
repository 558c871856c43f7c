//! What the audio thread says about one frame. `Copy`, no heap: it crosses the lock-free queue to the runner.
#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use crate::decoder::sampling::Sampling;
use crate::steering::schedule::Schedule;

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

impl std::str::FromStr for PitchClass {
    type Err = &'static str;

    /// A letter, with `#` or `b` where it has one.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "a note is a letter from A to G, with # or b where it has one";
        let (letter, sign) = text.split_at_checked(1).ok_or(RULE)?;
        let natural = Self::NAMES.iter().position(|name| name.eq_ignore_ascii_case(letter)).ok_or(RULE)?;
        let class = match sign {
            "" => natural,
            "#" => natural + 1,
            "b" => natural + 11,
            _ => return Err(RULE),
        };
        Ok(Self((class % 12) as u8))
    }
}

/// Quality of a triad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quality {
    /// Root, major third, fifth.
    Major,
    /// Root, minor third, fifth.
    Minor,
    /// Root, major third, raised fifth.
    Augmented,
    /// Root, minor third, lowered fifth.
    Diminished,
}

impl Quality {
    /// Every quality.
    pub const ALL: [Self; 4] = [Self::Major, Self::Minor, Self::Augmented, Self::Diminished];

    /// "major", "minor", ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::Major => "major",
            Self::Minor => "minor",
            Self::Augmented => "augmented",
            Self::Diminished => "diminished",
        }
    }

    /// Semitones of the three tones above the root.
    pub const fn tones(self) -> [u8; 3] {
        match self {
            Self::Major => [0, 4, 7],
            Self::Minor => [0, 3, 7],
            Self::Augmented => [0, 4, 8],
            Self::Diminished => [0, 3, 6],
        }
    }
}

/// A triad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chord {
    /// Its root.
    pub root: PitchClass,
    /// Its quality.
    pub quality: Quality,
}

impl Chord {
    /// How many there are.
    pub const COUNT: usize = 12 * Quality::ALL.len();

    /// 0 to 47, root by root.
    pub const fn class(self) -> usize {
        self.root.index() * Quality::ALL.len() + self.quality as usize
    }

    /// Its tones, the root first.
    pub const fn tones(self) -> [PitchClass; 3] {
        let [a, b, c] = self.quality.tones();
        let root = self.root.0;
        [PitchClass((root + a) % 12), PitchClass((root + b) % 12), PitchClass((root + c) % 12)]
    }

    /// The chord of a class; `None` beyond the last.
    pub fn of_class(class: usize) -> Option<Self> {
        let root = PitchClass::new(u8::try_from(class / Quality::ALL.len()).ok()?)?;
        Some(Self { root, quality: Quality::ALL[class % Quality::ALL.len()] })
    }
}

/// Trait lanes: directions of the musician's own, one strength each. (Fields say 4: rustc 1.95 does not compile closures that capture a
/// field whose length is a constant's name.)
pub const TRAITS: usize = 4;

/// The steering targets of one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lanes {
    /// Target of the note lane; `None` is off.
    pub note: Option<PitchClass>,
    /// Signed strength of the note lane in [-1, 1]; 1 is the calibrated full dose of the checkpoint.
    pub note_strength: f32,
    /// Target of the chord lane; `None` is off.
    pub chord: Option<Chord>,
    /// Signed strength of the chord lane in [-1, 1].
    pub chord_strength: f32,
    /// Slower (below 0) to faster, in [-1, 1].
    pub tempo_strength: f32,
    /// Away from (below 0) or towards each trait, in [-1, 1]. Without directions (`Handle::set_trait`) it does nothing.
    pub traits: [f32; 4],
    /// Master strength in [0, 1], multiplies every lane.
    pub strength: f32,
    /// Seconds in which a new target's dose rises; 0 is at once.
    pub attack: f32,
    /// Seconds in which the dose of a target that is left falls; 0 is at once.
    pub release: f32,
    /// Shape of both.
    pub schedule: Schedule,
    /// Give less of a note or chord while the model's own states say that it is there.
    pub guard: bool,
}

impl Lanes {
    /// No steering: the frame is bit-equal to the unsteered model's.
    pub const OFF: Self = Self {
        note: None,
        note_strength: 0.0,
        chord: None,
        chord_strength: 0.0,
        tempo_strength: 0.0,
        traits: [0.0; TRAITS],
        strength: 0.0,
        attack: 0.0,
        release: 0.0,
        schedule: Schedule::Linear,
        guard: false,
    };
}

/// Frames that the codec can take at once.
pub const MOST_HOP: u32 = 2;

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
    /// Generation of the traits' directions likewise (`Handle::set_trait` returns it).
    pub directions: u32,
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
    /// Frames that may wait for each other before the codec takes them, at most [`MOST_HOP`]: it reads its weights once for
    /// all of them, and their audio comes together, so the latency needs room for all but one. No sample depends on it.
    pub hop: u32,
}

impl ControlFrame {
    /// An unsteered frame with the sampling settings that Tiller begins with.
    pub const fn new(piece: u32, index: u32) -> Self {
        Self {
            piece,
            index,
            kind: ControlKind::Frame,
            prompt: 0,
            directions: 0,
            seed: 0,
            lanes: Lanes::OFF,
            temperature: Sampling::DEFAULT.temperature,
            guidance: Sampling::DEFAULT.guidance,
            top_k: Sampling::DEFAULT.top_k as u32,
            gain: 1.0,
            bypass: false,
            hop: 1,
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

    #[test]
    fn notes_are_read_with_either_sign() {
        for (text, name) in [("D", "D"), ("f#", "F#"), ("Bb", "A#"), ("Cb", "B"), ("B#", "C")] {
            assert_eq!(text.parse().map(PitchClass::name), Ok(name), "{text}");
        }
        for text in ["", "H", "Dm", "#", "É", "C##"] {
            assert!(text.parse::<PitchClass>().is_err(), "{text}");
        }
    }

    #[test]
    fn chords_are_numbered_root_by_root() {
        for class in 0..Chord::COUNT {
            assert_eq!(Chord::of_class(class).map(Chord::class), Some(class));
        }
        let minor = Chord { root: PitchClass(9), quality: Quality::Minor };
        assert_eq!((minor.class(), minor.quality.tones()), (37, [0, 3, 7]));
        assert_eq!(Chord::of_class(Chord::COUNT), None);
    }
}
