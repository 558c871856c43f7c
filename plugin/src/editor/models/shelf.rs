//! What the page knows of models and of the disk. Looked through by the page's clerk; the window reads a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tiller_engine::checkpoint::{CheckpointSource, Weights};
use tiller_engine::decoder::packed;
use tiller_engine::embedded;
use tiller_engine::handle::ModelSource;
use tiller_engine::learn::work::{self as learning, Known as Directions, Order};
use tiller_engine::model::{Model, directions_file};
use tiller_engine::models::trial::{self, Trial};
use tiller_engine::models::{self, Entry, Hub, Origin, licence};
use tiller_engine::precision::Precision;
use tiller_engine::steering::trait_files;
use tiller_engine::user_folders;

use crate::state::document::FileReference;

/// Most files that are counted in a folder: what a page says need not be exact to the last of a million.
const MOST_FILES: usize = 200_000;
/// Deepest folder that is counted.
const DEEPEST: usize = 12;

/// A model and what is known of it here.
#[derive(Clone)]
pub struct Known {
    /// As the engine lists it.
    pub entry: Entry,
    /// The precision that suits its size.
    pub suited: Option<Precision>,
    /// Trials that were kept, by precision.
    pub trials: Vec<Trial>,
    /// The licence of its published form was accepted.
    pub accepted: bool,
    /// Directions that are found for it, the musician's own traits too.
    pub directions: Vec<Directions>,
}

impl Known {
    fn of(entry: Entry) -> Self {
        let source = entry.source.as_ref();
        // All published ones are large.
        let published = entry.published.map(|_| Precision::Int8);
        let suited = source.map_or(published, |source| Model::suited_precision(source).ok());
        let tried =
            |source| Precision::ALL.into_iter().filter_map(move |precision| trial::kept(source, Some(precision)));
        Self {
            suited,
            trials: source.map(|source| tried(source).collect()).unwrap_or_default(),
            accepted: entry.published.is_some_and(|published| licence::accepted(published.repository)),
            directions: source
                .map(|source| learning::known(source, trial::hash_of(source).as_deref()))
                .unwrap_or_default(),
            entry,
        }
    }

    /// What tells it from the others, whether it is here yet or not.
    pub fn key(&self) -> String {
        match (self.entry.origin, self.entry.published) {
            (Origin::Embedded, _) => String::new(),
            (_, Some(published)) => published.repository.to_owned(),
            _ => self.entry.place.as_deref().unwrap_or(Path::new(&self.entry.name)).display().to_string(),
        }
    }

    /// What works call it.
    pub fn subject(&self) -> String {
        self.entry.source.as_ref().map_or_else(|| self.entry.name.clone(), Model::name_of)
    }

    /// What a download of it is called.
    pub fn download(&self) -> Option<&'static str> {
        self.entry.published.map(|published| published.name)
    }

    /// How a project refers to it; `None` is the embedded one.
    pub fn reference(&self) -> Option<FileReference> {
        match &self.entry.source {
            Some(ModelSource::Directory(path)) => Some(FileReference::to_model(&self.entry.name, path)),
            _ => None,
        }
    }

    /// Whether a project with this path plays it.
    pub fn is_at(&self, path: &str) -> bool {
        match &self.entry.source {
            Some(ModelSource::Embedded) => path.is_empty(),
            Some(ModelSource::Directory(own)) => !path.is_empty() && own == Path::new(path),
            None => false,
        }
    }

    /// Where it comes from, in words.
    pub fn origin(&self) -> &'static str {
        match (self.entry.origin, self.entry.source.is_some()) {
            (Origin::Embedded, _) => "built in",
            (Origin::Hub, true) => "Hugging Face",
            (Origin::Hub, false) => "Hugging Face, not on this machine",
            (Origin::Folder, _) => "a folder of yours",
        }
    }

    /// Its kept trial at a precision.
    pub fn trial(&self, precision: Option<Precision>) -> Option<&Trial> {
        self.trials.iter().find(|trial| Some(trial.precision) == precision)
    }
}

/// A folder of files for models, and what lies in it.
#[derive(Clone)]
pub struct Place {
    /// What it holds, in a word.
    pub name: &'static str,
    /// In more words.
    pub meaning: &'static str,
    /// Where.
    pub folder: PathBuf,
    /// How much.
    pub bytes: u64,
    /// Whether it can be emptied from the page.
    pub clears: bool,
}

/// Everything that is known.
#[derive(Clone, Default)]
pub struct Shelf {
    /// The models, the built-in one first; empty before they were looked for.
    pub models: Vec<Known>,
    /// Learning that was interrupted.
    pub unfinished: Vec<Order>,
    /// Folders on the disk.
    pub places: Vec<Place>,
    /// The hub that a download would ask.
    pub endpoint: String,
    /// Where a download would lie.
    pub cache: PathBuf,
    /// What went wrong with what was asked for last, or nothing.
    pub said: Option<String>,
}

impl Shelf {
    fn look() -> Self {
        let hub = Hub::from_env();
        Self {
            models: models::list(&[]).into_iter().map(Known::of).collect(),
            unfinished: learning::unfinished(),
            places: places(&hub),
            endpoint: hub.endpoint,
            cache: hub.cache,
            said: None,
        }
    }
}

/// A shelf that the clerk looks through and the window reads.
#[derive(Clone, Default)]
pub struct ShelfCell(Arc<Mutex<Arc<Shelf>>>);

impl ShelfCell {
    /// What is known; never waits for a disk.
    pub fn read(&self) -> Arc<Shelf> {
        self.0.lock().clone()
    }

    /// Looks through everything. `said` is what went wrong with what was asked for before.
    pub fn look(&self, said: Option<String>) {
        let found = Arc::new(Shelf { said, ..Shelf::look() });
        *self.0.lock() = found;
    }
}

fn places(hub: &Hub) -> Vec<Place> {
    let models = "Models as downloaded, shared with every other program that uses the Hugging Face cache.";
    let packed = "Large models in 8 and 4 bits, made from the downloads. Without them a model is packed again when it is loaded.";
    let heard = "What models heard in learning that was interrupted. Without it, learning that goes on listens anew.";
    let place = |name, meaning, folder: PathBuf, clears| Place { name, meaning, bytes: size(&folder), folder, clears };
    vec![
        place("Downloads", models, hub.cache.clone(), false),
        place("Packed", packed, packed::standard_folder(), true),
        place("Learning", heard, user_folders::cache().join("learning"), true),
    ]
}

/// Bytes of the files in a folder. Links are not followed: a hub's cache has one for each file.
fn size(folder: &Path) -> u64 {
    let (mut bytes, mut files) = (0, 0);
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            files += 1;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < DEEPEST {
                open.push((entry.path(), depth + 1));
            } else if kind.is_file() {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        if files > MOST_FILES {
            break;
        }
    }
    bytes
}

/// Empties one of [`places`].
pub fn clear(folder: &Path) -> Result<(), String> {
    let failed = |error| format!("{} cannot be emptied: {error}. Nothing is lost; try again later.", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)?.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.map_err(failed)?;
    }
    Ok(())
}

/// Puts a folder of the musician's own on the list.
pub fn remember(folder: &Path) -> Result<(), String> {
    let folder = if folder.is_file() { folder.parent().unwrap_or(folder) } else { folder };
    if !folder.join("config.json").is_file() {
        return Err(format!(
            "{} is no folder of a model: it has no config.json. Choose the folder of a Hugging Face MusicGen checkpoint.",
            folder.display()
        ));
    }
    models::remember_folder(folder).map_err(|error| error.to_string())
}

/// Takes a folder of the musician's own off the list.
pub fn forget(entry: &Entry) -> Result<(), String> {
    let Some(place) = &entry.place else { return Ok(()) };
    models::forget_folder(place).map_err(|error| error.to_string())
}

/// SHA-256 of a model's weights, which directions belong to; the first time it reads all of them.
fn hash(source: &ModelSource) -> Result<String, String> {
    if let Some(known) = trial::hash_of(source) {
        return Ok(known);
    }
    let place = match source {
        ModelSource::Embedded => CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES },
        ModelSource::Directory(path) => CheckpointSource::directory(path),
    };
    let weights = Weights::read(&place, &|_| ()).map_err(|error| error.to_string())?;
    trial::remember_hash(source, weights.hash());
    Ok(weights.hash().to_owned())
}

/// Takes directions files into the user's folder for a model.
pub fn import(paths: &[PathBuf], source: &ModelSource) -> Result<(), String> {
    let hash = hash(source)?;
    for path in paths {
        learning::import(path, source, &hash, false).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Copies directions into a folder, under the names of their files.
pub fn export(all: &[Directions], source: &ModelSource, folder: &Path) -> Result<(), String> {
    if !folder.is_dir() {
        return Err(format!("{} is no folder: choose one that is there.", folder.display()));
    }
    for own in all.iter().filter(|own| own.problem.is_none()) {
        let file = match &own.lane {
            Some(lane) => directions_file(lane.concept()),
            None => trait_files::file_name(&own.name),
        };
        learning::export(own, source, &folder.join(file), false).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Adds sound files to a box; a folder stands for those that are in it.
pub fn add_sounds(added: &[PathBuf], files: &Mutex<Vec<PathBuf>>) -> Result<(), String> {
    let is_sound = |path: &Path| {
        let extension = path.extension().map(|own| own.to_string_lossy().to_ascii_lowercase());
        path.is_file() && extension.is_some_and(|own| ["wav", "flac"].contains(&own.as_str()))
    };
    let mut refused = None;
    for path in added {
        let mut sounds: Vec<PathBuf> = match fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| is_sound(path)).collect(),
            Err(_) => Some(path.clone()).filter(|path| is_sound(path)).into_iter().collect(),
        };
        sounds.sort();
        if sounds.is_empty() {
            refused = Some(format!("{} is no WAV or FLAC file and has none in it: choose another.", path.display()));
        }
        let mut files = files.lock();
        for sound in sounds {
            if !files.contains(&sound) {
                files.push(sound);
            }
        }
    }
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_weighed_and_emptied_and_sounds_are_found() {
        let folder = std::env::temp_dir().join(format!("tiller-shelf-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).expect("made");
        for (name, bytes) in [("deep/a.wav", 3), ("b.FLAC", 5), ("c.txt", 7)] {
            fs::write(folder.join(name), vec![0; bytes]).expect("written");
        }
        assert_eq!(size(&folder), 15);
        let files = Mutex::default();
        assert_eq!(add_sounds(&[folder.clone(), folder.join("deep/a.wav")], &files), Ok(()));
        assert_eq!(*files.lock(), [folder.join("b.FLAC"), folder.join("deep/a.wav")]);
        assert!(add_sounds(&[folder.join("c.txt")], &files).is_err_and(|why| why.contains("c.txt")));
        assert!(remember(&folder).is_err_and(|why| why.contains("config.json")));
        assert_eq!(clear(&folder), Ok(()));
        assert_eq!(size(&folder), 0);
        fs::remove_dir_all(folder).expect("cleaned");
    }
}
