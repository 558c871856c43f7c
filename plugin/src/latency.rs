//! The fixed delay between a steering move and its sound, reported to the host. Pure arithmetic.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use tiller_engine::control::MOST_HOP;
use tiller_engine::link::StreamFormat;

use crate::frames::FrameClock;

/// Most frames of room that the setting takes.
pub const MAX_ROOM_FRAMES: u32 = 100;

/// Frames of room from which on one of them may go to the codec's hop: what is left is as much as the tight setting has, and
/// more.
const ROOMY: f64 = 4.0;

/// The `latency` setting: how much room the engine's jitter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencySetting {
    /// 1.5 frames.
    Tight,
    /// 5 frames.
    Safe,
    /// A number of frames, at most [`MAX_ROOM_FRAMES`].
    Frames(u32),
}

impl LatencySetting {
    /// Room for jitter, frames.
    pub fn room_frames(self) -> f64 {
        match self {
            Self::Tight => 1.5,
            Self::Safe => 5.0,
            Self::Frames(frames) => f64::from(frames.min(MAX_ROOM_FRAMES)),
        }
    }

    /// Frames that may wait for each other before the codec takes them: it then reads its weights half as often.
    pub fn hop(self) -> u32 {
        if self.room_frames() >= ROOMY { MOST_HOP } else { 1 }
    }
}

/// L in host samples: one frame to collect, `delay_frames`, and the larger of the room for jitter and one frame of compute
/// beside the host's largest block, plus `lookahead` host samples of the resampler.
///
/// It depends on the setting, the rate and the block size, never on what the engine is doing.
pub fn samples(setting: LatencySetting, format: StreamFormat, rate: f64, max_block: usize, lookahead: usize) -> u32 {
    let frame = FrameClock::new(format, rate).frame_length();
    let room = (setting.room_frames() * frame).max(frame + max_block as f64);
    ((1.0 + format.delay_frames as f64) * frame + room).ceil() as u32 + lookahead as u32
}

/// Frames that can be under way at once at any setting: what the queues and the store of frames are made for.
pub fn queue_frames(format: StreamFormat, rate: f64, max_block: usize) -> usize {
    let block_frames = (max_block as f64 / FrameClock::new(format, rate).frame_length()).ceil() as usize;
    MAX_ROOM_FRAMES as usize + 2 * block_frames + 4 * (1 + format.delay_frames) + 16
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    #[test]
    fn tight_is_190_ms_at_32_khz() {
        let tight = samples(LatencySetting::Tight, StreamFormat::PUBLISHED, 32_000.0, 64, 0);
        assert_eq!(tight, 6_080);
        assert_eq!(f64::from(tight) / 32_000.0, 0.19);
    }

    #[test]
    fn frames_wait_for_each_other_only_where_there_is_room() {
        let hops = [LatencySetting::Tight, LatencySetting::Frames(3), LatencySetting::Frames(4), LatencySetting::Safe];
        assert_eq!(hops.map(LatencySetting::hop), [1, 1, 2, 2]);
    }

    #[test]
    fn the_larger_of_room_and_block_counts() {
        let at = |setting, block| samples(setting, StreamFormat::PUBLISHED, 48_000.0, block, 96);
        assert_eq!(at(LatencySetting::Safe, 64), 8 * 960 + 5 * 960 + 96);
        assert_eq!(at(LatencySetting::Tight, 480), 8 * 960 + 960 + 480 + 96);
        assert_eq!(at(LatencySetting::Tight, 4_096), 8 * 960 + 960 + 4_096 + 96);
        assert_eq!(at(LatencySetting::Frames(0), 0), 9 * 960 + 96);
        assert_eq!(at(LatencySetting::Frames(9_999), 0), at(LatencySetting::Frames(MAX_ROOM_FRAMES), 0));
    }
}
