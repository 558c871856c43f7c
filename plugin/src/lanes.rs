//! What the host parameters say in one sub-block, and the `ControlFrame` made of it. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use tiller_engine::control::{Chord, ControlFrame, Lanes, PitchClass, Quality, TRAITS};

use crate::midi::Held;

/// Parameter values of one sub-block, as the shell read them from the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneValues {
    /// Target of the note lane; a held key overrides it.
    pub note: Option<PitchClass>,
    /// Signed strength of the note lane, [-1, 1].
    pub note_strength: f32,
    /// Root of the chord lane; held keys override both.
    pub chord_root: PitchClass,
    /// Quality of the chord lane; `None` is off.
    pub chord_quality: Option<Quality>,
    /// Signed strength of the chord lane, [-1, 1].
    pub chord_strength: f32,
    /// Slower (below 0) to faster, [-1, 1].
    pub tempo_strength: f32,
    /// Away from (below 0) or towards each trait, [-1, 1].
    pub traits: [f32; 4],
    /// Seconds in which a new target's dose rises, 0 and up.
    pub attack: f32,
    /// Seconds in which the dose of a target that is left falls, 0 and up.
    pub release: f32,
    /// Master strength, [0, 1].
    pub strength: f32,
    /// Sampling temperature, 0 and up.
    pub temperature: f32,
    /// Guidance scale, 1 and up.
    pub guidance: f32,
    /// How many codes sampling chooses from; 0 means all.
    pub top_k: u32,
    /// Seed of the randomness.
    pub seed: u32,
    /// Output gain, linear.
    pub gain: f32,
    /// Silence with the engine going on.
    pub bypass: bool,
    /// Generation of the current prompt (`Handle::prompt_generation`).
    pub prompt: u32,
    /// Generation of the traits' directions (`Handle::directions_generation`).
    pub directions: u32,
}

impl Default for LaneValues {
    /// The parameters' defaults: no steering, the engine's own sampling settings.
    fn default() -> Self {
        let frame = ControlFrame::new(0, 0);
        Self {
            note: None,
            note_strength: 1.0,
            chord_root: PitchClass::of_key(0),
            chord_quality: None,
            chord_strength: 1.0,
            tempo_strength: 0.0,
            traits: [0.0; TRAITS],
            attack: 0.0,
            release: 0.0,
            strength: 1.0,
            temperature: frame.temperature,
            guidance: frame.guidance,
            top_k: frame.top_k,
            seed: frame.seed,
            gain: 1.0,
            bypass: false,
            prompt: frame.prompt,
            directions: frame.directions,
        }
    }
}

impl LaneValues {
    /// These values, in range, with the last good value where the host sent something that is not a number.
    pub fn repaired(self, last: &Self) -> Self {
        let keep = |value: f32, last: f32, low: f32, high: f32| {
            if value.is_finite() { value.clamp(low, high) } else { last }
        };
        Self {
            note_strength: keep(self.note_strength, last.note_strength, -1.0, 1.0),
            chord_strength: keep(self.chord_strength, last.chord_strength, -1.0, 1.0),
            tempo_strength: keep(self.tempo_strength, last.tempo_strength, -1.0, 1.0),
            traits: std::array::from_fn(|slot| keep(self.traits[slot], last.traits[slot], -1.0, 1.0)),
            attack: keep(self.attack, last.attack, 0.0, 60.0),
            release: keep(self.release, last.release, 0.0, 60.0),
            strength: keep(self.strength, last.strength, 0.0, 1.0),
            temperature: keep(self.temperature, last.temperature, 0.0, 10.0),
            guidance: keep(self.guidance, last.guidance, 0.0, 30.0),
            gain: keep(self.gain, last.gain, 0.0, 100.0),
            ..self
        }
    }

    /// The control frame of frame `index` of `piece`; what the keys ask for takes the place of both targets, at this share of
    /// their strengths.
    pub fn frame(&self, piece: u32, index: u32, held: Option<(Held, f32)>) -> ControlFrame {
        let share = held.map_or(1.0, |(_, share)| share);
        let chord = self.chord_quality.map(|quality| Chord { root: self.chord_root, quality });
        let (note, chord) = match held {
            None => (self.note, chord),
            Some((Held::Note(class), _)) => (Some(class), None),
            Some((Held::Chord(chord), _)) => (None, Some(chord)),
        };
        ControlFrame {
            prompt: self.prompt,
            directions: self.directions,
            seed: self.seed,
            lanes: Lanes {
                note,
                note_strength: share * self.note_strength,
                chord,
                chord_strength: share * self.chord_strength,
                tempo_strength: self.tempo_strength,
                traits: self.traits,
                strength: self.strength,
                attack: self.attack,
                release: self.release,
                ..Lanes::OFF
            },
            temperature: self.temperature,
            guidance: self.guidance,
            top_k: self.top_k,
            gain: self.gain,
            bypass: self.bypass,
            ..ControlFrame::new(piece, index)
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_keeps_the_last_value() {
        let last = LaneValues { gain: 0.5, note_strength: -0.25, ..LaneValues::default() };
        let traits = [f32::NAN, -7.0, 0.25, 0.0];
        let broken = LaneValues { gain: f32::NAN, note_strength: f32::INFINITY, strength: 7.0, traits, ..last };
        let repaired = broken.repaired(&last);
        assert_eq!(repaired.traits, [0.0, -1.0, 0.25, 0.0]);
        assert_eq!((repaired.gain, repaired.note_strength, repaired.strength), (0.5, -0.25, 1.0));
    }

    #[test]
    fn held_keys_override_both_targets_and_nothing_else() {
        let chord = Chord { root: PitchClass::of_key(1), quality: Quality::Minor };
        let values = LaneValues {
            note: PitchClass::new(2),
            note_strength: 0.5,
            chord_root: chord.root,
            chord_quality: Some(chord.quality),
            seed: 9,
            ..LaneValues::default()
        };
        let free = values.frame(3, 4, None);
        assert_eq!((free.piece, free.index, free.lanes.note), (3, 4, PitchClass::new(2)));
        assert_eq!((free.lanes.chord, free.lanes.chord_strength), (Some(chord), 1.0));
        let held = values.frame(3, 4, Some((Held::Note(PitchClass::of_key(7)), 1.0)));
        assert_eq!((held.lanes.note, held.lanes.chord), (PitchClass::new(7), None));
        assert_eq!((held.lanes.note_strength, held.seed), (0.5, 9));
        let held = values.frame(3, 4, Some((Held::Chord(chord), 0.5)));
        assert_eq!((held.lanes.note, held.lanes.chord, held.lanes.chord_strength), (None, Some(chord), 0.5));
    }
}
