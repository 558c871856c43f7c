//! Whether a step costs at the end of a long run what it cost at its beginning. Main thread.

use std::time::Instant;

use serde_json::{Value, json};

use super::progress::Progress;
use super::spread::ratio;
use super::stream::{Step, Stream};
use crate::host::Outcome;
use crate::memory::resident;

/// When the run counts as begun, seconds.
const EARLY: f64 = 10.0;
/// Seconds at the end that are compared.
const LAST: f64 = 60.0;

/// Windows at the beginning that are compared, behind the first.
const FIRST_WINDOWS: usize = 4;

/// What a long run showed.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Steps per second in the last minute over those of the first windows after the first roll-over: the first one begins
    /// empty, which later ones never are.
    pub ratio: Option<f64>,
    /// Steps per second of the last minute, whatever they were, over those from second 9 to 11.
    pub ratio_of_all: Option<f64>,
    /// Resident memory at second 10 and at the end, bytes.
    pub resident: (Option<u64>, Option<u64>),
    /// Steps taken.
    pub steps: usize,
}

impl Growth {
    /// Plays one piece flat out for so many minutes.
    ///
    /// # Errors
    /// The model's numbers are not finite.
    pub fn measure(stream: &mut Stream, minutes: f64, progress: &Progress) -> Outcome<Self> {
        let length = minutes * 60.0;
        progress.begin("growth (seconds)", length as usize);
        stream.begin();
        let began = Instant::now();
        let mut taken: Vec<(f64, Step)> = Vec::new();
        let mut early = None;
        loop {
            let at = began.elapsed().as_secs_f64();
            if at >= length {
                break;
            }
            if early.is_none() && at >= EARLY {
                early = Some(resident());
            }
            taken.push((at, stream.step(taken.len())?));
            progress.at(at as usize);
        }
        let (ratio, ratio_of_all) = ratios(&taken, stream.window(), length);
        Ok(Self { ratio, ratio_of_all, resident: (early.flatten(), resident()), steps: taken.len() })
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        json!({
            "ratio": self.ratio, "ratio_of_all": self.ratio_of_all, "steps": self.steps,
            "resident_second_10": self.resident.0, "resident_end": self.resident.1,
        })
    }
}

/// Both ratios of steps with the second at which each began.
fn ratios(taken: &[(f64, Step)], window: usize, length: f64) -> (Option<f64>, Option<f64>) {
    // The last minute, or what there is behind the beginning.
    let late = (length - LAST).max(EARLY + 1.0);
    let rate = |steps: &[&Step]| {
        let spent: f64 = steps.iter().map(|step| f64::from(step.seconds)).sum();
        if spent > 0.0 { steps.len() as f64 / spent } else { 0.0 }
    };
    let rolled = || taken.iter().skip(window);
    let first: Vec<&Step> = rolled().take(FIRST_WINDOWS * window).map(|(_, step)| step).collect();
    let last: Vec<&Step> = rolled().filter(|(at, _)| *at >= late).map(|(_, step)| step).collect();
    let count = |from: f64, to: f64| taken.iter().filter(|(at, _)| (from..to).contains(at)).count() as f64;
    let early_rate = count(EARLY - 1.0, EARLY + 1.0) / 2.0;
    let late_rate = if length > late { count(late, length) / (length - late) } else { 0.0 };
    (ratio(rate(&last), rate(&first)), ratio(late_rate, early_rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of 100 steps a second at first; every step `slower` times as long from second 60 on.
    fn run(slower: f32) -> Vec<(f64, Step)> {
        let (mut at, mut taken) = (0.0, Vec::new());
        while at < 120.0 {
            let index = taken.len();
            let positions = if index < 1_000 { index } else { 500 + (index - 1_000) % 500 };
            let seconds = if at < 60.0 { 0.01 } else { 0.01 * slower };
            let step = Step { seconds, positions: positions as u32 + 1 };
            taken.push((at, step));
            at += f64::from(seconds);
        }
        taken
    }

    #[test]
    fn steps_that_grow_show() {
        let near = |found: Option<f64>, expected: f64| found.is_some_and(|found| (found - expected).abs() < 0.01);
        let (same, all) = ratios(&run(1.0), 1_000, 120.0);
        assert!(near(same, 1.0) && near(all, 1.0), "{same:?} {all:?}");
        let (same, all) = ratios(&run(2.0), 1_000, 120.0);
        assert!(near(same, 0.5) && near(all, 0.5), "{same:?} {all:?}");
        assert_eq!(ratios(&run(1.0)[..400], 1_000, 4.0), (None, None));
    }
}
