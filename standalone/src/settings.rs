//! The chosen devices as they are remembered: a few fields of a small file of the user's. Main and control threads.

use nice_plug::prelude::PluginState;
use serde_json::{Value, json};
use tiller::editor::devices::{Chosen, Midi, Output};
use tiller::preferences::Preferences;
use tiller_engine::user_folders;

/// The file.
pub fn file() -> Preferences {
    Preferences::at(user_folders::config().join("standalone.json"))
}

/// What was chosen last; the system's own choice where nothing was, or where it makes no sense.
pub fn chosen(file: &Preferences) -> Chosen {
    let number = |key: &str| file.get(key)?.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|n| *n > 0);
    Chosen {
        output: match file.get("output") {
            Some(Value::Bool(false)) => Output::None,
            Some(Value::String(name)) => Output::Device(name),
            _ => Output::Default,
        },
        rate: number("rate"),
        block: number("block"),
        midi: match file.get("midi") {
            Some(Value::Bool(false)) => Midi::None,
            Some(Value::String(name)) => Midi::Input(name),
            _ => Midi::All,
        },
    }
}

/// Remembers a choice.
///
/// # Errors
/// The file cannot be written.
pub fn remember(file: &Preferences, chosen: &Chosen) -> std::io::Result<()> {
    let output = match &chosen.output {
        Output::Default => Value::Null,
        Output::None => json!(false),
        Output::Device(name) => json!(name),
    };
    let midi = match &chosen.midi {
        Midi::All => Value::Null,
        Midi::None => json!(false),
        Midi::Input(name) => json!(name),
    };
    let fields = [("output", output), ("rate", json!(chosen.rate)), ("block", json!(chosen.block)), ("midi", midi)];
    fields.into_iter().try_for_each(|(key, value)| file.set(key, value))
}

/// What the instrument was set to when the application ended.
pub fn session(file: &Preferences) -> Option<PluginState> {
    serde_json::from_value(file.get("session")?).ok()
}

/// Remembers what the instrument is set to.
///
/// # Errors
/// The file cannot be written.
pub fn remember_session(file: &Preferences, state: &PluginState) -> std::io::Result<()> {
    file.set("session", serde_json::to_value(state)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_comes_back() {
        let folder = std::env::temp_dir().join(format!("tiller-devices-{}", std::process::id()));
        let file = Preferences::at(folder.join("standalone.json"));
        assert_eq!(chosen(&file), Chosen::default());
        let named = Chosen {
            output: Output::Device("Card, \"one\"".into()),
            rate: Some(48_000),
            block: Some(256),
            midi: Midi::Input("Keys".into()),
        };
        let nothing = Chosen { output: Output::None, midi: Midi::None, ..Chosen::default() };
        for choice in [named, nothing, Chosen::default()] {
            assert!(remember(&file, &choice).is_ok());
            assert_eq!(chosen(&file), choice);
        }
        assert!(std::fs::remove_dir_all(folder).is_ok());
    }
}
