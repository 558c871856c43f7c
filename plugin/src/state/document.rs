//! The project document: what a saved song knows about Tiller beside its parameters, as versioned JSON. Nothing that a
//! file says is lost: what this version cannot use is kept and written back.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tiller_engine::backend::Device;
use tiller_engine::control::TRAITS;
use tiller_engine::precision::Precision;
use tiller_engine::steering::trait_files::TraitReference;

use crate::controllers::{Learnable, NUMBERS};

/// The version that this code writes.
pub const VERSION: u64 = 2;

/// The prompt of a new instance, worded as the embedded model learned them: mood, instrument, texture, tempo.
pub const DEFAULT_PROMPT: &str = "calm piano broken chords, slow";

/// Longest prompt that is kept, in characters; the text encoder reads far less.
pub const LONGEST_PROMPT: usize = 2_000;

/// Key of a document that says only a part of a project, and its value in a preset's.
const PART: &str = "part";
const PRESET: &str = "preset";

/// The document of a preset in a VST3 host's list: a project takes its prompt and keeps the rest.
pub fn of_preset(name: &str, prompt: &str) -> String {
    json!({ "version": VERSION, (PART): PRESET, "preset": name, "prompt": prompt }).to_string()
}

/// A file that the project refers to: by name for people, by hash for identity, by path for finding it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileReference {
    /// What the editor shows.
    pub name: String,
    /// SHA-256 of the file's weights in hex, or empty while unknown.
    pub hash: String,
    /// Directory or file. Empty means embedded in the plugin.
    pub path: String,
    /// Fields of newer versions.
    other: Map<String, Value>,
}

impl FileReference {
    /// A reference to `path`, named by its last component.
    pub fn to_path(path: &str) -> Self {
        let name = path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(path);
        Self { name: name.to_owned(), path: path.to_owned(), ..Self::default() }
    }

    /// A reference to a model's folder, by the name that people know it by: a hub's cache calls folders by numbers.
    pub fn to_model(name: &str, folder: &Path) -> Self {
        Self { name: name.to_owned(), path: folder.to_string_lossy().into_owned(), ..Self::default() }
    }

    /// A reference to a trait's directions file.
    pub fn to_trait(file: &TraitReference) -> Self {
        let path = file.path.to_string_lossy().into_owned();
        Self { name: file.name.clone(), hash: file.hash.clone(), path, other: Map::new() }
    }

    /// The same for the engine.
    pub fn trait_reference(&self) -> TraitReference {
        TraitReference { name: self.name.clone(), hash: self.hash.clone(), path: self.path.clone().into() }
    }

    fn from_value(value: &Value) -> Option<Self> {
        let mut other = value.as_object()?.clone();
        let mut text = |key: &str| match other.remove(key) {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text),
            Some(_) => None,
        };
        let (name, hash, path) = (text("name")?, text("hash")?, text("path")?);
        Some(Self { name, hash, path, other })
    }

    fn to_value(&self) -> Value {
        let mut object = self.other.clone();
        object.insert("name".into(), json!(self.name));
        object.insert("hash".into(), json!(self.hash));
        object.insert("path".into(), json!(self.path));
        Value::Object(object)
    }
}

/// What the project stores beside the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    version: u64,
    /// The text that the music follows.
    pub prompt: String,
    /// The checkpoint; `None` is the embedded one.
    pub model: Option<FileReference>,
    /// How exactly the model's weights are kept; `None` is what suits its size.
    pub precision: Option<Precision>,
    /// Where the model plays; a machine without that card says so and plays on the processor.
    pub device: Device,
    /// The directions file; `None` is the one that belongs to the checkpoint.
    pub directions: Option<FileReference>,
    /// Name of the preset that was loaded last, or empty.
    pub preset: String,
    /// Directions files of the trait lanes.
    pub traits: [Option<FileReference>; TRAITS],
    /// MIDI controllers and what they move.
    pub controllers: BTreeMap<u8, Learnable>,
    /// Targets of MIDI keys stay until other keys go down.
    pub latch: bool,
    /// Softly struck keys steer more weakly.
    pub velocity: bool,
    /// Logical width and height of the editor.
    pub window: Option<(u32, u32)>,
    /// Fields of newer versions, and under "unreadable" what could not be understood.
    other: Map<String, Value>,
}

impl Default for Project {
    fn default() -> Self {
        Self {
            version: VERSION,
            prompt: DEFAULT_PROMPT.to_owned(),
            model: None,
            precision: None,
            device: Device::Auto,
            directions: None,
            preset: String::new(),
            traits: [const { None }; TRAITS],
            controllers: BTreeMap::new(),
            latch: false,
            velocity: false,
            window: None,
            other: Map::new(),
        }
    }
}

impl Project {
    /// Reads a saved document. Fields that are missing take their defaults; fields that make no sense are set aside
    /// and reported in the second value, one sentence each.
    ///
    /// # Errors
    /// A sentence for the musician when `text` is no document at all.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let value = serde_json::from_str(text)
            .map_err(|error| format!("The project's Tiller data cannot be read ({error}). It is kept, not used."))?;
        let Value::Object(mut fields) = value else {
            return Err("The project's Tiller data is not a document. It is kept, not used.".to_owned());
        };
        let mut project = Self::default();
        let mut notes = Vec::new();
        let mut strange = Map::new();
        if let Some(value) = fields.remove("version") {
            match value.as_u64() {
                Some(version) if version > VERSION => {
                    project.version = version;
                    notes.push(format!(
                        "Saved by a newer Tiller (document {version}, this one writes {VERSION}): what it does not know \
                         is kept, not used."
                    ));
                }
                Some(_) => {}
                None => set_aside("version", value, &mut strange, &mut notes),
            }
        }
        if let Some(value) = fields.remove("prompt") {
            match value {
                Value::String(prompt) => project.prompt = prompt.chars().take(LONGEST_PROMPT).collect(),
                value => set_aside("prompt", value, &mut strange, &mut notes),
            }
        }
        if let Some(value) = fields.remove("preset") {
            match value {
                Value::String(name) => project.preset = name,
                value => set_aside("preset", value, &mut strange, &mut notes),
            }
        }
        for (key, place) in [("model", &mut project.model), ("directions", &mut project.directions)] {
            match fields.remove(key) {
                None | Some(Value::Null) => {}
                Some(value) => match FileReference::from_value(&value) {
                    Some(reference) => *place = Some(reference),
                    None => set_aside(key, value, &mut strange, &mut notes),
                },
            }
        }
        match fields.remove("traits") {
            None | Some(Value::Null) => {}
            Some(Value::Array(slots)) => {
                for (slot, value) in slots.into_iter().enumerate().filter(|(_, value)| !value.is_null()) {
                    match FileReference::from_value(&value).filter(|_| slot < TRAITS) {
                        Some(reference) => project.traits[slot] = Some(reference),
                        None => set_aside(&format!("traits.{}", slot + 1), value, &mut strange, &mut notes),
                    }
                }
            }
            Some(value) => set_aside("traits", value, &mut strange, &mut notes),
        }
        match fields.remove("precision") {
            None | Some(Value::Null) => {}
            Some(value) => match value.as_str().and_then(|name| name.parse().ok()) {
                Some(precision) => project.precision = Some(precision),
                None => set_aside("precision", value, &mut strange, &mut notes),
            },
        }
        match fields.remove("device") {
            None | Some(Value::Null) => {}
            Some(value) => match value.as_str().and_then(|name| name.parse().ok()) {
                Some(device) => project.device = device,
                None => set_aside("device", value, &mut strange, &mut notes),
            },
        }
        match fields.remove("controllers") {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (number, value) in entries {
                    let known = value.as_str().and_then(Learnable::of_id);
                    match number.parse::<u8>().ok().filter(|number| usize::from(*number) < NUMBERS).zip(known) {
                        Some((number, target)) => _ = project.controllers.insert(number, target),
                        None => set_aside(&format!("controllers.{number}"), value, &mut strange, &mut notes),
                    }
                }
            }
            Some(value) => set_aside("controllers", value, &mut strange, &mut notes),
        }
        for (key, place) in [("latch", &mut project.latch), ("velocity", &mut project.velocity)] {
            match fields.remove(key) {
                None | Some(Value::Null) => {}
                Some(Value::Bool(on)) => *place = on,
                Some(value) => set_aside(key, value, &mut strange, &mut notes),
            }
        }
        match fields.remove("window") {
            None | Some(Value::Null) => {}
            Some(value) => match read_size(&value) {
                Some(size) => project.window = Some(size),
                None => set_aside("window", value, &mut strange, &mut notes),
            },
        }
        project.other = fields;
        for (key, value) in strange {
            project.keep_unreadable(&key, value);
        }
        Ok((project, notes))
    }

    /// Takes a document that a host hands over: a project's as a whole, of a preset's its name and prompt. Says what was strange.
    ///
    /// # Errors
    /// As [`Project::parse`]; nothing is changed then.
    pub fn take(&mut self, text: &str) -> Result<Vec<String>, String> {
        let (mut project, notes) = Self::parse(text)?;
        if project.other.remove(PART).is_some_and(|part| part == PRESET) {
            (self.preset, self.prompt) = (project.preset, project.prompt);
        } else {
            *self = project;
        }
        Ok(notes)
    }

    /// The document as it is saved: one line of JSON, the same for the same project.
    pub fn to_text(&self) -> String {
        let mut fields = self.other.clone();
        fields.insert("version".into(), json!(self.version));
        fields.insert("prompt".into(), json!(self.prompt));
        fields.insert("model".into(), self.model.as_ref().map_or(Value::Null, FileReference::to_value));
        fields.insert("directions".into(), self.directions.as_ref().map_or(Value::Null, FileReference::to_value));
        if !self.preset.is_empty() {
            fields.insert("preset".into(), json!(self.preset));
        }
        if self.traits.iter().any(Option::is_some) {
            let slot = |file: &Option<FileReference>| file.as_ref().map_or(Value::Null, FileReference::to_value);
            fields.insert("traits".into(), self.traits.iter().map(slot).collect());
        }
        if let Some(precision) = self.precision {
            fields.insert("precision".into(), json!(precision.name()));
        }
        if self.device != Device::Auto {
            fields.insert("device".into(), json!(self.device.to_string()));
        }
        if !self.controllers.is_empty() {
            let entries = self.controllers.iter().map(|(number, target)| (number.to_string(), json!(target.id())));
            fields.insert("controllers".into(), Value::Object(entries.collect()));
        }
        for (key, on) in [("latch", self.latch), ("velocity", self.velocity)] {
            if on {
                fields.insert(key.into(), json!(true));
            }
        }
        if let Some((width, height)) = self.window {
            fields.insert("window".into(), json!([width, height]));
        }
        Value::Object(fields).to_string()
    }

    /// Keeps a value that could not be used, so that the next save has it still.
    pub fn keep_unreadable(&mut self, key: &str, value: Value) {
        let kept = self.other.entry("unreadable").or_insert_with(|| json!({}));
        if !kept.is_object() {
            *kept = json!({ "unreadable": kept.clone() });
        }
        if let Some(kept) = kept.as_object_mut() {
            kept.insert(key.to_owned(), value);
        }
    }
}

fn set_aside(key: &str, value: Value, strange: &mut Map<String, Value>, notes: &mut Vec<String>) {
    notes.push(format!("The project's \"{key}\" makes no sense here: it is kept, not used."));
    strange.insert(key.to_owned(), value);
}

fn read_size(value: &Value) -> Option<(u32, u32)> {
    let [width, height] = value.as_array()?.as_slice() else { return None };
    let side = |value: &Value| value.as_u64().filter(|side| (100..=10_000).contains(side)).map(|side| side as u32);
    Some((side(width)?, side(height)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Project, Vec<String>) {
        Project::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let project = Project {
            prompt: "näyttö \"quoted\"\nline".into(),
            model: Some(FileReference::to_path("/models/musicgen-small/")),
            precision: Some(Precision::Int4),
            device: Device::Gpu(1),
            directions: Some(FileReference::to_path("C:\\d\\notes.safetensors")),
            preset: "Still Water".into(),
            traits: [None, Some(FileReference::to_path("/d/tiller-trait-bright.safetensors")), None, None],
            controllers: BTreeMap::from([(1, Learnable::Strength), (119, Learnable::Gain)]),
            latch: true,
            velocity: true,
            window: Some((900, 600)),
            ..Project::default()
        };
        assert_eq!(project.model.as_ref().map(|model| model.name.as_str()), Some("musicgen-small"));
        assert_eq!(read(&project.to_text()), (project, Vec::new()));
    }

    #[test]
    fn a_presets_document_changes_the_prompt_and_keeps_the_rest() {
        let (mut project, _) = read(r#"{"model":{"name":"m","path":"/m"},"latch":true,"prompt":"x","macros":[1]}"#);
        let before = project.clone();
        assert_eq!(project.take(&of_preset("Campfire", "guitar")), Ok(Vec::new()));
        assert_eq!((project.prompt.as_str(), project.preset.as_str()), ("guitar", "Campfire"));
        assert_eq!(Project { prompt: before.prompt.clone(), preset: String::new(), ..project.clone() }, before);
        assert!(project.take("{").is_err() && project.prompt == "guitar");
        assert_eq!(project.take(r#"{"version":1,"prompt":"y"}"#), Ok(Vec::new()));
        assert_eq!(project, Project { prompt: "y".into(), ..Project::default() });
    }

    #[test]
    fn newer_documents_keep_their_version_and_fields() {
        let text = r#"{"version":7,"prompt":"x","model":{"name":"m","path":"/m","licence":"y"},"macros":[1,{"a":2}]}"#;
        let (mut project, notes) = read(text);
        assert_eq!(notes.len(), 1);
        project.prompt = "changed".into();
        let saved: Value = serde_json::from_str(&project.to_text()).unwrap_or_default();
        assert_eq!(saved["version"], 7);
        assert_eq!(saved["macros"], json!([1, {"a": 2}]));
        assert_eq!(saved["model"]["licence"], "y");
        assert_eq!(saved["prompt"], "changed");
    }

    #[test]
    fn nonsense_is_kept_and_the_rest_is_used() {
        let (project, notes) = read(
            r#"{"version":"one","prompt":5,"model":{"path":[]},"window":[0,1],"precision":"int2","device":"toaster","directions":null}"#,
        );
        assert_eq!((notes.len(), project.precision, project.device), (6, None, Device::Auto));
        assert_eq!((project.prompt.as_str(), project.model.is_none(), project.window), (DEFAULT_PROMPT, true, None));
        let saved: Value = serde_json::from_str(&project.to_text()).unwrap_or_default();
        assert_eq!(
            saved["unreadable"],
            json!({
                "version": "one", "prompt": 5, "model": {"path": []}, "window": [0, 1], "precision": "int2",
                "device": "toaster"
            })
        );
        let (project, notes) = read(r#"{"controllers":{"7":"gain","120":"gain","x":"gain","8":"loudness"}}"#);
        assert_eq!((project.controllers, notes.len()), (BTreeMap::from([(7, Learnable::Gain)]), 3));
        let (project, notes) = read(r#"{"traits":[null,{"name":"a","hash":"b","path":"/c"},7,null,{"name":"fifth"}]}"#);
        assert_eq!(
            project.traits.each_ref().map(|file| file.as_ref().map(|file| file.name.as_str())),
            [None, Some("a"), None, None]
        );
        assert_eq!(notes.len(), 2, "{notes:?}");
        let saved: Value = serde_json::from_str(&project.to_text()).unwrap_or_default();
        assert_eq!(saved["unreadable"], json!({ "traits.3": 7, "traits.5": { "name": "fifth" } }));
        assert!(Project::parse("[]").is_err());
        assert!(Project::parse("{\"prompt\":").is_err());
    }
}
