//! Turns control frames into audio frames: the runner's core, without threads or queues. One control frame is one
//! decoder step; the ending piece and the rebuild of a full window ride along as extra rows of the same step.
//! Prompts: a step sounds under the newest one; a rebuild runs from its first slice to its last under the one that was
//! current at its first, and the next rebuild takes the newest; an ended piece is flushed under the one it ended with.
//! Keys and values that are there stay as they are. Lives on the runner thread; no allocation after construction.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod roll;

use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::control::{ControlFrame, ControlKind};
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::kv_cache::KvCache;
use crate::decoder::sampling::{Sampler, Sampling};
use crate::decoder::{Observer, Row, Scratch};
use crate::error::EngineError;
use crate::model::Model;
use crate::piece::{Piece, Sink};
use crate::pool::Pool;
use crate::steering::doses::Doses;
use crate::text::Prompt;
use roll::{REBUILD_POSITIONS, Roll};

/// Rows of the largest step: two guidance rows each for the piece, the ending piece and the rebuilt positions.
pub const MAX_ROWS: usize = 4 + 2 * REBUILD_POSITIONS as usize;

/// Pieces and positions of a step that are steered apart: the current, the ending, the rebuilt positions.
const SLOTS: usize = 2 + REBUILD_POSITIONS as usize;

/// What a step computed, for measurements and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepWork {
    /// Rows of the forward pass, [`MAX_ROWS`] at most; 2 when nothing rode along.
    pub rows: usize,
    /// Positions of the next window that were rebuilt beside it.
    pub rebuilt: usize,
    /// The step was the first in a rebuilt window.
    pub switched: bool,
}

/// The KV caches of one piece: the conditional and the unconditional guidance row.
struct CachePair {
    conditional: KvCache,
    unconditional: KvCache,
}

/// Plays one model.
pub struct Player {
    model: Arc<Model>,
    /// What the next step of the current piece sounds under.
    prompt: Arc<Prompt>,
    /// What the rebuild under way was begun under; `None` between rebuilds.
    rebuild_prompt: Option<Arc<Prompt>>,
    /// What the ending piece ended under: when its flush runs may depend on timing, so a later prompt must not reach it.
    ending_prompt: Option<Arc<Prompt>>,
    scratch: Scratch,
    sampler: Sampler,
    /// The current piece's caches, and those of the ending piece or the rebuilt window.
    pairs: [CachePair; 2],
    /// Which of `pairs` the current piece runs in.
    live: usize,
    pieces: [Piece; 2],
    /// Which of `pieces` is current, if any.
    current: Option<usize>,
    /// Which of `pieces` is being flushed, if any.
    ending: Option<usize>,
    /// Step of the ending piece at which its last window starts.
    ending_base: u32,
    roll: Roll,
    /// Step of the current piece at which its window starts (position 0).
    base: u32,
    /// Positions of the next window that are already computed.
    rebuilt: u32,
    /// Injection vectors: current, ending, rebuilt positions.
    injections: [Vec<f32>; SLOTS],
    work: StepWork,
}

impl Player {
    /// Allocates caches for the model's own play window, or for a shorter one (`window` positions, at least 64). When a
    /// window is full, its newest half is kept as context and has been rebuilt from position 0 by then.
    pub fn new(model: Arc<Model>, prompt: Arc<Prompt>, window: Option<usize>) -> Self {
        Self::on(Arc::new(Pool::new(1)), model, prompt, window)
    }

    /// As [`Player::new`], on the threads of `pool` besides the runner's own. What is played does not depend on them.
    pub fn on(pool: Arc<Pool>, model: Arc<Model>, prompt: Arc<Prompt>, window: Option<usize>) -> Self {
        let window = window.map_or(model.window(), |window| window.max(64).min(model.window()));
        let decoder = model.decoder();
        let pattern = DelayPattern::new(decoder.codebooks(), model.channels());
        // An ending piece takes a few more steps than the window has positions: it does not roll over.
        let capacity = window + pattern.max_delay() + 1;
        let pair = || CachePair {
            conditional: KvCache::new(decoder, capacity),
            unconditional: KvCache::new(decoder, capacity),
        };
        let format = model.format();
        let frame_seconds = format.frame_samples as f32 / format.model_rate as f32;
        let piece = || Piece::new(decoder, model.codec(), model.channels(), window, frame_seconds, &pool);
        let width = decoder.blocks() * decoder.hidden();
        Self {
            scratch: Scratch::on(decoder, MAX_ROWS, pool.clone()),
            sampler: Sampler::new(decoder.vocab()),
            pairs: [pair(), pair()],
            live: 0,
            pieces: [piece(), piece()],
            current: None,
            ending: None,
            ending_base: 0,
            roll: Roll::new(window),
            base: 0,
            rebuilt: 0,
            injections: std::array::from_fn(|_| vec![0.0; width]),
            work: StepWork::default(),
            rebuild_prompt: None,
            ending_prompt: None,
            prompt,
            model,
        }
    }

    /// The model that plays.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Positions of the play window.
    pub fn window(&self) -> usize {
        self.roll.window as usize
    }

    /// What the last step computed.
    pub fn last_work(&self) -> StepWork {
        self.work
    }

    /// Codes that the last frame's step sampled, `[codebooks]`: column f of the delay pattern after frame f. `None` when no
    /// piece plays.
    pub fn last_column(&self) -> Option<&[u32]> {
        self.pieces[self.current?].column()
    }

    /// The next frame sounds under `prompt`, exactly; nothing is computed again for it. A rebuild under way and an
    /// ending piece go on under the prompt that they began with.
    pub fn set_prompt(&mut self, prompt: Arc<Prompt>) {
        self.prompt = prompt;
    }

    /// Whether an ended piece still has frames to flush.
    pub fn is_flushing(&self) -> bool {
        self.ending.is_some()
    }

    /// Answers one control frame. Audio of the current piece and of an ending one goes to `sink`.
    ///
    /// # Errors
    /// When the model's numbers are not finite.
    pub fn answer(&mut self, control: &ControlFrame, sink: Sink<'_>) -> Result<(), EngineError> {
        if let Some(current) = self.current
            && self.pieces[current].number() != control.piece
        {
            // Its end was skipped: what it still held is late and goes unheard.
            self.current = None;
        }
        match control.kind {
            ControlKind::End => self.end(sink),
            ControlKind::Frame => {
                if self.current.is_none() {
                    self.begin(control.piece);
                }
                self.step(Some(control), sink)
            }
        }
    }

    /// One step of an ended piece's flush, when no control frame is waiting.
    ///
    /// # Errors
    /// When the model's numbers are not finite.
    pub fn flush(&mut self, sink: Sink<'_>) -> Result<(), EngineError> {
        if self.ending.is_some() { self.step(None, sink) } else { Ok(()) }
    }

    /// Takes a few steps that nobody hears, so that the first heard one does not meet cold memory.
    pub fn warm_up(&mut self) {
        for index in 0..8 {
            // A failure would show again at the first real frame, where there is somebody to tell.
            let _ = self.answer(&ControlFrame::new(0, index), &mut |_, _| ());
        }
        self.stop();
    }

    /// Drops every piece.
    pub fn stop(&mut self) {
        self.current = None;
        self.ending = None;
        self.rebuild_prompt = None;
        self.ending_prompt = None;
    }

    fn begin(&mut self, number: u32) {
        let free = match self.ending {
            Some(ending) => 1 - ending,
            None => 0,
        };
        self.pieces[free].begin(number);
        self.current = Some(free);
        self.base = 0;
        self.rebuilt = 0;
        self.rebuild_prompt = None;
    }

    fn end(&mut self, sink: Sink<'_>) -> Result<(), EngineError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        while self.ending.is_some() {
            // Two ends within one flush: the older one has to hurry.
            self.step(None, sink)?;
        }
        self.pieces[current].end();
        if !self.pieces[current].is_over() {
            self.ending = Some(current);
            self.ending_base = self.base;
            self.ending_prompt = Some(self.prompt.clone());
            // The ending piece keeps its caches; the next one gets the other pair.
            self.live = 1 - self.live;
        }
        Ok(())
    }

    fn step(&mut self, control: Option<&ControlFrame>, sink: Sink<'_>) -> Result<(), EngineError> {
        let current = if control.is_some() { self.current } else { None };
        let mut switched = false;
        if let (Some(current), Some(control)) = (current, control) {
            let step = self.pieces[current].taken();
            if step == self.roll.switch(self.base) {
                self.live = 1 - self.live;
                self.base = step - self.roll.keep;
                self.rebuilt = 0;
                self.rebuild_prompt = None;
                switched = true;
            }
            self.pieces[current].ask(Some(control));
        }
        let ending = self.ending.filter(|ending| self.pieces[*ending].needs_step());
        if let Some(ending) = ending {
            self.pieces[ending].ask(None);
        }
        let rebuilding = current.and_then(|current| {
            let step = self.pieces[current].taken();
            self.roll.slice(self.base, step, self.rebuilt)
        });
        if rebuilding.is_some() && self.rebuild_prompt.is_none() {
            self.rebuild_prompt = Some(self.prompt.clone());
        }

        let steered = self.write_injections(current, ending, rebuilding.clone());
        let steering = self.model.steering();
        let held = std::array::from_fn::<_, SLOTS, _>(|slot| {
            let piece = if slot == 1 { ending } else { current };
            let step = match (slot, &rebuilding) {
                (0 | 1, _) => piece.map(|piece| self.pieces[piece].taken()),
                // Each position keeps the steering that it first had.
                (_, Some(range)) => range.clone().nth(slot - 2).map(|place| self.roll.next_base(self.base) + place),
                (_, None) => None,
            };
            let doses = piece.zip(step).map_or(&Doses::NONE, |(piece, step)| self.pieces[piece].doses(step));
            steering.pushes(doses)
        });
        let mut rows = ArrayVec::<Row<'_>, MAX_ROWS>::new();
        let injection = |slot: usize| steered[slot].then(|| self.injections[slot].as_slice());
        let conditional_only = self.model.steering().conditional_only();
        let caches_of = |pair: usize| [2 * pair, 2 * pair + 1];
        let mut push = |pair: usize, position: u32, codes, slot: usize, logits| {
            let prompt = match slot {
                0 => &self.prompt,
                1 => self.ending_prompt.as_ref().unwrap_or(&self.prompt),
                _ => self.rebuild_prompt.as_ref().unwrap_or(&self.prompt),
            };
            for (cache, text) in caches_of(pair).into_iter().zip([Some(&prompt.cross), None]) {
                let position = position as usize;
                let given = text.is_some() || !conditional_only;
                let injection = injection(slot).filter(|_| given);
                let pushes = if given { held[slot].as_slice() } else { &[] };
                rows.push(Row { cache, position, codes, text, injection, pushes, logits });
            }
        };
        if let Some(current) = current {
            let piece = &self.pieces[current];
            push(self.live, piece.taken() - self.base, piece.input(piece.taken(), self.base), 0, true);
        }
        let after_current = if current.is_some() { 2 } else { 0 };
        if let Some(ending) = ending {
            let (piece, base) = (&self.pieces[ending], self.ending_base);
            push(1 - self.live, piece.taken() - base, piece.input(piece.taken(), base), 1, true);
        }
        if let (Some(current), Some(range)) = (current, rebuilding.clone()) {
            let start = self.roll.next_base(self.base);
            for (slot, position) in range.enumerate() {
                let codes = self.pieces[current].input(start + position, start);
                push(1 - self.live, position, codes, 2 + slot, false);
            }
        }
        let [a, b] = &mut self.pairs;
        let mut caches = [&mut a.conditional, &mut a.unconditional, &mut b.conditional, &mut b.unconditional];
        let mut probes = match current {
            Some(current) => self.pieces[current].guards().map(|(lane, guard)| {
                // A lane that holds sees for itself when the target is there.
                let class = guard.class().filter(|_| !steering.holds(lane))?;
                Some((steering.probe(lane, class)?, 0.0f32))
            }),
            None => [None; 2],
        };
        let looked_at = probes.iter().any(Option::is_some);
        let mut observe = |block: usize, row: usize, output: &[f32]| {
            // Detectors learned from the unconditional row, which is the current piece's second.
            let looking = probes.iter_mut().flatten().filter(|(probe, _)| row == 1 && probe.block == block);
            looking.for_each(|(probe, projection)| *projection = probe.project(output));
        };
        let observer: Option<Observer<'_>> = if looked_at { Some(&mut observe) } else { None };
        self.model.decoder().forward(&rows, &mut caches, &mut self.scratch, observer);
        let rebuilt = rebuilding.as_ref().map_or(0, ExactSizeIterator::len);
        self.work = StepWork { rows: rows.len(), rebuilt, switched };
        drop(rows);
        drop(held);
        if let Some(current) = current {
            // What the unconditional row, which is looked at, was given.
            let given = steered[0] && !self.model.steering().conditional_only();
            let injected = if given { self.injections[0].as_slice() } else { &[] };
            for ((_, guard), probe) in self.pieces[current].guards().into_iter().zip(probes) {
                let Some((probe, projection)) = probe else { continue };
                guard.hear(projection - probe.of_injection(injected), probe.detector);
            }
        }
        if let Some(range) = rebuilding {
            self.rebuilt = range.end;
        }

        if let Some(ending) = ending {
            self.sample(ending, after_current, sink)?;
        }
        if let Some(ending) = self.ending {
            if !self.pieces[ending].needs_step() {
                self.pieces[ending].flush(sink)?;
            }
            if self.pieces[ending].is_over() {
                self.ending = None;
                self.ending_prompt = None;
            }
        }
        if let Some(current) = current {
            self.sample(current, 0, sink)?;
        }
        Ok(())
    }

    /// Fills the injection vectors of this step; says which of them add anything.
    fn write_injections(
        &mut self,
        current: Option<usize>,
        ending: Option<usize>,
        rebuilding: Option<Range<u32>>,
    ) -> [bool; SLOTS] {
        let mut steered = [false; SLOTS];
        let steering = self.model.steering();
        for (slot, piece) in [(0, current), (1, ending)] {
            if let Some(piece) = piece {
                let piece = &self.pieces[piece];
                steered[slot] = steering.write(piece.doses(piece.taken()), piece.taken(), &mut self.injections[slot]);
            }
        }
        if let (Some(current), Some(range)) = (current, rebuilding) {
            let start = self.roll.next_base(self.base);
            for (index, position) in range.enumerate() {
                // Each position keeps the steering that it first had.
                let (step, out) = (start + position, &mut self.injections[2 + index]);
                steered[2 + index] = steering.write(self.pieces[current].doses(step), step, out);
            }
        }
        steered
    }

    /// Samples the codes of a piece from the logits of rows `row` (conditional) and `row + 1`.
    fn sample(&mut self, piece: usize, row: usize, sink: Sink<'_>) -> Result<(), EngineError> {
        let (conditional, unconditional) = (self.scratch.logits(row), self.scratch.logits(row + 1));
        if !conditional.iter().chain(unconditional).all(|logit| logit.is_finite()) {
            return Err(EngineError::NotFinite { model: self.model.name().to_owned() });
        }
        let vocab = self.model.decoder().vocab();
        let sampler = &mut self.sampler;
        let piece = &mut self.pieces[piece];
        let last = piece.last();
        let sampling = Sampling { temperature: last.temperature, guidance: last.guidance, top_k: last.top_k as usize };
        let draw = |codebook: usize| {
            let range = codebook * vocab..(codebook + 1) * vocab;
            sampler.sample(
                &conditional[range.clone()],
                &unconditional[range],
                &sampling,
                last.seed,
                last.index,
                codebook,
            )
        };
        Ok(piece.take(draw, sink)?)
    }
}
