//! The parameters that are a choice out of a list. Texts are what hosts show and accept; ids are what projects store.

use nice_plug::prelude::Enum;
use tiller_engine::control::{PitchClass, Quality};

/// Target of the note lane.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The note lane does not steer.
    #[id = "off"]
    #[name = "off"]
    Off,
    /// Pitch class 0.
    #[id = "c"]
    #[name = "C"]
    C,
    /// Pitch class 1.
    #[id = "c-sharp"]
    #[name = "C#"]
    CSharp,
    /// Pitch class 2.
    #[id = "d"]
    #[name = "D"]
    D,
    /// Pitch class 3.
    #[id = "d-sharp"]
    #[name = "D#"]
    DSharp,
    /// Pitch class 4.
    #[id = "e"]
    #[name = "E"]
    E,
    /// Pitch class 5.
    #[id = "f"]
    #[name = "F"]
    F,
    /// Pitch class 6.
    #[id = "f-sharp"]
    #[name = "F#"]
    FSharp,
    /// Pitch class 7.
    #[id = "g"]
    #[name = "G"]
    G,
    /// Pitch class 8.
    #[id = "g-sharp"]
    #[name = "G#"]
    GSharp,
    /// Pitch class 9.
    #[id = "a"]
    #[name = "A"]
    A,
    /// Pitch class 10.
    #[id = "a-sharp"]
    #[name = "A#"]
    ASharp,
    /// Pitch class 11.
    #[id = "b"]
    #[name = "B"]
    B,
}

impl Note {
    /// The pitch class to steer to, or `None` when the lane is off.
    ///
    /// # Realtime safety
    /// Pure arithmetic.
    pub fn pitch_class(self) -> Option<PitchClass> {
        (self.to_index() as u8).checked_sub(1).and_then(PitchClass::new)
    }

    /// The choice that steers to `pitch_class`; `None` is `Off`.
    pub fn of(pitch_class: Option<PitchClass>) -> Self {
        pitch_class.map_or(Self::Off, |class| Self::from_index(class.index() + 1))
    }
}

/// Root of the chord lane.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Pitch class 0.
    #[id = "c"]
    #[name = "C"]
    C,
    /// Pitch class 1.
    #[id = "c-sharp"]
    #[name = "C#"]
    CSharp,
    /// Pitch class 2.
    #[id = "d"]
    #[name = "D"]
    D,
    /// Pitch class 3.
    #[id = "d-sharp"]
    #[name = "D#"]
    DSharp,
    /// Pitch class 4.
    #[id = "e"]
    #[name = "E"]
    E,
    /// Pitch class 5.
    #[id = "f"]
    #[name = "F"]
    F,
    /// Pitch class 6.
    #[id = "f-sharp"]
    #[name = "F#"]
    FSharp,
    /// Pitch class 7.
    #[id = "g"]
    #[name = "G"]
    G,
    /// Pitch class 8.
    #[id = "g-sharp"]
    #[name = "G#"]
    GSharp,
    /// Pitch class 9.
    #[id = "a"]
    #[name = "A"]
    A,
    /// Pitch class 10.
    #[id = "a-sharp"]
    #[name = "A#"]
    ASharp,
    /// Pitch class 11.
    #[id = "b"]
    #[name = "B"]
    B,
}

/// Quality of the chord lane.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChordQuality {
    /// The chord lane does not steer.
    #[id = "off"]
    #[name = "off"]
    Off,
    /// Root, major third, fifth.
    #[id = "major"]
    #[name = "major"]
    Major,
    /// Root, minor third, fifth.
    #[id = "minor"]
    #[name = "minor"]
    Minor,
    /// Root, minor third, lowered fifth.
    #[id = "diminished"]
    #[name = "diminished"]
    Diminished,
    /// Root, major third, raised fifth.
    #[id = "augmented"]
    #[name = "augmented"]
    Augmented,
}

impl Root {
    /// The pitch class.
    ///
    /// # Realtime safety
    /// Pure arithmetic.
    pub fn pitch_class(self) -> PitchClass {
        PitchClass::of_key(self.to_index() as u8)
    }

    /// The choice of a pitch class.
    pub fn of(class: PitchClass) -> Self {
        Self::from_index(class.index())
    }
}

impl ChordQuality {
    /// The quality, or `None` when the lane is off.
    ///
    /// # Realtime safety
    /// Pure arithmetic.
    pub const fn quality(self) -> Option<Quality> {
        match self {
            Self::Off => None,
            Self::Major => Some(Quality::Major),
            Self::Minor => Some(Quality::Minor),
            Self::Diminished => Some(Quality::Diminished),
            Self::Augmented => Some(Quality::Augmented),
        }
    }
}

/// Whether new targets wait for the host's time.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantise {
    /// They move at once.
    #[id = "off"]
    #[name = "off"]
    Off,
    /// On the next quarter note.
    #[id = "beat"]
    #[name = "beat"]
    Beat,
    /// On the next bar.
    #[id = "bar"]
    #[name = "bar"]
    Bar,
}

/// When the instrument sounds.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// While the host plays.
    #[id = "transport"]
    #[name = "transport"]
    Transport,
    /// Always; the transport is ignored.
    #[id = "free"]
    #[name = "free"]
    Free,
    /// While a MIDI key is held.
    #[id = "keys"]
    #[name = "keys"]
    Keys,
}

/// What happens when a frame is not there in time.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Waits while the host is ahead of the wall clock, fades otherwise.
    #[id = "auto"]
    #[name = "auto"]
    Auto,
    /// Always waits: no gap, but a slow engine holds the host up.
    #[id = "wait"]
    #[name = "wait"]
    Wait,
    /// Never waits.
    #[id = "fade"]
    #[name = "fade"]
    Fade,
}

/// How much room for jitter the reported latency holds.
#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// As little as a quiet machine needs.
    #[id = "tight"]
    #[name = "tight"]
    Tight,
    /// Room for a busy machine.
    #[id = "safe"]
    #[name = "safe"]
    Safe,
    /// The number in `latency_frames`.
    #[id = "frames"]
    #[name = "frames"]
    Frames,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_pitch_classes_in_order() {
        assert_eq!(Note::Off.pitch_class(), None);
        for (index, name) in PitchClass::NAMES.iter().enumerate() {
            let class = PitchClass::new(index as u8);
            let note = Note::of(class);
            assert_eq!(note.pitch_class(), class);
            assert_eq!(Note::variants()[note.to_index()], *name);
        }
        assert_eq!(Note::of(None), Note::Off);
    }

    #[test]
    fn roots_and_qualities_are_named_as_the_engine_names_them() {
        for (index, name) in PitchClass::NAMES.iter().enumerate() {
            let Some(class) = PitchClass::new(index as u8) else { panic!("{index} is a class") };
            assert_eq!((Root::of(class).pitch_class(), Root::variants()[index]), (class, *name));
        }
        for (index, name) in ChordQuality::variants().iter().enumerate().skip(1) {
            assert_eq!(ChordQuality::from_index(index).quality().map(Quality::name), Some(*name));
        }
        assert_eq!(ChordQuality::Off.quality(), None);
    }
}
