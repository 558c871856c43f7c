//! Some of a lane's classes: those that directions were learned for, or that are to be learned. `Copy`, no heap; any thread.

use crate::control::PitchClass;

/// A set of classes, numbered as a lane numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassSet(u64);

impl ClassSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The twelve pitch classes.
    pub const NOTES: Self = Self::first(12);

    /// All below `count`, which is at most 64.
    pub const fn first(count: usize) -> Self {
        Self(if count < 64 { (1 << count) - 1 } else { u64::MAX })
    }

    /// Whether a class is among them.
    pub const fn contains(self, class: usize) -> bool {
        class < 64 && self.0 >> class & 1 == 1
    }

    /// With one more; a class beyond the 64th is none.
    pub const fn with(self, class: usize) -> Self {
        Self(if class < 64 { self.0 | 1 << class } else { self.0 })
    }

    /// With a class that was not there, or without one that was.
    pub const fn toggled(self, class: usize) -> Self {
        Self(if class < 64 { self.0 ^ 1 << class } else { self.0 })
    }

    /// Those of either.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that the other has not.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |class| self.contains(*class))
    }

    /// "C, D, F#", where classes are notes.
    pub fn notes(self) -> String {
        let names = self.iter().filter_map(|class| PitchClass::new(class as u8)).map(PitchClass::name);
        names.collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<usize> for ClassSet {
    fn from_iter<T: IntoIterator<Item = usize>>(classes: T) -> Self {
        classes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let set: ClassSet = [9, 2, 63, 64, 2].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [2, 9, 63]);
        assert!(set.contains(9) && !set.contains(3) && !set.contains(64) && set.len() == 3);
        assert_eq!(set.toggled(63).notes(), "D, A");
        assert_eq!(set.toggled(3).without(set), ClassSet::EMPTY.with(3));
        assert_eq!((ClassSet::first(64).len(), ClassSet::NOTES.len()), (64, 12));
        assert_eq!(ClassSet::NOTES.and(set).without(ClassSet::NOTES).len(), 1);
        assert!(ClassSet::EMPTY.is_empty() && ClassSet::EMPTY.notes().is_empty());
    }
}
