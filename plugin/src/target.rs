//! What a frame is steered to, as the editor shows it. Any thread.

use tiller_engine::control::{Chord, Lanes, PitchClass};

/// Targets of the note and the chord lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Of the note lane.
    pub note: Option<PitchClass>,
    /// Of the chord lane.
    pub chord: Option<Chord>,
}

/// Chords and "none" for each note and "none".
const CHORDS: u16 = Chord::COUNT as u16 + 1;

impl Target {
    /// Of these lanes.
    pub const fn of(lanes: &Lanes) -> Self {
        Self { note: lanes.note, chord: lanes.chord }
    }

    /// Whether a tone of a target is of this class.
    pub fn holds(self, class: PitchClass) -> bool {
        self.note == Some(class) || self.chord.is_some_and(|chord| chord.tones().contains(&class))
    }

    /// A number for each target: what an atomic can hold.
    pub fn code(self) -> u16 {
        let note = self.note.map_or(0, |note| 1 + note.index() as u16);
        let chord = self.chord.map_or(0, |chord| 1 + chord.class() as u16);
        note * CHORDS + chord
    }

    /// The target of a number.
    pub fn of_code(code: u16) -> Self {
        let (note, chord) = (code / CHORDS, code % CHORDS);
        Self {
            note: note.checked_sub(1).and_then(|index| PitchClass::new(index as u8)),
            chord: chord.checked_sub(1).and_then(|class| Chord::of_class(usize::from(class))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_survive_their_codes() {
        let notes = || (0..12).map(PitchClass::new).chain([None]);
        for note in notes() {
            for chord in (0..Chord::COUNT).map(Chord::of_class).chain([None]) {
                let target = Target { note, chord };
                assert_eq!(Target::of_code(target.code()), target);
            }
        }
        assert_eq!((Target::default().code(), Target::of_code(u16::MAX).note), (0, None));
    }

    #[test]
    fn tones_of_either_lane_count() {
        let target = Target { note: PitchClass::new(1), chord: Chord::of_class(0) };
        let held: Vec<usize> =
            (0..12).filter_map(PitchClass::new).filter(|class| target.holds(*class)).map(PitchClass::index).collect();
        assert_eq!(held, [0, 1, 4, 7]);
    }
}
