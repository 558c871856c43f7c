//! A saved plugin state taken apart and put together again: the length and JSON that nice-plug writes for CLAP, and
//! Tiller's own project document inside it.

use serde_json::Value;

use crate::host::Outcome;

/// A state with its project document open for changes.
pub struct Project {
    state: Value,
    /// The project document: prompt, model, directions.
    pub document: Value,
}

impl Project {
    /// Opens what `Host::save` gave.
    pub fn open(bytes: &[u8]) -> Outcome<Self> {
        let json = bytes.get(8..).ok_or("the state is shorter than its length field")?;
        let state: Value = serde_json::from_slice(json).map_err(|e| format!("the state is no JSON: {e}"))?;
        let field = state["fields"]["project"].as_str().ok_or("the state has no project field")?;
        // nice-plug stores each field as JSON; ours is a string that holds the document.
        let text: String = serde_json::from_str(field).map_err(|e| format!("the project field is no string: {e}"))?;
        let document = serde_json::from_str(&text).map_err(|e| format!("the project is no JSON: {e}"))?;
        Ok(Self { state, document })
    }

    /// The bytes for `Host::restore`.
    pub fn close(mut self) -> Outcome<Vec<u8>> {
        let text = Value::String(self.document.to_string()).to_string();
        self.state["fields"]["project"] = Value::String(text);
        let json = serde_json::to_vec(&self.state).map_err(|e| e.to_string())?;
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        Ok(bytes)
    }

    /// The prompt.
    pub fn prompt(&self) -> Outcome<&str> {
        self.document["prompt"].as_str().ok_or_else(|| "the project has no prompt".to_owned())
    }
}
