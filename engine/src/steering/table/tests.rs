//! What doses add and push, of lanes that are there and of classes that are not.

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
    let keep: Vec<usize> = notes.iter().filter_map(|note| whole.classes.iter().position(|own| own == note)).collect();
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
