//! Doses that look before they push: the state is brought along a direction as far as a level and no further, so that what is
//! there already needs no push. An alternative to adding the same vector whatever the state is, which does as much for less
//! on the embedded checkpoint and is the default. Runner thread; no allocation.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::str::FromStr;

/// How a dose acts on the residual stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// The same vector in every frame, as published.
    #[default]
    Add,
    /// As much of it as is lacking.
    Hold,
}

impl Manner {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Add, Self::Hold];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Hold => "hold",
        }
    }
}

impl FromStr for Manner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One class's hold on a row.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// Unit vectors `[blocks][hidden]`.
    pub directions: &'a [f32],
    /// `[block][2]`: projections without and with the class.
    pub levels: &'a [f32],
    /// `[block]`: most that a block gets, 0 for none.
    pub limits: &'a [f32],
    /// Signed steps from the first level to the second.
    pub reach: f32,
    /// Share of the limits: stacked lanes have to do with one budget.
    pub share: f32,
}

impl Push<'_> {
    /// Brings a block's output `[hidden]` up to the level, or down to it when the reach is negative.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn apply(&self, block: usize, state: &mut [f32]) {
        let hidden = state.len();
        let direction = &self.directions[block * hidden..][..hidden];
        let (without, with) = (self.levels[2 * block], self.levels[2 * block + 1]);
        let wanted = without + self.reach * (with - without);
        let limit = self.limits[block] * self.share;
        // Sixteen running sums: the order depends on nothing but the length.
        let (mut sums, mut found) = ([0.0f32; 16], 0.0);
        for (state, direction) in state.chunks(16).zip(direction.chunks(16)) {
            sums.iter_mut().zip(state.iter().zip(direction)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        sums.iter().for_each(|sum| found += sum);
        let lacking = wanted - found;
        // A class's level lies above that of the rest, so the sign of the reach is that of the push.
        let amount = if self.reach > 0.0 { lacking.clamp(0.0, limit) } else { lacking.clamp(-limit, 0.0) };
        if amount != 0.0 {
            state.iter_mut().zip(direction).for_each(|(state, direction)| *state += amount * direction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: Push = Push {
        directions: &[1.0, 0.0, 0.0, 0.6, 0.8, 0.0],
        levels: &[0.0, 2.0, 1.0, 3.0],
        limits: &[10.0, 0.5],
        reach: 1.0,
        share: 1.0,
    };

    fn pushed(push: Push, block: usize, mut state: [f32; 3]) -> [f32; 3] {
        push.apply(block, &mut state);
        state
    }

    #[test]
    fn a_state_is_brought_to_the_level_and_no_further() {
        assert_eq!(pushed(PUSH, 0, [0.5, 7.0, 1.0]), [2.0, 7.0, 1.0]);
        assert_eq!(pushed(PUSH, 0, [2.5, 7.0, 1.0]), [2.5, 7.0, 1.0]);
        assert_eq!(pushed(Push { reach: 0.5, ..PUSH }, 0, [-3.0, 0.0, 0.0]), [1.0, 0.0, 0.0]);
        assert_eq!(pushed(Push { reach: -0.5, ..PUSH }, 0, [3.0, 0.0, 0.0]), [-1.0, 0.0, 0.0]);
        assert_eq!(pushed(Push { reach: -0.5, ..PUSH }, 0, [-4.0, 0.0, 0.0]), [-4.0, 0.0, 0.0]);
    }

    #[test]
    fn no_block_gets_more_than_its_limit() {
        let state = pushed(PUSH, 1, [0.0; 3]);
        assert!((state[0] - 0.3).abs() < 1e-6 && (state[1] - 0.4).abs() < 1e-6, "{state:?}");
        let half = pushed(Push { share: 0.5, ..PUSH }, 1, [0.0; 3]);
        assert!((half[0] - 0.15).abs() < 1e-6, "{half:?}");
        assert_eq!(pushed(Push { limits: &[0.0, 0.0], ..PUSH }, 0, [0.5; 3]), [0.5; 3]);
        for odd in [f32::NAN, f32::INFINITY] {
            assert!(!pushed(PUSH, 0, [odd, 0.0, 0.0]).iter().all(|x| x.is_finite()), "what is not finite stays seen");
        }
    }

    #[test]
    fn manners_have_names() {
        assert_eq!(Manner::ALL.map(|manner| manner.name().parse()), Manner::ALL.map(Ok));
        assert!("shove".parse::<Manner>().is_err());
    }
}
