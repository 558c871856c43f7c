//! The figures of one lane: strengths side by side, adherence pair by pair, the guards against a drone. Worker threads.

use super::EvaluationError;
use super::adherence::Scores;
use super::curves::{Chart, Curve, Table};
use super::drift::{EMBEDDING, SOUND_EMBEDDING};
use super::report::{percent, table};
use super::session::Session;
use super::steered::{Aim, Protocol, Span, SteeredPiece, Strength, jobs, pieces};
use super::steering_figures::{Embeddings, Liveliness, OnTarget, PairedAdherence};
use crate::control::Lanes;
use crate::decoder::sampling::Sampling;
use serde::Serialize;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Strengths of the lane, the default one last; 0 is measured beside them.
    pub strengths: Vec<f32>,
    /// Strength of the tempo lane in a pair.
    pub tempo: f32,
    /// Pieces of ten heard seconds for each prompt at the default strength; the other strengths have half as many.
    pub rounds: usize,
    /// Pairs of five heard seconds for each prompt that adherence is judged on; 0 leaves it out.
    pub adherence_rounds: usize,
    /// Attack, release and their shape.
    pub shape: Lanes,
    /// Guidance, temperature and top-k.
    pub sampling: Sampling,
}

/// One strength.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Strength of the lane.
    pub strength: f32,
    /// Pieces.
    pub pieces: usize,
    /// How often the target sounds.
    #[serde(flatten)]
    pub on_target: OnTarget,
    /// The same frames of the unsteered pieces.
    pub dominance_unsteered: f32,
    /// Whether it is still music.
    pub liveliness: Liveliness,
    /// The same of the unsteered pieces.
    pub liveliness_unsteered: Liveliness,
    /// Onset rate over that of the unsteered pieces.
    pub onset_ratio: f32,
    /// Entropy of the pitch classes over that of the unsteered pieces.
    pub entropy_ratio: f32,
    /// Share of silent frames minus that of the unsteered pieces.
    pub silence_rise: f32,
    /// Frechet distance to unsteered pieces of other seeds.
    pub drift: f64,
    /// `drift` over the distance between two unsteered sets.
    pub drift_ratio: f64,
    /// The same in timbre and rhythm alone.
    pub sound_drift_ratio: f64,
}

/// One lane.
#[derive(Clone, Debug, Serialize)]
pub struct SteeringReport {
    /// What is steered to.
    pub lane: &'static str,
    /// The default strength.
    pub strength: f32,
    /// At the default strength; onset rate instead for tempo, which has no target.
    pub dominance: f32,
    /// The same frames unsteered.
    pub dominance_unsteered: f32,
    /// Share of pieces whose prompt is heard, steered at the default strength.
    pub adherence: f32,
    /// The same unsteered, same seeds.
    pub adherence_unsteered: f32,
    /// Everything about it.
    pub adherence_paired: Option<PairedAdherence>,
    /// Names of the embeddings that drift is measured in: of `drift_ratio`, and of `sound_drift_ratio`.
    pub embeddings: [&'static str; 2],
    /// Every strength, in the order asked for.
    pub by_strength: Vec<Point>,
}

/// Heard seconds of a piece, and of a pair for adherence.
const HEARD: f64 = 10.0;
const HEARD_FOR_ADHERENCE: f64 = 5.0;
/// When steering is switched on, in a piece under way; it is judged from a second later on.
const ONSET: f64 = 1.0;
/// Distance of the seeds of the second unsteered set.
const OTHER_SEEDS: u32 = 20_000;

/// A quick run takes every tenth prompt.
fn every(session: &Session) -> usize {
    10 / session.scaled(10)
}

impl Options {
    /// The pieces at the default strength.
    pub fn protocol(&self, session: &Session, aim: Aim) -> Protocol {
        Protocol {
            aim,
            rounds: self.rounds,
            every: every(session),
            span: span(HEARD),
            shape: self.shape,
            sampling: self.sampling,
            seed_offset: 0,
        }
    }
}

/// Steering is switched on in mid-piece; `heard` seconds are judged from a second later on.
pub fn span(heard: f64) -> Span {
    Span { seconds: ONSET + 1.0 + heard, onset: ONSET, heard_from: ONSET + 1.0 }
}

fn ratio(value: f32, to: f32) -> f32 {
    if to > 0.0 { value / to } else { 0.0 }
}

/// Measures a lane.
///
/// # Errors
/// Those of the session.
pub fn steering_part(session: &Session, aim: Aim, options: &Options) -> Result<SteeringReport, EvaluationError> {
    let every = every(session);
    let own = options.protocol(session, aim);
    let protocol = |rounds: usize, every: usize, heard: f64, seed_offset: u32| Protocol {
        rounds,
        every,
        span: span(heard),
        seed_offset,
        ..own.clone()
    };
    let strength = |lane: f32| match aim {
        Aim::Pair => Strength { lane, tempo: options.tempo },
        _ => Strength::of(lane),
    };
    let renders = session.rendered_features()?;
    let embeddings = Embeddings::learn(&renders)?;

    let default = options.strengths.last().copied().unwrap_or(1.0);
    let mut by_strength = Vec::new();
    for &lane in &options.strengths {
        let whole = lane == default;
        let own = protocol(options.rounds, if whole { every } else { 2 * every }, HEARD, 0);
        let (jobs, plain) = (jobs(session, &own), pieces(session, &own, Strength::OFF)?);
        let other = pieces(session, &Protocol { seed_offset: OTHER_SEEDS, ..own.clone() }, Strength::OFF)?;
        let moved = pieces(session, &own, strength(lane))?;
        by_strength.push(point(aim, lane, &jobs, [&plain, &other, &moved], &embeddings)?);
    }
    let paired = match options.adherence_rounds {
        0 => None,
        rounds => {
            let own = protocol(rounds, every, HEARD_FOR_ADHERENCE, 0);
            let (jobs, plain) = (jobs(session, &own), pieces(session, &own, Strength::OFF)?);
            let moved = pieces(session, &own, strength(default))?;
            let (judge, _) = session.judge()?;
            Some(PairedAdherence::of(&judge, &session.split().prompts, &jobs, &plain, &moved))
        }
    };
    let last = by_strength.last();
    Ok(SteeringReport {
        lane: aim.name(),
        strength: default,
        dominance: last.map_or(0.0, |p| p.on_target.dominance),
        dominance_unsteered: last.map_or(0.0, |p| p.dominance_unsteered),
        adherence: paired.as_ref().map_or(0.0, |p| p.steered.both),
        adherence_unsteered: paired.as_ref().map_or(0.0, |p| p.unsteered.both),
        adherence_paired: paired,
        embeddings: [EMBEDDING, SOUND_EMBEDDING],
        by_strength,
    })
}

impl SteeringReport {
    /// One row for each strength.
    pub fn table(&self) -> Table {
        let header = vec![
            "strength",
            "pieces",
            "on_target",
            "interval_low",
            "interval_high",
            "unsteered",
            "clip_share",
            "energy_share",
            "onset_ratio",
            "entropy_ratio",
            "silence_rise",
            "drift_ratio",
            "sound_drift_ratio",
        ];
        let row = |p: &Point| {
            let own = &p.on_target;
            let shares = [
                p.strength,
                p.pieces as f32,
                own.dominance,
                own.interval[0],
                own.interval[1],
                p.dominance_unsteered,
                own.clip_share,
                own.energy_share,
                p.onset_ratio,
                p.entropy_ratio,
                p.silence_rise,
                p.drift_ratio as f32,
                p.sound_drift_ratio as f32,
            ];
            shares.map(|x| x.to_string()).to_vec()
        };
        Table { header, rows: self.by_strength.iter().map(row).collect() }
    }

    /// What steering does over strength, and what it costs.
    pub fn charts(&self) -> Vec<Chart> {
        let over = |name: &str, of: &dyn Fn(&Point) -> f32| {
            Curve::new(name, self.by_strength.iter().map(|p| (p.strength, of(p))))
        };
        let mut charts = Vec::new();
        if self.lane != Aim::Tempo.name() {
            let mut target = over("on target", &|p| p.on_target.dominance);
            target.intervals = self.by_strength.iter().map(|p| p.on_target.interval).collect();
            let curves = vec![
                target,
                over("clips whose commonest it is", &|p| p.on_target.clip_share),
                over("its amplitude", &|p| p.on_target.energy_share),
                over("unsteered", &|p| p.dominance_unsteered),
            ];
            charts.push(Chart { across: "strength".to_owned(), up: "share".to_owned(), curves });
        }
        let curves = vec![
            over("onset rate", &|p| p.onset_ratio),
            over("pitch-class entropy", &|p| p.entropy_ratio),
            over("1 + silence added", &|p| 1.0 + p.silence_rise),
        ];
        charts.push(Chart { across: "strength".to_owned(), up: "over unsteered".to_owned(), curves });
        charts
    }
}

fn point(
    aim: Aim,
    strength: f32,
    jobs: &[super::steered::Job],
    [plain, other, moved]: [&[SteeredPiece]; 3],
    embeddings: &Embeddings,
) -> Result<Point, EvaluationError> {
    let (liveliness, unsteered) = (Liveliness::of(moved), Liveliness::of(plain));
    let (far, near) = (embeddings.drift(moved, other)?, embeddings.drift(plain, other)?);
    Ok(Point {
        strength,
        pieces: moved.len(),
        on_target: OnTarget::of(aim, jobs, moved),
        dominance_unsteered: OnTarget::of(aim, jobs, plain).dominance,
        onset_ratio: ratio(liveliness.onset_rate, unsteered.onset_rate),
        entropy_ratio: ratio(liveliness.pitch_entropy, unsteered.pitch_entropy),
        silence_rise: liveliness.silence_share - unsteered.silence_share,
        drift: far.whole,
        drift_ratio: far.whole / near.whole.max(1e-9),
        sound_drift_ratio: far.sound / near.sound.max(1e-9),
        liveliness,
        liveliness_unsteered: unsteered,
    })
}

impl SteeringReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}, steered in mid-piece and heard from a second later:", self.lane)];
        for p in &self.by_strength {
            lines.push(format!(
                "  strength {:5.2}: on target {} ({} to {}; unsteered {}), clips {}, amplitude {}, onsets x{:.2}, entropy x{:.2}, silence {:+.3}, drift x{:.1}, of timbre and rhythm x{:.1}",
                p.strength,
                percent(p.on_target.dominance),
                percent(p.on_target.interval[0]),
                percent(p.on_target.interval[1]),
                percent(p.dominance_unsteered),
                percent(p.on_target.clip_share),
                percent(p.on_target.energy_share),
                p.onset_ratio,
                p.entropy_ratio,
                p.silence_rise,
                p.drift_ratio,
                p.sound_drift_ratio
            ));
        }
        if let Some(paired) = &self.adherence_paired {
            lines.push(format!(
                "  prompt heard in {} at {:.2}, unsteered {}: drop {:.3} ({:.3} to {:.3}), log probability {:+.3}, {} pairs",
                percent(paired.steered.both),
                self.strength,
                percent(paired.unsteered.both),
                paired.drop,
                paired.interval[0],
                paired.interval[1],
                -paired.log_probability_drop,
                paired.pairs
            ));
            let parts = |scores: &Scores| [percent(scores.instrument), percent(scores.texture)];
            let ([instrument, texture], [instrument_before, texture_before]) =
                (parts(&paired.steered), parts(&paired.unsteered));
            lines.push(format!(
                "  instrument {instrument} (unsteered {instrument_before}), texture {texture} ({texture_before}); heard instead: {}",
                table(&paired.confusions)
            ));
        }
        lines
    }
}
