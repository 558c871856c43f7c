//! How strength moves with the frame clock: MusicRFM's schedules (`method.md` 4.4) at any length, as pure functions of the
//! share of the way, 0 to 1. Plain arithmetic; any thread.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

/// The shape of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// At once.
    #[default]
    Step,
    /// Evenly.
    Linear,
    /// Fast first: what is left falls by the same factor in every frame. 0.998 a frame over the paper's 1,500.
    Exponential,
    /// Slow, fast, slow: the paper's logistic curve of width 200 in 1,500.
    Logistic,
    /// A full swing: half, up, half, down, half.
    Sine,
}

impl Schedule {
    /// Every schedule.
    pub const ALL: [Self; 5] = [Self::Step, Self::Linear, Self::Exponential, Self::Logistic, Self::Sine];

    /// Its name in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
            Self::Logistic => "logistic",
            Self::Sine => "sine",
        }
    }

    /// Share of the change that is done at `way`, clamped to 0 to 1. Rising; `1 - at(way)` falls.
    pub fn at(self, way: f64) -> f64 {
        let way = if way.is_finite() { way.clamp(0.0, 1.0) } else { 1.0 };
        // The paper's horizon in frames: the constants below are its own.
        let t = way * 1_500.0;
        match self {
            Self::Step => 1.0,
            Self::Linear => way,
            Self::Exponential => 1.0 - 0.998_f64.powf(t),
            Self::Logistic => 1.0 / (1.0 + (-(t - 750.0) / 200.0).exp()),
            Self::Sine => 0.5 * (1.0 + (std::f64::consts::TAU * way).sin()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed forms at the five points that `method.md` names: t = 0, 375, 750, 1125, 1500 of 1,500.
    #[test]
    fn the_papers_schedules_at_closed_form_points() {
        let at = |schedule: Schedule| [0.0, 0.25, 0.5, 0.75, 1.0].map(|way| schedule.at(way));
        let near = |a: [f64; 5], b: [f64; 5]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(at(Schedule::Step), [1.0; 5]));
        assert!(near(at(Schedule::Linear), [0.0, 0.25, 0.5, 0.75, 1.0]));
        let left = [0.0, 375.0, 750.0, 1125.0, 1500.0].map(|t: f64| 1.0 - (t * 0.998_f64.ln()).exp());
        assert!(near(at(Schedule::Exponential), left));
        assert!((1.0 - Schedule::Exponential.at(0.5) - 0.222_78).abs() < 1e-4);
        assert!(near(at(Schedule::Logistic), [0.022_977_37, 0.132_964_24, 0.5, 0.867_035_76, 0.977_022_63]));
        assert!(near(at(Schedule::Sine), [0.5, 1.0, 0.5, 0.0, 0.5]));
    }

    #[test]
    fn beyond_the_ends_it_stays() {
        for schedule in Schedule::ALL {
            assert_eq!(schedule.at(-1.0), schedule.at(0.0));
            assert_eq!(schedule.at(7.0), schedule.at(1.0));
            assert!(schedule.at(f64::NAN).is_finite());
        }
    }
}
