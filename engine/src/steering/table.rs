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
mod tests {
    use super::*;
    use crate::control::{Chord, PitchClass, Quality};
    use crate::steering::directions::tests::example;

    fn steering() -> Steering {
        let mut steering = Steering::new(2, 4);
        steering.set(Lane::Note, LaneTable::new(&example(), "example", Lane::Note).expect("12 notes"));
        steering
    }

    fn doses(list: &[(Lane, u8, f32)]) -> Doses {
        let mut doses = Doses::NONE;
        list.iter().for_each(|&(lane, class, amount)| doses.push(Dose { lane, class, amount }));
        doses
    }

    #[test]
    fn injection_is_a_signed_fraction_of_the_block_norm() {
        let mut out = vec![7.0; 8];
        assert!(steering().write(&doses(&[(Lane::Note, 0, -0.25)]), 0, &mut out));
        // Block 0: norm 2 x dose 0.5 x -0.25 on component 0; block 1: norm 3 on component 1.
        assert_eq!(out, [-0.25, 0.0, 0.0, 0.0, 0.0, -0.375, 0.0, 0.0]);
    }

    #[test]
    fn a_probe_looks_where_the_score_is_best_and_knows_what_was_injected() {
        let mut directions = example();
        directions.scores[2 * 5 + 1] = 0.9;
        directions.detectors[2 * (2 * 5 + 1)] = 3.0;
        let table = LaneTable::new(&directions, "example", Lane::Note).expect("12 notes");
        let mut steering = Steering::new(2, 4);
        steering.set(Lane::Note, table);
        let probe = steering.probe(Lane::Note, 5).expect("a note");
        assert_eq!((probe.block, probe.detector), (1, Detector { slope: 3.0, offset: 0.25 }));
        let mut injection = vec![0.0; 8];
        steering.write(&doses(&[(Lane::Note, 5, 0.5)]), 0, &mut injection);
        let by_hand: f32 = (0..4).map(|i| (injection[i] + injection[4 + i]) * probe.direction[i]).sum();
        assert!((probe.of_injection(&injection) - by_hand).abs() < 1e-6 && by_hand > 0.5, "{by_hand}");
        assert!(steering.probe(Lane::Chord, 5).is_none() && steering.probe(Lane::Note, 12).is_none());
    }

    #[test]
    fn another_dose_has_another_fingerprint() {
        let steering = |dose: f32| {
            let mut steering = Steering::new(2, 4);
            let directions = Directions { full_dose: dose, ..example() };
            steering.set(Lane::Note, LaneTable::new(&directions, "example", Lane::Note).expect("12 notes"));
            steering.fingerprint()
        };
        assert_eq!(steering(0.5), super::tests::steering().fingerprint());
        assert_ne!(steering(0.5), steering(0.6));
        assert_eq!(Steering::new(2, 4).fingerprint(), "");
    }

    #[test]
    fn the_gate_opens_for_its_share_of_blocks_and_steps() {
        let mut steering = Steering::new(2, 4);
        let directions = Directions { gate: 0.3, conditional_only: true, ..example() };
        steering.set(Lane::Note, LaneTable::new(&directions, "example", Lane::Note).expect("12 notes"));
        assert!(steering.conditional_only() && !super::tests::steering().conditional_only());
        // Directions for both rows are refused beside it.
        let both = LaneTable::new(&example(), "example", Lane::Note).expect("12 notes");
        let refused = steering.check_rows(&both, "chords.safetensors").expect_err("other rows").to_string();
        assert!(refused.contains("chords.safetensors") && refused.contains("rows"), "{refused}");
        assert!(super::tests::steering().check_rows(&both, "").is_ok());
        let open = |step: u32| {
            let mut out = vec![7.0; 8];
            steering.write(&doses(&[(Lane::Note, 0, 1.0)]), step, &mut out);
            out.chunks(4).map(|part| part.iter().any(|x| *x != 0.0)).collect::<Vec<bool>>()
        };
        let all: Vec<bool> = (0..2_000).flat_map(open).collect();
        let share = all.iter().filter(|open| **open).count() as f32 / all.len() as f32;
        assert!((share - 0.3).abs() < 0.03, "{share}");
        assert_eq!(open(17), open(17));
    }

    #[test]
    fn a_lane_that_holds_adds_nothing_and_pushes_by_its_levels() {
        let held = Directions { manner: Manner::Hold, full_dose: 2.0, ..example() };
        let mut steering = Steering::new(2, 4);
        steering.set(Lane::Note, LaneTable::new(&held, "example", Lane::Note).expect("12 notes"));
        let both = doses(&[(Lane::Note, 0, 0.5), (Lane::Note, 1, -0.25)]);
        let mut out = vec![7.0; 8];
        assert!(steering.holds(Lane::Note) && !steering.write(&both, 0, &mut out));
        let pushes = steering.pushes(&both);
        assert_eq!(pushes.iter().map(|push| (push.reach, push.share)).collect::<Vec<_>>(), [(1.0, 0.5), (-0.5, 0.5)]);
        assert_eq!((pushes[0].limits, pushes[1].levels), (&[1.0, 1.5][..], &[0.5, 1.5, 0.5, 1.5][..]));
        assert_eq!(pushes[1].directions, [held.vector(1, 0), held.vector(1, 1)].concat());
        assert!(super::tests::steering().pushes(&both).is_empty(), "what adds does not hold");
        assert_ne!(steering.fingerprint(), super::tests::steering().fingerprint());
    }

    #[test]
    fn nothing_is_written_without_a_dose_or_a_table() {
        let mut out = vec![7.0; 8];
        assert!(!steering().write(&Doses::NONE, 0, &mut out));
        assert!(!steering().write(&doses(&[(Lane::Tempo, 0, 1.0)]), 0, &mut out));
        assert_eq!(out, [7.0; 8]);
        assert!(LaneTable::new(&example(), "example", Lane::Chord).is_err(), "notes are no chords");
        let odd = Directions { classes: vec!["H".to_owned()], ..example() };
        assert!(LaneTable::new(&odd, "example", Lane::Note).is_err());
    }

    /// These notes of the example, as if no others had been learned.
    fn some(notes: &[&str]) -> Directions {
        let whole = example();
        let keep: Vec<usize> =
            notes.iter().filter_map(|note| whole.classes.iter().position(|own| own == note)).collect();
        let of = |values: &[f32], each: usize| -> Vec<f32> {
            keep.iter().flat_map(|class| values[class * each..(class + 1) * each].to_vec()).collect()
        };
        Directions {
            classes: notes.iter().map(|note| (*note).to_owned()).collect(),
            vectors: of(&whole.vectors, 8),
            scores: of(&whole.scores, 2),
            detectors: of(&whole.detectors, 4),
            levels: of(&whole.levels, 4),
            ..whole
        }
    }

    #[test]
    fn a_lane_that_lacks_notes_steers_to_the_others_only() {
        for manner in [Manner::Add, Manner::Hold] {
            let (mut whole, mut partial) = (Steering::new(2, 4), Steering::new(2, 4));
            let lane = |directions: &Directions| {
                LaneTable::new(&Directions { manner, ..directions.clone() }, "example", Lane::Note).expect("notes")
            };
            // In any order.
            partial.set(Lane::Note, lane(&some(&["A", "D"])));
            whole.set(Lane::Note, lane(&example()));
            assert_eq!(partial.classes(Lane::Note).notes(), "D, A");
            assert_ne!(partial.fingerprint(), whole.fingerprint());
            for class in 0..12 {
                let own = doses(&[(Lane::Note, class, 0.5)]);
                let written = |steering: &Steering| {
                    let mut out = vec![7.0; 8];
                    (steering.write(&own, 0, &mut out), out)
                };
                let known = class == 2 || class == 9;
                let (expected, pushes) = match known {
                    true => (written(&whole), whole.pushes(&own)),
                    false => ((false, vec![7.0; 8]), ArrayVec::new()),
                };
                assert_eq!(written(&partial), expected, "{manner:?} {class}");
                assert_eq!(partial.pushes(&own).len(), pushes.len(), "{manner:?} {class}");
                assert_eq!(partial.probe(Lane::Note, class), whole.probe(Lane::Note, class).filter(|_| known));
            }
        }
    }

    #[test]
    fn chords_too_are_told_by_their_names() {
        let names = ["C major", "A minor"].map(str::to_owned).to_vec();
        let chords = Directions { classes: names, ..some(&["C", "A"]) };
        let mut steering = Steering::new(2, 4);
        steering.set(Lane::Chord, LaneTable::new(&chords, "chords", Lane::Chord).expect("two chords"));
        let class = |root: u8, quality| Chord { root: PitchClass::of_key(root), quality }.class();
        let expected = [class(0, Quality::Major), class(9, Quality::Minor)];
        assert_eq!(steering.classes(Lane::Chord), expected.into_iter().collect());
        let mut out = vec![7.0; 8];
        assert!(!steering.write(&doses(&[(Lane::Chord, class(0, Quality::Minor) as u8, 1.0)]), 0, &mut out));
    }

    #[test]
    fn a_table_is_filled_up_from_another() {
        let table = |directions: &Directions| LaneTable::new(directions, "example", Lane::Note).expect("notes");
        let stronger = Directions { full_dose: 0.75, ..some(&["A"]) };
        let written = |table: LaneTable, class| {
            let mut steering = Steering::new(2, 4);
            steering.set(Lane::Note, table);
            let mut out = vec![7.0; 8];
            steering.write(&doses(&[(Lane::Note, class, 1.0)]), 0, &mut out);
            out
        };
        let both = || table(&stronger).over(&table(&example()));
        assert_eq!(written(both(), 9), written(table(&stronger), 9));
        assert_eq!(written(both(), 2), written(table(&example()), 2));
        assert_eq!((both().known, both().limits), (ClassSet::NOTES, vec![1.5, 2.25]));
        let held = Directions { manner: Manner::Hold, ..example() };
        assert_eq!(table(&stronger).over(&table(&held)).known.notes(), "A");
    }

    #[test]
    fn stacked_doses_share_one_budget() {
        let mut out = vec![0.0; 8];
        // Classes 0 and 1 point to neighbouring components: together they would be root 2 too long.
        assert!(steering().write(&doses(&[(Lane::Note, 0, 1.0), (Lane::Note, 1, 1.0)]), 0, &mut out));
        for (block, limit) in [(0, 1.0), (1, 1.5)] {
            let norm = out[block * 4..][..4].iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((norm - limit).abs() < 1e-5, "block {block}: {out:?}");
        }
        assert!(steering().write(&doses(&[(Lane::Note, 0, 0.5), (Lane::Note, 1, 0.5)]), 0, &mut out));
        assert!((out[0] - 0.5).abs() < 1e-6, "within the budget nothing is scaled: {out:?}");
    }

    #[test]
    fn traits_share_the_budget_with_every_other_lane() {
        let mut steering = steering();
        for (place, lane) in Lane::TRAITS.into_iter().enumerate() {
            let mut own = example();
            own.classes.truncate(1);
            // Each trait has a component of its own in every block.
            own.vectors = (0..8).map(|i| f32::from(u8::from(i % 4 == place))).collect();
            (own.scores, own.detectors, own.levels) = (vec![0.75; 2], vec![0.25; 4], vec![0.5; 4]);
            steering.set(lane, LaneTable::new(&own, "own", lane).expect("one class"));
        }
        let mut out = vec![0.0; 8];
        let some = doses(&[(Lane::Trait1, 0, 0.3), (Lane::Trait3, 0, -0.4)]);
        assert!(steering.write(&some, 0, &mut out));
        let own = [0.3, 0.0, -0.4, 0.0, 0.45, 0.0, -0.6, 0.0];
        let near = out.iter().zip(own).all(|(found, wanted)| (found - wanted).abs() < 1e-6);
        assert!(near, "within the budget each is its own share: {out:?}");
        let all = doses(&[
            (Lane::Note, 2, 1.0),
            (Lane::Trait1, 0, 1.0),
            (Lane::Trait2, 0, -1.0),
            (Lane::Trait3, 0, 1.0),
            (Lane::Trait4, 0, -1.0),
        ]);
        assert!(steering.write(&all, 0, &mut out));
        for (block, limit) in [(0, 1.0), (1, 1.5)] {
            let norm = length(&out[block * 4..][..4]);
            assert!((norm - limit).abs() < 1e-5, "block {block}: {out:?}");
        }
        assert!(out[0] > 0.0 && out[1] < 0.0 && out[3] < 0.0, "{out:?}");
    }
}
