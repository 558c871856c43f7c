//! Presets: a prompt and what the sounding parameters say, as a small JSON document that people can read, share and edit.
//! The factory's are compiled in, a musician's own are files. Never on the audio thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nice_plug::prelude::Param;
use serde::{Deserialize, Serialize};
use tiller_engine::user_folders;
use tiller_engine::whole_file;

use crate::params::TillerParams;
use crate::state::document::LONGEST_PROMPT;
use crate::state::{ProjectField, ProjectStore};
use crate::vst_preset;

/// What every preset says that it is.
const FORMAT: &str = "tiller-preset";

/// The version that this code writes.
const VERSION: u32 = 1;

/// A preset beyond this is none: bytes.
const LARGEST: u64 = 64 * 1024;

/// Extension of preset files.
const EXTENSION: &str = "tiller-preset";

/// Why a preset was not used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// The file cannot be read or written.
    #[error("The preset {file} cannot be {what}: {source}.")]
    Io { file: String, what: &'static str, source: io::Error },
    /// The bytes are no preset.
    #[error("{file} is no Tiller preset ({why}).")]
    Foreign { file: String, why: String },
    /// It was made by a later version.
    #[error("The preset {file} was made by a newer Tiller (version {found}, this one reads {VERSION}).")]
    Newer { file: String, found: u32 },
    /// A value makes no sense.
    #[error("The preset {file} sets {parameter} to \"{value}\", which it cannot be.")]
    Value { file: String, parameter: String, value: String },
    /// The name cannot be a file's.
    #[error("\"{0}\" cannot be a preset's name: use up to 60 letters, digits, spaces, - and _.")]
    Name(String),
}

/// A prompt and parameters. Those that it does not name are at their defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    format: String,
    version: u32,
    /// What musicians read.
    pub name: String,
    /// The text that the music follows.
    pub prompt: String,
    /// Parameters by id, as their texts.
    parameters: BTreeMap<String, String>,
}

/// Something done to each of the parameters that a preset holds.
pub trait Visitor {
    /// One of them.
    fn param<P: Param>(&mut self, id: &'static str, param: &P);
}

impl TillerParams {
    /// The parameters that say what is played; how loudly, when and how late is the session's business.
    pub fn sounding(&self, visitor: &mut impl Visitor) {
        visitor.param("note", &self.note);
        visitor.param("note_strength", &self.note_strength);
        visitor.param("chord_root", &self.chord_root);
        visitor.param("chord_quality", &self.chord_quality);
        visitor.param("chord_strength", &self.chord_strength);
        visitor.param("tempo_strength", &self.tempo_strength);
        visitor.param("trait_1_strength", &self.trait_1_strength);
        visitor.param("trait_2_strength", &self.trait_2_strength);
        visitor.param("trait_3_strength", &self.trait_3_strength);
        visitor.param("trait_4_strength", &self.trait_4_strength);
        visitor.param("strength", &self.strength);
        visitor.param("attack", &self.attack);
        visitor.param("release", &self.release);
        visitor.param("temperature", &self.temperature);
        visitor.param("guidance", &self.guidance);
        visitor.param("top_k", &self.top_k);
        visitor.param("seed", &self.seed);
        visitor.param("quantise", &self.quantise);
    }
}

/// Reads what is not at its default.
struct Reader(BTreeMap<String, String>);

impl Visitor for Reader {
    fn param<P: Param>(&mut self, id: &'static str, param: &P) {
        let now = param.unmodulated_normalized_value();
        if now != param.default_normalized_value() {
            self.0.insert(id.to_owned(), param.normalized_value_to_string(now, true));
        }
    }
}

/// Finds out whether every value can be had.
struct Checker<'a> {
    left: BTreeMap<&'a str, &'a str>,
    refused: Option<(&'static str, &'a str)>,
}

impl Visitor for Checker<'_> {
    fn param<P: Param>(&mut self, id: &'static str, param: &P) {
        let Some(text) = self.left.remove(id) else { return };
        if param.string_to_normalized_value(text).is_none() {
            self.refused.get_or_insert((id, text));
        }
    }
}

/// Sets values through whatever the host gives.
struct Setter<'a, S> {
    values: &'a BTreeMap<String, String>,
    set: S,
}

/// Parameters that no host knows.
struct Unhosted;

impl Set for Unhosted {
    fn set<P: Param>(&mut self, param: &P, normalized: f32) {
        // SAFETY: the pointer is used while the parameter is borrowed.
        unsafe { param.as_ptr()._internal_set_normalized_value(normalized) };
    }
}

/// How a parameter is set: as one gesture, to a normalised value.
pub trait Set {
    /// Sets it.
    fn set<P: Param>(&mut self, param: &P, normalized: f32);
}

impl<S: Set> Visitor for Setter<'_, S> {
    fn param<P: Param>(&mut self, id: &'static str, param: &P) {
        let given = self.values.get(id).and_then(|text| param.string_to_normalized_value(text));
        let wanted = given.unwrap_or_else(|| param.default_normalized_value());
        if wanted != param.unmodulated_normalized_value() {
            self.set.set(param, wanted);
        }
    }
}

impl Preset {
    /// What the instrument plays now.
    ///
    /// # Errors
    /// [`PresetError::Name`].
    pub fn of(name: &str, prompt: &str, params: &TillerParams) -> Result<Self, PresetError> {
        let name = name.trim();
        if !is_name(name) {
            return Err(PresetError::Name(name.to_owned()));
        }
        let mut reader = Reader(BTreeMap::new());
        params.sounding(&mut reader);
        let (format, parameters) = (FORMAT.to_owned(), reader.0);
        Ok(Self { format, version: VERSION, name: name.to_owned(), prompt: prompt.to_owned(), parameters })
    }

    /// Those that are compiled in.
    pub fn factory() -> Vec<Self> {
        serde_json::from_str(include_str!("../presets/factory.json")).unwrap_or_default()
    }

    /// Reads a document; `file` names it in errors.
    ///
    /// # Errors
    /// [`PresetError`]; values are looked at when it is applied.
    pub fn parse(text: &str, file: &str) -> Result<Self, PresetError> {
        let foreign = |why: String| PresetError::Foreign { file: file.to_owned(), why };
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| foreign(error.to_string()))?;
        if value["format"] != FORMAT {
            return Err(foreign(format!("its format is not \"{FORMAT}\"")));
        }
        match value["version"].as_u64() {
            Some(version) if version > u64::from(VERSION) => {
                return Err(PresetError::Newer {
                    file: file.to_owned(),
                    found: version.min(u64::from(u32::MAX)) as u32,
                });
            }
            _ => {}
        }
        let preset: Self = serde_json::from_value(value).map_err(|error| foreign(error.to_string()))?;
        // A file's name is made of it when the preset is kept.
        if !is_name(&preset.name) {
            return Err(foreign("its name is none that a preset can have".to_owned()));
        }
        if preset.prompt.chars().count() > LONGEST_PROMPT {
            return Err(foreign(format!("its prompt is longer than {LONGEST_PROMPT} characters")));
        }
        Ok(preset)
    }

    /// The document.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Parameters of their own that stand as the preset says.
    ///
    /// # Errors
    /// As [`Preset::apply`].
    pub fn params(&self) -> Result<TillerParams, PresetError> {
        let params = TillerParams::new(ProjectField(Arc::new(ProjectStore::new(|_| {}))));
        self.apply(&params, Unhosted)?;
        Ok(params)
    }

    /// Sets every sounding parameter through `set`, or none.
    ///
    /// # Errors
    /// [`PresetError::Value`] or [`PresetError::Foreign`], before anything is changed.
    pub fn apply(&self, params: &TillerParams, set: impl Set) -> Result<(), PresetError> {
        let left = self.parameters.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        let mut checker = Checker { left, refused: None };
        params.sounding(&mut checker);
        if let Some((parameter, value)) = checker.refused {
            let (parameter, value) = (parameter.to_owned(), value.to_owned());
            return Err(PresetError::Value { file: self.name.clone(), parameter, value });
        }
        if let Some(unknown) = checker.left.keys().next() {
            let why = format!("there is no parameter \"{unknown}\" for a preset to set");
            return Err(PresetError::Foreign { file: self.name.clone(), why });
        }
        params.sounding(&mut Setter { values: &self.parameters, set });
        Ok(())
    }
}

/// Whether a preset can be called so: a name that is no path and no file's but its own, on any system.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    let length = name.chars().count();
    (1..=60).contains(&length) && name.chars().all(fits) && name.trim() == name
}

/// A folder of preset files.
pub struct PresetFolder {
    folder: PathBuf,
    /// Where VST3 hosts find the same presets.
    for_hosts: Option<PathBuf>,
}

impl PresetFolder {
    /// The user's: by XDG, or where the system keeps what applications remember.
    pub fn user() -> Self {
        Self { folder: user_folders::data().join("presets"), for_hosts: vst_preset::user_folder() }
    }

    /// Any folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, for_hosts: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Its presets by name, and a sentence for each file that is none.
    pub fn read(&self) -> (Vec<Preset>, Vec<String>) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Default::default() };
        let (mut presets, mut notes) = (Vec::new(), Vec::new());
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            match read_file(&path) {
                Ok(preset) => presets.push(preset),
                Err(error) => notes.push(error.to_string()),
            }
        }
        presets.sort_by(|a, b| a.name.cmp(&b.name));
        notes.sort();
        (presets, notes)
    }

    /// Writes a preset, in place of one with its name. Of the user's own, VST3 hosts get a copy in their format.
    ///
    /// # Errors
    /// [`PresetError::Io`].
    pub fn write(&self, preset: &Preset) -> Result<PathBuf, PresetError> {
        let path = self.folder.join(format!("{}.{EXTENSION}", preset.name));
        let failed = |source| PresetError::Io { file: path.display().to_string(), what: "written", source };
        whole_file::write(&path, preset.to_text()).map_err(failed)?;
        // The preset is saved; a host's list that lacks it is no reason to say otherwise.
        if let Some(Err(error)) = self.for_hosts.as_deref().map(|folder| vst_preset::write(folder, preset, true)) {
            log::warn!("{error}");
        }
        Ok(path)
    }
}

/// Reads a preset file.
///
/// # Errors
/// [`PresetError`].
pub fn read_file(path: &Path) -> Result<Preset, PresetError> {
    let file = path.display().to_string();
    let failed = |source| PresetError::Io { file: file.clone(), what: "read", source };
    if fs::metadata(path).map_err(failed)?.len() > LARGEST {
        return Err(PresetError::Foreign { file, why: format!("it is larger than {LARGEST} bytes") });
    }
    Preset::parse(&fs::read_to_string(path).map_err(failed)?, &file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ProjectField, ProjectStore};
    use nice_plug::prelude::Params;
    use std::sync::Arc;

    /// Sets parameters directly, as a host would after the gesture.
    struct Direct<'a>(&'a TillerParams);

    impl Set for Direct<'_> {
        fn set<P: Param>(&mut self, param: &P, normalized: f32) {
            let found = self.0.param_map().into_iter().find(|(_, own, _)| *own == param.as_ptr());
            let Some((_, own, _)) = found else { panic!("{} is no parameter", param.name()) };
            // SAFETY: the parameters outlive the pointer.
            unsafe { own._internal_set_normalized_value(normalized) };
        }
    }

    fn params() -> TillerParams {
        TillerParams::new(ProjectField(Arc::new(ProjectStore::new(|_| {}))))
    }

    fn apply(preset: &Preset, params: &TillerParams) -> Result<(), String> {
        preset.apply(params, Direct(params)).map_err(|error| error.to_string())
    }

    fn values(params: &TillerParams) -> BTreeMap<String, String> {
        let mut reader = Reader(BTreeMap::new());
        params.sounding(&mut reader);
        reader.0
    }

    #[test]
    fn the_factory_has_a_dozen_that_differ_and_every_one_applies() {
        let factory = Preset::factory();
        assert!(factory.len() >= 12);
        let mut names: Vec<&str> = factory.iter().map(|preset| preset.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), factory.len());
        let params = params();
        for preset in &factory {
            assert_eq!(apply(preset, &params), Ok(()), "{}", preset.name);
            assert_eq!(Preset::parse(&preset.to_text(), "itself").ok().as_ref(), Some(preset));
            for (id, text) in &preset.parameters {
                // What it says is what the parameter then says; values at their defaults are not told.
                assert!(values(&params).get(id).is_none_or(|now| now == text), "{}: {id} {text}", preset.name);
            }
        }
    }

    #[test]
    fn what_was_saved_comes_back_and_the_rest_is_at_its_default() {
        let (first, second) = (params(), params());
        let made = Preset::factory().swap_remove(0);
        assert_eq!(apply(&made, &first), Ok(()));
        let Ok(saved) = Preset::of("Mine", "flute", &first) else { panic!("a good name") };
        assert_eq!(apply(&Preset::factory()[5], &second), Ok(()));
        assert_eq!(apply(&saved, &second), Ok(()));
        assert_eq!(values(&second), values(&first));
        for name in ["", "  ", "../x", "a/b", "nul\0", &"x".repeat(61)] {
            assert!(matches!(Preset::of(name, "", &first), Err(PresetError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn broken_and_foreign_presets_are_named_and_change_nothing() {
        let read = |text: &str| match Preset::parse(text, "p.tiller-preset") {
            Ok(preset) => panic!("{preset:?}"),
            Err(error) => error.to_string(),
        };
        for text in ["", "{", "[]", "{}", r#"{"format":"other"}"#, r#"{"format":"tiller-preset","version":1}"#] {
            let said = read(text);
            assert!(said.contains("p.tiller-preset is no Tiller preset"), "{text}: {said}");
        }
        assert!(read(r#"{"format":"tiller-preset","version":9}"#).contains("newer Tiller (version 9"));
        let params = params();
        let before = values(&params);
        let mut preset = Preset::factory().swap_remove(0);
        preset.parameters.insert("seed".into(), "many".into());
        assert_eq!(
            apply(&preset, &params),
            Err("The preset Still Water sets seed to \"many\", which it cannot be.".into())
        );
        preset.parameters.insert("seed".into(), "5".into());
        preset.parameters.insert("gain".into(), "3".into());
        assert!(apply(&preset, &params).is_err_and(|why| why.contains("\"gain\"")));
        assert_eq!(values(&params), before);
    }

    #[test]
    fn a_folder_keeps_presets_and_says_what_is_none() {
        let folder = std::env::temp_dir().join(format!("tiller-presets-{}", std::process::id()));
        let presets = PresetFolder::new(folder.clone());
        assert_eq!(presets.read(), (Vec::new(), Vec::new()));
        let (params, mut made) = (params(), Vec::new());
        for name in ["Zither", "Alp horn", "Zither"] {
            let Ok(preset) = Preset::of(name, "flute", &params) else { panic!("a good name") };
            assert!(presets.write(&preset).is_ok());
            made.push(preset);
        }
        assert!(fs::write(folder.join("broken.tiller-preset"), "{").is_ok());
        assert!(fs::write(folder.join("huge.tiller-preset"), vec![b' '; LARGEST as usize + 1]).is_ok());
        assert!(fs::write(folder.join("notes.txt"), "{").is_ok());
        let (found, notes) = presets.read();
        assert_eq!(found, [made[1].clone(), made[0].clone()]);
        assert!(notes.len() == 2 && notes[0].contains("broken") && notes[1].contains("larger"), "{notes:?}");
        assert!(fs::remove_dir_all(folder).is_ok());
    }
}
