//! Held keys on the frame clock: which pitch class the keys ask of the note lane in each frame. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use tiller_engine::control::PitchClass;

/// A MIDI event that the instrument acts on. The shell maps the host's events to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key went down. `channel` 0..16, `key` 0..128.
    On { channel: u8, key: u8 },
    /// A key came up.
    Off { channel: u8, key: u8 },
    /// Every key is up.
    AllOff,
}

impl KeyEvent {
    /// A note-on message: velocity 0 is a note-off.
    pub fn note_on(channel: u8, key: u8, velocity: f32) -> Self {
        if velocity > 0.0 { Self::On { channel, key } } else { Self::Off { channel, key } }
    }

    /// A controller message: CC 120 (all sound off) and 123 (all notes off), at value 0 only. Ardour sends every
    /// controller at half when it loads a plugin.
    pub fn controller(number: u8, value: f32) -> Option<Self> {
        (matches!(number, 120 | 123) && value == 0.0).then_some(Self::AllOff)
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

const KEYS: usize = 128;

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
    /// The last key that came up in this frame: it was down for a part of it.
    release: Option<u8>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { channels: [0; KEYS], order: [0; KEYS], held: 0, onset: None, release: None }
    }
}

impl Keys {
    /// Applies one event. Keys and channels out of range are ignored.
    pub fn apply(&mut self, event: KeyEvent) {
        match event {
            KeyEvent::On { channel, key } if channel < 16 && usize::from(key) < KEYS => {
                self.lift(key);
                self.channels[usize::from(key)] |= 1 << channel;
                self.order[self.held] = key;
                self.held += 1;
                self.onset = Some(key);
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
            }
            _ => {}
        }
    }

    /// Whether a key is down now.
    pub fn any_held(&self) -> bool {
        self.held > 0
    }

    /// What the keys ask of the note lane in the frame that ends now: the last key that went down in it, else the last
    /// one that is still down, else one that was down for a part of the frame.
    pub fn frame_note(&self) -> Option<PitchClass> {
        self.onset.or(self.last()).or(self.release).map(PitchClass::of_key)
    }

    /// Forgets what the ended frame saw.
    pub fn next_frame(&mut self) {
        self.onset = None;
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

    fn on(key: u8) -> KeyEvent {
        KeyEvent::On { channel: 0, key }
    }

    fn off(key: u8) -> KeyEvent {
        KeyEvent::Off { channel: 0, key }
    }

    fn note(keys: &Keys) -> Option<&'static str> {
        keys.frame_note().map(PitchClass::name)
    }

    #[test]
    fn the_last_held_key_wins_and_release_goes_back() {
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.apply(on(64));
        keys.next_frame();
        assert_eq!(note(&keys), Some("E"));
        keys.apply(off(64));
        assert_eq!(note(&keys), Some("C"), "a key that is still down stands before one that came up");
        keys.next_frame();
        keys.apply(off(60));
        assert_eq!(note(&keys), Some("C"), "it was down for a part of the frame");
        keys.next_frame();
        assert_eq!(note(&keys), None);
    }

    #[test]
    fn a_note_shorter_than_a_frame_counts() {
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.next_frame();
        keys.apply(on(67));
        keys.apply(off(67));
        assert_eq!(note(&keys), Some("G"));
        keys.next_frame();
        assert_eq!(note(&keys), Some("C"));
    }

    #[test]
    fn a_key_is_up_when_every_channel_released_it() {
        let mut keys = Keys::default();
        keys.apply(on(60));
        keys.apply(KeyEvent::On { channel: 3, key: 60 });
        keys.apply(off(60));
        assert!(keys.any_held());
        keys.apply(KeyEvent::Off { channel: 3, key: 60 });
        assert!(!keys.any_held());
    }

    #[test]
    fn every_key_at_once_and_nonsense() {
        let mut keys = Keys::default();
        for round in 0..2 {
            for key in 0..=255 {
                keys.apply(KeyEvent::On { channel: round, key });
            }
        }
        assert_eq!(keys.held, KEYS);
        keys.apply(KeyEvent::On { channel: 200, key: 3 });
        assert_eq!(note(&keys), Some("G"));
        keys.apply(KeyEvent::AllOff);
        assert!(!keys.any_held());
        keys.next_frame();
        assert_eq!(note(&keys), None);
    }

    #[test]
    fn controllers_act_at_zero_only() {
        assert_eq!(KeyEvent::controller(123, 0.5), None);
        assert_eq!(KeyEvent::controller(123, 0.0), Some(KeyEvent::AllOff));
        assert_eq!(KeyEvent::controller(120, 0.0), Some(KeyEvent::AllOff));
        assert_eq!(KeyEvent::controller(1, 0.0), None);
        assert_eq!(KeyEvent::note_on(0, 60, 0.0), off(60));
    }
}
