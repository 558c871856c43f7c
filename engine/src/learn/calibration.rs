//! What strength 1 means for a checkpoint: the smallest dose that all but reaches the best that steering does while it is
//! still music, heard by the outside ear in generated pieces. More would cost sound and gain nothing. Worker threads.

use super::watch::{Stage, Watch};
use crate::control::{ControlFrame, Lanes};
use crate::decoder::sampling::Sampling;
use crate::evaluation::EvaluationError;
use crate::evaluation::steered::{Aim, Job, Span, SteeredPiece, hear_piece};
use crate::evaluation::steering_figures::{Liveliness, OnTarget};
use crate::handle::ModelSource;
use crate::model::Model;
use crate::steering::directions::Directions;
use crate::steering::doses::Lane;
use crate::steering::push::Manner;
use crate::text::Prompt;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Doses that are tried: added ones as fractions of each block's mean norm, held ones in steps from where the class is not
/// there to where it is.
const fn doses(manner: Manner) -> [f32; 8] {
    match manner {
        Manner::Add => [0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6],
        Manner::Hold => [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0],
    }
}

/// Share of the best effect that the full dose has to reach.
const ENOUGH: f32 = 0.95;

/// What a dose must leave of the music: onsets and pitch-class entropy against the unsteered pieces, silence beyond theirs.
const LEAST_ONSETS: f32 = 0.7;
const LEAST_ENTROPY: f32 = 0.6;
const MOST_SILENCE: f32 = 0.02;

/// Pieces for each dose (and each sign, for a lane that has two).
const PIECES: usize = 24;

/// Switched on in mid-piece: a dose must also turn music that is under way, and soon.
const SPAN: Span = Span { seconds: 6.0, onset: 2.0, heard_from: 2.0 };

/// Prompts that calibration plays under: evaluation uses others.
const PROMPTS: [&str; 6] = [
    "medium piano melody",
    "slow string ensemble pad, calm",
    "fast harp arpeggio",
    "medium organ chords, happy",
    "slow flute tune over warm synth pad",
    "fast vibraphone and double bass, melody and groove",
];

/// First seed of calibration: far from those of evaluation.
const SEED_BASE: u32 = 9_000;

/// What one dose did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// As `full_dose` of the directions would have it.
    pub dose: f32,
    /// Share of frames or stretches on target; logarithm of the ratio of onset rates between the two signs for tempo.
    pub effect: f32,
    /// Whether it is still music.
    pub music: bool,
}

/// Tries the doses on a lane of a checkpoint and sets the one that it found, with the trials in the provenance.
///
/// # Errors
/// [`super::LearnError::Stopped`]; when the model fails or does not play these directions.
pub fn calibrate(
    source: &ModelSource,
    aim: Aim,
    directions: &mut Directions,
    watch: Watch,
) -> Result<f32, EvaluationError> {
    let tried = doses(directions.manner);
    // Strengths go to 1, so that is what the largest dose gets.
    let most = tried.iter().copied().fold(0.0, f32::max);
    let whole = Directions { full_dose: most, ..directions.clone() };
    let model = Model::steered_by(source, Model::suited_precision(source)?, &[whole])?;
    let prompts =
        PROMPTS.iter().map(|text| Ok(Arc::new(model.prompt(text)?))).collect::<Result<Vec<_>, EvaluationError>>()?;
    let signs: &[f32] = if aim == Aim::Tempo { &[1.0, -1.0] } else { &[1.0] };
    let mut strengths = vec![0.0];
    strengths.extend(tried.iter().flat_map(|dose| signs.iter().map(move |sign| sign * dose / most)));
    let targets: Vec<usize> = match (aim, directions.classes_of(Lane::Note)) {
        // Others are not steered to at all.
        (Aim::Note, Some(known)) if known.len() < aim.targets() => known.iter().collect(),
        _ => every_target(aim),
    };
    let done = AtomicUsize::new(0);
    let all = strengths.len() * PIECES;
    let heard: Vec<SteeredPiece> = (0..all)
        .into_par_iter()
        .map(|i| {
            watch.check().map_err(super::LearnError::from)?;
            let job = job(&targets, i % PIECES);
            let piece = play(&model, &prompts, aim, strengths[i / PIECES], job);
            watch.hear(Stage::Playing, done.fetch_add(1, Ordering::Relaxed) + 1, all);
            piece
        })
        .collect::<Result<_, _>>()?;
    let (plain, steered) = heard.split_at(PIECES);
    let before = Liveliness::of(plain);
    let trials: Vec<Trial> = tried
        .iter()
        .zip(steered.chunks_exact(PIECES * signs.len()))
        .map(|(&dose, pieces)| trial(aim, &targets, dose, pieces, &before))
        .collect();
    directions.full_dose = choose(&trials, tried[0]);
    let mut provenance: serde_json::Value = serde_json::from_str(&directions.provenance).unwrap_or_default();
    if !provenance.is_object() {
        provenance = serde_json::json!({});
    }
    provenance["calibration"] = serde_json::json!({
        "rule": format!(
            "smallest dose with {ENOUGH} of the best effect among those that keep {LEAST_ONSETS} of the onsets and \
             {LEAST_ENTROPY} of the pitch-class entropy and add at most {MOST_SILENCE} of silence"
        ),
        "prompts": PROMPTS,
        "seconds": SPAN.seconds,
        "switched_on_at": SPAN.onset,
        "trials": trials,
    });
    directions.provenance = provenance.to_string();
    Ok(directions.full_dose)
}

fn every_target(aim: Aim) -> Vec<usize> {
    (0..aim.targets()).map(|number| aim.target(number, 0)).collect()
}

fn job(targets: &[usize], number: usize) -> Job {
    // Every target comes round, a second time under another prompt.
    let prompt = (number + number / 12) % PROMPTS.len();
    Job { prompt, target: targets[number % targets.len()], seed: SEED_BASE + number as u32 }
}

fn play(
    model: &Arc<Model>,
    prompts: &[Arc<Prompt>],
    aim: Aim,
    strength: f32,
    job: Job,
) -> Result<SteeredPiece, EvaluationError> {
    let lanes = if strength == 0.0 { Lanes::OFF } else { aim.lanes(job.target, strength, 0.0, Lanes::OFF) };
    let control = ControlFrame { seed: job.seed, lanes, ..ControlFrame::new(1, 0).sampled(Sampling::DEFAULT) };
    hear_piece(model, prompts[job.prompt].clone(), control, SPAN)
}

fn trial(aim: Aim, targets: &[usize], dose: f32, pieces: &[SteeredPiece], before: &Liveliness) -> Trial {
    let after = Liveliness::of(pieces);
    let quiet = after.silence_share - before.silence_share <= MOST_SILENCE;
    if aim == Aim::Tempo {
        let (faster, slower) = pieces.split_at(PIECES);
        // An onset in the whole set on either side: without any, the ratio says nothing.
        let rate = |pieces: &[SteeredPiece]| Liveliness::of(pieces).onset_rate.max(1.0 / (PIECES as f32 * 4.0));
        return Trial { dose, effect: (rate(faster) / rate(slower)).ln(), music: quiet };
    }
    let jobs: Vec<Job> = (0..PIECES).map(|number| job(targets, number)).collect();
    let lively = after.onset_rate >= LEAST_ONSETS * before.onset_rate
        && after.pitch_entropy >= LEAST_ENTROPY * before.pitch_entropy;
    Trial { dose, effect: OnTarget::of(aim, &jobs, pieces).dominance, music: quiet && lively }
}

/// The smallest dose whose effect reaches [`ENOUGH`] of the best one among those that leave music; the smallest of all
/// where none does.
fn choose(trials: &[Trial], smallest_tried: f32) -> f32 {
    let musical = || trials.iter().filter(|trial| trial.music);
    let best = musical().map(|trial| trial.effect).fold(0.0, f32::max);
    let enough = musical().filter(|trial| trial.effect >= ENOUGH * best);
    let smallest = enough.map(|trial| trial.dose).fold(f32::INFINITY, f32::min);
    if smallest.is_finite() { smallest } else { smallest_tried }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_dose_is_the_start_of_the_plateau() {
        let trial = |(dose, effect)| Trial { dose, effect, music: true };
        let curve = [(0.1, 0.4), (0.2, 0.78), (0.3, 0.8), (0.45, 0.79)].map(trial);
        assert_eq!(choose(&curve, 0.05), 0.2);
        assert_eq!(choose(&[(0.1, 0.0)].map(trial), 0.05), 0.1);
        assert_eq!(choose(&[], 0.05), 0.05);
    }

    #[test]
    fn a_dose_that_drones_is_not_chosen() {
        let trial = |(dose, effect, music)| Trial { dose, effect, music };
        assert_eq!(choose(&[(0.1, 0.5, true), (0.2, 0.7, true), (0.3, 0.9, false)].map(trial), 0.05), 0.2);
        assert_eq!(choose(&[(0.1, 0.5, false)].map(trial), 0.05), 0.05);
    }

    #[test]
    fn every_target_comes_round() {
        for aim in [Aim::Note, Aim::Chord] {
            let mut counts = vec![0; aim.targets()];
            (0..PIECES).for_each(|number| counts[job(&every_target(aim), number).target] += 1);
            assert!(counts.iter().all(|count| *count == PIECES / aim.targets()), "{counts:?}");
        }
    }
}
