//! One step as candle's operations: preallocated keys and values that are written in place, attention run by run, and codes
//! drawn here by the processor's own sampler from logits that are copied back. Runner thread; allocates.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;
use candle_core::{DType, Result, Tensor};
use candle_nn::ops;

use super::device::Numbers;
use super::failed;
use super::model::{Block, CandleModel, PromptCache};
use super::steering::Steering;
use crate::backend::cpu::CACHES;
use crate::backend::cuda::abi::status;
use crate::backend::{Backend, BackendError, Draw, MOST_DRAWS, MOST_ROWS, MOST_TAPS, Step, StepRow};
use crate::decoder::sampling::Sampler;
use crate::model::Model;
use crate::text::Prompt;

/// Prompts that are kept on the device: a step has three at most, and one may just have come.
const MOST_PROMPTS: usize = 4;

/// Rows that attend at once: a pair of guidance rows, whose caches lie one behind the other. No more, or the number of rows
/// beside them would have a say in which kernel computes them.
const MOST_IN_RUN: usize = 2;

/// One player's caches on a device.
pub struct CandleBackend {
    on_device: Arc<CandleModel>,
    /// Embeds codes.
    model: Arc<Model>,
    /// Of every block: keys and values `[caches * heads][capacity][head]`.
    caches: Vec<[Tensor; 2]>,
    /// Prompts on the device, the one used last at the end.
    prompts: Vec<(Arc<Prompt>, Arc<PromptCache>)>,
    steering: Steering,
    /// What rows without a prompt, and rows that are not there, hear of it: `[rows][hidden]`.
    silence: Tensor,
    sampler: Sampler,
    draws: ArrayVec<Draw, MOST_DRAWS>,
    /// Of the rows that were drawn from, `[rows][codebooks * vocab]`.
    logits: Vec<f32>,
    taps: [Vec<f32>; MOST_TAPS],
}

/// The prompts of a step's rows.
type Prompts = [Option<Arc<PromptCache>>; MOST_ROWS];

impl CandleBackend {
    /// Caches of `capacity` positions on the device of `on_device`, which is the same checkpoint as `model`.
    ///
    /// # Errors
    /// The device's memory does not suffice.
    pub fn new(
        on_device: Arc<CandleModel>,
        model: Arc<Model>,
        capacity: usize,
    ) -> std::result::Result<Self, BackendError> {
        let device = &on_device.device;
        let shape = (CACHES * on_device.heads, capacity, on_device.head());
        let zeros = || Tensor::zeros(shape, device.dtype(), &device.device);
        let made = on_device.blocks.iter().map(|_| Ok([zeros()?, zeros()?])).collect::<Result<Vec<_>>>();
        let refused = |error| failed(status::MEMORY, "the caches have no room on the GPU", &error);
        Ok(Self {
            caches: made.map_err(refused)?,
            prompts: Vec::with_capacity(MOST_PROMPTS + 1),
            steering: Steering::new(device, on_device.blocks.len(), on_device.hidden).map_err(refused)?,
            silence: Tensor::zeros((MOST_ROWS, on_device.hidden), device.dtype(), &device.device).map_err(refused)?,
            sampler: Sampler::new(model.decoder().vocab()),
            draws: ArrayVec::new(),
            logits: Vec::new(),
            taps: std::array::from_fn(|_| vec![0.0; on_device.hidden]),
            on_device,
            model,
        })
    }

    /// A prompt on the device, where it is put if it is not there.
    fn prompt(&mut self, prompt: &Arc<Prompt>) -> Result<Arc<PromptCache>> {
        let known = match self.prompts.iter().position(|(known, _)| Arc::ptr_eq(known, prompt)) {
            Some(place) => self.prompts.remove(place),
            None => (prompt.clone(), Arc::new(self.on_device.prompt(&prompt.states)?)),
        };
        if self.prompts.len() == MOST_PROMPTS {
            self.prompts.remove(0);
        }
        let cache = known.1.clone();
        self.prompts.push(known);
        Ok(cache)
    }

    fn run(&mut self, step: &Step<'_>) -> Result<()> {
        let on_device = self.on_device.clone();
        let mut prompts: Prompts = [const { None }; MOST_ROWS];
        for (row, cache) in step.rows.iter().zip(&mut prompts) {
            *cache = row.prompt.map(|prompt| self.prompt(prompt)).transpose()?;
        }
        let (injected, pushes) = (self.steering.injected(step)?, self.steering.pushes(step)?);
        let mut embedded = vec![0.0; MOST_ROWS * on_device.hidden];
        for (row, x) in step.rows.iter().zip(embedded.chunks_exact_mut(on_device.hidden)) {
            self.model.decoder().embed_codes(&row.codes, row.position, x);
        }
        let runs = runs(step.rows);
        let mut tapped: [Option<Tensor>; MOST_TAPS] = [const { None }; MOST_TAPS];
        let mut x = on_device.device.exact(embedded, (MOST_ROWS, on_device.hidden))?;
        for (index, block) in on_device.blocks.iter().enumerate() {
            x = added(&x, &self.self_attention(index, block, &x, step.rows, &runs)?)?;
            x = added(&x, &self.cross_attention(index, block, &x, &prompts)?)?;
            x = added(&x, &on_device.feed_forward(block, &x)?)?;
            if let Some(injected) = &injected {
                x = (x + injected.get(index)?)?;
            }
            for pushed in &pushes {
                x = pushed.apply(index, &x)?;
            }
            for (tap, output) in step.taps.iter().zip(&mut tapped).filter(|(tap, _)| tap.block == index) {
                *output = Some(x.get(tap.row)?);
            }
        }
        self.logits.clear();
        if !self.draws.is_empty() {
            let logits = on_device.normed(&on_device.final_norm, &x)?.matmul(&on_device.heads_out)?;
            let drawn = logits.narrow(0, 0, 2 * self.draws.len())?.to_dtype(DType::F32)?;
            self.logits = drawn.flatten_all()?.to_vec1()?;
        }
        for (output, out) in tapped.iter().zip(&mut self.taps) {
            if let Some(output) = output {
                *out = output.to_vec1()?;
            }
        }
        Ok(())
    }

    fn self_attention(
        &self,
        index: usize,
        block: &Block,
        x: &Tensor,
        rows: &[StepRow<'_>],
        runs: &[Range<usize>],
    ) -> Result<Tensor> {
        let (heads, head, hidden) = (self.on_device.heads, self.on_device.head(), self.on_device.hidden);
        let normed = self.on_device.normed(&block.self_norm, x)?;
        let (query, key, value) =
            (normed.matmul(&block.query)?, normed.matmul(&block.key)?, normed.matmul(&block.value)?);
        // Rows one behind the other are heads one behind the other.
        let of = |projected: &Tensor, run: &Range<usize>| {
            projected.narrow(0, run.start, run.len())?.reshape((run.len() * heads, 1, head))
        };
        let cached =
            |cache: &Tensor, run: &Range<usize>| cache.narrow(0, rows[run.start].cache * heads, run.len() * heads);
        for run in runs {
            for (cache, projected) in self.caches[index].iter().zip([&key, &value]) {
                cached(cache, run)?.slice_set(&of(projected, run)?, 1, rows[run.start].position)?;
            }
        }
        let [keys, values] = &self.caches[index];
        let mut attended = Vec::with_capacity(runs.len() + 1);
        for run in runs {
            let positions = rows[run.start].position + 1;
            let keys = cached(keys, run)?.narrow(1, 0, positions)?;
            let values = cached(values, run)?.narrow(1, 0, positions)?;
            attended.push(attend(&of(&query, run)?, &keys, &values)?.reshape((run.len(), hidden))?);
        }
        attended.extend(self.silence_of(MOST_ROWS - rows.len())?);
        Tensor::cat(&attended, 0)?.matmul(&block.self_out)
    }

    /// Rows without a prompt hear silence, which stays silence: there is no bias.
    fn cross_attention(&self, index: usize, block: &Block, x: &Tensor, prompts: &Prompts) -> Result<Tensor> {
        let (heads, head, hidden) = (self.on_device.heads, self.on_device.head(), self.on_device.hidden);
        let query = self.on_device.normed(&block.cross_norm, x)?.matmul(&block.cross_query)?;
        let mut attended = Vec::with_capacity(MOST_ROWS);
        for (row, prompt) in prompts.iter().enumerate() {
            match prompt {
                Some(prompt) => {
                    let [keys, values] = &prompt[index];
                    let query = query.narrow(0, row, 1)?.reshape((heads, 1, head))?;
                    attended.push(attend(&query, keys, values)?.reshape((1, hidden))?);
                }
                None => attended.extend(self.silence_of(1)?),
            }
        }
        Tensor::cat(&attended, 0)?.matmul(&block.cross_out)
    }

    fn silence_of(&self, rows: usize) -> Result<Option<Tensor>> {
        (rows > 0).then(|| self.silence.narrow(0, 0, rows)).transpose()
    }
}

impl Drop for CandleBackend {
    fn drop(&mut self) {
        // A command that ends calls back into this code, which a host may unload. One that fails has ended too.
        let _ = self.on_device.device.device.synchronize();
    }
}

impl Backend for CandleBackend {
    fn step(&mut self, step: &Step<'_>) -> std::result::Result<(), BackendError> {
        self.draws.clear();
        self.draws.extend(step.draws.iter().copied());
        self.run(step).map_err(|error| failed(status::LOST, "the GPU no longer answers", &error))?;
        match (self.logits.iter().all(|logit| logit.is_finite()), self.on_device.device.numbers) {
            (true, _) => Ok(()),
            (false, Numbers::F32) => Err(BackendError::NotFinite),
            // Past 65,504 there is nothing; on the processor there may be.
            (false, Numbers::F16) => {
                let text = "the model needs numbers that f16 does not have; the CPU plays".to_owned();
                Err(BackendError::Card { status: status::SHAPE, text })
            }
        }
    }

    fn code(&mut self, draw: usize, codebook: usize) -> u32 {
        let vocab = self.model.decoder().vocab();
        let width = self.model.decoder().codebooks() * vocab;
        let row = |row: usize| &self.logits[row * width + codebook * vocab..][..vocab];
        let Draw { sampling, seed, frame } = self.draws[draw];
        self.sampler.sample(row(2 * draw), row(2 * draw + 1), &sampling, seed, frame, codebook)
    }

    fn tapped(&self, tap: usize) -> &[f32] {
        &self.taps[tap]
    }

    fn logits(&mut self, row: usize, out: &mut [f32]) -> std::result::Result<(), BackendError> {
        out.copy_from_slice(&self.logits[row * out.len()..][..out.len()]);
        Ok(())
    }

    fn place(&self) -> String {
        self.on_device.device.name().to_owned()
    }
}

/// The rows, in runs of those that have the same position and caches one behind the other.
fn runs(rows: &[StepRow<'_>]) -> ArrayVec<Range<usize>, MOST_ROWS> {
    let mut runs = ArrayVec::<Range<usize>, MOST_ROWS>::new();
    for (index, row) in rows.iter().enumerate() {
        let goes_on = |run: &&mut Range<usize>| {
            let first = &rows[run.start];
            run.len() < MOST_IN_RUN && row.position == first.position && row.cache == first.cache + run.len()
        };
        match runs.last_mut().filter(goes_on) {
            Some(run) => run.end = index + 1,
            None => runs.push(index..index + 1),
        }
    }
    runs
}

/// Softmax attention of one row's heads, or of several rows', each `[heads][1][head]` over `[heads][positions][head]`.
fn attend(query: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    ops::softmax_last_dim(&query.matmul(&keys.transpose(1, 2)?)?)?.matmul(values)
}

/// The residual stream with a layer's output added.
fn added(x: &Tensor, output: &Tensor) -> Result<Tensor> {
    x + output.to_dtype(DType::F32)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::MAX_CODEBOOKS;

    #[test]
    fn only_neighbours_at_one_position_attend_at_once() {
        let of = |places: &[(usize, usize)]| {
            let row = |&(cache, position): &(usize, usize)| {
                let codes = [0; MAX_CODEBOOKS];
                StepRow { cache, position, codes, prompt: None, injection: None, pushes: &[] }
            };
            let rows: Vec<StepRow<'_>> = places.iter().map(row).collect();
            runs(&rows).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(&[(0, 7), (1, 7), (2, 3), (3, 3)]), [0..2, 2..4]);
        assert_eq!(of(&[(0, 7), (1, 7), (2, 7), (3, 7)]), [0..2, 2..4], "no more than two");
        assert_eq!(of(&[(2, 0), (3, 0), (2, 1), (3, 1)]), [0..2, 2..4]);
        assert_eq!(of(&[(0, 7), (1, 8), (3, 8), (2, 8)]), [0..1, 1..2, 2..3, 3..4]);
        assert!(of(&[]).is_empty());
    }
}
