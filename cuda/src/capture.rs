//! One step as a captured graph: the launches of a pass over the model for so many rows, in order. Shapes are static; lengths,
//! codes, prompts and steering are read from the step in device memory. Captured once on the loader thread, run by the runner.

use crate::abi::{MOST_DRAWS, MOST_TAPS, Tensor};
use crate::driver::{Graph, Outcome, Stream};
use crate::kernels::{Kernels, layer};
use crate::layout::{Attend, Embed, Inject, Linear, Sample, Step, into};
use crate::model::Model;

/// Where a player's memory is.
#[derive(Clone, Copy, Default)]
pub struct Places {
    /// The step on the device, and in host memory that the card reads.
    pub step: u64,
    pub host_step: u64,
    /// In host memory that the card writes: a copy back would be one more thing to wait for.
    pub drawn: u64,
    pub taps: u64,
    pub host_taps: u64,
    /// `[rows][hidden]`, the residual stream.
    pub hidden: u64,
    pub projected: u64,
    pub attended: u64,
    pub feed: u64,
    /// `[rows][codebooks * vocab]`.
    pub logits: u64,
    pub partial: u64,
    pub tickets: u64,
    /// `[cache][block][key, value][head][position][size]` in bf16.
    pub caches: u64,
    /// `[slot][block][hidden]`.
    pub injections: u64,
}

/// What a graph is captured with.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rows: u32,
    /// Pushes and taps: a kernel more for each block.
    pub looks: bool,
    pub capacity: usize,
    pub chunks: u32,
    pub overlap: bool,
    pub prefetch: u32,
    pub early: bool,
}

/// The launches of one step.
pub fn capture(model: &Model, stream: &Stream, places: &Places, plan: &Plan) -> Outcome<Graph> {
    model.context.enter()?;
    stream.capture(|| Pass { model, kernels: &model.kernels, stream, places, plan }.submit())
}

struct Pass<'a> {
    model: &'a Model,
    kernels: &'a Kernels,
    stream: &'a Stream,
    places: &'a Places,
    plan: &'a Plan,
}

impl Pass<'_> {
    fn submit(&self) -> Outcome<()> {
        let (places, shape) = (self.places, &self.model.shape);
        let width = shape.hidden as i32;
        let embed = Embed {
            tables: self.model.tensor(Tensor::Embeddings, 0),
            positions: self.model.tensor(Tensor::Positions, 0),
            hidden: places.hidden,
            drawn: places.drawn,
            step: places.step,
            width,
            codebooks: shape.codebooks as i32,
            entries: shape.vocab as i32 + 1,
        };
        // SAFETY: all room is laid out by the player for its model's shape, and lives as long as the graph.
        unsafe {
            self.stream.upload(places.step, places.host_step as *const _, size_of::<Step>())?;
            self.kernels.embed(self.stream, self.plan.rows, embed)?;
        }
        for block in 0..shape.blocks as usize {
            self.block(block)?;
        }
        let hidden = shape.hidden as usize;
        let outputs = (shape.codebooks * shape.vocab) as usize;
        let heads = self.model.tensor(Tensor::Heads, 0);
        let heads = layer(heads, places.hidden, places.logits, hidden, outputs);
        self.normed(heads, Tensor::FinalGain, Tensor::FinalOffset, 0)?;
        let sample = Sample {
            logits: places.logits,
            step: places.step,
            drawn: places.drawn,
            codebooks: shape.codebooks as i32,
            vocab: shape.vocab as i32,
        };
        // Two rows are one pair.
        let draws = (self.plan.rows / 2).min(MOST_DRAWS as u32);
        // SAFETY: as above.
        unsafe {
            self.kernels.sample(self.stream, draws, sample, self.plan.overlap)?;
            if self.plan.looks {
                self.stream.download(places.host_taps as *mut _, places.taps, 4 * MOST_TAPS * hidden)?;
            }
        }
        Ok(())
    }

    fn block(&self, block: usize) -> Outcome<()> {
        let (places, shape) = (self.places, &self.model.shape);
        let (hidden, heads, feed) = (shape.hidden as usize, shape.heads as usize, shape.feed as usize);
        let tensor = |tensor| self.model.tensor(tensor, block);
        let value_stride = (hidden * self.plan.capacity) as i64;
        let cache_stride = 2 * i64::from(shape.blocks) * value_stride;
        let keys = places.caches + (2 * block as i64 * 2 * value_stride) as u64;
        let (width, size) = (hidden as i32, (hidden / heads) as i32);

        let own_in = Linear {
            into: into::CACHE,
            keys,
            cache_stride,
            value_stride,
            hidden: width,
            size,
            capacity: self.plan.capacity as i32,
            ..layer(tensor(Tensor::SelfIn), places.hidden, places.projected, hidden, 3 * hidden)
        };
        self.normed(own_in, Tensor::SelfGain, Tensor::SelfOffset, block)?;
        let attend = Attend {
            query: places.projected,
            output: places.attended,
            step: places.step,
            partial: places.partial,
            tickets: places.tickets,
            query_stride: width,
            hidden: width,
            heads: heads as i32,
            capacity: self.plan.capacity as i32,
            chunks: self.plan.chunks as i32,
            factor: 1.0 / (size as f32).sqrt(),
            ..Attend::default()
        };
        self.attend(Attend { keys, cache_stride, value_stride, ..attend })?;
        self.added(layer(tensor(Tensor::SelfOut), places.attended, places.hidden, hidden, hidden))?;

        let query = layer(tensor(Tensor::CrossQuery), places.hidden, places.projected, hidden, hidden);
        self.normed(query, Tensor::CrossGain, Tensor::CrossOffset, block)?;
        self.attend(Attend { text_offset: (2 * block * hidden) as i64, ..attend })?;
        self.added(layer(tensor(Tensor::CrossOut), places.attended, places.hidden, hidden, hidden))?;

        let feed_in = layer(tensor(Tensor::FeedIn), places.hidden, places.feed, hidden, feed);
        let feed_in = Linear { into: into::ACTIVATE, activation: shape.activation as i32, ..feed_in };
        self.normed(feed_in, Tensor::FeedGain, Tensor::FeedOffset, block)?;
        let feed_out = layer(tensor(Tensor::FeedOut), places.feed, places.hidden, feed, hidden);
        self.added(Linear {
            injections: places.injections + (4 * block * hidden) as u64,
            slot_stride: i64::from(shape.blocks) * hidden as i64,
            ..feed_out
        })?;
        if self.plan.looks {
            let (step, taps) = (places.step, places.taps);
            let inject = Inject { hidden: places.hidden, taps, step, width, block: block as i32 };
            // SAFETY: as in `submit`.
            unsafe { self.kernels.inject(self.stream, self.plan.rows, inject, self.plan.overlap) }?;
        }
        Ok(())
    }

    fn linear(&self, argument: Linear) -> Outcome<()> {
        let Plan { prefetch, early, overlap, .. } = *self.plan;
        // Without overlap there is no earlier.
        let early = i32::from(early && overlap);
        let argument = Linear { step: self.places.step, prefetch: prefetch as i32, early, ..argument };
        // SAFETY: as in `submit`.
        unsafe { self.kernels.linear(self.stream, self.plan.rows, argument, self.plan.overlap) }
    }

    fn normed(&self, argument: Linear, gain: Tensor, offset: Tensor, block: usize) -> Outcome<()> {
        let (gain, offset) = (self.model.tensor(gain, block), self.model.tensor(offset, block));
        self.linear(Linear { gain, offset, ..argument })
    }

    fn added(&self, argument: Linear) -> Outcome<()> {
        self.linear(Linear { into: into::ADD, ..argument })
    }

    fn attend(&self, argument: Attend) -> Outcome<()> {
        let size = self.model.shape.hidden / self.model.shape.heads;
        let argument = Attend { early: i32::from(self.plan.early && self.plan.overlap), ..argument };
        // SAFETY: as in `submit`.
        unsafe { self.kernels.attend(self.stream, self.plan.rows, size, argument, self.plan.overlap) }
    }
}
