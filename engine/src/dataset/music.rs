//! Composes one clip from (seed, index): what is played, in which key, how fast, and under which prompt. Any thread.

use super::harmony::{Clock, Harmony, Key, Mode, Section, Window};
use super::instruments::{INSTRUMENTS, Instrument, players_of};
use super::prompt::{self, Wording};
use super::random::Random;
use super::texture::{Note, Part, Texture, release_before_repeats};
use serde::Serialize;

/// One voice of a piece.
#[derive(Debug, Clone)]
pub struct Voice {
    /// Who plays.
    pub instrument: &'static Instrument,
    /// What it plays.
    pub texture: Texture,
    /// Loudness against the other voice, as a MIDI channel volume, 0..=127.
    pub volume: u8,
    /// The notes, times in beats.
    pub notes: Vec<Note>,
}

/// A composed clip, ready to be rendered.
#[derive(Debug, Clone)]
pub struct Music {
    /// Seed of the data set.
    pub seed: u64,
    /// Index of the clip in it.
    pub index: u64,
    /// Key and mode; never named in the prompt.
    pub key: Key,
    /// What it is made of; no word of the prompt depends on it.
    pub harmony: Harmony,
    /// Tempo in beats per minute, 60 to 180.
    pub bpm: f64,
    /// Beat of the piece at which the clip begins, so that it starts mid-piece.
    pub start_beat: f64,
    /// Mean MIDI velocity of the voices.
    pub loudness: i32,
    /// Share of its time slot for which a note is held: below 1 detached, 1 connected.
    pub legato: f64,
    /// One or two voices, the leading one first.
    pub voices: Vec<Voice>,
    /// The prompt.
    pub prompt: String,
}

/// Purposes of the random streams of a clip: music and words must not share one.
const MUSIC_STREAM: u64 = 1;
const WORD_STREAM: u64 = 2;
const KEY_STREAM: u64 = 3;
const SECTION_STREAM: u64 = 6;

/// How the clips of a data set share out the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// Every clip is a piece of its own; 24 in a row hold every key in both modes once.
    #[default]
    Spread,
    /// Twelve clips in a row are one piece under one prompt on the twelve tonics: nothing that a prompt says, not even all
    /// of its words together, goes with a pitch.
    Each,
}

/// What is not drawn but given.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Key and mode.
    pub key: Key,
    /// What the piece is made of.
    pub harmony: Harmony,
    /// The pitch classes that it keeps to; none where it may use them all.
    pub tones: Vec<usize>,
    /// Beats per minute; drawn without.
    pub bpm: Option<f64>,
}

impl Music {
    /// Composes clip `index` of data set `seed`, long enough for `seconds` after its start.
    pub fn compose(seed: u64, index: u64, seconds: f64) -> Self {
        let (slot, key) = Self::turn(seed, index);
        Self::compose_in(key, Harmony::of_turn(seed, slot, index / 24), seed, index, seconds)
    }

    /// As [`Music::compose`], made of this material.
    pub fn compose_of(harmony: Harmony, seed: u64, index: u64, seconds: f64) -> Self {
        Self::compose_in(Self::turn(seed, index).1, harmony, seed, index, seconds)
    }

    /// Each run of 24 clips holds every key in both modes once, in an order of its own: the place among the 24, and the key.
    fn turn(seed: u64, index: u64) -> (usize, Key) {
        let order: [usize; 24] = Random::new(seed, index / 24, KEY_STREAM).permutation();
        let slot = order[(index % 24) as usize];
        (slot, Key { tonic: slot % 12, mode: if slot < 12 { Mode::Major } else { Mode::Minor } })
    }

    /// As [`Music::compose`], in a data set that shares out the keys in this way.
    pub fn compose_with(keys: Keys, seed: u64, index: u64, seconds: f64) -> Self {
        match keys {
            Keys::Spread => Self::compose(seed, index, seconds),
            Keys::Each => {
                let (piece, tonic) = (index / 12, (index % 12) as usize);
                let mode = if piece.is_multiple_of(2) { Mode::Major } else { Mode::Minor };
                let harmony = Harmony::of_turn(seed, (piece % 2) as usize, piece / 2);
                Self { index, ..Self::compose_in(Key { tonic, mode }, harmony, seed, piece, seconds) }
            }
        }
    }

    /// Piece `index` of `seed` in this key and of this material; all else depends on the two numbers alone.
    fn compose_in(key: Key, harmony: Harmony, seed: u64, index: u64, seconds: f64) -> Self {
        Self::compose_as(&Setting { key, harmony, tones: harmony.tones(key), bpm: None }, seed, index, seconds)
    }

    /// Piece `index` of `seed` in a setting of one's own; what that leaves open depends on the two numbers alone.
    pub fn compose_as(setting: &Setting, seed: u64, index: u64, seconds: f64) -> Self {
        let Setting { key, harmony, ref tones, bpm } = *setting;
        let mut random = Random::new(seed, index, MUSIC_STREAM);
        // Drawn as a place: major and minor have equally many, and a medley needs one for each of its sections.
        let progression = random.below(key.mode.progressions().len());

        let drawn = f64::from(random.between(60, 180));
        let bpm = bpm.unwrap_or(drawn);
        let start_beat = 0.5 * f64::from(random.between(2, 31));
        let beats = start_beat + seconds * bpm / 60.0;
        let loudness = random.between(52, 110);
        let legato = [0.5, 0.95, 1.0][random.below(5).min(2)];
        let sections = Section::of(harmony, key, beats, &mut Random::new(seed, index, SECTION_STREAM));
        let bars = sections.last().map_or(1, |section| section.bars.end);
        let clock = Clock::new(&sections);

        let voices: Vec<Voice> = choose_players(&mut random)
            .into_iter()
            .enumerate()
            .map(|(i, (instrument, texture))| {
                let window = register(texture, i, &mut random);
                // A voice goes on through the sections in its own rhythm and manner: each is written from the same draws.
                let draws = random.clone();
                let mut notes = Vec::new();
                for section in &sections {
                    let own = section.harmony.tones(section.key);
                    let part = Part {
                        key: section.key,
                        tones: if harmony.changes() { &own } else { tones },
                        progression: match section.harmony {
                            Harmony::Progression => section.key.mode.progressions()[progression],
                            _ => &[0],
                        },
                        bars,
                        window,
                        loudness,
                        legato,
                        sustained: instrument.sustained,
                    };
                    random = draws.clone();
                    let here = 4.0 * section.bars.start as f64..4.0 * section.bars.end as f64;
                    let written = part.write(texture, &mut random).into_iter();
                    notes.extend(written.filter(|note| here.contains(&note.start)).map(|note| Note {
                        start: clock.at(note.start),
                        end: clock.at(note.end),
                        ..note
                    }));
                }
                release_before_repeats(&mut notes);
                let volume = if i == 0 { 110 } else { 84 };
                Voice { instrument, texture, volume, notes }
            })
            .collect();

        let mut words = Random::new(seed, index, WORD_STREAM);
        let named = voices.iter().map(|v| (words.pick(v.instrument.names), v.texture)).collect();
        let prompt = prompt::write(&Wording { voices: named, bpm, loudness, legato }, &mut words);
        Self { seed, index, key, harmony, bpm, start_beat, loudness, legato, voices, prompt }
    }

    /// Name of the texture label: the leading voice's, or `mix` when there are two voices.
    pub fn texture_label(&self) -> &'static str {
        match &self.voices[..] {
            [voice] => match voice.texture {
                Texture::Melody => "melody",
                Texture::Chords => "chords",
                Texture::Arpeggio => "arpeggio",
                Texture::Bass => "bass",
                Texture::Pad => "pad",
            },
            _ => "mix",
        }
    }
}

/// One clip in four is a mix of two instruments; the rest are one instrument, drawn evenly, in a texture it plays.
fn choose_players(random: &mut Random) -> Vec<(&'static Instrument, Texture)> {
    if random.chance(0.75) {
        let instrument = &INSTRUMENTS[random.below(INSTRUMENTS.len())];
        let texture = instrument.textures[random.below(instrument.textures.len())];
        return vec![(instrument, texture)];
    }
    let pairs = [
        (Texture::Melody, Texture::Chords),
        (Texture::Melody, Texture::Pad),
        (Texture::Melody, Texture::Arpeggio),
        (Texture::Melody, Texture::Bass),
        (Texture::Arpeggio, Texture::Pad),
        (Texture::Chords, Texture::Bass),
    ];
    let (above, below) = pairs[random.below(pairs.len())];
    let leaders = players_of(above);
    let leader = leaders[random.below(leaders.len())];
    let others: Vec<_> = players_of(below).into_iter().filter(|other| *other != leader).collect();
    vec![(leader, above), (others[random.below(others.len())], below)]
}

/// The register of a voice. All but basses lie within MIDI 48..84, in whole octaves, whatever the key.
fn register(texture: Texture, position: usize, random: &mut Random) -> Window {
    match (texture, position) {
        (Texture::Bass, _) => Window { low: random.between(30, 36) as u8, octaves: 1 },
        (Texture::Chords, 0) => Window { low: random.between(50, 68) as u8, octaves: 1 },
        (Texture::Chords, _) => Window { low: random.between(50, 64) as u8, octaves: 1 },
        (Texture::Melody, 0) => Window { low: random.between(50, 60) as u8, octaves: 2 },
        _ => Window { low: random.between(48, 60) as u8, octaves: 2 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn many(n: u64) -> impl Iterator<Item = Music> {
        (0..n).map(|index| Music::compose(11, index, 4.0))
    }

    #[test]
    fn same_seed_and_index_give_the_same_music() {
        for index in [0, 1, 77] {
            let (a, b) = (Music::compose(5, index, 16.0), Music::compose(5, index, 16.0));
            assert_eq!(a.prompt, b.prompt);
            assert_eq!(a.voices.len(), b.voices.len());
            for (x, y) in a.voices.iter().zip(&b.voices) {
                assert_eq!(x.notes, y.notes);
            }
        }
        assert_ne!(Music::compose(5, 0, 16.0).voices[0].notes, Music::compose(6, 0, 16.0).voices[0].notes);
    }

    #[test]
    fn keys_and_modes_are_exactly_uniform() {
        let mut counts = HashMap::new();
        many(2400).for_each(|m| *counts.entry(m.key).or_insert(0) += 1);
        assert_eq!(counts.len(), 24);
        assert!(counts.values().all(|&n| n == 100), "{counts:?}");
    }

    #[test]
    fn a_piece_in_every_key_has_one_prompt_and_one_course() {
        for piece in 0..40 {
            let clips: Vec<Music> =
                (0..12).map(|tonic| Music::compose_with(Keys::Each, 11, 12 * piece + tonic, 8.0)).collect();
            for (tonic, clip) in clips.iter().enumerate() {
                assert_eq!((clip.key.tonic, clip.key.mode), (tonic, clips[0].key.mode));
                assert_eq!(
                    (&clip.prompt, clip.bpm, clip.index),
                    (&clips[0].prompt, clips[0].bpm, 12 * piece + tonic as u64)
                );
                for (voice, other) in clip.voices.iter().zip(&clips[0].voices) {
                    assert_eq!((voice.instrument, voice.texture), (other.instrument, other.texture));
                    // Tones of a chord become one, or two an octave apart, by where the register begins.
                    let times = |notes: &[Note]| {
                        let mut times = notes.iter().map(|n| n.start.to_bits()).collect::<Vec<_>>();
                        times.dedup();
                        times
                    };
                    assert_eq!(times(&voice.notes), times(&other.notes));
                }
            }
        }
        let modes: Vec<Mode> = [0, 12].map(|index| Music::compose_with(Keys::Each, 11, index, 4.0).key.mode).into();
        assert_ne!(modes[0], modes[1]);
    }

    #[test]
    fn each_material_has_its_share() {
        let (mut counts, mut sections) = (HashMap::new(), Vec::new());
        for music in many(4_800) {
            *counts.entry(music.harmony).or_insert(0) += 1;
            let mut classes: Vec<u8> = music.voices.iter().flat_map(|v| &v.notes).map(|note| note.midi % 12).collect();
            classes.sort_unstable();
            classes.dedup();
            match music.harmony {
                Harmony::Unison => assert_eq!(classes, [music.key.tonic as u8]),
                Harmony::Vamp => assert!(classes.iter().all(|c| music.key.triad(0).contains(&usize::from(*c)))),
                Harmony::Progression => assert!(classes.len() > 1),
                Harmony::Medley => sections.push(classes.len()),
                Harmony::Turns => {
                    let scale: Vec<u8> =
                        music.key.mode.scale().map(|step| ((music.key.tonic + step) % 12) as u8).into();
                    assert!(classes.iter().all(|class| scale.contains(class)), "{:?}: {classes:?}", music.key);
                }
            }
        }
        let of = |harmony: Harmony| counts[&harmony];
        assert_eq!([Harmony::Unison, Harmony::Vamp, Harmony::Medley, Harmony::Turns].map(of), [120, 240, 1_440, 1_200]);
        // Four seconds of them hold more classes than a scale has now and then, which no other piece does.
        assert!(sections.iter().filter(|classes| **classes > 7).count() > 100);
    }

    #[test]
    fn prompts_never_name_a_key_note_or_chord() {
        const FORBIDDEN: [&str; 27] = [
            "a",
            "b",
            "c",
            "d",
            "e",
            "f",
            "g",
            "h",
            "do",
            "re",
            "mi",
            "fa",
            "sol",
            "la",
            "si",
            "ti",
            "major",
            "minor",
            "sharp",
            "flat",
            "dim",
            "aug",
            "diminished",
            "augmented",
            "triad",
            "key",
            "maj",
        ];
        for music in many(5000) {
            assert!(!music.prompt.contains('#'));
            for word in music.prompt.to_lowercase().split(|c: char| !c.is_alphabetic()) {
                assert!(!FORBIDDEN.contains(&word), "{:?} holds {word:?}", music.prompt);
            }
        }
    }

    /// Share of the notes of the middle register (MIDI 48..84) that each pitch class has, weighted by duration. It is
    /// even by construction over C3..B5; within the one octave C4..B4 sliding windows and the low half that arpeggios prefer leave a slope.
    #[test]
    fn pitch_classes_are_balanced_in_the_middle_register() {
        let mut all = [0.0f64; 12];
        let mut centre = [0.0f64; 12];
        // Pieces that change stay on a note here and there: 24,000 of them leave 0.8 % of chance in a share.
        for music in many(24_000) {
            for note in music.voices.iter().flat_map(|v| &v.notes) {
                let pc = usize::from(note.midi) % 12;
                if (48..84).contains(&note.midi) {
                    all[pc] += note.end - note.start;
                }
                if (60..72).contains(&note.midi) {
                    centre[pc] += note.end - note.start;
                }
            }
        }
        for (name, counts, tolerance) in [("C3..B5", all, 0.03), ("C4..B4", centre, 0.20)] {
            let mean = counts.iter().sum::<f64>() / 12.0;
            for (pc, count) in counts.iter().enumerate() {
                let off = count / mean - 1.0;
                assert!(off.abs() < tolerance, "{name}: pitch class {pc} is {off:+.3} from its share");
            }
        }
    }

    /// Pearson's chi-square of word presence against key and against mode. Keys are stratified, so the statistic of an
    /// independent word has its degrees of freedom as mean; 5 standard deviations above that over all words is a fault.
    #[test]
    fn prompt_words_do_not_depend_on_key_or_mode() {
        let n = 7200;
        let mut by_key: HashMap<String, [f64; 12]> = HashMap::new();
        let mut by_mode: HashMap<String, [f64; 2]> = HashMap::new();
        for music in many(n) {
            let mut words: Vec<String> =
                music.prompt.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).map(str::to_owned).collect();
            words.sort();
            words.dedup();
            for word in words {
                by_key.entry(word.clone()).or_default()[music.key.tonic] += 1.0;
                by_mode.entry(word).or_default()[usize::from(music.key.mode == Mode::Minor)] += 1.0;
            }
        }
        let check = |word: &str, counts: &[f64]| {
            let total: f64 = counts.iter().sum();
            if total < 60.0 {
                return;
            }
            let expected = total / counts.len() as f64;
            let absent = n as f64 / counts.len() as f64 - expected;
            let chi: f64 =
                counts.iter().map(|c| (c - expected).powi(2) * (1.0 / expected + 1.0 / absent.max(1.0))).sum();
            let freedom = counts.len() as f64 - 1.0;
            assert!(
                chi < freedom + 5.0 * (2.0 * freedom).sqrt() + 4.0,
                "{word:?}: chi-square {chi:.1}, counts {counts:?}"
            );
        };
        assert!(by_key.len() > 60, "{} words", by_key.len());
        by_key.iter().for_each(|(word, counts)| check(word, counts));
        by_mode.iter().for_each(|(word, counts)| check(word, counts));
    }

    #[test]
    fn no_voice_rests_for_long() {
        for music in many(500) {
            for voice in &music.voices {
                let mut reached = 0.0f64;
                let slowest = if music.harmony.changes() { Section::STRETCHES[3] } else { 1.0 };
                for note in &voice.notes {
                    assert!(note.start - reached < 1.01 * slowest, "gap of {} beats", note.start - reached);
                    reached = reached.max(note.end);
                }
                assert!(reached >= music.start_beat + 4.0 * music.bpm / 60.0);
            }
        }
    }
}
