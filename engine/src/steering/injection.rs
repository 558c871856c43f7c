//! The injection table of the note lane: what is added to each block's output, in f32 (`method.md` 4.1), scaled to the
//! blocks' own norms. Runs on the runner thread; no allocation after construction.

use super::directions::{Directions, DirectionsError};
use crate::control::Lanes;

/// Injection vectors at full dose for the 12 notes.
pub struct NoteTable {
    /// `[pitch class][blocks * hidden]`.
    full: Vec<f32>,
    width: usize,
}

impl NoteTable {
    /// Scales unit directions by each block's mean norm and the calibrated dose.
    ///
    /// # Errors
    /// When the directions are not those of 12 notes.
    pub fn new(directions: &Directions, file: &str) -> Result<Self, DirectionsError> {
        if directions.classes.len() != 12 {
            return Err(DirectionsError::Metadata {
                file: file.to_owned(),
                key: "classes",
                expected: "the 12 notes".to_owned(),
                found: directions.classes.join(","),
            });
        }
        let width = directions.blocks * directions.hidden;
        let mut full = Vec::with_capacity(12 * width);
        for class in 0..12 {
            for (block, norm) in directions.block_norms.iter().enumerate() {
                let scale = norm * directions.full_dose;
                full.extend(directions.vector(class, block).iter().map(|v| v * scale));
            }
        }
        Ok(Self { full, width })
    }

    /// `blocks * hidden`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Writes what `lanes` add, `[blocks * hidden]`. `false` when they add nothing: the caller then injects nothing at
    /// all, so that strength 0 is bit-equal to the unsteered model.
    pub fn write(&self, lanes: &Lanes, out: &mut [f32]) -> bool {
        let strength = lanes.note_strength.clamp(-1.0, 1.0) * lanes.strength.clamp(0.0, 1.0);
        let Some(note) = lanes.note else { return false };
        if strength == 0.0 || !strength.is_finite() {
            return false;
        }
        let full = &self.full[note.index() * self.width..][..self.width];
        for (out, full) in out.iter_mut().zip(full) {
            *out = full * strength;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PitchClass;
    use crate::steering::directions::tests::example;

    #[test]
    fn injection_is_a_signed_fraction_of_the_block_norm() {
        let table = NoteTable::new(&example(), "example").unwrap();
        let mut out = vec![0.0; table.width()];
        let lanes = Lanes { note: PitchClass::new(0), note_strength: -0.5, strength: 0.5 };
        assert!(table.write(&lanes, &mut out));
        // Block 0: norm 2 x dose 0.5 x strength -0.25 on component 0; block 1: norm 3 on component 1.
        assert_eq!(out, [-0.25, 0.0, 0.0, 0.0, 0.0, -0.375, 0.0, 0.0]);
    }

    #[test]
    fn nothing_is_injected_at_strength_zero_or_without_a_note() {
        let table = NoteTable::new(&example(), "example").unwrap();
        let mut out = vec![7.0; table.width()];
        let note = PitchClass::new(3);
        for lanes in [
            Lanes::OFF,
            Lanes { note, note_strength: 0.0, strength: 1.0 },
            Lanes { note, note_strength: 1.0, strength: 0.0 },
            Lanes { note, note_strength: f32::NAN, strength: 1.0 },
            Lanes { note: None, note_strength: 1.0, strength: 1.0 },
        ] {
            assert!(!table.write(&lanes, &mut out));
        }
        assert!(out.iter().all(|v| *v == 7.0));
    }
}
