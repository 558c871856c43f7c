//! What the user said about models, in a small file among their settings: folders of their own, licences they accepted. Any
//! thread but the audio thread's.

use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ModelsError;
use crate::user_folders;
use crate::whole_file;

/// Longest file that is believed, in bytes.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Remembered {
    /// The newest last.
    pub folders: Vec<PathBuf>,
    /// "licence repository".
    pub licences: Vec<String>,
}

fn file() -> PathBuf {
    user_folders::config().join("models.json")
}

pub(super) fn read() -> Remembered {
    let file = file();
    if fs::metadata(&file).is_ok_and(|found| found.len() > MOST_BYTES) {
        return Remembered::default();
    }
    serde_json::from_str(&fs::read_to_string(file).unwrap_or_default()).unwrap_or_default()
}

/// Changes it.
pub(super) fn change(by: impl FnOnce(&mut Remembered)) -> Result<(), ModelsError> {
    /// Two editors of one process do not lose each other's changes.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let (file, mut remembered) = (file(), read());
    by(&mut remembered);
    let text = serde_json::to_string_pretty(&remembered).unwrap_or_default() + "\n";
    whole_file::write(&file, text).map_err(ModelsError::disk(&file))
}

/// The user's own folders that the list shows.
pub fn remembered_folders() -> Vec<PathBuf> {
    read().folders
}

/// Has the list show a folder from now on.
///
/// # Errors
/// The user's settings cannot be written.
pub fn remember_folder(folder: &Path) -> Result<(), ModelsError> {
    change(|own| {
        own.folders.retain(|other| other != folder);
        own.folders.push(folder.to_owned());
    })
}

/// Has the list no longer show a folder. What is in it stays.
///
/// # Errors
/// The user's settings cannot be written.
pub fn forget_folder(folder: &Path) -> Result<(), ModelsError> {
    change(|own| own.folders.retain(|other| other != folder))
}
