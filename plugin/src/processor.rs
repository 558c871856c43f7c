//! The audio thread: cuts host time into frames, says what each frame is to be, and plays the answers L later.
//! Knows no plugin framework; the shell maps its own types to `Block`.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiller_engine::control::ControlFrame;
use tiller_engine::link::{Link, StreamFormat};

use crate::ceiling;
use crate::controllers::Controllers;
use crate::feed::Feed;
use crate::frames::FrameClock;
use crate::lanes::LaneValues;
use crate::latency::{self, LatencySetting};
use crate::meters::Meters;
use crate::midi::{KeyEvent, Keys, TimedEvent};
use crate::output::Timeline;
use crate::programs::ProgramOverlay;
use crate::quantise::{Grid, Quantiser};
use crate::slack::{Clock, LateMode, SlackClock, WallClock};
use crate::stream::Stream;
use crate::target::Target;
use crate::transport::{RunMode, Transport, TransportWatch};

/// Host rates that are taken, samples per second.
const RATES: std::ops::RangeInclusive<f64> = 8_000.0..=768_000.0;

/// Samples that are rendered at once.
const PART: usize = 256;

const SILENCE: [f32; PART] = [0.0; PART];

/// What a processor is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessorSettings {
    /// Samples per second of the host, 8,000 to 768,000.
    pub sample_rate: f64,
    /// The host's largest block, samples. Longer ones are played, but L does not know of them.
    pub max_block: usize,
    /// The latency setting to begin with.
    pub latency: LatencySetting,
}

/// One sub-block: parameters do not change within it.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Length. 0 is allowed.
    pub samples: usize,
    /// The transport at its start.
    pub transport: Transport,
    /// The parameters.
    pub lanes: LaneValues,
    /// The `run` parameter.
    pub run: RunMode,
    /// The `quantise` parameter.
    pub grid: Grid,
    /// The `late` parameter.
    pub late: LateMode,
    /// The `latency` parameter; a change counts from the next anchor.
    pub latency: LatencySetting,
    /// Key events in the order of their offsets.
    pub events: &'a [TimedEvent],
    /// The host says that it renders offline.
    pub offline: bool,
}

/// Why no processor could be made.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessorError {
    /// The host's sample rate is outside 8 to 768 kHz.
    Rate(f64),
    /// No resampler for this pair of rates; the text is the resampler's.
    Resampler(String),
}

impl fmt::Display for ProcessorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => {
                write!(f, "the host runs at {rate} Hz: choose a sample rate between 8,000 and 768,000 Hz")
            }
            Self::Resampler(why) => {
                write!(f, "no resampler for this sample rate ({why}): choose another sample rate in the host")
            }
        }
    }
}

impl std::error::Error for ProcessorError {}

/// The piece that is running. Times are host samples since the processor was made.
#[derive(Clone, Copy)]
struct Running {
    anchor: i64,
    /// The frame that is being collected.
    index: u32,
}

/// The audio thread's part of the instrument.
///
/// # Realtime safety
/// `process` and `reset` do not allocate, lock or call the system, and wait only out of slack, offline, or when `late`
/// says so. Making and dropping one allocates and frees.
pub struct Processor<C = WallClock> {
    feed: Feed<C>,
    frames: FrameClock,
    timeline: Timeline,
    watch: TransportWatch,
    quantiser: Quantiser,
    grid: Grid,
    keys: Keys,
    controllers: Controllers,
    program: ProgramOverlay,
    meters: Arc<Meters>,
    settings: ProcessorSettings,
    lanes: LaneValues,
    /// Of the last block that was not empty: hosts hand over parameters and events in empty ones, with no transport.
    transport: Transport,
    /// Host samples since the processor was made.
    now: i64,
    /// Number of the newest piece.
    piece: u32,
    running: Option<Running>,
    lookahead: usize,
    /// Left and right of the part that is being rendered.
    scratch: [Vec<f32>; 2],
}

impl Processor {
    /// Frames that `Handle::connect` must make room for.
    pub fn queue_frames(format: StreamFormat, sample_rate: f64, max_block: usize) -> usize {
        latency::queue_frames(format, sample_rate, max_block)
    }

    /// A processor on the machine's clock.
    ///
    /// # Errors
    /// A sample rate that is out of range.
    pub fn new(link: Link, settings: ProcessorSettings, meters: Arc<Meters>) -> Result<Self, ProcessorError> {
        Self::with_clock(link, settings, meters, WallClock::default())
    }
}

impl<C: Clock> Processor<C> {
    /// A processor on a clock of the caller's.
    ///
    /// # Errors
    /// A sample rate that is out of range.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn with_clock(
        link: Link,
        settings: ProcessorSettings,
        meters: Arc<Meters>,
        clock: C,
    ) -> Result<Self, ProcessorError> {
        let rate = settings.sample_rate;
        if !RATES.contains(&rate) {
            return Err(ProcessorError::Rate(rate));
        }
        let format = link.format();
        let stream = Stream::new(format, rate).map_err(|error| ProcessorError::Resampler(error.to_string()))?;
        let lookahead = stream.lookahead();
        let slack = SlackClock::new(rate, settings.max_block);
        let under_way = latency::queue_frames(format, rate, settings.max_block);
        let processor = Self {
            feed: Feed::new(link, clock, slack, under_way, meters.clone()),
            frames: FrameClock::new(format, rate),
            timeline: Timeline::new(stream, rate),
            watch: TransportWatch::new(rate),
            quantiser: Quantiser::default(),
            grid: Grid::Off,
            keys: Keys::default(),
            controllers: Controllers::default(),
            program: ProgramOverlay::default(),
            meters,
            settings,
            lanes: LaneValues::default(),
            transport: Transport::default(),
            now: 0,
            piece: 0,
            running: None,
            lookahead,
            scratch: [vec![0.0; PART], vec![0.0; PART]],
        };
        processor.meters.set_latency(processor.latency());
        Ok(processor)
    }

    /// The same, and program changes select out of `program`.
    pub fn with_programs(mut self, program: ProgramOverlay) -> Self {
        self.program = program;
        self
    }

    /// L of the next anchor, host samples: what the host is to be told.
    ///
    /// # Realtime safety
    /// Arithmetic.
    pub fn latency(&self) -> u32 {
        let ProcessorSettings { sample_rate, max_block, latency } = self.settings;
        latency::samples(latency, self.feed.format(), sample_rate, max_block, self.lookahead)
    }

    /// Plays one sub-block into `out`: the first two channels are left and right, one channel is their mean, further ones
    /// are silent. Every sample is written, and none is above full scale, subnormal or no number (`ceiling`).
    ///
    /// # Realtime safety
    /// As the type says.
    pub fn process(&mut self, block: &Block, out: &mut [&mut [f32]]) {
        let lanes = block.lanes.repaired(&self.lanes);
        self.controllers.yield_to(&self.lanes, &lanes);
        self.program.yield_to((&self.lanes, self.grid), (&lanes, block.grid));
        self.lanes = lanes;
        self.grid = block.grid;
        if block.latency != self.settings.latency {
            self.settings.latency = block.latency;
            self.meters.set_latency(self.latency());
        }
        self.feed.enter(block.offline, block.late, self.timeline.place());
        let first = self.now;
        self.forget_idle_keys();
        if block.samples > 0 {
            self.transport = block.transport;
            let jump = self.watch.observe(&block.transport).map(|ago| first - ago);
            self.follow(block, first, jump);
        }
        // A block beyond the announced size is taken in parts, so that no more is under way than there is room for.
        let longest = self.settings.max_block.max(PART);
        let (mut done, mut next_event) = (0, 0);
        while done < block.samples {
            let count = longest.min(block.samples - done);
            next_event = self.collect(block, next_event, first + (done + count) as i64);
            self.render(out, done, count);
            done += count;
        }
        // Events at or beyond the end (hosts send them with empty blocks): as early as can be.
        self.collect(block, next_event, i64::MAX);
        for channel in out.iter_mut() {
            let written = block.samples.min(channel.len());
            channel[written..].fill(0.0);
        }
        self.now = first + block.samples as i64;
        self.watch.advance(block.samples);
        self.foresee(block.samples);
        self.feed.leave(block.samples);
        self.meters.set_sounding(self.running.is_some());
    }

    /// Silence and a fresh start: what is under way is dropped, keys are up, slack is forgotten.
    ///
    /// # Realtime safety
    /// As the type says.
    pub fn reset(&mut self) {
        if let Some(running) = self.running.take()
            && running.index > 0
        {
            self.feed.end(self.piece, running.index);
        }
        self.timeline.clear();
        self.keys = Keys::default();
        self.watch.reset();
        self.feed.reset();
        self.meters.set_sounding(false);
        self.meters.set_target(Target::default());
    }

    /// Applies the events before `end`, and sends the frames that are complete by then. Returns the first event that is
    /// left.
    fn collect(&mut self, block: &Block, mut next_event: usize, end: i64) -> usize {
        let last = self.now + block.samples as i64;
        while let Some(timed) = block.events.get(next_event) {
            let at = (self.now + i64::from(timed.offset)).min(last);
            if at >= end {
                break;
            }
            next_event += 1;
            self.send_complete(at);
            self.forget_idle_keys();
            if let KeyEvent::Controller { number, value } = timed.event {
                self.controllers.hear(&self.meters.controllers, number, value);
                continue;
            }
            if let KeyEvent::Program(number) = timed.event {
                if let Some(prompt) = self.program.select(number) {
                    self.controllers.release();
                    self.lanes.prompt = self.lanes.prompt.max(prompt.unwrap_or(0));
                }
                continue;
            }
            self.keys.apply(timed.event);
            let starts = matches!(timed.event, KeyEvent::On { .. }) && block.run == RunMode::Transport;
            if starts && !self.transport.is_reported() {
                self.meters.play.store(true, Ordering::Relaxed);
            }
            self.follow(block, at, None);
        }
        self.send_complete(end.min(last));
        next_event
    }

    /// Looks ahead for a frame that will be late, as if the blocks to come were as long as this one.
    fn foresee(&mut self, block: usize) {
        let (length, rate) = (block.max(1) as f64, self.settings.sample_rate);
        let Some(start) = self.timeline.start_of(self.piece).filter(|_| self.running.is_some()) else { return };
        let first = start - self.lookahead as i64 - self.now;
        let frames = self.frames;
        self.feed.foresee(self.piece, |slot| {
            let blocks = ((first + frames.boundary(slot)) as f64 / length).floor().max(0.0);
            (1.0 + blocks) * length / rate
        });
    }

    /// What keys did while nothing sounds concerns no frame.
    fn forget_idle_keys(&mut self) {
        if self.running.is_none() {
            self.keys.next_frame(false);
        }
    }

    /// Whether there is to be sound now.
    fn is_wanted(&self, block: &Block) -> bool {
        match block.run {
            RunMode::Free => true,
            RunMode::Keys => self.keys.any_held(),
            RunMode::Transport => {
                self.transport.playing
                    || self.meters.play.load(Ordering::Relaxed)
                    || (block.offline && !self.transport.is_reported())
            }
        }
    }

    /// Starts, ends or anchors anew, as the run mode wants it at time `at`. `jump` is the anchor of a start or a jump of
    /// the transport.
    fn follow(&mut self, block: &Block, at: i64, jump: Option<i64>) {
        let jump = jump.filter(|_| block.run == RunMode::Transport);
        match (self.running, self.is_wanted(block), jump) {
            (Some(_), false, _) => self.end(at),
            (None, true, _) => self.begin(at),
            (Some(running), true, Some(anchor)) => {
                let anchor = anchor.max(running.anchor);
                self.end(anchor);
                self.begin(anchor);
            }
            _ => {}
        }
    }

    fn begin(&mut self, anchor: i64) {
        let number = self.piece + 1;
        if self.timeline.begin(number, anchor, i64::from(self.latency())) {
            self.piece = number;
            self.running = Some(Running { anchor, index: 0 });
            self.quantiser.begin();
            self.keys.unlatch();
        }
    }

    fn end(&mut self, at: i64) {
        let Some(running) = self.running.take() else { return };
        // The frame that was begun belongs to the piece: it is heard up to its end.
        let mut slots = running.index;
        if running.anchor + self.frames.boundary(running.index) < at {
            self.send(running.index);
            slots += 1;
        }
        if slots > 0 {
            self.feed.end(self.piece, slots);
        }
        self.timeline.end(at, slots);
    }

    /// Sends the frames of the running piece that end at or before `until`.
    fn send_complete(&mut self, until: i64) {
        while let Some(mut running) = self.running {
            if running.anchor + self.frames.boundary(running.index + 1) > until {
                return;
            }
            self.send(running.index);
            running.index += 1;
            self.running = Some(running);
        }
    }

    fn send(&mut self, index: u32) {
        let hop = self.settings.latency.hop();
        let (lanes, grid) = self.program.over(&self.lanes, self.grid);
        let lanes = self.controllers.over(&self.meters.controllers, &lanes);
        let latch = self.meters.keys.latch.load(Ordering::Relaxed);
        let by_velocity = self.meters.keys.velocity.load(Ordering::Relaxed);
        let held = self.keys.asked(latch).map(|asked| {
            let share = if by_velocity { f32::from(asked.velocity) / 127.0 } else { 1.0 };
            (asked.held, share)
        });
        let mut control = lanes.frame(self.piece, index, held);
        let end = self.running.map_or(0, |running| running.anchor) + self.frames.boundary(index + 1);
        let place = self.watch.place(&self.transport, end - self.now);
        let target = self.quantiser.target(grid, place, Target::of(&control.lanes));
        (control.lanes.note, control.lanes.chord) = (target.note, target.chord);
        self.meters.show_sent(&control.lanes);
        self.feed.send(ControlFrame { hop, ..control });
        self.keys.next_frame(latch);
    }

    /// Renders `count` samples, from `offset` of the block on, into `out`.
    fn render(&mut self, out: &mut [&mut [f32]], offset: usize, count: usize) {
        let mut done = offset;
        while done < offset + count {
            let part = PART.min(offset + count - done);
            let [left, right] = &mut self.scratch;
            let (left, right) = (&mut left[..part], &mut right[..part]);
            let heard = self.timeline.render(self.now + done as i64, &mut self.feed, left, right);
            let target = heard.map(|(piece, since)| self.feed.target(piece, self.frames.frame_at(since)));
            self.meters.set_target(target.unwrap_or_default());
            if out.len() == 1 {
                for (left, right) in left.iter_mut().zip(right.iter_mut()) {
                    *left = 0.5 * (*left + *right);
                    *right = *left;
                }
            }
            self.meters.show_heard(left, right);
            // Before the ceiling: the meter's clip light says that there was something to hold down.
            for (channel, samples) in [&*left, &*right].into_iter().enumerate() {
                self.meters.report_peak(channel, samples.iter().fold(0.0, |peak, sample| sample.abs().max(peak)));
            }
            ceiling::limit(left);
            ceiling::limit(right);
            for (index, channel) in out.iter_mut().enumerate() {
                match index {
                    0 => write(channel, done, left),
                    1 => write(channel, done, right),
                    _ => write(channel, done, &SILENCE[..part]),
                }
            }
            done += part;
        }
    }
}

/// Copies what fits of `samples` to `channel[at..]`.
fn write(channel: &mut [f32], at: usize, samples: &[f32]) {
    if let Some(room) = channel.get_mut(at..) {
        let count = room.len().min(samples.len());
        room[..count].copy_from_slice(&samples[..count]);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod script;
#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests;
