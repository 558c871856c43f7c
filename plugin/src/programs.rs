//! Presets by number: what a MIDI program change selects. Like every other MIDI message it writes no host parameter: a program is
//! laid over the parameters in the control frames, and each of its values holds until that parameter itself next changes. Its
//! values act at once, lock-free; its prompt is encoded off the audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, bounded};
use tiller_engine::handle::Handle;

use crate::controllers::Learnable;
use crate::host;
use crate::lanes::LaneValues;
use crate::presets::{Preset, PresetFolder};
use crate::quantise::Grid;

/// Programs that MIDI can number.
pub const MOST: usize = 128;

/// Program changes whose prompts may wait to be picked up.
const WAITING: usize = 64;

const NONE: u8 = u8::MAX;

/// One preset, made ready for the audio thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// What musicians read.
    pub name: String,
    /// The text that the music follows.
    pub prompt: String,
    values: LaneValues,
    grid: Grid,
}

/// The numbered presets: the factory's in their order, then the user's by name. The first is program 0.
#[derive(Debug, Default, PartialEq)]
pub struct Programs(Vec<Program>);

impl Programs {
    /// Numbers the factory's presets and those of a folder. Those that set what cannot be are left out.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn read(folder: &PresetFolder) -> Self {
        let ready = |preset: Preset| {
            let params = preset.params().map_err(|error| log::warn!("{error}")).ok()?;
            let (values, grid) = (host::lanes(&params, 0, 0), host::grid(&params));
            Some(Program { name: preset.name, prompt: preset.prompt, values, grid })
        };
        let own = folder.read().0;
        Self(Preset::factory().into_iter().chain(own).filter_map(ready).take(MOST).collect())
    }

    /// A program by its number, from 0.
    pub fn get(&self, number: u8) -> Option<&Program> {
        self.0.get(usize::from(number))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Program> {
        self.0.iter()
    }
}

/// A program whose prompt is to be encoded.
struct Asked {
    /// Reserved for it.
    generation: u32,
    programs: Arc<Programs>,
    number: u8,
}

/// The way of program changes from the audio thread to whoever encodes prompts.
pub struct ProgramLine {
    /// Weak: a processor that had to be leaked must not keep the engine's threads.
    handle: Weak<Handle>,
    asked: (Sender<Asked>, Receiver<Asked>),
    /// Somebody picks up what is asked.
    open: AtomicBool,
    selected: AtomicU8,
}

impl ProgramLine {
    /// A line that nobody listens to yet.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn new(handle: &Arc<Handle>) -> Self {
        let handle = Arc::downgrade(handle);
        Self { handle, asked: bounded(WAITING), open: AtomicBool::new(false), selected: AtomicU8::new(NONE) }
    }

    /// Says whether somebody calls [`ProgramLine::settle`] from now on. Without, programs change values only.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    /// Asks for a program's prompt; returns the generation that control frames are to carry from here on.
    ///
    /// # Realtime safety
    /// Lock-free, no allocation; the instance outlives its audio, so no engine ends here. Should 64 wait, the prompt stays.
    fn ask(&self, programs: &Arc<Programs>, number: u8) -> Option<u32> {
        self.selected.store(number, Ordering::Relaxed);
        // The audio thread alone sends: what is not full stays so. A generation without its prompt would hold up a render.
        if !self.open.load(Ordering::Acquire) || self.asked.0.is_full() {
            return None;
        }
        let generation = self.handle.upgrade()?.reserve_prompt();
        let _ = self.asked.0.try_send(Asked { generation, programs: programs.clone(), number });
        Some(generation)
    }

    /// Hands the prompts that were asked for to the engine.
    ///
    /// # Realtime safety
    /// Locks and allocates: never on the audio thread.
    pub fn settle(&self) {
        let Some(handle) = self.handle.upgrade() else { return };
        while let Ok(asked) = self.asked.1.try_recv() {
            let prompt = asked.programs.get(asked.number).map_or("", |program| program.prompt.as_str());
            handle.set_reserved_prompt(asked.generation, prompt);
        }
    }

    /// Number of the program that was selected last, if any.
    pub fn selected(&self) -> Option<u8> {
        Some(self.selected.load(Ordering::Relaxed)).filter(|number| *number != NONE)
    }

    pub(crate) fn forget_selected(&self) {
        self.selected.store(NONE, Ordering::Relaxed);
    }
}

/// The program that lies over the parameters, on the audio thread.
///
/// # Realtime safety
/// No allocation after construction.
#[derive(Default)]
pub struct ProgramOverlay {
    source: Option<(Arc<Programs>, Arc<ProgramLine>)>,
    values: LaneValues,
    grid: Grid,
    /// One bit for each of [`Learnable::ALL`], and two more: what still holds.
    held: u32,
}

const SEED: u32 = 1 << 30;
const GRID: u32 = 1 << 31;

/// What a preset says: gain and bypass are the session's.
fn sounding() -> impl Iterator<Item = Learnable> {
    Learnable::ALL.into_iter().filter(|one| !matches!(one, Learnable::Gain | Learnable::Bypass))
}

const fn bit(one: Learnable) -> u32 {
    1 << one as u32
}

impl ProgramOverlay {
    /// An overlay that program changes lay programs of `programs` into.
    pub fn new(programs: Arc<Programs>, line: Arc<ProgramLine>) -> Self {
        Self { source: Some((programs, line)), ..Self::default() }
    }

    /// Lays a program over every parameter that a preset says; returns the generation of its prompt. `None` when there is no such
    /// program, which changes nothing. `Some(None)`: its prompt could not be asked for.
    pub fn select(&mut self, number: u8) -> Option<Option<u32>> {
        let (programs, line) = self.source.as_ref()?;
        let program = programs.get(number)?;
        (self.values, self.grid) = (program.values, program.grid);
        self.held = sounding().fold(SEED | GRID, |held, one| held | bit(one));
        Some(line.ask(programs, number))
    }

    /// The host's values go from `before` to `now`: what changes is no longer the program's.
    pub fn yield_to(&mut self, before: (&LaneValues, Grid), now: (&LaneValues, Grid)) {
        if self.held == 0 {
            return;
        }
        for one in sounding().filter(|one| !one.is_same(before.0, now.0)) {
            self.held &= !bit(one);
        }
        if before.0.seed != now.0.seed {
            self.held &= !SEED;
        }
        if before.1 != now.1 {
            self.held &= !GRID;
        }
    }

    /// The values and the grid with the program laid over them.
    pub fn over(&self, lanes: &LaneValues, grid: Grid) -> (LaneValues, Grid) {
        let mut lanes = *lanes;
        for one in sounding().filter(|one| self.held & bit(*one) != 0) {
            one.copy(&self.values, &mut lanes);
        }
        if self.held & SEED != 0 {
            lanes.seed = self.values.seed;
        }
        (lanes, if self.held & GRID != 0 { self.grid } else { grid })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_factory_comes_first_and_the_users_own_by_name() {
        let folder = std::env::temp_dir().join(format!("tiller-programs-{}", std::process::id()));
        let own = PresetFolder::new(folder.clone());
        for (file, name) in [("b", "Zither"), ("a", "Alp horn")] {
            let mut preset = Preset::factory().swap_remove(0);
            preset.name = name.to_owned();
            own.write(&preset).unwrap();
            assert!(folder.join(format!("{name}.tiller-preset")).exists(), "{file}");
        }
        let programs = Programs::read(&own);
        std::fs::remove_dir_all(folder).unwrap();
        let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        let factory = Preset::factory();
        assert_eq!(names[..factory.len()], factory.iter().map(|own| own.name.as_str()).collect::<Vec<_>>());
        assert_eq!(names[factory.len()..], ["Alp horn", "Zither"]);
        assert_eq!(programs.get(0).unwrap().name, "Still Water");
        assert_eq!(programs.get(names.len() as u8), None);
    }

    #[test]
    fn a_program_holds_until_its_parameters_move() {
        let handle = Arc::new(Handle::new());
        let line = Arc::new(ProgramLine::new(&handle));
        let nowhere = PresetFolder::new("/nowhere/at/all".into());
        let mut overlay = ProgramOverlay::new(Arc::new(Programs::read(&nowhere)), line.clone());
        let host = LaneValues { gain: 0.5, seed: 77, ..LaneValues::default() };
        assert_eq!(overlay.over(&host, Grid::Bar), (host, Grid::Bar));
        assert_eq!((overlay.select(127), line.selected()), (None, None), "there is no such program");
        assert_eq!(overlay.select(2), Some(None), "nobody would pick its prompt up");
        line.set_open(true);
        let generation = overlay.select(2).unwrap().unwrap();
        assert_eq!((generation, handle.prompt_generation(), line.selected()), (1, 1, Some(2)));
        // Music Box: F major on the beat, seed 21.
        let (lanes, grid) = overlay.over(&host, Grid::Off);
        let chord = (lanes.chord_root.name(), lanes.chord_quality.map(|quality| quality.name()));
        assert_eq!((chord, lanes.seed, lanes.gain, grid), (("F", Some("major")), 21, 0.5, Grid::Beat));
        // The host moves the seed, the grid and the note's strength: those are its own again.
        let moved = LaneValues { seed: 78, note_strength: 0.25, ..host };
        overlay.yield_to((&host, Grid::Off), (&moved, Grid::Bar));
        let (lanes, grid) = overlay.over(&moved, Grid::Bar);
        assert_eq!((lanes.seed, lanes.note_strength, grid), (78, 0.25, Grid::Bar));
        assert_eq!(lanes.chord_root.name(), "F");
        // Its prompt is asked for under the generation that was promised; a later one of the musician's stays.
        line.settle();
        assert_eq!(handle.set_prompt("medium vibraphone arpeggio, playful"), 1, "it is the prompt already");
        overlay.select(0);
        assert_eq!(handle.set_prompt("mine"), 3);
        line.settle();
        assert_eq!(handle.set_prompt("mine"), 3);
    }

    #[test]
    fn a_flood_of_programs_leaves_no_generation_without_its_prompt() {
        let handle = Arc::new(Handle::new());
        let line = Arc::new(ProgramLine::new(&handle));
        line.set_open(true);
        let nowhere = PresetFolder::new("/nowhere/at/all".into());
        let mut overlay = ProgramOverlay::new(Arc::new(Programs::read(&nowhere)), line.clone());
        let asked = (0..200).filter(|index| overlay.select(index % 14).unwrap().is_some()).count();
        assert_eq!((asked, handle.prompt_generation()), (WAITING, WAITING as u32));
        line.settle();
        assert!(overlay.select(0).unwrap().is_some());
    }
}
