//! The two lock-free queues between the audio thread (`Link`) and the runner (`RunnerLink`): control frames out,
//! interleaved audio in, and a few atomics. Nothing here allocates after `link()`.
#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ringbuf::HeapRb;
use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd};

use crate::control::ControlFrame;

/// Channels in the ring. A mono checkpoint is written to both, so that a consumer never asks.
pub const CHANNELS: usize = 2;

/// Floats before each frame's samples: piece, slot, flags.
const HEADER: usize = 3;

/// The clock of a checkpoint, known from its configuration before any weight is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFormat {
    /// Samples per second of the codec.
    pub model_rate: u32,
    /// Samples per channel in one frame.
    pub frame_samples: usize,
    /// Frames between the control frame that asks and the audio that answers: largest codebook delay + codec look-ahead
    /// + hop - 1.
    pub delay_frames: usize,
}

impl StreamFormat {
    /// The published MusicGen clock, for when no checkpoint can be read.
    pub const PUBLISHED: Self = Self { model_rate: 32_000, frame_samples: 640, delay_frames: 7 };
}

/// Names the frame of audio that follows it in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The piece that the audio belongs to.
    pub piece: u32,
    /// The frame slot of the piece where the audio is to be heard: it plays L after frame `slot`'s place.
    pub slot: u32,
    /// The last frame of its piece: everything that was asked for has been answered.
    pub last: bool,
}

#[derive(Default)]
struct Signals {
    /// `(piece << 32) | index`: frames before it are dropped by the runner, never computed.
    skip_before: AtomicU64,
    /// The audio thread is able to wait, so nothing is late and the runner may take its time.
    patient: AtomicBool,
    /// The audio end is gone; the runner drops its own end.
    closed: AtomicBool,
    /// The engine cannot answer (failed or no model): every wait ends.
    dead: AtomicBool,
    /// Frames that the runner dropped because of `skip_before`.
    skipped: AtomicU64,
    /// This piece and older ones are not answered any more: its numbers went wrong. 0 is none.
    failed: AtomicU32,
    /// `(piece << 32) | slot`: slots before it will not come, though the engine goes on.
    lost_before: AtomicU64,
    /// Nanoseconds that the runner needs for a frame, smoothed; 0 before the first.
    pace: AtomicU64,
}

/// The audio thread's end.
pub struct Link {
    controls: HeapProd<ControlFrame>,
    audio: HeapCons<f32>,
    signals: Arc<Signals>,
    format: StreamFormat,
}

/// The runner's end.
pub struct RunnerLink {
    controls: HeapCons<ControlFrame>,
    audio: HeapProd<f32>,
    signals: Arc<Signals>,
    format: StreamFormat,
}

/// Makes both ends with room for `frames` control frames and as many frames of audio.
#[expect(clippy::disallowed_methods, reason = "made on the main thread, before the audio thread has it")]
pub fn link(format: StreamFormat, frames: usize) -> (Link, RunnerLink) {
    let (control_producer, control_consumer) = HeapRb::new(frames).split();
    let frame_floats = HEADER + format.frame_samples * CHANNELS;
    let (audio_producer, audio_consumer) = HeapRb::new((frames + 2 * format.delay_frames) * frame_floats).split();
    let signals = Arc::new(Signals::default());
    (
        Link { controls: control_producer, audio: audio_consumer, signals: signals.clone(), format },
        RunnerLink { controls: control_consumer, audio: audio_producer, signals, format },
    )
}

fn pack(piece: u32, index: u32) -> u64 {
    (u64::from(piece) << 32) | u64::from(index)
}

impl Link {
    /// The clock that this link was made for.
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// Sends one control frame. `false` when the queue is full: the frame then counts as skipped.
    ///
    /// # Realtime safety
    /// Wait-free, no allocation.
    pub fn send(&mut self, control: ControlFrame) -> bool {
        self.controls.try_push(control).is_ok()
    }

    /// Takes the next frame of audio into `samples` (`frame_samples * CHANNELS`, interleaved), or `None` when there is none.
    ///
    /// # Realtime safety
    /// Wait-free, no allocation.
    pub fn receive(&mut self, samples: &mut [f32]) -> Option<FrameHeader> {
        let body = self.format.frame_samples * CHANNELS;
        if samples.len() != body || self.audio.occupied_len() < HEADER + body {
            return None;
        }
        let mut header = [0.0; HEADER];
        self.audio.pop_slice(&mut header);
        self.audio.pop_slice(samples);
        Some(FrameHeader { piece: header[0].to_bits(), slot: header[1].to_bits(), last: header[2] != 0.0 })
    }

    /// Tells the runner never to compute the frames of `piece` before `index` (nor older pieces): they are late.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn skip_before(&self, piece: u32, index: u32) {
        self.signals.skip_before.fetch_max(pack(piece, index), Ordering::Release);
    }

    /// Says whether the audio thread waits for frames now (offline, or out of slack). A patient link also waits for a
    /// prompt that is still being encoded.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn set_patient(&self, patient: bool) {
        self.signals.patient.store(patient, Ordering::Release);
    }

    /// The engine will not answer for `piece`: it has no model, or that piece failed. Waiting is pointless.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn is_dead(&self, piece: u32) -> bool {
        self.signals.dead.load(Ordering::Acquire) || piece <= self.signals.failed.load(Ordering::Acquire)
    }

    /// The piece and slot before which nothing will come that has not: what was under way when a card was lost.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn lost_before(&self) -> (u32, u32) {
        let lost = self.signals.lost_before.load(Ordering::Acquire);
        ((lost >> 32) as u32, lost as u32)
    }

    /// What the runner needs for a frame, smoothed over some; nothing before the first.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn pace(&self) -> Duration {
        Duration::from_nanos(self.signals.pace.load(Ordering::Relaxed))
    }

    /// Frames that the runner dropped so far.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn skipped(&self) -> u64 {
        self.signals.skipped.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.signals.closed.store(true, Ordering::Release);
    }
}

impl Drop for RunnerLink {
    /// Nobody will answer any more (another audio end took the place of this one): every wait ends.
    fn drop(&mut self) {
        self.set_dead(true);
    }
}

impl RunnerLink {
    /// The clock that this link was made for.
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// The oldest control frame that has not been taken, left in the queue.
    pub fn peek(&self) -> Option<ControlFrame> {
        self.controls.try_peek().copied()
    }

    /// Takes the oldest control frame.
    pub fn take(&mut self) -> Option<ControlFrame> {
        self.controls.try_pop()
    }

    /// Whether `control` is to be dropped without computing it; such a frame is counted.
    pub fn is_skipped(&self, control: &ControlFrame) -> bool {
        let skipped = pack(control.piece, control.index) < self.signals.skip_before.load(Ordering::Acquire);
        if skipped {
            self.signals.skipped.fetch_add(1, Ordering::Relaxed);
        }
        skipped
    }

    /// Whether the audio thread waits for frames now.
    pub fn is_patient(&self) -> bool {
        self.signals.patient.load(Ordering::Acquire)
    }

    /// The audio end was dropped.
    pub fn is_closed(&self) -> bool {
        self.signals.closed.load(Ordering::Acquire)
    }

    /// Says that `piece` will not be answered any more, nor older ones; the next one may be.
    pub fn set_failed(&self, piece: u32) {
        self.signals.failed.fetch_max(piece, Ordering::Release);
    }

    /// Whether `piece` was given up.
    pub fn has_failed(&self, piece: u32) -> bool {
        piece <= self.signals.failed.load(Ordering::Acquire)
    }

    /// Says that slots before `slot` of `piece` will not come unless they have.
    pub fn set_lost_before(&self, piece: u32, slot: u32) {
        self.signals.lost_before.fetch_max(pack(piece, slot), Ordering::Release);
    }

    /// Says what a frame costs.
    pub fn set_pace(&self, pace: Duration) {
        self.signals.pace.store(u64::try_from(pace.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Says that frames will (not) be answered.
    pub fn set_dead(&self, dead: bool) {
        self.signals.dead.store(dead, Ordering::Release);
    }

    /// Writes one frame (`frame_samples * CHANNELS`, interleaved). `false` when there is no room: try again later.
    pub fn answer(&mut self, header: FrameHeader, samples: &[f32]) -> bool {
        let body = self.format.frame_samples * CHANNELS;
        if samples.len() != body || self.audio.vacant_len() < HEADER + body {
            return false;
        }
        let flags = if header.last { 1.0 } else { 0.0 };
        // The header goes with its samples or not at all: the reader checks for both before it takes either.
        self.audio.push_slice(&[f32::from_bits(header.piece), f32::from_bits(header.slot), flags]);
        self.audio.push_slice(samples);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_and_in_order() {
        let format = StreamFormat { model_rate: 32_000, frame_samples: 3, delay_frames: 1 };
        let (mut audio, mut runner) = link(format, 2);
        assert!(audio.send(ControlFrame::new(1, 0)));
        assert!(audio.send(ControlFrame::new(1, 1)));
        assert!(!audio.send(ControlFrame::new(1, 2)), "a full queue refuses");
        assert_eq!(runner.take().map(|c| c.index), Some(0));
        let header = FrameHeader { piece: 0x7fc0_0001, slot: 9, last: true };
        assert!(runner.answer(header, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        let mut samples = [0.0; 6];
        // The piece number is the bit pattern of a NaN: it must survive.
        assert_eq!(audio.receive(&mut samples), Some(header));
        assert_eq!(samples, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(audio.receive(&mut samples), None);
    }

    #[test]
    fn an_end_without_a_runner_is_dead() {
        let (audio, runner) = link(StreamFormat::PUBLISHED, 2);
        assert!(!audio.is_dead(1));
        runner.set_failed(2);
        assert_eq!([1, 2, 3].map(|piece| audio.is_dead(piece)), [true, true, false]);
        drop(runner);
        assert!(audio.is_dead(3));
    }

    #[test]
    fn what_is_lost_only_grows() {
        let (audio, runner) = link(StreamFormat::PUBLISHED, 2);
        assert_eq!(audio.lost_before(), (0, 0));
        runner.set_lost_before(3, 70);
        runner.set_lost_before(2, 99);
        assert_eq!(audio.lost_before(), (3, 70));
    }

    #[test]
    fn skipping_compares_pieces_first() {
        let (audio, runner) = link(StreamFormat::PUBLISHED, 2);
        audio.skip_before(2, 5);
        assert!(runner.is_skipped(&ControlFrame::new(1, 900)));
        assert!(runner.is_skipped(&ControlFrame::new(2, 4)));
        assert!(!runner.is_skipped(&ControlFrame::new(2, 5)));
        assert!(!runner.is_skipped(&ControlFrame::new(3, 0)));
        assert_eq!(audio.skipped(), 2);
    }
}
