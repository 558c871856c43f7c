//! What a chord's direction is made of: one for each root and quality, one for the root and one for the quality, one for each
//! of its notes by the part it has in chords, or those of its three notes as notes. Worker threads.

use super::LearnError;
use super::axes::{self, Axes, Method, Targets};
use super::split::Split;
use super::states::States;
use super::watch::{Stage, Watch};
use crate::control::{Chord, Quality};
use crate::steering::directions::Directions;
use std::str::FromStr;

/// How directions of chords are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChordParts {
    /// Each root and quality against all other chords.
    Whole,
    /// Each root against other roots, each quality against other qualities; a chord is the sum of two.
    RootAndQuality,
    /// Each pitch class as root, as third and as fifth, against others in the same part; a chord is the sum of three.
    Roles,
    /// The sum of the directions of its notes, learned as notes.
    Notes,
}

impl ChordParts {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Whole, Self::RootAndQuality, Self::Roles, Self::Notes];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::RootAndQuality => "root-and-quality",
            Self::Roles => "roles",
            Self::Notes => "notes",
        }
    }
}

impl ChordParts {
    /// The groups that parts come from, and how many each has.
    fn sizes(self) -> Vec<usize> {
        match self {
            Self::Whole => vec![Chord::COUNT],
            Self::RootAndQuality => vec![12, Quality::ALL.len()],
            Self::Roles => vec![12; 3],
            Self::Notes => vec![12],
        }
    }

    /// Which of each group a chord has: of `Notes`, all three from the only one.
    fn members(self, class: usize) -> Vec<usize> {
        let qualities = Quality::ALL.len();
        match self {
            Self::Whole => vec![class],
            Self::RootAndQuality => vec![class / qualities, class % qualities],
            Self::Roles | Self::Notes => tones(class).to_vec(),
        }
    }

    /// The vectors that every chord is the sum of, numbered through all groups.
    pub fn vectors(self) -> Vec<Vec<usize>> {
        let sizes = self.sizes();
        let first = |group: usize| sizes[..group.min(sizes.len() - 1)].iter().sum::<usize>();
        let of = |class| self.members(class).into_iter().enumerate().map(|(group, own)| first(group) + own).collect();
        (0..Chord::COUNT).map(of).collect()
    }
}

/// Root, third and fifth.
fn tones(class: usize) -> [usize; 3] {
    Chord::of_class(class).map_or([0; 3], |chord| chord.tones().map(|tone| tone.index()))
}

impl FromStr for ChordParts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

const CHORDS: Targets = Targets::Classes(Chord::COUNT);

/// Directions of all chords from directions of what they are made of, each learned by `method` on the chords' own clips.
///
/// # Errors
/// As [`axes::learn`].
pub fn of_parts(
    states: &States,
    split: &Split,
    parts: ChordParts,
    method: Method,
    watch: Watch,
) -> Result<Axes, LearnError> {
    let sizes = parts.sizes();
    let all = sizes.iter().sum::<usize>() * states.blocks;
    let mut learned = Vec::new();
    for (group, size) in sizes.iter().enumerate() {
        let before = sizes[..group].iter().sum::<usize>() * states.blocks;
        let own = split.regrouped(|class| parts.members(class)[group]);
        let hear = |stage: Stage, done, _| watch.hear(stage, before + done, all);
        learned.push(axes::learn(states, &own, Targets::Classes(*size), method, None, watch.heard_by(&hear))?);
    }
    let given = |class: usize, block: usize| {
        let members = parts.members(class).into_iter().zip(&learned);
        let own: Vec<&[f32]> = members.map(|(member, group)| &group.axes[member][block].direction[..]).collect();
        sum(&own)
    };
    axes::judge(states, split, CHORDS, &given, watch.heard_by(&|_, _, _| ()))
}

/// Directions of all chords from those of the twelve notes.
///
/// # Errors
/// As [`axes::learn`].
pub fn of_notes(states: &States, split: &Split, notes: &Directions, watch: Watch) -> Result<Axes, LearnError> {
    let given = |class: usize, block: usize| sum(&tones(class).map(|tone| notes.vector(tone, block)));
    axes::judge(states, split, CHORDS, &given, watch)
}

/// Sum of unit vectors, of length 1 itself.
fn sum(parts: &[&[f32]]) -> Vec<f32> {
    let width = parts.first().map_or(0, |part| part.len());
    let mut out = vec![0.0; width];
    parts.iter().for_each(|part| out.iter_mut().zip(*part).for_each(|(sum, x)| *sum += x));
    let length = out.iter().map(|x| x * x).sum::<f32>().sqrt();
    // Opposite parts leave nothing to point anywhere.
    if length > 1e-6 {
        out.iter_mut().for_each(|x| *x /= length);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chords_share_the_vectors_of_what_they_share() {
        let class = |root: usize, quality| root * Quality::ALL.len() + quality;
        // C major and C minor: root and fifth. C major and A minor: C and E, but in other parts.
        let roles = ChordParts::Roles.vectors();
        assert_eq!((&roles[class(0, 0)], &roles[class(0, 1)]), (&vec![0, 16, 31], &vec![0, 15, 31]));
        assert_eq!(roles[class(9, 1)], [9, 12, 28]);
        assert_eq!(ChordParts::Notes.vectors()[class(9, 1)], [9, 0, 4]);
        assert_eq!(ChordParts::RootAndQuality.vectors()[class(9, 1)], [9, 13]);
        assert!(ChordParts::Whole.vectors().iter().enumerate().all(|(class, own)| *own == [class]));
    }

    #[test]
    fn sums_have_length_one() {
        assert_eq!(sum(&[&[1.0, 0.0], &[0.0, 1.0]]), [0.5f32.sqrt(), 0.5f32.sqrt()]);
        assert_eq!(sum(&[&[1.0, 0.0], &[-1.0, 0.0]]), [0.0, 0.0]);
        assert_eq!("notes".parse(), Ok(ChordParts::Notes));
        assert!("quality".parse::<ChordParts>().is_err());
    }
}
