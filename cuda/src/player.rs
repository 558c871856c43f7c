//! One player of a model: caches, working memory, prompts, and the captured steps. Made on the loader thread, used by the
//! runner, by one thread at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::abi::{self, Drawn, MOST_PUSHES, MOST_ROWS, MOST_TAPS, Settings, reading};
use crate::capture::{Places, Plan, capture};
use crate::driver::{Event, Graph, Outcome, Stream};
use crate::error::CudaError;
use crate::kernels::{CHUNK, ROWS};
use crate::layout::{Push, Row, Step};
use crate::memory::{Arena, Buffer, Pinned};
use crate::model::Model;
use crate::prompt::Prompt;

/// Widest hidden state of any model: what a tap is copied into.
const MOST_HIDDEN: usize = crate::kernels::MOST_NORMED as usize;

pub struct Player {
    /// Captured steps: one for each number of rows, without and with pushes and taps. Dropped before what they use.
    graphs: HashMap<(u32, bool), Graph>,
    stream: Stream,
    step: Pinned<Step>,
    drawn: Pinned<Drawn>,
    taps: Pinned<[f32; MOST_TAPS * MOST_HIDDEN]>,
    places: Places,
    settings: Settings,
    prompts: HashMap<u32, Prompt>,
    next_prompt: u32,
    held: Vec<Buffer>,
    rows: u32,
    /// What `places` are in.
    _memory: Buffer,
    model: Arc<Model>,
}

impl Player {
    /// Allocates everything and captures the steps of every number of rows.
    pub fn open(model: Arc<Model>, settings: Settings) -> Outcome<Self> {
        model.check_filled()?;
        let shape = model.shape;
        let refused = |what: String| Err(CudaError::Argument { what });
        if settings.caches == 0 || settings.capacity == 0 || settings.capacity > shape.positions {
            let Settings { caches, capacity, .. } = settings;
            return refused(format!("{caches} caches of {capacity} positions"));
        }
        if settings.injections == 0 || settings.injections as usize > MOST_ROWS {
            return refused(format!("{} slots of injections", settings.injections));
        }
        let [hidden, heads, feed, blocks, capacity] =
            [shape.hidden, shape.heads, shape.feed, shape.blocks, settings.capacity].map(|n| n as usize);
        let logits = (shape.codebooks * shape.vocab) as usize;
        let chunks = settings.capacity.div_ceil(CHUNK);
        let mut arena = Arena::default();
        let mut floats = |count: usize| arena.place(4 * count);
        let offsets = [
            floats(size_of::<Step>() / 4),
            floats(MOST_TAPS * hidden),
            floats(MOST_ROWS * hidden),
            floats(MOST_ROWS * hidden),
            floats(MOST_ROWS * hidden),
            floats(MOST_ROWS * feed),
            floats(MOST_ROWS * logits),
            floats(MOST_ROWS * heads * chunks as usize * (hidden / heads + 2)),
            floats(MOST_ROWS * heads),
            floats(settings.injections as usize * blocks * hidden),
        ];
        let caches = arena.place(2 * settings.caches as usize * blocks * 2 * hidden * capacity);
        let memory = Buffer::new(&model.context, arena.bytes())?;
        // A step is what everything waits for; the codec fills the gaps that it leaves.
        let stream = Stream::urgent(&model.context)?;
        let step = Pinned::new(&model.context, Step::default())?;
        let drawn = Pinned::new(&model.context, Drawn::default())?;
        let taps = Pinned::new(&model.context, [0.0; MOST_TAPS * MOST_HIDDEN])?;
        let [on_card, taps_at, residual, projected, attended, fed, scores, partial, tickets, injections] =
            offsets.map(|offset| memory.address() + offset as u64);
        let places = Places {
            step: on_card,
            host_step: step.pointer() as u64,
            drawn: drawn.pointer() as u64,
            taps: taps_at,
            host_taps: taps.pointer() as u64,
            hidden: residual,
            projected,
            attended,
            feed: fed,
            logits: scores,
            partial,
            tickets,
            caches: memory.address() + caches as u64,
            injections,
        };
        // Tickets and injections count on zeros; the rest is only tidy.
        // SAFETY: the whole of our own memory.
        unsafe { stream.clear(memory.address(), memory.bytes()) }?;
        stream.wait()?;
        let mut graphs = HashMap::new();
        for rows in ROWS {
            for looks in [false, true] {
                let overlap = settings.overlap != 0 && model.kernels.can_overlap;
                let (prefetch, early) = (settings.prefetch, settings.early != 0);
                let plan = Plan { rows, looks, capacity, chunks, overlap, prefetch, early };
                graphs.insert((rows, looks), capture(&model, &stream, &places, &plan)?);
            }
        }
        Ok(Self {
            graphs,
            stream,
            step,
            drawn,
            taps,
            places,
            settings,
            prompts: HashMap::new(),
            next_prompt: 1,
            held: Vec::new(),
            rows: 0,
            _memory: memory,
            model,
        })
    }

    /// Computes a prompt's keys and values; rows name it by the number that comes back.
    pub fn open_prompt(&mut self, states: &[f32]) -> Outcome<u32> {
        self.model.context.enter()?;
        let prompt = Prompt::new(&self.model, &self.stream, states)?;
        let number = self.next_prompt;
        self.next_prompt += 1;
        self.prompts.insert(number, prompt);
        Ok(number)
    }

    /// Forgets a prompt.
    pub fn close_prompt(&mut self, number: u32) {
        self.prompts.remove(&number);
    }

    /// Takes a class's tables for pushes: `[blocks][hidden]`, `[blocks][2]`, `[blocks]`.
    pub fn open_held(&mut self, directions: &[f32], levels: &[f32], limits: &[f32]) -> Outcome<u32> {
        let [a, b, c] = self.held_offsets();
        let buffer = Buffer::new(&self.model.context, c + 4 * limits.len())?;
        for (offset, part) in [(a, directions), (b, levels), (c, limits)] {
            // SAFETY: the room is that of a class's tables, and the parts outlive the wait.
            unsafe { self.stream.upload(buffer.address() + offset as u64, part.as_ptr().cast(), 4 * part.len()) }?;
        }
        self.stream.wait()?;
        self.held.push(buffer);
        Ok(self.held.len() as u32 - 1)
    }

    fn held_offsets(&self) -> [usize; 3] {
        let (hidden, blocks) = (self.model.shape.hidden as usize, self.model.shape.blocks as usize);
        let mut arena = Arena::default();
        [arena.place(4 * blocks * hidden), arena.place(8 * blocks), arena.place(4 * blocks)]
    }

    /// Numbers in a class's tables.
    pub fn held_counts(&self) -> [usize; 3] {
        let (hidden, blocks) = (self.model.shape.hidden as usize, self.model.shape.blocks as usize);
        [blocks * hidden, 2 * blocks, blocks]
    }

    /// Writes an injected table `[blocks][hidden]` into a slot; the next step finds it.
    pub fn inject(&mut self, slot: u32, values: &[f32]) -> Outcome<()> {
        let count = self.held_counts()[0];
        if slot >= self.settings.injections || values.len() != count {
            return Err(CudaError::Argument { what: format!("{} numbers for slot {slot}", values.len()) });
        }
        self.model.context.enter()?;
        let to = self.places.injections + (4 * slot as usize * count) as u64;
        // SAFETY: the slot is ours and so large; pageable memory is copied before the call returns or the wait ends.
        unsafe { self.stream.upload(to, values.as_ptr().cast(), 4 * count) }?;
        self.stream.wait()
    }

    /// Lays out one step for the card; says which graph it is.
    fn lay_out(&mut self, step: &abi::Step) -> Outcome<(u32, bool)> {
        let shape = self.model.shape;
        let refused = |what: String| CudaError::Argument { what };
        let rows = ROWS.into_iter().find(|rows| step.rows <= *rows);
        let rows = rows.filter(|_| step.rows > 0).ok_or_else(|| refused(format!("{} rows", step.rows)))?;
        let mut looks = step.taps.iter().any(|tap| tap.block >= 0);
        let offsets = self.held_offsets().map(|offset| offset as u64);
        for (r, row) in step.row.iter().enumerate() {
            let live = (r as u32) < step.rows;
            let mut to = Row { injection: -1, ..Row::default() };
            if live {
                let known = row.codes[..shape.codebooks as usize].iter().all(|code| *code <= shape.vocab);
                let slot = row.injection < self.settings.injections as i32;
                let place = row.cache < self.settings.caches && row.position < self.settings.capacity;
                if !(known && slot && place && row.pushes as usize <= MOST_PUSHES) {
                    return Err(refused(format!("row {r}: cache {}, position {}", row.cache, row.position)));
                }
                let prompt = match row.prompt {
                    0 => None,
                    number => Some(self.prompts.get(&number).ok_or_else(|| refused(format!("prompt {number}")))?),
                };
                to = Row {
                    text: prompt.map_or(0, Prompt::address),
                    tokens: prompt.map_or(0, |prompt| prompt.tokens as i32),
                    cache: row.cache as i32,
                    position: row.position as i32,
                    injection: row.injection.max(-1),
                    pushes: row.pushes as i32,
                    live: 1,
                    codes: row.codes,
                };
                for (push, to) in row.push[..row.pushes as usize].iter().zip(&mut self.step.pushes[r]) {
                    let held = self.held.get(push.held as usize);
                    let address = held.ok_or_else(|| refused(format!("held table {}", push.held)))?.address();
                    let [directions, levels, limits] = offsets.map(|offset| address + offset);
                    *to = Push { directions, levels, limits, reach: push.reach, share: push.share };
                    looks = true;
                }
            }
            self.step.rows[r] = to;
        }
        self.step.draws = step.draws;
        for (i, draw) in self.step.draws.iter_mut().enumerate() {
            draw.live = u32::from(draw.live != 0 && 2 * (i as u32 + 1) <= step.rows);
        }
        self.step.taps = step.taps;
        self.rows = step.rows;
        Ok((rows, looks))
    }

    /// One step: keys and values are written, codes drawn.
    pub fn step(&mut self, step: &abi::Step) -> Outcome<Drawn> {
        self.model.context.enter()?;
        let graph = self.lay_out(step)?;
        self.stream.run(&self.graphs[&graph])?;
        self.stream.wait()?;
        Ok(*self.drawn)
    }

    /// The same step over and over: seconds of each by the wall clock, the copies there and back included, and milliseconds
    /// of all by the card's.
    pub fn time(&mut self, step: &abi::Step, seconds: &mut [f64]) -> Outcome<f32> {
        self.model.context.enter()?;
        let (begin, end) = (Event::new()?, Event::new()?);
        self.stream.mark(&begin)?;
        for seconds in seconds {
            let began = Instant::now();
            self.step(step)?;
            *seconds = began.elapsed().as_secs_f64();
        }
        self.stream.mark(&end)?;
        self.stream.wait()?;
        begin.until(&end)
    }

    /// What the last step left behind.
    pub fn read(&self, what: u32, index: u32, out: &mut [f32]) -> Outcome<()> {
        let shape = &self.model.shape;
        let (hidden, logits) = (shape.hidden as usize, (shape.codebooks * shape.vocab) as usize);
        let refused = || CudaError::Argument { what: format!("{} numbers of {what}, {index}", out.len()) };
        match what {
            reading::TAP if (index as usize) < MOST_TAPS && out.len() == hidden => {
                out.copy_from_slice(&self.taps[index as usize * hidden..][..hidden]);
                Ok(())
            }
            reading::LOGITS if index < self.rows && out.len() == logits => {
                self.model.context.enter()?;
                let from = self.places.logits + (4 * index as usize * logits) as u64;
                // SAFETY: the row is within our memory, and `out` outlives the wait.
                unsafe { self.stream.download(out.as_mut_ptr().cast(), from, 4 * logits) }?;
                self.stream.wait()
            }
            _ => Err(refused()),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.model.context.enter();
        // Graphs, prompts and memory go after the last step is over.
        let _ = self.stream.wait();
    }
}
