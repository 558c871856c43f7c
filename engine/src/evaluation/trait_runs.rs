//! Traits from end to end, judged from outside: two boxes of rendered recordings each (bright and dark, staccato and sustained), a
//! direction learned from them as a musician would have it learned, and what it does to the sound of steered pieces at rising
//! strengths. Worker threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::EvaluationError;
use super::generation::{frames_of, play_by};
use super::onsets::Onsets;
use super::sound::percentile;
use super::spectrum::Spectra;
use crate::control::{ControlFrame, Lanes, TRAITS};
use crate::dataset::SAMPLE_RATE;
use crate::dataset::music::Music;
use crate::dataset::render::{CLIP_RMS, Renderer, Tones, scale_to};
use crate::decoder::sampling::Sampling;
use crate::handle::ModelSource;
use crate::learn::LearnError;
use crate::learn::axes::Method;
use crate::learn::family::{Learned, TraitRequest, learn_trait};
use crate::learn::listener::Listener;
use crate::learn::states::StateFolder;
use crate::learn::told::Told;
use crate::learn::watch::Watch;
use crate::model::Model;
use crate::sound_file::Sound;
use crate::steering::trait_files::{TraitReference, file_name};

/// Files in each box, and their seconds.
const FILES: usize = 8;
const SECONDS: f64 = 8.0;
/// Seed of the music in them: no training, dev or test seed, nor one of the concepts'.
const SEED: u64 = 700_003;
/// Hertz from which dark music is missing.
const DARK: f64 = 600.0;
/// Share of its own length that a staccato note is held, and the most beats.
const STACCATO: (f64, f64) = (0.25, 0.2);
/// Strengths that are played.
const STRENGTHS: [f32; 5] = [-1.0, -0.5, 0.0, 0.5, 1.0];
/// Length of a piece and from when on it is heard, in seconds; steered from its start.
const LENGTH: f64 = 6.0;
const HEARD_FROM: f64 = 1.0;
/// First seed of the pieces.
const SEED_BASE: u32 = 31_000;
/// What they are: neither bright nor dark, and of instruments that can hold a note or not.
const PROMPTS: [&str; 6] = [
    "medium organ chords",
    "medium flute melody",
    "brass section chords, medium tempo",
    "violin melody, medium",
    "medium saxophone melody",
    "clarinet melody, medium tempo",
];

/// A trait that can be rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// As it was rendered, against the same through a low-pass.
    Bright,
    /// Short notes, against the same notes held until the next.
    Staccato,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bright, Self::Staccato];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bright => "bright",
            Self::Staccato => "staccato",
        }
    }

    /// What is measured of the sound.
    pub const fn measure(self) -> &'static str {
        match self {
            Self::Bright => "spectral centroid, Hz",
            Self::Staccato => "onset sharpness, nats a band in 30 ms",
        }
    }

    /// The measure, from the audio alone; `None` for silence.
    fn measured(self, mono: &[f32], rate: f64) -> Option<f32> {
        match self {
            Self::Bright => centroid(mono, rate),
            Self::Staccato => percentile(&Onsets::of(mono, rate).flux, 0.95),
        }
    }

    /// A piece with the trait or without.
    fn render(self, renderer: &Renderer, music: &Music, with: bool) -> Result<Vec<f32>, EvaluationError> {
        let mut music = music.clone();
        if self == Self::Staccato {
            for voice in &mut music.voices {
                let starts: Vec<f64> = voice.notes.iter().map(|note| note.start).collect();
                for note in &mut voice.notes {
                    let length = note.end - note.start;
                    let next = starts.iter().copied().find(|start| *start > note.start + 1e-6);
                    note.end = match with {
                        true => note.start + (STACCATO.0 * length).min(STACCATO.1),
                        false => next.unwrap_or(note.end),
                    };
                }
            }
        }
        let mut audio = renderer.music(&music, (SECONDS * SAMPLE_RATE as f64) as usize)?;
        if self == Self::Bright && !with {
            darken(&mut audio);
            scale_to(&mut audio, CLIP_RMS);
        }
        Ok(audio)
    }
}

/// Two low-passes of the first order, one after the other.
fn darken(audio: &mut [f32]) {
    let keep = (-std::f64::consts::TAU * DARK / SAMPLE_RATE as f64).exp() as f32;
    for _ in 0..2 {
        let mut state = 0.0;
        for x in audio.iter_mut() {
            state = keep * state + (1.0 - keep) * *x;
            *x = state;
        }
    }
}

/// Mean over sounding frames of the power's centre of gravity, in Hz, between logarithms: an octave up weighs as one down.
fn centroid(mono: &[f32], rate: f64) -> Option<f32> {
    let (size, hop) = (2048, 1024);
    let (mut sum, mut count) = (0.0f64, 0u32);
    Spectra::new(size).visit(mono, hop, |_, power| {
        let all: f64 = power.iter().map(|p| f64::from(*p)).sum();
        if all < 1e-5 {
            return;
        }
        let weighted: f64 = power.iter().enumerate().map(|(bin, p)| bin as f64 * f64::from(*p)).sum();
        sum += (weighted / all * rate / size as f64).max(1.0).ln();
        count += 1;
    });
    (count > 0).then(|| (sum / f64::from(count)).exp() as f32)
}

/// What became of one trait.
#[derive(Clone, Debug, Serialize)]
pub struct TraitRun {
    /// Which.
    pub kind: Kind,
    /// How well it was told on recordings that nothing was fitted to.
    pub told: Option<Told>,
    /// What is measured.
    pub measure: &'static str,
    /// The measure of the recordings without it and with it, geometric means.
    pub recordings: [f32; 2],
    /// Strength and the measure of the steered pieces, geometric mean.
    pub steered: Vec<(f32, f32)>,
    /// Of the pieces' own steps from a strength to the next, the share that goes up.
    pub steps_up: f32,
    /// Pieces at each strength.
    pub pieces: usize,
}

impl TraitRun {
    /// Whether the measure rises with every strength.
    pub fn is_monotonic(&self) -> bool {
        self.steered.windows(2).all(|pair| pair[1].1 > pair[0].1)
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let told = self.told.map_or_else(|| "not judged".to_owned(), |told| told.to_string());
        let steps = self.steered.iter().map(|(strength, value)| format!("{strength:+}: {value:.3}"));
        vec![
            format!("trait {}: {told} on recordings that it had not heard", self.kind.name()),
            format!(
                "  {}: recordings {:.3} without, {:.3} with it",
                self.measure, self.recordings[0], self.recordings[1]
            ),
            format!(
                "  steered, {} pieces each: {} ({}; {:.0} % of the pieces' own steps go up)",
                self.pieces,
                steps.collect::<Vec<_>>().join(", "),
                if self.is_monotonic() { "monotonic" } else { "NOT monotonic" },
                100.0 * self.steps_up,
            ),
        ]
    }
}

fn geometric(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), x| (sum + x.max(1e-6).ln(), count + 1));
    (sum / count.max(1) as f32).exp()
}

/// Renders both boxes with the built-in tones into `folder`, learns the trait for a checkpoint, with this full dose, and plays `rounds` pieces of each
/// prompt at each strength. `progress` hears (stage, done, all), from any thread.
///
/// # Errors
/// What rendering, learning or playing refuses.
pub fn trait_run(
    source: &ModelSource,
    kind: Kind,
    dose: f32,
    rounds: usize,
    folder: &Path,
    progress: &(dyn Fn(&str, usize, usize) + Sync),
) -> Result<TraitRun, EvaluationError> {
    let folder = folder.join(kind.name());
    let (boxes, recordings) = record(kind, &folder)?;
    let listener = Listener::load(&source.checkpoint(), &|_| ())?;
    let states = StateFolder::new(folder.join("states"));
    let request = TraitRequest {
        with: &boxes[1],
        without: &boxes[0],
        name: kind.name(),
        method: Method::Rfm,
        full_dose: dose,
        states: &states,
    };
    let hear = |_, done, all| progress("learning a trait", done, all);
    let Learned { directions, told, .. } = learn_trait(&listener, &request, Watch::hearing(&hear))?;
    let path = folder.join(file_name(kind.name()));
    directions.write(&path).map_err(LearnError::from)?;
    let mut files = [const { None }; TRAITS];
    files[0] = Some(TraitReference { name: kind.name().to_owned(), hash: String::new(), path });
    let model = Model::load(source, &|_| ())?;
    let steering = model.equipped(source, &files).steering;
    let prompts =
        PROMPTS.iter().map(|text| Ok(Arc::new(model.prompt(text)?))).collect::<Result<Vec<_>, EvaluationError>>()?;
    let pieces = rounds * PROMPTS.len();
    let rate = f64::from(model.format().model_rate);
    let (frames, skipped) = (frames_of(&model, LENGTH), (HEARD_FROM * rate) as usize);
    let done = AtomicUsize::new(0);
    let play = |index: usize| -> Result<Option<f32>, EvaluationError> {
        let (strength, piece) = (STRENGTHS[index / pieces], index % pieces);
        let seed = SEED_BASE + piece as u32;
        let mut lanes = Lanes { strength: 1.0, ..Lanes::OFF };
        lanes.traits[0] = strength;
        let control = ControlFrame { seed, lanes, ..ControlFrame::new(1, 0).sampled(Sampling::DEFAULT) };
        let prompt = prompts[piece % PROMPTS.len()].clone();
        let mono = play_by(&model, prompt, frames, steering.clone(), |index| ControlFrame { index, ..control })?;
        progress("playing by a trait", done.fetch_add(1, Ordering::Relaxed) + 1, STRENGTHS.len() * pieces);
        Ok(kind.measured(&mono[skipped..], rate))
    };
    let heard = (0..STRENGTHS.len() * pieces).into_par_iter().map(play).collect::<Result<Vec<_>, _>>()?;
    let at = |strength: usize| &heard[strength * pieces..][..pieces];
    let mean = |strength: usize| geometric(at(strength).iter().filter_map(|value| *value));
    let (mut up, mut steps) = (0, 0);
    for strength in 1..STRENGTHS.len() {
        for (before, after) in at(strength - 1).iter().zip(at(strength)) {
            if let (Some(before), Some(after)) = (before, after) {
                up += usize::from(after > before);
                steps += 1;
            }
        }
    }
    Ok(TraitRun {
        kind,
        told,
        measure: kind.measure(),
        recordings,
        steered: STRENGTHS.into_iter().enumerate().map(|(place, strength)| (strength, mean(place))).collect(),
        steps_up: up as f32 / steps.max(1) as f32,
        pieces,
    })
}

/// The two boxes, without and with it, and the measure of each.
fn record(kind: Kind, folder: &Path) -> Result<([Vec<PathBuf>; 2], [f32; 2]), EvaluationError> {
    let renderer = Renderer::of(&Tones::BuiltIn)?;
    let sustained = |music: &Music| music.voices.iter().all(|voice| voice.instrument.sustained);
    let pieces: Vec<Music> = (0..)
        .map(|index| Music::compose(SEED, index, SECONDS))
        .filter(|music| kind == Kind::Bright || sustained(music) && music.legato > 0.5)
        .take(FILES)
        .collect();
    let (mut boxes, mut measures) = ([Vec::new(), Vec::new()], [0.0; 2]);
    for (with, (files, measure)) in boxes.iter_mut().zip(&mut measures).enumerate() {
        let side = folder.join(["without", "with"][with]);
        std::fs::create_dir_all(&side).map_err(|source| EvaluationError::Cache { path: side.clone(), source })?;
        let mut heard = Vec::new();
        for (index, music) in pieces.iter().enumerate() {
            let samples = kind.render(&renderer, music, with == 1)?;
            heard.extend(kind.measured(&samples, SAMPLE_RATE as f64));
            let path = side.join(format!("{index}.wav"));
            let sound = Sound { samples, channels: 1, rate: SAMPLE_RATE as u32 };
            sound.write(&path).map_err(LearnError::from)?;
            files.push(path);
        }
        *measure = geometric(heard.into_iter());
    }
    Ok((boxes, measures))
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{RATE, sine};
    use super::*;

    #[test]
    fn the_measures_know_the_recordings_apart() {
        let low = centroid(&sine(200.0, 0.2, 1.0), RATE).expect("sounds");
        let high = centroid(&sine(2_000.0, 0.2, 1.0), RATE).expect("sounds");
        assert!((low - 200.0).abs() < 12.0 && (high - 2_000.0).abs() < 12.0, "{low} {high}");
        let folder = std::env::temp_dir().join(format!("tiller-trait-runs-{}", std::process::id()));
        for kind in Kind::ALL {
            let (boxes, [without, with]) =
                record(kind, &folder.join(kind.name())).unwrap_or_else(|error| panic!("{error}"));
            assert!(boxes.iter().all(|files| files.len() == FILES));
            assert!(with > 1.2 * without, "{}: {without} without, {with} with it", kind.name());
        }
        std::fs::remove_dir_all(folder).expect("cleaned");
    }
}
