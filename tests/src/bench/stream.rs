//! The whole stream as the runner plays it: decoder, steering, sampling and codec of every frame through
//! `Player::answer`, far enough for the window to roll over. Main thread.

use std::time::Instant;

use serde_json::{Value, json};
use tiller_engine::link::FrameHeader;
use tiller_engine::player::Player;

use super::progress::Progress;
use super::spread::Spread;
use super::subject::{Subject, steered};
use crate::counting::all_allocations;
use crate::host::Outcome;
use crate::memory::resident;
use crate::soak::WARM_UP;

/// Frames either side of a cache length that count as "near" it.
const NEAR: usize = 100;
/// Steps between two looks at the progress bar.
const SHOWN: usize = 25;

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Wall time of the frame.
    pub seconds: f32,
    /// Positions that it attended to.
    pub positions: u32,
}

/// Plays a model, piece after piece.
pub struct Stream {
    player: Player,
    piece: u32,
    window: usize,
    /// Step at which the current window starts.
    base: usize,
    /// Resident bytes that are the bench's and not the engine's.
    foreign: u64,
    /// Sum of the squares of the piece's samples, and how many there were.
    heard: (f64, usize),
}

/// What one run of frames cost.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Seconds of audio per second.
    pub rtf: f64,
    /// Of all frames.
    pub spread: Spread,
    /// Of the frames near a cache length, in the order asked for; those that never came have a count of 0.
    pub near: Vec<(usize, f64, Spread)>,
    /// Positions that a step attended to, on the average.
    pub mean_positions: f64,
    /// How often the window was full.
    pub rollovers: usize,
    /// Allocations of the whole process per step, behind the first steps.
    pub allocations_per_step: f64,
    /// Root mean square of what was heard: a stream of silence or of no numbers proves nothing.
    pub rms: f64,
    /// Resident memory at the end, bytes, without what the bench itself holds.
    pub resident: Option<u64>,
}

impl Stream {
    /// Takes the caches and warms up.
    pub fn new(subject: &Subject) -> Self {
        Self::of(Player::on(subject.pool.clone(), subject.model.clone(), subject.prompt.clone(), None))
    }

    /// Of a player that is already made.
    pub fn of(mut player: Player) -> Self {
        player.warm_up();
        let window = player.window();
        Self { player, piece: 0, window, base: 0, foreign: 0, heard: (0.0, 0) }
    }

    /// Does something that takes memory of the bench's own: it is left out of what the stream is said to hold.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn leaving_out<T>(&mut self, take: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let before = resident();
        let taken = take()?;
        self.foreign += resident().zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
        Ok(taken)
    }

    /// A new piece begins; the one before is dropped where it is.
    pub fn begin(&mut self) {
        self.player.stop();
        self.piece += 1;
        self.base = 0;
        self.heard = (0.0, 0);
    }

    /// Takes step `index` of the piece.
    ///
    /// # Errors
    /// The model's numbers are not finite.
    pub fn step(&mut self, index: usize) -> Outcome<Step> {
        let mut control = steered(self.piece);
        control.index = index as u32;
        let (sum, count) = &mut self.heard;
        let start = Instant::now();
        // As cheap as copying it into the ring, which the runner does.
        let mut hear = |_: FrameHeader, samples: &[f32]| {
            *sum += f64::from(samples.iter().map(|sample| sample * sample).sum::<f32>());
            *count += samples.len();
        };
        self.player.answer(&control, &mut hear).map_err(|error| error.to_string())?;
        let seconds = start.elapsed().as_secs_f32();
        let work = self.player.last_work();
        if work.switched {
            self.base = index - self.window / 2;
        }
        Ok(Step { seconds, positions: (index - self.base + 1) as u32 })
    }

    /// Positions of the model's window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Plays `frames` frames of a new piece flat out; `lengths` are the cache lengths to look at.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn play(
        &mut self,
        subject: &Subject,
        frames: usize,
        lengths: &[usize],
        what: &str,
        progress: &Progress,
    ) -> Outcome<Measured> {
        progress.begin(what, frames);
        self.begin();
        let mut steps = Vec::with_capacity(frames);
        let (mut allocations, mut rollovers) = (0, 0);
        for index in 0..frames {
            let before = all_allocations();
            steps.push(self.step(index)?);
            if index >= WARM_UP {
                allocations += all_allocations() - before;
            }
            rollovers += usize::from(self.player.last_work().switched);
            if index.is_multiple_of(SHOWN) {
                progress.at(index);
            }
        }
        self.player.stop();
        if !self.heard.0.is_finite() {
            return Err("the stream's samples are no numbers".to_owned());
        }
        let near = |length: usize| {
            let close = |step: &&Step| (step.positions as usize).abs_diff(length) <= NEAR;
            let spread = Spread::of(steps.iter().filter(close).map(|step| step.seconds));
            let rtf = if spread.count > 0 { subject.frame_seconds() * 1e3 / spread.mean } else { 0.0 };
            (length, rtf, spread)
        };
        let spread = Spread::of(steps.iter().map(|step| step.seconds));
        Ok(Measured {
            rtf: subject.frame_seconds() * 1e3 / spread.mean,
            spread,
            near: lengths.iter().map(|length| near(*length)).collect(),
            mean_positions: steps.iter().map(|step| f64::from(step.positions)).sum::<f64>() / frames.max(1) as f64,
            rollovers,
            allocations_per_step: allocations as f64 / frames.saturating_sub(WARM_UP).max(1) as f64,
            rms: (self.heard.0 / self.heard.1.max(1) as f64).sqrt(),
            resident: resident().map(|bytes| bytes.saturating_sub(self.foreign)),
        })
    }
}

impl Measured {
    /// As JSON.
    pub fn report(&self) -> Value {
        let near = self.near.iter().filter(|(_, _, spread)| spread.count > 0);
        json!({
            "rtf": self.rtf,
            "frames": self.spread.report(),
            "near": near.map(|(kv, rtf, spread)| json!({ "kv": kv, "rtf": rtf, "frames": spread.report() })).collect::<Value>(),
            "rollovers": self.rollovers,
            "allocations_per_step": self.allocations_per_step,
            "rms": self.rms,
            "resident_bytes": self.resident,
        })
    }
}
