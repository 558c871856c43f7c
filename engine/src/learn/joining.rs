//! Notes that were learned at different times, in one file: those that are new take the place of the same ones of before, the
//! others stay. Any thread but the audio thread's.

use std::path::Path;

use serde_json::{Value, json};

use crate::steering::directions::Directions;
use crate::steering::doses::Lane;

/// Directions that lie where new ones are to be written, if these classes do not take the place of all of them.
pub fn beside(path: &Path, hash: &str, classes: &[String]) -> Option<Directions> {
    // What cannot be read, or is another checkpoint's, is written over, as it is when everything is learned.
    let old = Directions::read(path).ok().filter(|old| old.checkpoint_hash == hash)?;
    old.classes.iter().any(|class| !classes.contains(class)).then_some(old)
}

/// What keeps old and new directions from being one file, in words; `None` when nothing does.
pub fn obstacle(old: &Directions, new: &Directions) -> Option<String> {
    let differ = [
        ("size", (old.blocks, old.hidden) != (new.blocks, new.hidden)),
        ("manner", old.manner != new.manner),
        ("full dose", old.full_dose != new.full_dose),
        ("share of the blocks", old.block_weights != new.block_weights),
        ("gate", old.gate != new.gate),
        ("guidance rows", old.conditional_only != new.conditional_only),
    ];
    let differ: Vec<&str> = differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    if differ.is_empty() {
        return None;
    }
    let kept = old.classes.iter().filter(|class| !new.classes.contains(class)).map(String::as_str);
    Some(format!(
        "what is there already ({}) has another {} and cannot be in one file with what is learned now: learn all at once, or \
         export the old file and remove it first",
        kept.collect::<Vec<_>>().join(", "),
        differ.join(", "),
    ))
}

/// One file of both. They must have no [`obstacle`].
pub fn join(old: &Directions, new: &Directions) -> Directions {
    let place = |name: &str| Lane::FAMILIES.into_iter().find_map(|lane| lane.class_named(name));
    // A class with where it comes from: its number, in the old file or in the new one.
    let mut classes: Vec<(&Directions, usize)> = (0..new.classes.len()).map(|class| (new, class)).collect();
    let stays = |class: &usize| !new.classes.contains(&old.classes[*class]);
    classes.extend((0..old.classes.len()).filter(stays).map(|class| (old, class)));
    classes.sort_by_key(|(from, class)| place(&from.classes[*class]));
    let of = |values: fn(&Directions) -> &[f32], each: usize| -> Vec<f32> {
        classes.iter().flat_map(|(from, class)| values(from)[class * each..(class + 1) * each].to_vec()).collect()
    };
    let (blocks, hidden) = (new.blocks, new.hidden);
    // Both are means over what was heard of the same model, of as many clips as their notes needed.
    let share = new.classes.len() as f32 / classes.len() as f32;
    let norms = old.block_norms.iter().zip(&new.block_norms);
    let mut methods = vec![old.method.as_str(), new.method.as_str()];
    methods.dedup();
    Directions {
        classes: classes.iter().map(|(from, class)| from.classes[*class].clone()).collect(),
        vectors: of(|own| &own.vectors, blocks * hidden),
        scores: of(|own| &own.scores, blocks),
        detectors: of(|own| &own.detectors, 2 * blocks),
        levels: of(|own| &own.levels, 2 * blocks),
        block_norms: norms.map(|(old, new)| share * new + (1.0 - share) * old).collect(),
        method: methods.join(" and "),
        provenance: provenance(old, new, &classes).to_string(),
        ..new.clone()
    }
}

fn provenance(old: &Directions, new: &Directions, classes: &[(&Directions, usize)]) -> Value {
    let read = |own: &Directions| serde_json::from_str::<Value>(&own.provenance).unwrap_or_default();
    let (before, now) = (read(old), read(new));
    let is_new = |from: &Directions| std::ptr::eq(from, new);
    let of = |key: &str| -> Vec<Value> {
        let each = classes.iter().map(|(from, class)| {
            let whole = if is_new(from) { &now } else { &before };
            whole["test"][key][*class].clone()
        });
        each.collect()
    };
    let apart = of("told_apart");
    let numbers: Vec<f64> = apart.iter().filter_map(Value::as_f64).collect();
    let clips = |whole: &Value| whole["test"]["told"]["clips"].as_u64().unwrap_or(0);
    // Files of before do not say it of each class.
    let told = (numbers.len() == classes.len()).then(|| {
        let right = numbers.iter().sum::<f64>() / numbers.len() as f64;
        json!({ "right": right, "chance": 0.5, "clips": clips(&before).min(clips(&now)) })
    });
    let names = |wanted: &dyn Fn(&Directions) -> bool| -> Vec<&str> {
        let own = classes.iter().filter(|(from, _)| wanted(from));
        own.map(|(from, class)| from.classes[*class].as_str()).collect()
    };
    let (stay, come) = (names(&|from| !is_new(from)), names(&is_new));
    let mut parts: Vec<Value> = match before["parts"].as_array() {
        Some(parts) => parts.clone(),
        None => vec![json!({ "classes": stay, "provenance": before.clone() })],
    };
    for part in &mut parts {
        let left: Vec<Value> = part["classes"].as_array().into_iter().flatten().cloned().collect();
        part["classes"] =
            left.into_iter().filter(|name| name.as_str().is_some_and(|name| stay.contains(&name))).collect();
    }
    parts.retain(|part| part["classes"].as_array().is_some_and(|left| !left.is_empty()));
    parts.push(json!({ "classes": come, "provenance": now.clone() }));
    json!({
        "parts": parts,
        "test": {
            "rule": now["test"]["rule"],
            "score": of("score"),
            "told": told,
            "told_apart": apart,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::push::Manner;

    /// These notes, every number of them `number` but for the note's own.
    fn notes(names: &[&str], number: f32) -> Directions {
        let whole = crate::steering::directions::tests::example();
        let each = |count: usize| -> Vec<f32> {
            names.iter().flat_map(|name| vec![number + name.len() as f32 / 8.0; count]).collect()
        };
        let scores: Vec<[f32; 2]> = names.iter().map(|_| [number; 2]).collect();
        let test = json!({ "score": scores, "told_apart": vec![number; names.len()], "told": { "clips": 40 } });
        Directions {
            classes: names.iter().map(|name| (*name).to_owned()).collect(),
            vectors: each(8),
            scores: each(2),
            detectors: each(4),
            levels: each(4),
            block_norms: vec![number; 2],
            provenance: json!({ "test": test, "data": number }).to_string(),
            ..whole
        }
    }

    #[test]
    fn new_notes_are_added_and_take_the_place_of_the_same() {
        let (old, new) = (notes(&["A", "C#"], 1.0), notes(&["D", "A"], 2.0));
        assert_eq!(obstacle(&old, &new), None);
        let both = join(&old, &new);
        assert_eq!(both.classes, ["C#", "D", "A"]);
        assert_eq!((both.vector(0, 0)[0], both.vector(1, 1)[3], both.vector(2, 0)[0]), (1.25, 2.125, 2.125));
        assert_eq!((both.scores.len(), both.detectors.len(), both.levels.len()), (6, 12, 12));
        assert!((both.block_norms[0] - (2.0 * 2.0 + 1.0) / 3.0).abs() < 1e-6);
        let read = |own: &Directions| serde_json::from_str::<Value>(&own.provenance).expect("JSON");
        let provenance = read(&both);
        assert_eq!(provenance["test"]["told_apart"], json!([1.0, 2.0, 2.0]));
        assert_eq!(provenance["test"]["told"]["right"], json!(5.0 / 3.0));
        let classes = |provenance: &Value| -> Vec<Value> {
            provenance["parts"].as_array().into_iter().flatten().map(|part| part["classes"].clone()).collect()
        };
        assert_eq!(classes(&provenance), [json!(["C#"]), json!(["D", "A"])]);
        // A third time: no part is within a part, and one of which nothing is left goes.
        let third = join(&both, &notes(&["C#", "E"], 3.0));
        assert_eq!(
            (&third.classes[..], classes(&read(&third))),
            (&["C#", "D", "E", "A"].map(str::to_owned)[..], vec![json!(["D", "A"]), json!(["C#", "E"])])
        );
    }

    #[test]
    fn what_cannot_be_one_file_says_why() {
        let (old, new) = (notes(&["A", "C#"], 1.0), notes(&["A"], 2.0));
        let held = Directions { manner: Manner::Hold, full_dose: 2.0, ..new };
        let why = obstacle(&old, &held).expect("another manner");
        assert!(
            why.contains("(C#)") && why.contains("manner, full dose") && why.contains("learn all at once"),
            "{why}"
        );
    }

    #[test]
    fn only_what_would_be_lost_is_joined() {
        let path = std::env::temp_dir().join(format!("tiller-joining-{}.safetensors", std::process::id()));
        let old = notes(&["D", "A"], 1.0);
        old.write(&path).expect("written");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(beside(&path, &old.checkpoint_hash, &names(&["A"])), Some(old.clone()));
        assert_eq!(beside(&path, &old.checkpoint_hash, &names(&["A", "C", "D"])), None);
        assert_eq!(beside(&path, "another", &names(&["A"])), None);
        std::fs::write(&path, b"damaged").expect("written");
        assert_eq!(beside(&path, &old.checkpoint_hash, &names(&["A"])), None);
        std::fs::remove_file(&path).expect("cleaned");
    }
}
