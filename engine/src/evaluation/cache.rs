//! Results kept between runs, item by item: an interrupted evaluation goes on where it stopped. Worker threads.

use super::{EVALUATION_VERSION, EvaluationError};
use crate::user_folders;
use parking_lot::Mutex;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hears (items done, items in all), from any thread.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A folder of results.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    fresh: bool,
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    item: usize,
    value: T,
}

impl Cache {
    /// Results in `folder`; with `fresh`, what lies there already is thrown away stage by stage.
    pub fn new(folder: PathBuf, fresh: bool) -> Self {
        Self { folder, fresh }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where results belong: beside the program when cargo built it, else in the user's cache folder.
    pub fn default_folder() -> PathBuf {
        let target = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_owned()));
        if let Some(target) = target.filter(|target| target.join("CACHEDIR.TAG").is_file()) {
            return target.join("tiller-evaluation");
        }
        user_folders::cache().join("evaluation")
    }

    /// Items `0..count` of a stage: read if they were kept, made on all cores otherwise. `key` says everything that the
    /// values depend on, apart from the item and [`EVALUATION_VERSION`].
    ///
    /// # Errors
    /// Those of `make`, or [`EvaluationError::Cache`].
    pub fn items<T, F>(
        &self,
        stage: &str,
        key: &[&str],
        count: usize,
        progress: Progress,
        make: F,
    ) -> Result<Vec<T>, EvaluationError>
    where
        T: Serialize + DeserializeOwned + Send,
        F: Fn(usize) -> Result<T, EvaluationError> + Sync,
    {
        let path = self.path(stage, key);
        let failed = |source| EvaluationError::Cache { path: path.clone(), source };
        let mut kept = if self.fresh { Vec::new() } else { read(&path) };
        kept.resize_with(kept.len().max(count), || None);
        kept.truncate(count);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(!self.fresh)
            .write(true)
            .truncate(self.fresh)
            .open(&path)
            .map_err(failed)?;
        // What was cut off in mid-line must not spoil the next one.
        file.write_all(b"\n").map_err(failed)?;
        let file = Mutex::new(file);
        let missing: Vec<usize> = (0..count).filter(|item| kept[*item].is_none()).collect();
        let done = AtomicUsize::new(count - missing.len());
        progress(count - missing.len(), count);
        let made: Vec<(usize, T)> = missing
            .par_iter()
            .map(|&item| {
                let value = make(item)?;
                let line = Line { item, value };
                let text = serde_json::to_string(&line).map_err(|error| failed(error.into()))?;
                append(&file, &text).map_err(failed)?;
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
                Ok((item, line.value))
            })
            .collect::<Result<_, EvaluationError>>()?;
        for (item, value) in made {
            kept[item] = Some(value);
        }
        Ok(kept.into_iter().flatten().collect())
    }

    /// The place of a file of its own, for something that is no list of results, and whether what lies there can be used.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn file(&self, stage: &str, key: &[&str], extension: &str) -> Result<(PathBuf, bool), EvaluationError> {
        let path = self.path(stage, key).with_extension(extension);
        let failed = |source| EvaluationError::Cache { path: path.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let kept = !self.fresh && path.is_file();
        Ok((path, kept))
    }

    fn path(&self, stage: &str, key: &[&str]) -> PathBuf {
        let mut digest = Sha256::new();
        digest.update(EVALUATION_VERSION.to_le_bytes());
        for part in key {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let hash: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{stage}-{hash}.jsonl"))
    }
}

fn append(file: &Mutex<File>, text: &str) -> std::io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    file.lock().write_all(line.as_bytes())
}

/// What can be read of a file of results; lines that do not parse count as missing.
fn read<T: DeserializeOwned>(path: &Path) -> Vec<Option<T>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut items: Vec<Option<T>> = Vec::new();
    for line in text.lines() {
        let Ok(Line { item, value }) = serde_json::from_str::<Line<T>>(line) else { continue };
        if item >= items.len() {
            items.resize_with(item.min(1 << 20) + 1, || None);
        }
        if let Some(slot) = items.get_mut(item) {
            *slot = Some(value);
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_made_once_and_a_cut_line_is_made_again() {
        let folder = std::env::temp_dir().join(format!("tiller-cache-{}", std::process::id()));
        let cache = Cache::new(folder.clone(), false);
        let made = AtomicUsize::new(0);
        let run = |cache: &Cache, count| {
            let make = |item: usize| {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(item as f32 * 0.1)
            };
            cache.items("squares", &["a"], count, &|_, _| (), make).expect("items")
        };
        assert_eq!(run(&cache, 4), [0.0, 0.1, 0.2, 3.0 * 0.1f32]);
        assert_eq!(run(&cache, 5).len(), 5);
        assert_eq!(made.load(Ordering::Relaxed), 5);
        let path = cache.path("squares", &["a"]);
        let text = fs::read_to_string(&path).expect("the file");
        fs::write(&path, &text[..text.len() - 3]).expect("cut");
        assert_eq!(run(&cache, 5).len(), 5);
        assert_eq!(made.load(Ordering::Relaxed), 6);
        assert_eq!(run(&Cache::new(folder.clone(), true), 5).len(), 5);
        assert_eq!(made.load(Ordering::Relaxed), 11);
        assert_eq!(run(&cache, 5).len(), 5);
        assert_eq!(made.load(Ordering::Relaxed), 11);
        assert_ne!(cache.path("squares", &["a", "b"]), cache.path("squares", &["ab"]));
        fs::remove_dir_all(folder).expect("cleaned");
    }
}
