//! The last seconds of what was heard and of what was asked for, column by column. UI thread: it listens to the audio thread's
//! rings only while a window is open.

use std::collections::VecDeque;

use tiller_engine::evaluation::chroma::{Chroma, strongest};

use crate::monitor::{LANES, Monitor};
use crate::target::Target;

/// Columns that are kept: ten seconds.
pub const COLUMNS: usize = 250;
/// Columns per second.
pub const PER_SECOND: f64 = 25.0;

/// Seconds that the ear listens to at once; it takes the middle of them.
const WINDOW_SECONDS: f64 = 0.36;
/// Strengths older than this, in seconds, belong to a piece that is over.
const STALE_SECONDS: f64 = 0.1;

/// A moment of the music.
#[derive(Clone, Copy, Debug, Default)]
pub struct Column {
    /// How strongly each pitch class is heard, 0 to 1, beside the strongest.
    pub heard: [f32; 12],
    /// The strongest one; `None` is silence.
    pub strongest: Option<usize>,
    /// What it is steered to.
    pub target: Target,
    /// What it is steered with; `None` while no piece is played.
    pub strengths: Option<[f32; LANES]>,
}

impl Column {
    fn is_silent(&self) -> bool {
        self.strongest.is_none() && self.strengths.is_none()
    }
}

/// The newest columns.
#[derive(Default)]
pub struct History {
    columns: VecDeque<Column>,
    ear: Option<(f32, Chroma)>,
    samples: Vec<f32>,
    /// The sample after the next column's window.
    next: f64,
}

impl History {
    /// Takes over what was heard since the last call; `true` if there is anything new to see. Time stands still in silence.
    pub fn follow(&mut self, monitor: &Monitor, rate: f32) -> bool {
        if self.ear.as_ref().is_none_or(|(own, _)| *own != rate) {
            let Ok(ear) = Chroma::new(f64::from(rate)) else { return false };
            self.ear = Some((rate, ear));
            self.samples = vec![0.0; (f64::from(rate) * WINDOW_SECONDS) as usize];
            self.next = 0.0;
        }
        let hop = f64::from(rate) / PER_SECOND;
        let oldest = monitor.oldest() as f64 + self.samples.len() as f64;
        if self.next < oldest {
            // What went by unseen is gone: a window that was just opened, or a host that renders faster than one can look.
            self.next = oldest;
        }
        let mut fresh = false;
        while self.next + hop <= monitor.written() as f64 {
            self.next += hop;
            let Some(column) = self.listen(monitor, self.next as u64) else { continue };
            // One silent column parts what was before from what comes.
            if !column.is_silent() || self.columns.back().is_some_and(|last| !last.is_silent()) {
                if self.columns.len() == COLUMNS {
                    self.columns.pop_front();
                }
                self.columns.push_back(column);
                fresh = true;
            }
        }
        fresh
    }

    fn listen(&mut self, monitor: &Monitor, end: u64) -> Option<Column> {
        let (rate, ear) = self.ear.as_mut()?;
        if !monitor.read(end, &mut self.samples) {
            return None;
        }
        let energies = ear.frames(&self.samples, self.samples.len()).first().copied().unwrap_or_default();
        let best = strongest(&energies);
        let most = best.map_or(1.0, |best| energies[best]);
        let middle = end - self.samples.len() as u64 / 2;
        Some(Column {
            heard: energies.map(|energy| (energy / most).sqrt()),
            strongest: best,
            target: monitor.target(middle),
            strengths: monitor.strengths(middle, (f64::from(*rate) * STALE_SECONDS) as u64),
        })
    }

    /// The columns, the oldest first; at most [`COLUMNS`].
    pub fn columns(&self) -> impl DoubleEndedIterator<Item = &Column> + ExactSizeIterator {
        self.columns.iter()
    }

    /// The newest column.
    pub fn newest(&self) -> Column {
        self.columns.back().copied().unwrap_or_default()
    }

    /// How much of what was steered to a note or chord was heard as one of its tones, 0 to 1; `None` if nothing was.
    pub fn share_on_target(&self) -> Option<f32> {
        let steered = self.columns.iter().filter(|column| column.target != Target::default());
        let (mut all, mut hits) = (0, 0);
        for column in steered {
            all += 1;
            let class = column.strongest.and_then(|class| tiller_engine::control::PitchClass::new(class as u8));
            hits += usize::from(class.is_some_and(|class| column.target.holds(class)));
        }
        (all > 0).then(|| hits as f32 / all as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiller_engine::control::{Lanes, PitchClass};

    const RATE: f32 = 48_000.0;

    fn tone(monitor: &Monitor, hertz: f32, seconds: f32, target: Target, lanes: Option<Lanes>) {
        for block in 0..(seconds * RATE / 256.0) as usize {
            let sample = |i: usize| 0.2 * (std::f32::consts::TAU * hertz * (block * 256 + i) as f32 / RATE).sin();
            let samples: Vec<f32> = (0..256).map(sample).collect();
            if let Some(lanes) = &lanes {
                monitor.steer(lanes, 0);
            }
            monitor.hear(&samples, &samples, target);
        }
    }

    #[test]
    fn what_is_heard_stands_beside_what_was_asked_for() {
        let monitor = Monitor::default();
        let mut history = History::default();
        assert!(!history.follow(&monitor, RATE), "nothing was played");
        let to_a = Target { note: PitchClass::new(9), chord: None };
        let lanes = Lanes { note_strength: 0.5, strength: 1.0, ..Lanes::OFF };
        tone(&monitor, 440.0, 1.0, to_a, Some(lanes));
        assert!(history.follow(&monitor, RATE));
        let newest = history.newest();
        assert_eq!((newest.strongest, newest.target), (Some(9), to_a));
        assert_eq!(newest.strengths, Some([0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(history.share_on_target(), Some(1.0));
        tone(&monitor, 493.883, 1.0, to_a, Some(lanes));
        history.follow(&monitor, RATE);
        assert_eq!(history.newest().strongest, Some(11));
        let share = history.share_on_target().unwrap_or_default();
        assert!((0.4..0.7).contains(&share), "{share}: half of it was another note");
    }

    #[test]
    fn time_stands_still_in_silence() {
        let monitor = Monitor::default();
        let mut history = History::default();
        tone(&monitor, 440.0, 1.0, Target::default(), None);
        history.follow(&monitor, RATE);
        tone(&monitor, 0.0, 1.0, Target::default(), None);
        history.follow(&monitor, RATE);
        let before = history.columns().len();
        tone(&monitor, 0.0, 2.0, Target::default(), None);
        assert!(!history.follow(&monitor, RATE));
        assert_eq!(history.columns().len(), before);
        assert_eq!(history.share_on_target(), None);
    }

    #[test]
    fn a_look_long_after_shows_what_can_still_be_read() {
        let monitor = Monitor::default();
        let mut history = History::default();
        tone(&monitor, 440.0, 10.0, Target::default(), None);
        assert!(history.follow(&monitor, RATE));
        assert!(history.columns().len() as f64 <= 3.0 * PER_SECOND);
    }
}
