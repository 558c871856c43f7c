//! Makes scores sound: a General MIDI synthesizer over a SoundFont (crate `rustysynth`), mono. Worker threads.

use super::music::Music;
use super::{DatasetError, SAMPLE_RATE, tones};
use rustysynth::{SoundFont, Synthesizer, SynthesizerSettings};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Debian's `timgm6mb-soundfont` puts its file.
pub const DEFAULT_SOUNDFONT: &str = "/usr/share/sounds/sf2/TimGM6mb.sf2";

/// Level that every clip of music is scaled to (root mean square of full scale).
pub const CLIP_RMS: f32 = 0.12;

/// No sample exceeds this.
pub const CLIP_PEAK: f32 = 0.98;

/// One thing to do at a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    /// When, in samples.
    pub at: usize,
    /// Releases come before strikes at the same sample (false sorts first).
    pub strikes: bool,
    /// MIDI channel.
    pub channel: u8,
    /// MIDI note.
    pub midi: u8,
    /// Velocity; not used by a release.
    pub velocity: u8,
}

/// What renders clips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tones {
    /// The SoundFont that Tiller makes itself ([`tones`]).
    #[default]
    BuiltIn,
    /// A SoundFont 2 file.
    SoundFont(PathBuf),
}

impl Tones {
    /// What people call them.
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn => "built-in".to_owned(),
            Self::SoundFont(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        }
    }
}

/// A SoundFont ready to play. Cheap to clone: the samples are shared.
#[derive(Clone)]
pub struct Renderer {
    soundfont: Arc<SoundFont>,
    hash: Arc<str>,
}

impl Renderer {
    /// Reads a SoundFont 2 file.
    ///
    /// # Errors
    /// [`DatasetError::SoundFontMissing`] or [`DatasetError::SoundFontInvalid`], naming the path.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let bytes =
            std::fs::read(path).map_err(|source| DatasetError::SoundFontMissing { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// The SoundFont of our own, made anew.
    ///
    /// # Errors
    /// [`DatasetError::SoundFontInvalid`], which would be a fault of ours.
    pub fn built_in() -> Result<Self, DatasetError> {
        Self::from_bytes(&tones::soundfont(), Path::new("Tiller's own SoundFont"))
    }

    /// What `tones` are.
    ///
    /// # Errors
    /// As [`Renderer::open`].
    pub fn of(tones: &Tones) -> Result<Self, DatasetError> {
        match tones {
            Tones::BuiltIn => Self::built_in(),
            Tones::SoundFont(path) => Self::open(path),
        }
    }

    fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, DatasetError> {
        let soundfont = SoundFont::new(&mut &*bytes)
            .map_err(|e| DatasetError::SoundFontInvalid { path: path.to_owned(), reason: e.to_string() })?;
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { soundfont: Arc::new(soundfont), hash: hash.into() })
    }

    /// SHA-256 of the SoundFont, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Renders `samples` samples of a composed clip at 32 kHz, mono, scaled to [`CLIP_RMS`] and limited to [`CLIP_PEAK`].
    ///
    /// # Errors
    /// [`DatasetError::Silent`] when the SoundFont makes no sound for it.
    pub fn music(&self, music: &Music, samples: usize) -> Result<Vec<f32>, DatasetError> {
        let per_beat = SAMPLE_RATE as f64 * 60.0 / music.bpm;
        let at = |beat: f64| (beat * per_beat).round() as usize;
        let skip = at(music.start_beat);
        let mut events = Vec::new();
        for (channel, voice) in music.voices.iter().enumerate() {
            for note in voice.notes.iter().filter(|note| at(note.start) < skip + samples) {
                let event = Event {
                    at: at(note.start),
                    strikes: true,
                    channel: channel as u8,
                    midi: note.midi,
                    velocity: note.velocity,
                };
                events.push(event);
                // A sample early, so that a repeated note is released before it is struck again.
                events.push(Event { at: at(note.end).saturating_sub(1).max(event.at + 1), strikes: false, ..event });
            }
        }
        let channels: Vec<(u8, u8)> = music.voices.iter().map(|v| (v.instrument.program, v.volume)).collect();
        let mut audio = self.play(&channels, events, skip + samples, true)?;
        audio.drain(..skip);
        if !scale_to(&mut audio, CLIP_RMS) {
            let program = channels.first().map_or(0, |c| c.0);
            return Err(DatasetError::Silent { seed: music.seed, index: music.index, program });
        }
        Ok(audio)
    }

    /// Plays events on channels given as (program, volume); `samples` samples, mono, not scaled.
    pub(super) fn play(
        &self,
        channels: &[(u8, u8)],
        mut events: Vec<Event>,
        samples: usize,
        room: bool,
    ) -> Result<Vec<f32>, DatasetError> {
        let mut settings = SynthesizerSettings::new(SAMPLE_RATE as i32);
        settings.enable_reverb_and_chorus = room;
        let mut synth =
            Synthesizer::new(&self.soundfont, &settings).map_err(|e| DatasetError::Synthesizer(e.to_string()))?;
        for (channel, &(program, volume)) in channels.iter().enumerate() {
            let channel = channel as i32;
            synth.process_midi_message(channel, 0xC0, i32::from(program), 0);
            synth.process_midi_message(channel, 0xB0, 7, i32::from(volume));
        }
        events.sort_unstable();
        let (mut left, mut right) = (vec![0.0f32; samples], vec![0.0f32; samples]);
        let mut done = 0;
        for event in events {
            let until = event.at.min(samples);
            if until > done {
                synth.render(&mut left[done..until], &mut right[done..until]);
                done = until;
            }
            if event.strikes {
                synth.note_on(i32::from(event.channel), i32::from(event.midi), i32::from(event.velocity));
            } else {
                synth.note_off(i32::from(event.channel), i32::from(event.midi));
            }
        }
        synth.render(&mut left[done..], &mut right[done..]);
        left.iter_mut().zip(&right).for_each(|(l, r)| *l = 0.5 * (*l + r));
        remove_offset(&mut left);
        Ok(left)
    }
}

/// Root mean square of a signal; 0 for an empty one.
pub fn rms(audio: &[f32]) -> f32 {
    let sum: f64 = audio.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (sum / audio.len().max(1) as f64).sqrt() as f32
}

/// High-pass at about 10 Hz: some SoundFont samples (the saxophone's, for one) carry a large constant offset.
fn remove_offset(audio: &mut [f32]) {
    let keep = 1.0 - std::f64::consts::TAU * 10.0 / SAMPLE_RATE as f64;
    let (mut before, mut out) = (0.0f64, 0.0f64);
    for sample in audio {
        let now = f64::from(*sample);
        out = now - before + keep * out;
        before = now;
        *sample = out as f32;
    }
}

/// Scales to a root mean square and rounds off peaks above 0.7 so that none exceeds [`CLIP_PEAK`]. False when silent.
pub(crate) fn scale_to(audio: &mut [f32], level: f32) -> bool {
    let now = rms(audio);
    if now < 1e-5 {
        return false;
    }
    const KNEE: f32 = 0.7;
    let room = CLIP_PEAK - KNEE;
    for sample in audio {
        let scaled = *sample * (level / now);
        let over = scaled.abs() - KNEE;
        *sample = if over > 0.0 { scaled.signum() * (KNEE + room * (over / room).tanh()) } else { scaled };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_sets_the_level_and_bounds_the_peak() {
        let mut audio: Vec<f32> = (0..32_000).map(|i| (i as f32 * 0.05).sin() * 0.01).collect();
        audio[100] = 5.0;
        assert!(scale_to(&mut audio, 0.12));
        assert!(audio.iter().all(|x| x.abs() <= CLIP_PEAK));
        assert!(!scale_to(&mut [0.0; 64], 0.12));
    }

    #[test]
    fn a_constant_offset_goes_and_the_tone_stays() {
        let mut audio: Vec<f32> = (0..64_000).map(|i| 0.5 + (i as f32 * 0.05).sin() * 0.1).collect();
        remove_offset(&mut audio);
        let tail = &audio[32_000..];
        assert!(tail.iter().sum::<f32>().abs() / 32_000.0 < 1e-3);
        assert!((rms(tail) - 0.1 / 2f32.sqrt()).abs() < 1e-3, "{}", rms(tail));
    }

    #[test]
    fn a_clip_sounds_from_its_start_and_repeats() {
        let renderer = Renderer::open(Path::new(DEFAULT_SOUNDFONT)).unwrap_or_else(|error| panic!("{error}"));
        for index in 0..6 {
            let music = Music::compose(3, index, 4.0);
            let audio = renderer.music(&music, 4 * SAMPLE_RATE).expect("renders");
            assert_eq!(audio, renderer.music(&music, 4 * SAMPLE_RATE).expect("renders"));
            assert!((rms(&audio) - CLIP_RMS).abs() < 0.01, "{}", rms(&audio));
            assert!(rms(&audio[..SAMPLE_RATE / 2]) > 0.01, "clip {index} begins with silence: {}", music.prompt);
        }
    }
}
