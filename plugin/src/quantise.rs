//! Targets that wait for the host's next beat or bar, so that a key played a little early or late changes the harmony in
//! time. Strengths are not held back. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use crate::target::Target;

/// The `quantise` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grid {
    /// Targets move when they are asked to.
    #[default]
    Off,
    /// On the next quarter note.
    Beat,
    /// On the next bar.
    Bar,
}

/// A place in the song, quarter notes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SongPlace {
    /// From the song's start.
    pub beat: f64,
    /// Where a bar starts, any one.
    pub bar_start: f64,
    /// Length of a bar.
    pub bar_length: f64,
}

/// A line of the grid that is this close counts as reached: positions are sums of rounded numbers. Quarter notes.
const NEAR: f64 = 1e-4;

impl SongPlace {
    /// Number of the beat or bar that the place lies in.
    fn cell(&self, grid: Grid) -> i64 {
        let cell = match grid {
            Grid::Bar if self.bar_length > 0.0 => (self.beat - self.bar_start + NEAR) / self.bar_length,
            _ => self.beat + NEAR,
        };
        cell.floor() as i64
    }
}

/// Holds targets back.
///
/// # Realtime safety
/// Fixed size, no allocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantiser {
    /// What is played, and the cell in which it was last allowed to change; `None` from an anchor on.
    held: Option<(Target, i64)>,
    grid: Grid,
}

impl Quantiser {
    /// A piece begins: its first frame takes what is asked, so that a loop sounds the same in every round.
    pub fn begin(&mut self) {
        self.held = None;
    }

    /// The target of a frame that ends at `place` (`None` where the host tells no beats or stands still: nothing to wait for), when
    /// `asked` is what parameters and keys ask.
    pub fn target(&mut self, grid: Grid, place: Option<SongPlace>, asked: Target) -> Target {
        let Some(place) = place.filter(|place| grid != Grid::Off && place.beat.is_finite()) else {
            self.held = None;
            return asked;
        };
        let cell = place.cell(grid);
        match self.held {
            Some((target, last)) if last == cell && self.grid == grid => target,
            _ => {
                (self.held, self.grid) = (Some((asked, cell)), grid);
                asked
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;
    use tiller_engine::control::PitchClass;

    fn at(beat: f64) -> Option<SongPlace> {
        Some(SongPlace { beat, bar_start: 8.0, bar_length: 3.0 })
    }

    fn note(index: u8) -> Target {
        Target { note: PitchClass::new(index), chord: None }
    }

    #[test]
    fn targets_wait_for_the_next_line() {
        let mut quantiser = Quantiser::default();
        assert_eq!(quantiser.target(Grid::Beat, at(8.4), note(0)), note(0), "the first frame waits for nothing");
        assert_eq!(quantiser.target(Grid::Beat, at(8.5), note(4)), note(0));
        assert_eq!(quantiser.target(Grid::Beat, at(8.98), note(7)), note(0));
        assert_eq!(quantiser.target(Grid::Beat, at(9.0 - 1e-9), note(7)), note(7));
        assert_eq!(quantiser.target(Grid::Beat, at(9.02), Target::default()), note(7));
        assert_eq!(quantiser.target(Grid::Beat, at(10.01), Target::default()), Target::default());
    }

    #[test]
    fn bars_are_counted_from_where_the_host_says() {
        let mut quantiser = Quantiser::default();
        quantiser.target(Grid::Bar, at(8.1), note(0));
        assert_eq!(quantiser.target(Grid::Bar, at(10.9), note(1)), note(0));
        assert_eq!(quantiser.target(Grid::Bar, at(11.0), note(1)), note(1));
        assert_eq!(quantiser.target(Grid::Bar, at(13.5), note(2)), note(1));
        assert_eq!(quantiser.target(Grid::Bar, at(-1.5), note(2)), note(2), "a jump back is another bar");
    }

    #[test]
    fn nothing_is_held_without_a_grid_or_beats_or_at_an_anchor() {
        let mut quantiser = Quantiser::default();
        quantiser.target(Grid::Bar, at(8.1), note(0));
        assert_eq!(quantiser.target(Grid::Off, at(8.2), note(1)), note(1));
        quantiser.target(Grid::Bar, at(8.3), note(0));
        assert_eq!(quantiser.target(Grid::Bar, None, note(2)), note(2));
        quantiser.target(Grid::Bar, at(8.4), note(0));
        assert_eq!(quantiser.target(Grid::Beat, at(8.5), note(3)), note(3), "another grid");
        quantiser.begin();
        assert_eq!(quantiser.target(Grid::Beat, at(8.6), note(5)), note(5));
        let nowhere = SongPlace { beat: f64::NAN, bar_start: 0.0, bar_length: 4.0 };
        assert_eq!(quantiser.target(Grid::Beat, Some(nowhere), note(6)), note(6));
    }
}
