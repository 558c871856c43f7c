//! Decoder steps alone at a fixed cache length: both guidance rows through `Decoder::forward`, no sampling, no codec.
//! Main thread (and whatever threads the engine's step uses).

use std::time::Instant;

use tiller_engine::decoder::{KvCache, MAX_CODEBOOKS, Row, Scratch};

use super::progress::Progress;
use super::spread::Spread;
use super::subject::Subject;

/// Rows of one pass while the caches are filled.
const FILL_ROWS: usize = 32;
/// Steps that are not counted: caches and branch predictors warm up, clocks rise.
const WARM_UP: usize = 3;
/// Fewest steps of a measurement, however slow they are.
const LEAST_STEPS: usize = 5;

/// Caches that hold real keys and values up to the longest length asked for: untouched memory would all be one page of
/// zeros, and read from the processor's own cache.
pub struct Steps {
    conditional: KvCache,
    unconditional: KvCache,
    scratch: Scratch,
    code: u32,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Steps per second of wall time.
    pub per_second: f64,
    /// Times of single steps.
    pub spread: Spread,
}

impl Steps {
    /// Fills caches of `positions` positions.
    pub fn new(subject: &Subject, positions: usize, progress: &Progress) -> Self {
        let decoder = subject.model.decoder();
        let mut steps = Self {
            conditional: KvCache::new(decoder, positions),
            unconditional: KvCache::new(decoder, positions),
            scratch: Scratch::on(decoder, FILL_ROWS, subject.pool.clone()),
            code: 1,
        };
        progress.begin("filling the KV cache (positions)", positions);
        let mut filled = 0;
        while filled < positions {
            let end = (filled + FILL_ROWS / 2).min(positions);
            let mut rows = Vec::with_capacity(FILL_ROWS);
            for position in filled..end {
                let codes = steps.codes(decoder.vocab());
                for cache in 0..2 {
                    // Without text and logits it is cheaper, and what they hold does not matter.
                    rows.push(Row { cache, position, codes, text: None, injection: None, pushes: &[], logits: false });
                }
            }
            let mut caches = [&mut steps.conditional, &mut steps.unconditional];
            decoder.forward(&rows, &mut caches, &mut steps.scratch, None);
            filled = end;
            progress.at(filled);
        }
        steps
    }

    /// Steps that attend to `positions` positions, for about `seconds`.
    pub fn measure(&mut self, subject: &Subject, positions: usize, seconds: f64) -> Measured {
        let decoder = subject.model.decoder();
        let mut times = Vec::new();
        let mut began = Instant::now();
        for step in 0.. {
            if step == WARM_UP {
                began = Instant::now();
            }
            if step >= WARM_UP + LEAST_STEPS && began.elapsed().as_secs_f64() >= seconds {
                break;
            }
            let codes = self.codes(decoder.vocab());
            let row = Row {
                cache: 0,
                position: positions - 1,
                codes,
                text: None,
                injection: None,
                pushes: &[],
                logits: true,
            };
            let rows = [Row { text: Some(&subject.prompt.cross), ..row }, Row { cache: 1, ..row }];
            let start = Instant::now();
            let mut caches = [&mut self.conditional, &mut self.unconditional];
            decoder.forward(&rows, &mut caches, &mut self.scratch, None);
            if step >= WARM_UP {
                times.push(start.elapsed().as_secs_f32());
            }
        }
        let total: f64 = times.iter().map(|seconds| f64::from(*seconds)).sum();
        Measured { per_second: times.len() as f64 / total, spread: Spread::of(times) }
    }

    /// Codes that change from step to step.
    fn codes(&mut self, vocab: usize) -> [u32; MAX_CODEBOOKS] {
        std::array::from_fn(|_| {
            self.code = self.code.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.code >> 8) % vocab as u32
        })
    }
}
