//! One codec stream on a card: rings, LSTM state, and two captured graphs, one for a frame and one for the end. Made on the
//! loader thread, used by the runner. A run is submitted and waited for apart, so that it may pass beside a decoder step.

use std::sync::Arc;

use super::launch::PREFETCH;
use super::schedule::{Progress, Room};
use super::{Codec, padded};
use crate::abi::{Operation, operation};
use crate::driver::{Graph, Outcome, Stream};
use crate::error::CudaError;
use crate::layout::{CodecPlan, Latent, Recur, Span, Window};
use crate::memory::{Arena, Buffer, Pinned, PinnedFloats};

pub struct CodecStream {
    /// Dropped before what they use.
    frame: Graph,
    end: Graph,
    stream: Stream,
    plan: Pinned<CodecPlan>,
    audio: PinnedFloats,
    progress: Progress,
    /// Samples of the run that was submitted last and has not been taken.
    under_way: Option<usize>,
    ended: bool,
    _memory: Buffer,
    codec: Arc<Codec>,
}

/// Where a stream's memory is.
struct Places {
    plan: u64,
    host_plan: u64,
    audio: u64,
    host_audio: u64,
    /// Of each operation: its ring, and the state of an LSTM.
    rings: Vec<u64>,
    states: Vec<u64>,
}

impl CodecStream {
    pub fn open(codec: Arc<Codec>) -> Outcome<Self> {
        let operations: Vec<Operation> = codec.operations.iter().map(|one| one.facts).collect();
        if operations.len() < 2 || operations.last().is_some_and(|last| last.kind != operation::CONVOLUTION) {
            return Err(CudaError::Shape { what: "its codec does not end in a convolution".to_owned() });
        }
        let room = Room::of(&operations);
        let channels = codec.channels();
        let most = |rows: &[usize]| rows.last().map_or(0, |rows| rows * channels);
        let samples = most(&room.frame).max(most(&room.end));
        let mut arena = Arena::default();
        let plan_at = arena.place(size_of::<CodecPlan>());
        let audio_at = arena.place(4 * samples);
        let mut offsets = Vec::new();
        for (facts, rows) in operations.iter().zip(&room.rings) {
            let ring = arena.place(4 * rows * padded(facts.outputs) as usize);
            let state = if facts.kind == operation::LSTM { 3 * facts.outputs as usize } else { 0 };
            offsets.push((ring, arena.place(4 * state)));
        }
        let memory = Buffer::new(&codec.context, arena.bytes())?;
        let stream = Stream::new(&codec.context)?;
        let plan = Pinned::new(&codec.context, CodecPlan::default())?;
        let audio = PinnedFloats::new(&codec.context, samples)?;
        // What pads a row to a multiple of four has to be zero, and stays so.
        // SAFETY: the whole of our own memory.
        unsafe { stream.clear(memory.address(), memory.bytes()) }?;
        stream.wait()?;
        let at = |offset: usize| memory.address() + offset as u64;
        let places = Places {
            plan: at(plan_at),
            host_plan: plan.pointer() as u64,
            audio: at(audio_at),
            host_audio: audio.pointer() as u64,
            rings: offsets.iter().map(|(ring, _)| at(*ring)).collect(),
            states: offsets.iter().map(|(_, state)| at(*state)).collect(),
        };
        let capture = |rows: &[usize]| {
            let pass = Pass { codec: &codec, stream: &stream, places: &places, rings: &room.rings, rows };
            stream.capture(|| pass.submit(4 * most(rows)))
        };
        let (frame, end) = (capture(&room.frame)?, capture(&room.end)?);
        Ok(Self {
            frame,
            end,
            stream,
            plan,
            audio,
            progress: Progress::new(operations),
            under_way: None,
            ended: false,
            _memory: memory,
            codec,
        })
    }

    /// Submits a frame's codes, or with none the end of the stream.
    pub fn push(&mut self, codes: &[u32]) -> Outcome<()> {
        let refused = |what: String| Err(CudaError::Argument { what });
        let latent = self.codec.operations[0].facts;
        if self.under_way.is_some() || self.ended {
            return refused("codes for a codec that is busy or at its end".to_owned());
        }
        let known = codes.len() == latent.inputs as usize && codes.iter().all(|code| *code < latent.kernel);
        if !codes.is_empty() && !known {
            return refused(format!("{} codes of another codec", codes.len()));
        }
        self.codec.context.enter()?;
        let last = codes.is_empty();
        self.plan.codes[..codes.len()].copy_from_slice(codes);
        let rows = self.progress.advance(last, &mut self.plan.work);
        self.ended = last;
        self.stream.run(if last { &self.end } else { &self.frame })?;
        self.under_way = Some(rows * self.codec.channels());
        Ok(())
    }

    /// Waits for what was submitted, and copies its samples; gives how many there are. `out` must have room for them.
    pub fn take(&mut self, out: &mut [f32]) -> Outcome<usize> {
        let Some(count) = self.under_way else { return Ok(0) };
        if out.len() < count {
            return Err(CudaError::Argument { what: format!("room for {} of {count} samples", out.len()) });
        }
        self.codec.context.enter()?;
        self.stream.wait()?;
        self.under_way = None;
        out[..count].copy_from_slice(&self.audio[..count]);
        Ok(count)
    }

    /// Most samples of a run.
    pub fn most(&self) -> usize {
        self.audio.len()
    }

    /// Back to the start of a stream; what is under way is dropped.
    pub fn reset(&mut self) -> Outcome<()> {
        self.progress.reset();
        self.ended = false;
        match self.under_way.take() {
            Some(_) => self.codec.context.enter().and_then(|()| self.stream.wait()),
            None => Ok(()),
        }
    }
}

impl Drop for CodecStream {
    fn drop(&mut self) {
        let _ = self.codec.context.enter();
        // Graphs and memory go after the last run is over.
        let _ = self.stream.wait();
    }
}

/// The launches of one run.
struct Pass<'a> {
    codec: &'a Codec,
    stream: &'a Stream,
    places: &'a Places,
    rings: &'a [usize],
    /// Most rows of each operation.
    rows: &'a [usize],
}

impl Pass<'_> {
    fn submit(&self, bytes: usize) -> Outcome<()> {
        let places = self.places;
        // SAFETY: all room is laid out by the stream for its codec's operations, and lives as long as the graph.
        unsafe { self.stream.upload(places.plan, places.host_plan as *const _, size_of::<CodecPlan>()) }?;
        let mut overlap = false;
        for (index, most) in self.rows.iter().enumerate() {
            if *most > 0 {
                self.operation(index, *most, overlap)?;
                overlap = self.codec.kernels.can_overlap;
            }
        }
        // SAFETY: as above.
        unsafe { self.stream.download(places.host_audio as *mut _, places.audio, bytes) }
    }

    fn operation(&self, index: usize, most: usize, overlap: bool) -> Outcome<()> {
        let (places, kernels) = (self.places, &self.codec.kernels.codec);
        let one = &self.codec.operations[index];
        let facts = &one.facts;
        let mask = |index: usize| self.rings[index] as i64 - 1;
        let work = places.plan + (index * size_of::<Span>()) as u64;
        let output = places.rings[index];
        let (skip, skip_mask) = usize::try_from(facts.skip).map_or((0, 0), |skip| (places.rings[skip], mask(skip)));
        let source = facts.source as usize;
        let (source, source_mask) = (places.rings[source], mask(source));
        let (weight, bias) = (one.weight, one.bias);
        match facts.kind {
            operation::LATENT => {
                let codes = places.plan + std::mem::offset_of!(CodecPlan, codes) as u64;
                let argument = Latent {
                    tables: weight,
                    output,
                    work,
                    codes,
                    mask: mask(index),
                    codebooks: facts.inputs as i32,
                    entries: facts.kernel as i32,
                    width: facts.outputs as i32,
                    stride: padded(facts.outputs) as i32,
                };
                // SAFETY: as in `submit`.
                unsafe { kernels.latent(self.stream, argument) }
            }
            operation::LSTM => {
                let state = places.states[index];
                for row in 0..most {
                    let argument = Recur {
                        weight,
                        bias,
                        source,
                        skip,
                        output,
                        state,
                        work,
                        source_mask,
                        skip_mask,
                        output_mask: mask(index),
                        index: row as i32,
                        hidden: facts.outputs as i32,
                        prefetch: PREFETCH,
                        unused: 0,
                    };
                    // SAFETY: as in `submit`.
                    unsafe { kernels.recur(self.stream, facts, argument, overlap || row > 0) }?;
                }
                Ok(())
            }
            _ => {
                let last = index + 1 == self.rings.len();
                let argument = Window {
                    weight,
                    bias,
                    source,
                    skip,
                    output: if last { places.audio } else { output },
                    work,
                    source_mask,
                    skip_mask,
                    output_mask: if last { -1 } else { mask(index) },
                    inputs: facts.inputs as i32,
                    outputs: facts.outputs as i32,
                    stride: if last { facts.outputs } else { padded(facts.outputs) } as i32,
                    kernel: facts.kernel as i32,
                    dilation: facts.dilation as i32,
                    phases: facts.phases as i32,
                    left: facts.left as i32,
                    right: facts.right as i32,
                    trim: facts.trim as i32,
                    reflect: facts.reflect as i32,
                    elu: facts.elu as i32,
                    prefetch: PREFETCH,
                };
                // SAFETY: as in `submit`.
                unsafe { kernels.window(self.stream, facts, most, argument, overlap) }
            }
        }
    }
}
