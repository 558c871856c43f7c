//! How well what was learned tells on audio that nothing was fitted to, and in plain words. Any thread.

use serde::{Deserialize, Serialize};

/// How well classes are told from each other on what nothing was fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Share that is told right; of a single trait, the mean of the shares of both sides.
    pub right: f32,
    /// What guessing would give.
    pub chance: f32,
    /// Clips that it was asked of.
    pub clips: usize,
}

impl Told {
    /// Whether it could be luck: guessing would do as well in more than one case of twenty, or nearly as well always. Clips of one
    /// file are alike, so that this is generous.
    pub fn is_chance(&self) -> bool {
        let (hits, count) = ((self.right * self.clips as f32).round() as usize, self.clips);
        let p = f64::from(self.chance.clamp(1e-6, 1.0 - 1e-6));
        // The tail of a binomial distribution, from the odds of one more hit.
        let mut term = (1.0 - p).powi(count as i32);
        let mut below = 0.0;
        for k in 0..hits {
            below += term;
            term *= (count - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        }
        1.0 - below > 0.05 || self.right < self.chance + 0.3 * (1.0 - self.chance)
    }
}

impl std::fmt::Display for Told {
    /// "told apart 9 times of 10 (guessing: 5)"; with many classes in percent.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.chance > 0.4 {
            true => write!(f, "told apart {:.0} times of 10 (guessing: {:.0})", 10.0 * self.right, 10.0 * self.chance),
            false => {
                write!(f, "told right {:.0} % of the time (guessing: {:.0} %)", 100.0 * self.right, 100.0 * self.chance)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_is_told_from_hearing() {
        let told = |right, clips| Told { right, chance: 0.5, clips };
        // Ten of ten heads are no luck, three of three may be, 55 of 100 is nearly nothing.
        assert!(!told(1.0, 10).is_chance() && told(1.0, 3).is_chance() && told(0.55, 100).is_chance());
        assert!(!told(0.9, 20).is_chance() && told(0.5, 10_000).is_chance() && told(0.0, 0).is_chance());
        assert!(!told(1.0, 5_000).is_chance());
        let notes = Told { right: 0.8, chance: 1.0 / 12.0, clips: 200 };
        assert!(!notes.is_chance() && Told { right: 0.1, ..notes }.is_chance());
        assert_eq!(told(0.88, 9).to_string(), "told apart 9 times of 10 (guessing: 5)");
        assert_eq!(notes.to_string(), "told right 80 % of the time (guessing: 8 %)");
    }
}
