//! What the user told the editor once and for all, in a small file of the user's and never in a project. UI and main threads.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value};
use tiller_engine::user_folders;
use tiller_engine::whole_file;

/// A JSON object in a file. Fields of other versions are kept.
pub struct Preferences {
    file: PathBuf,
}

impl Preferences {
    /// Those of the editor, which all instances share.
    pub fn editor() -> Self {
        Self::at(user_folders::config().join("editor.json"))
    }

    /// Those in a file of the caller's.
    pub fn at(file: PathBuf) -> Self {
        Self { file }
    }

    /// A field; `None` where the file or the field is not there, or is unreadable.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.read().remove(key)
    }

    /// Sets a field. A file that cannot be read is replaced.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn set(&self, key: &str, value: Value) -> io::Result<()> {
        let mut fields = self.read();
        fields.insert(key.to_owned(), value);
        whole_file::write(&self.file, format!("{:#}\n", Value::Object(fields)))
    }

    fn read(&self) -> Map<String, Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_come_back_and_strangers_stay() {
        let folder = std::env::temp_dir().join(format!("tiller-preferences-{}", std::process::id()));
        let preferences = Preferences::at(folder.join("deep/editor.json"));
        assert_eq!(preferences.get("hint"), None);
        assert!(preferences.set("hint", json!(false)).is_ok());
        assert!(preferences.set("size", json!([1, 2])).is_ok());
        assert_eq!((preferences.get("hint"), preferences.get("size")), (Some(json!(false)), Some(json!([1, 2]))));
        assert!(fs::write(&preferences.file, "{broken").is_ok());
        assert_eq!(preferences.get("hint"), None);
        assert!(preferences.set("hint", json!(true)).is_ok());
        assert_eq!(preferences.get("hint"), Some(json!(true)));
        assert!(fs::remove_dir_all(folder).is_ok());
    }
}
