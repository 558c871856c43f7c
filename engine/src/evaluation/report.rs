//! The figures of one evaluation as one JSON object and as lines for people. Worker threads.

use super::EvaluationError;
use super::adherence::{Confusion, Example, Scores, Trial, class_label, confusions};
use super::classes::{Class, texture_label};
use super::codec::{CodecReport, Comparison, report};
use super::music::{MusicReport, PitchReport, Range, music, pitch_free};
use super::session::{HeldOut, Piece, Session};
use crate::dataset::harmony::PITCH_CLASS_NAMES;
use crate::decoder::sampling::Sampling;
use serde::Serialize;
use std::collections::BTreeMap;

/// Guidance at which prompts have to be followed: MusicGen's own.
const PROMPT_GUIDANCE: f32 = Sampling::PUBLISHED.guidance;

/// Rows of a confusion table that people are shown.
const SHOWN: usize = 8;

/// Whether prompts are followed. A headline figure without a suffix means instrument and texture both right.
#[derive(Debug, Serialize)]
pub struct PromptReport {
    /// Share of held-out rendered clips, after the codec, whose instrument and texture are both named right.
    pub classifier_accuracy: f32,
    /// The same for the instrument.
    pub classifier_accuracy_instrument: f32,
    /// The same for the texture.
    pub classifier_accuracy_texture: f32,
    /// The same for clips of half the length.
    pub classifier_half_length: Scores,
    /// The same for clips on one chord or one note, whole ones.
    pub classifier_static: Scores,
    /// On the first 5 s of each, as steered pieces are heard: those on one chord, and those on one note.
    pub classifier_static_half_length: [Scores; 2],
    /// Held-out clips that it was judged on.
    pub classifier_judged: usize,
    /// Clips that it learned from.
    pub classifier_learned: usize,
    /// What it mistakes on held-out clips.
    pub classifier_confusions: Vec<Confusion>,
    /// What it mistakes on held-out clips on one note.
    pub classifier_note_confusions: Vec<Confusion>,
    /// Its accuracy by instrument.
    pub classifier_by_instrument: BTreeMap<&'static str, Scores>,
    /// Guidance of the pieces that agreement is told of, temperature and top-k being those of the evaluation.
    pub guidance: f32,
    /// Share of unsteered pieces in which the prompted instrument and texture are both heard.
    pub agreement: f32,
    /// 90 % bootstrap interval, clustered by prompt.
    pub agreement_interval: [f32; 2],
    /// `agreement` at the guidance of the evaluation.
    pub agreement_as_played: f32,
    /// Share in which the prompted instrument is heard.
    pub agreement_instrument: f32,
    /// Share in which the prompted texture is heard.
    pub agreement_texture: f32,
    /// Mean natural logarithm of the probability of the prompted class; that of held-out renders beside it.
    pub log_probability: f32,
    /// The same of held-out renders.
    pub log_probability_rendered: f32,
    /// Pieces under prompts for a single voice.
    pub generations: usize,
    /// What was heard instead.
    pub confusions: Vec<Confusion>,
    /// Agreement by prompted instrument.
    pub by_instrument: BTreeMap<&'static str, Scores>,
    /// Agreement by prompted texture.
    pub by_texture: BTreeMap<&'static str, Scores>,
}

/// The codec's figures.
///
/// # Errors
/// Those of the session.
pub fn codec_part(session: &Session) -> Result<CodecReport, EvaluationError> {
    let clips: Vec<Comparison> = session.held_out()?.into_iter().map(|clip| clip.comparison).collect();
    Ok(report(&clips, session.model().codec().codebook_size()))
}

/// The prompt's figures.
///
/// # Errors
/// Those of the session.
pub fn prompt_part(session: &Session) -> Result<PromptReport, EvaluationError> {
    let (judge, learned) = session.judge()?;
    let classes = Class::all();
    let (examples, static_ones) = (session.judged_examples()?, session.judged_static_examples()?);
    let rendered = |examples: &[Example], view: usize| -> Vec<Trial> {
        let trial = |(group, example): (usize, &Example)| Trial {
            wanted: classes[example.class],
            heard: judge.hear(example.views[view].as_deref()),
            group,
        };
        examples.iter().enumerate().map(trial).collect()
    };
    let (whole, half) = (rendered(&examples, 0), rendered(&examples, 1));
    let [static_chords, static_notes] = [0, 1].map(|material| {
        let own = rendered(&static_ones, 1).into_iter().enumerate();
        own.filter(|(index, _)| index % 2 == material).map(|(_, trial)| trial).collect::<Vec<_>>()
    });
    let judged = Scores::of(&whole);
    let batch = session.every_prompt();
    let trial = |piece: &Piece| {
        let heard = judge.hear(piece.heard.features.as_deref());
        Some(Trial { wanted: piece.asked.class()?, heard, group: piece.prompt })
    };
    let trials = |sampling: Sampling| -> Result<Vec<Trial>, EvaluationError> {
        let heard = session.hear_pieces(&batch, sampling)?;
        Ok(batch.pieces(&heard).iter().filter_map(trial).collect())
    };
    let played = session.request().sampling;
    let as_played = Scores::of(&trials(played)?);
    let trials = trials(Sampling { guidance: PROMPT_GUIDANCE, ..played })?;
    let scores = Scores::of(&trials);
    Ok(PromptReport {
        classifier_accuracy: judged.both,
        classifier_accuracy_instrument: judged.instrument,
        classifier_accuracy_texture: judged.texture,
        classifier_half_length: Scores::of(&half),
        classifier_static: Scores::of(&rendered(&static_ones, 0)),
        classifier_static_half_length: [Scores::of(&static_chords), Scores::of(&static_notes)],
        classifier_judged: whole.len(),
        classifier_learned: learned,
        classifier_confusions: confusions(&whole, class_label),
        classifier_note_confusions: confusions(&static_notes, class_label),
        classifier_by_instrument: by_label(&whole, Class::instrument_label),
        guidance: PROMPT_GUIDANCE,
        agreement: scores.both,
        agreement_interval: scores.both_interval,
        agreement_as_played: as_played.both,
        agreement_instrument: scores.instrument,
        agreement_texture: scores.texture,
        log_probability: scores.log_probability,
        log_probability_rendered: judged.log_probability,
        generations: trials.len(),
        confusions: confusions(&trials, class_label),
        by_instrument: by_label(&trials, Class::instrument_label),
        by_texture: by_label(&trials, |class| texture_label(class.texture)),
    })
}

/// The music's figures.
///
/// # Errors
/// Those of the session.
pub fn music_part(session: &Session) -> Result<MusicReport, EvaluationError> {
    let batch = session.every_prompt();
    let (held_out, windows, heard): (Vec<HeldOut>, _, _) =
        (session.held_out()?, session.windows()?, session.hear_pieces(&batch, session.request().sampling)?);
    let long = session.hear_long()?;
    Ok(music(&batch.pieces(&heard), &held_out, &long, &windows))
}

/// The figures of the freedom of pitch.
///
/// # Errors
/// Those of the session.
pub fn pitch_part(session: &Session) -> Result<PitchReport, EvaluationError> {
    let held_out = session.held_out()?;
    let (many, few) = (session.few_prompts(), session.every_prompt());
    let sampling = session.request().sampling;
    let (heard_many, heard_few) = (session.hear_pieces(&many, sampling)?, session.hear_pieces(&few, sampling)?);
    Ok(pitch_free(&many.pieces(&heard_many), &few.pieces(&heard_few), &held_out, many.rounds()))
}

/// Scores of the trials of each label.
fn by_label(trials: &[Trial], label: impl Fn(Class) -> &'static str) -> BTreeMap<&'static str, Scores> {
    let mut groups: BTreeMap<&'static str, Vec<Trial>> = BTreeMap::new();
    for Trial { wanted, heard, group } in trials {
        let trial = Trial { wanted: *wanted, heard: heard.clone(), group: *group };
        groups.entry(label(*wanted)).or_default().push(trial);
    }
    groups.into_iter().map(|(label, trials)| (label, Scores::of(&trials))).collect()
}

pub(super) fn percent(share: f32) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn numbers(values: &[f32], decimals: usize) -> String {
    values.iter().map(|value| format!("{value:.decimals$}")).collect::<Vec<_>>().join(" ")
}

pub(super) fn table(rows: &[Confusion]) -> String {
    let row = |row: &Confusion| format!("{} -> {} {}/{}", row.wanted, row.heard, row.clips, row.of);
    rows.iter().take(SHOWN).map(row).collect::<Vec<_>>().join(", ")
}

impl CodecReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        vec![
            format!(
                "codec, {} held-out clips: strongest pitch class kept {} (within 1 dB; {} exactly), SI-SDR {:.1} dB, log-mel {:.2}",
                self.clips,
                percent(self.chroma_agreement),
                percent(self.chroma_agreement_strict),
                self.si_sdr,
                self.log_mel_distance
            ),
            format!("  perplexities of {}: {}", self.codebook_size, numbers(&self.perplexity, 0)),
            format!(
                "  above 12 kHz {:+.1} dB, {} of frames buzz, lines at 2 kHz {:.1} dB, bands {} dB",
                self.above_12_khz_db,
                percent(self.buzz_share),
                self.lines_db,
                numbers(&self.bands_db, 1)
            ),
        ]
    }
}

impl PromptReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let label = |(label, scores): (&&str, &Scores)| format!("{label} {:.0}", 100.0 * scores.both);
        vec![
            format!(
                "classifier, {} held-out renders after the codec: instrument and texture {}, instrument {}, texture {}; 5 s: {}, {}, {}; on one chord or note: {}, {}, {}",
                self.classifier_judged,
                percent(self.classifier_accuracy),
                percent(self.classifier_accuracy_instrument),
                percent(self.classifier_accuracy_texture),
                percent(self.classifier_half_length.both),
                percent(self.classifier_half_length.instrument),
                percent(self.classifier_half_length.texture),
                percent(self.classifier_static.both),
                percent(self.classifier_static.instrument),
                percent(self.classifier_static.texture)
            ),
            format!(
                "  on one chord, 5 s: {}, {}, {}; on one note, 5 s: {}, {}, {}",
                percent(self.classifier_static_half_length[0].both),
                percent(self.classifier_static_half_length[0].instrument),
                percent(self.classifier_static_half_length[0].texture),
                percent(self.classifier_static_half_length[1].both),
                percent(self.classifier_static_half_length[1].instrument),
                percent(self.classifier_static_half_length[1].texture)
            ),
            format!("  mistakes: {}", table(&self.classifier_confusions)),
            format!("  mistakes on one note, 5 s: {}", table(&self.classifier_note_confusions)),
            format!(
                "prompt, {} unsteered pieces at guidance {}: instrument and texture {} (at the evaluation's own guidance {}) ({} to {}), instrument {}, texture {}, log probability {:.2} (renders {:.2})",
                self.generations,
                self.guidance,
                percent(self.agreement),
                percent(self.agreement_as_played),
                percent(self.agreement_interval[0]),
                percent(self.agreement_interval[1]),
                percent(self.agreement_instrument),
                percent(self.agreement_texture),
                self.log_probability,
                self.log_probability_rendered
            ),
            format!("  by instrument: {}", self.by_instrument.iter().map(label).collect::<Vec<_>>().join(", ")),
            format!("  by texture: {}", self.by_texture.iter().map(label).collect::<Vec<_>>().join(", ")),
            format!("  heard instead: {}", table(&self.confusions)),
        ]
    }
}

impl MusicReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let range = |name: &str, r: &Range| {
            let verdict = if r.within { "within" } else { "outside" };
            let [median, low, high] = [r.median, r.low, r.high]
                .map(|x| if x > 0.0 && x < 0.01 { format!("{x:.1e}") } else { format!("{x:.3}") });
            format!("{name} {median} ({verdict} {low} to {high})")
        };
        vec![
            format!(
                "music: frames in the best key {} (renders {}, after the codec {}, shuffled {}), amplitude {}, entropy {} bits",
                percent(self.in_key_share),
                percent(self.in_key_share_rendered),
                percent(self.in_key_share_decoded),
                percent(self.in_key_share_shuffled),
                numbers(&self.in_key_amplitude, 3),
                numbers(&self.piece_entropy, 2)
            ),
            format!(
                "  onsets per second, slow medium fast: {:.2} {:.2} {:.2} (renders {:.2} {:.2} {:.2})",
                self.onset_rate.slow,
                self.onset_rate.medium,
                self.onset_rate.fast,
                self.onset_rate_rendered.slow,
                self.onset_rate_rendered.medium,
                self.onset_rate_rendered.fast
            ),
            format!(
                "  {} runs of 120 s, medians: {}, {}, {}",
                self.long_runs.len(),
                range("silence", &self.silence),
                range("flatness", &self.flatness),
                range("pitch-class entropy", &self.entropy)
            ),
        ]
    }
}

impl PitchReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let commonest = self.shares.iter().enumerate().fold(0, |a, (i, s)| if *s > self.shares[a] { i } else { a });
        vec![
            format!(
                "pitch, {} unsteered pieces of {} prompts: commonest class {} {}, of one prompt's pieces {} ({}); renders in such groups {}",
                self.generations,
                self.by_prompt.len(),
                PITCH_CLASS_NAMES[commonest],
                percent(self.max_share),
                percent(self.max_share_of_a_prompt),
                self.prompt,
                percent(self.max_share_of_rendered_group)
            ),
            format!(
                "  of one piece {} (render {}), medians; of three pieces of a prompt {} (median), {} (largest)",
                percent(self.max_share_of_a_piece),
                percent(self.max_share_of_a_render),
                percent(self.max_share_of_few[0]),
                percent(self.max_share_of_few[1])
            ),
        ]
    }
}
