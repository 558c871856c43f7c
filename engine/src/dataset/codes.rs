//! Training music as codes: rendered and encoded in one go, no audio kept, in parts that a later run goes on from. Any
//! number of worker threads (rayon's). A part is a NumPy array and its labels, one JSON line per clip.

use super::files::{MusicLabel, as_read, write_error};
use super::music::{Keys, Music};
use super::render::Renderer;
use super::{DatasetError, GENERATOR_VERSION, SAMPLE_RATE};
use crate::checkpoint::{CheckpointSource, Config, Weights};
use crate::codec::CodecEncoder;
use crate::whole_file;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Clips in a part. A kill loses at most this many.
pub const PART: u64 = 256;

/// Bytes before the codes in a part: NumPy's format 1.0, padded to a fixed size.
const HEADER: usize = 128;

/// A codec that encodes training music: mono at 32 kHz.
pub struct TrainingCodec {
    encoder: CodecEncoder,
    codebooks: usize,
    fingerprint: String,
}

impl TrainingCodec {
    /// Reads the codec of a MusicGen checkpoint; the rest of the checkpoint may be untrained.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, or a codec that does not take mono audio at 32 kHz.
    pub fn load(source: &CheckpointSource) -> Result<Self, DatasetError> {
        let config = Config::read(source)?;
        let codec = &config.codec;
        if codec.sampling_rate as usize != SAMPLE_RATE || codec.audio_channels != 1 {
            return Err(DatasetError::Request(format!(
                "the codec of {} takes {} channels at {} Hz: training music is mono at {SAMPLE_RATE} Hz",
                source.folder(),
                codec.audio_channels,
                codec.sampling_rate
            )));
        }
        if codec.codebook_size > usize::from(u16::MAX) + 1 {
            return Err(DatasetError::Request(format!(
                "{} codes a codebook do not fit the 16 bits of a part",
                codec.codebook_size
            )));
        }
        let codebooks = config.decoder.codebooks_per_channel();
        let encoder = CodecEncoder::load(&Weights::read(source, &|_| ())?, codec, codebooks)?;
        // What it makes of a fixed sound tells codecs apart, whatever else their checkpoints hold.
        let sweep: Vec<f32> = (0..SAMPLE_RATE / 2).map(|i| 0.3 * (i as f32 * i as f32 * 2e-5).sin()).collect();
        let mut digest = Sha256::new();
        encoder.encode(&sweep)?.frame_major().iter().for_each(|code| digest.update(code.to_le_bytes()));
        let fingerprint = digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { encoder, codebooks, fingerprint })
    }

    /// Codes of one clip, `[codebooks][frames]` in one row, and its label.
    fn clip(
        &self,
        renderer: &Renderer,
        request: &CodesRequest,
        index: u64,
    ) -> Result<(Vec<u16>, MusicLabel), DatasetError> {
        let music = Music::compose_with(request.keys, request.seed, index, request.seconds);
        let samples = request.frames(self.encoder.hop()) * self.encoder.hop();
        let mut audio = renderer.music(&music, samples)?;
        audio.iter_mut().for_each(|x| *x = as_read(*x));
        let codes = self.encoder.encode(&audio)?;
        let row = (0..self.codebooks).flat_map(|k| codes.codebook(k)).map(|&code| code as u16).collect();
        Ok((row, MusicLabel::new(&music, samples)))
    }
}

/// What to write, and where.
#[derive(Debug, Clone)]
pub struct CodesRequest {
    /// Folder of the parts; it may hold parts of an earlier run.
    pub folder: PathBuf,
    /// SoundFont 2 file to play.
    pub soundfont: PathBuf,
    /// Seed of the data set.
    pub seed: u64,
    /// How its clips share out the keys.
    pub keys: Keys,
    /// Index of the first clip, a multiple of [`PART`].
    pub first: u64,
    /// Number of clips.
    pub clips: u64,
    /// Length of a clip; what is left over after the last whole frame is dropped.
    pub seconds: f64,
}

impl CodesRequest {
    fn frames(&self, hop: usize) -> usize {
        (self.seconds * SAMPLE_RATE as f64).round() as usize / hop
    }

    fn parts(&self) -> impl Iterator<Item = std::ops::Range<u64>> + use<> {
        let end = self.first + self.clips;
        (self.first..end).step_by(PART as usize).map(move |start| start..end.min(start + PART))
    }
}

/// `meta.json`: all that decides which codes a clip has. Parts of one folder have it in common.
#[derive(Serialize)]
struct Meta<'a> {
    kind: &'a str,
    seed: u64,
    keys: Keys,
    seconds: f64,
    frames: usize,
    codebooks: usize,
    frames_per_second: f64,
    codec: &'a str,
    generator_version: u32,
    soundfont: String,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many clips were there from an earlier run.
    Kept(u64),
    /// One more clip is encoded.
    Encoded,
}

/// Renders and encodes clips `first..first + clips` into `codes-FIRST.npy` (u16, `[clips, codebooks, frames]`) and
/// `clips-FIRST.jsonl`, a part at a time; FIRST is the part's first clip. Complete parts are left alone. A part's codes
/// appear after its labels and all at once, so that a trainer may read the folder meanwhile. Returns `clips`.
///
/// # Errors
/// A folder that holds codes of other music or of another codec, a clip that cannot be rendered, or a file that cannot
/// be written.
pub fn write_codes(
    request: &CodesRequest,
    codec: &TrainingCodec,
    progress: impl Fn(Progress) + Sync,
) -> Result<u64, DatasetError> {
    if !request.first.is_multiple_of(PART) {
        return Err(DatasetError::Request(format!("--first {} is not a multiple of {PART}", request.first)));
    }
    let frames = request.frames(codec.encoder.hop());
    if frames == 0 {
        return Err(DatasetError::Request(format!("{} s hold no frame of the codec", request.seconds)));
    }
    let renderer = Renderer::open(&request.soundfont)?;
    fs::create_dir_all(&request.folder).map_err(write_error(&request.folder))?;
    settle_meta(request, codec, frames)?;
    let row_bytes = codec.codebooks * frames * 2;
    for part in request.parts() {
        let array = request.folder.join(format!("codes-{:06}.npy", part.start));
        let wanted = part.end - part.start;
        if clips_in(&array, row_bytes) >= wanted {
            progress(Progress::Kept(wanted));
            continue;
        }
        let made: Vec<(Vec<u16>, MusicLabel)> = part
            .clone()
            .into_par_iter()
            .map(|index| codec.clip(&renderer, request, index).inspect(|_| progress(Progress::Encoded)))
            .collect::<Result<_, _>>()?;
        let (mut bytes, mut labels) = (header(made.len(), codec.codebooks, frames), Vec::new());
        for (row, label) in &made {
            bytes.extend(row.iter().flat_map(|code| code.to_le_bytes()));
            serde_json::to_writer(&mut labels, label).map_err(|e| DatasetError::Request(e.to_string()))?;
            labels.push(b'\n');
        }
        keep(&request.folder.join(format!("clips-{:06}.jsonl", part.start)), &labels)?;
        keep(&array, &bytes)?;
    }
    Ok(request.clips)
}

/// Clips in a part that is there; 0 for one that is not, or is cut short.
fn clips_in(array: &Path, row_bytes: usize) -> u64 {
    let Ok(found) = fs::metadata(array) else { return 0 };
    let rows = (found.len() as usize).saturating_sub(HEADER);
    if rows.is_multiple_of(row_bytes) { (rows / row_bytes) as u64 } else { 0 }
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    whole_file::write(path, bytes).map_err(write_error(path))
}

/// The start of a `.npy` file: little-endian u16 in C order, `[clips, codebooks, frames]`.
fn header(clips: usize, codebooks: usize, frames: usize) -> Vec<u8> {
    let words = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({clips}, {codebooks}, {frames}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((HEADER - 10) as u16).to_le_bytes());
    bytes.extend(words.as_bytes());
    bytes.resize(HEADER - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Writes `meta.json`, or checks the one that an earlier run left.
fn settle_meta(request: &CodesRequest, codec: &TrainingCodec, frames: usize) -> Result<(), DatasetError> {
    let meta = Meta {
        kind: "codes",
        seed: request.seed,
        keys: request.keys,
        seconds: request.seconds,
        frames,
        codebooks: codec.codebooks,
        frames_per_second: SAMPLE_RATE as f64 / codec.encoder.hop() as f64,
        codec: &codec.fingerprint,
        generator_version: GENERATOR_VERSION,
        soundfont: request.soundfont.display().to_string(),
    };
    let wanted = serde_json::to_value(&meta).map_err(|e| DatasetError::Request(e.to_string()))?;
    let path = request.folder.join("meta.json");
    match fs::read(&path) {
        Ok(bytes) => {
            let found: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            match departures(&wanted, &found)[..] {
                [] => Ok(()),
                ref others => Err(DatasetError::Request(format!(
                    "{} has parts with another {}: choose another --out, or remove it",
                    request.folder.display(),
                    others.join(", ")
                ))),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => keep(&path, format!("{wanted:#}\n").as_bytes()),
        Err(error) => Err(DatasetError::Request(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Names of the fields whose values differ.
fn departures<'a>(wanted: &'a Value, found: &Value) -> Vec<&'a str> {
    let fields = wanted.as_object().into_iter().flatten();
    fields.filter(|(name, value)| found.get(name.as_str()) != Some(value)).map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::render::DEFAULT_SOUNDFONT;
    use super::*;
    use crate::embedded;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_header_is_numpys() {
        let bytes = header(256, 4, 800);
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let words = std::str::from_utf8(&bytes[10..]).expect("ASCII");
        assert_eq!(words.trim_end(), "{'descr': '<u2', 'fortran_order': False, 'shape': (256, 4, 800), }");
        assert!(words.ends_with('\n') && bytes.len().is_multiple_of(64));
    }

    #[test]
    fn requests_are_cut_into_parts() {
        let request = |first, clips| CodesRequest {
            folder: PathBuf::new(),
            soundfont: PathBuf::new(),
            seed: 1,
            keys: Keys::Spread,
            first,
            clips,
            seconds: 1.0,
        };
        assert_eq!(request(256, 300).parts().collect::<Vec<_>>(), [256..512, 512..556]);
        assert_eq!(request(0, 0).parts().count(), 0);
        assert_eq!(request(0, 1).frames(640), 50);
    }

    #[test]
    fn a_folder_is_gone_on_with_and_never_mixed() {
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let codec = TrainingCodec::load(&source).expect("the demo's codec");
        let folder = std::env::temp_dir().join(format!("tiller-codes-{}", std::process::id()));
        let run = |clips, seed| {
            let request = CodesRequest {
                folder: folder.clone(),
                soundfont: DEFAULT_SOUNDFONT.into(),
                seed,
                keys: Keys::Spread,
                first: 0,
                clips,
                seconds: 0.5,
            };
            let encoded = AtomicU64::new(0);
            let count = |event| {
                if event == Progress::Encoded {
                    encoded.fetch_add(1, Ordering::Relaxed);
                }
            };
            write_codes(&request, &codec, count).map(|_| encoded.into_inner())
        };
        let bytes = || fs::read(folder.join("codes-000000.npy")).expect("a part");
        assert_eq!(run(2, 7).expect("writes"), 2);
        let two = bytes();
        assert_eq!(two.len(), HEADER + 2 * 4 * 25 * 2);
        assert_eq!(run(2, 7).expect("is there"), 0);
        // A part that is too short for the request is made again, and begins alike.
        assert_eq!(run(3, 7).expect("writes"), 3);
        assert_eq!(bytes()[HEADER..two.len()], two[HEADER..]);
        let labels = fs::read_to_string(folder.join("clips-000000.jsonl")).expect("labels");
        assert_eq!(labels.lines().count(), 3);
        // The codes are those of the audio that `write_music` would have stored.
        let music = Music::compose(7, 1, 0.5);
        let audio =
            Renderer::open(DEFAULT_SOUNDFONT.as_ref()).expect("SoundFont").music(&music, 16_000).expect("audio");
        let read: Vec<f32> = audio.into_iter().map(as_read).collect();
        let wanted = codec.encoder.encode(&read).expect("codes");
        let pairs = two[HEADER + 200..][..200].as_chunks::<2>().0;
        let row: Vec<u32> = pairs.iter().map(|&pair| u32::from(u16::from_le_bytes(pair))).collect();
        assert_eq!(row, (0..4).flat_map(|k| wanted.codebook(k).to_vec()).collect::<Vec<_>>());
        let refused = run(2, 8).expect_err("another seed");
        assert!(refused.to_string().contains("another seed"), "{refused}");
        fs::remove_dir_all(&folder).expect("cleans up");
    }
}
