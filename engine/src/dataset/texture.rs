//! How a voice moves over the chords: melody, chords, arpeggio, bass line or pad, written as timed notes. Any thread.

use super::harmony::{Key, Window};
use super::random::Random;
use serde::Serialize;

/// What a voice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Texture {
    /// One line over the scale.
    Melody,
    /// Triads struck in a rhythm.
    Chords,
    /// Chord tones one after another.
    Arpeggio,
    /// A low line on roots and fifths.
    Bass,
    /// Triads held for a bar.
    Pad,
}

impl Texture {
    /// Every texture, in the order in which labels are numbered.
    pub const ALL: [Texture; 5] = [Texture::Melody, Texture::Chords, Texture::Arpeggio, Texture::Bass, Texture::Pad];
}

/// One note of a score; times in beats from the start of the piece.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Note {
    /// When it is struck, in beats.
    pub start: f64,
    /// When it is released, in beats.
    pub end: f64,
    /// MIDI note number.
    pub midi: u8,
    /// MIDI velocity, 1..=127.
    pub velocity: u8,
}

/// Everything that a voice needs to know to write its notes.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Key of the piece.
    pub key: Key,
    /// The pitch classes that the piece keeps to; none where it may use them all.
    pub tones: &'a [usize],
    /// Scale degrees of the chords, one per bar of four beats, repeated for ever.
    pub progression: &'a [usize],
    /// Bars to write.
    pub bars: usize,
    /// Register of the voice.
    pub window: Window,
    /// Mean velocity.
    pub loudness: i32,
    /// Share of its time slot for which a note is held: below 1 detached, 1 connected.
    pub legato: f64,
    /// Whether the instrument holds its notes.
    pub sustained: bool,
}

/// Rhythms of one bar, in beats; no gap is longer than two beats, so that plucked voices do not die away.
const MELODY_RHYTHMS: [&[f64]; 7] = [
    &[1.0, 1.0, 1.0, 1.0],
    &[1.0, 0.5, 0.5, 1.0, 1.0],
    &[1.5, 0.5, 1.0, 1.0],
    &[0.5, 0.5, 1.0, 0.5, 0.5, 1.0],
    &[2.0, 1.0, 1.0],
    &[1.0, 1.0, 2.0],
    &[0.5, 0.5, 0.5, 0.5, 1.0, 1.0],
];
const CHORD_RHYTHMS: [&[f64]; 5] =
    [&[2.0, 2.0], &[1.0, 1.0, 1.0, 1.0], &[1.5, 1.5, 1.0], &[2.0, 1.0, 1.0], &[1.0, 1.0, 2.0]];
const BASS_RHYTHMS: [&[f64]; 5] =
    [&[1.0, 1.0, 1.0, 1.0], &[2.0, 2.0], &[1.5, 0.5, 2.0], &[1.5, 0.5, 1.0, 1.0], &[1.0, 0.5, 0.5, 1.0, 1.0]];
/// Orders in which an arpeggio visits the chord tones sorted from low to high (indices wrap upwards).
const ARPEGGIO_ORDERS: [&[usize]; 5] =
    [&[0, 1, 2, 3], &[0, 1, 2, 1], &[0, 2, 1, 2], &[3, 2, 1, 0], &[0, 1, 2, 3, 4, 3, 2, 1]];

impl Part<'_> {
    /// Writes the whole part.
    pub fn write(&self, texture: Texture, random: &mut Random) -> Vec<Note> {
        let mut notes = match texture {
            Texture::Melody => self.melody(random),
            Texture::Chords => self.chords(random),
            Texture::Arpeggio => self.arpeggio(random),
            Texture::Bass => self.bass(random),
            Texture::Pad => self.pad(random),
        };
        notes.iter_mut().for_each(|note| note.midi = self.window.nearest(self.tones, note.midi));
        // Tones of a chord that have become one.
        notes.dedup_by_key(|note| (note.start.to_bits(), note.midi));
        release_before_repeats(&mut notes);
        let swell = random.unit() * std::f64::consts::TAU;
        for note in &mut notes {
            // Dynamics: an eight-bar swell, an accent on the first beat of a bar, and a little unevenness.
            let phrase = 8.0 * (note.start / 32.0 * std::f64::consts::TAU + swell).sin();
            let accent = if note.start % 4.0 < 1e-9 { 8.0 } else { 0.0 };
            let velocity = f64::from(self.loudness) + phrase + accent + f64::from(random.between(-5, 5));
            note.velocity = velocity.round().clamp(24.0, 120.0) as u8;
        }
        notes
    }

    fn chord(&self, bar: usize) -> [usize; 3] {
        self.key.triad(self.progression[bar % self.progression.len()])
    }

    fn push(&self, notes: &mut Vec<Note>, start: f64, slot: f64, midi: u8) {
        notes.push(Note { start, end: start + slot * self.legato, midi, velocity: 80 });
    }

    fn melody(&self, random: &mut Random) -> Vec<Note> {
        let tones = self.key.tones_in(self.window);
        let rhythms = [random.pick(&MELODY_RHYTHMS), random.pick(&MELODY_RHYTHMS)];
        let mut at = random.below(tones.len()) as i32;
        let mut notes = Vec::new();
        for bar in 0..self.bars {
            let chord = self.chord(bar);
            let mut beat = 0.0;
            for &slot in rhythms[usize::from(bar % 4 == 3)] {
                at += if random.chance(0.75) { random.pick(&[&-1, &1]) } else { random.pick(&[&-3, &-2, &2, &3]) };
                at = reflect(at, tones.len() as i32);
                // Strong beats land on a chord tone: the nearest one, looking up or down first at random.
                if beat % 2.0 == 0.0 {
                    let first = if random.chance(0.5) { 1 } else { -1 };
                    let near =
                        [0, first, -first, 2 * first, -2 * first].map(|step| reflect(at + step, tones.len() as i32));
                    let fits = |&i: &i32| chord.contains(&(usize::from(tones[i as usize]) % 12));
                    at = near.into_iter().find(fits).unwrap_or(at);
                }
                self.push(&mut notes, bar as f64 * 4.0 + beat, slot, tones[at as usize]);
                beat += slot;
            }
        }
        notes
    }

    fn chords(&self, random: &mut Random) -> Vec<Note> {
        let rhythm = random.pick(&CHORD_RHYTHMS);
        let mut notes = Vec::new();
        for bar in 0..self.bars {
            let chord = self.chord(bar);
            let mut beat = 0.0;
            for &slot in rhythm {
                for &tone in &chord {
                    self.push(&mut notes, bar as f64 * 4.0 + beat, slot, self.window.place(tone, 0));
                }
                beat += slot;
            }
        }
        notes
    }

    fn arpeggio(&self, random: &mut Random) -> Vec<Note> {
        let order = random.pick(&ARPEGGIO_ORDERS);
        let mut notes = Vec::new();
        for bar in 0..self.bars {
            let chord = self.chord(bar);
            let ladder: Vec<u8> = self.window.notes().filter(|&n| chord.contains(&(usize::from(n) % 12))).collect();
            for eighth in 0..8 {
                let midi = ladder[order[eighth % order.len()] % ladder.len()];
                // Plucked strings and mallets ring on under the next notes, as they do under a player's hands.
                let slot = if self.sustained { 0.5 } else { 1.0 };
                self.push(&mut notes, bar as f64 * 4.0 + eighth as f64 * 0.5, slot, midi);
            }
        }
        notes
    }

    fn bass(&self, random: &mut Random) -> Vec<Note> {
        let rhythm = random.pick(&BASS_RHYTHMS);
        let walks = random.chance(0.5);
        let mut notes = Vec::new();
        for bar in 0..self.bars {
            let [root, third, fifth] = self.chord(bar);
            let mut beat = 0.0;
            for (i, &slot) in rhythm.iter().enumerate() {
                let tone = match (i, walks) {
                    (0, _) => root,
                    (_, true) => *random.pick(&[&root, &third, &fifth, &fifth]),
                    (_, false) => root,
                };
                self.push(&mut notes, bar as f64 * 4.0 + beat, slot, self.window.place(tone, 0));
                beat += slot;
            }
        }
        notes
    }

    fn pad(&self, random: &mut Random) -> Vec<Note> {
        let octaves = [random.below(2), random.below(2), random.below(2)];
        let mut notes = Vec::new();
        for bar in 0..self.bars {
            for (tone, octave) in self.chord(bar).into_iter().zip(octaves) {
                // Held into the next chord, so that the pad never breathes in.
                let start = bar as f64 * 4.0;
                notes.push(Note { start, end: start + 4.1, midi: self.window.place(tone, octave), velocity: 80 });
            }
        }
        notes
    }
}

/// Ends each note where its pitch is struck again: a MIDI release names only the pitch, so a late one would cut the
/// new note short.
pub(super) fn release_before_repeats(notes: &mut [Note]) {
    let mut next = [f64::INFINITY; 128];
    for note in notes.iter_mut().rev() {
        let again = &mut next[usize::from(note.midi) % 128];
        note.end = note.end.min(*again);
        *again = note.start;
    }
}

/// Folds a step outside `0..n` back inside, as a ball bounces off a wall.
fn reflect(i: i32, n: i32) -> i32 {
    let top = n - 1;
    let folded = if i < 0 { -i } else { i };
    if folded > top { (2 * top - folded).max(0) } else { folded }
}

#[cfg(test)]
mod tests {
    use super::{Note, reflect, release_before_repeats};

    #[test]
    fn a_repeated_pitch_is_released_first() {
        let note = |start: f64, midi| Note { start, end: start + 1.5, midi, velocity: 80 };
        let mut notes = vec![note(0.0, 60), note(0.0, 64), note(1.0, 60), note(1.0, 65)];
        release_before_repeats(&mut notes);
        assert_eq!(notes.iter().map(|n| n.end).collect::<Vec<_>>(), [1.0, 1.5, 2.5, 2.5]);
    }

    #[test]
    fn reflection_stays_inside() {
        assert_eq!((-3..12).map(|i| reflect(i, 8)).collect::<Vec<_>>(), [3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3]);
    }
}
