//! When a play window rolls over and how much of it is rebuilt beside which step: functions of the step alone, never of
//! threads or time.

use std::ops::Range;

/// Positions of the rebuilt window that are computed beside each step. One, and half a window to keep: a position is computed beside
/// the very step that it repeats, under the same prompt and steering, and every step costs the same. With two a rebuild
/// would take half as many steps, each so much slower that musicgen-small is late on two cores.
pub(super) const REBUILD_POSITIONS: u32 = 1;

/// The roll-over of a window of a given size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roll {
    /// Positions of the window.
    pub window: u32,
    /// Frames kept as context.
    pub keep: u32,
}

impl Roll {
    pub fn new(window: usize) -> Self {
        let window = window as u32;
        Self { window, keep: window / 2 }
    }

    /// Steps that a rebuild takes.
    pub fn duration(self) -> u32 {
        self.keep.div_ceil(REBUILD_POSITIONS)
    }

    /// The first step that runs in the rebuilt window, for a window that starts at step `base`.
    pub fn switch(self, base: u32) -> u32 {
        base + self.window
    }

    /// The step that becomes position 0 of the next window.
    pub fn next_base(self, base: u32) -> u32 {
        self.switch(base) - self.keep
    }

    /// Positions of the next window to compute beside `step`, when `rebuilt` of them are done.
    pub fn slice(self, base: u32, step: u32, rebuilt: u32) -> Option<Range<u32>> {
        if step + self.duration() < self.switch(base) {
            return None;
        }
        let end = (rebuilt + REBUILD_POSITIONS).min(self.keep);
        (rebuilt < end).then_some(rebuilt..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_ends_where_the_window_does() {
        for window in [64, 65, 100, 780, 1500] {
            let roll = Roll::new(window);
            assert!(roll.keep + roll.duration() <= roll.window, "the rebuild fits between two switches");
            assert!(roll.duration() * REBUILD_POSITIONS >= roll.keep);
            // The first rebuilt slice must lie behind the piece, and an ending piece must be out of the way by then.
            assert!(roll.switch(0) - roll.duration() > 8);
        }
    }

    #[test]
    fn slices_cover_the_kept_frames_once_and_only_read_what_was_played() {
        for window in [64, 65, 66, 67, 100, 101] {
            let roll = Roll::new(window);
            let base = 40;
            let mut rebuilt = 0;
            for step in base..roll.switch(base) {
                let Some(range) = roll.slice(base, step, rebuilt) else { continue };
                assert_eq!(range.start, rebuilt);
                assert!(roll.next_base(base) + range.end - 1 <= step, "window {window}, step {step}");
                rebuilt = range.end;
            }
            assert_eq!(rebuilt, roll.keep, "window {window}");
        }
    }
}
