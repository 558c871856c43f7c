//! Lessons for learning by likelihood: the clips of a concept, gathered by the piece that they are versions of, as codes.
//! Worker threads, all cores.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::LearnError;
use super::axes::{Axes, Targets, judge};
use super::likelihood::{Course, FRAMES, Lesson};
use super::listener::Listener;
use super::split::{Part, Split};
use super::states::States;
use super::watch::{Stage, Watch};
use crate::checkpoint::Checkpoint;
use crate::dataset::concepts::ConceptClip;
use crate::dataset::render::Renderer;
use crate::decoder::gradient::Differentiable;
use crate::text::TextEncoder;

/// Learns the vectors of a concept by likelihood, from clips of instruments that are not for test, and judges them on those. Each
/// class is the sum of the vectors that `parts` lists for it.
/// What is heard of are clips first, then steps.
///
/// # Errors
/// [`LearnError::TooLittle`] where no clip is a version of a piece; what the clips or the checkpoint refuse.
pub fn by_likelihood(
    listener: &Listener,
    renderer: &Renderer,
    clips: &[ConceptClip],
    (states, split): (&States, &Split),
    targets: Targets,
    parts: &[Vec<usize>],
    watch: Watch,
) -> Result<Axes, LearnError> {
    let checkpoint = Checkpoint::load(listener.source(), &|_| ())?;
    let (weights, config) = (&checkpoint.weights, &checkpoint.config);
    let text = TextEncoder::load(weights, &config.text, &checkpoint.tokenizer, "tokenizer.json")?;
    let decoder = Differentiable::new(listener.decoder(), weights, config)?;
    let mut own: Vec<usize> =
        [Part::Train, Part::Validation].into_iter().flat_map(|part| split.part(part)).map(|(clip, _)| clip).collect();
    own.sort_unstable();
    let own: Vec<&ConceptClip> = own.into_iter().map(|clip| &clips[clip]).collect();
    let pieces = own.chunk_by(|a, b| a.piece() == b.piece());
    let mut pieces: Vec<&[&ConceptClip]> = pieces.collect();
    // A piece of which a version was silent lacks a class that a lesson may ask for.
    let whole = pieces.iter().map(|versions| versions.len()).max().unwrap_or(0);
    pieces.retain(|versions| versions.len() == whole && whole > 1 && versions[0].piece().is_some());
    let done = AtomicUsize::new(0);
    let middle = middle_and_reach(&own);
    let lesson = |versions: &&[&ConceptClip]| -> Result<Option<Lesson>, LearnError> {
        watch.check()?;
        let Some((prompt, composed)) = versions[0].as_composed(renderer)? else { return Ok(None) };
        let mut codes = Vec::new();
        for clip in *versions {
            watch.check()?;
            let Some(audio) = clip.render(renderer)? else { return Ok(None) };
            let amount = match targets {
                Targets::Classes(_) => 1.0,
                Targets::Level => ((clip.level.ln() - middle.0) / middle.1) as f32,
            };
            codes.push((clip.class, amount, listener.codes(&audio)?));
        }
        watch.hear(Stage::Listening, done.fetch_add(1, Ordering::Relaxed) + 1, pieces.len());
        let composed = listener.codes(&composed)?;
        let long = composed.len() >= FRAMES && codes.iter().all(|(.., codes)| codes.len() >= FRAMES);
        let words = decoder.words(&text.encode(&prompt)?.states);
        Ok(long.then_some(Lesson { words, composed, versions: codes }))
    };
    let lessons = pieces.par_iter().map(lesson).collect::<Result<Vec<_>, LearnError>>()?;
    let lessons: Vec<Lesson> = lessons.into_iter().flatten().collect();
    if lessons.is_empty() {
        return Err(LearnError::TooLittle(
            "nothing to learn by likelihood from: it needs clips of music (--clips music), of notes, chords or tempo"
                .to_owned(),
        ));
    }
    let norms = states.block_norms();
    let course = Course::new(&decoder, listener.pattern(), &lessons, targets, parts);
    let vectors = course.learn(&norms, watch)?;
    let hidden = states.hidden;
    // In shares of a block's norm, of which the mean over classes and blocks is one dose.
    let share = |class: usize, block: usize| {
        let part = &vectors[class][block * hidden..][..hidden];
        part.iter().map(|x| x * x).sum::<f32>().sqrt() / norms[block]
    };
    let count = (targets.count() * norms.len()) as f32;
    let mean = (0..targets.count()).flat_map(|class| (0..norms.len()).map(move |block| (class, block)));
    let dose = mean.map(|(class, block)| share(class, block)).sum::<f32>() / count;
    let given = |class: usize, block: usize| -> Vec<f32> {
        let part = &vectors[class][block * hidden..][..hidden];
        part.iter().map(|x| x / (norms[block] * dose)).collect()
    };
    judge(states, split, targets, &given, watch.heard_by(&|_, _, _| ()))
}

/// Middle of the clips' levels and how far they reach from there, as logarithms: tempi are heard as ratios.
fn middle_and_reach(clips: &[&ConceptClip]) -> (f64, f64) {
    let levels = clips.iter().map(|clip| clip.level.ln()).filter(|level| level.is_finite());
    let (low, high) = levels.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    match high > low {
        true => ((low + high) / 2.0, (high - low) / 2.0),
        false => (0.0, 1.0),
    }
}
