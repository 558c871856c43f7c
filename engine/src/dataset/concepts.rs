//! Labelled clips of one concept each, after SynTheory (brown-palm/syntheory; `method.md` 1): notes, chords, intervals,
//! scales, tempo, time signature. Four seconds; pure functions of their place in the list. Worker threads.
//!
//! Differences from SynTheory: registers are whole octaves from several lows, so that no class is higher than another;
//! extreme registers, where a codec hears nothing, are left out; tempo is music rather than clicks, since a direction
//! that is to steer music should be learned from it.

use super::harmony::{Harmony, Key, Mode, PITCH_CLASS_NAMES, Window};
use super::instruments::INSTRUMENTS;
use super::music::{Music, Setting};
use super::random::Random;
use super::render::{CLIP_RMS, Event, Renderer, scale_to};
use super::{DatasetError, SAMPLE_RATE};
use crate::control::{Chord, Quality};
use std::str::FromStr;

/// What a model may know of music theory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Concept {
    /// The twelve pitch classes: one pitch struck four times.
    Notes,
    /// Root and quality of a triad struck four times.
    Chords,
    /// Two tones, 1 to 12 semitones apart, one after the other or together.
    Intervals,
    /// The seven modes of the major scale, up or down.
    Scales,
    /// Beats per minute, a number rather than classes.
    Tempo,
    /// Eight time signatures, told by accents.
    TimeSignatures,
}

/// GM programs that tonal concepts are learned from: the families of GM without those that have strong or ambiguous
/// overtones.
pub const PROGRAMS: [u8; 20] = [0, 4, 6, 11, 12, 16, 19, 24, 27, 40, 42, 46, 48, 52, 56, 61, 65, 71, 73, 89];

/// The modes, each the major scale from another of its degrees.
const MODES: [&str; 7] = ["ionian", "dorian", "phrygian", "lydian", "mixolydian", "aeolian", "locrian"];
const MAJOR_SCALE: [u8; 7] = [0, 2, 4, 5, 7, 9, 11];

/// Time signatures: name, clicks in a bar, clicks a second.
const TIME_SIGNATURES: [(&str, usize, f64); 8] = [
    ("2/2", 2, 1.0),
    ("2/4", 2, 2.0),
    ("3/4", 3, 2.0),
    ("3/8", 3, 4.0),
    ("4/4", 4, 2.0),
    ("6/8", 6, 4.0),
    ("9/8", 9, 4.0),
    ("12/8", 12, 4.0),
];

/// Lowest notes of the one-octave windows that chords and intervals lie in.
const LOWS: [u8; 3] = [48, 55, 62];

/// Length of a clip in seconds.
const SECONDS: f64 = 4.0;

/// Tempo clips, and the seed that their music comes from: no training, dev or test seed.
const TEMPO_CLIPS: u64 = 1_200;
const TEMPO_SEED: u64 = 700_001;
/// The same of the pieces that stay on a note or a chord.
const MUSIC_SEED: u64 = 700_002;
/// Pieces of each instrument.
const NOTE_PIECES: usize = 8;
const CHORD_PIECES: usize = 3;
const TEMPO_PIECES: usize = 8;
/// Beats per minute that they are played at.
const TEMPI: [f64; 6] = [60.0, 75.0, 95.0, 118.0, 146.0, 180.0];

/// One strike; times in seconds from the start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Strike {
    start: f64,
    end: f64,
    midi: u8,
    velocity: u8,
}

/// What a clip plays.
#[derive(Debug, Clone, PartialEq)]
enum Score {
    /// One instrument.
    Strikes(Vec<Strike>),
    /// A stretch of composed music: its index under [`TEMPO_SEED`].
    Composed(u64),
    /// Piece `piece` under [`MUSIC_SEED`] in the setting of the clip's class or level.
    Piece { piece: u64, setting: Setting },
}

/// What the clips of notes, chords and tempo are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Clips {
    /// Four even strikes, as in SynTheory; for tempo, pieces of one tempo each.
    Strikes,
    /// Music: pieces that stay on one note or one chord, each in every class, or are played at several tempi. All but the
    /// class is the same, so that neither instrument nor texture can become part of a direction.
    #[default]
    Music,
}

impl Clips {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Strikes, Self::Music];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strikes => "strikes",
            Self::Music => "music",
        }
    }
}

impl FromStr for Clips {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One labelled clip.
#[derive(Debug, Clone, PartialEq)]
pub struct ConceptClip {
    /// Class, in the order of [`Concept::classes`]; 0 for tempo.
    pub class: usize,
    /// The number of a regression: beats per minute for tempo, 0 otherwise.
    pub level: f64,
    /// GM program, 0-based; of the leading voice for tempo. Splits keep programs apart.
    pub program: u8,
    score: Score,
}

impl Concept {
    /// Every concept.
    pub const ALL: [Self; 6] =
        [Self::Notes, Self::Chords, Self::Intervals, Self::Scales, Self::Tempo, Self::TimeSignatures];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::Chords => "chords",
            Self::Intervals => "intervals",
            Self::Scales => "scales",
            Self::Tempo => "tempo",
            Self::TimeSignatures => "time-signatures",
        }
    }

    /// Names of the classes; one, the thing itself, for a regression.
    pub fn classes(self) -> Vec<String> {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match self {
            Self::Notes => named(&PITCH_CLASS_NAMES),
            // Root by root, as lanes address them: class = root * 4 + quality.
            Self::Chords => (0..Chord::COUNT)
                .filter_map(Chord::of_class)
                .map(|chord| format!("{} {}", chord.root.name(), chord.quality.name()))
                .collect(),
            Self::Intervals => (1..=12).map(|semitones| semitones.to_string()).collect(),
            Self::Scales => named(&MODES),
            Self::Tempo => named(&["tempo"]),
            Self::TimeSignatures => TIME_SIGNATURES.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        }
    }

    /// Whether the label is a number rather than a class.
    pub const fn is_level(self) -> bool {
        matches!(self, Self::Tempo)
    }

    /// Every clip, program by program over the given GM programs (tempo has programs of its own).
    pub fn clips(self, programs: &[u8]) -> Vec<ConceptClip> {
        if self == Self::Tempo {
            return (0..TEMPO_CLIPS).map(tempo).collect();
        }
        let scores = self.scores();
        let clip = |program: u8, (class, strikes): &(usize, Vec<Strike>)| ConceptClip {
            class: *class,
            level: 0.0,
            program,
            score: Score::Strikes(strikes.clone()),
        };
        programs.iter().flat_map(|&program| scores.iter().map(move |score| clip(program, score))).collect()
    }

    /// Clips of music rather than strikes, where the concept has them (notes, chords, tempo): at most `instruments`
    /// instruments.
    pub fn music(self, instruments: usize) -> Option<Vec<ConceptClip>> {
        let unison = |tonic| {
            let key = Key { tonic, mode: Mode::Major };
            Setting { key, harmony: Harmony::Unison, tones: vec![tonic], bpm: None }
        };
        let (each, settings): (usize, Vec<Setting>) = match self {
            Self::Notes => (NOTE_PIECES, (0..12).map(unison).collect()),
            Self::Chords => (CHORD_PIECES, (0..Chord::COUNT).filter_map(Chord::of_class).map(vamp).collect()),
            Self::Tempo => (TEMPO_PIECES, TEMPI.map(at_tempo).to_vec()),
            _ => return None,
        };
        // Spread over the families of instruments rather than the first few.
        let count = instruments.min(INSTRUMENTS.len());
        let programs: Vec<u8> = (0..count).map(|i| INSTRUMENTS[i * INSTRUMENTS.len() / count].program).collect();
        let mut found: Vec<Vec<u64>> = vec![Vec::new(); count];
        for piece in 0.. {
            if found.iter().all(|pieces| pieces.len() == each) {
                break;
            }
            // One voice: a second one would be an instrument that the split does not know of.
            let music = Music::compose(MUSIC_SEED, piece, SECONDS);
            let [voice] = &music.voices[..] else { continue };
            let Some(own) = programs.iter().position(|program| *program == voice.instrument.program) else { continue };
            if found[own].len() < each {
                found[own].push(piece);
            }
        }
        let clip = |program: u8, piece: u64| {
            let level = self.is_level();
            settings.iter().enumerate().map(move |(class, setting)| {
                let mut setting = setting.clone();
                if level {
                    // Any key will do, but for all tempi the same.
                    setting.key.tonic = (piece % 12) as usize;
                }
                ConceptClip {
                    class: if level { 0 } else { class },
                    level: setting.bpm.unwrap_or(0.0),
                    program,
                    score: Score::Piece { piece, setting },
                }
            })
        };
        let pieces = programs.iter().zip(&found).flat_map(|(program, own)| own.iter().map(|piece| (*program, *piece)));
        Some(pieces.flat_map(|(program, piece)| clip(program, piece)).collect())
    }

    /// GM programs that clips are rendered with unless told otherwise.
    pub const fn programs(self) -> &'static [u8] {
        match self {
            // Accents are told by instruments that speak at once.
            Self::TimeSignatures => &[0, 6, 11, 12, 24, 46, 115, 116, 118],
            _ => &PROGRAMS,
        }
    }

    fn scores(self) -> Vec<(usize, Vec<Strike>)> {
        match self {
            // C2 to B5: whole octaves, so that pitch classes have the same number of clips.
            Self::Notes => (36..84).map(|midi: u8| (usize::from(midi) % 12, repeated(&[midi]))).collect(),
            Self::Chords => chords(),
            Self::Intervals => intervals(),
            Self::Scales => scales(),
            Self::TimeSignatures => time_signatures(),
            Self::Tempo => Vec::new(),
        }
    }
}

impl FromStr for Concept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A piece on one chord: in the mode that has its third, on its own tones.
fn vamp(chord: Chord) -> Setting {
    let mode = match chord.quality {
        Quality::Major | Quality::Augmented => Mode::Major,
        Quality::Minor | Quality::Diminished => Mode::Minor,
    };
    let tones = chord.tones().map(|tone| tone.index()).to_vec();
    Setting { key: Key { tonic: chord.root.index(), mode }, harmony: Harmony::Vamp, tones, bpm: None }
}

/// A piece that moves, at this tempo.
fn at_tempo(bpm: f64) -> Setting {
    let key = Key { tonic: 0, mode: Mode::Major };
    Setting { key, harmony: Harmony::Progression, tones: Vec::new(), bpm: Some(bpm) }
}

/// The same tones four times, evenly.
fn repeated(tones: &[u8]) -> Vec<Strike> {
    let strike = |i: usize, midi: u8| Strike { start: i as f64, end: i as f64 + 0.98, midi, velocity: 64 };
    (0..4).flat_map(|i| tones.iter().map(move |&midi| strike(i, midi))).collect()
}

/// Tones one after the other, evenly over the clip.
fn in_turn(tones: &[u8]) -> Vec<Strike> {
    let slot = SECONDS / tones.len() as f64;
    let strike =
        |(i, &midi): (usize, &u8)| Strike { start: i as f64 * slot, end: (i as f64 + 0.98) * slot, midi, velocity: 64 };
    tones.iter().enumerate().map(strike).collect()
}

/// Every root and quality in each window; within a window the tones lie as they fall, so inversions come with the root.
fn chords() -> Vec<(usize, Vec<Strike>)> {
    let mut scores = Vec::new();
    for low in LOWS {
        let window = Window { low, octaves: 1 };
        for class in 0..Chord::COUNT {
            let placed = Chord::of_class(class).map(|chord| chord.tones().map(|tone| window.place(tone.index(), 0)));
            scores.extend(placed.map(|tones| (class, repeated(&tones))));
        }
    }
    scores
}

fn intervals() -> Vec<(usize, Vec<Strike>)> {
    let mut scores = Vec::new();
    for base in 54..66u8 {
        for semitones in 1..=12u8 {
            let (low, high) = (base, base + semitones);
            let class = usize::from(semitones) - 1;
            scores.push((class, in_turn(&[low, high].repeat(4))));
            scores.push((class, in_turn(&[high, low].repeat(4))));
            scores.push((class, repeated(&[low, high])));
        }
    }
    scores
}

fn scales() -> Vec<(usize, Vec<Strike>)> {
    let mut scores = Vec::new();
    for tonic in 54..66u8 {
        for mode in 0..MODES.len() {
            let degree = |i: usize| MAJOR_SCALE[(mode + i) % 7] + 12 * ((mode + i) / 7) as u8 - MAJOR_SCALE[mode];
            let up: Vec<u8> = (0..8).map(|i| tonic + degree(i)).collect();
            let down: Vec<u8> = up.iter().rev().copied().collect();
            scores.push((mode, in_turn(&up)));
            scores.push((mode, in_turn(&down)));
        }
    }
    scores
}

/// Accented and plain clicks on two pitches, from several places in the bar.
fn time_signatures() -> Vec<(usize, Vec<Strike>)> {
    let mut scores = Vec::new();
    for (class, (_, clicks, rate)) in TIME_SIGNATURES.iter().enumerate() {
        for take in 0..12u64 {
            let mut random = Random::new(TEMPO_SEED, class as u64, take);
            let first = random.below(*clicks);
            let pitch = random.between(50, 70) as u8;
            let offset = random.unit() / rate;
            let count = ((SECONDS - offset) * rate).floor() as usize;
            let strike = |i: usize| {
                let accent = (first + i).is_multiple_of(*clicks);
                let start = offset + i as f64 / rate;
                let (midi, velocity) = if accent { (pitch + 6, 100) } else { (pitch, 75) };
                Strike { start, end: start + 0.9 / rate, midi, velocity }
            };
            scores.push((class, (0..count).map(strike).collect()));
        }
    }
    scores
}

fn tempo(index: u64) -> ConceptClip {
    let music = Music::compose(TEMPO_SEED, index, SECONDS);
    let program = music.voices.first().map_or(0, |voice| voice.instrument.program);
    ConceptClip { class: 0, level: music.bpm, program, score: Score::Composed(index) }
}

impl ConceptClip {
    /// Samples of a clip at 32 kHz.
    pub const SAMPLES: usize = (SECONDS * SAMPLE_RATE as f64) as usize;

    /// Renders the clip: [`ConceptClip::SAMPLES`] samples, mono, every one at the same level. `None` when the SoundFont
    /// is silent there.
    ///
    /// # Errors
    /// [`DatasetError::Synthesizer`] when the synthesizer does not start.
    pub fn render(&self, renderer: &Renderer) -> Result<Option<Vec<f32>>, DatasetError> {
        let composed = match &self.score {
            Score::Strikes(strikes) => return self.strike(renderer, strikes),
            Score::Composed(index) => Music::compose(TEMPO_SEED, *index, SECONDS),
            Score::Piece { piece, setting } => Music::compose_as(setting, MUSIC_SEED, *piece, SECONDS),
        };
        match renderer.music(&composed, Self::SAMPLES) {
            Ok(audio) => Ok(Some(audio)),
            Err(DatasetError::Silent { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The prompt of the piece that the clip is a version of, and its audio as it was composed; `None` where it is of no piece,
    /// or the SoundFont is silent there.
    ///
    /// # Errors
    /// As [`ConceptClip::render`].
    pub fn as_composed(&self, renderer: &Renderer) -> Result<Option<(String, Vec<f32>)>, DatasetError> {
        let Score::Piece { piece, .. } = self.score else { return Ok(None) };
        let composed = Music::compose(MUSIC_SEED, piece, SECONDS);
        match renderer.music(&composed, Self::SAMPLES) {
            Ok(audio) => Ok(Some((composed.prompt, audio))),
            Err(DatasetError::Silent { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn strike(&self, renderer: &Renderer, strikes: &[Strike]) -> Result<Option<Vec<f32>>, DatasetError> {
        let at = |seconds: f64| (seconds * SAMPLE_RATE as f64).round() as usize;
        let events = strikes
            .iter()
            .flat_map(|s| {
                let on = Event { at: at(s.start), strikes: true, channel: 0, midi: s.midi, velocity: s.velocity };
                [on, Event { at: at(s.end), strikes: false, ..on }]
            })
            .collect();
        let mut audio = renderer.play(&[(self.program, 110)], events, Self::SAMPLES, false)?;
        Ok(scale_to(&mut audio, CLIP_RMS).then_some(audio))
    }

    /// Mean MIDI note of the clip, by strike; `None` for composed music.
    pub fn height(&self) -> Option<f64> {
        match &self.score {
            Score::Strikes(strikes) => {
                Some(strikes.iter().map(|s| f64::from(s.midi)).sum::<f64>() / strikes.len().max(1) as f64)
            }
            Score::Composed(_) | Score::Piece { .. } => None,
        }
    }

    /// Which piece it is in one of its classes, where clips of other classes are the same piece.
    pub fn piece(&self) -> Option<u64> {
        match &self.score {
            Score::Piece { piece, .. } => Some(*piece),
            Score::Strikes(_) | Score::Composed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::render::{DEFAULT_SOUNDFONT, rms};
    use super::*;
    use crate::control::PitchClass;
    use std::path::Path;

    fn tones(clip: &ConceptClip) -> Vec<u8> {
        match &clip.score {
            Score::Strikes(strikes) => strikes.iter().map(|s| s.midi).collect(),
            Score::Composed(_) => Vec::new(),
            Score::Piece { piece, setting } => {
                let music = Music::compose_as(setting, MUSIC_SEED, *piece, SECONDS);
                music.voices.iter().flat_map(|voice| &voice.notes).map(|note| note.midi).collect()
            }
        }
    }

    #[test]
    fn every_class_has_as_many_clips_as_the_others_in_every_program() {
        for concept in Concept::ALL.into_iter().filter(|c| !c.is_level()) {
            let classes = concept.classes().len();
            let mut counts = vec![0; classes];
            let clips = concept.clips(&[0, 46]);
            clips.iter().for_each(|clip| counts[clip.class] += 1);
            assert!(counts.iter().all(|&n| n == clips.len() / classes && n >= 2), "{}: {counts:?}", concept.name());
            assert!(clips.iter().all(|clip| tones(clip).iter().all(|t| (24..100).contains(t))));
        }
    }

    #[test]
    fn chords_hold_their_own_tones_and_are_not_higher_than_others() {
        let mut heights = [0.0f64; 48];
        for clip in Concept::Chords.clips(&[0]) {
            let chord = Chord::of_class(clip.class).expect("a chord");
            let wanted = chord.tones().map(PitchClass::index);
            let mut found: Vec<usize> = tones(&clip).iter().map(|t| usize::from(*t) % 12).collect();
            found.truncate(3);
            assert_eq!(found, wanted, "class {}", clip.class);
            heights[clip.class] += clip.height().expect("strikes") / LOWS.len() as f64;
        }
        let (low, high) = heights.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        assert!(high - low < 4.0, "{low} to {high}");
        assert_eq!(Concept::Chords.classes()[4 * 9 + 1], "A minor");
    }

    #[test]
    fn a_piece_is_in_every_class_and_keeps_to_its_tones() {
        for (concept, classes) in [(Concept::Notes, 12), (Concept::Chords, 48)] {
            let clips = concept.music(4).expect("has music");
            let programs: std::collections::BTreeSet<u8> = clips.iter().map(|clip| clip.program).collect();
            assert_eq!(programs.len(), 4);
            for own in clips.chunks(classes) {
                for (class, clip) in own.iter().enumerate() {
                    assert_eq!((clip.class, clip.program, clip.piece()), (class, own[0].program, own[0].piece()));
                    let wanted = match concept {
                        Concept::Notes => vec![class],
                        _ => Chord::of_class(class).expect("a chord").tones().map(PitchClass::index).to_vec(),
                    };
                    let played = tones(clip);
                    assert!(
                        played.iter().all(|tone| wanted.contains(&(usize::from(*tone) % 12))),
                        "{class}: {played:?}"
                    );
                }
            }
        }
        assert!(Concept::Scales.music(4).is_none());
        let tempi = Concept::Tempo.music(4).expect("has music");
        for own in tempi.chunks(TEMPI.len()) {
            assert_eq!(own.iter().map(|clip| clip.level).collect::<Vec<_>>(), TEMPI);
            assert!(own.iter().all(|clip| clip.class == 0 && clip.piece() == own[0].piece()));
            // The same course; faster, more of it fits.
            let played = own.iter().map(tones).collect::<Vec<_>>();
            assert!(played.windows(2).all(|pair| pair[1].starts_with(&pair[0][..8])), "{played:?}");
        }
    }

    #[test]
    fn scales_are_the_modes() {
        let clips = Concept::Scales.clips(&[0]);
        let up = |mode: usize| {
            let clip = clips.iter().find(|c| c.class == mode).expect("every mode");
            tones(clip).iter().map(|t| t - 54).collect::<Vec<u8>>()
        };
        assert_eq!(up(0), [0, 2, 4, 5, 7, 9, 11, 12]);
        assert_eq!(up(1), [0, 2, 3, 5, 7, 9, 10, 12]);
        assert_eq!(up(6), [0, 1, 3, 5, 6, 8, 10, 12]);
    }

    #[test]
    fn tempo_spans_its_range_whatever_the_instrument() {
        let clips = Concept::Tempo.clips(&[]);
        let mean = |clips: &[&ConceptClip]| clips.iter().map(|c| c.level).sum::<f64>() / clips.len().max(1) as f64;
        assert!(clips.iter().all(|c| (60.0..=180.0).contains(&c.level)));
        let (slow, fast) = (clips.iter().filter(|c| c.level < 90.0), clips.iter().filter(|c| c.level > 150.0));
        assert!(slow.count() > 150 && fast.count() > 150);
        for program in PROGRAMS {
            let own: Vec<&ConceptClip> = clips.iter().filter(|c| c.program == program).collect();
            assert!(own.len() < 25 || (mean(&own) - 120.0).abs() < 25.0, "program {program}: {}", mean(&own));
        }
    }

    #[test]
    fn clips_sound_at_one_level() {
        let renderer = Renderer::open(Path::new(DEFAULT_SOUNDFONT)).unwrap_or_else(|error| panic!("{error}"));
        for concept in Concept::ALL {
            for clip in concept.clips(concept.programs()).iter().step_by(211).take(4) {
                let audio = clip.render(&renderer).expect("renders").expect("sounds");
                assert_eq!(audio.len(), ConceptClip::SAMPLES);
                // Within 1.5 dB: the peaks of clicks are rounded off, which takes a little.
                assert!(
                    (0.84 * CLIP_RMS..1.01 * CLIP_RMS).contains(&rms(&audio)),
                    "{}: {}",
                    concept.name(),
                    rms(&audio)
                );
            }
        }
    }
}
