//! The outside ears themselves, scored before anything is judged by them: labelled notes and triads, rendered with
//! instruments that nothing was tuned on and sent through the codec. Worker threads.

use super::EvaluationError;
use super::adherence::{Confusion, mistakes};
use super::chord_ear::hear_chord;
use super::session::Session;
use super::steered::{Aim, SteeredPiece};
use crate::control::{PitchClass, Quality};
use crate::dataset::concepts::{Concept, ConceptClip};
use crate::learn::split::{Label, Part, Split};
use serde::Serialize;

/// How often an ear is right.
#[derive(Clone, Debug, Serialize)]
pub struct EarReport {
    /// Share of the sounding frames (notes) or stretches (chords) that are named right.
    pub right: f32,
    /// The same without the codec.
    pub right_rendered: f32,
    /// Chords: share whose root is right.
    pub root_right: f32,
    /// Frames or stretches that were judged.
    pub judged: usize,
    /// General MIDI programs of the clips, 0-based.
    pub programs: Vec<u8>,
    /// What was taken for what, the commonest first.
    pub confusions: Vec<Confusion>,
}

/// Both ears.
#[derive(Clone, Debug, Serialize)]
pub struct EarsReport {
    /// The strongest pitch class.
    pub notes: EarReport,
    /// The best-fitting major or minor triad.
    pub chords: EarReport,
}

/// Clips to judge an ear by: those of the programs that learning never fits or tunes to.
fn clips(aim: Aim) -> Vec<ConceptClip> {
    let concept = if aim == Aim::Chord { Concept::Chords } else { Concept::Notes };
    let all = concept.clips(concept.programs());
    let split = Split::new(all.iter().map(|clip| Some(Label::from(clip))).collect());
    let kept = split.part(Part::Test).map(|(index, _)| all[index].clone());
    // The ear hears major and minor only.
    kept.filter(|clip| aim != Aim::Chord || clip.class % Quality::ALL.len() < 2).collect()
}

/// Names of what is heard and of what should be, and whether the root is right, over frames or stretches.
fn answers(aim: Aim, class: usize, piece: &SteeredPiece) -> Vec<(String, String, bool)> {
    let name = |root: usize| PitchClass::NAMES[root].to_owned();
    match aim {
        Aim::Chord => {
            let (root, quality) = (class / Quality::ALL.len(), Quality::ALL[class % Quality::ALL.len()]);
            let wanted = format!("{} {}", name(root), quality.name());
            let heard = piece.profiles.iter().flatten().filter_map(|p| hear_chord(p, &Quality::ALL[..2]));
            let answer = |chord: crate::control::Chord| {
                let heard = format!("{} {}", chord.root.name(), chord.quality.name());
                (wanted.clone(), heard, chord.root.index() == root)
            };
            heard.map(answer).collect()
        }
        _ => piece.classes().flatten().map(|heard| (name(class), name(heard), heard == class)).collect(),
    }
}

fn ear(session: &Session, aim: Aim) -> Result<EarReport, EvaluationError> {
    let clips = clips(aim);
    let [decoded, rendered] = session.hear_concept(aim.name(), &clips)?;
    let all = |pieces: &[Option<SteeredPiece>]| -> Vec<(String, String, bool)> {
        let each = clips.iter().zip(pieces).filter_map(|(clip, piece)| Some((clip.class, piece.as_ref()?)));
        each.flat_map(|(class, piece)| answers(aim, class, piece)).collect()
    };
    let right = |answers: &[(String, String, bool)]| {
        answers.iter().filter(|(wanted, heard, _)| wanted == heard).count() as f32 / answers.len().max(1) as f32
    };
    let (answers, before) = (all(&decoded), all(&rendered));
    let confusions = mistakes(answers.iter().map(|(wanted, heard, _)| (wanted.clone(), heard.clone())));
    let mut programs: Vec<u8> = clips.iter().map(|clip| clip.program).collect();
    programs.dedup();
    Ok(EarReport {
        right: right(&answers),
        right_rendered: right(&before),
        root_right: answers.iter().filter(|(.., root)| *root).count() as f32 / answers.len().max(1) as f32,
        judged: answers.len(),
        programs,
        confusions,
    })
}

/// Scores both ears.
///
/// # Errors
/// Those of the session.
pub fn ears_part(session: &Session) -> Result<EarsReport, EvaluationError> {
    Ok(EarsReport { notes: ear(session, Aim::Note)?, chords: ear(session, Aim::Chord)? })
}

impl EarsReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, ear: &EarReport| {
            let shown = ear.confusions.iter().take(6);
            let rows: Vec<String> =
                shown.map(|row| format!("{} -> {} {}/{}", row.wanted, row.heard, row.clips, row.of)).collect();
            format!(
                "ear for {name}: {:.1} % right after the codec, {:.1} % before, roots {:.1} %, {} judged; {}",
                100.0 * ear.right,
                100.0 * ear.right_rendered,
                100.0 * ear.root_right,
                ear.judged,
                rows.join(", ")
            )
        };
        vec![line("notes", &self.notes), line("chords", &self.chords)]
    }
}
