//! The audio thread's end of the test host: blocks of any size, events at sample offsets, a transport, paced by the
//! wall clock or flat out. Nothing in `block` allocates once the buffers have grown, so that it can run under RTSan.

use std::iter::Empty;
use std::time::{Duration, Instant};

use clack_host::events::event_types::TransportEvent;
use clack_host::prelude::*;

use crate::host::{Handlers, Outcome};
use crate::score::Score;

/// How a span of host time is cut into blocks. Blocks are also cut where the transport jumps, as hosts do.
#[derive(Clone, Copy, Debug)]
pub enum Blocks {
    /// Always this many samples.
    Fixed(usize),
    /// Sizes from 1 to the activated maximum, a pure function of the seed.
    Random(u64),
}

/// How fast the host pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as blocks come back.
    FlatOut,
    /// Block by block at the device's pace.
    WallClock,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Left channel.
    pub left: Vec<f32>,
    /// Right channel.
    pub right: Vec<f32>,
}

impl Recording {
    /// Without the first `latency` samples, as a host that compensates the delay would show it.
    pub fn compensated(&self, latency: usize) -> Self {
        let cut = |channel: &[f32]| channel.get(latency..).unwrap_or_default().to_vec();
        Self { left: cut(&self.left), right: cut(&self.right) }
    }

    /// Mean of both channels.
    pub fn mono(&self) -> Vec<f32> {
        self.left.iter().zip(&self.right).map(|(l, r)| 0.5 * (l + r)).collect()
    }
}

/// Called right before and right after the plugin's `process`, on the audio thread.
#[derive(Clone, Copy)]
pub struct Watch {
    /// Before.
    pub enter: fn(),
    /// After.
    pub exit: fn(),
}

/// Samples behind each block that the plugin must leave alone.
const BEHIND: usize = 16;

/// A port that an instrument does not have; clack wants its type all the same.
type NoInput = AudioPortBuffer<Empty<InputChannel<'static, f32>>, Empty<InputChannel<'static, f64>>>;

/// The audio thread's end of one active instance.
pub struct Player {
    processor: StartedPluginAudioProcessor<Handlers>,
    inputs: AudioPorts,
    outputs: AudioPorts,
    /// One for each channel of the output, with room behind the longest block.
    channels: Vec<Vec<f32>>,
    max_block: usize,
    events: EventBuffer,
    answers: EventBuffer,
    rate: f64,
    steady: u64,
    /// Longest time that one `process` took.
    pub slowest: Duration,
    /// Time that the newest `process` took.
    pub last: Duration,
    /// Looks over the plugin's shoulder.
    pub watch: Option<Watch>,
}

impl Player {
    pub(crate) fn new(
        processor: StartedPluginAudioProcessor<Handlers>,
        rate: f64,
        max_block: usize,
        channels: usize,
    ) -> Self {
        Self {
            processor,
            inputs: AudioPorts::with_capacity(0, 0),
            outputs: AudioPorts::with_capacity(channels, 1),
            channels: vec![vec![0.0; max_block + BEHIND]; channels],
            max_block,
            events: EventBuffer::with_capacity(1024),
            answers: EventBuffer::with_capacity(1024),
            rate,
            steady: 0,
            slowest: Duration::ZERO,
            last: Duration::ZERO,
            watch: None,
        }
    }

    pub(crate) fn into_processor(self) -> StartedPluginAudioProcessor<Handlers> {
        self.processor
    }

    /// What extensions of the audio thread are called through.
    pub(crate) fn handle(&mut self) -> PluginAudioProcessorHandle<'_> {
        self.processor.plugin_handle()
    }

    /// The host's reset: what sounds is forgotten.
    pub fn reset(&mut self) {
        self.processor.reset();
    }

    /// Host samples per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Plays host samples `from..to` of the score.
    ///
    /// # Errors
    /// The plugin refuses a block, left a sample unwritten or wrote behind the block, or one that is not finite, subnormal or
    /// above full scale.
    pub fn play(
        &mut self,
        score: &Score,
        span: std::ops::Range<u64>,
        blocks: Blocks,
        pace: Pace,
    ) -> Outcome<Recording> {
        let mut recording = Recording::default();
        self.play_with(score, span, blocks, pace, |left, right| {
            recording.left.extend_from_slice(left);
            recording.right.extend_from_slice(right);
        })?;
        Ok(recording)
    }

    /// As `play`, handing each block on instead of keeping it.
    pub fn play_with(
        &mut self,
        score: &Score,
        span: std::ops::Range<u64>,
        blocks: Blocks,
        pace: Pace,
        mut heard: impl FnMut(&[f32], &[f32]),
    ) -> Outcome<()> {
        let max_block = self.max_block;
        let mut random = match blocks {
            Blocks::Random(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Blocks::Fixed(_) => 1,
        };
        let began = Instant::now();
        let mut at = span.start;
        while at < span.end {
            let wanted = match blocks {
                Blocks::Fixed(size) => size,
                Blocks::Random(_) => {
                    // xorshift64
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    1 + (random % max_block as u64) as usize
                }
            };
            let until_jump = score.next_jump(at).unwrap_or(u64::MAX) - at;
            let length = wanted.min(max_block).min(until_jump.min(span.end - at) as usize);
            if pace == Pace::WallClock {
                let due = began + Duration::from_secs_f64((at - span.start) as f64 / self.rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.block(score, at, length)?;
            let (left, right) = self.output(length);
            heard(left, right);
            at += length as u64;
        }
        Ok(())
    }

    /// One `process` call for the `length` samples from host sample `at` on; the output is in `output` afterwards.
    pub fn block(&mut self, score: &Score, at: u64, length: usize) -> Outcome<()> {
        self.events.clear();
        self.answers.clear();
        score.events(at, length, &mut self.events);
        let transport = score.transport(at, self.rate);
        for channel in &mut self.channels {
            if channel.len() < length + BEHIND {
                // Longer than was announced at activation: some hosts do that.
                channel.resize(length + BEHIND, 0.0);
            }
            // A sample that the plugin does not write shows up as not finite.
            channel[..length + BEHIND].fill(f32::NAN);
        }
        let began = Instant::now();
        self.process(length, transport.as_ref())?;
        self.last = began.elapsed();
        self.slowest = self.slowest.max(self.last);
        self.steady += length as u64;
        for (number, channel) in self.channels.iter().enumerate() {
            let bad = |s: &f32| !s.is_finite() || s.is_subnormal() || s.abs() > 1.0;
            if let Some(offset) = channel[..length].iter().position(bad) {
                return Err(format!("channel {number}, sample {}: {:e}", at + offset as u64, channel[offset]));
            }
            if !channel[length..length + BEHIND].iter().all(|s| s.is_nan()) {
                return Err(format!("channel {number} was written behind its {length} samples at {at}"));
            }
        }
        Ok(())
    }

    fn process(&mut self, length: usize, transport: Option<&TransportEvent>) -> Outcome<()> {
        let no_input: [NoInput; 0] = [];
        let inputs = self.inputs.with_input_buffers(no_input);
        let mut outputs = self.outputs.with_output_buffers([AudioPortBuffer {
            latency: 0,
            channels: AudioPortBufferType::f32_output_only(self.channels.iter_mut().map(|c| &mut c[..length])),
        }]);
        let (input_events, mut output_events) = (self.events.as_input(), self.answers.as_output());
        if let Some(watch) = self.watch {
            (watch.enter)();
        }
        let status = self.processor.process(
            &inputs,
            &mut outputs,
            &input_events,
            &mut output_events,
            Some(self.steady),
            transport,
        );
        if let Some(watch) = self.watch {
            (watch.exit)();
        }
        status.map(|_| ()).map_err(|e| e.to_string())
    }

    /// The last block's samples, left and right; a mono output is both.
    pub fn output(&self, length: usize) -> (&[f32], &[f32]) {
        let last = self.channels.len() - 1;
        (&self.channels[0][..length], &self.channels[last.min(1)][..length])
    }
}
