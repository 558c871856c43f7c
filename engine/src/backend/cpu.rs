//! Steps and samples on the processor: the engine's own forward pass, sampler and codec behind the interfaces that cards have
//! too. Runner thread; no allocation after construction.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::{Backend, BackendError, CodecStream, Draw, MOST_DRAWS, MOST_ROWS, MOST_TAPS, Step};
use crate::codec::DecoderStream;
use crate::decoder::sampling::Sampler;
use crate::decoder::{Decoder, KvCache, Observer, Row, Scratch};
use crate::error::EngineError;
use crate::model::Model;
use crate::pool::Pool;

/// Caches of a player: two guidance rows each for the piece and for the ending one or the rebuilt window.
pub const CACHES: usize = 4;

/// The processor's threads at work for one player.
pub struct CpuBackend {
    model: Arc<Model>,
    scratch: Scratch,
    sampler: Sampler,
    caches: [KvCache; CACHES],
    taps: [Vec<f32>; MOST_TAPS],
    draws: ArrayVec<Draw, MOST_DRAWS>,
}

impl CpuBackend {
    /// Caches of `capacity` positions, steps on the threads of `pool`.
    pub fn new(model: Arc<Model>, pool: Arc<Pool>, capacity: usize) -> Self {
        let decoder = model.decoder();
        Self {
            scratch: Scratch::on(decoder, MOST_ROWS, pool),
            sampler: Sampler::new(decoder.vocab()),
            caches: std::array::from_fn(|_| KvCache::new(decoder, capacity)),
            taps: std::array::from_fn(|_| vec![0.0; decoder.hidden()]),
            draws: ArrayVec::new(),
            model,
        }
    }

    fn decoder(&self) -> &Decoder {
        self.model.decoder()
    }
}

impl Backend for CpuBackend {
    fn step(&mut self, step: &Step<'_>) -> Result<(), BackendError> {
        let rows: ArrayVec<Row<'_>, MOST_ROWS> = step
            .rows
            .iter()
            .enumerate()
            .map(|(index, row)| Row {
                cache: row.cache,
                position: row.position,
                codes: row.codes,
                text: row.prompt.map(|prompt| &prompt.cross),
                injection: row.injection.map(|table| step.tables[table].values.as_slice()),
                pushes: row.pushes,
                logits: index < 2 * step.draws.len(),
            })
            .collect();
        let Self { model, scratch, caches, taps, .. } = self;
        let mut observe = |block: usize, row: usize, output: &[f32]| {
            for (tap, out) in step.taps.iter().zip(taps.iter_mut()) {
                if tap.block == block && tap.row == row {
                    out.copy_from_slice(output);
                }
            }
        };
        let observer: Option<Observer<'_>> = if step.taps.is_empty() { None } else { Some(&mut observe) };
        model.decoder().forward(&rows, &mut caches.each_mut(), scratch, observer);
        self.draws.clear();
        self.draws.extend(step.draws.iter().copied());
        let finite = |row: usize| self.scratch.logits(row).iter().all(|logit| logit.is_finite());
        if (0..2 * self.draws.len()).all(finite) { Ok(()) } else { Err(BackendError::NotFinite) }
    }

    fn code(&mut self, draw: usize, codebook: usize) -> u32 {
        let vocab = self.decoder().vocab();
        let range = codebook * vocab..(codebook + 1) * vocab;
        let (conditional, unconditional) = (self.scratch.logits(2 * draw), self.scratch.logits(2 * draw + 1));
        let Draw { sampling, seed, frame } = self.draws[draw];
        self.sampler.sample(&conditional[range.clone()], &unconditional[range], &sampling, seed, frame, codebook)
    }

    fn tapped(&self, tap: usize) -> &[f32] {
        &self.taps[tap]
    }

    fn logits(&mut self, row: usize, out: &mut [f32]) -> Result<(), BackendError> {
        out.copy_from_slice(self.scratch.logits(row));
        Ok(())
    }

    fn place(&self) -> String {
        "CPU".to_owned()
    }
}

impl CodecStream for DecoderStream {
    fn push(&mut self, codes: &[u32]) -> Result<(), EngineError> {
        Ok(Self::push(self, codes)?)
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        Ok(Self::finish(self)?)
    }

    fn collect(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn runs_aside(&self) -> bool {
        false
    }

    fn available(&self) -> usize {
        Self::available(self)
    }

    fn read(&mut self, out: &mut [f32]) -> usize {
        Self::read(self, out)
    }

    fn reset(&mut self) {
        Self::reset(self);
    }
}
