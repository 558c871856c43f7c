//! How long the audio thread may wait for a frame: only as long as the host asked too early. Audio thread.
//!
//! Hosts render faster than real time and do not reliably say so. Slack is audio time pulled minus wall time; a bounce
//! gathers it, live playing does not.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::time::{Duration, Instant};

/// The `late` parameter: what happens when a frame is not there in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateMode {
    /// Wait as far as there is slack, else fade.
    #[default]
    Auto,
    /// Always wait.
    Wait,
    /// Never wait.
    Fade,
}

/// Wall time, and the only thing on the audio thread that may sleep.
pub trait Clock {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Sleeps about so long.
    fn sleep(&self, time: Duration);
}

/// The machine's monotonic clock.
pub struct WallClock {
    start: Instant,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for WallClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    // The one wait of the audio thread: see `SlackClock::allowance`.
    #[allow(clippy::disallowed_methods)]
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Slack that is never spent, seconds.
const RESERVE: f64 = 0.1;
/// The most slack that can be gathered, seconds.
const MOST: f64 = 2.0;
/// Device clocks drift against the wall clock: this share of the audio time does not count.
const LEAK: f64 = 0.001;
/// A pause in pulling after which nothing is known, seconds.
const PAUSE: f64 = 0.5;
/// An `offline` flag is doubted when blocks came at real-time pace for so long, seconds.
const DOUBT_AFTER: f64 = 2.0;

/// The slack clock.
pub struct SlackClock {
    rate: f64,
    /// Blocks may be longer than the reserve, and come in parts: a whole one is never spent.
    reserve: f64,
    slack: f64,
    entered: f64,
    left: Option<f64>,
    offline: bool,
    doubted: bool,
    /// Of the running window: wall time without our own waits, and audio time.
    window_wall: f64,
    window_audio: f64,
    waited: f64,
}

impl SlackClock {
    /// `rate`: samples per second of the host; `max_block`: its largest block.
    pub fn new(rate: f64, max_block: usize) -> Self {
        Self {
            rate,
            reserve: RESERVE.max(max_block as f64 / rate),
            slack: 0.0,
            entered: 0.0,
            left: None,
            offline: false,
            doubted: false,
            window_wall: 0.0,
            window_audio: 0.0,
            waited: 0.0,
        }
    }

    /// The host asks for a block at `now`; `offline` is what it says about itself.
    pub fn enter(&mut self, now: Duration, offline: bool) {
        let now = now.as_secs_f64();
        if let Some(left) = self.left {
            let gap = (now - left).max(0.0);
            if gap > PAUSE {
                self.slack = 0.0;
                self.new_window();
            } else {
                self.slack = (self.slack - gap).max(0.0);
                self.window_wall += gap;
            }
        }
        if offline != self.offline {
            self.offline = offline;
            self.doubted = false;
            self.new_window();
        }
        self.entered = now;
        self.waited = 0.0;
    }

    /// The block is done at `now`: `samples` more were pulled. They count from now on, so that a long block is no slack
    /// in itself.
    pub fn leave(&mut self, now: Duration, samples: usize) {
        let now = now.as_secs_f64();
        let inside = (now - self.entered).max(0.0);
        let audio = samples as f64 / self.rate;
        self.slack = (self.slack - inside + audio * (1.0 - LEAK)).clamp(0.0, MOST);
        self.left = Some(now);
        self.window_wall += (inside - self.waited).max(0.0);
        self.window_audio += audio;
        if self.window_wall >= DOUBT_AFTER {
            self.doubted = (0.9..=1.1).contains(&(self.window_audio / self.window_wall));
            if self.doubted {
                // What an export left over is no licence to wait in the live playing that follows without a pause.
                self.slack = 0.0;
            }
            self.new_window();
        }
    }

    /// A wait inside this block, which says nothing about the host's pace.
    pub fn waited(&mut self, time: Duration) {
        self.waited += time.as_secs_f64();
    }

    /// How long a wait that begins at `now` may last.
    pub fn allowance(&self, now: Duration, late: LateMode) -> Duration {
        match late {
            LateMode::Fade => Duration::ZERO,
            LateMode::Wait => Duration::MAX,
            LateMode::Auto if self.offline && !self.doubted => Duration::MAX,
            LateMode::Auto => {
                let slack = self.slack - (now.as_secs_f64() - self.entered).max(0.0);
                Duration::from_secs_f64((slack - self.reserve).max(0.0))
            }
        }
    }

    /// Forgets the past: slack starts at nothing.
    pub fn reset(&mut self) {
        self.slack = 0.0;
        self.left = None;
        self.doubted = false;
        self.new_window();
    }

    fn new_window(&mut self) {
        self.window_wall = 0.0;
        self.window_audio = 0.0;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    const RATE: f64 = 48_000.0;

    struct Host {
        slack: SlackClock,
        now: f64,
        offline: bool,
        longest: f64,
    }

    impl Host {
        fn new(max_block: usize) -> Self {
            Self { slack: SlackClock::new(RATE, max_block), now: 1.0, offline: false, longest: 0.0 }
        }

        /// Pulls one block that takes no time, then lets `wall` seconds pass. Returns what a wait might have lasted.
        fn pull(&mut self, samples: usize, wall: f64) -> f64 {
            let now = Duration::from_secs_f64(self.now);
            self.slack.enter(now, self.offline);
            let allowed = self.slack.allowance(now, LateMode::Auto);
            let allowed = if allowed == Duration::MAX { f64::INFINITY } else { allowed.as_secs_f64() };
            self.slack.leave(now, samples);
            self.longest = self.longest.max(allowed);
            self.now += wall;
            allowed
        }
    }

    #[test]
    fn a_device_200_ppm_fast_never_waits_in_two_hours() {
        let mut host = Host::new(480);
        for _ in 0..720_000 {
            host.pull(480, 0.01 / 1.0002);
        }
        assert_eq!(host.longest, 0.0);
    }

    #[test]
    fn bursts_and_long_blocks_are_no_slack() {
        let mut host = Host::new(480);
        for _ in 0..1_000 {
            // Five blocks at once, every 50 ms, sometimes 20 ms late.
            for _ in 0..4 {
                host.pull(480, 0.0);
            }
            host.pull(480, 0.05);
            host.pull(0, 0.0);
        }
        assert_eq!(host.longest, 0.0);
        let mut host = Host::new(16_384);
        for _ in 0..100 {
            // One block that automation cut into 16.
            for _ in 0..15 {
                host.pull(1_024, 0.0);
            }
            host.pull(1_024, 16_384.0 / RATE);
        }
        assert_eq!(host.longest, 0.0);
    }

    #[test]
    fn an_export_gathers_slack_up_to_two_seconds() {
        let mut host = Host::new(480);
        for _ in 0..20 {
            host.pull(480, 0.0);
        }
        let after_200_ms = host.pull(480, 0.0);
        assert!((after_200_ms - 0.0998).abs() < 1e-6, "{after_200_ms}");
        for _ in 0..1_000 {
            host.pull(480, 0.0);
        }
        let most = host.pull(480, 0.0);
        assert!((most - 1.9).abs() < 1e-6, "{most}");
    }

    #[test]
    fn a_wait_spends_slack() {
        let mut host = Host::new(480);
        for _ in 0..100 {
            host.pull(480, 0.0);
        }
        let now = Duration::from_secs_f64(host.now);
        host.slack.enter(now, false);
        let before = host.slack.allowance(now, LateMode::Auto);
        let later = now + Duration::from_millis(300);
        let after = host.slack.allowance(later, LateMode::Auto);
        assert!((before.as_secs_f64() - after.as_secs_f64() - 0.3).abs() < 1e-6);
        host.slack.waited(Duration::from_millis(300));
        host.slack.leave(later, 0);
        host.now += 0.3;
        assert!((host.pull(480, 0.0) - after.as_secs_f64()).abs() < 1e-6);
    }

    #[test]
    fn live_after_an_export_and_an_export_after_ten_minutes() {
        let mut host = Host::new(480);
        for _ in 0..6_000 {
            host.pull(480, 0.0005);
        }
        assert!(host.pull(480, 600.0) > 1.0);
        host.longest = 0.0;
        for _ in 0..6_000 {
            host.pull(480, 0.01);
        }
        assert_eq!(host.longest, 0.0, "live after a bounce");
        host.now += 600.0;
        host.pull(480, 0.0);
        for _ in 0..9 {
            assert_eq!(host.pull(480, 0.0), 0.0);
        }
        let after_a_second = (0..100).map(|_| host.pull(480, 0.0001)).last();
        assert!(after_a_second.is_some_and(|allowed| allowed > 0.9));
    }

    #[test]
    fn live_straight_after_an_export_soon_stops_waiting() {
        let mut host = Host::new(480);
        for _ in 0..6_000 {
            host.pull(480, 0.0005);
        }
        for _ in 0..450 {
            host.pull(480, 0.01);
        }
        host.longest = 0.0;
        for _ in 0..6_000 {
            host.pull(480, 0.01);
        }
        assert_eq!(host.longest, 0.0);
    }

    #[test]
    fn an_offline_flag_is_believed_until_the_pace_is_real_time() {
        let mut host = Host::new(480);
        host.offline = true;
        assert_eq!(host.pull(480, 0.001), f64::INFINITY);
        for _ in 0..5_000 {
            assert_eq!(host.pull(480, 0.001), f64::INFINITY);
        }
        for _ in 0..450 {
            host.pull(480, 0.01);
        }
        assert_eq!(host.pull(480, 0.01), 0.0, "a host that forgot to clear the flag");
        for _ in 0..6_000 {
            host.pull(480, 0.0005);
        }
        assert_eq!(host.pull(480, 0.001), f64::INFINITY, "and one that renders again");
    }

    #[test]
    fn an_engine_at_real_time_pace_does_not_make_an_export_doubtful() {
        let mut slack = SlackClock::new(RATE, 480);
        let mut now = Duration::ZERO;
        for _ in 0..1_000 {
            slack.enter(now, true);
            assert_eq!(slack.allowance(now, LateMode::Auto), Duration::MAX);
            now += Duration::from_millis(10);
            slack.waited(Duration::from_millis(10));
            slack.leave(now, 480);
        }
    }

    #[test]
    fn the_late_parameter_decides() {
        let slack = SlackClock::new(RATE, 480);
        assert_eq!(slack.allowance(Duration::ZERO, LateMode::Wait), Duration::MAX);
        assert_eq!(slack.allowance(Duration::ZERO, LateMode::Fade), Duration::ZERO);
        assert_eq!(slack.allowance(Duration::ZERO, LateMode::Auto), Duration::ZERO);
    }
}
