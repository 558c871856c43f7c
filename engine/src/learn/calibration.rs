//! What strength 1 means for a checkpoint: the smallest dose that all but reaches the plateau of note dominance, heard by
//! the outside ear in generated pieces. More would cost sound and gain nothing. Worker threads.

use crate::decoder::sampling::Sampling;
use crate::evaluation::dominance::{DominanceError, Point, Protocol, sweep};
use crate::model::Model;
use crate::steering::directions::Directions;
use std::sync::Arc;

/// Doses that are tried, as fractions of each block's mean norm.
pub const DOSES: [f32; 7] = [0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6];

/// Share of the best dominance that the full dose has to reach.
const ENOUGH: f32 = 0.95;

/// Prompts that calibration plays under: evaluation uses others.
const PROMPTS: [&str; 6] = [
    "medium piano melody",
    "slow string ensemble pad, calm",
    "fast harp arpeggio",
    "medium organ chords, happy",
    "slow flute tune over warm synth pad",
    "fast vibraphone and double bass, melody and groove",
];

/// First seed of calibration: far from those of evaluation.
const SEED_BASE: u32 = 9_000;

/// Tries the doses on a model whose directions are stored with a full dose of 1, and sets the dose that it found, with the
/// curve in the provenance. `progress` hears (pieces done, pieces in all), from any thread.
///
/// # Errors
/// When the model fails or does not play these directions.
pub fn calibrate(
    model: &Arc<Model>,
    directions: &mut Directions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<f32, DominanceError> {
    let prompts = PROMPTS.map(str::to_owned);
    let mut strengths = vec![0.0];
    strengths.extend(DOSES);
    let protocol = Protocol {
        prompts: &prompts,
        strengths: &strengths,
        rounds: 1,
        // Switched on in mid-piece: a dose must also turn music that is under way, and soon.
        seconds: 5.0,
        onset: 2.0,
        seed_base: SEED_BASE,
        sampling: Sampling::PUBLISHED,
    };
    let points = sweep(model, &protocol, progress)?;
    directions.full_dose = choose(&points);
    let curve: Vec<[f32; 2]> = points.iter().map(|point| [point.strength, point.dominance]).collect();
    let mut provenance: serde_json::Value = serde_json::from_str(&directions.provenance).unwrap_or_default();
    if !provenance.is_object() {
        provenance = serde_json::json!({});
    }
    provenance["calibration"] = serde_json::json!({
        "rule": format!("smallest dose with {ENOUGH} of the best note dominance"),
        "prompts": PROMPTS,
        "seconds": protocol.seconds,
        "switched_on_at": protocol.onset,
        "dose_and_dominance": curve,
    });
    directions.provenance = provenance.to_string();
    Ok(directions.full_dose)
}

/// The smallest dose whose dominance reaches [`ENOUGH`] of the best one.
fn choose(points: &[Point]) -> f32 {
    let best = points.iter().map(|point| point.dominance).fold(0.0, f32::max);
    let enough = |point: &&Point| point.strength > 0.0 && point.dominance >= ENOUGH * best;
    let smallest = points.iter().filter(enough).map(|point| point.strength).fold(f32::INFINITY, f32::min);
    // Without any sound every dose is as good: the smallest then.
    if smallest.is_finite() { smallest } else { DOSES[0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_dose_is_the_start_of_the_plateau() {
        let point = |(strength, dominance)| Point {
            strength,
            dominance,
            by_target: [dominance; 12],
            silence_share: 0.0,
            max_pitch_share: 0.1,
            rms: 0.1,
        };
        let curve = [(0.0, 0.1), (0.1, 0.4), (0.2, 0.78), (0.3, 0.8), (0.45, 0.79)].map(point);
        assert_eq!(choose(&curve), 0.2);
        assert_eq!(choose(&[(0.0, 0.0), (0.1, 0.0)].map(point)), 0.1);
        assert_eq!(choose(&[]), DOSES[0]);
    }
}
