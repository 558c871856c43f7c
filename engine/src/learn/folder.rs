//! The user's own audio as labelled clips: what lies in `with/` has the trait, what lies in `without/` has not. WAV and
//! FLAC at any rate. Worker threads.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction};
use sha2::{Digest, Sha256};

use super::LearnError;
use super::split::Label;
use super::watch::Watch;
use crate::dataset::SAMPLE_RATE;
use crate::dataset::render::{CLIP_RMS, scale_to};
use crate::sound_file::Sound;

/// Length of a clip, as for rendered concepts.
pub const CLIP_SAMPLES: usize = 4 * SAMPLE_RATE;

/// A shorter rest of a file is left out.
const LEAST_SAMPLES: usize = 2 * SAMPLE_RATE;

/// Clips of one file, at most: one long recording must not outvote the others.
const MOST_OF_A_FILE: usize = 60;

/// Files of one side that make groups of their own; with fewer, stretches of the files are kept apart instead.
const FILES: usize = 3;

/// Groups that a side is cut into when it has fewer files.
const STRETCHES: usize = 5;

/// One clip.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderClip {
    /// Mono samples at 32 kHz, [`CLIP_SAMPLES`] at most.
    pub audio: Vec<f32>,
    /// Class 0 has the trait, class 1 has not.
    pub label: Label,
}

/// The clips of both sides.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Clips that sound, side by side.
    pub clips: Vec<FolderClip>,
    /// SHA-256 over the files' names and contents, hex.
    pub hash: String,
    /// Files read.
    pub files: usize,
    /// There were too few files, so stretches of the same file are in different parts: held-out scores flatter.
    pub stretched: bool,
}

/// The files in `with/` and `without/` of `folder`.
///
/// # Errors
/// A side that cannot be read or holds no sound files.
pub fn sides(folder: &Path) -> Result<[Vec<PathBuf>; 2], LearnError> {
    Ok([sound_files(&folder.join("with"))?, sound_files(&folder.join("without"))?])
}

fn sound_files(folder: &Path) -> Result<Vec<PathBuf>, LearnError> {
    let failed = |source| LearnError::Folder { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        if path.is_file() && ["wav", "flac"].contains(&extension.as_str()) {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(LearnError::TooLittle(format!("{} holds no WAV or FLAC files", folder.display()))),
        false => Ok(files),
    }
}

/// Mono audio at 32 kHz.
fn resampled(sound: &Sound) -> Result<Vec<f32>, LearnError> {
    let mono = sound.mono();
    if sound.rate as usize == SAMPLE_RATE || mono.is_empty() {
        return Ok(mono);
    }
    let ratio = SAMPLE_RATE as f64 / f64::from(sound.rate);
    let odd = |why: String| LearnError::TooLittle(format!("audio at {} Hz cannot be resampled: {why}", sound.rate));
    let length = ((128.0 / ratio.min(1.0)) as usize).next_multiple_of(8);
    let parameters = SincInterpolationParameters::new(length, WindowFunction::BlackmanHarris2);
    let mut resampler = Async::<f32>::new_sinc(ratio, 1.0, &parameters, 4_096, 1, FixedAsync::Input)
        .map_err(|error| odd(error.to_string()))?;
    let (frames, input) = (mono.len(), vec![mono]);
    let input = SequentialSliceOfVecs::new(&input, 1, frames).map_err(|error| odd(error.to_string()))?;
    let made = resampler.process_all(&input, frames, None).map_err(|error| odd(error.to_string()))?;
    Ok(made.take_data())
}

impl Folder {
    /// Cuts files with the trait and files without it into clips of four seconds.
    ///
    /// # Errors
    /// A side without files, a file that cannot be read or resampled; [`LearnError::Stopped`].
    pub fn of(sides: [&[PathBuf]; 2], watch: Watch) -> Result<Self, LearnError> {
        if let Some(side) = sides.iter().position(|files| files.is_empty()) {
            let (missing, other) = if side == 0 { ("with", "without") } else { ("without", "with") };
            return Err(LearnError::TooLittle(format!(
                "there are no recordings {missing} the trait: a direction leads from those {other} it to those {missing} it, so \
                 give some of both"
            )));
        }
        let mut digest = Sha256::new();
        let mut clips = Vec::new();
        let mut first_group = 0;
        let stretched = sides.iter().any(|files| files.len() < FILES);
        let read = |path: &PathBuf| {
            watch.check()?;
            Ok((hash(path)?, cut(path)?))
        };
        for (class, files) in sides.iter().enumerate() {
            let cut: Vec<(String, Vec<Vec<f32>>)> = files.par_iter().map(read).collect::<Result<_, LearnError>>()?;
            let count: usize = cut.iter().map(|(_, clips)| clips.len()).sum();
            let mut place = 0;
            for (file, (hash, audio)) in cut.into_iter().enumerate() {
                digest.update(hash.as_bytes());
                for audio in audio {
                    let group = if stretched { place * STRETCHES / count } else { file };
                    let label = Label { class, level: 0.0, group: first_group + group, height: None, piece: None };
                    clips.push(FolderClip { audio, label });
                    place += 1;
                }
            }
            first_group += files.len().max(STRETCHES);
        }
        let hash = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { clips, hash, files: sides.iter().map(|files| files.len()).sum(), stretched })
    }
}

fn hash(path: &Path) -> Result<String, LearnError> {
    let bytes = std::fs::read(path).map_err(|source| LearnError::Folder { path: path.to_owned(), source })?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A file's clips, all at one level; silent ones are left out.
fn cut(path: &Path) -> Result<Vec<Vec<f32>>, LearnError> {
    let audio = resampled(&Sound::read(path)?)?;
    let mut clips: Vec<Vec<f32>> = audio
        .chunks(CLIP_SAMPLES)
        .filter(|clip| clip.len() >= LEAST_SAMPLES && clip.iter().all(|x| x.is_finite()))
        .map(<[f32]>::to_vec)
        .collect();
    clips.retain_mut(|clip| scale_to(clip, CLIP_RMS));
    if clips.len() > MOST_OF_A_FILE {
        // Evenly over the file.
        let count = clips.len();
        let kept: Vec<usize> = (0..MOST_OF_A_FILE).map(|i| i * count / MOST_OF_A_FILE).collect();
        clips = kept.into_iter().map(|i| std::mem::take(&mut clips[i])).collect();
    }
    Ok(clips)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32, seconds: f64) -> Sound {
        let sample = |i: usize| (0.2 * (std::f64::consts::TAU * hertz * i as f64 / f64::from(rate)).sin()) as f32;
        let mono: Vec<f32> = (0..(seconds * f64::from(rate)) as usize).map(sample).collect();
        Sound { samples: mono.iter().flat_map(|x| [*x, *x]).collect(), channels: 2, rate }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tiller-folder-{name}-{}", std::process::id()));
        for side in ["with", "without"] {
            std::fs::create_dir_all(folder.join(side)).expect("made");
        }
        folder
    }

    fn read(folder: &Path) -> Result<Folder, LearnError> {
        let [with, without] = sides(folder)?;
        Folder::of([&with, &without], Watch::IDLE)
    }

    #[test]
    fn files_are_resampled_cut_and_kept_together() {
        let folder = folder("three");
        for i in 0..3 {
            tone(440.0, 44_100, 9.0).write(&folder.join(format!("with/{i}.wav"))).expect("written");
            tone(220.0, 32_000, 4.5).write(&folder.join(format!("without/{i}.flac"))).expect("written");
        }
        std::fs::write(folder.join("with/notes.txt"), "no sound").expect("written");
        let read = read(&folder).expect("reads");
        assert_eq!((read.files, read.stretched, read.clips.len()), (6, false, 3 * 2 + 3));
        let (with, without): (Vec<_>, Vec<_>) = read.clips.iter().partition(|clip| clip.label.class == 0);
        assert!(with.iter().all(|clip| clip.label.group < 3) && without.iter().all(|clip| clip.label.group >= 5));
        for (clips, hertz) in [(&with, 440.0), (&without, 220.0)] {
            let audio = &clips[0].audio;
            let rising = audio.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
            assert!((rising as f64 - 4.0 * hertz).abs() < 4.0, "{rising} periods in four seconds of {hertz} Hz");
        }
        let before = read.hash;
        tone(441.0, 44_100, 9.0).write(&folder.join("with/0.wav")).expect("written");
        assert_ne!(read(&folder).expect("reads").hash, before);
        std::fs::remove_dir_all(folder).expect("cleaned");
    }

    #[test]
    fn few_files_are_stretched_and_none_are_refused() {
        let folder = folder("few");
        assert!(read(&folder).is_err());
        tone(440.0, 32_000, 41.0).write(&folder.join("with/a.wav")).expect("written");
        tone(220.0, 32_000, 41.0).write(&folder.join("without/a.wav")).expect("written");
        let read = read(&folder).expect("reads");
        let groups = |class| {
            let mut groups: Vec<usize> =
                read.clips.iter().filter(|c| c.label.class == class).map(|c| c.label.group).collect();
            groups.dedup();
            groups
        };
        assert!(read.stretched);
        assert_eq!((groups(0), groups(1)), (vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9]));
        std::fs::write(folder.join("with/broken.wav"), "RIFF").expect("written");
        assert!(read(&folder).is_err());
        std::fs::remove_dir_all(folder).expect("cleaned");
    }
}
