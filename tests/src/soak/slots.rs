//! Step times against the clock that music gives: which frames would have been late in a live stream, and whether a
//! roll-over made them so.

use serde_json::{Value, json};
use tiller_engine::player::StepWork;

/// What a step did beside its own frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Rebuilt positions of the next window.
    Rebuild,
    /// Was the first in a rebuilt window.
    Switch,
}

impl Kind {
    /// In the order of a report.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Rebuild, Self::Switch];

    /// A window that is short enough may switch and rebuild in one step: that is a switch.
    pub fn of(work: &StepWork) -> Self {
        match (work.switched, work.rebuilt) {
            (true, _) => Self::Switch,
            (false, 0) => Self::Plain,
            (false, _) => Self::Rebuild,
        }
    }

    /// For people and JSON keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Rebuild => "rebuild",
            Self::Switch => "switch",
        }
    }
}

/// Times of one kind of steps, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Times {
    /// Of the steps of one kind.
    pub fn of(kind: Kind, seconds: &[f32], work: &[StepWork]) -> Self {
        let steps = seconds.iter().zip(work).filter(|(_, work)| Kind::of(work) == kind);
        let mut times: Vec<f32> = steps.map(|(seconds, _)| *seconds).collect();
        times.sort_unstable_by(f32::total_cmp);
        let Some(last) = times.len().checked_sub(1) else { return Self::default() };
        let at = |share: f64| f64::from(times[((times.len() as f64 * share) as usize).min(last)]) * 1e3;
        Self { count: times.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        json!({ "count": self.count, "p50_ms": self.p50, "p99_ms": self.p99, "max_ms": self.max })
    }
}

/// Frames that would have been late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Late {
    /// Of all.
    pub frames: usize,
    /// Of those at a switch or within a rebuild.
    pub in_rollover: usize,
    /// Longest time from a frame's control to its audio, seconds.
    pub longest: f64,
}

impl Late {
    /// The controls of frame k arrive at k frames; its step starts then, or when the one before has ended; its audio is due
    /// one frame later.
    pub fn of(seconds: &[f32], work: &[StepWork], frame_seconds: f64) -> Self {
        let (mut late, mut end) = (Self::default(), 0.0f64);
        for (index, (seconds, work)) in seconds.iter().zip(work).enumerate() {
            let arrival = index as f64 * frame_seconds;
            end = end.max(arrival) + f64::from(*seconds);
            late.longest = late.longest.max(end - arrival);
            if end > arrival + frame_seconds {
                late.frames += 1;
                late.in_rollover += usize::from(Kind::of(work) != Kind::Plain);
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: StepWork = StepWork { rows: 2, rebuilt: 0, switched: false };
    const REBUILD: StepWork = StepWork { rows: 6, rebuilt: 2, switched: false };
    const SWITCH: StepWork = StepWork { rows: 2, rebuilt: 0, switched: true };

    #[test]
    fn a_long_step_makes_those_behind_it_late_too() {
        // Frames of 1 s: the second step takes 2.5, so it ends at 3.5, the third at 3.6 (due 3), the fourth at 3.7 (due 4).
        let late = Late::of(&[0.1, 2.5, 0.1, 0.1], &[PLAIN, PLAIN, REBUILD, SWITCH], 1.0);
        assert_eq!((late.frames, late.in_rollover), (2, 1));
        assert!((late.longest - 2.5).abs() < 1e-6);
        assert_eq!(Late::of(&[1.0, 1.0], &[PLAIN, SWITCH], 1.0).frames, 0, "just in time");
    }

    #[test]
    fn kinds_are_told_apart() {
        let (seconds, work) = ([0.001, 0.002, 0.003, 0.004], [PLAIN, REBUILD, REBUILD, SWITCH]);
        let times = Times::of(Kind::Rebuild, &seconds, &work);
        assert_eq!(times.count, 2);
        assert!((times.max - 3.0).abs() < 1e-5 && (times.p50 - 3.0).abs() < 1e-5);
        assert_eq!(Times::of(Kind::Switch, &seconds, &work).count, 1);
        assert_eq!(Times::of(Kind::Plain, &[], &[]), Times::default());
    }
}
