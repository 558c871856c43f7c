//! The prompts and seeds that everything is tuned on (dev) and judged on (test). Constant data, compiled in.

use super::EvaluationError;
use super::classes::Class;
use serde::{Deserialize, Serialize};

/// What `assets/evaluation/splits.json` holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// What the file is for.
    pub about: String,
    /// Generator seed of the renders that the classifier learns from.
    pub classifier_generator_seed: u64,
    /// For tuning.
    pub dev: Split,
    /// For judging.
    pub test: Split,
}

/// One split.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// First seed of generated pieces.
    pub seed_base: u32,
    /// First seed of the long runs.
    pub long_seed_base: u32,
    /// Generator seed of held-out rendered music.
    pub generator_seed: u64,
    /// The prompts.
    pub prompts: Vec<LabelledPrompt>,
}

/// How fast a prompt asks for, in the generator's three words: below 90, 90 to 129, from 130 beats per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tempo {
    /// "slow", "unhurried".
    Slow,
    /// "medium", "moderate", "mid-tempo".
    Medium,
    /// "fast", "quick".
    Fast,
}

/// A prompt and what it asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledPrompt {
    /// The words.
    pub text: String,
    /// Label of the instrument, for a single voice.
    pub instrument: Option<String>,
    /// Label of the texture, for a single voice.
    pub texture: Option<String>,
    /// Labels of the two instruments of a mix.
    pub mix: Option<[String; 2]>,
    /// How fast.
    pub tempo: Tempo,
}

impl LabelledPrompt {
    /// The class that the prompt asks for; `None` for a mix.
    pub fn class(&self) -> Option<Class> {
        Class::named(self.instrument.as_deref()?, self.texture.as_deref()?)
    }
}

/// The file, parsed.
///
/// # Errors
/// [`EvaluationError::Splits`] when it does not parse: a mistake made at build time.
pub fn splits() -> Result<Splits, EvaluationError> {
    let text = include_str!("../../../assets/evaluation/splits.json");
    serde_json::from_str(text).map_err(|error| EvaluationError::Splits(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::instruments::INSTRUMENTS;
    use crate::dataset::prompt::tempo_words;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn the_splits_are_disjoint_and_large_enough() {
        let splits = splits().expect("parses");
        let texts = |split: &Split| split.prompts.iter().map(|p| p.text.clone()).collect::<HashSet<_>>();
        let (dev, test) = (texts(&splits.dev), texts(&splits.test));
        assert!(dev.is_disjoint(&test));
        assert_eq!((dev.len(), test.len()), (splits.dev.prompts.len(), splits.test.prompts.len()));
        assert!(splits.test.prompts.iter().filter(|p| p.class().is_some()).count() >= 60);
        let generator: HashSet<u64> =
            [splits.dev.generator_seed, splits.test.generator_seed, splits.classifier_generator_seed].into();
        assert!(generator.len() == 3 && generator.iter().all(|seed| *seed >= 900_000));
        // 900 seeds for pieces, 100 for long runs, none beyond what the plugin's `seed` reaches or calibration takes.
        let starts =
            [splits.dev.seed_base, splits.dev.long_seed_base, splits.test.seed_base, splits.test.long_seed_base];
        assert!(starts.iter().all(|a| a + 100 <= 9_000 && starts.iter().all(|b| a == b || a.abs_diff(*b) >= 900)));
    }

    #[test]
    fn labels_are_what_the_words_say() {
        let splits = splits().expect("parses");
        for prompt in splits.dev.prompts.iter().chain(&splits.test.prompts) {
            let voices = prompt.instrument.iter().chain(prompt.mix.iter().flatten());
            for label in voices {
                let instrument = INSTRUMENTS.iter().find(|i| i.label == label).expect("a known instrument");
                assert!(instrument.names.iter().any(|name| prompt.text.contains(name)), "{}", prompt.text);
            }
            assert!(prompt.class().is_some() != prompt.mix.is_some(), "{}", prompt.text);
            let bpm = match prompt.tempo {
                Tempo::Slow => 70.0,
                Tempo::Medium => 110.0,
                Tempo::Fast => 150.0,
            };
            let says = |word: &&&str| prompt.text.split([' ', ',']).any(|w| w == **word);
            assert!(tempo_words(bpm).iter().any(|word| says(&word)), "{}", prompt.text);
        }
    }

    #[test]
    fn every_texture_meets_every_tempo_equally_often() {
        for split in [splits().expect("parses").dev, splits().expect("parses").test] {
            let mut counts: HashMap<(&str, Tempo), i32> = HashMap::new();
            for prompt in &split.prompts {
                let Some(texture) = &prompt.texture else { continue };
                *counts.entry((texture, prompt.tempo)).or_default() += 1;
            }
            for ((texture, _), a) in &counts {
                for b in [Tempo::Slow, Tempo::Medium, Tempo::Fast].map(|t| counts.get(&(*texture, t))) {
                    assert!(b.is_some_and(|b| (a - b).abs() <= 1), "{texture}: {counts:?}");
                }
            }
        }
    }
}
