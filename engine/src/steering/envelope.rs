//! Turns the lanes' targets into doses, frame by frame: what comes rises over the attack, what goes falls over the
//! release. A note or chord that comes at once gets an accent: a second of music may lie between two strokes, and a
//! stronger push makes the model strike now. One per piece, on the runner thread; no allocation. The clock is the frame: nothing
//! depends on timing.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use super::doses::{Dose, Doses, Lane};
use super::schedule::Schedule;
use crate::control::Lanes;

/// What a target that comes at once gets on top of its dose, as a share of it, and the seconds in which that falls to nothing.
pub(super) const ACCENT: [f32; 2] = [1.0, 0.2];

/// A class whose share of the lane's strength is on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Voice {
    class: u8,
    /// Signed strength it had when it was last the target.
    strength: f32,
    /// Frames since it came or went.
    frames: u32,
    /// Share that it had then.
    from: f32,
    /// Share that it has now.
    share: f32,
    /// It has arrived: later changes of attack or release no longer move it.
    there: bool,
    /// What is left of its accent, 1 to 0.
    accent: f32,
}

/// One lane's voices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LaneState {
    coming: Option<Voice>,
    going: Option<Voice>,
}

/// State of a piece's lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Envelope {
    lanes: [LaneState; Lane::ALL.len()],
}

impl Voice {
    fn new(class: u8, strength: f32, from: f32) -> Self {
        Self { class, strength, frames: 0, from, share: from, there: false, accent: 0.0 }
    }

    /// Signed share of the lane's full dose.
    fn amount(&self) -> f32 {
        self.strength * self.share * (1.0 + ACCENT[0] * self.accent)
    }

    /// One frame further on a way to `to` that takes `length` frames. The first frame of a change already moves, so that
    /// a length of 0 is at once.
    fn advance(&mut self, to: f32, schedule: Schedule, length: f32) {
        if self.there {
            return;
        }
        self.frames = self.frames.saturating_add(1);
        let way = if length < 1.0 { 1.0 } else { f64::from(self.frames) / f64::from(length) };
        self.there = way >= 1.0;
        self.share = if self.there { to } else { self.from + (to - self.from) * schedule.at(way) as f32 };
    }
}

impl Envelope {
    /// The doses of the next frame, `frame_seconds` long, under `lanes`.
    pub fn advance(&mut self, lanes: &Lanes, frame_seconds: f32) -> Doses {
        let master = if lanes.strength.is_finite() { lanes.strength.clamp(0.0, 1.0) } else { 0.0 };
        let signed = |strength: f32| if strength.is_finite() { strength.clamp(-1.0, 1.0) } else { 0.0 };
        let length = |seconds: f32| seconds.max(0.0) / frame_seconds;
        let mut doses = Doses::NONE;
        for lane in Lane::ALL {
            let (class, strength) = match lane {
                Lane::Note => (lanes.note.map(|note| note.index() as u8), lanes.note_strength),
                Lane::Chord => (lanes.chord.map(|chord| chord.class() as u8), lanes.chord_strength),
                Lane::Tempo => (Some(0), lanes.tempo_strength),
                Lane::Trait1 => (Some(0), lanes.traits[0]),
                Lane::Trait2 => (Some(0), lanes.traits[1]),
                Lane::Trait3 => (Some(0), lanes.traits[2]),
                Lane::Trait4 => (Some(0), lanes.traits[3]),
            };
            let state = &mut self.lanes[lane.index()];
            state.aim(class.map(|class| (class, signed(strength))));
            if let Some(voice) = &mut state.going {
                voice.advance(0.0, lanes.schedule, length(lanes.release));
            }
            state.going = state.going.filter(|voice| !voice.there);
            if let Some(voice) = &mut state.coming {
                let new = voice.frames == 0;
                voice.advance(1.0, lanes.schedule, length(lanes.attack));
                voice.accent = match new {
                    true => f32::from(u8::from(voice.there && lane.is_struck())),
                    false => (voice.accent - frame_seconds / ACCENT[1]).max(0.0),
                };
            }
            for voice in [state.going, state.coming].into_iter().flatten() {
                doses.push(Dose { lane, class: voice.class, amount: voice.amount() * master });
            }
        }
        doses
    }
}

impl LaneState {
    /// Lets the target change: what was the target goes from where it is.
    fn aim(&mut self, target: Option<(u8, f32)>) {
        match (&mut self.coming, target) {
            (Some(voice), Some((class, strength))) if voice.class == class => voice.strength = strength,
            (coming, target) => {
                if let Some(voice) = coming.take() {
                    self.going = Some(Voice::new(voice.class, voice.strength, voice.share));
                }
                self.coming = target.map(|(class, strength)| Voice::new(class, strength, 0.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PitchClass;

    const FRAME: f32 = 0.02;

    fn lanes(note: Option<u8>, attack: f32, release: f32) -> Lanes {
        Lanes { note: note.and_then(PitchClass::new), note_strength: 0.8, strength: 0.5, attack, release, ..Lanes::OFF }
    }

    fn amounts(envelope: &mut Envelope, lanes: &Lanes) -> Vec<(u8, f32)> {
        let doses = envelope.advance(lanes, FRAME);
        doses.as_slice().iter().map(|dose| (dose.class, dose.amount)).collect()
    }

    #[test]
    fn without_attack_and_release_a_target_is_there_at_once_and_gone_at_once() {
        let mut envelope = Envelope::default();
        assert_eq!(amounts(&mut envelope, &Lanes::OFF), []);
        assert_eq!(amounts(&mut envelope, &lanes(Some(3), 0.0, 0.0)), [(3, 0.8)]);
        assert_eq!(amounts(&mut envelope, &lanes(Some(5), 0.0, 0.0)), [(5, 0.8)]);
        assert_eq!(amounts(&mut envelope, &lanes(None, 0.0, 0.0)), []);
        assert_eq!(envelope.lanes[Lane::Note.index()], LaneState::default());
    }

    #[test]
    fn an_accent_falls_within_its_time_and_comes_to_what_comes_at_once_only() {
        let mut envelope = Envelope::default();
        let struck: Vec<f32> = (0..13).map(|_| amounts(&mut envelope, &lanes(Some(3), 0.0, 0.0))[0].1).collect();
        for (frame, found) in struck.iter().enumerate() {
            let wanted = 0.4 * (1.0 + (1.0 - frame as f32 * FRAME / ACCENT[1]).max(0.0));
            assert!((found - wanted).abs() < 1e-5, "frame {frame}: {struck:?}");
        }
        // A release leaves with what the target had without it, and tempo is a level, not a stroke.
        let slow = amounts(&mut envelope, &lanes(Some(5), 2.0 * FRAME, 0.0));
        assert!((slow[0].1 - 0.2).abs() < 1e-6, "{slow:?}");
        let tempo = Lanes { tempo_strength: 0.8, strength: 0.5, ..Lanes::OFF };
        assert_eq!(amounts(&mut Envelope::default(), &tempo), [(0, 0.4)]);
    }

    #[test]
    fn targets_cross_over_attack_and_release() {
        let mut envelope = Envelope::default();
        let up: Vec<f32> = (0..6).map(|_| amounts(&mut envelope, &lanes(Some(3), 4.0 * FRAME, 0.0))[0].1).collect();
        for (found, wanted) in up.iter().zip([0.1, 0.2, 0.3, 0.4, 0.4, 0.4]) {
            assert!((found - wanted).abs() < 1e-6, "{up:?}");
        }
        let crossing: Vec<Vec<(u8, f32)>> =
            (0..5).map(|_| amounts(&mut envelope, &lanes(Some(9), 2.0 * FRAME, 4.0 * FRAME))).collect();
        let near = |found: &[(u8, f32)], wanted: &[(u8, f32)]| {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6)
        };
        assert!(near(&crossing[0], &[(3, 0.3), (9, 0.2)]), "{crossing:?}");
        assert!(near(&crossing[1], &[(3, 0.2), (9, 0.4)]), "{crossing:?}");
        assert!(near(&crossing[2], &[(3, 0.1), (9, 0.4)]), "{crossing:?}");
        assert!(near(&crossing[3], &[(9, 0.4)]) && near(&crossing[4], &[(9, 0.4)]), "{crossing:?}");
    }

    #[test]
    fn a_slower_attack_leaves_what_is_there_where_it_is() {
        let mut envelope = Envelope::default();
        (0..11).for_each(|_| drop(amounts(&mut envelope, &lanes(Some(3), 0.0, 0.0))));
        assert_eq!(amounts(&mut envelope, &lanes(Some(3), 30.0, 30.0)), [(3, 0.4)]);
        let crossing = amounts(&mut envelope, &lanes(Some(7), 30.0, 30.0));
        assert!(
            crossing[0].0 == 3 && crossing[0].1 > 0.39 && crossing[1].0 == 7 && crossing[1].1 < 0.01,
            "{crossing:?}"
        );
    }

    #[test]
    fn strength_moves_without_a_new_attack() {
        let mut envelope = Envelope::default();
        let mut at = lanes(Some(3), 0.2, 0.2);
        (0..20).for_each(|_| drop(amounts(&mut envelope, &at)));
        at.note_strength = -0.4;
        assert_eq!(amounts(&mut envelope, &at), [(3, -0.2)]);
        at.strength = 0.0;
        assert_eq!(amounts(&mut envelope, &at), []);
        at.strength = f32::NAN;
        assert_eq!(amounts(&mut envelope, &at), []);
    }
}
