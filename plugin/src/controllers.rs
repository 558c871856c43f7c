//! MIDI controllers that musicians have tied to parameters. A controller is laid over its parameter in the control frames and
//! never written back: it holds until the parameter itself next changes. The map is project state; the audio thread reads it
//! from atomics.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use nice_plug::prelude::Enum;

use crate::lanes::LaneValues;
use crate::params::choices::{ChordQuality, Note, Root};
use crate::params::{GAIN_DB, GUIDANCE, LONGEST, TEMPERATURE, TOP_K};

/// Controllers that can be learned: 120 and up are channel mode messages.
pub const NUMBERS: usize = 120;

/// A parameter that a controller can move. `run`, `late`, `latency`, `quantise` and `seed` are set, not played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Learnable {
    /// Target of the note lane.
    Note,
    /// Strength of the note lane.
    NoteStrength,
    /// Root of the chord lane.
    ChordRoot,
    /// Quality of the chord lane.
    ChordQuality,
    /// Strength of the chord lane.
    ChordStrength,
    /// Slower to faster.
    TempoStrength,
    /// Master strength.
    Strength,
    /// Seconds in which a dose rises.
    Attack,
    /// Seconds in which a dose falls.
    Release,
    /// Sampling temperature.
    Temperature,
    /// Guidance scale.
    Guidance,
    /// How many codes sampling chooses from.
    TopK,
    /// Output gain.
    Gain,
    /// Silence.
    Bypass,
    /// Strength of the first trait.
    Trait1,
    /// Strength of the second trait.
    Trait2,
    /// Strength of the third trait.
    Trait3,
    /// Strength of the fourth trait.
    Trait4,
}

impl Learnable {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Note,
        Self::NoteStrength,
        Self::ChordRoot,
        Self::ChordQuality,
        Self::ChordStrength,
        Self::TempoStrength,
        Self::Strength,
        Self::Attack,
        Self::Release,
        Self::Temperature,
        Self::Guidance,
        Self::TopK,
        Self::Gain,
        Self::Bypass,
        Self::Trait1,
        Self::Trait2,
        Self::Trait3,
        Self::Trait4,
    ];

    /// Id of the parameter, as projects store it.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::NoteStrength => "note_strength",
            Self::ChordRoot => "chord_root",
            Self::ChordQuality => "chord_quality",
            Self::ChordStrength => "chord_strength",
            Self::TempoStrength => "tempo_strength",
            Self::Strength => "strength",
            Self::Attack => "attack",
            Self::Release => "release",
            Self::Temperature => "temperature",
            Self::Guidance => "guidance",
            Self::TopK => "top_k",
            Self::Gain => "gain",
            Self::Bypass => "bypass",
            Self::Trait1 => "trait_1_strength",
            Self::Trait2 => "trait_2_strength",
            Self::Trait3 => "trait_3_strength",
            Self::Trait4 => "trait_4_strength",
        }
    }

    /// The parameter with this id.
    pub fn of_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.id() == id)
    }

    /// Sets it as far along its range as the controller is along its own, 0 to 1, as the host's knob would.
    ///
    /// # Realtime safety
    /// Pure arithmetic.
    pub fn set(self, lanes: &mut LaneValues, at: f32) {
        let choice = |count: usize| (at * (count - 1) as f32).round() as usize;
        let along = |(low, high): (f32, f32)| low + at * (high - low);
        let steps = |value: f32, step: f32| (value / step).round() * step;
        match self {
            Self::Note => lanes.note = Note::from_index(choice(13)).pitch_class(),
            Self::NoteStrength => lanes.note_strength = steps(along((-1.0, 1.0)), 0.001),
            Self::ChordRoot => lanes.chord_root = Root::from_index(choice(12)).pitch_class(),
            Self::ChordQuality => lanes.chord_quality = ChordQuality::from_index(choice(5)).quality(),
            Self::ChordStrength => lanes.chord_strength = steps(along((-1.0, 1.0)), 0.001),
            Self::TempoStrength => lanes.tempo_strength = steps(along((-1.0, 1.0)), 0.001),
            Self::Strength => lanes.strength = steps(at, 0.001),
            // Skewed as the parameters are: fine where times are short.
            Self::Attack => lanes.attack = steps(at * at * LONGEST, 0.01),
            Self::Release => lanes.release = steps(at * at * LONGEST, 0.01),
            Self::Temperature => lanes.temperature = steps(along(TEMPERATURE), 0.01),
            Self::Guidance => lanes.guidance = steps(along(GUIDANCE), 0.01),
            Self::TopK => lanes.top_k = (at * TOP_K as f32).round() as u32,
            Self::Gain => {
                let db = steps(along(GAIN_DB), 0.1);
                lanes.gain = if db <= GAIN_DB.0 { 0.0 } else { 10.0f32.powf(db / 20.0) };
            }
            Self::Bypass => lanes.bypass = at >= 0.5,
            Self::Trait1 => lanes.traits[0] = steps(along((-1.0, 1.0)), 0.001),
            Self::Trait2 => lanes.traits[1] = steps(along((-1.0, 1.0)), 0.001),
            Self::Trait3 => lanes.traits[2] = steps(along((-1.0, 1.0)), 0.001),
            Self::Trait4 => lanes.traits[3] = steps(along((-1.0, 1.0)), 0.001),
        }
    }

    /// Takes it from other values.
    ///
    /// # Realtime safety
    /// Pure arithmetic.
    pub fn copy(self, from: &LaneValues, to: &mut LaneValues) {
        match self {
            Self::Note => to.note = from.note,
            Self::NoteStrength => to.note_strength = from.note_strength,
            Self::ChordRoot => to.chord_root = from.chord_root,
            Self::ChordQuality => to.chord_quality = from.chord_quality,
            Self::ChordStrength => to.chord_strength = from.chord_strength,
            Self::TempoStrength => to.tempo_strength = from.tempo_strength,
            Self::Strength => to.strength = from.strength,
            Self::Attack => to.attack = from.attack,
            Self::Release => to.release = from.release,
            Self::Temperature => to.temperature = from.temperature,
            Self::Guidance => to.guidance = from.guidance,
            Self::TopK => to.top_k = from.top_k,
            Self::Gain => to.gain = from.gain,
            Self::Bypass => to.bypass = from.bypass,
            Self::Trait1 => to.traits[0] = from.traits[0],
            Self::Trait2 => to.traits[1] = from.traits[1],
            Self::Trait3 => to.traits[2] = from.traits[2],
            Self::Trait4 => to.traits[3] = from.traits[3],
        }
    }

    /// Whether two sets of values agree in it.
    pub fn is_same(self, a: &LaneValues, b: &LaneValues) -> bool {
        match self {
            Self::Note => a.note == b.note,
            Self::NoteStrength => a.note_strength == b.note_strength,
            Self::ChordRoot => a.chord_root == b.chord_root,
            Self::ChordQuality => a.chord_quality == b.chord_quality,
            Self::ChordStrength => a.chord_strength == b.chord_strength,
            Self::TempoStrength => a.tempo_strength == b.tempo_strength,
            Self::Strength => a.strength == b.strength,
            Self::Attack => a.attack == b.attack,
            Self::Release => a.release == b.release,
            Self::Temperature => a.temperature == b.temperature,
            Self::Guidance => a.guidance == b.guidance,
            Self::TopK => a.top_k == b.top_k,
            Self::Gain => a.gain == b.gain,
            Self::Bypass => a.bypass == b.bypass,
            Self::Trait1 => a.traits[0] == b.traits[0],
            Self::Trait2 => a.traits[1] == b.traits[1],
            Self::Trait3 => a.traits[2] == b.traits[2],
            Self::Trait4 => a.traits[3] == b.traits[3],
        }
    }
}

const NONE: u8 = u8::MAX;

/// Which controller moves what, and what is being learned. Written by the window and by whoever reads a project; the audio
/// thread reads it, and answers which controller moved while something was being learned.
#[derive(Debug)]
pub struct ControllerMap {
    /// `[controller]`: place in [`Learnable::ALL`], or [`NONE`].
    targets: [AtomicU8; NUMBERS],
    learning: AtomicU8,
    /// What was learned and by which controller: the target's place times 256 and the number; [`u16::MAX`] for nothing.
    heard: AtomicU16,
}

impl Default for ControllerMap {
    fn default() -> Self {
        Self {
            targets: [const { AtomicU8::new(NONE) }; NUMBERS],
            learning: AtomicU8::new(NONE),
            heard: AtomicU16::new(u16::MAX),
        }
    }
}

fn learnable(code: u8) -> Option<Learnable> {
    Learnable::ALL.get(usize::from(code)).copied()
}

impl ControllerMap {
    /// Takes the project's map.
    pub fn set(&self, targets: impl Fn(u8) -> Option<Learnable>) {
        for (number, place) in self.targets.iter().enumerate() {
            place.store(targets(number as u8).map_or(NONE, |target| target as u8), Ordering::Relaxed);
        }
    }

    /// What a controller moves.
    pub fn target(&self, number: u8) -> Option<Learnable> {
        learnable(self.targets.get(usize::from(number))?.load(Ordering::Relaxed))
    }

    /// The next controller that moves is for this parameter; `None` gives up.
    pub fn learn(&self, target: Option<Learnable>) {
        self.learning.store(target.map_or(NONE, |target| target as u8), Ordering::Relaxed);
    }

    /// What is being learned.
    pub fn learning(&self) -> Option<Learnable> {
        learnable(self.learning.load(Ordering::Relaxed))
    }

    /// What was learned since the last call: the controller and its parameter. The project is told by whoever asks.
    pub fn take_learned(&self) -> Option<(u8, Learnable)> {
        let heard = self.heard.swap(u16::MAX, Ordering::Relaxed);
        Some(((heard & 0xff) as u8, learnable((heard >> 8) as u8)?))
    }

    fn answer(&self, number: u8) -> bool {
        let target = self.learning.swap(NONE, Ordering::Relaxed);
        if target == NONE {
            return false;
        }
        self.heard.store(u16::from(target) << 8 | u16::from(number), Ordering::Relaxed);
        true
    }
}

/// Where the controllers are, on the audio thread.
///
/// # Realtime safety
/// Fixed size, no allocation.
#[derive(Clone, Debug)]
pub struct Controllers {
    /// `[controller]`: its last value, 0 to 127, or [`NONE`] before the first.
    last: [u8; NUMBERS],
    /// `[parameter]`: the controller that is laid over it, and its value.
    over: [Option<(u8, u8)>; Learnable::ALL.len()],
}

impl Default for Controllers {
    fn default() -> Self {
        Self { last: [NONE; NUMBERS], over: [None; Learnable::ALL.len()] }
    }
}

impl Controllers {
    /// A controller moved. The first value of each is not taken when it is the middle: some hosts send that for all of them when
    /// they load a plugin, and nobody touched anything.
    pub fn hear(&mut self, map: &ControllerMap, number: u8, value: u8) {
        let Some(last) = self.last.get_mut(usize::from(number)) else { return };
        let before = std::mem::replace(last, value);
        if before == value || (before == NONE && (63..=64).contains(&value)) {
            return;
        }
        if map.answer(number) {
            return;
        }
        if let Some(target) = map.target(number) {
            self.over[target as usize] = Some((number, value));
        }
    }

    /// Lets go of everything that a program says, which is newer.
    pub fn release(&mut self) {
        let kept = [Learnable::Gain, Learnable::Bypass].map(|one| self.over[one as usize]);
        self.over = [None; Learnable::ALL.len()];
        (self.over[Learnable::Gain as usize], self.over[Learnable::Bypass as usize]) = kept.into();
    }

    /// The host's values go from `before` to `now`: what changes is no longer held by its controller.
    pub fn yield_to(&mut self, before: &LaneValues, now: &LaneValues) {
        for (target, over) in Learnable::ALL.iter().zip(&mut self.over) {
            if !target.is_same(before, now) {
                *over = None;
            }
        }
    }

    /// The values with the controllers laid over them that are still tied to them: one that was forgotten, or is of a project that
    /// was left, lets go at once.
    pub fn over(&self, map: &ControllerMap, lanes: &LaneValues) -> LaneValues {
        let mut lanes = *lanes;
        for (target, over) in Learnable::ALL.iter().zip(&self.over) {
            if let Some((number, value)) = *over
                && map.target(number) == Some(*target)
            {
                target.set(&mut lanes, f32::from(value) / 127.0);
            }
        }
        lanes
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;
    use crate::host;
    use crate::params::TillerParams;
    use crate::state::{ProjectField, ProjectStore};
    use nice_plug::prelude::Params;
    use std::sync::Arc;

    fn strength_on(number: u8) -> ControllerMap {
        let map = ControllerMap::default();
        map.set(|own| (own == number).then_some(Learnable::Strength));
        map
    }

    /// A controller must do what the host's own knob does at the same place.
    #[test]
    fn every_parameter_is_set_as_the_host_sets_it() {
        let params = TillerParams::new(ProjectField(Arc::new(ProjectStore::new(|_| {}))));
        let map = params.param_map();
        for target in Learnable::ALL {
            let found = map.iter().find(|(id, ..)| id == target.id()).map(|(_, param, _)| *param);
            assert!(found.is_some(), "{target:?} is no parameter");
            let Some(param) = found else { continue };
            for value in 0..=127u8 {
                let at = f32::from(value) / 127.0;
                // SAFETY: the parameters outlive the pointer.
                let by_host = unsafe {
                    param._internal_set_normalized_value(at);
                    host::lanes(&params, 0, 0)
                };
                let mut by_controller = by_host;
                target.set(&mut by_controller, at);
                let near = |a: f32, b: f32| (a - b).abs() <= 2e-3 * a.abs().max(1e-3);
                let same = match target {
                    Learnable::Gain => near(by_host.gain, by_controller.gain),
                    Learnable::Attack => (by_host.attack - by_controller.attack).abs() < 0.0101,
                    Learnable::Release => (by_host.release - by_controller.release).abs() < 0.0101,
                    Learnable::NoteStrength => near(1.0 + by_host.note_strength, 1.0 + by_controller.note_strength),
                    Learnable::ChordStrength => near(1.0 + by_host.chord_strength, 1.0 + by_controller.chord_strength),
                    Learnable::TempoStrength => near(1.0 + by_host.tempo_strength, 1.0 + by_controller.tempo_strength),
                    Learnable::Trait1 => near(1.0 + by_host.traits[0], 1.0 + by_controller.traits[0]),
                    Learnable::Trait2 => near(1.0 + by_host.traits[1], 1.0 + by_controller.traits[1]),
                    Learnable::Trait3 => near(1.0 + by_host.traits[2], 1.0 + by_controller.traits[2]),
                    Learnable::Trait4 => near(1.0 + by_host.traits[3], 1.0 + by_controller.traits[3]),
                    Learnable::Strength => near(by_host.strength, by_controller.strength),
                    Learnable::Temperature => near(by_host.temperature, by_controller.temperature),
                    Learnable::Guidance => near(by_host.guidance, by_controller.guidance),
                    _ => target.is_same(&by_host, &by_controller),
                };
                assert!(same, "{target:?} at {value}: {by_host:?}, {by_controller:?}");
            }
            assert_eq!(Learnable::of_id(target.id()), Some(target));
            assert_eq!(learnable(target as u8), Some(target));
        }
        assert_eq!(params.seed.value(), 0);
        assert_eq!(Learnable::of_id("seed"), None);
    }

    #[test]
    fn a_controller_holds_until_its_parameter_moves() {
        let (map, mut controllers) = (strength_on(20), Controllers::default());
        let host = LaneValues { strength: 0.25, ..LaneValues::default() };
        controllers.hear(&map, 20, 127);
        assert_eq!(controllers.over(&map, &host).strength, 1.0);
        controllers.yield_to(&host, &LaneValues { gain: 0.5, ..host });
        assert_eq!(controllers.over(&map, &host).strength, 1.0, "another parameter moved");
        let drawn = LaneValues { strength: 0.5, ..host };
        controllers.yield_to(&host, &drawn);
        assert_eq!(controllers.over(&map, &drawn).strength, 0.5);
        controllers.hear(&map, 21, 127);
        assert_eq!(controllers.over(&map, &drawn), drawn, "a controller of nothing");
        controllers.hear(&map, 200, 1);
        controllers.hear(&map, 20, 0);
        assert_eq!(controllers.over(&map, &drawn).strength, 0.0);
        map.set(|_| None);
        assert_eq!(controllers.over(&map, &drawn), drawn, "a controller that was forgotten lets go");
    }

    #[test]
    fn a_host_that_sprays_the_middle_at_load_moves_nothing() {
        for middle in [63, 64] {
            let (map, mut controllers) = (strength_on(1), Controllers::default());
            let host = LaneValues { strength: 0.25, ..LaneValues::default() };
            controllers.hear(&map, 1, middle);
            controllers.hear(&map, 1, middle);
            assert_eq!(controllers.over(&map, &host), host);
            controllers.hear(&map, 1, 0);
            assert_eq!(controllers.over(&map, &host).strength, 0.0);
            controllers.hear(&map, 1, middle);
            assert!((controllers.over(&map, &host).strength - 0.5).abs() < 0.01, "now it is meant");
        }
    }

    #[test]
    fn what_is_learned_is_told_once_and_moves_nothing_yet() {
        let (map, mut controllers) = (ControllerMap::default(), Controllers::default());
        map.learn(Some(Learnable::Guidance));
        controllers.hear(&map, 74, 64);
        assert_eq!((map.learning(), map.take_learned()), (Some(Learnable::Guidance), None), "a sprayed value");
        controllers.hear(&map, 74, 90);
        assert_eq!((map.learning(), map.take_learned()), (None, Some((74, Learnable::Guidance))));
        assert_eq!(map.take_learned(), None);
        assert_eq!(controllers.over(&map, &LaneValues::default()), LaneValues::default());
        map.learn(Some(Learnable::Gain));
        map.learn(None);
        controllers.hear(&map, 74, 91);
        assert_eq!(map.take_learned(), None);
    }
}
