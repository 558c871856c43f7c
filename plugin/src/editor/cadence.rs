//! When a window that moves is painted next: on a grid of its own, whatever the grid of the screen. UI thread.
//!
//! A window is painted at the screen's ticks (every 15 ms where baseview has none to follow), so a pause counted from the last
//! painting is rounded up to a tick each time, and to one more where painting takes long: 25 a second become 22, or 16. Counted
//! from when the last painting was due, a pause that came out long makes the next one short.

use std::time::Duration;

/// The paintings of one window.
pub struct Cadence {
    /// Between two paintings, in seconds.
    pause: f64,
    /// When the next one is due, in seconds of the window's clock.
    due: f64,
}

impl Cadence {
    /// With `pause` between two paintings.
    pub fn new(pause: Duration) -> Self {
        Self { pause: pause.as_secs_f64(), due: 0.0 }
    }

    /// How long to wait from `now`, when a painting began (seconds of the window's clock). What is late by more than a pause,
    /// or was painted for another reason, starts a new grid: nothing is caught up with.
    pub fn next(&mut self, now: f64) -> Duration {
        let late = now - self.due;
        if late > self.pause || late < -self.pause {
            self.due = now;
        }
        // One that came a little early was that one all the same.
        if self.due <= now + self.pause / 2.0 {
            self.due += self.pause;
        }
        Duration::from_secs_f64((self.due - now).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(40);

    /// Paintings in ten seconds at ticks of `tick` ms, each of which takes `cost` ms.
    fn paintings(tick: f64, cost: f64) -> usize {
        let (mut cadence, mut now, mut count) = (Cadence::new(PAUSE), 0.0, 0);
        while now < 10.0 {
            count += 1;
            let ready = (now + cost / 1e3).max(now + cadence.next(now).as_secs_f64());
            now = (ready / (tick / 1e3)).ceil() * tick / 1e3;
        }
        count
    }

    #[test]
    fn a_screen_with_ticks_of_its_own_is_painted_as_often() {
        for tick in [1.0, 6.9, 15.0, 16.7, 33.3] {
            let count = paintings(tick, 10.0);
            assert!((248..=252).contains(&count), "{count} in ten seconds at ticks of {tick} ms");
        }
        assert!(
            (120..=170).contains(&paintings(15.0, 62.0)),
            "paintings that take longer than the pause are not piled up"
        );
    }

    #[test]
    fn a_painting_for_another_reason_does_not_add_one() {
        let mut cadence = Cadence::new(PAUSE);
        assert_eq!(cadence.next(100.0), PAUSE);
        // The mouse moved meanwhile.
        let left = cadence.next(100.015).as_secs_f64();
        assert!((left - 0.025).abs() < 1e-9, "{left}");
        assert_eq!(cadence.next(103.0), PAUSE, "after a rest");
    }
}
