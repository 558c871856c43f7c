//! Checkpoints that a musician can choose: the embedded one, those in the Hugging Face cache on disk, folders of their own, and
//! the published ones that a hub would send. Any thread but the audio thread's; only [`download`] asks a server anything, and
//! only once it was begun.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::EngineError;
use crate::handle::ModelSource;
use crate::model::Model;
use crate::precision::Precision;

mod blob;
mod client;
pub mod download;
pub mod hub;
pub mod licence;
pub mod machine;
mod memory;
mod published;
mod remembered;
mod snapshot;
pub mod trial;
mod wire;

pub use hub::Hub;
pub use published::{PUBLISHED, Published};
pub use remembered::{forget_folder, remember_folder, remembered_folders};

use snapshot::Repository;

/// Most repositories of a cache that are looked into: the list is asked for by an editor.
const MOST_REPOSITORIES: usize = 512;

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Compiled in.
    Embedded,
    /// The Hugging Face cache, or the hub that it is a cache of.
    Hub,
    /// A folder of the user's own.
    Folder,
}

/// A checkpoint that can be chosen, or could be downloaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What people call it.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// How to load it; `None` while it is not on this machine, or not all of it.
    pub source: Option<ModelSource>,
    /// Which of the published ones it is, if it is one.
    pub published: Option<&'static Published>,
    /// Where it lies: the repository's folder in the cache, or the user's own folder.
    pub place: Option<PathBuf>,
    /// Bytes that are here of a download that was interrupted.
    pub partial_bytes: u64,
    /// Bytes that it takes on disk.
    pub disk_bytes: u64,
    /// Bytes of memory that one instance needs to play it on the processor, by precision; estimated from the configuration.
    pub memory: Vec<(Precision, u64)>,
    /// Why it cannot be played as it is, and what to do; `None` too when it is merely not here.
    pub problem: Option<String>,
}

/// What can go wrong with the models on a machine, in words for a musician.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The licence was not accepted.
    #[error("{name} comes under {}, which has not been accepted: read it and accept it, then download", licence::LICENCE.name)]
    Licence { name: String },
    /// What is to be removed is not a model of the cache.
    #[error("{name} is no model of the Hugging Face cache; only those are removed from here")]
    NotOfCache { name: String },
    /// A download writes there.
    #[error("{name} is being downloaded: cancel that first")]
    Busy { name: String },
    /// The operating system refuses.
    #[error("{}: {reason}; check that the folder is there and may be written", place.display())]
    Disk { place: PathBuf, reason: std::io::Error },
    /// No thread.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ModelsError {
    fn disk(place: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |reason| Self::Disk { place: place.to_owned(), reason }
    }
}

/// Everything that can be chosen, the embedded checkpoint first; then the published ones, here or not, what else of MusicGen is in
/// the cache, the remembered folders, and `folders`. Looks at the disk alone, at configurations and sizes, and at no weights.
pub fn list(folders: &[PathBuf]) -> Vec<Entry> {
    list_of(&Hub::from_env(), folders)
}

/// As [`list`], of this cache.
pub fn list_of(hub: &Hub, folders: &[PathBuf]) -> Vec<Entry> {
    let mut entries = vec![embedded()];
    for published in &PUBLISHED {
        let repository = Repository::of(hub, published.repository);
        entries.push(repository.entry(Some(published)));
    }
    let known = |name: &str| PUBLISHED.iter().any(|published| published.repository == name);
    for name in repositories(&hub.cache).into_iter().filter(|name| !known(name)) {
        let repository = Repository::of(hub, &name);
        // The cache is everybody's: most of what is in it is none of our business.
        if repository.is_musicgen() {
            entries.push(repository.entry(None));
        }
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    for folder in remembered_folders().iter().chain(folders) {
        let place = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let is_listed = |entry: &Entry| matches!(&entry.source, Some(ModelSource::Directory(path)) if is(path, &place));
        if !seen.contains(&place) && !entries.iter().any(is_listed) {
            seen.push(place);
            entries.push(own_folder(folder));
        }
    }
    entries
}

fn is(path: &Path, canonical: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path == canonical)
}

fn embedded() -> Entry {
    let source = ModelSource::Embedded;
    let checkpoint = source.checkpoint();
    Entry {
        name: Model::name_of(&source),
        origin: Origin::Embedded,
        source: Some(source),
        published: None,
        place: None,
        partial_bytes: 0,
        disk_bytes: 0,
        memory: memory::of_checkpoint(&checkpoint).unwrap_or_default(),
        problem: None,
    }
}

/// A folder of the user's own. One that has a problem is listed with it: it may be a disk that is not there today.
fn own_folder(folder: &Path) -> Entry {
    let source = ModelSource::Directory(folder.to_owned());
    let checkpoint = source.checkpoint();
    let memory = memory::of_checkpoint(&checkpoint);
    let missing = snapshot::missing_files(folder);
    let problem = match &memory {
        Err(why) => Some(why.to_string()),
        Ok(_) => {
            missing.map(|file| format!("{} has no {file}; copy it from the published checkpoint", folder.display()))
        }
    };
    Entry {
        name: Model::name_of(&source),
        origin: Origin::Folder,
        source: problem.is_none().then_some(source),
        published: None,
        place: Some(folder.to_owned()),
        partial_bytes: 0,
        disk_bytes: snapshot::bytes_of_checkpoint(folder),
        memory: memory.unwrap_or_default(),
        problem,
    }
}

/// Names, "owner/name", of the models in a cache.
fn repositories(cache: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cache) else { return Vec::new() };
    let named = |entry: fs::DirEntry| {
        let folder = entry.file_name().into_string().ok()?;
        let (owner, name) = folder.strip_prefix("models--")?.split_once("--")?;
        Some(format!("{owner}/{name}"))
    };
    let mut names: Vec<String> = entries.flatten().filter_map(named).take(MOST_REPOSITORIES).collect();
    names.sort();
    names
}

/// Deletes a model of the hub's cache, whole or half; a folder of the user's own is never touched. A model that plays goes on:
/// its weights are in memory.
///
/// # Errors
/// It is no model of the cache, is being downloaded, or the system refuses.
pub fn remove(entry: &Entry) -> Result<(), ModelsError> {
    let not_ours = || ModelsError::NotOfCache { name: entry.name.clone() };
    let place = entry.place.as_deref().filter(|_| entry.origin == Origin::Hub).ok_or_else(not_ours)?;
    snapshot::remove(place, &entry.name)
}
