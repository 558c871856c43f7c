//! Turns the lanes' targets into doses, frame by frame: what comes rises over the attack, what goes falls over the
//! release. One per piece, on the runner thread; no allocation. The clock is the frame: nothing depends on timing.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use super::doses::{Dose, Doses, Lane};
use super::schedule::Schedule;
use crate::control::Lanes;

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

/// Share at `frames` on the way from `from` to `to` that takes `seconds`.
fn share(schedule: Schedule, from: f32, to: f32, frames: u32, seconds: f32, frame_seconds: f32) -> f32 {
    let length = seconds.max(0.0) / frame_seconds;
    // The first frame of a change already moves: attack 0 is at once.
    let way = if length < 1.0 { 1.0 } else { f64::from(frames + 1) / f64::from(length) };
    if way >= 1.0 {
        return to;
    }
    from + (to - from) * schedule.at(way) as f32
}

impl Envelope {
    /// The doses of the next frame, `frame_seconds` long, under `lanes`.
    pub fn advance(&mut self, lanes: &Lanes, frame_seconds: f32) -> Doses {
        let schedule = lanes.schedule;
        let master = if lanes.strength.is_finite() { lanes.strength.clamp(0.0, 1.0) } else { 0.0 };
        let mut doses = Doses::NONE;
        let signed = |strength: f32| if strength.is_finite() { strength.clamp(-1.0, 1.0) } else { 0.0 };
        for lane in Lane::ALL {
            let (class, strength) = match lane {
                Lane::Note => (lanes.note.map(|note| note.index() as u8), lanes.note_strength),
                Lane::Chord => (lanes.chord.map(|chord| chord.class() as u8), lanes.chord_strength),
                Lane::Tempo => (Some(0), lanes.tempo_strength),
            };
            let target = class.map(|class| (class, signed(strength)));
            let state = &mut self.lanes[lane.index()];
            state.follow(target, lanes, frame_seconds);
            let mut push = |voice: &Voice, share: f32| {
                doses.push(Dose { lane, class: voice.class, amount: voice.strength * share * master });
            };
            if let Some(voice) = &state.going {
                push(voice, share(schedule, voice.from, 0.0, voice.frames, lanes.release, frame_seconds));
            }
            if let Some(voice) = &state.coming {
                push(voice, share(schedule, voice.from, 1.0, voice.frames, lanes.attack, frame_seconds));
            }
        }
        doses
    }
}

impl LaneState {
    /// Counts one frame on, and lets the target change.
    fn follow(&mut self, target: Option<(u8, f32)>, lanes: &Lanes, frame_seconds: f32) {
        let schedule = lanes.schedule;
        for voice in [&mut self.coming, &mut self.going].into_iter().flatten() {
            voice.frames = voice.frames.saturating_add(1);
        }
        let gone = |voice: &Voice| share(schedule, voice.from, 0.0, voice.frames, lanes.release, frame_seconds) == 0.0;
        if self.going.as_ref().is_some_and(gone) {
            self.going = None;
        }
        match (&mut self.coming, target) {
            (Some(voice), Some((class, strength))) if voice.class == class => voice.strength = strength,
            (coming, target) => {
                if let Some(voice) = coming.take() {
                    let from =
                        share(schedule, voice.from, 1.0, voice.frames.saturating_sub(1), lanes.attack, frame_seconds);
                    self.going = Some(Voice { from, frames: 0, ..voice });
                    if self.going.as_ref().is_some_and(gone) {
                        self.going = None;
                    }
                }
                self.coming = target.map(|(class, strength)| Voice { class, strength, frames: 0, from: 0.0 });
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
        assert_eq!(amounts(&mut envelope, &lanes(Some(3), 0.0, 0.0)), [(3, 0.4)]);
        assert_eq!(amounts(&mut envelope, &lanes(Some(5), 0.0, 0.0)), [(5, 0.4)]);
        assert_eq!(amounts(&mut envelope, &lanes(None, 0.0, 0.0)), []);
        assert_eq!(envelope.lanes[Lane::Note.index()], LaneState::default());
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
