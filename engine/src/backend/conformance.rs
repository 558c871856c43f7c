//! Whether two backends compute alike, and whether a row is the same in any company: asked of a GPU before a model is entrusted to
//! it ([`proof`](super::proof)), and by tests of every backend. Loader thread.

use std::sync::Arc;

use super::{Backend, BackendError, Draw, Step, StepRow, Table, Tap};
use crate::decoder::MAX_CODEBOOKS;
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::sampling::{Sampler, Sampling};
use crate::model::Model;
use crate::steering::doses::{Dose, Doses, Lane};
use crate::text::Prompt;

/// A row's input codes.
type Column = [u32; MAX_CODEBOOKS];

/// How far one backend is from another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compared {
    /// Largest difference of a logit, over the largest logit.
    pub logits_max_rel: f64,
    /// The same of the outputs that were tapped.
    pub taps_max_rel: f64,
    /// Share of the codes drawn with the published settings that the engine's own sampler draws from the very same logits: of
    /// two backends whose weights are rounded otherwise, a draw may fall on either side of a code's edge.
    pub drawn_equal_share: f64,
    /// Share of equal codes, greedily.
    pub greedy_equal_share: f64,
    /// What the steering changed of the exact logits, over the largest: it must not be nothing.
    pub steering_max_rel: f64,
}

/// BOS, and then codes made up by `seed` under the delay pattern.
pub fn columns(model: &Model, count: usize, seed: usize) -> Vec<Column> {
    let decoder = model.decoder();
    let pattern = DelayPattern::new(decoder.codebooks(), model.channels());
    let code = |frame: usize, codebook: usize| {
        ((frame * 7919 + codebook * 104_729 + seed * 31 + frame * frame) % decoder.vocab()) as u32
    };
    let column = |f: usize| pattern.column(f, None, decoder.pad(), code);
    std::iter::once([decoder.bos(); MAX_CODEBOOKS]).chain((0..count - 1).map(column)).collect()
}

/// An injected table that is heard and ruins nothing.
pub fn table(model: &Model) -> Vec<f32> {
    (0..model.decoder().blocks() * model.decoder().hidden()).map(|i| (i as f32 * 0.37).sin() * 0.2).collect()
}

pub(super) fn draw(frame: usize, temperature: f32) -> Draw {
    Draw { sampling: Sampling { temperature, ..Sampling::PUBLISHED }, seed: 5, frame: frame as u32 }
}

/// Both guidance rows of one position.
pub fn pair<'a>(
    caches: [usize; 2],
    position: usize,
    codes: Column,
    prompt: &'a Arc<Prompt>,
    injection: Option<usize>,
) -> [StepRow<'a>; 2] {
    [(caches[0], Some(prompt)), (caches[1], None)].map(|(cache, prompt)| StepRow {
        cache,
        position,
        codes,
        prompt,
        injection,
        pushes: &[],
    })
}

pub(super) fn logits(backend: &mut dyn Backend, model: &Model, row: usize) -> Result<Vec<f32>, BackendError> {
    let mut out = vec![0.0; model.decoder().codebooks() * model.decoder().vocab()];
    backend.logits(row, &mut out)?;
    Ok(out)
}

/// The largest of their amounts.
pub fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |most, value| f64::max(most, f64::from(value.abs())))
}

/// The largest of their differences; infinite where one is no number.
pub fn apart(ours: &[f32], exact: &[f32]) -> f64 {
    ours.iter().zip(exact).fold(0.0, |most, (a, b)| match (f64::from(*a) - f64::from(*b)).abs() {
        odd if odd.is_nan() => f64::INFINITY,
        apart => f64::max(most, apart),
    })
}

/// Plays the same made-up columns on both, every other step steered by a table and, where the model has directions that hold,
/// by pushes; taps the first and the last block.
///
/// # Errors
/// One of them gives up.
pub fn compare(
    model: &Model,
    prompt: &Arc<Prompt>,
    exact: &mut dyn Backend,
    other: &mut dyn Backend,
    positions: usize,
) -> Result<Compared, BackendError> {
    let nothing = Table { values: vec![0.0; model.decoder().blocks() * model.decoder().hidden()], version: 0 };
    let something = Table { values: table(model), version: 1 };
    let tables = [&nothing, &something];
    let mut doses = Doses::NONE;
    doses.push(Dose { lane: Lane::Note, class: 4, amount: 1.0 });
    doses.push(Dose { lane: Lane::Chord, class: 2, amount: -0.7 });
    let pushes = model.steering().pushes(&doses);
    let taps = [Tap { block: 0, row: 1 }, Tap { block: model.decoder().blocks() - 1, row: 0 }];
    let (mut most, mut apart_most, mut steering) = (0.0f64, 0.0f64, 0.0f64);
    let mut tapped = [0.0f64; 2];
    let (mut drawn, mut greedy, mut codes) = (0, 0, 0);
    let vocab = model.decoder().vocab();
    let mut sampler = Sampler::new(vocab);
    for (position, column) in columns(model, positions, 1).into_iter().enumerate() {
        let mut plain = Vec::<Vec<f32>>::new();
        // The steered pass last: its keys and values stay.
        for steered in [false, true] {
            if steered && position % 2 == 0 {
                continue;
            }
            let mut rows = pair([0, 1], position, column, prompt, steered.then_some(1));
            if steered {
                rows.iter_mut().for_each(|row| row.pushes = &pushes);
            }
            let mut codes_drawn = Vec::new();
            for temperature in [1.0, 0.0] {
                let draws = [draw(position, temperature)];
                let step = Step { rows: &rows, tables: &tables, draws: &draws, taps: &taps };
                exact.step(&step)?;
                other.step(&step)?;
                let codebooks = 0..model.decoder().codebooks();
                if temperature > 0.0 {
                    codes_drawn = codebooks.map(|k| other.code(0, k)).collect();
                } else {
                    greedy += codebooks.filter(|k| exact.code(0, *k) == other.code(0, *k)).count();
                }
                codes += model.decoder().codebooks();
            }
            let (conditional, unconditional) = (logits(other, model, 0)?, logits(other, model, 1)?);
            let Draw { sampling, seed, frame } = draw(position, 1.0);
            let rows_of = conditional.chunks_exact(vocab).zip(unconditional.chunks_exact(vocab));
            let again = rows_of.enumerate().map(|(k, (c, u))| sampler.sample(c, u, &sampling, seed, frame, k));
            drawn += again.zip(&codes_drawn).filter(|(ours, theirs)| ours == *theirs).count();
            for row in 0..2 {
                let (a, b) = (logits(exact, model, row)?, logits(other, model, row)?);
                (most, apart_most) = (most.max(largest(&a)), apart_most.max(apart(&b, &a)));
                if steered {
                    steering = steering.max(apart(&a, &plain[row]));
                }
                plain.push(a);
            }
            for tap in 0..taps.len() {
                tapped[0] = tapped[0].max(largest(exact.tapped(tap)));
                tapped[1] = tapped[1].max(apart(other.tapped(tap), exact.tapped(tap)));
            }
        }
    }
    let share = |count: usize| count as f64 / (codes / 2) as f64;
    Ok(Compared {
        logits_max_rel: apart_most / most,
        taps_max_rel: tapped[1] / tapped[0],
        drawn_equal_share: share(drawn),
        greedy_equal_share: share(greedy),
        steering_max_rel: steering / most,
    })
}

/// A position or two to a pass, and steered strangers beside them in other caches, four, six and eight rows in all: whether each
/// row has the bits that it has in a pass of its own pair. An error names the first that has not.
///
/// # Errors
/// Other bits, or the backend gives up.
pub fn company(
    model: &Model,
    prompt: &Arc<Prompt>,
    backend: &mut dyn Backend,
    positions: usize,
) -> Result<(), BackendError> {
    let something = Table { values: table(model), version: 1 };
    let tables = [&something];
    let (own, strangers) = (columns(model, positions, 1), columns(model, positions, 2));
    let mut alone = Vec::new();
    for (position, column) in own.iter().enumerate() {
        let rows = pair([0, 1], position, *column, prompt, None);
        let step = Step { rows: &rows, tables: &tables, draws: &[draw(position, 1.0)], taps: &[] };
        backend.step(&step)?;
        alone.push([logits(backend, model, 0)?, logits(backend, model, 1)?]);
    }
    let (mut position, mut strange) = (0, 0);
    for (mine, theirs) in [(1, 1), (2, 1), (2, 2)].into_iter().cycle() {
        if position + mine > positions {
            break;
        }
        let mut rows = Vec::new();
        for (position, column) in own.iter().enumerate().skip(position).take(mine) {
            rows.extend(pair([0, 1], position, *column, prompt, None));
        }
        for (position, column) in strangers.iter().enumerate().skip(strange).take(theirs) {
            rows.extend(pair([2, 3], position, *column, prompt, Some(0)));
        }
        let draws = [draw(position, 1.0), draw(position + 1, 1.0)];
        let step = Step { rows: &rows, tables: &tables, draws: &draws[..mine], taps: &[] };
        backend.step(&step)?;
        for row in 0..2 * mine {
            let (now, then) = (logits(backend, model, row)?, &alone[position + row / 2][row % 2]);
            if now.iter().zip(then).any(|(a, b)| a.to_bits() != b.to_bits()) {
                let how = format!("row {row} at position {position} changes by {:e} in company", apart(&now, then));
                return Err(BackendError::Astray { how });
            }
        }
        (position, strange) = (position + mine, strange + theirs);
    }
    Ok(())
}
