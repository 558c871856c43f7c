//! Frames of audio between their arrival and their place in time: a fixed pool. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use tiller_engine::link::{CHANNELS, Link};

#[derive(Clone, Copy)]
struct Held {
    piece: u32,
    slot: u32,
}

/// Frames that arrived and have not been played. Frames of two pieces may arrive mixed: the flush of an old one beside the
/// first of a new one.
///
/// # Realtime safety
/// Fixed size, no allocation after `new`.
pub struct FrameStore {
    samples: Vec<f32>,
    body: usize,
    held: Vec<Option<Held>>,
    arriving: Vec<f32>,
}

impl FrameStore {
    /// Room for `frames` frames of `frame_samples` stereo samples.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn new(frames: usize, frame_samples: usize) -> Self {
        let body = frame_samples * CHANNELS;
        Self { samples: vec![0.0; frames * body], body, held: vec![None; frames], arriving: vec![0.0; body] }
    }

    /// Takes everything from the link, drops what lies before `slot` of `piece`, and says which piece and slot came last.
    pub fn drain(&mut self, link: &mut Link, piece: u32, slot: u32) -> Option<(u32, u32)> {
        for held in &mut self.held {
            if held.is_some_and(|held| (held.piece, held.slot) < (piece, slot)) {
                *held = None;
            }
        }
        let mut came = None;
        while let Some(header) = link.receive(&mut self.arriving) {
            came = Some((header.piece, header.slot));
            if (header.piece, header.slot) < (piece, slot) {
                continue;
            }
            // The store has room for all that can be under way; what is beyond that is dropped and counts as late.
            if let Some(place) = self.held.iter().position(Option::is_none) {
                self.samples[place * self.body..(place + 1) * self.body].copy_from_slice(&self.arriving);
                self.held[place] = Some(Held { piece: header.piece, slot: header.slot });
            }
        }
        came
    }

    /// Moves the frame at `slot` of `piece` into `samples`, interleaved; `false` when it is not here.
    pub fn take(&mut self, piece: u32, slot: u32, samples: &mut [f32]) -> bool {
        let wanted = |held: &Option<Held>| held.is_some_and(|held| (held.piece, held.slot) == (piece, slot));
        let Some(place) = self.held.iter().position(wanted) else {
            return false;
        };
        self.held[place] = None;
        samples.copy_from_slice(&self.samples[place * self.body..(place + 1) * self.body]);
        true
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.held.fill(None);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use tiller_engine::link::{FrameHeader, StreamFormat, link};

    use super::*;

    #[test]
    fn mixed_pieces_come_out_by_name() {
        let format = StreamFormat { model_rate: 32_000, frame_samples: 2, delay_frames: 1 };
        let (mut audio, mut runner) = link(format, 8);
        let mut store = FrameStore::new(3, 2);
        for (piece, slot) in [(1, 8), (2, 0), (1, 9), (2, 1)] {
            let value = (piece * 100 + slot) as f32;
            assert!(runner.answer(FrameHeader { piece, slot, last: false }, &[value; 4]));
        }
        assert_eq!(store.drain(&mut audio, 1, 9), Some((2, 1)));
        assert_eq!(store.drain(&mut audio, 1, 9), None);
        let mut samples = [0.0; 4];
        assert!(!store.take(1, 8, &mut samples), "before the place that is played");
        assert!(store.take(2, 1, &mut samples));
        assert_eq!(samples, [201.0; 4]);
        assert!(store.take(1, 9, &mut samples));
        assert!(!store.take(1, 9, &mut samples), "taken already");
        store.drain(&mut audio, 2, 1);
        assert!(!store.take(2, 0, &mut samples), "its time went by");
    }
}
