//! What was asked to be learned and is not done: a small file each in the user's data folder, so that a restart knows it. Any
//! thread but the audio thread's.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::work::{Effort, Order};
use crate::control::PitchClass;
use crate::dataset::concepts::Concept;
use crate::dataset::render::Tones;
use crate::handle::ModelSource;
use crate::steering::class_set::ClassSet;
use crate::user_folders;
use crate::whole_file;

const EXTENSION: &str = "json";

/// An order as its file has it; `None` is what is compiled in.
#[derive(Serialize, Deserialize)]
struct Written {
    checkpoint: Option<PathBuf>,
    concepts: Vec<String>,
    /// All of them in files of before they could be chosen.
    #[serde(default)]
    notes: Option<Vec<String>>,
    effort: Effort,
    soundfont: Option<PathBuf>,
}

fn folder() -> PathBuf {
    user_folders::data().join("learning")
}

/// What the files of a subject are called.
fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// There is one for each checkpoint.
fn name(source: &ModelSource) -> String {
    match source {
        ModelSource::Embedded => digest(&["embedded"]),
        ModelSource::Directory(path) => digest(&["directory", &path.to_string_lossy()]),
    }
}

/// Where a work keeps what it has heard and fitted, until it is done or cancelled.
pub fn working_folder(source: &ModelSource, what: &str) -> PathBuf {
    user_folders::cache().join("learning").join(digest(&[&name(source), what]))
}

/// Removes a work's folder.
pub fn clear(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => log::warn!("{} stays: {why}", folder.display()),
        _ => {}
    }
}

/// Keeps an order, in the place of another for the same checkpoint.
///
/// # Errors
/// The file, and what the system said.
pub fn remember(order: &Order) -> Result<(), (PathBuf, std::io::Error)> {
    let written = Written {
        checkpoint: match &order.source {
            ModelSource::Embedded => None,
            ModelSource::Directory(path) => Some(path.clone()),
        },
        concepts: order.concepts.iter().map(|concept| concept.name().to_owned()).collect(),
        notes: (order.notes != ClassSet::NOTES).then(|| {
            order
                .notes
                .iter()
                .filter_map(|class| PitchClass::new(class as u8))
                .map(|note| note.name().to_owned())
                .collect()
        }),
        effort: order.effort,
        soundfont: match &order.tones {
            Tones::BuiltIn => None,
            Tones::SoundFont(path) => Some(path.clone()),
        },
    };
    let path = folder().join(name(&order.source)).with_extension(EXTENSION);
    let bytes = serde_json::to_vec_pretty(&written).map_err(|error| (path.clone(), error.into()))?;
    whole_file::write(&path, bytes).map_err(|error| (path, error))
}

/// Removes an order's file: it is done, or not wanted any more.
pub fn forget(source: &ModelSource) {
    let path = folder().join(name(source)).with_extension(EXTENSION);
    match std::fs::remove_file(&path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => log::warn!("{} stays: {why}", path.display()),
        _ => {}
    }
}

/// Every order that is kept; files that are none are passed over.
pub fn remembered() -> Vec<Order> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return Vec::new() };
    let is_order = |path: &PathBuf| path.extension().is_some_and(|own| own == EXTENSION);
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_order).collect();
    paths.sort();
    paths.iter().filter_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Option<Order> {
    let written: Written = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let concepts = written.concepts.iter().map(|name| name.parse::<Concept>().ok()).collect::<Option<Vec<_>>>()?;
    let notes = match written.notes {
        None => ClassSet::NOTES,
        Some(names) => {
            let notes = names.iter().map(|name| name.parse::<PitchClass>().ok().map(PitchClass::index));
            notes.collect::<Option<ClassSet>>()?
        }
    };
    Some(Order {
        source: written.checkpoint.map_or(ModelSource::Embedded, ModelSource::Directory),
        concepts,
        notes,
        effort: written.effort,
        tones: written.soundfont.map_or(Tones::BuiltIn, Tones::SoundFont),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_before_notes_could_be_chosen_are_for_all() {
        let path = std::env::temp_dir().join(format!("tiller-order-{}.json", std::process::id()));
        let with = |notes: &str| {
            let text = format!(
                r#"{{"checkpoint": null, "concepts": ["notes"], {notes}"effort": "quick", "soundfont": null}}"#
            );
            std::fs::write(&path, text).expect("written");
            read(&path).map(|order| order.notes)
        };
        assert_eq!(with(""), Some(ClassSet::NOTES));
        assert_eq!(with(r#""notes": ["D", "A"], "#).map(ClassSet::notes).as_deref(), Some("D, A"));
        assert_eq!(with(r#""notes": ["H"], "#), None);
        std::fs::remove_file(path).expect("cleaned");
    }
}
