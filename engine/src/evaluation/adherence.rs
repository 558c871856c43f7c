//! Whether the prompt is heard in the music: a classifier of instrument and texture that learned from rendered clips sent
//! through the codec, never from the model's output. Worker threads.

use super::bootstrap;
use super::classes::{Class, texture_label};
use super::classifier::{Classifier, Training};
use crate::dataset::instruments::INSTRUMENTS;
use crate::dataset::texture::Texture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Smallest probability that counts: a clip that is heard as something else must not outweigh all the others.
pub const LEAST: f32 = 1e-4;

/// A labelled clip as the classifier sees it: the whole, and its two halves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Example {
    /// Index into [`Class::all`].
    pub class: usize,
    /// Features of the whole clip, of its first and of its second half; `None` for silence.
    pub views: [Option<Vec<f32>>; 3],
}

/// Hears instrument and texture.
#[derive(Serialize, Deserialize)]
pub struct Judge {
    classifier: Classifier,
}

/// What was heard in one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The most likely instrument and texture together.
    pub class: Class,
    /// The most likely instrument, whatever its texture.
    pub instrument: usize,
    /// The most likely texture, whoever plays it.
    pub texture: Texture,
    joint: Vec<f32>,
}

impl Judge {
    /// Learns from examples. `progress` hears (steps done, steps in all).
    pub fn learn<'a>(examples: &'a [Example], training: &Training, progress: &(dyn Fn(usize, usize) + Sync)) -> Self {
        let views = |example: &'a Example| views(example).map(|features| (features, example.class));
        let examples: Vec<(&[f32], usize)> = examples.iter().flat_map(views).collect();
        Self { classifier: Classifier::train(&examples, Class::all().len(), training, 1, progress) }
    }

    /// What these features sound like; `None` for silence.
    pub fn hear(&self, features: Option<&[f32]>) -> Option<Verdict> {
        Some(Verdict::of(self.classifier.probabilities(features?)))
    }
}

fn views(example: &Example) -> impl Iterator<Item = &[f32]> {
    example.views.iter().filter_map(|view| view.as_deref())
}

impl Verdict {
    fn of(joint: Vec<f32>) -> Self {
        let all = Class::all();
        let sum = |same: &dyn Fn(&Class) -> bool| {
            all.iter().zip(&joint).filter(|(c, _)| same(c)).map(|(_, p)| p).sum::<f32>()
        };
        let best = |values: Vec<f32>| {
            values.iter().enumerate().fold((0, 0.0f32), |a, (i, &p)| if p > a.1 { (i, p) } else { a }).0
        };
        let instrument = best((0..INSTRUMENTS.len()).map(|i| sum(&|c| c.instrument == i)).collect());
        let texture = Texture::ALL[best(Texture::ALL.iter().map(|t| sum(&|c| c.texture == *t)).collect())];
        Self { class: all[best(joint.clone()).min(all.len() - 1)], instrument, texture, joint }
    }

    /// Natural logarithm of the probability of a class, at least that of one in ten thousand.
    pub fn log_probability(&self, class: Class) -> f32 {
        self.joint.get(class.index()).copied().unwrap_or(0.0).max(LEAST).ln()
    }
}

/// What one clip should be and what was heard; clips of one group (a prompt) are not independent of each other.
pub struct Trial {
    /// What it should be.
    pub wanted: Class,
    /// What was heard; `None` for silence, which is never right.
    pub heard: Option<Verdict>,
    /// The group.
    pub group: usize,
}

impl Trial {
    /// 1 where instrument and texture are both heard.
    pub fn right(&self) -> f32 {
        f32::from(u8::from(self.heard.as_ref().is_some_and(|heard| heard.class == self.wanted)))
    }
}

/// Shares of clips that were heard right.
#[derive(Debug, Clone, Serialize)]
pub struct Scores {
    /// Clips.
    pub clips: usize,
    /// Instrument and texture both right.
    pub both: f32,
    /// 90 % bootstrap interval of `both`, whole groups drawn.
    pub both_interval: [f32; 2],
    /// Instrument right.
    pub instrument: f32,
    /// Texture right.
    pub texture: f32,
    /// Mean natural logarithm of the probability of what it should be.
    pub log_probability: f32,
}

/// How often one thing was taken for another.
#[derive(Debug, Clone, Serialize)]
pub struct Confusion {
    /// What it should be.
    pub wanted: String,
    /// What was heard.
    pub heard: String,
    /// Clips.
    pub clips: usize,
    /// Of so many.
    pub of: usize,
}

impl Scores {
    /// Scores of trials; zeros without any.
    pub fn of(trials: &[Trial]) -> Self {
        let count = trials.len().max(1) as f32;
        let share = |right: &dyn Fn(&Trial, &Verdict) -> bool| {
            trials.iter().filter(|t| t.heard.as_ref().is_some_and(|heard| right(t, heard))).count() as f32 / count
        };
        let log = |t: &Trial| t.heard.as_ref().map_or(LEAST.ln(), |heard| heard.log_probability(t.wanted));
        Self {
            clips: trials.len(),
            both: share(&|t, heard| heard.class == t.wanted),
            both_interval: interval(trials),
            instrument: share(&|t, heard| heard.instrument == t.wanted.instrument),
            texture: share(&|t, heard| heard.texture == t.wanted.texture),
            log_probability: trials.iter().map(log).sum::<f32>() / count,
        }
    }
}

fn interval(trials: &[Trial]) -> [f32; 2] {
    bootstrap::interval(&trials.iter().map(|t| (t.group, t.right())).collect::<Vec<_>>())
}

/// Rows of a confusion table: every pair that was mistaken, the commonest first.
pub fn confusions(trials: &[Trial], label: impl Fn(Class) -> String) -> Vec<Confusion> {
    let heard = |trial: &Trial| trial.heard.as_ref().map_or_else(|| "silence".to_owned(), |heard| label(heard.class));
    mistakes(trials.iter().map(|trial| (label(trial.wanted), heard(trial))))
}

/// The same of names of what should be heard and of what was.
pub fn mistakes(answers: impl Iterator<Item = (String, String)>) -> Vec<Confusion> {
    let mut counts: BTreeMap<(String, String), usize> = Default::default();
    let mut of: BTreeMap<String, usize> = Default::default();
    for (wanted, heard) in answers {
        *of.entry(wanted.clone()).or_default() += 1;
        if heard != wanted {
            *counts.entry((wanted, heard)).or_default() += 1;
        }
    }
    let row = |((wanted, heard), clips): ((String, String), usize)| {
        let of = of.get(&wanted).copied().unwrap_or(0);
        Confusion { wanted, heard, clips, of }
    };
    let mut rows: Vec<Confusion> = counts.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.clips));
    rows
}

/// "flute melody".
pub fn class_label(class: Class) -> String {
    format!("{} {}", class.instrument_label(), texture_label(class.texture))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(class: Class, p: f32) -> Verdict {
        let mut joint = vec![(1.0 - p) / (Class::all().len() - 1) as f32; Class::all().len()];
        joint[class.index()] = p;
        Verdict::of(joint)
    }

    fn class(instrument: &str, texture: &str) -> Class {
        Class::named(instrument, texture).expect("known")
    }

    #[test]
    fn both_is_stricter_than_either() {
        let wanted = class("piano", "chords");
        let heard = [
            Some(verdict(wanted, 0.9)),
            Some(verdict(class("piano", "arpeggio"), 0.9)),
            Some(verdict(class("guitar", "chords"), 0.9)),
            None,
        ];
        let trials: Vec<Trial> =
            heard.into_iter().enumerate().map(|(group, heard)| Trial { wanted, heard, group }).collect();
        let scores = Scores::of(&trials);
        assert_eq!((scores.both, scores.instrument, scores.texture), (0.25, 0.5, 0.5));
        assert!(scores.both_interval[0] < 0.25 && scores.both_interval[1] > 0.25, "{scores:?}");
        let missed = LEAST.max(0.1 / 42.0).ln();
        assert!((scores.log_probability - (0.9f32.ln() + 2.0 * missed + LEAST.ln()) / 4.0).abs() < 1e-3);
        let table = confusions(&trials, class_label);
        assert_eq!(table.len(), 3);
        assert!(table.iter().any(|row| row.heard == "silence" && row.clips == 1 && row.of == 4));
    }

    #[test]
    fn marginals_sum_over_the_other() {
        // Three textures of the piano together outweigh the guitar's single best class.
        let mut joint = vec![0.0; Class::all().len()];
        for texture in ["melody", "chords", "arpeggio"] {
            joint[class("piano", texture).index()] = 0.2;
        }
        joint[class("guitar", "melody").index()] = 0.4;
        let verdict = Verdict::of(joint);
        assert_eq!(verdict.class, class("guitar", "melody"));
        assert_eq!(INSTRUMENTS[verdict.instrument].label, "piano");
        assert_eq!(verdict.texture, Texture::Melody);
    }
}
