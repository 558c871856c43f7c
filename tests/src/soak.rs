//! Long play through the engine's core, on one thread: what is heard of it and what each step cost, kept in memory that is
//! taken before the first step, so that whatever grows is the player's.

pub mod clicks;
pub mod hosted;
pub mod loudness;
pub mod slots;

use std::time::Instant;

use tiller_engine::control::ControlFrame;
use tiller_engine::error::EngineError;
use tiller_engine::link::{CHANNELS, FrameHeader, StreamFormat};
use tiller_engine::player::{Player, StepWork};

use crate::counting::allocations;

/// What the plugin plays in a new project; the settings of [`ControlFrame::new`] are its defaults, too.
pub const DEFAULT_PROMPT: &str = "calm piano broken chords, slow";

/// Steps that may allocate: none has a reason to, but memory that is touched for the first time is none of growth.
pub const WARM_UP: usize = 100;

/// Listens to interleaved frames as they come.
pub struct Ear {
    /// Mean square of each frame.
    pub power: Vec<f32>,
    /// Largest |x\[n\] - x\[n - 1\]| of each frame, its first sample against the last one of the frame before.
    pub leaps: Vec<f32>,
    /// Largest |x|.
    pub peak: f32,
    /// Samples that are no number.
    pub not_finite: usize,
    /// Frames whose slot is not the next one.
    pub out_of_order: usize,
    last: [f32; CHANNELS],
}

impl Ear {
    /// For `frames` frames.
    pub fn new(frames: usize) -> Self {
        Self {
            power: reserved(frames),
            leaps: reserved(frames),
            peak: 0.0,
            not_finite: 0,
            out_of_order: 0,
            last: [0.0; CHANNELS],
        }
    }

    /// Hears one frame.
    pub fn hear(&mut self, header: FrameHeader, samples: &[f32]) {
        self.out_of_order += usize::from(header.slot as usize != self.power.len());
        let (mut power, mut leap) = (0.0, 0.0f32);
        for sample in samples.chunks_exact(CHANNELS) {
            for (sample, last) in sample.iter().zip(&mut self.last) {
                self.not_finite += usize::from(!sample.is_finite());
                self.peak = self.peak.max(sample.abs());
                leap = leap.max((sample - *last).abs());
                power += f64::from(*sample) * f64::from(*sample);
                *last = *sample;
            }
        }
        self.power.push((power / samples.len().max(1) as f64) as f32);
        self.leaps.push(leap);
    }
}

/// A run of frames and what it cost.
pub struct Run {
    pub format: StreamFormat,
    pub ear: Ear,
    /// Of each step.
    pub work: Vec<StepWork>,
    /// Of each step, wall time.
    pub seconds: Vec<f32>,
    /// Of each step, time on a core, which other work on the machine does not lengthen; wall time where it is not known.
    pub compute: Vec<f32>,
    /// Allocations on this thread after [`WARM_UP`] steps; always 0 where the counting allocator is not installed.
    pub allocations: usize,
}

impl Run {
    /// Room for `frames` frames.
    pub fn new(format: StreamFormat, frames: usize) -> Self {
        Self {
            format,
            ear: Ear::new(frames),
            work: reserved(frames),
            seconds: reserved(frames),
            compute: reserved(frames),
            allocations: 0,
        }
    }

    /// Plays `frames` frames of one piece like `control`, and its end. `each` hears of every step, after its time was taken;
    /// `sink` gets every frame of audio.
    ///
    /// # Errors
    /// When the model's numbers are not finite.
    pub fn play(
        &mut self,
        player: &mut Player,
        control: ControlFrame,
        frames: u32,
        mut sink: impl FnMut(&[f32]),
        mut each: impl FnMut(usize),
    ) -> Result<(), EngineError> {
        let ear = &mut self.ear;
        let mut hear = |header: FrameHeader, samples: &[f32]| {
            ear.hear(header, samples);
            sink(samples);
        };
        for index in 0..frames {
            let control = ControlFrame { index, ..control };
            let (before, start, on_core) = (allocations(), Instant::now(), core_seconds());
            player.answer(&control, &mut hear)?;
            let (end, seconds) = (core_seconds(), start.elapsed().as_secs_f32());
            self.seconds.push(seconds);
            self.compute.push(end.zip(on_core).map_or(seconds, |(end, start)| (end - start) as f32));
            if index as usize >= WARM_UP {
                self.allocations += allocations() - before;
            }
            self.work.push(player.last_work());
            each(index as usize);
        }
        let before = allocations();
        player.answer(&ControlFrame::end(control.piece, frames), &mut hear)?;
        while player.is_flushing() {
            player.flush(&mut hear)?;
        }
        self.allocations += allocations() - before;
        Ok(())
    }

    /// Keeps the shorter time of each step: `other` is the same piece once more, so what a step costs of itself shows in
    /// both, and what the machine did meanwhile in one. `false` when it did not sound the same, bit for bit.
    pub fn shorten(&mut self, other: &Self) -> bool {
        for (times, others) in [(&mut self.seconds, &other.seconds), (&mut self.compute, &other.compute)] {
            times.iter_mut().zip(others).for_each(|(time, other)| *time = time.min(*other));
        }
        self.allocations += other.allocations;
        self.ear.power == other.ear.power && self.ear.leaps == other.ear.leaps && self.work == other.work
    }

    /// Seconds of one frame.
    pub fn frame_seconds(&self) -> f64 {
        self.format.frame_samples as f64 / f64::from(self.format.model_rate)
    }

    /// Frames of one minute.
    pub fn frames_per_minute(&self) -> usize {
        (60.0 / self.frame_seconds()).round() as usize
    }

    /// Steps that were the first in a rebuilt window. Audio frame `s` is the first whose codebook 0 comes from it. The
    /// later codebooks of the frames before it do too, and the codec looks ahead: the first sample that can know of it lies
    /// `delay_frames` frames earlier.
    pub fn switches(&self) -> Vec<usize> {
        self.work.iter().enumerate().filter(|(_, work)| work.switched).map(|(step, _)| step).collect()
    }

    /// Mean and median compute time of a minute's steps; minutes count from 0.
    pub fn compute_in_minute(&self, minute: usize) -> Option<(f64, f64)> {
        let length = self.frames_per_minute();
        let mut steps = self.compute.get(minute * length..(minute + 1) * length)?.to_vec();
        steps.sort_unstable_by(f32::total_cmp);
        let mean = steps.iter().map(|s| f64::from(*s)).sum::<f64>() / steps.len().max(1) as f64;
        Some((mean, f64::from(*steps.get(steps.len() / 2)?)))
    }
}

/// An empty vector whose memory has been touched already.
fn reserved<T: Default + Clone>(length: usize) -> Vec<T> {
    let mut memory = Vec::with_capacity(length);
    memory.resize(length, T::default());
    memory.clear();
    memory
}

/// Seconds that this thread has been on a core, where the system tells.
pub fn core_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of our own.
        let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0;
        told.then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    None
}

/// Seconds that this thread was ready to run and did not, where the system tells: other work on the machine.
pub fn waited_for_a_core() -> Option<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = statistics.split_whitespace().nth(1)?.parse().ok()?;
    Some(nanoseconds * 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_the_plugins() {
        let plugin = include_str!("../../plugin/src/state/document.rs");
        assert!(plugin.contains(&format!("DEFAULT_PROMPT: &str = \"{DEFAULT_PROMPT}\"")));
    }

    #[test]
    fn an_ear_hears_leaps_across_frames() {
        let mut ear = Ear::new(3);
        let header = |slot| FrameHeader { piece: 1, slot, last: false };
        ear.hear(header(0), &[0.0, 0.0, 0.25, 0.0]);
        ear.hear(header(1), &[0.75, 0.0, 0.75, 0.0]);
        ear.hear(header(3), &[0.75, 0.0, f32::NAN, 0.0]);
        assert_eq!(ear.leaps[..2], [0.25, 0.5]);
        assert_eq!((ear.peak, ear.not_finite, ear.out_of_order), (0.75, 1, 1));
        assert!((ear.power[1] - 0.28125).abs() < 1e-6);
    }
}
