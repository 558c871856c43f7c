//! Which clips teach, tune and judge: instruments stay together, and what a class is compared with lies as high as the
//! class itself, or a direction for C would also mean "lower" (`method.md` 1.4). Any thread.

use crate::dataset::concepts::ConceptClip;
use crate::dataset::random::Random;

/// What learning may know of a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Class, 0-based.
    pub class: usize,
    /// The number of a regression.
    pub level: f64,
    /// What must not be split: the instrument, or the file that a clip was cut from.
    pub group: usize,
    /// Mean MIDI note, where it is known.
    pub height: Option<f64>,
    /// Clips of one piece differ in nothing but their class.
    pub piece: Option<u64>,
}

impl From<&ConceptClip> for Label {
    fn from(clip: &ConceptClip) -> Self {
        Self {
            class: clip.class,
            level: clip.level,
            group: usize::from(clip.program),
            height: clip.height(),
            piece: clip.piece(),
        }
    }
}

/// A part of the clips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Directions are fitted to these.
    Train,
    /// Hyper-parameters and blocks are chosen by these.
    Validation,
    /// Figures that are reported come from these.
    Test,
}

/// Clips and what a fit should say of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Indices of the clips.
    pub clips: Vec<usize>,
    /// One target for each.
    pub targets: Vec<f64>,
}

/// Semitones by which what a clip is compared with may lie higher or lower.
const NEAR: f64 = 6.0;

/// Distinguishes this use of the random source from others.
const PURPOSE: u64 = 5;

/// Labels of the clips that sounded, in parts.
#[derive(Clone, Debug)]
pub struct Split {
    labels: Vec<Option<Label>>,
    /// Every group and its part, sorted by group.
    groups: Vec<(usize, Part)>,
    /// What a clip is compared with belongs to the same group.
    same_group: bool,
    /// The classes that are learned, where they are not all.
    wanted: Option<Vec<usize>>,
    /// Clips that were heard, where they are not all.
    heard: Option<Vec<bool>>,
}

impl Split {
    /// `labels` of all clips, `None` for those to leave out; every group has clips of all classes (instruments).
    pub fn new(labels: Vec<Option<Label>>) -> Self {
        let groups = parts(labels.iter().flatten().map(|label| label.group).collect());
        Self { labels, groups, same_group: true, wanted: None, heard: None }
    }

    /// The same where a group has clips of one class only (files): each class's groups are dealt out apart.
    pub fn by_file(labels: Vec<Option<Label>>) -> Self {
        let classes = labels.iter().flatten().map(|label| label.class + 1).max().unwrap_or(0);
        let own = |class: usize| labels.iter().flatten().filter(move |l| l.class == class).map(|l| l.group).collect();
        let mut groups: Vec<(usize, Part)> = (0..classes).flat_map(|class| parts(own(class))).collect();
        groups.sort_unstable_by_key(|(group, _)| *group);
        Self { labels, groups, same_group: false, wanted: None, heard: None }
    }

    /// The same clips in the same parts under other classes.
    pub fn regrouped(&self, class: impl Fn(usize) -> usize) -> Self {
        let of = |label: &Label| Label { class: class(label.class), ..*label };
        Self { labels: self.labels.iter().map(|label| label.as_ref().map(of)).collect(), ..self.clone() }
    }

    /// The same where only these classes are learned: [`Split::against_rest`] then counts them from 0.
    pub fn learning(self, wanted: Vec<usize>) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// The same where only these clips were heard. The others are reckoned with when it is chosen what a class is compared
    /// with, so that it is what it would be among all, and are no clips otherwise.
    pub fn heard(self, heard: Vec<bool>) -> Self {
        Self { heard: Some(heard), ..self }
    }

    /// Whether some classes are learned only.
    pub fn is_some(&self) -> bool {
        self.wanted.is_some()
    }

    /// The class at a place among those that are learned.
    pub fn class(&self, place: usize) -> usize {
        self.wanted.as_ref().map_or(place, |wanted| wanted[place])
    }

    /// Clips that the wanted classes are learned from, each with up to `rest` others, in order.
    pub fn needed(&self, rest: usize) -> Vec<usize> {
        let places = 0..self.wanted.as_ref().map_or(0, Vec::len);
        let parts = [Part::Train, Part::Validation, Part::Test];
        let rows = places.flat_map(|place| parts.map(|part| self.against_rest(part, place, rest)));
        let mut clips: Vec<usize> = rows.flat_map(|rows| rows.clips).collect();
        clips.sort_unstable();
        clips.dedup();
        clips
    }

    fn is_heard(&self, clip: usize) -> bool {
        self.heard.as_ref().is_none_or(|heard| heard[clip])
    }

    /// Number of groups: three at least make one of each part.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Clips that are not left out.
    pub fn count(&self) -> usize {
        self.labels.iter().enumerate().filter(|(clip, label)| label.is_some() && self.is_heard(*clip)).count()
    }

    /// A clip's label; `None` when it is left out.
    pub fn label(&self, clip: usize) -> Option<&Label> {
        self.labels.get(clip)?.as_ref()
    }

    /// Clips of a part, in their order. Of five groups three teach, one tunes, one judges.
    pub fn part(&self, part: Part) -> impl Iterator<Item = (usize, &Label)> {
        self.all_of(part).filter(|(clip, _)| self.is_heard(*clip))
    }

    /// Those too that were not heard.
    fn all_of(&self, part: Part) -> impl Iterator<Item = (usize, &Label)> {
        let of = |group: usize| {
            let place = self.groups.binary_search_by_key(&group, |(group, _)| *group);
            place.map_or(Part::Train, |place| self.groups[place].1)
        };
        let known = self.labels.iter().enumerate().filter_map(|(clip, label)| Some((clip, label.as_ref()?)));
        known.filter(move |(_, label)| of(label.group) == part)
    }

    /// Clips of the class at `place` with target 1, and for each up to `rest` clips of other classes with target 0: of the same
    /// piece, or of the same group and height, where there are any. No clip comes twice.
    pub fn against_rest(&self, part: Part, place: usize, rest: usize) -> Rows {
        let class = self.class(place);
        let members: Vec<(usize, &Label)> = self.all_of(part).collect();
        let mut random = Random::new(class as u64, part as u64, PURPOSE);
        let mut taken = vec![false; self.labels.len()];
        let mut rows = Rows::default();
        for (clip, own) in members.iter().filter(|(_, label)| label.class == class) {
            rows.clips.push(*clip);
            rows.targets.push(1.0);
            let near = |other: &Label| match (own.height, other.height) {
                (Some(a), Some(b)) => (a - b).abs() <= NEAR,
                _ => true,
            };
            let mut others: Vec<usize> = members
                .iter()
                .filter(|(_, other)| {
                    other.class != class
                        && (!self.same_group || other.group == own.group)
                        && other.piece == own.piece
                        && near(other)
                })
                .map(|(clip, _)| *clip)
                .filter(|clip| !taken[*clip])
                .collect();
            for _ in 0..rest.min(others.len()) {
                let other = others.swap_remove(random.below(others.len()));
                taken[other] = true;
                rows.clips.push(other);
                rows.targets.push(0.0);
            }
        }
        let heard = rows.clips.into_iter().zip(rows.targets).filter(|(clip, _)| self.is_heard(*clip));
        let (clips, targets) = heard.unzip();
        Rows { clips, targets }
    }

    /// Every clip of a part with its level, as deviations from `mean` in units of `deviation`.
    pub fn levels(&self, part: Part, mean: f64, deviation: f64) -> Rows {
        let (clips, targets) = self.part(part).map(|(clip, label)| (clip, (label.level - mean) / deviation)).unzip();
        Rows { clips, targets }
    }

    /// Mean and deviation of the levels that teach.
    pub fn scale(&self) -> (f64, f64) {
        let levels: Vec<f64> = self.part(Part::Train).map(|(_, label)| label.level).collect();
        let count = levels.len().max(1) as f64;
        let mean = levels.iter().sum::<f64>() / count;
        let variance = levels.iter().map(|level| (level - mean).powi(2)).sum::<f64>() / count;
        (mean, variance.sqrt().max(f64::MIN_POSITIVE))
    }
}

/// Deals groups out: of five, three teach, one tunes, one judges.
fn parts(mut groups: Vec<usize>) -> Vec<(usize, Part)> {
    groups.sort_unstable();
    groups.dedup();
    let part = |place: usize| match place % 5 {
        1 => Part::Validation,
        2 => Part::Test,
        _ => Part::Train,
    };
    groups.into_iter().enumerate().map(|(place, group)| (group, part(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::concepts::Concept;

    fn notes() -> Split {
        let clips = Concept::Notes.clips(&[0, 6, 11, 24, 40, 46, 48, 56, 61, 73]);
        // One instrument is silent at the bottom.
        let label = |clip: &ConceptClip| Some(Label::from(clip)).filter(|l| l.group != 73 || l.height > Some(50.0));
        Split::new(clips.iter().map(label).collect())
    }

    #[test]
    fn instruments_stay_together() {
        let split = notes();
        let groups = |part| {
            let mut groups: Vec<usize> = split.part(part).map(|(_, label)| label.group).collect();
            groups.dedup();
            groups
        };
        assert_eq!(groups(Part::Train), [0, 24, 40, 46, 61, 73]);
        assert_eq!(groups(Part::Validation), [6, 48]);
        assert_eq!(groups(Part::Test), [11, 56]);
        assert_eq!(split.count(), 10 * 48 - 15);
    }

    #[test]
    fn what_a_class_is_compared_with_is_as_high_and_played_by_the_same() {
        let split = notes();
        for class in 0..12 {
            let rows = split.against_rest(Part::Train, class, 3);
            let of = |target: f64| -> Vec<&Label> {
                let rows = rows.clips.iter().zip(&rows.targets).filter(|(_, own)| **own == target);
                rows.filter_map(|(clip, _)| split.label(*clip)).collect()
            };
            let height = |labels: &[&Label]| labels.iter().filter_map(|l| l.height).sum::<f64>() / labels.len() as f64;
            let (own, rest) = (of(1.0), of(0.0));
            assert!(own.iter().all(|label| label.class == class) && rest.iter().all(|label| label.class != class));
            assert!(own.len() >= 22 && rest.len() == 3 * own.len(), "{} against {}", own.len(), rest.len());
            assert!((height(&own) - height(&rest)).abs() < 2.0, "{class}: {} {}", height(&own), height(&rest));
            let mut clips = rows.clips.clone();
            clips.sort_unstable();
            clips.dedup();
            assert_eq!(clips.len(), rows.clips.len());
            assert_eq!(rows, split.against_rest(Part::Train, class, 3));
        }
    }

    #[test]
    fn a_piece_is_compared_with_itself() {
        let clips = Concept::Notes.music(5).expect("notes have music");
        let split = Split::new(clips.iter().map(|clip| Some(Label::from(clip))).collect());
        let rows = split.against_rest(Part::Train, 4, 3);
        assert_eq!(rows.clips.len(), 4 * rows.targets.iter().filter(|target| **target == 1.0).count());
        for own in rows.clips.chunks(4) {
            let pieces = own.iter().filter_map(|clip| split.label(*clip)).map(|label| label.piece);
            assert!(
                own.len() == 4 && pieces.clone().all(|piece| piece.is_some() && Some(piece) == pieces.clone().next())
            );
        }
    }

    #[test]
    fn some_classes_are_compared_with_what_all_are_compared_with() {
        let clips = Concept::Notes.music(5).expect("notes have music");
        let all = Split::new(clips.iter().map(|clip| Some(Label::from(clip))).collect());
        let plan = all.clone().learning(vec![2, 9]);
        let needed = plan.needed(3);
        // Two of twelve, and three others for each, some of which are the same.
        assert!((4 * clips.len() / 12..8 * clips.len() / 12).contains(&needed.len()), "{} clips", needed.len());
        let heard = plan.heard((0..clips.len()).map(|clip| needed.contains(&clip)).collect());
        assert_eq!((heard.count(), heard.class(1), heard.is_some()), (needed.len(), 9, true));
        for part in [Part::Train, Part::Validation, Part::Test] {
            for (place, class) in [(0, 2), (1, 9)] {
                assert_eq!(heard.against_rest(part, place, 3), all.against_rest(part, class, 3));
            }
            assert!(heard.part(part).all(|(clip, _)| needed.contains(&clip)));
        }
        // A clip without sound is left out of what was chosen.
        let silent = needed[1];
        let fewer = heard.heard((0..clips.len()).map(|clip| clip != silent && needed.contains(&clip)).collect());
        assert_eq!(fewer.count(), needed.len() - 1);
        assert!(fewer.needed(3).iter().all(|clip| *clip != silent));
    }

    #[test]
    fn files_of_both_sides_are_in_every_part() {
        let label = |clip: usize| {
            Some(Label { class: clip % 2, level: 0.0, group: clip % 2 * 10 + clip / 8, height: None, piece: None })
        };
        let split = Split::by_file((0..48).map(label).collect());
        for part in [Part::Train, Part::Validation, Part::Test] {
            let rows = split.against_rest(part, 0, 1);
            let own = rows.targets.iter().filter(|target| **target == 1.0).count();
            assert!(own >= 4 && own * 2 == rows.targets.len(), "{part:?}: {rows:?}");
        }
        assert_eq!(split.groups(), 12);
    }

    #[test]
    fn levels_are_standardised_by_what_teaches() {
        let label = |(group, level)| Some(Label { class: 0, level, group, height: None, piece: None });
        let split = Split::new([(0, 1.0), (1, 7.0), (2, 4.0), (3, 3.0)].map(label).to_vec());
        assert_eq!(split.scale(), (2.0, 1.0));
        assert_eq!(split.levels(Part::Train, 2.0, 1.0), Rows { clips: vec![0, 3], targets: vec![-1.0, 1.0] });
        assert_eq!(split.levels(Part::Test, 2.0, 2.0).targets, [1.0]);
    }
}
