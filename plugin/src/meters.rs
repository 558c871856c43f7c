//! Counters and levels that the audio thread writes and the editor reads, the Play button and the map of MIDI controllers.
//! Any thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use tiller_engine::control::Lanes;

use crate::controllers::ControllerMap;
use crate::midi::KeySettings;
use crate::monitor::Monitor;
use crate::target::Target;

/// Shared between the `Processor` and the editor (`Arc`). Every access is one relaxed atomic.
#[derive(Debug)]
pub struct Meters {
    /// The editor's Play button: sounds in a host whose transport does not play. A key sets it where the host reports no
    /// transport at all; the editor clears it.
    pub play: AtomicBool,
    /// Which MIDI controller moves what.
    pub controllers: ControllerMap,
    /// How keys are taken.
    pub keys: KeySettings,
    /// The newest samples and lane values, for the editor's pictures.
    pub monitor: Monitor,
    peaks: [AtomicU32; 2],
    late_frames: AtomicU64,
    skipped_frames: AtomicU64,
    waits: AtomicU64,
    latency: AtomicU32,
    sounding: AtomicBool,
    target: AtomicU16,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            play: AtomicBool::new(false),
            controllers: ControllerMap::default(),
            keys: KeySettings::default(),
            monitor: Monitor::default(),
            peaks: [AtomicU32::new(0), AtomicU32::new(0)],
            late_frames: AtomicU64::new(0),
            skipped_frames: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            latency: AtomicU32::new(0),
            sounding: AtomicBool::new(false),
            target: AtomicU16::new(0),
        }
    }
}

impl Meters {
    /// The highest absolute sample of left and right since the last call.
    pub fn take_peaks(&self) -> [f32; 2] {
        [0, 1].map(|channel| f32::from_bits(self.peaks[channel].swap(0, Ordering::Relaxed)))
    }

    /// Whether there is a peak to take.
    pub fn has_peaks(&self) -> bool {
        self.peaks.iter().any(|peak| peak.load(Ordering::Relaxed) != 0)
    }

    /// Frames that were to be heard and had not been answered in time.
    pub fn late_frames(&self) -> u64 {
        self.late_frames.load(Ordering::Relaxed)
    }

    /// Frames that were never computed because the engine was behind.
    pub fn skipped_frames(&self) -> u64 {
        self.skipped_frames.load(Ordering::Relaxed)
    }

    /// How often the audio thread waited for a frame (offline or out of slack).
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// The latency that the next anchor will have, host samples.
    pub fn latency(&self) -> u32 {
        self.latency.load(Ordering::Relaxed)
    }

    /// Whether a piece is running (control frames are being sent).
    pub fn is_sounding(&self) -> bool {
        self.sounding.load(Ordering::Relaxed)
    }

    /// What the frame that is heard now is steered to.
    pub fn sounding_target(&self) -> Target {
        Target::of_code(self.target.load(Ordering::Relaxed))
    }

    /// A control frame is sent, to be heard a latency from now.
    pub(crate) fn show_sent(&self, lanes: &Lanes) {
        self.monitor.steer(lanes, self.latency());
    }

    /// What is heard now.
    pub(crate) fn show_heard(&self, left: &[f32], right: &[f32]) {
        self.monitor.hear(left, right, self.sounding_target());
    }

    pub(crate) fn report_peak(&self, channel: usize, peak: f32) {
        // Bit patterns of floats that are not negative are in the floats' order.
        self.peaks[channel & 1].fetch_max(peak.abs().to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn count_late(&self) {
        self.late_frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_skipped(&self, frames: u64) {
        self.skipped_frames.store(frames, Ordering::Relaxed);
    }

    pub(crate) fn count_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_latency(&self, samples: u32) {
        self.latency.store(samples, Ordering::Relaxed);
    }

    pub(crate) fn set_sounding(&self, sounding: bool) {
        self.sounding.store(sounding, Ordering::Relaxed);
    }

    pub(crate) fn set_target(&self, target: Target) {
        self.target.store(target.code(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    #[test]
    fn peaks_hold_until_read() {
        let meters = Meters::default();
        meters.report_peak(0, -0.5);
        meters.report_peak(0, 0.25);
        assert_eq!(meters.take_peaks(), [0.5, 0.0]);
        assert_eq!(meters.take_peaks(), [0.0, 0.0]);
    }
}
