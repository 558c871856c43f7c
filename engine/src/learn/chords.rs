//! What a chord's direction is made of: one for each root and quality, one for the root and one for the quality, or those of
//! its three notes. Worker threads.

use super::LearnError;
use super::axes::{self, Axes, Method, Targets};
use super::split::Split;
use super::states::States;
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
    /// The sum of the directions of its notes.
    Notes,
}

impl ChordParts {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Whole, Self::RootAndQuality, Self::Notes];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::RootAndQuality => "root-and-quality",
            Self::Notes => "notes",
        }
    }
}

impl FromStr for ChordParts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

const CHORDS: Targets = Targets::Classes(Chord::COUNT);

/// Directions of all chords from directions of roots and of qualities, learned by `method` on the chords' own clips.
/// `progress` hears (fits done, fits in all), from any thread.
///
/// # Errors
/// As [`axes::learn`].
pub fn root_and_quality(
    states: &States,
    split: &Split,
    method: Method,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Axes, LearnError> {
    let of = |class: usize| (class / Quality::ALL.len(), class % Quality::ALL.len());
    let all = (12 + Quality::ALL.len()) * states.blocks;
    let (roots, qualities) = (split.regrouped(|class| of(class).0), split.regrouped(|class| of(class).1));
    let first = |done, _| progress(done, all);
    let roots = axes::learn(states, &roots, Targets::Classes(12), method, &first)?;
    let then = |done, _| progress(12 * states.blocks + done, all);
    let qualities = axes::learn(states, &qualities, Targets::Classes(Quality::ALL.len()), method, &then)?;
    let given = |class: usize, block: usize| {
        let (root, quality) = of(class);
        let parts = [&roots.axes[root][block], &qualities.axes[quality][block]];
        sum(&parts.map(|axis| axis.direction.as_slice()))
    };
    axes::judge(states, split, CHORDS, &given, &|_, _| ())
}

/// Directions of all chords from those of the twelve notes.
///
/// # Errors
/// As [`axes::learn`].
pub fn of_notes(states: &States, split: &Split, notes: &Directions) -> Result<Axes, LearnError> {
    let given = |class: usize, block: usize| {
        let tones = Chord::of_class(class).map_or([0; 3], |chord| chord.tones().map(|tone| tone.index()));
        sum(&tones.map(|tone| notes.vector(tone, block)))
    };
    axes::judge(states, split, CHORDS, &given, &|_, _| ())
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
    fn sums_have_length_one() {
        assert_eq!(sum(&[&[1.0, 0.0], &[0.0, 1.0]]), [0.5f32.sqrt(), 0.5f32.sqrt()]);
        assert_eq!(sum(&[&[1.0, 0.0], &[-1.0, 0.0]]), [0.0, 0.0]);
        assert_eq!("notes".parse(), Ok(ChordParts::Notes));
        assert!("quality".parse::<ChordParts>().is_err());
    }
}
