//! Pieces with a lane switched on, beside unsteered ones of the same prompts and seeds: what the outside ear heard of each.
//! Generated with the player itself, kept between runs; worker threads.

use super::EvaluationError;
use super::chord_ear::{STRETCH_SECONDS, profiles};
use super::chroma::{Chroma, strongest};
use super::generation::{frames_of, generate};
use super::piece::Heard;
use super::session::Session;
use crate::control::{Chord, ControlFrame, Lanes, PitchClass, Quality};
use crate::decoder::sampling::Sampling;
use crate::model::Model;
use crate::text::Prompt;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is steered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// One of twelve pitch classes.
    Note,
    /// One of 24 major and minor triads.
    Chord,
    /// Slower or faster, by the sign of the strength.
    Tempo,
    /// A note, and faster or slower at the same time.
    Pair,
}

impl Aim {
    /// Every aim.
    pub const ALL: [Self; 4] = [Self::Note, Self::Chord, Self::Tempo, Self::Pair];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "notes",
            Self::Chord => "chords",
            Self::Tempo => "tempo",
            Self::Pair => "pair",
        }
    }

    /// Number of targets.
    pub const fn targets(self) -> usize {
        match self {
            Self::Note | Self::Pair => 12,
            Self::Chord => 24,
            Self::Tempo => 1,
        }
    }

    /// The triad of a target of [`Aim::Chord`].
    pub fn chord(target: usize) -> Option<Chord> {
        let quality = if target.is_multiple_of(2) { Quality::Major } else { Quality::Minor };
        Some(Chord { root: PitchClass::new(u8::try_from(target / 2).ok()?)?, quality })
    }

    /// The target of the piece under `prompt` in `round`: neighbours get others, and over the rounds a prompt meets all.
    pub const fn target(self, prompt: usize, round: usize) -> usize {
        (prompt * 7 + round * 5) % self.targets()
    }

    /// What the lanes ask for.
    pub fn lanes(self, target: usize, strength: f32, tempo: f32, shape: Lanes) -> Lanes {
        let note = PitchClass::new(target as u8);
        let lanes = Lanes { strength: 1.0, ..shape };
        match self {
            Self::Note => Lanes { note, note_strength: strength, ..lanes },
            Self::Chord => Lanes { chord: Self::chord(target), chord_strength: strength, ..lanes },
            Self::Tempo => Lanes { tempo_strength: strength, ..lanes },
            Self::Pair => Lanes { note, note_strength: strength, tempo_strength: tempo, ..lanes },
        }
    }
}

/// Which pieces.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// What is steered to.
    pub aim: Aim,
    /// Pieces for each prompt.
    pub rounds: usize,
    /// Only every so manieth prompt.
    pub every: usize,
    /// How long, and what of it is steered and judged.
    pub span: Span,
    /// Attack, release and their shape; targets and strengths are set piece by piece.
    pub shape: Lanes,
    /// Guidance, temperature and top-k.
    pub sampling: Sampling,
    /// Added to the split's first seed: an unsteered set of other seeds has another.
    pub seed_offset: u32,
}

/// The times of a piece, in seconds from its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Length.
    pub seconds: f64,
    /// When steering is switched on.
    pub onset: f64,
    /// From when on it is judged.
    pub heard_from: f64,
}

/// How strongly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Of the lane; of the note lane in a pair.
    pub lane: f32,
    /// Of the tempo lane in a pair.
    pub tempo: f32,
}

impl Strength {
    /// Unsteered.
    pub const OFF: Self = Self { lane: 0.0, tempo: 0.0 };

    /// One lane.
    pub const fn of(lane: f32) -> Self {
        Self { lane, tempo: 0.0 }
    }
}

/// What was heard of one piece from the second that the protocol hears from on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteeredPiece {
    /// Strongest pitch class of each frame, "0" to "9", "a" and "b"; "." is silence.
    pub strongest: String,
    /// Amplitude of the pitch classes over stretches of [`STRETCH_SECONDS`]; `None` is silence.
    pub profiles: Vec<Option<[f32; 12]>>,
    /// Everything else.
    pub heard: Heard,
}

/// Which prompt and target a piece had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Index into the split's prompts.
    pub prompt: usize,
    /// Target, below [`Aim::targets`].
    pub target: usize,
    /// Seed of the piece.
    pub seed: u32,
}

impl SteeredPiece {
    /// Listens to mono audio.
    ///
    /// # Errors
    /// When the ear cannot be set up for the rate.
    pub fn of(mono: &[f32], rate: f64, hop: usize) -> Result<Self, EvaluationError> {
        let frames = Chroma::new(rate)?.frames(mono, hop);
        let digit = |class: usize| char::from_digit(class as u32, 12).unwrap_or('.');
        let stretch = (STRETCH_SECONDS * rate / hop as f64).round() as usize;
        Ok(Self {
            strongest: frames.iter().map(|frame| strongest(frame).map_or('.', digit)).collect(),
            profiles: profiles(&frames, stretch),
            heard: Heard::of(mono, rate, hop, true)?,
        })
    }

    /// Strongest pitch class of each frame; `None` is silence.
    pub fn classes(&self) -> impl Iterator<Item = Option<usize>> {
        self.strongest.chars().map(|c| c.to_digit(12).map(|class| class as usize))
    }
}

/// The jobs of a protocol, in the order of [`pieces`].
pub fn jobs(session: &Session, protocol: &Protocol) -> Vec<Job> {
    let split = session.split();
    let prompts = (0..split.prompts.len()).step_by(protocol.every.max(1));
    let round = |round: usize| {
        prompts.clone().enumerate().map(move |(place, prompt)| (round, place, prompt)).collect::<Vec<_>>()
    };
    let all = (0..protocol.rounds).flat_map(round).enumerate();
    all.map(|(i, (round, place, prompt))| Job {
        prompt,
        target: protocol.aim.target(place, round),
        seed: split.seed_base + protocol.seed_offset + i as u32,
    })
    .collect()
}

impl Protocol {
    /// What a piece is played with once it is steered.
    pub fn control(&self, job: Job, strength: Strength) -> ControlFrame {
        let lanes = match strength == Strength::OFF {
            true => Lanes::OFF,
            false => self.aim.lanes(job.target, strength.lane, strength.tempo, self.shape),
        };
        ControlFrame { seed: job.seed, lanes, ..ControlFrame::new(1, 0).sampled(self.sampling) }
    }
}

/// Plays one piece with the control's lanes on from the onset, and listens to what is judged of it.
///
/// # Errors
/// When the model fails, or its sample rate cannot be heard.
pub fn hear_piece(
    model: &Arc<Model>,
    prompt: Arc<Prompt>,
    control: ControlFrame,
    span: Span,
) -> Result<SteeredPiece, EvaluationError> {
    let mono = generate(model, prompt, control, frames_of(model, span.onset)..frames_of(model, span.seconds))?;
    let format = model.format();
    let heard_from = frames_of(model, span.heard_from) as usize;
    let heard = mono.get(heard_from * format.frame_samples..).unwrap_or(&[]);
    SteeredPiece::of(heard, f64::from(format.model_rate), format.frame_samples)
}

/// Generates the pieces at one strength and listens to them.
///
/// # Errors
/// When the model fails, or results cannot be kept.
pub fn pieces(
    session: &Session,
    protocol: &Protocol,
    strength: Strength,
) -> Result<Vec<SteeredPiece>, EvaluationError> {
    let jobs = jobs(session, protocol);
    let off = strength == Strength::OFF;
    // Unsteered pieces are the same whatever would have been steered to.
    let list: Vec<String> = jobs
        .iter()
        .map(|job| {
            let text = &session.split().prompts[job.prompt].text;
            if off { format!("{} {text}", job.seed) } else { format!("{} {} {text}", job.seed, job.target) }
        })
        .collect();
    let (model, span) = (session.model(), protocol.span);
    let directions = model.steering().fingerprint();
    let steering = match off {
        true => String::new(),
        false => format!("{} {:?} {strength:?} {:?} {directions}", protocol.aim.name(), span.onset, protocol.shape),
    };
    let sound = format!("{} {} {:?}", span.seconds, span.heard_from, protocol.sampling);
    let fingerprint = model.fingerprint();
    let key = [fingerprint.as_str(), &list.join("\n"), &sound, &steering];
    let stage = match off {
        true => "unsteered".to_owned(),
        false => format!("{} at {}", protocol.aim.name(), strength.lane),
    };
    let progress = |done, all| session.hear_progress(&stage, done, all);
    session.cache().items("steered", &key, jobs.len(), &progress, |i| {
        let job = jobs[i];
        let prompt = Arc::new(model.prompt(&session.split().prompts[job.prompt].text)?);
        hear_piece(model, prompt, protocol.control(job, strength), span)
    })
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{RATE, sine};
    use super::*;

    #[test]
    fn targets_are_spread_over_prompts_and_rounds() {
        for aim in [Aim::Note, Aim::Chord] {
            let mut counts = vec![0; aim.targets()];
            (0..72).for_each(|prompt| (0..17).for_each(|round| counts[aim.target(prompt, round)] += 1));
            assert!(counts.iter().all(|&n| n == 72 * 17 / aim.targets()), "{counts:?}");
            let mut met: Vec<usize> = (0..aim.targets()).map(|round| aim.target(3, round)).collect();
            met.sort_unstable();
            met.dedup();
            assert_eq!(met.len(), aim.targets());
        }
        let chords: Vec<Chord> = (0..24).filter_map(Aim::chord).collect();
        assert_eq!((chords.len(), chords[19].root.name(), chords[19].quality), (24, "A", Quality::Minor));
        assert_eq!(Aim::chord(24), None);
    }

    #[test]
    fn a_tone_and_silence_are_told_frame_by_frame() {
        let mut audio = sine(440.0, 0.2, 2.0);
        audio.extend(vec![0.0; 64_000]);
        let piece = SteeredPiece::of(&audio, RATE, 640).expect("rate");
        let classes: Vec<Option<usize>> = piece.classes().collect();
        assert_eq!((classes.len(), classes[40], classes[180]), (200, Some(9), None));
        assert_eq!((piece.profiles.len(), piece.profiles[1].is_some(), piece.profiles[7]), (8, true, None));
    }
}
