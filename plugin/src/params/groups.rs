//! How hosts group the parameters: units of VST3, modules of CLAP. Groups may change; ids may not.

use std::collections::BTreeMap;
use std::sync::Arc;

use nice_plug::prelude::{ParamPtr, Params};

use crate::params::TillerParams;

/// The parameters as a host sees them.
pub struct GroupedParams(pub Arc<TillerParams>);

/// The group of a parameter; empty for what stands alone.
pub fn group_of(id: &str) -> &'static str {
    match id {
        "note" | "note_strength" => "Note",
        "chord_root" | "chord_quality" | "chord_strength" => "Chord",
        "tempo_strength" => "Tempo",
        "trait_1_strength" | "trait_2_strength" | "trait_3_strength" | "trait_4_strength" => "Traits",
        "strength" | "attack" | "release" | "quantise" => "Steering",
        "temperature" | "guidance" | "top_k" | "seed" => "Sampling",
        "run" | "late" | "latency" | "latency_frames" => "Time",
        "gain" | "bypass" => "Output",
        _ => "",
    }
}

// SAFETY: the pointers are those of the parameters that the `Arc` keeps alive.
unsafe impl Params for GroupedParams {
    fn param_map(&self) -> Vec<(String, ParamPtr, String)> {
        let grouped = |(id, param, _): (String, ParamPtr, String)| {
            let group = group_of(&id).to_owned();
            (id, param, group)
        };
        self.0.param_map().into_iter().map(grouped).collect()
    }

    fn serialize_fields(&self) -> BTreeMap<String, String> {
        self.0.serialize_fields()
    }

    fn deserialize_fields(&self, serialized: &BTreeMap<String, String>) {
        self.0.deserialize_fields(serialized);
    }
}
