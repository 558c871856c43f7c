//! Ids, texts both ways and exact values for every parameter.

use std::sync::Arc;

use super::*;
use crate::state::ProjectStore;

fn params() -> TillerParams {
    TillerParams::new(ProjectField(Arc::new(ProjectStore::new(|_| {}))))
}

/// The text of `param` at `normalized`, and that text read again.
fn both_ways(param: ParamPtr, normalized: f32) -> (String, Option<f32>) {
    // SAFETY: the parameters outlive the pointer in every test here.
    unsafe {
        let text = param.normalized_value_to_string(normalized, true);
        let read = param.string_to_normalized_value(&text);
        (text, read)
    }
}

#[test]
fn ids_are_frozen() {
    let params = params();
    let ids: Vec<_> = params.param_map().into_iter().map(|(id, ..)| id).collect();
    let frozen = [
        "note",
        "note_strength",
        "chord_root",
        "chord_quality",
        "chord_strength",
        "tempo_strength",
        "trait_1_strength",
        "trait_2_strength",
        "trait_3_strength",
        "trait_4_strength",
        "strength",
        "attack",
        "release",
        "temperature",
        "guidance",
        "top_k",
        "seed",
        "gain",
        "quantise",
        "run",
        "late",
        "latency",
        "latency_frames",
        "bypass",
    ];
    assert_eq!(ids, frozen);
    assert_eq!(
        Note::ids(),
        Some(&["off", "c", "c-sharp", "d", "d-sharp", "e", "f", "f-sharp", "g", "g-sharp", "a", "a-sharp", "b",][..])
    );
    assert_eq!(
        Root::ids(),
        Some(&["c", "c-sharp", "d", "d-sharp", "e", "f", "f-sharp", "g", "g-sharp", "a", "a-sharp", "b"][..])
    );
    assert_eq!(ChordQuality::ids(), Some(&["off", "major", "minor", "diminished", "augmented"][..]));
    assert_eq!(Quantise::ids(), Some(&["off", "beat", "bar"][..]));
    assert_eq!(Run::ids(), Some(&["transport", "free", "keys"][..]));
    assert_eq!(Late::ids(), Some(&["auto", "wait", "fade"][..]));
    assert_eq!(Latency::ids(), Some(&["tight", "safe", "frames"][..]));
}

#[test]
fn every_text_reads_back_as_itself() {
    let params = params();
    for (id, param, _) in params.param_map() {
        for step in 0..=200 {
            let (text, read) = both_ways(param, step as f32 / 200.0);
            let Some(read) = read else { panic!("{id} does not read its own text {text:?}") };
            assert!((0.0..=1.0).contains(&read), "{id}: {text:?} reads as {read}");
            assert_eq!(both_ways(param, read).0, text, "{id}");
        }
    }
}

#[test]
fn texts_are_what_people_write() {
    let params = params();
    let read = |param: ParamPtr, text: &str| unsafe { param.string_to_normalized_value(text) };
    assert_eq!(both_ways(params.note.as_ptr(), params.note.preview_normalized(Note::CSharp)).0, "C#");
    assert_eq!(read(params.note.as_ptr(), "off"), Some(0.0));
    assert_eq!(read(params.gain.as_ptr(), "-inf dB"), Some(0.0));
    assert_eq!(read(params.gain.as_ptr(), "+3.5"), read(params.gain.as_ptr(), "3.5 dB"));
    assert_eq!(read(params.top_k.as_ptr(), "all"), Some(0.0));
    assert_eq!(read(params.note_strength.as_ptr(), "-2"), Some(0.0), "beyond the range is its end");
    for nonsense in ["", "loud", "nan", "H"] {
        for (id, param, _) in params.param_map() {
            let value = read(param, nonsense);
            // A bool reads anything as off; nothing else may read nonsense at all.
            assert!(value.is_none() || id == "bypass", "{id} reads {nonsense:?} as {value:?}");
        }
    }
}

#[test]
fn values_survive_the_hosts_normalised_floats() {
    let params = params();
    for param in [
        &params.note_strength,
        &params.chord_strength,
        &params.tempo_strength,
        &params.trait_1_strength,
        &params.trait_4_strength,
        &params.attack,
        &params.release,
        &params.strength,
        &params.temperature,
        &params.guidance,
        &params.gain,
    ] {
        let default = param.default_plain_value();
        assert_eq!(param.preview_plain(param.preview_normalized(default)), default, "{}", param.name());
    }
    assert_eq!(params.note_strength.preview_plain(0.5), 0.0);
    assert_eq!(params.linear_gain(), 1.0);
    for seed in 0..=9999 {
        assert_eq!(params.seed.preview_plain(params.seed.preview_normalized(seed)), seed);
    }
}

#[test]
fn what_cannot_be_drawn_on_the_timeline() {
    let params = params();
    for (id, param, _) in params.param_map() {
        let flags = unsafe { param.flags() };
        let fixed = ["late", "latency", "latency_frames"].contains(&id.as_str());
        assert_eq!(flags.contains(ParamFlags::NON_AUTOMATABLE), fixed, "{id}");
        assert_eq!(flags.contains(ParamFlags::BYPASS), id == "bypass", "{id}");
    }
}

#[test]
fn every_parameter_has_a_group_and_keeps_its_place() {
    let params = Arc::new(params());
    let grouped = groups::GroupedParams(params.clone());
    let (plain, seen) = (params.param_map(), grouped.param_map());
    assert_eq!(plain.len(), seen.len());
    for ((id, param, _), (seen_id, seen_param, group)) in plain.iter().zip(&seen) {
        assert_eq!((id, param), (seen_id, seen_param));
        assert!(!group.is_empty() && group == groups::group_of(id), "{id} stands in {group:?}");
    }
    assert_eq!(grouped.serialize_fields(), params.serialize_fields());
}
