//! What steering did, from what was heard: how often the target sounds, what it cost, and whether it is still music.
//! Always against the unsteered pieces of the same prompts and seeds. Pure arithmetic on cached pieces; any thread.

use super::adherence::{Confusion, Judge, Scores, Trial, class_label, confusions};
use super::bootstrap;
use super::chord_ear::hear_chord;
use super::drift::{Embedding, frechet};
use super::features::without_pitches;
use super::splits::LabelledPrompt;
use super::steered::{Aim, Job, SteeredPiece};
use crate::control::Quality;
use crate::learn::samples::FitError;
use serde::{Deserialize, Serialize};

/// What one set of pieces has of its targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OnTarget {
    /// Notes: share of all frames whose strongest pitch class is the target, silent frames being misses. Chords: share
    /// of the sounding stretches whose root and quality are both the target's.
    pub dominance: f32,
    /// 90 % interval, clustered by prompt.
    pub interval: [f32; 2],
    /// Share of pieces in which the target is what sounds most often.
    pub clip_share: f32,
    /// Share of the amplitude that the target's tones have in sounding stretches.
    pub energy_share: f32,
    /// Chords: root right, whatever the quality. Notes: as `dominance`.
    pub root_share: f32,
    /// `dominance` by target.
    pub by_target: Vec<f32>,
}

/// Whether it is still music: means over pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Liveliness {
    /// Onsets a second.
    pub onset_rate: f32,
    /// Entropy of the amplitude of the pitch classes, in bits.
    pub pitch_entropy: f32,
    /// Share of silent frames.
    pub silence_share: f32,
}

/// Whether the prompt is still followed, pair by pair.
#[derive(Clone, Debug, Serialize)]
pub struct PairedAdherence {
    /// Pairs whose prompt asks for a single voice.
    pub pairs: usize,
    /// Of the steered pieces.
    pub steered: Scores,
    /// Of the unsteered ones.
    pub unsteered: Scores,
    /// Share in which instrument and texture are both heard: unsteered minus steered.
    pub drop: f32,
    /// 90 % interval of `drop`, clustered by prompt.
    pub interval: [f32; 2],
    /// Unsteered minus steered, of the mean natural logarithm of the probability of what was asked for.
    pub log_probability_drop: f32,
    /// What was heard instead in the steered pieces.
    pub confusions: Vec<Confusion>,
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f32
}

/// Hits and trials of one piece, and whether its root was right that often.
struct Hits {
    right: f32,
    root: f32,
    of: f32,
}

fn hits(aim: Aim, target: usize, piece: &SteeredPiece) -> Hits {
    match Aim::chord(target).filter(|_| aim == Aim::Chord) {
        Some(chord) => {
            let heard = piece.profiles.iter().flatten().filter_map(|p| hear_chord(p, &Quality::ALL[..2]));
            let zero = Hits { right: 0.0, root: 0.0, of: 0.0 };
            heard.fold(zero, |hits, heard| Hits {
                right: hits.right + f32::from(u8::from(heard == chord)),
                root: hits.root + f32::from(u8::from(heard.root == chord.root)),
                of: hits.of + 1.0,
            })
        }
        None => {
            let right = piece.classes().filter(|class| *class == Some(target)).count() as f32;
            Hits { right, root: right, of: piece.strongest.len() as f32 }
        }
    }
}

/// Whether the target is what a piece has most of.
fn prevails(aim: Aim, target: usize, piece: &SteeredPiece) -> bool {
    let mut counts = [0usize; 24];
    if aim == Aim::Chord {
        for profile in piece.profiles.iter().flatten() {
            let Some(heard) = hear_chord(profile, &Quality::ALL[..2]) else { continue };
            counts[2 * heard.root.index() + usize::from(heard.quality == Quality::Minor)] += 1;
        }
    } else {
        piece.classes().flatten().for_each(|class| counts[class] += 1);
    }
    counts[target] > 0 && counts.iter().enumerate().all(|(other, &n)| other == target || n < counts[target])
}

impl OnTarget {
    /// Of pieces and their jobs; all zeros for tempo, which has no target.
    pub fn of(aim: Aim, jobs: &[Job], pieces: &[SteeredPiece]) -> Self {
        if aim == Aim::Tempo {
            return Self::default();
        }
        let each: Vec<(usize, usize, Hits)> = jobs
            .iter()
            .zip(pieces)
            .map(|(job, piece)| (job.prompt, job.target, hits(aim, job.target, piece)))
            .collect();
        // Stretches that sound differ in number from piece to piece: each counts alike.
        let share = |keep: &dyn Fn(usize) -> bool, of: &dyn Fn(&Hits) -> f32| {
            let kept = || each.iter().filter(|(_, target, _)| keep(*target));
            kept().map(|(_, _, hits)| of(hits)).sum::<f32>() / kept().map(|(_, _, hits)| hits.of).sum::<f32>().max(1.0)
        };
        let per_piece: Vec<(usize, f32)> =
            each.iter().filter(|e| e.2.of > 0.0).map(|(prompt, _, hits)| (*prompt, hits.right / hits.of)).collect();
        let tones = |target: usize| match (aim, Aim::chord(target)) {
            (Aim::Chord, Some(chord)) => chord.tones().map(|tone| tone.index()).to_vec(),
            _ => vec![target],
        };
        let energy = |(job, piece): (&Job, &SteeredPiece)| {
            let own = tones(job.target);
            let of =
                |profile: &[f32; 12]| own.iter().map(|tone| profile[*tone]).sum::<f32>() / profile.iter().sum::<f32>();
            mean(piece.profiles.iter().flatten().map(of))
        };
        let pairs = || jobs.iter().zip(pieces);
        Self {
            dominance: share(&|_| true, &|hits| hits.right),
            interval: bootstrap::interval(&per_piece),
            clip_share: mean(pairs().map(|(job, piece)| f32::from(u8::from(prevails(aim, job.target, piece))))),
            energy_share: mean(pairs().map(energy)),
            root_share: share(&|_| true, &|hits| hits.root),
            by_target: (0..aim.targets()).map(|own| share(&|target| target == own, &|hits| hits.right)).collect(),
        }
    }
}

impl Liveliness {
    /// Of pieces.
    pub fn of(pieces: &[SteeredPiece]) -> Self {
        let entropy = |piece: &SteeredPiece| {
            let shares = piece.heard.pitches.shares;
            let sum: f32 = shares.iter().sum();
            let of = |share: &f32| if *share > 0.0 { -share / sum * (share / sum).log2() } else { 0.0 };
            if sum > 0.0 { shares.iter().map(of).sum() } else { 0.0 }
        };
        Self {
            onset_rate: mean(pieces.iter().map(|piece| piece.heard.onset_rate)),
            pitch_entropy: mean(pieces.iter().map(entropy)),
            silence_share: mean(pieces.iter().map(|piece| piece.heard.pitches.silence_share())),
        }
    }
}

impl PairedAdherence {
    /// Of pieces side by side, `unsteered[i]` having the prompt and seed of `steered[i]`.
    pub fn of(
        judge: &Judge,
        prompts: &[LabelledPrompt],
        jobs: &[Job],
        unsteered: &[SteeredPiece],
        steered: &[SteeredPiece],
    ) -> Self {
        let (mut plain, mut moved) = (Vec::new(), Vec::new());
        for ((job, before), after) in jobs.iter().zip(unsteered).zip(steered) {
            let Some(wanted) = prompts.get(job.prompt).and_then(LabelledPrompt::class) else { continue };
            let trial = |piece: &SteeredPiece| Trial {
                wanted,
                heard: judge.hear(piece.heard.features.as_deref()),
                group: job.prompt,
            };
            plain.push(trial(before));
            moved.push(trial(after));
        }
        let drops: Vec<(usize, f32)> =
            plain.iter().zip(&moved).map(|(before, after)| (before.group, before.right() - after.right())).collect();
        let (unsteered, steered) = (Scores::of(&plain), Scores::of(&moved));
        Self {
            pairs: drops.len(),
            drop: mean(drops.iter().map(|(_, drop)| *drop)),
            interval: bootstrap::interval(&drops),
            log_probability_drop: unsteered.log_probability - steered.log_probability,
            confusions: confusions(&moved, class_label),
            steered,
            unsteered,
        }
    }
}

/// Embeddings that drift is measured in.
pub struct Embeddings {
    whole: Embedding,
    sound: Embedding,
}

/// Frechet distances between two sets of pieces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Of all features.
    pub whole: f64,
    /// Of timbre and rhythm alone.
    pub sound: f64,
}

impl Embeddings {
    /// Learns both from features of rendered clips.
    ///
    /// # Errors
    /// As [`Embedding::learn`].
    pub fn learn(renders: &[Vec<f32>]) -> Result<Self, FitError> {
        let whole: Vec<&[f32]> = renders.iter().map(Vec::as_slice).collect();
        let sound: Vec<&[f32]> = whole.iter().map(|features| without_pitches(features)).collect();
        Ok(Self { whole: Embedding::learn(&whole)?, sound: Embedding::learn(&sound)? })
    }

    /// How far two sets of pieces lie apart; silent pieces have no place.
    ///
    /// # Errors
    /// [`FitError`] with fewer than two sounding pieces in a set.
    pub fn drift(&self, a: &[SteeredPiece], b: &[SteeredPiece]) -> Result<Drift, FitError> {
        let places = |embedding: &Embedding, pieces: &[SteeredPiece], of: fn(&[f32]) -> &[f32]| -> Vec<Vec<f64>> {
            let features = pieces.iter().filter_map(|piece| piece.heard.features.as_deref());
            features.map(|features| embedding.of(of(features))).collect()
        };
        let apart = |embedding, of| frechet(&places(embedding, a, of), &places(embedding, b, of));
        Ok(Drift { whole: apart(&self.whole, |features| features)?, sound: apart(&self.sound, without_pitches)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::piece::Heard;
    use super::super::tonality::Pitches;
    use super::*;

    fn piece(strongest: &str, profiles: Vec<Option<[f32; 12]>>) -> SteeredPiece {
        let frames: Vec<[f32; 12]> = strongest
            .chars()
            .map(|c| std::array::from_fn(|pc| if c.to_digit(12) == Some(pc as u32) { 1.0 } else { 0.0 }))
            .collect();
        let heard = Heard { pitches: Pitches::of(&frames), onset_rate: 2.0, ..Heard::default() };
        SteeredPiece { strongest: strongest.to_owned(), profiles, heard }
    }

    fn triad(tones: [usize; 3]) -> Option<[f32; 12]> {
        let mut profile = [0.05; 12];
        tones.iter().for_each(|tone| profile[*tone] = 1.0);
        Some(profile)
    }

    #[test]
    fn silent_frames_are_misses_for_notes() {
        let jobs = [Job { prompt: 0, target: 9, seed: 1 }, Job { prompt: 1, target: 0, seed: 2 }];
        let pieces = [piece("99..", vec![]), piece("0b00", vec![])];
        let found = OnTarget::of(Aim::Note, &jobs, &pieces);
        assert_eq!((found.dominance, found.clip_share), (5.0 / 8.0, 1.0));
        assert_eq!((found.by_target[9], found.by_target[0], found.by_target[5]), (0.5, 0.75, 0.0));
        assert!(found.interval[0] >= 0.5 && found.interval[1] <= 0.75);
        let lively = Liveliness::of(&pieces);
        assert_eq!((lively.onset_rate, lively.silence_share), (2.0, 0.25));
        assert!((lively.pitch_entropy - 0.5 * 0.811_278).abs() < 1e-4, "{lively:?}");
    }

    #[test]
    fn silent_stretches_do_not_count_for_chords() {
        let a_minor = 19;
        let jobs = [Job { prompt: 0, target: a_minor, seed: 1 }];
        // A minor, A major, F major, silence.
        let profiles = vec![triad([9, 0, 4]), triad([9, 1, 4]), triad([5, 9, 0]), None];
        let found = OnTarget::of(Aim::Chord, &jobs, &[piece("9999", profiles)]);
        assert!((found.dominance - 1.0 / 3.0).abs() < 1e-6 && (found.root_share - 2.0 / 3.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found.clip_share, 0.0);
        assert!(found.energy_share > 0.6 && found.energy_share < 0.95);
    }
}
