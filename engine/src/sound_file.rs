//! Sound files that programs write and read: WAV (32-bit float) and FLAC (16 bit, for clips that travel with the
//! repository). Any thread that may wait.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use flac_codec::decode::{FlacSampleReader, Metadata};
use flac_codec::encode::{FlacSampleWriter, Options};

use crate::whole_file;

/// A sound file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SoundFileError {
    /// The name ends in something else.
    #[error("{0}: the name must end in .wav or .flac")]
    Extension(PathBuf),
    /// The file system or the format said no.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
}

/// Interleaved samples with what is needed to play them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Interleaved samples, 1.0 is full scale.
    pub samples: Vec<f32>,
    /// Channels, 1 or more.
    pub channels: u16,
    /// Samples per second and channel.
    pub rate: u32,
}

impl Sound {
    /// The mean of the channels.
    pub fn mono(&self) -> Vec<f32> {
        let channels = usize::from(self.channels.max(1));
        self.samples.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect()
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// [`SoundFileError`] for another extension than `wav` and `flac`, and when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SoundFileError> {
        let make = match extension(path) {
            "wav" => Self::write_wav,
            "flac" => Self::write_flac,
            _ => return Err(SoundFileError::Extension(path.to_owned())),
        };
        whole_file::write_by(path, |beside| make(self, beside).map_err(io::Error::other))
            .map_err(|error| SoundFileError::File { path: path.to_owned(), reason: error.to_string() })
    }

    fn write_wav(&self, path: &Path) -> Result<(), String> {
        let spec = hound::WavSpec {
            channels: self.channels,
            sample_rate: self.rate,
            bits_per_sample: 32,
            sample_format: hound::SampleFormat::Float,
        };
        let mut writer = hound::WavWriter::create(path, spec).map_err(|error| error.to_string())?;
        for sample in &self.samples {
            writer.write_sample(*sample).map_err(|error| error.to_string())?;
        }
        writer.finalize().map_err(|error| error.to_string())
    }

    /// 16 bit, rounded; what is beyond full scale is clipped.
    fn write_flac(&self, path: &Path) -> Result<(), String> {
        let text = |error: flac_codec::Error| error.to_string();
        let file = BufWriter::new(File::create(path).map_err(|error| error.to_string())?);
        let (channels, total) = (self.channels as u8, Some(self.samples.len() as u64));
        let mut writer =
            FlacSampleWriter::new(file, Options::best().no_padding(), self.rate, 16, channels, total).map_err(text)?;
        let whole = |sample: &f32| (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i32;
        let samples: Vec<i32> = self.samples.iter().map(whole).collect();
        writer.write(&samples).map_err(text)?;
        writer.finalize().map_err(text)
    }

    /// Reads a file that [`Sound::write`] or another program wrote.
    ///
    /// # Errors
    /// [`SoundFileError`] for another extension than `wav` and `flac`, and when the file is not what it says.
    pub fn read(path: &Path) -> Result<Self, SoundFileError> {
        match extension(path) {
            "wav" => read_wav(path),
            "flac" => read_flac(path),
            _ => return Err(SoundFileError::Extension(path.to_owned())),
        }
        .map_err(|reason| SoundFileError::File { path: path.to_owned(), reason })
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|text| text.to_str()).unwrap_or_default()
}

fn read_wav(path: &Path) -> Result<Sound, String> {
    let mut reader = hound::WavReader::open(path).map_err(|error| error.to_string())?;
    let spec = reader.spec();
    let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect(),
        hound::SampleFormat::Int => {
            let full = (1i64 << (spec.bits_per_sample - 1)) as f32;
            reader.samples::<i32>().map(|sample| sample.map(|s| s as f32 / full)).collect()
        }
    };
    Ok(Sound { samples: samples.map_err(|error| error.to_string())?, channels: spec.channels, rate: spec.sample_rate })
}

fn read_flac(path: &Path) -> Result<Sound, String> {
    let text = |error: flac_codec::Error| error.to_string();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut reader = FlacSampleReader::new(BufReader::new(file)).map_err(text)?;
    let (channels, rate) = (u16::from(reader.channel_count()), reader.sample_rate());
    let full = (1i64 << (reader.bits_per_sample() - 1)) as f32;
    let mut whole = Vec::new();
    reader.read_to_end(&mut whole).map_err(text)?;
    Ok(Sound { samples: whole.into_iter().map(|sample| sample as f32 / full).collect(), channels, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone() -> Sound {
        let sample = |i: usize| 0.5 * ((i / 2) as f32 * 0.05).sin() * if i.is_multiple_of(2) { 1.0 } else { 0.25 };
        Sound { samples: (0..20_000).map(sample).collect(), channels: 2, rate: 32_000 }
    }

    #[test]
    fn both_formats_give_back_what_was_written() {
        let folder = std::env::temp_dir();
        for (name, tolerance) in [("wav", 0.0), ("flac", 0.5 / 32_768.0)] {
            let path = folder.join(format!("tiller-sound-{}.{name}", std::process::id()));
            tone().write(&path).expect("writes");
            let read = Sound::read(&path).expect("reads");
            assert_eq!((read.channels, read.rate, read.samples.len()), (2, 32_000, 20_000));
            let worst = read.samples.iter().zip(&tone().samples).fold(0.0f32, |w, (a, b)| w.max((a - b).abs()));
            assert!(worst <= tolerance + 1e-7, "{name}: {worst}");
            let bytes = std::fs::metadata(&path).expect("is there").len();
            assert!(name == "wav" || bytes < 30_000, "{bytes} bytes for 40,000 of plain samples");
            std::fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_clipped_and_bad_files_are_named() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("tiller-loud-{}.flac", std::process::id()));
        Sound { samples: vec![2.0, -2.0, 0.0, 0.5], channels: 1, rate: 32_000 }.write(&path).expect("writes");
        assert_eq!(Sound::read(&path).expect("reads").samples, [32_767.0 / 32_768.0, -1.0, 0.0, 0.5]);
        std::fs::write(&path, b"fLaC but no more").expect("writes");
        let error = Sound::read(&path).expect_err("is no sound").to_string();
        assert!(error.contains("tiller-loud"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(tone().write(Path::new("x.mp3")), Err(SoundFileError::Extension(_))));
        assert!(matches!(Sound::read(Path::new("none.wav")), Err(SoundFileError::File { .. })));
    }
}
