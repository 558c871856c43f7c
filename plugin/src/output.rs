//! The timeline: which piece is heard when. Every piece sounds L after its anchor, until L after its end. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::collections::VecDeque;

use crate::stream::{FADES_PER_SECOND, FrameSource, Stream};

/// Pieces that can be under way at once: a loop of one frame within the longest latency would need more, and then
/// wraps are passed over.
const MOST_PIECES: usize = 64;

/// One piece on the host's clock. Times are host samples since the processor was made.
#[derive(Clone, Copy, Debug)]
struct Piece {
    number: u32,
    /// When it is first heard: anchor + L.
    start: i64,
    /// When it is last heard: end + L.
    stop: i64,
    /// How many slots it has.
    slots: u32,
    latency: i64,
}

/// Places the sound of pieces in time.
///
/// # Realtime safety
/// No allocation after `new`.
pub struct Timeline {
    pieces: VecDeque<Piece>,
    stream: Stream,
    fade: i64,
}

impl Timeline {
    /// `rate`: samples per second of the host.
    pub fn new(stream: Stream, rate: f64) -> Self {
        let fade = (rate / f64::from(FADES_PER_SECOND)).round().max(1.0) as i64;
        Self { pieces: VecDeque::with_capacity(MOST_PIECES), stream, fade }
    }

    /// The piece and slot that is needed next.
    pub fn place(&self) -> (u32, u32) {
        let (piece, slot) = self.stream.place();
        match self.pieces.front() {
            Some(front) if front.number != piece => (front.number, 0),
            _ => (piece, slot),
        }
    }

    /// When a piece that is under way is first heard.
    pub fn start_of(&self, number: u32) -> Option<i64> {
        self.pieces.iter().rev().find(|piece| piece.number == number).map(|piece| piece.start)
    }

    /// A piece begins at `anchor` and is heard `latency` later. `false`: too many are under way.
    pub fn begin(&mut self, number: u32, anchor: i64, latency: i64) -> bool {
        if self.pieces.len() == MOST_PIECES {
            return false;
        }
        let start = anchor + latency;
        // With a latency that became shorter the old piece gives way.
        for piece in &mut self.pieces {
            piece.stop = piece.stop.min(start);
        }
        self.pieces.push_back(Piece { number, start, stop: i64::MAX, slots: u32::MAX, latency });
        true
    }

    /// The newest piece ends at `end`, after `slots` frames.
    pub fn end(&mut self, end: i64, slots: u32) {
        if let Some(piece) = self.pieces.back_mut() {
            piece.stop = piece.stop.min(end + piece.latency);
            piece.slots = slots;
        }
    }

    /// Forgets every piece: silence from now on.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Writes `left` and `right` (equally long) from time `at` on. Returns the piece that was last heard and the time
    /// since its start.
    pub fn render(
        &mut self,
        at: i64,
        source: &mut impl FrameSource,
        left: &mut [f32],
        right: &mut [f32],
    ) -> Option<(u32, i64)> {
        let count = left.len().min(right.len());
        let mut done = 0;
        let mut heard = None;
        while done < count {
            let now = at + done as i64;
            while self.pieces.front().is_some_and(|piece| piece.stop <= now || piece.stop <= piece.start) {
                self.pieces.pop_front();
            }
            let rest = (count - done) as i64;
            let Some(piece) = self.pieces.front().copied() else {
                left[done..count].fill(0.0);
                right[done..count].fill(0.0);
                return heard;
            };
            let until = if now < piece.start { piece.start } else { piece.stop };
            let next = done + rest.min(until.saturating_sub(now)) as usize;
            let (left, right) = (&mut left[done..next], &mut right[done..next]);
            done = next;
            if now < piece.start {
                left.fill(0.0);
                right.fill(0.0);
                continue;
            }
            if self.stream.place().0 != piece.number {
                self.stream.start(piece.number);
            }
            self.stream.read(source, piece.slots, left, right);
            for channel in [left, right] {
                fade_out(channel, piece.stop.saturating_sub(now), self.fade);
            }
            heard = Some((piece.number, at + done as i64 - 1 - piece.start));
        }
        heard
    }
}

/// Ramps `samples` down to nothing at `stop` samples after their start, over `fade` samples.
fn fade_out(samples: &mut [f32], stop: i64, fade: i64) {
    let first = (stop - fade).max(0) as usize;
    for (index, sample) in samples.iter_mut().enumerate().skip(first) {
        *sample *= (stop - 1 - index as i64) as f32 / fade as f32;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use tiller_engine::link::StreamFormat;

    use super::*;

    const FORMAT: StreamFormat = StreamFormat { model_rate: 32_000, frame_samples: 640, delay_frames: 3 };

    /// Every sample of a piece is its number.
    struct Numbers;

    impl FrameSource for Numbers {
        fn fetch(&mut self, piece: u32, _: u32, samples: &mut [f32]) -> bool {
            samples.fill(piece as f32);
            true
        }
    }

    fn timeline() -> Timeline {
        Timeline::new(Stream::new(FORMAT, 32_000.0).unwrap(), 32_000.0)
    }

    fn render(timeline: &mut Timeline, count: usize, block: usize) -> Vec<f32> {
        let (mut left, mut right) = (vec![9.0; count], vec![9.0; count]);
        let mut at = 0;
        for (left, right) in left.chunks_mut(block).zip(right.chunks_mut(block)) {
            timeline.render(at, &mut Numbers, left, right);
            at += left.len() as i64;
        }
        assert!(left == right);
        left
    }

    #[test]
    fn the_new_piece_follows_the_old_one_after_its_fade() {
        let mut timeline = timeline();
        assert!(timeline.begin(1, 0, 1_000));
        timeline.end(2_000, 4);
        assert!(timeline.begin(2, 2_000, 1_000));
        let out = render(&mut timeline, 4_000, 77);
        assert!(out[..1_000].iter().all(|sample| *sample == 0.0));
        assert!(out[1_000..3_000 - 160].iter().all(|sample| *sample == 1.0));
        assert!(out[3_000 - 160..3_000].is_sorted_by(|a, b| a > b) && out[2_999] == 0.0);
        assert!(out[3_000..].iter().all(|sample| *sample == 2.0));
    }

    #[test]
    fn a_stop_is_heard_a_latency_later() {
        let mut timeline = timeline();
        assert!(timeline.begin(1, 500, 1_000));
        timeline.end(1_500, 2);
        let out = render(&mut timeline, 4_000, 64);
        assert!(out[1_500..2_300].iter().all(|sample| *sample == 1.0));
        assert!(out[2_500..].iter().all(|sample| *sample == 0.0));
        assert!(timeline.pieces.is_empty());
    }

    #[test]
    fn a_shorter_latency_cuts_the_old_piece_with_a_fade() {
        let mut timeline = timeline();
        assert!(timeline.begin(1, 0, 2_000));
        timeline.end(1_000, 2);
        assert!(timeline.begin(2, 1_000, 1_500));
        let out = render(&mut timeline, 4_000, 64);
        assert_eq!((out[1_999], out[2_000], out[2_339], out[2_499], out[2_500]), (0.0, 1.0, 1.0, 0.0, 2.0));
    }

    #[test]
    fn an_empty_piece_is_passed_over_and_too_many_are_refused() {
        let mut timeline = timeline();
        assert!(timeline.begin(1, 0, 100));
        timeline.end(0, 0);
        assert!(timeline.begin(2, 0, 100));
        assert_eq!(render(&mut timeline, 200, 64)[100], 2.0);
        for number in 3.. {
            if !timeline.begin(number, i64::from(number) * 1_000, 100_000) {
                assert_eq!(number as usize, MOST_PIECES + 2);
                break;
            }
        }
    }
}
