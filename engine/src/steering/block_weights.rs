//! How much of the dose each block gets (`method.md` 4.3). Plain arithmetic; any thread.

use std::fmt;
use std::str::FromStr;

/// How much of the dose a block gets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum BlockWeights {
    /// All the same.
    #[default]
    All,
    /// The best so many, by held-out score; the others get nothing.
    Top(usize),
    /// These, by number from 0, both ends included; the others get nothing.
    Range(usize, usize),
    /// The score, from 0 for the worst block to 1 for the best, to this power. The paper's is 1 / 0.95.
    Power(f32),
}

impl BlockWeights {
    /// Weights of blocks with these scores, 0 to 1.
    pub fn of(self, scores: &[f32]) -> Vec<f32> {
        match self {
            Self::All => vec![1.0; scores.len()],
            Self::Top(count) => {
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                let mut weights = vec![0.0; scores.len()];
                order.into_iter().take(count).for_each(|block| weights[block] = 1.0);
                weights
            }
            Self::Range(first, last) => {
                (0..scores.len()).map(|block| f32::from(u8::from((first..=last).contains(&block)))).collect()
            }
            Self::Power(power) => {
                let (worst, best) = scores.iter().fold((f32::MAX, f32::MIN), |(w, b), &x| (w.min(x), b.max(x)));
                // Equal scores say nothing about blocks.
                let share = |score: f32| if best > worst { (score - worst) / (best - worst) } else { 1.0 };
                scores.iter().map(|&score| share(score).powf(power)).collect()
            }
        }
    }
}

impl fmt::Display for BlockWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all"),
            Self::Top(count) => write!(f, "top {count}"),
            Self::Range(first, last) => write!(f, "range {first}-{last}"),
            Self::Power(power) => write!(f, "power {power}"),
        }
    }
}

impl FromStr for BlockWeights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = match text.split_once([' ', ':']) {
            None if text == "all" => Some(Self::All),
            Some(("top", count)) => count.parse().ok().filter(|count| *count > 0).map(Self::Top),
            Some(("range", range)) => range
                .split_once('-')
                .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| Self::Range(first, last)),
            Some(("power", power)) => power.parse().ok().filter(|p: &f32| p.is_finite() && *p > 0.0).map(Self::Power),
            _ => None,
        };
        found.ok_or_else(|| format!("`{text}` is not `all`, `top:N`, `range:A-B` or `power:X`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_weights() {
        let scores = [0.5, 0.9, 0.7];
        assert_eq!(BlockWeights::All.of(&scores), [1.0; 3]);
        assert_eq!(BlockWeights::Top(2).of(&scores), [0.0, 1.0, 1.0]);
        assert_eq!(BlockWeights::Range(0, 1).of(&scores), [1.0, 1.0, 0.0]);
        let linear = BlockWeights::Power(1.0).of(&scores);
        assert!(linear.iter().zip([0.0, 1.0, 0.5]).all(|(a, b)| (a - b).abs() < 1e-6), "{linear:?}");
        assert_eq!(BlockWeights::Power(1.0 / 0.95).of(&[0.8; 3]), [1.0; 3]);
    }

    #[test]
    fn they_are_read_as_they_are_written() {
        for weights in
            [BlockWeights::All, BlockWeights::Top(3), BlockWeights::Range(2, 5), BlockWeights::Power(1.052_631_6)]
        {
            assert_eq!(weights.to_string().parse(), Ok(weights));
        }
        assert_eq!("top:2".parse(), Ok(BlockWeights::Top(2)));
        for text in ["", "top", "top 0", "top -1", "range 3", "range 3-2", "power nan", "power 0", "some"] {
            assert!(text.parse::<BlockWeights>().is_err(), "{text}");
        }
    }
}
