//! Keys, scales and chord progressions as pitch classes and scale degrees. Pure arithmetic, any thread.

use super::random::Random;
use serde::Serialize;

/// Names of the pitch classes, 0 = C; sharps only, as SynTheory labels them.
pub const PITCH_CLASS_NAMES: [&str; 12] = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

/// The two modes that the generator composes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Ionian.
    Major,
    /// Aeolian.
    Minor,
}

impl Mode {
    /// Semitones of the seven scale degrees above the tonic.
    pub fn scale(self) -> [usize; 7] {
        match self {
            Mode::Major => [0, 2, 4, 5, 7, 9, 11],
            Mode::Minor => [0, 2, 3, 5, 7, 8, 10],
        }
    }

    /// Chord progressions as scale degrees (0 = tonic triad), one chord per bar.
    pub fn progressions(self) -> &'static [&'static [usize]] {
        match self {
            Mode::Major => &[
                &[0, 3, 4, 0],
                &[0, 3, 5, 4],
                &[0, 4, 5, 3],
                &[0, 5, 3, 4],
                &[1, 4, 0, 5],
                &[3, 0, 4, 5],
                &[3, 4, 2, 5],
                &[4, 3, 0, 4],
                &[5, 3, 0, 4],
                &[0, 2, 3, 4],
            ],
            Mode::Minor => &[
                &[0, 3, 4, 0],
                &[0, 5, 2, 6],
                &[0, 5, 6, 0],
                &[0, 5, 6, 2],
                &[0, 6, 5, 4],
                &[0, 3, 6, 2],
                &[3, 6, 0, 0],
                &[6, 5, 6, 0],
                &[0, 2, 5, 6],
                &[0, 3, 0, 4],
            ],
        }
    }
}

/// A key: tonic pitch class (0 = C) and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Pitch class of the tonic, 0..12.
    pub tonic: usize,
    /// Major or minor.
    pub mode: Mode,
}

impl Key {
    /// Pitch class of a scale degree; degrees beyond 6 wrap.
    pub fn pitch_class(self, degree: usize) -> usize {
        (self.tonic + self.mode.scale()[degree % 7]) % 12
    }

    /// Pitch classes of the triad on a scale degree: root, third, fifth.
    pub fn triad(self, degree: usize) -> [usize; 3] {
        [self.pitch_class(degree), self.pitch_class(degree + 2), self.pitch_class(degree + 4)]
    }

    /// The key whose tonic triad is the one on this degree; the diminished one gives way to the one above it.
    pub fn relative(self, degree: usize) -> Self {
        let [root, third, fifth] = self.triad(degree);
        if (fifth + 12 - root) % 12 == 6 {
            return self.relative(degree + 1);
        }
        let mode = if (third + 12 - root) % 12 == 4 { Mode::Major } else { Mode::Minor };
        Self { tonic: root, mode }
    }

    /// Every scale tone within the window, as MIDI notes in rising order.
    pub fn tones_in(self, window: Window) -> Vec<u8> {
        let tones: Vec<usize> = (0..7).map(|degree| self.pitch_class(degree)).collect();
        window.notes().filter(|&note| tones.contains(&(usize::from(note) % 12))).collect()
    }
}

/// Distinguishes this use of the random source from others.
const PURPOSE: u64 = 4;

/// What a piece is made of. Most music moves; some stays, and a model that has never met music on one chord or one note
/// cannot be steered there without leaving music.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Harmony {
    /// A chord progression, melodies over the scale.
    Progression,
    /// The tonic triad throughout, and nothing but its tones.
    Vamp,
    /// The tonic in all its octaves, and nothing else.
    Unison,
    /// Sections of a bar or a few, each in a key and of a material of its own: the instrument is all that stays. What a piece does
    /// that is steered elsewhere while it sounds.
    Medley,
    /// Sections as a medley's, but all at home: on one tone of the scale, on one of its triads, or on the progression.
    Turns,
}

/// A stretch of a piece that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its bars, counted from the start of the piece.
    pub bars: std::ops::Range<usize>,
    /// Key and mode; of a static section in [`Harmony::Turns`], those of its triad.
    pub key: Key,
    /// Its material; a progression, a vamp or a unison.
    pub harmony: Harmony,
    /// How much longer a beat lasts than the piece's tempo says.
    pub stretch: f64,
}

impl Section {
    /// Longest and shortest beats of a section: a quarter to a half away from the piece's tempo, either way alike.
    pub(super) const STRETCHES: [f64; 4] = [2.0 / 3.0, 0.8, 1.25, 1.5];

    /// The sections of a piece in `key` that lasts for `beats` of its own tempo. One piece that changes in two changes tempo as well.
    pub fn of(harmony: Harmony, key: Key, beats: f64, random: &mut Random) -> Vec<Self> {
        if !harmony.changes() {
            return vec![Self { bars: 0..(beats / 4.0).ceil() as usize + 1, key, harmony, stretch: 1.0 }];
        }
        let hurries = random.chance(0.5);
        let (mut sections, mut from, mut lasted) = (Vec::new(), 0, 0.0);
        while lasted < beats + 4.0 {
            let to = from + random.between(1, 3) as usize;
            // Static ones most: what is rarest elsewhere and asked for by steering.
            let material =
                [Harmony::Unison, Harmony::Unison, Harmony::Vamp, Harmony::Vamp, Harmony::Progression][random.below(5)];
            let mode = if random.chance(0.5) { Mode::Major } else { Mode::Minor };
            let (step, degree) = (random.below(12), random.below(6));
            let key = match (harmony, material) {
                // As steps from the tonic, so that each class is as likely.
                (Harmony::Medley, _) => Key { tonic: (key.tonic + step) % 12, mode },
                (_, Harmony::Progression) => key,
                _ => key.relative(degree),
            };
            let stretch = if hurries && random.chance(0.6) { Self::STRETCHES[random.below(4)] } else { 1.0 };
            sections.push(Self { bars: from..to, key, harmony: material, stretch });
            lasted += 4.0 * (to - from) as f64 * stretch;
            from = to;
        }
        sections
    }
}

/// When the beats of a score sound, where sections have tempos of their own.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Of each section: first beat in the score, when it sounds, and how long its beats are.
    starts: Vec<(f64, f64, f64)>,
}

impl Clock {
    /// Of sections that follow each other.
    pub fn new(sections: &[Section]) -> Self {
        let mut at = 0.0;
        let starts = sections.iter().map(|section| {
            let start = (4.0 * section.bars.start as f64, at, section.stretch);
            at += 4.0 * section.bars.len() as f64 * section.stretch;
            start
        });
        Self { starts: starts.collect() }
    }

    /// When a beat of the score sounds, in beats of the piece's tempo.
    pub fn at(&self, beat: f64) -> f64 {
        let place = self.starts.partition_point(|(first, ..)| *first <= beat).saturating_sub(1);
        self.starts.get(place).map_or(beat, |(first, at, stretch)| at + (beat - first) * stretch)
    }
}

impl Harmony {
    /// Of so many pieces in one key, how many are of each material; the others are progressions.
    const ROUND: usize = 40;
    const SHARES: [(Self, usize); 4] = [(Self::Unison, 1), (Self::Vamp, 2), (Self::Medley, 12), (Self::Turns, 10)];

    /// What the piece of `key` in `turn` is made of; `key` is any number below 24 that stands for the key. Each key has its
    /// share of each material exactly: drawn freely, a few pieces on one note would favour a pitch class.
    pub fn of_turn(seed: u64, key: usize, turn: u64) -> Self {
        let (round, place) = (turn / Self::ROUND as u64, (turn % Self::ROUND as u64) as usize);
        let order: [usize; Self::ROUND] = Random::new(seed, 24 * round + key as u64, PURPOSE).permutation();
        let mut below = 0;
        for (harmony, pieces) in Self::SHARES {
            below += pieces;
            if order[place] < below {
                return harmony;
            }
        }
        Self::Progression
    }

    /// Whether it has sections.
    pub fn changes(self) -> bool {
        matches!(self, Self::Medley | Self::Turns)
    }

    /// The pitch classes that a piece in `key` keeps to; none where it may use them all.
    pub fn tones(self, key: Key) -> Vec<usize> {
        match self {
            Self::Progression | Self::Medley | Self::Turns => Vec::new(),
            Self::Vamp => key.triad(0).to_vec(),
            Self::Unison => vec![key.tonic],
        }
    }
}

/// A register: whole octaves of MIDI notes from `low` on. Whole octaves hold every pitch class equally often, and
/// `low` never depends on the key: that is what keeps pitch classes balanced in the middle register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Lowest MIDI note.
    pub low: u8,
    /// Size in octaves.
    pub octaves: u8,
}

impl Window {
    /// The MIDI notes of the window.
    pub fn notes(self) -> std::ops::Range<u8> {
        self.low..self.low + 12 * self.octaves
    }

    /// The note of this pitch class in the window's `octave` (0 = lowest; wraps).
    pub fn place(self, pitch_class: usize, octave: usize) -> u8 {
        let low = usize::from(self.low);
        let above = (pitch_class + 120 - low) % 12;
        (low + above + 12 * (octave % usize::from(self.octaves.max(1)))) as u8
    }

    /// The note nearest to `midi` that has one of these pitch classes, no lower than the window and no higher than two octaves
    /// above its start; `midi` itself where there are none.
    pub fn nearest(self, tones: &[usize], midi: u8) -> u8 {
        let places = tones.iter().flat_map(|tone| [0, 12].map(|octave| self.place(*tone, 0) + octave));
        places.min_by_key(|place| place.abs_diff(midi)).unwrap_or(midi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triads_are_the_expected_ones() {
        let c_major = Key { tonic: 0, mode: Mode::Major };
        assert_eq!(c_major.triad(0), [0, 4, 7]);
        assert_eq!(c_major.triad(4), [7, 11, 2]);
        let a_minor = Key { tonic: 9, mode: Mode::Minor };
        assert_eq!(a_minor.triad(0), [9, 0, 4]);
        assert_eq!(a_minor.triad(5), [5, 9, 0]);
    }

    #[test]
    fn sections_follow_each_other_in_score_and_in_sound() {
        let key = Key { tonic: 9, mode: Mode::Minor };
        let mut tempos = 0;
        for seed in 0..200 {
            for harmony in [Harmony::Turns, Harmony::Medley, Harmony::Vamp] {
                let sections = Section::of(harmony, key, 60.0, &mut Random::new(seed, 0, 1));
                assert!(sections.windows(2).all(|pair| pair[0].bars.end == pair[1].bars.start));
                let clock = Clock::new(&sections);
                let end = 4.0 * sections.last().expect("one").bars.end as f64;
                assert!(clock.at(end) > 60.0, "{} beats sound for {}", end, clock.at(end));
                let times: Vec<f64> = (0..1_000).map(|i| clock.at(end * f64::from(i) / 1_000.0)).collect();
                let steps = times.windows(2).map(|pair| (pair[1] - pair[0]) / (end / 1_000.0));
                assert!(steps.clone().all(|step| (0.66..1.51).contains(&step)));
                tempos += usize::from(steps.into_iter().any(|step| step < 0.9));
                for section in &sections {
                    assert!(harmony != Harmony::Vamp || *section == sections[0] && section.key == key);
                    assert!(section.stretch == 1.0 || harmony != Harmony::Vamp);
                }
            }
        }
        assert!((130..200).contains(&tempos), "{tempos} of 600 change tempo");
        assert_eq!(key.relative(2), Key { tonic: 0, mode: Mode::Major });
        assert_eq!(key.relative(1), key.relative(2), "no piece is in a diminished key");
    }

    #[test]
    fn static_music_keeps_to_its_tones_and_its_register() {
        let key = Key { tonic: 9, mode: Mode::Minor };
        assert_eq!((Harmony::Vamp.tones(key), Harmony::Unison.tones(key)), (vec![9, 0, 4], vec![9]));
        for tones in [&[9, 0, 4][..], &[9]] {
            for (low, octaves) in [(50, 2), (57, 1), (58, 1)] {
                let window = Window { low, octaves };
                for midi in window.notes() {
                    let played = window.nearest(tones, midi);
                    assert!(tones.contains(&(usize::from(played) % 12)), "{tones:?} {midi}: {played}");
                    assert!((low..low + 24).contains(&played) && played.abs_diff(midi) < 12);
                    assert_eq!(window.nearest(tones, played), played);
                    assert_eq!(window.nearest(&Harmony::Progression.tones(key), midi), midi);
                }
            }
        }
    }

    #[test]
    fn windows_hold_every_pitch_class_equally() {
        for low in 28..70 {
            let window = Window { low, octaves: 2 };
            let mut counts = [0; 12];
            window.notes().for_each(|n| counts[usize::from(n) % 12] += 1);
            assert_eq!(counts, [2; 12]);
            for pc in 0..12 {
                for octave in 0..2 {
                    let note = window.place(pc, octave);
                    assert!(window.notes().contains(&note) && usize::from(note) % 12 == pc);
                }
            }
        }
    }
}
