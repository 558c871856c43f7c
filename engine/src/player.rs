//! Turns control frames into audio frames: the runner's core, without threads or queues. One control frame is one
//! decoder step; the ending piece and the rebuild of a full window ride along as extra rows of the same step.
//! Lives on the runner thread; no allocation after construction.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::control::{ControlFrame, ControlKind};
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::kv_cache::KvCache;
use crate::decoder::sampling::{Sampler, Sampling};
use crate::decoder::{Row, Scratch};
use crate::error::EngineError;
use crate::model::Model;
use crate::piece::{Piece, Sink};
use crate::text::Prompt;

/// Positions of the rebuilt window that are computed beside each step.
const REBUILD_POSITIONS: u32 = 2;

/// Rows of the largest step: two guidance rows each for the piece, the ending piece and the rebuilt positions.
const MAX_ROWS: usize = 4 + 2 * REBUILD_POSITIONS as usize;

/// The KV caches of one piece: the conditional and the unconditional guidance row.
struct CachePair {
    conditional: KvCache,
    unconditional: KvCache,
}

/// When the window rolls over, as a function of the step alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Roll {
    /// Positions of the window.
    window: u32,
    /// Frames kept as context.
    keep: u32,
}

impl Roll {
    fn new(window: usize) -> Self {
        let window = window as u32;
        Self { window, keep: window / 2 }
    }

    /// Steps that a rebuild takes.
    fn duration(self) -> u32 {
        self.keep.div_ceil(REBUILD_POSITIONS)
    }

    /// The first step that runs in the rebuilt window, for a window that starts at `base`.
    fn switch(self, base: u32) -> u32 {
        base + self.window
    }
}

/// Plays one model.
pub struct Player {
    model: Arc<Model>,
    prompt: Arc<Prompt>,
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
    injections: [Vec<f32>; 2 + REBUILD_POSITIONS as usize],
}

impl Player {
    /// Allocates caches for the model's own play window, or for a shorter one (`window` positions, at least 64).
    pub fn new(model: Arc<Model>, prompt: Arc<Prompt>, window: Option<usize>) -> Self {
        let window = window.map_or(model.window(), |window| window.clamp(64, model.window()));
        let decoder = model.decoder();
        let pattern = DelayPattern::new(decoder.codebooks(), model.channels());
        // An ending piece takes a few more steps than the window has positions: it does not roll over.
        let capacity = window + pattern.max_delay() + 1;
        let pair = || CachePair {
            conditional: KvCache::new(decoder, capacity),
            unconditional: KvCache::new(decoder, capacity),
        };
        let piece = || Piece::new(decoder, model.codec(), model.channels(), window);
        let width = decoder.blocks() * decoder.hidden();
        Self {
            scratch: Scratch::new(decoder, MAX_ROWS),
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
            prompt,
            model,
        }
    }

    /// The model that plays.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The next frame sounds under `prompt`; the self-attention context stays.
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
            // The ending piece keeps its caches; the next one gets the other pair.
            self.live = 1 - self.live;
        }
        Ok(())
    }

    fn step(&mut self, control: Option<&ControlFrame>, sink: Sink<'_>) -> Result<(), EngineError> {
        let current = if control.is_some() { self.current } else { None };
        if let (Some(current), Some(control)) = (current, control) {
            let step = self.pieces[current].taken();
            if step == self.roll.switch(self.base) {
                self.live = 1 - self.live;
                self.base = step - self.roll.keep;
                self.rebuilt = 0;
            }
            self.pieces[current].ask(Some(control));
        }
        let ending = self.ending.filter(|ending| self.pieces[*ending].needs_step());
        if let Some(ending) = ending {
            self.pieces[ending].ask(None);
        }
        let rebuilding = self.rebuilding(current);

        let steered = self.write_injections(current, ending, rebuilding.clone());
        let mut rows = ArrayVec::<Row<'_>, MAX_ROWS>::new();
        let injection = |slot: usize| steered[slot].then(|| self.injections[slot].as_slice());
        let caches_of = |pair: usize| [2 * pair, 2 * pair + 1];
        let mut push = |pair: usize, position: u32, codes, slot: usize, logits| {
            for (cache, text) in caches_of(pair).into_iter().zip([Some(&self.prompt.cross), None]) {
                let position = position as usize;
                rows.push(Row { cache, position, codes, text, injection: injection(slot), logits });
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
            let start = self.roll.switch(self.base) - self.roll.keep;
            for (slot, position) in range.enumerate() {
                let codes = self.pieces[current].input(start + position, start);
                push(1 - self.live, position, codes, 2 + slot, false);
            }
        }
        let [a, b] = &mut self.pairs;
        let mut caches = [&mut a.conditional, &mut a.unconditional, &mut b.conditional, &mut b.unconditional];
        self.model.decoder().forward(&rows, &mut caches, &mut self.scratch, None);
        drop(rows);
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
            }
        }
        if let Some(current) = current {
            self.sample(current, 0, sink)?;
        }
        Ok(())
    }

    /// Positions of the next window to compute beside this step.
    fn rebuilding(&self, current: Option<usize>) -> Option<Range<u32>> {
        let step = self.pieces[current?].taken();
        if step + self.roll.duration() < self.roll.switch(self.base) {
            return None;
        }
        let end = (self.rebuilt + REBUILD_POSITIONS).min(self.roll.keep);
        (self.rebuilt < end).then_some(self.rebuilt..end)
    }

    /// Fills the injection vectors of this step; says which of them add anything.
    fn write_injections(
        &mut self,
        current: Option<usize>,
        ending: Option<usize>,
        rebuilding: Option<Range<u32>>,
    ) -> [bool; 2 + REBUILD_POSITIONS as usize] {
        let mut steered = [false; 2 + REBUILD_POSITIONS as usize];
        let Some(notes) = self.model.notes() else { return steered };
        for (slot, piece) in [(0, current), (1, ending)] {
            if let Some(piece) = piece {
                let piece = &self.pieces[piece];
                steered[slot] = notes.write(piece.lanes(piece.taken()), &mut self.injections[slot]);
            }
        }
        if let (Some(current), Some(range)) = (current, rebuilding) {
            let start = self.roll.switch(self.base) - self.roll.keep;
            for (index, position) in range.enumerate() {
                // Each position keeps the steering that it first had.
                let lanes = self.pieces[current].lanes(start + position);
                steered[2 + index] = notes.write(lanes, &mut self.injections[2 + index]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_ends_where_the_window_does() {
        for window in [64, 65, 100, 780, 1500] {
            let roll = Roll::new(window);
            assert!(roll.keep + roll.duration() <= roll.window, "the rebuild fits between two switches");
            assert!(roll.duration() * REBUILD_POSITIONS >= roll.keep);
            // The first rebuilt slice must lie behind the piece, and an ending piece must be out of the way by then.
            assert!(roll.switch(0) - roll.duration() > 8);
        }
    }
}
