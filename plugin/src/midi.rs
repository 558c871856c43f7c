//! Held keys on the frame clock: which note or chord the keys ask for in each frame. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::atomic::AtomicBool;

use tiller_engine::control::{Chord, PitchClass};

use crate::spelling::spelled;

/// A MIDI event that the instrument acts on. The shell maps the host's events to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key went down. `channel` 0..16, `key` 0..128, `velocity` 1..=127.
    On { channel: u8, key: u8, velocity: u8 },
    /// A key came up.
    Off { channel: u8, key: u8 },
    /// Every key is up.
    AllOff,
    /// A controller stands at `value`, 0 to 127. `number` 0..120.
    Controller { number: u8, value: u8 },
    /// A program was selected, 0 to 127.
    Program(u8),
}

impl KeyEvent {
    /// A note-on message, its velocity from 0 to 1: 0 is a note-off.
    pub fn note_on(channel: u8, key: u8, velocity: f32) -> Self {
        if velocity > 0.0 {
            Self::On { channel, key, velocity: (velocity.min(1.0) * 127.0).round().max(1.0) as u8 }
        } else {
            Self::Off { channel, key }
        }
    }

    /// A controller message, 0 to 1. Of the channel mode messages CC 120 (all sound off) and 123 (all notes off) count, at value
    /// 0 only: Ardour sends every controller at half when it loads a plugin.
    pub fn controller(number: u8, value: f32) -> Option<Self> {
        match number {
            120 | 123 => (value == 0.0).then_some(Self::AllOff),
            0..120 if value.is_finite() => {
                Some(Self::Controller { number, value: (value.clamp(0.0, 1.0) * 127.0).round() as u8 })
            }
            _ => None,
        }
    }
}

/// An event and its place in the sub-block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedEvent {
    /// Samples after the start of the sub-block.
    pub offset: u32,
    /// What happened.
    pub event: KeyEvent,
}

/// What the keys ask for: it takes the place of the note lane and of the chord lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// One or two keys, or more that spell no triad: the last of them.
    Note(PitchClass),
    /// Three or more.
    Chord(Chord),
}

const KEYS: usize = 128;

/// What the keys ask for, and how hard they were struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The target.
    pub held: Held,
    /// 1 to 127: of the newest key.
    pub velocity: u8,
}

/// How keys are taken: settings of the project. Written by whoever reads it, read by the audio thread.
#[derive(Debug, Default)]
pub struct KeySettings {
    /// Targets stay until other keys go down.
    pub latch: AtomicBool,
    /// Targets of softly struck keys are steered to more weakly.
    pub velocity: AtomicBool,
}

/// Frames for which a chord outlasts the first of its keys to come up: fingers never leave all at once, and the one that is
/// last was not meant as a note.
const FINGERS: u8 = 5;

/// The keys that are down, oldest first, and what this frame saw of them.
///
/// # Realtime safety
/// Fixed size, no allocation.
pub struct Keys {
    /// One bit per channel for each key.
    channels: [u16; KEYS],
    order: [u8; KEYS],
    held: usize,
    /// The last key that went down in this frame, even if it is up again.
    onset: Option<u8>,
    /// All that did, one bit each.
    onsets: u128,
    /// The chord that was held last, and for how many frames it still stands when fewer keys are down.
    chord: Option<(Chord, u8)>,
    /// The last key that came up in this frame: it was down for a part of it.
    release: Option<u8>,
    /// How hard each key was struck last.
    velocities: [u8; KEYS],
    /// What the last frame with keys asked for, while keys are latched.
    latched: Option<Asked>,
    /// Everything was let go in this frame, latched keys too.
    let_go: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            channels: [0; KEYS],
            order: [0; KEYS],
            held: 0,
            onset: None,
            onsets: 0,
            chord: None,
            release: None,
            velocities: [0; KEYS],
            latched: None,
            let_go: false,
        }
    }
}

impl Keys {
    /// Applies one event. Keys and channels out of range are ignored.
    pub fn apply(&mut self, event: KeyEvent) {
        match event {
            KeyEvent::On { channel, key, velocity } if channel < 16 && usize::from(key) < KEYS => {
                self.velocities[usize::from(key)] = velocity;
                self.lift(key);
                self.channels[usize::from(key)] |= 1 << channel;
                self.order[self.held] = key;
                self.held += 1;
                self.onset = Some(key);
                self.onsets |= 1 << key;
            }
            KeyEvent::Off { channel, key } if channel < 16 && usize::from(key) < KEYS => {
                let down = &mut self.channels[usize::from(key)];
                let before = *down;
                *down &= !(1 << channel);
                if before != 0 && *down == 0 {
                    self.lift(key);
                    self.release = Some(key);
                }
            }
            KeyEvent::AllOff => {
                if let Some(last) = self.last() {
                    self.release = Some(last);
                }
                self.channels = [0; KEYS];
                self.held = 0;
                self.chord = None;
                self.let_go = true;
            }
            _ => {}
        }
    }

    /// Whether a key is down now.
    pub fn any_held(&self) -> bool {
        self.held > 0
    }

    /// What the keys ask for in the frame that ends now: the chord that those down in it spell, else the last key that went
    /// down in it, else the last one that is still down, else one that was down for a part of the frame.
    pub fn frame_target(&self) -> Option<Held> {
        if let Some(chord) = self.frame_chord() {
            return Some(Held::Chord(chord));
        }
        if let Some((chord, 1..)) = self.chord
            && self.onset.is_none()
            && (self.held > 0 || self.release.is_some())
        {
            return Some(Held::Chord(chord));
        }
        self.onset.or(self.last()).or(self.release).map(PitchClass::of_key).map(Held::Note)
    }

    /// The chord that the keys of this frame spell.
    fn frame_chord(&self) -> Option<Chord> {
        let down = self.order[..self.held].iter().fold(self.onsets, |set, key| set | 1 << key);
        if down.count_ones() < 3 { None } else { spelled(down) }
    }

    /// The same with its velocity, and what was asked last when nothing is held but keys are latched.
    pub fn asked(&self, latch: bool) -> Option<Asked> {
        let newest = self.onset.or(self.last()).or(self.release);
        let velocity = newest.map_or(127, |key| self.velocities[usize::from(key)]);
        let now = self.frame_target().map(|held| Asked { held, velocity });
        now.or(self.latched.filter(|_| latch))
    }

    /// A piece begins: what was latched before is not part of it, so that a bounce and a loop's every round sound the same.
    pub fn unlatch(&mut self) {
        self.latched = None;
    }

    /// Forgets what the ended frame saw.
    pub fn next_frame(&mut self, latch: bool) {
        self.latched = if latch && !self.let_go { self.asked(true) } else { None };
        self.let_go = false;
        self.chord = match (self.frame_chord(), self.chord) {
            (Some(chord), _) => Some((chord, FINGERS)),
            (None, Some((chord, left))) if self.onset.is_none() && self.held > 0 && left > 0 => Some((chord, left - 1)),
            _ => None,
        };
        self.onset = None;
        self.onsets = 0;
        self.release = None;
    }

    fn last(&self) -> Option<u8> {
        self.held.checked_sub(1).map(|last| self.order[last])
    }

    /// Takes `key` out of the order, if it is there.
    fn lift(&mut self, key: u8) {
        if let Some(place) = self.order[..self.held].iter().position(|&held| held == key) {
            self.order.copy_within(place + 1..self.held, place);
            self.held -= 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;
    use tiller_engine::control::Quality;

    fn on(key: u8) -> KeyEvent {
        KeyEvent::On { channel: 0, key, velocity: 100 }
    }

    fn off(key: u8) -> KeyEvent {
        KeyEvent::Off { channel: 0, key }
    }

    /// Its name; "a chord" where it is one.
    fn note(keys: &Keys) -> Option<&'static str> {
        match keys.frame_target()? {
            Held::Note(class) => Some(class.name()),
            Held::Chord(_) => Some("a chord"),
        }
    }

    #[test]
    fn the_last_held_key_wins_and_release_goes_back() {
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.apply(on(64));
        keys.next_frame(false);
        assert_eq!(note(&keys), Some("E"));
        keys.apply(off(64));
        assert_eq!(note(&keys), Some("C"), "a key that is still down stands before one that came up");
        keys.next_frame(false);
        keys.apply(off(60));
        assert_eq!(note(&keys), Some("C"), "it was down for a part of the frame");
        keys.next_frame(false);
        assert_eq!(note(&keys), None);
    }

    #[test]
    fn a_note_shorter_than_a_frame_counts() {
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.next_frame(false);
        keys.apply(on(67));
        keys.apply(off(67));
        assert_eq!(note(&keys), Some("G"));
        keys.next_frame(false);
        assert_eq!(note(&keys), Some("C"));
    }

    #[test]
    fn a_key_is_up_when_every_channel_released_it() {
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.apply(KeyEvent::On { channel: 3, key: 60, velocity: 1 });
        keys.apply(off(60));
        assert!(keys.any_held());
        keys.apply(KeyEvent::Off { channel: 3, key: 60 });
        assert!(!keys.any_held());
    }

    /// Its root and quality; none where it is a note.
    fn chord(keys: &Keys) -> Option<(&'static str, Quality)> {
        match keys.frame_target()? {
            Held::Chord(chord) => Some((chord.root.name(), chord.quality)),
            Held::Note(_) => None,
        }
    }

    #[test]
    fn three_keys_are_a_chord_even_when_shorter_than_a_frame() {
        let mut keys = Keys::default();
        [60, 64].iter().for_each(|key| keys.apply(on(*key)));
        assert_eq!(note(&keys), Some("E"), "two keys are the last note");
        keys.apply(on(67));
        assert_eq!(chord(&keys), Some(("C", Quality::Major)));
        keys.next_frame(false);
        [60, 64, 67].iter().for_each(|key| keys.apply(off(*key)));
        [57, 60, 64].iter().for_each(|key| keys.apply(on(*key)));
        [57, 60, 64].iter().for_each(|key| keys.apply(off(*key)));
        assert_eq!(chord(&keys), Some(("A", Quality::Minor)));
        keys.next_frame(false);
        assert_eq!(keys.frame_target(), None);
    }

    #[test]
    fn fingers_that_leave_a_chord_one_by_one_play_no_note() {
        let mut keys = Keys::default();
        [60, 64, 67].iter().for_each(|key| keys.apply(on(*key)));
        keys.next_frame(false);
        keys.apply(off(64));
        assert_eq!(chord(&keys), Some(("C", Quality::Major)));
        keys.next_frame(false);
        keys.apply(off(67));
        assert_eq!(chord(&keys), Some(("C", Quality::Major)));
        keys.next_frame(false);
        keys.apply(off(60));
        assert_eq!(chord(&keys), Some(("C", Quality::Major)), "the last finger was down for a part of the frame");
        keys.next_frame(false);
        assert_eq!(keys.frame_target(), None);
    }

    #[test]
    fn a_finger_that_stays_is_a_note_after_a_while_and_a_new_one_at_once() {
        let mut keys = Keys::default();
        [60, 64, 67].iter().for_each(|key| keys.apply(on(*key)));
        keys.next_frame(false);
        [64, 67].iter().for_each(|key| keys.apply(off(*key)));
        for _ in 0..FINGERS {
            assert_eq!(chord(&keys), Some(("C", Quality::Major)));
            keys.next_frame(false);
        }
        assert_eq!(note(&keys), Some("C"));
        [64, 67].iter().for_each(|key| keys.apply(on(*key)));
        keys.next_frame(false);
        [60, 64, 67].iter().for_each(|key| keys.apply(off(*key)));
        keys.apply(on(62));
        assert_eq!(note(&keys), Some("D"));
        keys.apply(KeyEvent::AllOff);
        keys.next_frame(false);
        assert_eq!(keys.frame_target(), None);
    }

    #[test]
    fn latched_keys_stay_until_others_come_or_all_are_let_go() {
        let asked = |keys: &Keys| keys.asked(true).map(|asked| asked.held);
        let note = |key| Some(Held::Note(PitchClass::of_key(key)));
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.next_frame(true);
        keys.apply(off(60));
        keys.next_frame(true);
        assert_eq!((asked(&keys), keys.asked(false)), (note(60), None));
        keys.apply(on(65));
        keys.apply(off(65));
        assert_eq!(asked(&keys), note(65));
        keys.next_frame(true);
        assert_eq!(asked(&keys), note(65));
        keys.unlatch();
        assert_eq!(asked(&keys), None, "a new piece");
        keys.apply(on(67));
        keys.next_frame(true);
        keys.apply(KeyEvent::AllOff);
        assert_eq!(asked(&keys), note(67), "it was down for a part of the frame");
        keys.next_frame(true);
        assert_eq!(asked(&keys), None);
        keys.apply(on(67));
        keys.next_frame(false);
        keys.apply(off(67));
        keys.next_frame(false);
        assert_eq!(asked(&keys), None, "latched from now on, not from before");
    }

    #[test]
    fn velocity_is_that_of_the_newest_key() {
        let mut keys = Keys::default();
        keys.apply(KeyEvent::note_on(0, 60, 1.0));
        keys.apply(KeyEvent::note_on(0, 64, 0.25));
        assert_eq!(keys.asked(false).map(|asked| asked.velocity), Some(32));
        keys.next_frame(false);
        keys.apply(off(64));
        assert_eq!(keys.asked(false).map(|asked| asked.velocity), Some(127));
        assert_eq!(KeyEvent::note_on(0, 60, 1e-6), KeyEvent::On { channel: 0, key: 60, velocity: 1 });
    }

    #[test]
    fn every_key_at_once_and_nonsense() {
        let mut keys = Keys::default();
        for round in 0..2 {
            for key in 0..=255 {
                keys.apply(KeyEvent::On { channel: round, key, velocity: 100 });
            }
        }
        assert_eq!(keys.held, KEYS);
        keys.apply(KeyEvent::On { channel: 200, key: 3, velocity: 100 });
        assert_eq!(chord(&keys), Some(("C", Quality::Major)), "everything at once holds every chord");
        keys.apply(KeyEvent::AllOff);
        assert!(!keys.any_held());
        keys.next_frame(false);
        assert_eq!(keys.frame_target(), None);
    }

    #[test]
    fn controllers_act_at_zero_only() {
        assert_eq!(KeyEvent::controller(123, 0.5), None);
        assert_eq!(KeyEvent::controller(123, 0.0), Some(KeyEvent::AllOff));
        assert_eq!(KeyEvent::controller(120, 0.0), Some(KeyEvent::AllOff));
        assert_eq!(KeyEvent::controller(1, 0.5), Some(KeyEvent::Controller { number: 1, value: 64 }));
        assert_eq!(KeyEvent::controller(121, 0.0), None);
        assert_eq!(KeyEvent::note_on(0, 60, 0.0), off(60));
    }
}
