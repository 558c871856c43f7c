//! How soon a move is heard: from one note to another, hard or by a slow crossfade, timed from the frame that the move was
//! drawn at, so that latency does not count. Worker threads.

use super::EvaluationError;
use super::chroma::Chroma;
use super::curves::{Chart, Curve, Table};
use super::generation::{frames_of, play};
use super::session::Session;
use super::sound::percentile;
use crate::control::{ControlFrame, Lanes, PitchClass};
use crate::decoder::sampling::Sampling;
use crate::steering::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Intervals that notes are handed over by: all but the unison.
const INTERVALS: usize = 11;
/// Window over which the target's share is taken, in seconds.
const WINDOW: f64 = 0.2;
/// What comes before the move, in seconds: the first note settles, then its share is taken over the last two.
const BEFORE: f64 = 4.0;
const BASE: f64 = 2.0;
/// What comes after it, in seconds: the plateau is the mean from two seconds on.
const AFTER: f64 = 5.0;
const PLATEAU_FROM: f64 = 2.0;
/// A run whose target's share does not rise by this was on target already, or never got there; both are counted.
const LEAST_RISE: f32 = 0.1;
/// Length of the paper's crossfade, 1,500 frames of 20 ms, and what is heard after it.
const CROSSFADE: f64 = 30.0;

/// What was heard of one hand-over: amplitude shares of the two notes, frame by frame, in thousandths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandOver {
    /// Of the note that goes.
    pub going: Vec<u16>,
    /// Of the note that comes.
    pub coming: Vec<u16>,
}

/// Times of many hand-overs, in seconds after the move.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// Half of the way to the plateau: median, and 95th percentile.
    pub half_effect_median: f32,
    /// 95th percentile.
    pub half_effect_p95: f32,
    /// The coming note's share exceeds the going one's: median.
    pub crossing_median: f32,
    /// 95th percentile.
    pub crossing_p95: f32,
    /// Runs.
    pub runs: usize,
    /// Runs left out because the target's share rose by less than a tenth.
    pub left_out: usize,
    /// Runs in which the shares never crossed.
    pub never_crossed: usize,
}

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct ResponseReport {
    /// Median time to half of the effect.
    pub half_effect_median: f32,
    /// Its 95th percentile.
    pub half_effect_p95: f32,
    /// Median time until the new note is louder than the old one.
    pub handover: f32,
    /// Hard hand-overs.
    pub hard: Times,
    /// The paper's logistic crossfade over 30 s: how long after its middle the notes cross.
    pub crossfade_lag: f32,
    /// Crossfades.
    pub crossfades: usize,
    /// Mean amplitude shares around the hard move: seconds after it, the note that goes, the note that comes.
    #[serde(skip)]
    pub around: Vec<[f32; 3]>,
}

impl ResponseReport {
    /// The shares around the move.
    pub fn table(&self) -> Table {
        let row = |at: &[f32; 3]| at.map(|x| x.to_string()).to_vec();
        Table { header: vec!["seconds", "going", "coming"], rows: self.around.iter().map(row).collect() }
    }

    /// The shares around the move.
    pub fn charts(&self) -> Vec<Chart> {
        let curve = |name: &str, of: usize| Curve::new(name, self.around.iter().map(move |at| (at[0], at[of])));
        let curves = vec![curve("note that goes", 1), curve("note that comes", 2)];
        let (across, up) = ("seconds after the move".to_owned(), "share of the amplitude".to_owned());
        vec![Chart { across, up, curves }]
    }
}

/// Mean shares from two seconds before the move to three after it.
fn around(runs: &[HandOver], frame_seconds: f64) -> Vec<[f32; 3]> {
    let (first, last) = ((BEFORE - BASE) / frame_seconds, (BEFORE + 3.0) / frame_seconds);
    let mean = |of: &dyn Fn(&HandOver) -> Option<u16>| {
        let values: Vec<f32> = runs.iter().filter_map(of).map(|v| f32::from(v) / 1_000.0).collect();
        values.iter().sum::<f32>() / values.len().max(1) as f32
    };
    let at = |frame: usize| {
        let seconds = (frame as f64 * frame_seconds - BEFORE) as f32;
        [seconds, mean(&|run| run.going.get(frame).copied()), mean(&|run| run.coming.get(frame).copied())]
    };
    (first as usize..last as usize).map(at).collect()
}

/// First time after the move at which the mean of `values` over [`WINDOW`] reaches `level`.
fn reached(values: &[f32], frame_seconds: f64, level: f32) -> Option<f32> {
    let window = (WINDOW / frame_seconds).round() as usize;
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    let first = values.windows(window.max(1)).position(|part| mean(part) >= level)?;
    Some((first as f64 * frame_seconds) as f32)
}

impl HandOver {
    fn shares(values: &[u16]) -> Vec<f32> {
        values.iter().map(|v| f32::from(*v) / 1_000.0).collect()
    }

    /// Time to half of the effect, `None` when there was too little of one.
    fn half_effect(&self, frame_seconds: f64) -> Option<f32> {
        let coming = Self::shares(&self.coming);
        let at = |seconds: f64| (seconds / frame_seconds).round() as usize;
        let mean = |part: Option<&[f32]>| {
            let part = part.unwrap_or(&[]);
            part.iter().sum::<f32>() / part.len().max(1) as f32
        };
        let base = mean(coming.get(at(BEFORE - BASE)..at(BEFORE)));
        let plateau = mean(coming.get(at(BEFORE + PLATEAU_FROM)..));
        let after = coming.get(at(BEFORE)..)?;
        (plateau - base >= LEAST_RISE).then(|| reached(after, frame_seconds, 0.5 * (base + plateau))).flatten()
    }

    /// Time after `from` seconds until the coming note's share exceeds the going one's.
    fn crossing(&self, frame_seconds: f64, from: f64) -> Option<f32> {
        let from = (from / frame_seconds).round() as usize;
        let both = Self::shares(&self.coming).into_iter().zip(Self::shares(&self.going));
        let differences: Vec<f32> = both.map(|(coming, going)| coming - going).skip(from).collect();
        reached(&differences, frame_seconds, 0.0)
    }
}

fn times(runs: &[HandOver], frame_seconds: f64) -> Times {
    let half: Vec<f32> = runs.iter().filter_map(|run| run.half_effect(frame_seconds)).collect();
    let crossed: Vec<f32> = runs.iter().filter_map(|run| run.crossing(frame_seconds, BEFORE)).collect();
    let at = |values: &[f32], p: f64| percentile(values, p).unwrap_or(f32::INFINITY);
    Times {
        half_effect_median: at(&half, 0.5),
        half_effect_p95: at(&half, 0.95),
        crossing_median: at(&crossed, 0.5),
        crossing_p95: at(&crossed, 0.95),
        runs: runs.len(),
        left_out: runs.len() - half.len(),
        never_crossed: runs.len() - crossed.len(),
    }
}

/// Times hand-overs at full strength: `rounds` for each of the eleven intervals, prompts and first notes in turn.
///
/// # Errors
/// Those of the session.
pub fn response_part(
    session: &Session,
    shape: Lanes,
    sampling: Sampling,
    rounds: usize,
) -> Result<ResponseReport, EvaluationError> {
    let hard = hand_overs(session, shape, sampling, rounds * INTERVALS, BEFORE, AFTER)?;
    let slow = Lanes { attack: CROSSFADE as f32, release: CROSSFADE as f32, schedule: Schedule::Logistic, ..shape };
    let crossfades = hand_overs(session, slow, sampling, session.scaled(20), 0.0, CROSSFADE + 5.0)?;
    let format = session.model().format();
    let frame_seconds = format.frame_samples as f64 / f64::from(format.model_rate);
    let around = around(&hard, frame_seconds);
    let hard = times(&hard, frame_seconds);
    // A crossfade begins with the going note at full strength, so its crossing is sought from a second in.
    let lags: Vec<f32> = crossfades
        .iter()
        .filter_map(|run| Some(run.crossing(frame_seconds, 1.0)? + 1.0 - 0.5 * CROSSFADE as f32))
        .collect();
    Ok(ResponseReport {
        half_effect_median: hard.half_effect_median,
        half_effect_p95: hard.half_effect_p95,
        handover: hard.crossing_median,
        hard,
        crossfade_lag: percentile(&lags, 0.5).unwrap_or(f32::INFINITY),
        crossfades: lags.len(),
        around,
    })
}

fn hand_overs(
    session: &Session,
    shape: Lanes,
    sampling: Sampling,
    count: usize,
    before: f64,
    after: f64,
) -> Result<Vec<HandOver>, EvaluationError> {
    let (model, split) = (session.model(), session.split());
    let directions = model.steering().fingerprint();
    let key = format!("{directions} {shape:?} {sampling:?} {before} {after} {}", split.seed_base);
    // The first note has been steered to for a while before the piece's clock starts in a crossfade.
    let lead = if before > 0.0 { 0.0 } else { BEFORE };
    let (moved, frames) = (frames_of(model, lead + before), frames_of(model, lead + before + after));
    let skipped = frames_of(model, lead) as usize;
    let progress = |done, all| session.hear_progress("hand-overs", done, all);
    session.cache().items("response", &[&model.fingerprint(), &key], count, &progress, |i| {
        let prompt = &split.prompts[i * 7 % split.prompts.len()];
        let (from, interval) = (i * 5 % 12, 1 + i % INTERVALS);
        let to = (from + interval) % 12;
        let seed = split.seed_base + i as u32;
        let note =
            |class: usize| Lanes { note: PitchClass::new(class as u8), note_strength: 1.0, strength: 1.0, ..shape };
        let control = |index: u32| {
            let mut lanes = note(if index < moved { from } else { to });
            if index < moved {
                // The first note is there at once, however slowly the second comes.
                lanes.attack = 0.0;
            }
            ControlFrame { seed, index, lanes, ..ControlFrame::new(1, index).sampled(sampling) }
        };
        let mono = play(model, Arc::new(model.prompt(&prompt.text)?), frames, control)?;
        let format = model.format();
        let heard = Chroma::new(f64::from(format.model_rate))?.frames(&mono, format.frame_samples);
        let share = |class: usize| {
            let of = |frame: &[f32; 12]| {
                let sum: f32 = frame.iter().map(|energy| energy.sqrt()).sum();
                if sum > 0.0 { (1_000.0 * frame[class].sqrt() / sum).round() as u16 } else { 0 }
            };
            heard.iter().skip(skipped).map(of).collect()
        };
        Ok(HandOver { going: share(from), coming: share(to) })
    })
}

impl ResponseReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        vec![format!(
            "response, {} hard hand-overs ({} left out, {} never crossed): half of the effect after {:.2} s (95 %: {:.2} s), crossing after {:.2} s (95 %: {:.2} s); {} logistic crossfades of 30 s cross {:+.2} s from their middle",
            self.hard.runs,
            self.hard.left_out,
            self.hard.never_crossed,
            self.hard.half_effect_median,
            self.hard.half_effect_p95,
            self.hard.crossing_median,
            self.hard.crossing_p95,
            self.crossfades,
            self.crossfade_lag
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: f64 = 0.02;

    /// A hand-over that ramps from `at` to `at + length` seconds after the move.
    fn run(at: f64, length: f64) -> HandOver {
        let frames = ((BEFORE + AFTER) / FRAME).round() as usize;
        let way = |i: usize| (((i as f64 * FRAME - BEFORE - at) / length).clamp(0.0, 1.0) * 600.0) as u16;
        HandOver {
            coming: (0..frames).map(|i| 100 + way(i)).collect(),
            going: (0..frames).map(|i| 700 - way(i)).collect(),
        }
    }

    #[test]
    fn the_middle_of_a_ramp_is_half_of_the_effect() {
        // The window that holds the ramp's middle in its own: centred 0.1 s after its first frame.
        for (at, length) in [(0.3, 0.4), (0.0, 1.0), (1.0, 0.5)] {
            let found = run(at, length).half_effect(FRAME).expect("an effect");
            let wanted = (at + 0.5 * length - 0.5 * WINDOW) as f32;
            assert!((found - wanted).abs() <= 0.03, "{found} for {wanted}");
            let crossing = run(at, length).crossing(FRAME, BEFORE).expect("crosses");
            assert!((crossing - wanted).abs() <= 0.03, "{crossing} for {wanted}");
        }
    }

    #[test]
    fn what_was_there_already_is_left_out_and_counted() {
        let flat = HandOver { coming: vec![500; 450], going: vec![600; 450] };
        assert_eq!((flat.half_effect(FRAME), flat.crossing(FRAME, BEFORE)), (None, None));
        let found = times(&[flat, run(0.3, 0.4), run(0.3, 0.4)], FRAME);
        assert_eq!((found.runs, found.left_out, found.never_crossed), (3, 1, 1));
        assert!((found.half_effect_median - 0.4).abs() <= 0.03);
    }
}
