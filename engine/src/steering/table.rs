//! Injection tables: what each class of a lane adds (or holds, see `push`) to every block's output at full dose, in f32 (`method.md` 4.1), scaled
//! to the blocks' own norms; and their sum under a norm budget. Runs on the runner thread; no allocation after
//! construction.

use super::class_set::ClassSet;
use super::detector::Detector;
use super::directions::{Directions, DirectionsError};
use super::doses::{Dose, Doses, Lane, MOST_OF_FAMILIES};
use super::envelope::ACCENT;
use super::push::{Manner, Push};
use crate::dataset::random::Random;
use arrayvec::ArrayVec;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Most that a block gets of a dose that holds, as a fraction of its mean norm: far more than a held state ever lacks.
const HOLD_LIMIT: f32 = 0.5;

/// Seed of the coins.
const GATE: u64 = 7;

/// Injection vectors of one lane at full dose.
pub struct LaneTable {
    /// `[class][blocks * hidden]`.
    full: Vec<f32>,
    /// `[block]`: norm of a class's vector where its weight is 1.
    limits: Vec<f32>,
    /// `[class]`: where the class is heard best.
    probes: Vec<Probe>,
    /// Classes that there are directions for; what the others have above is nothing.
    known: ClassSet,
    gate: f32,
    conditional_only: bool,
    width: usize,
    held: Option<Held>,
}

/// What a lane that holds needs instead of vectors at full dose.
struct Held {
    /// Unit vectors `[class][blocks * hidden]`.
    directions: Vec<f32>,
    /// `[class][blocks][2]`
    levels: Vec<f32>,
    /// `[class][blocks]`
    limits: Vec<f32>,
    /// Steps between the levels at full dose.
    reach: f32,
}

/// What tells whether a class is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Block whose output it looks at.
    pub block: usize,
    /// Unit vector `[hidden]`.
    pub direction: Vec<f32>,
    /// Over the projection on it.
    pub detector: Detector,
}

impl Probe {
    /// Projection of a block's output.
    pub fn project(&self, state: &[f32]) -> f32 {
        self.direction.iter().zip(state).map(|(a, b)| a * b).sum()
    }

    /// What an injection `[blocks * hidden]` has added to that projection by the probe's own block: the residual stream
    /// carries every block's share on.
    pub fn of_injection(&self, injection: &[f32]) -> f32 {
        let hidden = self.direction.len();
        injection.chunks_exact(hidden).take(self.block + 1).map(|part| self.project(part)).sum()
    }
}

impl LaneTable {
    /// Scales unit directions by each block's mean norm, its weight and the calibrated dose. Directions of some of the lane's
    /// classes are told by their names; the others are then not steered to.
    ///
    /// # Errors
    /// When the directions have classes that the lane has not.
    pub fn new(directions: &Directions, file: &str, lane: Lane) -> Result<Self, DirectionsError> {
        let classes = lane.classes();
        let known = match directions.classes_of(lane) {
            Some(known) => known,
            None => {
                return Err(DirectionsError::Metadata {
                    file: file.to_owned(),
                    key: "classes",
                    expected: format!("{classes} classes of {}, or some of them by name", lane.concept()),
                    found: directions.classes.join(","),
                });
            }
        };
        let whole = (known.len() < classes).then(|| directions.spread(lane));
        let directions = whole.as_ref().unwrap_or(directions);
        let (blocks, hidden) = (directions.blocks, directions.hidden);
        let holds = directions.manner == Manner::Hold;
        let mut full = Vec::with_capacity(if holds { 0 } else { classes * blocks * hidden });
        let mut room = Vec::with_capacity(classes * blocks);
        for class in 0..classes {
            let weights = directions.block_weights.of(&directions.scores[class * blocks..][..blocks]);
            for (block, (norm, weight)) in directions.block_norms.iter().zip(weights).enumerate() {
                room.push(norm * HOLD_LIMIT * weight);
                let scale = norm * directions.full_dose * weight;
                let vector = directions.vector(class, block).iter().filter(|_| !holds);
                full.extend(vector.map(|v| v * scale));
            }
        }
        // What is held lies along a line, wherever the vector ends.
        let lengths: Vec<f32> = directions.vectors.chunks_exact(hidden.max(1)).map(length).collect();
        let over = |values: &[f32], each: usize| -> Vec<f32> {
            values
                .iter()
                .enumerate()
                .map(|(index, value)| value / lengths[index / each].max(f32::MIN_POSITIVE))
                .collect()
        };
        let held = holds.then(|| Held {
            directions: over(&directions.vectors, hidden),
            levels: over(&directions.levels, 2),
            limits: room,
            reach: directions.full_dose,
        });
        let probe = |class: usize| {
            let scores = &directions.scores[class * blocks..][..blocks];
            let block = (0..blocks).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
            let at = 2 * (class * blocks + block);
            let detector = Detector { slope: directions.detectors[at], offset: directions.detectors[at + 1] };
            Probe { block, direction: directions.vector(class, block).to_vec(), detector }
        };
        let probes = (0..classes).map(probe).collect();
        let longest =
            |block: usize| (0..classes).map(|class| length(directions.vector(class, block))).fold(0.0, f32::max);
        let limit = |(block, norm): (usize, &f32)| norm * directions.full_dose * longest(block);
        let limits = directions.block_norms.iter().enumerate().map(limit).collect();
        let (gate, conditional_only) = (directions.gate, directions.conditional_only);
        Ok(Self { full, limits, probes, known, gate, conditional_only, width: blocks * hidden, held })
    }

    /// The same with the classes of another table that this one lacks. Tables of other manners cannot be one: then it stays as it is.
    pub fn over(mut self, other: &Self) -> Self {
        let alike = self.held.is_none() && other.held.is_none() && self.width == other.width;
        let same = self.gate == other.gate && self.conditional_only == other.conditional_only;
        let lacking = other.known.without(self.known);
        if !alike || !same || self.probes.len() != other.probes.len() || lacking.is_empty() {
            return self;
        }
        for class in lacking.iter() {
            let own = class * self.width..(class + 1) * self.width;
            self.full[own.clone()].copy_from_slice(&other.full[own]);
            self.probes[class] = other.probes[class].clone();
        }
        self.limits.iter_mut().zip(&other.limits).for_each(|(limit, other)| *limit = limit.max(*other));
        self.known = self.known.and(lacking);
        self
    }

    /// The coin of a block in a step: a function of both alone, so that a rebuilt window gets what it first had.
    fn is_open(&self, step: u32, block: usize) -> bool {
        self.gate >= 1.0 || Random::new(GATE, u64::from(step), block as u64).chance(f64::from(self.gate))
    }

    fn class(&self, class: u8) -> &[f32] {
        let start = usize::from(class) * self.width;
        self.full.get(start..start + self.width).unwrap_or(&[])
    }
}

/// Of a vector.
fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt()
}

/// The tables of the lanes: those of the concept families are a checkpoint's, those of the traits an instance's. A clone shares them.
#[derive(Clone)]
pub struct Steering {
    tables: [Option<Arc<LaneTable>>; Lane::ALL.len()],
    blocks: usize,
    hidden: usize,
}

impl Steering {
    /// No directions at all.
    pub fn new(blocks: usize, hidden: usize) -> Self {
        Self { tables: [const { None }; Lane::ALL.len()], blocks, hidden }
    }

    /// Gives a lane its table.
    pub fn set(&mut self, lane: Lane, table: LaneTable) {
        self.tables[lane.index()] = Some(Arc::new(table));
    }

    /// The same without a lane's table.
    pub fn without(&self, lane: Lane) -> Self {
        let mut other = self.clone();
        other.tables[lane.index()] = None;
        other
    }

    /// Refuses a table for other guidance rows than those of the lanes that have one: a dose learned for both rows is about
    /// twice too much for the conditional one alone.
    ///
    /// # Errors
    /// [`DirectionsError::Metadata`], by the file's name.
    pub fn check_rows(&self, table: &LaneTable, file: &str) -> Result<(), DirectionsError> {
        let name = |conditional: bool| if conditional { "conditional" } else { "both" };
        match self.tables.iter().flatten().find(|other| other.conditional_only != table.conditional_only) {
            None => Ok(()),
            Some(other) => Err(DirectionsError::Metadata {
                file: file.to_owned(),
                key: "rows",
                expected: format!("`{}` as in the other directions", name(other.conditional_only)),
                found: format!("`{}`", name(table.conditional_only)),
            }),
        }
    }

    /// Whether a lane can be steered.
    pub fn has(&self, lane: Lane) -> bool {
        self.tables[lane.index()].is_some()
    }

    /// The classes that a lane can be steered to.
    pub fn classes(&self, lane: Lane) -> ClassSet {
        self.tables[lane.index()].as_ref().map_or(ClassSet::EMPTY, |table| table.known)
    }

    /// The table of a lane.
    pub fn table(&self, lane: Lane) -> Option<&LaneTable> {
        self.tables[lane.index()].as_deref()
    }

    /// What tells whether a class of a lane is there.
    pub fn probe(&self, lane: Lane, class: u8) -> Option<&Probe> {
        let table = self.tables[lane.index()].as_ref()?;
        table.probes.get(usize::from(class)).filter(|_| table.known.contains(usize::from(class)))
    }

    /// SHA-256 of all that the tables can add and ask, and of how their doses come; hex, empty without any.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        ACCENT.iter().for_each(|number| digest.update(number.to_le_bytes()));
        for (lane, table) in Lane::ALL.iter().zip(&self.tables) {
            let Some(table) = table else { continue };
            digest.update(lane.concept());
            let numbers = |probe: &Probe| [probe.block as f32, probe.detector.slope, probe.detector.offset];
            let single = [table.gate, f32::from(u8::from(table.conditional_only))];
            let probes = table.probes.iter().flat_map(numbers);
            let held = table.held.iter().flat_map(|held| {
                let parts = [&held.directions, &held.levels, &held.limits].into_iter().flatten();
                parts.copied().chain([held.reach])
            });
            // The table of a whole lane has the fingerprint that it had before there were others.
            let whole = table.known.len() == table.probes.len();
            table.known.iter().filter(|_| !whole).for_each(|class| digest.update([class as u8]));
            let all = single.into_iter().chain(probes).chain(table.full.iter().copied()).chain(held);
            all.for_each(|number| digest.update(number.to_le_bytes()));
        }
        if self.tables.iter().all(Option::is_none) {
            return String::new();
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `blocks * hidden`.
    pub fn width(&self) -> usize {
        self.blocks * self.hidden
    }

    /// Whether only the conditional guidance row is steered, for every lane ([`Steering::check_rows`]).
    pub fn conditional_only(&self) -> bool {
        self.tables.iter().flatten().any(|table| table.conditional_only)
    }

    /// Whether a lane's doses look before they push.
    pub fn holds(&self, lane: Lane) -> bool {
        self.tables[lane.index()].as_ref().is_some_and(|table| table.held.is_some())
    }

    /// The doses that hold, to be applied block by block. They share one budget.
    pub fn pushes(&self, doses: &Doses) -> ArrayVec<Push<'_>, MOST_OF_FAMILIES> {
        let held = |dose: &Dose| {
            let class = usize::from(dose.class);
            let table = self.tables[dose.lane.index()].as_ref().filter(|table| table.known.contains(class))?;
            let held = table.held.as_ref()?;
            Some(Push {
                directions: held.directions.get(class * self.width()..(class + 1) * self.width())?,
                levels: held.levels.get(2 * class * self.blocks..2 * (class + 1) * self.blocks)?,
                limits: held.limits.get(class * self.blocks..(class + 1) * self.blocks)?,
                reach: dose.amount * held.reach,
                share: 1.0,
            })
        };
        // Of families only: a trait that holds is refused.
        let mut pushes: ArrayVec<Push<'_>, MOST_OF_FAMILIES> =
            doses.as_slice().iter().filter_map(held).take(MOST_OF_FAMILIES).collect();
        let share = 1.0 / pushes.len().max(1) as f32;
        pushes.iter_mut().for_each(|push| push.share = share);
        pushes
    }

    /// Whether what these doses add is the same in every step.
    pub fn is_steady(&self, doses: &Doses) -> bool {
        let table = |dose: &Dose| self.tables[dose.lane.index()].as_ref();
        doses.as_slice().iter().filter_map(table).all(|table| table.gate >= 1.0)
    }

    /// Writes what `doses` add in step `step` of a piece, `[blocks * hidden]`. In every block the sum is no longer than the longest single full dose
    /// among them: stacked lanes share one budget, or each would push the others out. `false` when they add nothing: the
    /// caller then injects nothing at all, so that strength 0 is bit-equal to the unsteered model.
    pub fn write(&self, doses: &Doses, step: u32, out: &mut [f32]) -> bool {
        let known = || {
            let adds = |table: &&LaneTable, class: u8| table.held.is_none() && table.known.contains(usize::from(class));
            let table =
                move |dose: &Dose| self.tables[dose.lane.index()].as_deref().filter(|table| adds(table, dose.class));
            doses.as_slice().iter().filter_map(move |dose| Some((dose, table(dose)?)))
        };
        let mut count = 0;
        for (dose, table) in known() {
            let parts = table.class(dose.class).chunks_exact(self.hidden);
            for (block, (out, full)) in out.chunks_exact_mut(self.hidden).zip(parts).enumerate() {
                let amount = if table.is_open(step, block) { dose.amount } else { 0.0 };
                if count == 0 {
                    out.iter_mut().zip(full).for_each(|(out, full)| *out = full * amount);
                } else {
                    out.iter_mut().zip(full).for_each(|(out, full)| *out += full * amount);
                }
            }
            count += 1;
        }
        if count > 1 {
            for (block, out) in out.chunks_exact_mut(self.hidden).enumerate() {
                let limit = known().map(|(_, table)| table.limits[block]).fold(0.0, f32::max);
                let norm = out.iter().map(|x| x * x).sum::<f32>().sqrt();
                if norm > limit {
                    let scale = limit / norm;
                    out.iter_mut().for_each(|x| *x *= scale);
                }
            }
        }
        count > 0
    }
}

#[cfg(test)]
mod tests;
