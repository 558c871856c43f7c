//! One evaluation of one checkpoint: what is generated and rendered for it, each thing once, kept between runs.
//! Worker threads.

use super::EvaluationError;
use super::adherence::{Example, Judge};
use super::cache::Cache;
use super::classes::Class;
use super::classifier::Training;
use super::codec::{Codec, Comparison};
use super::features::{FEATURES_VERSION, features};
use super::generation::{frames_of, generate};
use super::piece::Heard;
use super::splits::{LabelledPrompt, Split, Tempo, splits};
use super::steered::SteeredPiece;
use crate::checkpoint::CheckpointSource;
use crate::control::ControlFrame;
use crate::dataset::concepts::ConceptClip;
use crate::dataset::harmony::Harmony;
use crate::dataset::music::Music;
use crate::dataset::render::Renderer;
use crate::dataset::{GENERATOR_VERSION, SAMPLE_RATE};
use crate::decoder::sampling::Sampling;
use crate::embedded;
use crate::handle::ModelSource;
use crate::model::Model;
use crate::precision::Precision;
use crate::steering::directions::Directions;
use crate::text::Prompt;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Length of a generated piece, and of a rendered clip to compare it with.
pub const PIECE_SECONDS: f64 = 10.0;
/// Length of a long run.
pub const LONG_SECONDS: f64 = 120.0;
/// Pieces for each prompt.
const ROUNDS: usize = 3;
/// Whether pitch is free of the prompt is told by many pieces of fewer prompts: a few pieces are in one key by chance often
/// enough.
const PITCH_PROMPTS: usize = 20;
const PITCH_ROUNDS: usize = 20;
/// Held-out clips that go through the codec.
const HELD_OUT_CLIPS: usize = 96;
/// Long runs, and rendered windows of the same length.
const LONG_RUNS: usize = 20;
const WINDOWS: usize = 40;
/// Rendered clips of each class that the classifier learns from: of every material alike many on one chord and on one note
/// beside those that the generator draws, or what is steered there would be judged by an ear that never heard the like.
const EXAMPLES: [(Option<Harmony>, usize); 4] =
    [(None, 30), (Some(Harmony::Vamp), 15), (Some(Harmony::Unison), 15), (Some(Harmony::Unison), 105)];
/// Single-voice clips that it is judged on, as the generator draws them; half as many on one chord or note.
const JUDGED: usize = 300;
/// Index of the first clip of a generator seed that serves one purpose: clips for the codec come first.
const JUDGED_FROM: u64 = 10_000;
const WINDOWS_FROM: u64 = 20_000;
const STATIC_FROM: u64 = 30_000;
/// Samples between frames of pitch.
const HOP: usize = SAMPLE_RATE / 50;

/// Index of a clip in its data set, and its material where that is not the generator's choice.
type Clip = (u64, Option<Harmony>);

/// What to evaluate, and how.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The checkpoint.
    pub source: ModelSource,
    /// How exactly the weights are kept.
    pub precision: Precision,
    /// Judge on test, or tune on dev.
    pub test: bool,
    /// First seed instead of the split's.
    pub seed_base: Option<u32>,
    /// Guidance, temperature and top-k of everything that is generated.
    pub sampling: Sampling,
    /// A tenth of everything.
    pub quick: bool,
    /// What rendered music is made with.
    pub soundfont: &'a Path,
    /// Directions to steer by instead of those beside the checkpoint.
    pub directions: Option<&'a [Directions]>,
}

/// A generated piece.
pub struct Piece<'a> {
    /// Index of its prompt in the split.
    pub prompt: usize,
    /// Its prompt.
    pub asked: &'a LabelledPrompt,
    /// What was heard.
    pub heard: &'a Heard,
}

/// Unsteered pieces to generate.
pub struct Batch<'a> {
    /// Indices of the prompts in the split, and the prompts.
    prompts: Vec<(usize, &'a LabelledPrompt)>,
    /// Pieces for each.
    rounds: usize,
}

impl<'a> Batch<'a> {
    /// Pieces for each prompt.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// What was heard, with the prompts.
    pub fn pieces(&self, heard: &'a [Heard]) -> Vec<Piece<'a>> {
        let piece = |(i, heard)| {
            let (prompt, asked) = *self.prompts.get(i / self.rounds)?;
            Some(Piece { prompt, asked, heard })
        };
        heard.iter().enumerate().filter_map(piece).collect()
    }
}

/// A rendered clip of the generator, before and after the codec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldOut {
    /// The clip as rendered.
    pub rendered: Heard,
    /// What the codec made of it.
    pub decoded: Heard,
    /// The two side by side.
    pub comparison: Comparison,
    /// How fast it is.
    pub tempo: Tempo,
}

/// Hears (stage, items done, items in all), from any thread.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) + Sync);

/// One evaluation.
pub struct Session<'a> {
    model: Arc<Model>,
    checkpoint: CheckpointSource,
    codec: OnceLock<Codec>,
    split: Split,
    classifier_seed: u64,
    request: Request<'a>,
    cache: Cache,
    progress: Progress<'a>,
}

impl<'a> Session<'a> {
    /// Loads the checkpoint.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn new(request: Request<'a>, cache: Cache, progress: Progress<'a>) -> Result<Self, EvaluationError> {
        progress("loading", 0, 1);
        let model = match request.directions {
            Some(directions) => Model::steered_by(&request.source, request.precision, directions)?,
            None => Model::load_at(&request.source, request.precision, &|_| ())?,
        };
        let splits = splits()?;
        let mut split = if request.test { splits.test } else { splits.dev };
        if let Some(base) = request.seed_base {
            (split.seed_base, split.long_seed_base) = (base, base + 900);
        }
        let checkpoint = match &request.source {
            ModelSource::Embedded => CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES },
            ModelSource::Directory(path) => CheckpointSource::directory(path),
        };
        let classifier_seed = splits.classifier_generator_seed;
        Ok(Self { model, checkpoint, codec: OnceLock::new(), split, classifier_seed, request, cache, progress })
    }

    /// The same evaluation of the same checkpoint, steered by other directions.
    ///
    /// # Errors
    /// When they are not this checkpoint's.
    pub fn steered_by(&self, directions: &[Directions]) -> Result<Self, EvaluationError> {
        Ok(Self {
            model: Model::steered_by(&self.request.source, self.request.precision, directions)?,
            checkpoint: self.checkpoint.clone(),
            codec: OnceLock::new(),
            split: self.split.clone(),
            classifier_seed: self.classifier_seed,
            request: self.request.clone(),
            cache: self.cache.clone(),
            progress: self.progress,
        })
    }

    /// What was asked for.
    pub fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// Where the checkpoint's files come from.
    pub fn checkpoint(&self) -> &CheckpointSource {
        &self.checkpoint
    }

    /// The model under test.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The prompts and seeds in use.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Where results are kept.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Tells whoever watches how far a stage is.
    pub fn hear_progress(&self, stage: &str, done: usize, all: usize) {
        (self.progress)(stage, done, all);
    }

    /// A number of things, or a tenth of it.
    pub fn scaled(&self, count: usize) -> usize {
        if self.request.quick { count.div_ceil(10) } else { count }
    }

    /// The checkpoint's codec, both directions.
    ///
    /// # Errors
    /// When its encoder cannot be read.
    pub fn codec(&self) -> Result<&Codec, EvaluationError> {
        if let Some(codec) = self.codec.get() {
            return Ok(codec);
        }
        let codec = Codec::load(&self.checkpoint, self.model.codec().clone())?;
        Ok(self.codec.get_or_init(|| codec))
    }

    /// A few pieces of every prompt, or of every tenth.
    pub fn every_prompt(&self) -> Batch<'_> {
        let every = if self.request.quick { 10 } else { 1 };
        Batch { prompts: self.split.prompts.iter().enumerate().step_by(every).collect(), rounds: ROUNDS }
    }

    /// Many pieces of a few prompts, spread over the split.
    pub fn few_prompts(&self) -> Batch<'_> {
        let (all, count) = (&self.split.prompts, self.scaled(PITCH_PROMPTS));
        let spread = (0..count).map(|i| i * all.len() / count);
        Batch { prompts: spread.map(|i| (i, &all[i])).collect(), rounds: PITCH_ROUNDS }
    }

    /// What was heard of a batch of unsteered pieces of [`PIECE_SECONDS`]; pair them with [`Batch::pieces`].
    ///
    /// # Errors
    /// When the model fails, or results cannot be kept.
    pub fn hear_pieces(&self, batch: &Batch, sampling: Sampling) -> Result<Vec<Heard>, EvaluationError> {
        self.same_rate()?;
        let jobs: Vec<(&str, u32)> = (0..batch.prompts.len() * batch.rounds)
            .map(|i| (batch.prompts[i / batch.rounds].1.text.as_str(), self.split.seed_base + i as u32))
            .collect();
        self.hear("pieces", &jobs, (PIECE_SECONDS, sampling), true)
    }

    /// What was heard of long unsteered runs, with prompts spread over the split.
    ///
    /// # Errors
    /// When the model fails, or results cannot be kept.
    pub fn hear_long(&self) -> Result<Vec<(&LabelledPrompt, Heard)>, EvaluationError> {
        self.same_rate()?;
        let count = self.scaled(LONG_RUNS);
        let prompts: Vec<&LabelledPrompt> =
            (0..count).map(|i| &self.split.prompts[i * self.split.prompts.len() / count]).collect();
        let jobs: Vec<(&str, u32)> =
            prompts.iter().enumerate().map(|(i, p)| (p.text.as_str(), self.split.long_seed_base + i as u32)).collect();
        let heard = self.hear("long", &jobs, (LONG_SECONDS, self.request.sampling), false)?;
        Ok(prompts.into_iter().zip(heard).collect())
    }

    fn hear(
        &self,
        stage: &str,
        jobs: &[(&str, u32)],
        (seconds, sampling): (f64, Sampling),
        features: bool,
    ) -> Result<Vec<Heard>, EvaluationError> {
        let list = jobs.iter().map(|(text, seed)| format!("{seed} {text}")).collect::<Vec<_>>().join("\n");
        let features_version = FEATURES_VERSION.to_string();
        let fingerprint = self.model.fingerprint();
        let key = [fingerprint.as_str(), &list, &seconds.to_string(), &format!("{sampling:?}"), &features_version];
        let frames = frames_of(&self.model, seconds);
        let format = self.model.format();
        let progress = |done, all| (self.progress)(stage, done, all);
        self.cache.items(stage, &key, jobs.len(), &progress, |i| {
            let (text, seed) = jobs[i];
            let prompt: Arc<Prompt> = Arc::new(self.model.prompt(text)?);
            let control = ControlFrame { seed, ..ControlFrame::new(1, 0).sampled(sampling) };
            let mono = generate(&self.model, prompt, control, 0..frames)?;
            Ok(Heard::of(&mono, f64::from(format.model_rate), format.frame_samples, features)?)
        })
    }

    /// Held-out rendered clips (mixes too), before and after the codec.
    ///
    /// # Errors
    /// When the codec or the SoundFont cannot be used, or results cannot be kept.
    pub fn held_out(&self) -> Result<Vec<HeldOut>, EvaluationError> {
        let codec = self.codec()?;
        let seed = self.split.generator_seed;
        let renderer = Renderer::open(self.request.soundfont)?;
        let key = self.render_key(codec.fingerprint(), seed);
        let progress = |done, all| (self.progress)("codec", done, all);
        self.cache.items("held-out", &borrowed(&key), self.scaled(HELD_OUT_CLIPS), &progress, |i| {
            let music = Music::compose(seed, i as u64, PIECE_SECONDS);
            let audio = renderer.music(&music, (PIECE_SECONDS * SAMPLE_RATE as f64) as usize)?;
            let (codes, decoded) = codec.round_trip(&audio)?;
            let hear = |audio: &[f32]| Heard::of(audio, SAMPLE_RATE as f64, HOP, false);
            Ok(HeldOut {
                rendered: hear(&audio)?,
                decoded: hear(&decoded)?,
                comparison: Comparison::of(&audio, &decoded, &codes)?,
                tempo: tempo(music.bpm),
            })
        })
    }

    /// Rendered windows (mixes too) as long as the long runs.
    ///
    /// # Errors
    /// When the SoundFont cannot be used, or results cannot be kept.
    pub fn windows(&self) -> Result<Vec<Heard>, EvaluationError> {
        let seed = self.split.generator_seed;
        let renderer = Renderer::open(self.request.soundfont)?;
        let key = self.render_key("rendered", seed);
        let progress = |done, all| (self.progress)("rendered windows", done, all);
        self.cache.items("windows", &borrowed(&key), self.scaled(WINDOWS), &progress, |i| {
            let music = Music::compose(seed, WINDOWS_FROM + i as u64, LONG_SECONDS);
            let audio = renderer.music(&music, (LONG_SECONDS * SAMPLE_RATE as f64) as usize)?;
            Ok(Heard::of(&audio, SAMPLE_RATE as f64, HOP, false)?)
        })
    }

    /// The classifier of instrument and texture for this codec, and the number of clips that it learned from.
    ///
    /// # Errors
    /// When the codec or the SoundFont cannot be used, or results cannot be kept.
    pub fn judge(&self) -> Result<(Judge, usize), EvaluationError> {
        let examples = self.classifier_examples()?;
        let key = self.render_key(self.codec()?.fingerprint(), self.classifier_seed);
        let (training, count) = (Training::default(), examples.len().to_string());
        let described = format!("{training:?}");
        let mut key = borrowed(&key);
        key.extend([described.as_str(), count.as_str()]);
        let quiet = |_, _| ();
        let made = self.cache.items("classifier", &key, 1, &quiet, |_| {
            Ok(Judge::learn(&examples, &training, &|done, all| (self.progress)("training the classifier", done, all)))
        })?;
        let judge = made.into_iter().next().unwrap_or_else(|| Judge::learn(&[], &training, &|_, _| ()));
        Ok((judge, examples.len()))
    }

    /// What is heard of labelled clips after the codec, and before it; `None` where the SoundFont is silent.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn hear_concept(
        &self,
        stage: &str,
        clips: &[ConceptClip],
    ) -> Result<[Vec<Option<SteeredPiece>>; 2], EvaluationError> {
        let codec = self.codec()?;
        let renderer = Renderer::open(self.request.soundfont)?;
        let programs: Vec<u8> = clips.iter().map(|clip| clip.program).collect();
        let mut key = self.render_key(codec.fingerprint(), 0);
        key.push(format!("{stage} {programs:?}"));
        let progress = |done, all| (self.progress)(&format!("labelled {stage}"), done, all);
        let rate = SAMPLE_RATE as f64;
        let heard = self.cache.items("labelled", &borrowed(&key), clips.len(), &progress, |i| {
            let Some(audio) = clips[i].render(&renderer)? else { return Ok(None) };
            let (_, decoded) = codec.round_trip(&audio)?;
            Ok(Some((SteeredPiece::of(&decoded, rate, HOP)?, SteeredPiece::of(&audio, rate, HOP)?)))
        })?;
        let (decoded, rendered) = heard.into_iter().map(Option::unzip).unzip();
        Ok([decoded, rendered])
    }

    /// Features of the rendered clips that the classifier learns from, after the codec: what drift is measured in.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn rendered_features(&self) -> Result<Vec<Vec<f32>>, EvaluationError> {
        let examples = self.classifier_examples()?;
        Ok(examples.into_iter().filter_map(|example| example.views.into_iter().next().flatten()).collect())
    }

    fn classifier_examples(&self) -> Result<Vec<Example>, EvaluationError> {
        self.examples("classifier clips", self.classifier_seed, &self.balanced())
    }

    /// Held-out examples as they come from the generator, single voices only.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn judged_examples(&self) -> Result<Vec<Example>, EvaluationError> {
        let clips: Vec<Clip> = self.judged(JUDGED_FROM).map(|index| (index, None)).take(self.scaled(JUDGED)).collect();
        self.examples("held-out clips", self.split.generator_seed, &clips)
    }

    /// Held-out examples on one chord and on one note, in turns: what a steered piece is like.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn judged_static_examples(&self) -> Result<Vec<Example>, EvaluationError> {
        let materials = [Harmony::Vamp, Harmony::Unison].map(Some).into_iter().cycle();
        let clips: Vec<Clip> = self.judged(STATIC_FROM).zip(materials).take(self.scaled(JUDGED / 2)).collect();
        self.examples("held-out static clips", self.split.generator_seed, &clips)
    }

    /// Indices of single-voice clips of the held-out seed.
    fn judged(&self, from: u64) -> impl Iterator<Item = u64> {
        let seed = self.split.generator_seed;
        (from..).filter(move |&index| Class::of(&Music::compose(seed, index, PIECE_SECONDS)).is_some())
    }

    /// Single-voice clips of the classifier's seed, so many of every class and material, in turns.
    fn balanced(&self) -> Vec<Clip> {
        let materials: Vec<Option<Harmony>> =
            EXAMPLES.iter().flat_map(|(material, count)| vec![*material; self.scaled(*count)]).collect();
        let mut found = vec![Vec::new(); Class::all().len()];
        for index in 0.. {
            if found.iter().all(|indices| indices.len() >= materials.len()) {
                break;
            }
            let Some(class) = Class::of(&Music::compose(self.classifier_seed, index, PIECE_SECONDS)) else { continue };
            found[class.index()].push(index);
        }
        let turn = |(turn, material): (usize, Option<Harmony>)| {
            found.iter().filter_map(move |indices| Some((*indices.get(turn)?, material))).collect::<Vec<_>>()
        };
        materials.iter().copied().enumerate().flat_map(turn).collect()
    }

    fn examples(&self, stage: &str, seed: u64, clips: &[Clip]) -> Result<Vec<Example>, EvaluationError> {
        let codec = self.codec()?;
        let renderer = Renderer::open(self.request.soundfont)?;
        let mut key = self.render_key(codec.fingerprint(), seed);
        key.push(stage.to_owned());
        let progress = |done, all| (self.progress)(stage, done, all);
        self.cache.items("examples", &borrowed(&key), clips.len(), &progress, |i| {
            let (index, material) = clips[i];
            let music = match material {
                Some(harmony) => Music::compose_of(harmony, seed, index, PIECE_SECONDS),
                None => Music::compose(seed, index, PIECE_SECONDS),
            };
            let audio = renderer.music(&music, (PIECE_SECONDS * SAMPLE_RATE as f64) as usize)?;
            let (_, decoded) = codec.round_trip(&audio)?;
            let (first, second) = decoded.split_at(decoded.len() / 2);
            let views = [&decoded, first, second].map(|view| features(view, SAMPLE_RATE as f64));
            Ok(Example { class: Class::of(&music).map_or(0, Class::index), views })
        })
    }

    /// What rendered clips depend on.
    fn render_key(&self, codec: &str, seed: u64) -> Vec<String> {
        let font = self.request.soundfont;
        let length = std::fs::metadata(font).map_or(0, |data| data.len());
        let of = |x: &dyn ToString| x.to_string();
        vec![
            codec.to_owned(),
            of(&seed),
            of(&FEATURES_VERSION),
            of(&GENERATOR_VERSION),
            font.display().to_string(),
            of(&length),
        ]
    }

    fn same_rate(&self) -> Result<(), EvaluationError> {
        let found = self.model.format().model_rate;
        if found as usize == SAMPLE_RATE {
            return Ok(());
        }
        Err(EvaluationError::SampleRate { checkpoint: self.model.name().to_owned(), found, expected: SAMPLE_RATE })
    }
}

fn borrowed(key: &[String]) -> Vec<&str> {
    key.iter().map(String::as_str).collect()
}

/// The tempo that the generator's words name for this many beats per minute.
fn tempo(bpm: f64) -> Tempo {
    match bpm {
        ..90.0 => Tempo::Slow,
        ..130.0 => Tempo::Medium,
        _ => Tempo::Fast,
    }
}
