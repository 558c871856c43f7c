//! Ways to find directions, side by side: each learned from the same states, its full dose found by the same rule, judged
//! by the same ears on the same prompts and seeds. Worker threads.

use super::EvaluationError;
use super::curves::Table;
use super::report::percent;
use super::session::Session;
use super::steered::Aim;
use super::steering_report::{Options, steering_part};
use crate::dataset::concepts::{Clips, Concept};
use crate::dataset::render::Tones;
use crate::learn::axes::Method;
use crate::learn::calibration::calibrate;
use crate::learn::chords::ChordParts;
use crate::learn::family::{self, Request};
use crate::learn::listener::{Layout, Listener};
use crate::learn::states::StateFolder;
use crate::learn::watch::{Stage, Watch};
use crate::steering::directions::Directions;
use crate::steering::push::Manner;
use serde::Serialize;

/// Dose that learning starts from, before it is found by playing.
const UNCALIBRATED: f32 = 1.0;

/// One way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// How directions are found.
    pub method: Method,
    /// What a chord's direction is made of.
    pub chords: ChordParts,
    /// What the clips are.
    pub clips: Clips,
    /// How clips are laid out for the decoder.
    pub layout: Layout,
    /// Chance that a block is steered in a step.
    pub gate: f32,
    /// Steer the conditional guidance row only.
    pub conditional_only: bool,
    /// How a dose acts.
    pub manner: Manner,
    /// Share of what pieces differ in that directions are cleared of.
    pub aside: f64,
}

impl Way {
    /// What Tiller does.
    pub const DEFAULT: Self = Self {
        method: Method::Rfm,
        chords: ChordParts::Whole,
        clips: Clips::Music,
        layout: Layout::Delayed,
        gate: 1.0,
        conditional_only: false,
        manner: Manner::Add,
        aside: 0.0,
    };

    /// The methods, on notes.
    pub fn methods() -> Vec<(String, Self)> {
        Method::ALL.map(|method| (method.name().to_owned(), Self { method, ..Self::DEFAULT })).to_vec()
    }

    /// What a chord's direction can be made of.
    pub fn chords() -> Vec<(String, Self)> {
        ChordParts::ALL.map(|chords| (chords.name().to_owned(), Self { chords, ..Self::DEFAULT })).to_vec()
    }

    /// Each of the paper's ways that Tiller departs from, one at a time, on notes.
    pub fn departures() -> Vec<(String, Self)> {
        [
            ("tiller", Self::DEFAULT),
            ("four strikes", Self { clips: Clips::Strikes, ..Self::DEFAULT }),
            ("undelayed layout", Self { layout: Layout::Undelayed, ..Self::DEFAULT }),
            ("held", Self { manner: Manner::Hold, ..Self::DEFAULT }),
            ("coin of 0.3", Self { gate: 0.3, ..Self::DEFAULT }),
            ("conditional row only", Self { conditional_only: true, ..Self::DEFAULT }),
        ]
        .map(|(name, way)| (name.to_owned(), way))
        .to_vec()
    }
}

/// What came of one way, at full strength.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What strength 1 does, found by playing.
    pub full_dose: f32,
    /// Share of held-out clips that the best block's detectors name right.
    pub probe_accuracy: Option<f32>,
    /// Share on target.
    pub dominance: f32,
    /// Its 90 % interval, clustered by prompt.
    pub interval: [f32; 2],
    /// Share of the pieces whose prompt is heard.
    pub adherence: f32,
    /// The same unsteered.
    pub adherence_unsteered: f32,
    /// Frechet distance to unsteered pieces, over that between two unsteered sets.
    pub drift_ratio: f64,
    /// The same in timbre and rhythm alone.
    pub sound_drift_ratio: f64,
    /// Onset rate over that of the unsteered pieces.
    pub onset_ratio: f32,
    /// Entropy of the pitch classes over that of the unsteered pieces.
    pub entropy_ratio: f32,
}

/// The table.
#[derive(Clone, Debug, Serialize)]
pub struct Alternatives {
    /// The lane that was steered.
    pub lane: &'static str,
    /// One row for each way.
    pub rows: Vec<Row>,
}

/// Learns and judges each way.
///
/// # Errors
/// When something cannot be learned, or those of the session.
pub fn alternatives_part(
    session: &Session,
    aim: Aim,
    ways: &[(String, Way)],
    options: &Options,
) -> Result<Alternatives, EvaluationError> {
    let concept = if aim == Aim::Chord { Concept::Chords } else { Concept::Notes };
    let options = Options { strengths: vec![1.0], ..options.clone() };
    let mut rows = Vec::new();
    for (name, way) in ways {
        let directions = directions(session, aim, concept, name, way)?;
        let (full_dose, probe_accuracy) = (directions.full_dose, best_accuracy(&directions));
        let steered = session.steered_by(&[directions])?;
        let report = steering_part(&steered, aim, &options)?;
        let Some(point) = report.by_strength.last() else { continue };
        rows.push(Row {
            name: name.clone(),
            full_dose,
            probe_accuracy,
            dominance: report.dominance,
            interval: point.on_target.interval,
            adherence: report.adherence,
            adherence_unsteered: report.adherence_unsteered,
            drift_ratio: point.drift_ratio,
            sound_drift_ratio: point.sound_drift_ratio,
            onset_ratio: point.onset_ratio,
            entropy_ratio: point.entropy_ratio,
        });
    }
    Ok(Alternatives { lane: aim.name(), rows })
}

/// Directions learned and calibrated in one way, kept between runs.
fn directions(
    session: &Session,
    aim: Aim,
    concept: Concept,
    name: &str,
    way: &Way,
) -> Result<Directions, EvaluationError> {
    let key = [session.model().hash(), concept.name(), &format!("{way:?}")];
    let (path, kept) = session.cache().file("directions", &key, "safetensors")?;
    if let Some(directions) = kept.then(|| Directions::read(&path).ok()).flatten() {
        return Ok(directions);
    }
    let progress = |what: &str, done, all| session.hear_progress(&format!("{name}: {what}"), done, all);
    let percent = |share: f32| progress("loading (%)", (share * 100.0) as usize, 100);
    let listener = Listener::load(session.checkpoint(), &percent)?.with_layout(way.layout);
    let states = StateFolder::standard();
    let request = Request {
        concept,
        only: None,
        tones: &Tones::SoundFont(session.request().soundfont.to_owned()),
        clips: way.clips,
        instruments: usize::MAX,
        method: way.method,
        chords: way.chords,
        aside: way.aside,
        full_dose: UNCALIBRATED,
        states: &states,
    };
    let hear = |stage: Stage, done, all| match stage {
        Stage::Listening => progress("listening", done, all),
        Stage::Fitting => progress("fitting", done, all),
        Stage::Playing => progress("full dose", done, all),
    };
    let learned = family::learn(&listener, &request, Watch::hearing(&hear))?;
    let mut directions =
        Directions { gate: way.gate, conditional_only: way.conditional_only, manner: way.manner, ..learned.directions };
    calibrate(&session.request().source, aim, &mut directions, Watch::hearing(&hear))?;
    directions.write(&path).map_err(crate::learn::LearnError::from)?;
    Ok(directions)
}

/// The best block's accuracy on held-out clips, from the provenance, which travels with the file.
fn best_accuracy(directions: &Directions) -> Option<f32> {
    let provenance: serde_json::Value = serde_json::from_str(&directions.provenance).ok()?;
    let blocks = provenance["test"]["accuracy_by_block"].as_array()?;
    blocks.iter().filter_map(serde_json::Value::as_f64).map(|share| share as f32).reduce(f32::max)
}

impl Alternatives {
    /// One row for each way.
    pub fn table(&self) -> Table {
        let header = vec![
            "way",
            "full_dose",
            "on_target",
            "interval_low",
            "interval_high",
            "adherence",
            "adherence_unsteered",
            "drift_ratio",
            "sound_drift_ratio",
            "onset_ratio",
            "entropy_ratio",
            "probe_accuracy",
        ];
        let row = |row: &Row| {
            let numbers = [
                row.full_dose,
                row.dominance,
                row.interval[0],
                row.interval[1],
                row.adherence,
                row.adherence_unsteered,
                row.drift_ratio as f32,
                row.sound_drift_ratio as f32,
                row.onset_ratio,
                row.entropy_ratio,
                row.probe_accuracy.unwrap_or(f32::NAN),
            ];
            std::iter::once(row.name.clone()).chain(numbers.map(|x| x.to_string())).collect()
        };
        Table { header, rows: self.rows.iter().map(row).collect() }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}, ways to find directions, each at its own full dose:", self.lane)];
        lines.extend(self.rows.iter().map(|row| {
            format!(
                "  {:20} dose {:.3}, on target {} ({} to {}), prompt {} (unsteered {}), drift x{:.1}, of timbre and rhythm x{:.1}, onsets x{:.2}, entropy x{:.2}, held-out clips named right {}",
                row.name,
                row.full_dose,
                percent(row.dominance),
                percent(row.interval[0]),
                percent(row.interval[1]),
                percent(row.adherence),
                percent(row.adherence_unsteered),
                row.drift_ratio,
                row.sound_drift_ratio,
                row.onset_ratio,
                row.entropy_ratio,
                row.probe_accuracy.map_or("-".to_owned(), percent),
            )
        }));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_differ_in_one_thing_each() {
        let told = |ways: Vec<(String, Way)>| {
            let mut told: Vec<String> = ways.iter().map(|(_, way)| format!("{way:?}")).collect();
            told.sort();
            told.dedup();
            told.len()
        };
        assert_eq!([told(Way::methods()), told(Way::chords()), told(Way::departures())], [5, 4, 6]);
    }

    #[test]
    fn accuracy_travels_with_the_file() {
        let mut directions = crate::steering::directions::tests::example();
        directions.provenance = r#"{"test":{"accuracy_by_block":[0.25,0.75,0.5]}}"#.to_owned();
        assert_eq!(best_accuracy(&directions), Some(0.75));
        directions.provenance = "{}".to_owned();
        assert_eq!(best_accuracy(&directions), None);
    }
}
