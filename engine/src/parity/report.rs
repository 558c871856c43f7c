//! What a comparison found, stage by stage, with the bound that each stage must keep. Any thread.

use serde::Serialize;

/// One stage's largest errors.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// What was compared, as the reference file calls it.
    pub name: String,
    /// Largest absolute error.
    pub max_abs: f64,
    /// The same as a share of the stage's scale: its largest value, or its deviation about the mean for audio.
    pub max_rel: f64,
    /// What `max_rel` must stay under.
    pub bound: f64,
    pub pass: bool,
}

impl Stage {
    /// Errors relative to the largest expected value.
    pub(super) fn by_largest(name: impl Into<String>, found: &[f32], expected: &[f32], bound: f64) -> Self {
        let largest = expected.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
        Self::with_scale(name, found, expected, largest, bound)
    }

    /// Errors relative to the expected values' deviation about their mean: a constant offset hides nothing.
    pub(super) fn by_deviation(name: impl Into<String>, found: &[f32], expected: &[f32], bound: f64) -> Self {
        let count = expected.len().max(1) as f64;
        let mean = expected.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let power = expected.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
        Self::with_scale(name, found, expected, power.sqrt(), bound)
    }

    fn with_scale(name: impl Into<String>, found: &[f32], expected: &[f32], scale: f64, bound: f64) -> Self {
        // NaN must not get lost in a maximum.
        let error = |(a, b): (&f32, &f32)| Some(f64::from(a - b).abs()).filter(|e| e.is_finite());
        let worst = found.iter().zip(expected).map(error).try_fold(0.0f64, |worst, e| Some(worst.max(e?)));
        let max_abs = worst.filter(|_| found.len() == expected.len()).unwrap_or(f64::INFINITY);
        let max_rel = if max_abs == 0.0 { 0.0 } else { max_abs / scale };
        Self { name: name.into(), max_abs, max_rel, bound, pass: max_rel < bound }
    }
}

/// Equality of codes, with ties named.
#[derive(Clone, Debug, Serialize)]
pub struct CodesStage {
    pub name: String,
    /// Codes compared.
    pub count: usize,
    /// Share that is equal.
    pub equal_share: f64,
    /// Places where rounding decided between two codes.
    pub ties: Vec<String>,
    /// Places that differ for no such reason.
    pub wrong: Vec<String>,
    pub pass: bool,
}

impl CodesStage {
    pub(super) fn new(name: &str, count: usize, ties: Vec<String>, wrong: Vec<String>) -> Self {
        let equal_share = 1.0 - (ties.len() + wrong.len()) as f64 / count.max(1) as f64;
        Self { name: name.to_owned(), count, equal_share, pass: wrong.is_empty(), ties, wrong }
    }
}

/// The whole comparison. The flat fields are the contract of `cargo xtask parity --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub text_max_rel: f64,
    pub hidden_max_rel: f64,
    pub logits_max_rel: f64,
    pub greedy_equal_share: f64,
    pub greedy_ties: usize,
    pub latent_max_rel: f64,
    pub encoded_equal_share: f64,
    pub encoded_ties: usize,
    pub decoded_max_abs: f64,
    pub decoded_max_rel: f64,
    pub stream_max_abs: f64,
    pub pass: bool,
    pub stages: Vec<Stage>,
    pub codes: Vec<CodesStage>,
}

impl Report {
    pub(super) fn new(stages: Vec<Stage>, codes: Vec<CodesStage>) -> Self {
        let worst = |start: &str, value: fn(&Stage) -> f64| {
            stages.iter().filter(|stage| stage.name.starts_with(start)).map(value).fold(0.0, f64::max)
        };
        let share = |name: &str| codes.iter().find(|stage| stage.name == name).map_or(0.0, |stage| stage.equal_share);
        let ties = |name: &str| codes.iter().find(|stage| stage.name == name).map_or(0, |stage| stage.ties.len());
        Self {
            text_max_rel: worst("text", |stage| stage.max_rel),
            hidden_max_rel: worst("hidden", |stage| stage.max_rel),
            logits_max_rel: worst("logits", |stage| stage.max_rel),
            greedy_equal_share: share("greedy_codes"),
            greedy_ties: ties("greedy_codes"),
            latent_max_rel: worst("encoder_latent", |stage| stage.max_rel),
            encoded_equal_share: share("encoded_codes"),
            encoded_ties: ties("encoded_codes"),
            decoded_max_abs: worst("decoded", |stage| stage.max_abs),
            decoded_max_rel: worst("decoded", |stage| stage.max_rel),
            stream_max_abs: worst("stream", |stage| stage.max_abs),
            pass: stages.iter().all(|stage| stage.pass) && codes.iter().all(|stage| stage.pass),
            stages,
            codes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_a_number_is_an_error_without_bound() {
        let stage = Stage::by_largest("x", &[1.0, f32::NAN], &[1.0, 2.0], 1e-5);
        assert!(!stage.pass && stage.max_abs == f64::INFINITY);
        let stage = Stage::by_largest("x", &[1.0], &[1.0, 2.0], 1e-5);
        assert!(!stage.pass, "another length");
    }

    #[test]
    fn a_constant_offset_does_not_widen_the_scale() {
        let (found, expected) = ([100.0, 101.001], [100.0, 101.0]);
        assert!(Stage::by_largest("x", &found, &expected, 1e-4).pass);
        let stage = Stage::by_deviation("x", &found, &expected, 1e-4);
        assert!(!stage.pass && (stage.max_rel - 2e-3).abs() < 1e-5, "{stage:?}");
    }
}
