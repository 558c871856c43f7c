//! What one frame injects: a few signed doses, `Copy`, recorded with the frame so that a rebuilt window gets the steering
//! that each position first had. No heap; audio-safe, used on the runner thread.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use crate::control::{Chord, PitchClass, TRAITS};

/// A steering lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The twelve pitch classes.
    Note,
    /// Root and quality of a triad.
    Chord,
    /// Slower to faster.
    Tempo,
    /// The first of the musician's own directions.
    Trait1,
    /// The second.
    Trait2,
    /// The third.
    Trait3,
    /// The fourth.
    Trait4,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3 + TRAITS] =
        [Self::Note, Self::Chord, Self::Tempo, Self::Trait1, Self::Trait2, Self::Trait3, Self::Trait4];

    /// Lanes of a concept family: their directions lie beside the checkpoint, one for everybody.
    pub const FAMILIES: [Self; 3] = [Self::Note, Self::Chord, Self::Tempo];

    /// Lanes whose directions the musician chooses.
    pub const TRAITS: [Self; TRAITS] = [Self::Trait1, Self::Trait2, Self::Trait3, Self::Trait4];

    /// The concept family whose directions it uses; of a trait, what the lane is called.
    pub const fn concept(self) -> &'static str {
        match self {
            Self::Note => "notes",
            Self::Chord => "chords",
            Self::Tempo => "tempo",
            Self::Trait1 => "trait 1",
            Self::Trait2 => "trait 2",
            Self::Trait3 => "trait 3",
            Self::Trait4 => "trait 4",
        }
    }

    /// Classes of its directions.
    pub const fn classes(self) -> usize {
        match self {
            Self::Note => 12,
            Self::Chord => Chord::COUNT,
            Self::Tempo | Self::Trait1 | Self::Trait2 | Self::Trait3 | Self::Trait4 => 1,
        }
    }

    /// The number of a note or a chord by its name in files, "D" or "D minor". `None` for other lanes.
    pub fn class_named(self, name: &str) -> Option<usize> {
        let chord = |class: &usize| {
            let (root, quality) = name.split_once(' ').unwrap_or((name, ""));
            Chord::of_class(*class).is_some_and(|own| own.root.name() == root && own.quality.name() == quality)
        };
        match self {
            Self::Note => PitchClass::NAMES.iter().position(|own| *own == name),
            Self::Chord => (0..Chord::COUNT).find(chord),
            _ => None,
        }
    }

    /// Whether its targets are struck, note by note, rather than a level of everything.
    pub const fn is_struck(self) -> bool {
        matches!(self, Self::Note | Self::Chord)
    }

    /// Its place in [`Lane::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One class and how much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dose {
    /// Whose class.
    pub lane: Lane,
    /// Class of the lane's directions.
    pub class: u8,
    /// Signed share of the full dose.
    pub amount: f32,
}

/// Doses of the concept families' lanes in a frame, at most. Two targets a lane: the one that comes and the one that goes.
pub const MOST_OF_FAMILIES: usize = 2 * Lane::FAMILIES.len();

/// Doses of a frame, at most. A trait has one target.
pub const MOST: usize = MOST_OF_FAMILIES + TRAITS;

/// The doses of one frame; those of amount 0 are left out, so that no dose is no injection at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doses {
    doses: [Dose; MOST],
    count: u8,
}

impl Doses {
    /// No steering.
    pub const NONE: Self = Self { doses: [Dose { lane: Lane::Note, class: 0, amount: 0.0 }; MOST], count: 0 };

    /// Adds one, unless its amount is 0 or not a number; beyond [`MOST`] it is dropped.
    pub fn push(&mut self, dose: Dose) {
        if dose.amount != 0.0 && dose.amount.is_finite() && usize::from(self.count) < MOST {
            self.doses[usize::from(self.count)] = dose;
            self.count += 1;
        }
    }

    /// Multiplies what there is of a class.
    pub fn scale(&mut self, lane: Lane, class: u8, gain: f32) {
        let own = self.doses[..usize::from(self.count)].iter_mut().filter(|d| d.lane == lane && d.class == class);
        own.for_each(|dose| dose.amount *= gain);
    }

    /// What there is.
    pub fn as_slice(&self) -> &[Dose] {
        &self.doses[..usize::from(self.count)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_a_dose() {
        let dose = |amount| Dose { lane: Lane::Chord, class: 7, amount };
        let mut doses = Doses::NONE;
        for amount in [0.0, -0.0, f32::NAN, f32::INFINITY] {
            doses.push(dose(amount));
        }
        assert!(doses.as_slice().is_empty());
        for i in 1..MOST + 5 {
            doses.push(dose(i as f32));
        }
        assert_eq!(doses.as_slice().len(), MOST);
        assert_eq!(doses.as_slice()[0], dose(1.0));
        doses.scale(Lane::Chord, 7, 0.5);
        doses.scale(Lane::Note, 7, 0.0);
        doses.scale(Lane::Chord, 8, 0.0);
        assert_eq!(doses.as_slice()[1], dose(1.0));
    }
}
