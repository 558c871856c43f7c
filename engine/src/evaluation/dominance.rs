//! Note dominance against strength: how often the target is the strongest pitch class that the outside ear hears.
//! Generates with the player itself, many pieces at once; worker threads.

use super::chroma::{Chroma, ChromaError, share_on_target, strongest};
use super::generation::{frames_of, generate};
use crate::control::{ControlFrame, Lanes, PitchClass};
use crate::decoder::sampling::Sampling;
use crate::error::EngineError;
use crate::model::Model;
use crate::steering::doses::Lane;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum DominanceError {
    /// The model failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model's sample rate cannot be heard.
    #[error(transparent)]
    Ear(#[from] ChromaError),
    /// The model cannot be steered.
    #[error("{model} has no note directions ({notice}); learn them with `cargo xtask learn`")]
    NoDirections {
        /// Name of the model.
        model: String,
        /// What the model said of its directions file.
        notice: String,
    },
    /// Nothing was asked for.
    #[error("at least one prompt, one strength, one round, and a length beyond the onset are needed")]
    Nothing,
}

/// What to generate: every strength with the same prompts and seeds.
#[derive(Clone, Debug)]
pub struct Protocol<'a> {
    /// Prompts, taken in turn.
    pub prompts: &'a [String],
    /// Values of `note_strength`; 0 is the unsteered model.
    pub strengths: &'a [f32],
    /// Pieces for each of the 12 targets and each strength.
    pub rounds: usize,
    /// Length of a piece in seconds.
    pub seconds: f64,
    /// When steering is switched on, in seconds; only what comes after it is heard. 0 steers from the first frame.
    pub onset: f64,
    /// First seed; every piece of a strength has its own.
    pub seed_base: u32,
    /// Guidance, temperature and top-k.
    pub sampling: Sampling,
}

/// One point of the curve.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Point {
    /// Value of `note_strength`.
    pub strength: f32,
    /// Share of frames whose strongest pitch class is the target, 0 to 1; silent frames are misses.
    pub dominance: f32,
    /// The same for each target.
    pub by_target: [f32; 12],
    /// Share of silent frames.
    pub silence_share: f32,
    /// Share of the sounding frames that the commonest pitch class has, over all pieces.
    pub max_pitch_share: f32,
    /// Root mean square over all pieces.
    pub rms: f32,
}

/// One piece to generate.
#[derive(Clone, Copy)]
struct Task {
    strength: usize,
    target: u8,
    round: usize,
}

/// What was heard of it.
struct HeardPiece {
    task: Task,
    on_target: f32,
    counts: [u32; 12],
    silent: u32,
    frames: u32,
    power: f64,
}

/// Generates all pieces of the protocol and listens to them. `progress` hears (pieces done, pieces in all), from any
/// thread.
///
/// # Errors
/// [`DominanceError`], by name.
pub fn sweep(
    model: &Arc<Model>,
    protocol: &Protocol,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Point>, DominanceError> {
    let format = model.format();
    let (frames, onset) = (frames_of(model, protocol.seconds), frames_of(model, protocol.onset));
    if protocol.prompts.is_empty() || protocol.strengths.is_empty() || protocol.rounds == 0 || frames <= onset {
        return Err(DominanceError::Nothing);
    }
    if !model.steering().has(Lane::Note) && protocol.strengths.iter().any(|s| *s != 0.0) {
        let notice = model.notice().unwrap_or("none beside its files").to_owned();
        return Err(DominanceError::NoDirections { model: model.name().to_owned(), notice });
    }
    let prompts = protocol.prompts.iter().map(|p| model.prompt(p).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let rounds = 0..protocol.rounds;
    let tasks: Vec<Task> = (0..protocol.strengths.len())
        .flat_map(|strength| (0..12).map(move |target| (strength, target)))
        .flat_map(|(strength, target)| rounds.clone().map(move |round| Task { strength, target, round }))
        .collect();
    let done = AtomicUsize::new(0);
    let heard: Vec<HeardPiece> = tasks
        .par_iter()
        .map(|&task| -> Result<HeardPiece, DominanceError> {
            let number = usize::from(task.target) + 12 * task.round;
            let prompt = prompts[(number + task.round) % prompts.len()].clone();
            let control = ControlFrame {
                seed: protocol.seed_base + number as u32,
                lanes: Lanes {
                    note: PitchClass::new(task.target),
                    note_strength: protocol.strengths[task.strength],
                    strength: 1.0,
                    ..Lanes::OFF
                },
                ..ControlFrame::new(1, 0).sampled(protocol.sampling)
            };
            let mono = generate(model, prompt, control, onset..frames)?;
            let heard = mono.get(onset as usize * format.frame_samples..).unwrap_or(&[]);
            let mut ear = Chroma::new(f64::from(format.model_rate))?;
            let heard = listen(&mut ear, task, heard, format.frame_samples);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, tasks.len());
            Ok(heard)
        })
        .collect::<Result<_, _>>()?;
    Ok((0..protocol.strengths.len())
        .map(|i| point(protocol.strengths[i], heard.iter().filter(|h| h.task.strength == i)))
        .collect())
}

fn listen(ear: &mut Chroma, task: Task, mono: &[f32], hop: usize) -> HeardPiece {
    let chroma = ear.frames(mono, hop);
    let targets = vec![Some(usize::from(task.target)); chroma.len()];
    let mut counts = [0; 12];
    chroma.iter().filter_map(strongest).for_each(|pitch_class| counts[pitch_class] += 1);
    HeardPiece {
        task,
        on_target: share_on_target(&chroma, &targets).unwrap_or(0.0),
        counts,
        silent: chroma.len() as u32 - counts.iter().sum::<u32>(),
        frames: chroma.len() as u32,
        power: mono.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / mono.len().max(1) as f64,
    }
}

fn point<'a>(strength: f32, pieces: impl Iterator<Item = &'a HeardPiece>) -> Point {
    let (mut by_target, mut rounds, mut counts) = ([0.0f32; 12], [0u32; 12], [0u32; 12]);
    let (mut silent, mut frames, mut power, mut number) = (0, 0, 0.0, 0);
    for piece in pieces {
        by_target[usize::from(piece.task.target)] += piece.on_target;
        rounds[usize::from(piece.task.target)] += 1;
        counts.iter_mut().zip(piece.counts).for_each(|(sum, count)| *sum += count);
        silent += piece.silent;
        frames += piece.frames;
        power += piece.power;
        number += 1;
    }
    by_target.iter_mut().zip(rounds).for_each(|(sum, rounds)| *sum /= rounds.max(1) as f32);
    let sounding = counts.iter().sum::<u32>().max(1);
    Point {
        strength,
        dominance: by_target.iter().sum::<f32>() / 12.0,
        by_target,
        silence_share: silent as f32 / frames.max(1) as f32,
        max_pitch_share: counts.iter().copied().max().unwrap_or(0) as f32 / sounding as f32,
        rms: (power / f64::from(number.max(1))).sqrt() as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_average_over_targets_and_count_silence() {
        let piece = |target, on_target, silent| HeardPiece {
            task: Task { strength: 0, target, round: 0 },
            on_target,
            counts: std::array::from_fn(|pc| if pc == usize::from(target) { 10 - silent } else { 0 }),
            silent,
            frames: 10,
            power: 0.04,
        };
        let pieces: Vec<HeardPiece> =
            (0..12).map(|target| piece(target, if target < 6 { 1.0 } else { 0.0 }, 5)).collect();
        let point = point(0.5, pieces.iter());
        assert_eq!((point.dominance, point.silence_share, point.rms), (0.5, 0.5, 0.2));
        assert!((point.max_pitch_share - 1.0 / 12.0).abs() < 1e-6);
    }
}
