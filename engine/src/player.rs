//! Turns control frames into audio frames: the runner's core, without threads or queues. One control frame is one
//! decoder step; the ending piece and the rebuild of a full window ride along as extra rows of the same step.
//! Prompts: a step sounds under the newest one; a rebuilt position keeps the one that it first had; an ended piece is flushed
//! under the one it ended with. Keys and values that are there stay as they are. Lives on the runner thread; no allocation after construction.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod roll;

use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, BackendError, CodecStream, Draw, MOST_DRAWS, MOST_TAPS, Step, StepRow, Tap};
use crate::control::{ControlFrame, ControlKind};
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::sampling::Sampling;
use crate::error::EngineError;
use crate::model::Model;
use crate::piece::{Piece, Sink, on_processor};
use crate::pool::Pool;
use crate::steering::doses::Doses;
use crate::steering::injection::Injection;
use crate::steering::table::Steering;
use crate::text::Prompt;
use roll::{REBUILD_POSITIONS, Roll};

/// Rows of the largest step: two guidance rows each for the piece, the ending piece and the rebuilt positions.
pub const MAX_ROWS: usize = 4 + 2 * REBUILD_POSITIONS as usize;

/// Pieces and positions of a step that are steered apart: the current, the ending, the rebuilt positions.
pub(crate) const SLOTS: usize = 2 + REBUILD_POSITIONS as usize;

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

/// Plays one model.
pub struct Player {
    model: Arc<Model>,
    /// The checkpoint's tables, and those of the traits that are in use.
    steering: Steering,
    /// What the next step of the current piece sounds under.
    prompt: Arc<Prompt>,
    /// What the ending piece ended under: when its flush runs may depend on timing, so a later prompt must not reach it.
    ending_prompt: Option<Arc<Prompt>>,
    /// Computes the steps. It has two pairs of caches, each of a conditional and an unconditional guidance row: the current
    /// piece's, and those of the ending piece or the rebuilt window.
    backend: Box<dyn Backend>,
    /// The processor's threads: for the codec, and for the steps when a card gives up.
    pool: Arc<Pool>,
    /// Positions that a cache has beyond the window.
    margin: usize,
    /// What the musician should know and has not been told.
    notice: Option<String>,
    /// Which pair of caches the current piece runs in.
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
    injections: [Injection; SLOTS],
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
        let backend = CpuBackend::new(model.clone(), pool.clone(), Self::capacity(&model, window));
        Self::computed_by(Box::new(backend), pool, model, prompt, window)
    }

    /// Positions that a backend's caches need for the model's own play window, or for a shorter one.
    pub fn capacity(model: &Model, window: Option<usize>) -> usize {
        let pattern = DelayPattern::new(model.decoder().codebooks(), model.channels());
        // An ending piece takes a few more steps than the window has positions: it does not roll over.
        Self::clamped(model, window) + pattern.max_delay() + 1
    }

    fn clamped(model: &Model, window: Option<usize>) -> usize {
        window.map_or(model.window(), |window| window.max(64).min(model.window()))
    }

    /// As [`Player::on`], its steps computed by `backend`, whose caches have [`Player::capacity`] positions.
    pub fn computed_by(
        backend: Box<dyn Backend>,
        pool: Arc<Pool>,
        model: Arc<Model>,
        prompt: Arc<Prompt>,
        window: Option<usize>,
    ) -> Self {
        let capacity = Self::capacity(&model, window);
        let window = Self::clamped(&model, window);
        let margin = capacity - window;
        let decoder = model.decoder();
        let format = model.format();
        let frame_seconds = format.frame_samples as f32 / format.model_rate as f32;
        let piece = || Piece::new(decoder, model.codec(), model.channels(), window, frame_seconds, &pool);
        let width = decoder.blocks() * decoder.hidden();
        Self {
            live: 0,
            pieces: [piece(), piece()],
            backend,
            margin,
            notice: None,
            current: None,
            ending: None,
            ending_base: 0,
            roll: Roll::new(window),
            base: 0,
            rebuilt: 0,
            injections: std::array::from_fn(|_| Injection::new(width)),
            work: StepWork::default(),
            ending_prompt: None,
            prompt,
            pool,
            steering: model.steering().clone(),
            model,
        }
    }

    /// Codes are decoded by what `stream` makes, a card's streams, say, instead of on the processor. Whatever plays is dropped.
    ///
    /// # Errors
    /// Those of `stream`; nothing has changed then.
    pub fn decode_by<E>(&mut self, mut stream: impl FnMut() -> Result<Box<dyn CodecStream>, E>) -> Result<(), E> {
        let channels = self.pieces[0].channels();
        let mut streams = || (0..channels).map(|_| stream()).collect::<Result<Vec<_>, E>>();
        let made = [streams()?, streams()?];
        self.stop();
        for (piece, streams) in self.pieces.iter_mut().zip(made) {
            piece.decode_by(streams);
        }
        Ok(())
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

    /// The next step is steered by these tables, exactly. What is there stays as it is; positions of a window that is being
    /// rebuilt get the doses that they first had, of these tables.
    pub fn set_steering(&mut self, steering: Steering) {
        self.steering = steering;
        self.injections.iter_mut().for_each(Injection::forget);
        self.backend.steering_changed();
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
            ControlKind::End => match self.end(sink) {
                Err(EngineError::Backend(why)) => {
                    self.fall_back(&why);
                    Ok(())
                }
                other => other,
            },
            ControlKind::Frame => {
                if self.current.is_none() {
                    self.begin(control.piece);
                }
                match self.step(Some(control), sink) {
                    Err(EngineError::Backend(why)) => {
                        self.fall_back(&why);
                        self.begin(control.piece);
                        self.step(Some(control), sink)
                    }
                    other => other,
                }
            }
        }
    }

    /// One step of an ended piece's flush, when no control frame is waiting.
    ///
    /// # Errors
    /// When the model's numbers are not finite.
    pub fn flush(&mut self, sink: Sink<'_>) -> Result<(), EngineError> {
        if self.ending.is_none() {
            return Ok(());
        }
        match self.step(None, sink) {
            Err(EngineError::Backend(why)) => {
                self.fall_back(&why);
                Ok(())
            }
            other => other,
        }
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

        let steered = self.write_injections(current, ending, rebuilding.clone());
        let steering = &self.steering;
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
        let mut rows = ArrayVec::<StepRow<'_>, MAX_ROWS>::new();
        let conditional_only = steering.conditional_only();
        let caches_of = |pair: usize| [2 * pair, 2 * pair + 1];
        let mut push = |pair: usize, position: u32, codes, slot: usize| {
            let prompt = match slot {
                1 => self.ending_prompt.as_ref().unwrap_or(&self.prompt),
                _ => &self.prompt,
            };
            for (cache, prompt) in caches_of(pair).into_iter().zip([Some(prompt), None]) {
                let position = position as usize;
                let given = prompt.is_some() || !conditional_only;
                let injection = (steered[slot] && given).then_some(slot);
                let pushes = if given { held[slot].as_slice() } else { &[] };
                rows.push(StepRow { cache, position, codes, prompt, injection, pushes });
            }
        };
        // Rows that are drawn from come first.
        let mut draws = ArrayVec::<Draw, MOST_DRAWS>::new();
        if let Some(current) = current {
            let piece = &self.pieces[current];
            push(self.live, piece.taken() - self.base, piece.input(piece.taken(), self.base), 0);
            draws.push(draw_of(piece));
        }
        let ending_draw = draws.len();
        if let Some(ending) = ending {
            let (piece, base) = (&self.pieces[ending], self.ending_base);
            push(1 - self.live, piece.taken() - base, piece.input(piece.taken(), base), 1);
            draws.push(draw_of(piece));
        }
        if let (Some(current), Some(range)) = (current, rebuilding.clone()) {
            let start = self.roll.next_base(self.base);
            for (slot, position) in range.enumerate() {
                let codes = self.pieces[current].input(start + position, start);
                push(1 - self.live, position, codes, 2 + slot);
            }
        }
        let probes = match current {
            Some(current) => self.pieces[current].guards().map(|(lane, guard)| {
                // A lane that holds sees for itself when the target is there.
                let class = guard.class().filter(|_| !steering.holds(lane))?;
                steering.probe(lane, class)
            }),
            None => [None; MOST_TAPS],
        };
        // Detectors learned from the unconditional row, which is the current piece's second.
        let taps: ArrayVec<Tap, MOST_TAPS> =
            probes.iter().flatten().map(|probe| Tap { block: probe.block, row: 1 }).collect();
        let tables = self.injections.each_ref().map(Injection::table);
        let step = Step { rows: &rows, tables: &tables, draws: &draws, taps: &taps };
        let stepped = self.backend.step(&step);
        let rebuilt = rebuilding.as_ref().map_or(0, ExactSizeIterator::len);
        self.work = StepWork { rows: rows.len(), rebuilt, switched };
        drop(rows);
        drop(held);
        stepped.map_err(|error| match error {
            BackendError::NotFinite => EngineError::NotFinite { model: self.model.name().to_owned() },
            other => other.into(),
        })?;
        if let Some(current) = current {
            // What the unconditional row, which is looked at, was given.
            let given = steered[0] && !self.steering.conditional_only();
            let injected = if given { self.injections[0].table().values.as_slice() } else { &[] };
            let mut tap = 0;
            for ((_, guard), probe) in self.pieces[current].guards().into_iter().zip(probes) {
                let Some(probe) = probe else { continue };
                let projection = probe.project(self.backend.tapped(tap));
                tap += 1;
                guard.hear(projection - probe.of_injection(injected), probe.detector);
            }
        }
        if let Some(range) = rebuilding {
            self.rebuilt = range.end;
        }

        if let Some(ending) = ending {
            self.sample(ending, ending_draw, sink)?;
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
        let steering = &self.steering;
        for (slot, piece) in [(0, current), (1, ending)] {
            if let Some(piece) = piece {
                let piece = &self.pieces[piece];
                steered[slot] = self.injections[slot].write(steering, piece.doses(piece.taken()), piece.taken());
            }
        }
        if let (Some(current), Some(range)) = (current, rebuilding) {
            let start = self.roll.next_base(self.base);
            for (index, position) in range.enumerate() {
                // Each position keeps the steering that it first had.
                let step = start + position;
                steered[2 + index] = self.injections[2 + index].write(steering, self.pieces[current].doses(step), step);
            }
        }
        steered
    }

    /// Takes the codes of a piece from a draw of the last step.
    fn sample(&mut self, piece: usize, draw: usize, sink: Sink<'_>) -> Result<(), EngineError> {
        let backend = &mut self.backend;
        self.pieces[piece].take(|codebook| backend.code(draw, codebook), sink)
    }

    /// What the musician should know, once.
    pub fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }

    /// Where the steps are computed, for people.
    pub fn place(&self) -> String {
        self.backend.place()
    }

    /// Goes on on the processor. What the card's caches held is lost with it: the piece begins anew at this frame.
    fn fall_back(&mut self, why: &BackendError) {
        self.notice = Some(why.to_string());
        let capacity = self.roll.window as usize + self.margin;
        self.backend = Box::new(CpuBackend::new(self.model.clone(), self.pool.clone(), capacity));
        self.stop();
        self.live = 0;
        let (codec, pool) = (self.model.codec(), &self.pool);
        for piece in self.pieces.iter_mut().filter(|piece| piece.runs_aside()) {
            piece.decode_by((0..piece.channels()).map(|_| on_processor(codec, pool)).collect());
        }
    }
}

/// How a piece's next codes are drawn.
fn draw_of(piece: &Piece) -> Draw {
    let last = piece.last();
    let sampling = Sampling { temperature: last.temperature, guidance: last.guidance, top_k: last.top_k as usize };
    Draw { sampling, seed: last.seed, frame: last.index }
}
