//! A repository's folder in the Hugging Face cache: `blobs/ETAG` hold the bytes, `snapshots/REVISION/NAME` point to them,
//! `refs/main` names the revision. The layout is shared with every other tool; `hf-hub` has the names. Disk only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::published::Published;
use super::{Entry, Hub, ModelsError, Origin, memory};
use crate::checkpoint::CheckpointSource;
use crate::handle::ModelSource;

/// The files of a checkpoint that the loader reads, weights apart; the second is not always there.
pub(super) const SMALL_FILES: [&str; 3] = ["config.json", "generation_config.json", "tokenizer.json"];
/// All weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Which of several files has which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What a blob is called while it is not whole.
const INCOMPLETE: &str = "incomplete";

/// Largest configuration and index that are read.
pub(super) const MOST_CONFIG: u64 = 1 << 20;
pub(super) const MOST_INDEX: u64 = 16 << 20;
/// Most revisions and blobs of a repository that are looked at.
const MOST_SNAPSHOTS: usize = 64;
const MOST_BLOBS: usize = 4096;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names; `None` when it is none, or names what is no file of the same folder.
pub(super) fn shards_of(index: &[u8]) -> Option<BTreeSet<String>> {
    let index: Index = serde_json::from_slice(index).ok()?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let is_shard = |name: &String| is_file_name(name) && name.ends_with(".safetensors");
    (!names.is_empty() && names.iter().all(is_shard)).then_some(names)
}

/// A name that is a plain file's on every system and never leads out of its folder.
pub(super) fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') && !name.ends_with('.')
}

/// The first file that a checkpoint's folder lacks.
pub(super) fn missing_files(folder: &Path) -> Option<String> {
    let has = |name: &str| folder.join(name).is_file();
    let required = [SMALL_FILES[0], SMALL_FILES[2]];
    if let Some(missing) = required.into_iter().find(|name| !has(name)) {
        return Some(missing.to_owned());
    }
    weight_files(folder).into_iter().find(|name| !has(name))
}

/// The weight files that a checkpoint's folder has or should have.
fn weight_files(folder: &Path) -> Vec<String> {
    let index = folder.join(INDEX);
    let is_small = fs::metadata(&index).is_ok_and(|found| found.len() <= MOST_INDEX);
    if folder.join(SINGLE).is_file() || !is_small {
        return vec![SINGLE.to_owned()];
    }
    let shards = fs::read(index).ok().and_then(|bytes| shards_of(&bytes));
    shards.map_or_else(|| vec![SINGLE.to_owned()], |shards| shards.into_iter().collect())
}

/// Bytes of the weight files of a checkpoint's folder, pointers followed.
pub(super) fn bytes_of_checkpoint(folder: &Path) -> u64 {
    let names = weight_files(folder);
    names.iter().filter_map(|name| fs::metadata(folder.join(name)).ok()).map(|found| found.len()).sum()
}

/// What tells one state of a folder's weight files from another, without reading them.
pub(super) fn identity(folder: &Path) -> String {
    let mut words = Vec::new();
    for path in weight_files(folder).iter().map(|name| folder.join(name)) {
        let place = fs::canonicalize(&path).unwrap_or(path);
        let (length, written) = fs::metadata(&place)
            .map(|found| (found.len(), found.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
            .unwrap_or((0, SystemTime::UNIX_EPOCH));
        let written = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        words.push(format!("{} {length} {written}", place.display()));
    }
    words.join("\n")
}

/// One model in a cache.
pub(super) struct Repository {
    /// "owner/name".
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    cache: hf_hub::CacheRepo,
}

impl Repository {
    pub fn of(hub: &Hub, name: &str) -> Self {
        let repo = hf_hub::Repo::model(name.to_owned());
        let folder = hub.cache.join(repo.folder_name());
        Self { name: name.to_owned(), folder, cache: hf_hub::Cache::new(hub.cache.clone()).repo(repo) }
    }

    /// Where the bytes lie that have this checksum.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where they lie until they are all here.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.{INCOMPLETE}"))
    }

    /// The folder of a revision.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.pointer_path(commit)
    }

    /// Makes a revision the one that is meant.
    pub fn set_main(&self, commit: &str) -> io::Result<()> {
        self.cache.create_ref(commit)
    }

    /// Revisions, the one of `refs/main` first, then the newest.
    fn snapshots(&self) -> Vec<PathBuf> {
        let main = fs::read_to_string(self.folder.join("refs/main")).unwrap_or_default();
        let Ok(entries) = fs::read_dir(self.folder.join("snapshots")) else { return Vec::new() };
        let mut found: Vec<(bool, SystemTime, PathBuf)> = entries
            .flatten()
            .take(MOST_SNAPSHOTS)
            .filter(|entry| entry.path().is_dir())
            .map(|entry| {
                let written = entry.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                (entry.file_name().to_str() == Some(main.trim()), written, entry.path())
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, _, path)| path).collect()
    }

    /// The revision that is whole, the one of `refs/main` before others.
    pub fn whole(&self) -> Option<PathBuf> {
        self.snapshots().into_iter().find(|folder| missing_files(folder).is_none())
    }

    /// Whether any revision says that it is a MusicGen checkpoint.
    pub fn is_musicgen(&self) -> bool {
        let says_so = |folder: PathBuf| {
            let file = folder.join(SMALL_FILES[0]);
            let is_small = fs::metadata(&file).is_ok_and(|found| found.len() <= MOST_CONFIG);
            let config: Option<serde_json::Value> =
                is_small.then(|| fs::read(&file).ok()).flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            config.is_some_and(|config| config.get("model_type").and_then(|kind| kind.as_str()) == Some("musicgen"))
        };
        self.snapshots().into_iter().any(says_so)
    }

    /// Bytes of all blobs, and of files that lie in revisions themselves, as on systems without pointers.
    fn bytes(&self) -> u64 {
        let files = |folder: PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_BLOBS);
            let sizes = entries.filter_map(|entry| entry.metadata().ok()).filter(|found| found.is_file());
            sizes.map(|found| found.len()).sum::<u64>()
        };
        files(self.folder.join("blobs")) + self.snapshots().into_iter().map(files).sum::<u64>()
    }

    /// As the list shows it.
    pub fn entry(&self, published: Option<&'static Published>) -> Entry {
        let name = self.name.rsplit('/').next().unwrap_or(&self.name).to_owned();
        let mut entry = Entry {
            name,
            origin: Origin::Hub,
            source: None,
            published,
            place: self.folder.is_dir().then(|| self.folder.clone()),
            partial_bytes: 0,
            disk_bytes: self.bytes(),
            memory: published.map(|own| memory::estimates(&own.config(), false)).unwrap_or_default(),
            problem: None,
        };
        if let Some(folder) = self.whole() {
            match memory::of_checkpoint(&CheckpointSource::directory(&folder)) {
                Ok(memory) => (entry.memory, entry.source) = (memory, Some(ModelSource::Directory(folder))),
                Err(why) => entry.problem = Some(why.to_string()),
            }
        } else if entry.disk_bytes > 0 || !self.snapshots().is_empty() {
            entry.partial_bytes = entry.disk_bytes;
            let missing = self.snapshots().first().and_then(|folder| missing_files(folder));
            let missing = missing.map(|file| format!(" ({file} is not here)")).unwrap_or_default();
            entry.problem =
                Some(format!("the download was interrupted{missing}: download it to go on where it stopped"));
        }
        entry
    }

    /// For as long as it is held nobody else of ours downloads or removes this model; `None` when somebody does.
    pub fn lock(&self) -> io::Result<Option<File>> {
        lock(&self.folder, "tiller")
    }

    /// As [`Repository::lock`], of one blob, against all tools of Hugging Face.
    pub fn lock_blob(&self, etag: &str) -> io::Result<Option<File>> {
        lock(&self.folder, etag)
    }

    /// Removes what is here, if that is no whole model.
    pub fn remove_half(&self) {
        if self.whole().is_none() {
            // What cannot be removed is listed as interrupted.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Where locks lie: `.locks/REPOSITORY/NAME.lock` in the cache.
fn lock(folder: &Path, name: &str) -> io::Result<Option<File>> {
    let locks = locks_of(folder).ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(&locks)?;
    let path = locks.join(format!("{name}.lock"));
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn locks_of(folder: &Path) -> Option<PathBuf> {
    Some(folder.parent()?.join(".locks").join(folder.file_name()?))
}

/// Deletes a repository's folder.
pub(super) fn remove(folder: &Path, name: &str) -> Result<(), ModelsError> {
    let file_name = folder.file_name().map(|own| own.to_string_lossy().into_owned()).unwrap_or_default();
    if !file_name.starts_with("models--") {
        return Err(ModelsError::NotOfCache { name: name.to_owned() });
    }
    let lock = lock(folder, "tiller").map_err(ModelsError::disk(folder))?;
    let Some(lock) = lock else { return Err(ModelsError::Busy { name: name.to_owned() }) };
    fs::remove_dir_all(folder).map_err(ModelsError::disk(folder))?;
    drop(lock);
    // Locks that nobody holds are of no use; one that cannot be removed harms nobody.
    let _ = locks_of(folder).map(fs::remove_dir_all);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_server_stay_in_their_folder() {
        for good in ["model-00001-of-00003.safetensors", "config.json"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "C:x", ".hidden", "a\0b", "x.", &"a".repeat(129)] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
        let index = |name: &str| format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        assert!(shards_of(index("model-1.safetensors").as_bytes()).is_some());
        for bad in ["../model.safetensors", "/etc/x.safetensors", "model.bin"] {
            assert_eq!(shards_of(index(bad).as_bytes()), None, "{bad}");
        }
        assert_eq!(shards_of(br#"{"weight_map": {}}"#), None);
    }
}
