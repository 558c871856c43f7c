//! The paper's own judge beside the outside ear: steered audio goes through the codec and the model again, and the
//! detectors that were learned with the directions name it (`method.md` 5). It looks at the states that were steered, so it
//! is a trend and no proof. Worker threads.

use super::EvaluationError;
use super::generation::{frames_of, generate};
use super::report::percent;
use super::session::Session;
use super::steered::{Aim, Protocol, Strength, jobs};
use crate::learn::listener::Listener;
use crate::learn::watch::Watch;
use crate::steering::doses::Lane;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::Arc;

/// One strength.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbePoint {
    /// Strength of the lane; 0 is unsteered.
    pub strength: f32,
    /// Share of the pieces that the probe gives their target.
    pub accuracy: f32,
    /// Pieces.
    pub pieces: usize,
}

/// What the probe said at each strength.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// The lane that was steered.
    pub lane: &'static str,
    /// Share that guessing would get right.
    pub chance: f32,
    /// Every strength, unsteered first.
    pub by_strength: Vec<ProbePoint>,
}

/// The class of a lane that a target of an aim is.
fn class_of(aim: Aim, target: usize) -> usize {
    Aim::chord(target).filter(|_| aim == Aim::Chord).map_or(target, |chord| chord.class())
}

/// Judges notes or chords at each strength.
///
/// # Errors
/// Those of the session; when the checkpoint cannot listen.
pub fn probe_part(session: &Session, protocol: &Protocol, strengths: &[f32]) -> Result<ProbeReport, EvaluationError> {
    let aim = protocol.aim;
    let lane = if aim == Aim::Chord { Lane::Chord } else { Lane::Note };
    let classes: Vec<usize> = (0..aim.targets()).map(|target| class_of(aim, target)).collect();
    let mut by_strength = Vec::new();
    let listener = Listener::load(session.checkpoint(), &|_| ())?;
    let steering = session.model().steering();
    let name = |state: &[f32]| {
        let sure = |class: &usize| {
            let probe = steering.probe(lane, *class as u8)?;
            let hidden = probe.direction.len();
            let at = state.get(probe.block * hidden..(probe.block + 1) * hidden)?;
            Some(probe.detector.value(probe.project(at)))
        };
        let all = classes.iter().enumerate().filter_map(|(target, class)| Some((target, sure(class)?)));
        all.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(target, _)| target)
    };
    for strength in std::iter::once(0.0).chain(strengths.iter().copied()) {
        let heard = hear(session, protocol, Strength::of(strength), &listener)?;
        let jobs = jobs(session, protocol);
        let right = jobs
            .iter()
            .zip(&heard)
            .filter(|(job, heard)| heard.as_ref().and_then(|state| name(state)) == Some(job.target));
        by_strength.push(ProbePoint {
            strength,
            accuracy: right.count() as f32 / jobs.len().max(1) as f32,
            pieces: jobs.len(),
        });
    }
    Ok(ProbeReport { lane: aim.name(), chance: 1.0 / aim.targets() as f32, by_strength })
}

/// Mean states `[block][hidden]` of what is judged of each piece; `None` for one that is too short.
fn hear(
    session: &Session,
    protocol: &Protocol,
    strength: Strength,
    listener: &Listener,
) -> Result<Vec<Option<Vec<f32>>>, EvaluationError> {
    let (model, span) = (session.model(), protocol.span);
    let jobs = jobs(session, protocol);
    let stage = format!("probe of {} at {}", protocol.aim.name(), strength.lane);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let steered = frames_of(model, span.onset)..frames_of(model, span.seconds);
    let skipped = frames_of(model, span.heard_from) as usize * model.format().frame_samples;
    let samples = (span.seconds * f64::from(model.format().model_rate)) as usize;
    jobs.par_iter()
        .map(|job| {
            let prompt = Arc::new(model.prompt(&session.split().prompts[job.prompt].text)?);
            let audio = generate(model, prompt, protocol.control(*job, strength), steered.clone())?;
            let heard = audio.get(skipped..).unwrap_or(&[]);
            let state = listener.listen(&mut listener.ear(samples), heard, Watch::IDLE).map(|heard| heard.mean);
            let made = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            session.hear_progress(&stage, made, jobs.len());
            match state {
                Ok(state) => Ok(Some(state)),
                Err(crate::learn::LearnError::TooLittle(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .collect()
}

impl ProbeReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let each: Vec<String> =
            self.by_strength.iter().map(|p| format!("{} at {}", percent(p.accuracy), p.strength)).collect();
        vec![format!(
            "{}, named by the model's own probe (chance {}): {}",
            self.lane,
            percent(self.chance),
            each.join(", ")
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Chord, PitchClass, Quality};

    #[test]
    fn targets_are_the_classes_of_their_lane() {
        assert_eq!(class_of(Aim::Note, 7), 7);
        let a_minor = Chord { root: PitchClass::new(9).expect("A"), quality: Quality::Minor };
        assert_eq!((class_of(Aim::Chord, 19), a_minor.class()), (37, 37));
    }
}
