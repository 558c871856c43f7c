//! Presets as `.vstpreset` files, for the preset lists of VST3 hosts, in Steinberg's layout: a header, the component's state, a
//! list of chunks. The state is what our own `getState` writes, of the parameters that a preset says; the rest of a session
//! (model, MIDI map, latency) stays as it is when a host loads one. Never on the audio thread.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use nice_plug::plugin::{ParamValue, PluginState};
use nice_plug::prelude::{ParamPtr, Params, Plugin, Vst3Plugin};
use tiller_engine::whole_file;

use crate::Tiller;
use crate::params::TillerParams;
use crate::presets::{Preset, PresetError, Visitor};
use crate::state::document;

/// Extension of the files.
pub const EXTENSION: &str = "vstpreset";

/// Of the header: "VST3", version, class id, place of the list.
const HEADER: usize = 4 + 4 + 32 + 8;

/// Where VST3 hosts look for one user's presets of this instrument ("Preset Locations" of the VST3 SDK). `None` without a home.
pub fn user_folder() -> Option<PathBuf> {
    let variable = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let home = PathBuf::from(std::env::var_os(variable).filter(|home| !home.is_empty())?);
    let presets = if cfg!(target_os = "macos") {
        home.join("Library/Audio/Presets")
    } else if cfg!(windows) {
        home.join("Documents/VST3 Presets")
    } else {
        home.join(".vst3/presets")
    };
    Some(presets.join(Tiller::VENDOR).join(Tiller::NAME))
}

/// The ids of the parameters that a preset says.
struct Ids(Vec<&'static str>);

impl Visitor for Ids {
    fn param<P: nice_plug::prelude::Param>(&mut self, id: &'static str, _param: &P) {
        self.0.push(id);
    }
}

/// A parameter as nice-plug stores it.
fn stored(param: ParamPtr) -> ParamValue {
    // SAFETY: the caller holds the parameters.
    unsafe {
        match param {
            ParamPtr::FloatParam(own) => ParamValue::F32(nice_plug::prelude::Param::unmodulated_plain_value(&*own)),
            ParamPtr::IntParam(own) => ParamValue::I32(nice_plug::prelude::Param::unmodulated_plain_value(&*own)),
            ParamPtr::BoolParam(own) => ParamValue::Bool(nice_plug::prelude::Param::unmodulated_plain_value(&*own)),
            ParamPtr::EnumParam(own) => match (*own).unmodulated_plain_id() {
                Some(id) => ParamValue::String(id.to_owned()),
                None => ParamValue::I32(nice_plug::prelude::Param::unmodulated_plain_value(&*own)),
            },
        }
    }
}

/// The component's state.
fn state(preset: &Preset, params: &TillerParams) -> Vec<u8> {
    let mut ids = Ids(Vec::new());
    params.sounding(&mut ids);
    let told = params.param_map().into_iter().filter(|(id, ..)| ids.0.contains(&id.as_str()));
    let values = told.map(|(id, param, _)| (id, stored(param))).collect();
    let document = document::of_preset(&preset.name, &preset.prompt);
    let field = serde_json::Value::String(document).to_string();
    let state = PluginState {
        version: Tiller::VERSION.to_owned(),
        params: values,
        fields: BTreeMap::from([("project".to_owned(), field)]),
    };
    serde_json::to_vec(&state).unwrap_or_default()
}

/// The file.
///
/// # Errors
/// [`PresetError::Value`] or [`PresetError::Foreign`] when the preset cannot be.
pub fn to_bytes(preset: &Preset) -> Result<Vec<u8>, PresetError> {
    let params = preset.params()?;
    let state = state(preset, &params);
    let mut file = b"VST3".to_vec();
    file.extend(1_i32.to_le_bytes());
    file.extend(Tiller::VST3_CLASS_ID.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()));
    file.extend(((HEADER + state.len()) as i64).to_le_bytes());
    file.extend(&state);
    file.extend(b"List");
    file.extend(1_i32.to_le_bytes());
    file.extend(b"Comp");
    file.extend((HEADER as i64).to_le_bytes());
    file.extend((state.len() as i64).to_le_bytes());
    Ok(file)
}

/// Writes a preset's file into a folder; `own` marks one of the user's that has the name of a factory preset.
///
/// # Errors
/// As [`to_bytes`], and [`PresetError::Io`].
pub fn write(folder: &Path, preset: &Preset, own: bool) -> Result<PathBuf, PresetError> {
    let taken = own && Preset::factory().iter().any(|factory| factory.name == preset.name);
    let name = if taken { format!("{} (own)", preset.name) } else { preset.name.clone() };
    let path = folder.join(format!("{name}.{EXTENSION}"));
    let bytes = to_bytes(preset)?;
    let failed = |source: io::Error| PresetError::Io { file: path.display().to_string(), what: "written", source };
    whole_file::write(&path, bytes).map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::fs;

    /// The chunk list read as a host reads it: from the place that the header names.
    fn chunks(file: &[u8]) -> Vec<(String, &[u8])> {
        let long = |at: usize| i64::from_le_bytes(file[at..at + 8].try_into().unwrap_or_default()) as usize;
        let list = long(40);
        assert_eq!(&file[list..list + 4], b"List");
        let count = i32::from_le_bytes(file[list + 4..list + 8].try_into().unwrap_or_default()) as usize;
        assert_eq!(file.len(), list + 8 + 20 * count, "nothing follows the list");
        let entry = |at: usize| {
            (String::from_utf8_lossy(&file[at..at + 4]).into_owned(), &file[long(at + 4)..long(at + 4) + long(at + 12)])
        };
        (0..count).map(|index| entry(list + 8 + 20 * index)).collect()
    }

    #[test]
    fn a_file_has_steinbergs_layout() {
        let preset = Preset::factory().swap_remove(2);
        let file = to_bytes(&preset).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&file[..8], b"VST3\x01\0\0\0");
        assert_eq!(&file[8..40], b"54696C6C657253746565727347656E31");
        let chunks = chunks(&file);
        assert_eq!(chunks.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["Comp"]);
        let state: Value = serde_json::from_slice(chunks[0].1).unwrap_or_default();
        assert_eq!(state["params"]["chord_root"], serde_json::json!({ "string": "f" }));
        assert!(state["params"].get("gain").is_none(), "gain is the session's");
        assert!(state["fields"]["project"].as_str().is_some_and(|text| text.contains("vibraphone")), "{state}");
    }

    #[test]
    fn the_users_own_never_takes_a_factory_presets_file() {
        let folder = std::env::temp_dir().join(format!("tiller-vstpreset-{}", std::process::id()));
        let preset = Preset::factory().swap_remove(0);
        let paths = [false, true].map(|own| write(&folder, &preset, own).unwrap_or_else(|error| panic!("{error}")));
        let names = paths.each_ref().map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        assert_eq!(names, [Some("Still Water.vstpreset".into()), Some("Still Water (own).vstpreset".into())]);
        assert!(fs::remove_dir_all(folder).is_ok());
    }
}
