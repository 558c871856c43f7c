//! A data set on disk: raw audio, one JSON line per clip, and a summary. Rendered on all cores, written in order.

use super::concepts::{Concept, ConceptClip};
use super::harmony::{Harmony, Mode, PITCH_CLASS_NAMES};
use super::music::{Keys, Music};
use super::render::Renderer;
use super::{DatasetError, GENERATOR_VERSION, SAMPLE_RATE};
use rayon::prelude::*;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What is known of a clip of music: one JSON line, in `clips.jsonl` or beside its codes.
#[derive(Debug, Serialize)]
pub struct MusicLabel {
    /// Index of the clip.
    pub index: u64,
    /// Seed of the data set.
    pub seed: u64,
    /// The prompt.
    pub prompt: String,
    /// Labels of the instruments, the leading one first.
    pub instruments: Vec<&'static str>,
    /// Their GM programs.
    pub programs: Vec<u8>,
    /// Texture label: melody, chords, arpeggio, bass, pad or mix.
    pub texture: &'static str,
    /// Texture of each voice.
    pub textures: Vec<super::texture::Texture>,
    /// Beats per minute.
    pub bpm: f64,
    /// Tonic, as a name.
    pub key: &'static str,
    /// Mode.
    pub mode: Mode,
    /// Progression, vamp, unison, medley or turns.
    pub harmony: Harmony,
    /// Mean MIDI velocity that was asked for: 52 to 110.
    pub loudness: i32,
    /// Share of its time slot for which a note is held: 0.5 detached, 0.95 or 1 connected.
    pub legato: f64,
    /// Length in samples.
    pub samples: u64,
}

impl MusicLabel {
    /// The label of a clip of `samples` samples.
    pub fn new(music: &Music, samples: usize) -> Self {
        Self {
            index: music.index,
            seed: music.seed,
            prompt: music.prompt.clone(),
            instruments: music.voices.iter().map(|v| v.instrument.label).collect(),
            programs: music.voices.iter().map(|v| v.instrument.program).collect(),
            texture: music.texture_label(),
            textures: music.voices.iter().map(|v| v.texture).collect(),
            bpm: music.bpm,
            key: PITCH_CLASS_NAMES[music.key.tonic],
            mode: music.key.mode,
            harmony: music.harmony,
            loudness: music.loudness,
            legato: music.legato,
            samples: samples as u64,
        }
    }
}

/// A line of `clips.jsonl` beside `audio.i16`.
#[derive(Serialize)]
struct Placed {
    #[serde(flatten)]
    label: MusicLabel,
    /// First sample in `audio.i16`.
    offset_samples: u64,
}

/// One line of `clips.jsonl` for clips of a concept.
#[derive(Debug, Serialize)]
pub struct ConceptLabel {
    /// Index of the clip.
    pub index: u64,
    /// Class, in the order of [`Concept::classes`].
    pub class: usize,
    /// Its name.
    pub name: String,
    /// The number of a regression, such as beats per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// GM program, 0-based; of the leading voice for tempo.
    pub program: u8,
    /// First sample in `audio.i16`.
    pub offset_samples: u64,
    /// Length in samples.
    pub samples: u64,
}

#[derive(Debug, Serialize)]
struct Meta<'a> {
    kind: &'a str,
    sample_rate: usize,
    clips: u64,
    samples_per_clip: usize,
    seed: Option<u64>,
    generator_version: u32,
    soundfont: String,
}

/// The three files of a data set while it is being written.
struct Writer {
    folder: PathBuf,
    audio: BufWriter<File>,
    labels: BufWriter<File>,
    samples: u64,
    clips: u64,
}

pub(super) fn write_error(path: &Path) -> impl Fn(std::io::Error) -> DatasetError + '_ {
    move |source| DatasetError::Write { path: path.to_owned(), source }
}

impl Writer {
    fn create(folder: &Path) -> Result<Self, DatasetError> {
        fs::create_dir_all(folder).map_err(write_error(folder))?;
        let open = |name: &str| {
            let path = folder.join(name);
            File::create(&path).map(BufWriter::new).map_err(|source| DatasetError::Write { path, source })
        };
        Ok(Self {
            folder: folder.to_owned(),
            audio: open("audio.i16")?,
            labels: open("clips.jsonl")?,
            samples: 0,
            clips: 0,
        })
    }

    fn push(
        &mut self,
        audio: &[f32],
        label: impl FnOnce(u64, u64) -> serde_json::Result<String>,
    ) -> Result<(), DatasetError> {
        let bytes: Vec<u8> = audio.iter().flat_map(|&x| quantised(x).to_le_bytes()).collect();
        self.audio.write_all(&bytes).map_err(write_error(&self.folder.join("audio.i16")))?;
        let line = label(self.clips, self.samples).map_err(|e| DatasetError::Request(e.to_string()))?;
        writeln!(self.labels, "{line}").map_err(write_error(&self.folder.join("clips.jsonl")))?;
        self.samples += audio.len() as u64;
        self.clips += 1;
        Ok(())
    }

    fn finish(
        mut self,
        kind: &str,
        samples_per_clip: usize,
        seed: Option<u64>,
        soundfont: &Path,
    ) -> Result<u64, DatasetError> {
        self.audio.flush().map_err(write_error(&self.folder))?;
        self.labels.flush().map_err(write_error(&self.folder))?;
        let meta = Meta {
            kind,
            sample_rate: SAMPLE_RATE,
            clips: self.clips,
            samples_per_clip,
            seed,
            generator_version: GENERATOR_VERSION,
            soundfont: soundfont.display().to_string(),
        };
        let text = serde_json::to_string_pretty(&meta).map_err(|e| DatasetError::Request(e.to_string()))?;
        let path = self.folder.join("meta.json");
        fs::write(&path, text + "\n").map_err(write_error(&path))?;
        Ok(self.clips)
    }
}

/// A sample as `audio.i16` holds it. Readers divide by 32768.
fn quantised(sample: f32) -> i16 {
    (sample * 32767.0).round().clamp(-32767.0, 32767.0) as i16
}

/// The sample that a reader of `audio.i16` gets: codes made without the file are the codes of the file.
pub(super) fn as_read(sample: f32) -> f32 {
    f32::from(quantised(sample)) / 32768.0
}

/// Clips that are rendered before they are written: bounds the memory, keeps all cores busy.
const BATCH: u64 = 64;

/// Renders `clips` clips of music of a seed, with this share of the keys, into `folder`; calls `progress` with the number done. Returns the number of clips.
///
/// # Errors
/// A SoundFont that cannot be read, a silent clip, or a file that cannot be written.
pub fn write_music(
    folder: &Path,
    soundfont: &Path,
    (seed, keys): (u64, Keys),
    clips: u64,
    seconds: f64,
    progress: impl Fn(u64),
) -> Result<u64, DatasetError> {
    let renderer = Renderer::open(soundfont)?;
    let samples = (seconds * SAMPLE_RATE as f64).round() as usize;
    let mut writer = Writer::create(folder)?;
    for first in (0..clips).step_by(BATCH as usize) {
        let batch: Vec<(Music, Vec<f32>)> = (first..clips.min(first + BATCH))
            .into_par_iter()
            .map(|index| {
                let music = Music::compose_with(keys, seed, index, seconds);
                renderer.music(&music, samples).map(|audio| (music, audio))
            })
            .collect::<Result<_, _>>()?;
        for (music, audio) in batch {
            writer.push(&audio, |index, offset_samples| {
                debug_assert_eq!(index, music.index);
                serde_json::to_string(&Placed { label: MusicLabel::new(&music, samples), offset_samples })
            })?;
        }
        progress(writer.clips);
    }
    writer.finish("music", samples, Some(seed), soundfont)
}

/// Composes and words clips without a sound: `labels.jsonl` alone, for text encoders. Returns the number of clips.
///
/// # Errors
/// A file that cannot be written.
pub fn write_labels(folder: &Path, seed: u64, clips: u64, seconds: f64) -> Result<u64, DatasetError> {
    fs::create_dir_all(folder).map_err(write_error(folder))?;
    let samples = (seconds * SAMPLE_RATE as f64).round() as usize;
    let lines: Vec<String> = (0..clips)
        .into_par_iter()
        .map(|index| serde_json::to_string(&MusicLabel::new(&Music::compose(seed, index, seconds), samples)))
        .collect::<Result<_, _>>()
        .map_err(|e| DatasetError::Request(e.to_string()))?;
    let path = folder.join("labels.jsonl");
    fs::write(&path, lines.join("\n") + "\n").map_err(write_error(&path))?;
    Ok(clips)
}

/// Renders the labelled clips of a concept into `folder`, leaving out those that the SoundFont cannot sound. Returns their
/// number.
///
/// # Errors
/// A SoundFont that cannot be read or a file that cannot be written.
pub fn write_concept(
    folder: &Path,
    soundfont: &Path,
    concept: Concept,
    progress: impl Fn(u64, u64),
) -> Result<u64, DatasetError> {
    let renderer = Renderer::open(soundfont)?;
    let mut writer = Writer::create(folder)?;
    let (clips, names) = (concept.clips(concept.programs()), concept.classes());
    for (done, batch) in clips.chunks(BATCH as usize).enumerate() {
        let audio: Vec<Option<Vec<f32>>> =
            batch.par_iter().map(|clip| clip.render(&renderer)).collect::<Result<_, _>>()?;
        for (clip, audio) in batch.iter().zip(audio) {
            let Some(audio) = audio else { continue };
            writer.push(&audio, |index, offset_samples| {
                serde_json::to_string(&ConceptLabel {
                    index,
                    class: clip.class,
                    name: names[clip.class].clone(),
                    level: concept.is_level().then_some(clip.level),
                    program: clip.program,
                    offset_samples,
                    samples: ConceptClip::SAMPLES as u64,
                })
            })?;
        }
        progress((done as u64 * BATCH) + batch.len() as u64, clips.len() as u64);
    }
    writer.finish(concept.name(), ConceptClip::SAMPLES, None, soundfont)
}
