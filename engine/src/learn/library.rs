//! Which directions there are for a checkpoint, where they lie and how good they are; moved to and from other folders. Any thread
//! but the audio thread's.

use std::path::{Path, PathBuf};

use super::told::Told;
use crate::checkpoint::{CheckpointError, Config};
use crate::handle::{self, ModelSource};
use crate::model::{Model, directions_file};
use crate::steering::directions::{Directions, DirectionsError};
use crate::steering::doses::Lane;
use crate::steering::trait_files;
use crate::user_folders;
use crate::whole_file;

/// Largest file that is imported, bytes: the chords of the largest checkpoint have 19 million.
const MOST_BYTES: u64 = 64 << 20;

/// Where directions lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Part of the program.
    Embedded,
    /// Beside the checkpoint's own files.
    Beside,
    /// In the user's own folder for the checkpoint; these come first.
    Own,
}

/// Directions that are known for a checkpoint.
#[derive(Clone, Debug)]
pub struct Known {
    /// The concept family's or the trait's name.
    pub name: String,
    /// The classes that they are of.
    pub classes: Vec<String>,
    /// The lane that a family steers; `None` for a trait, which the user gives to a lane.
    pub lane: Option<Lane>,
    /// Where they lie.
    pub place: Place,
    /// The file; `None` for what is part of the program.
    pub path: Option<PathBuf>,
    /// Whether an instance that plays the checkpoint steers by them, or by some of them where those that come first lack classes;
    /// always for traits, which are a lane's to choose.
    pub in_use: bool,
    /// How they were found.
    pub method: String,
    /// How well they tell on what nothing was fitted to; `None` for levels and for files of before.
    pub told: Option<Told>,
    /// Mean over the classes of the best block's held-out score: 0.5 is chance for classes, 0 for tempo.
    pub score: f32,
    /// Why they cannot be used.
    pub problem: Option<String>,
}

/// Why directions were not moved.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// They are no directions, or another checkpoint's.
    #[error(transparent)]
    Directions(#[from] DirectionsError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Something else is there already.
    #[error("{path} is there already and is another: remove or rename it, or say that it is to be replaced")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than directions are.
    #[error("{path} has {found} bytes, more than the {MOST_BYTES} that directions can have: choose another file")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// A trait in it has a name that cannot be a file's.
    #[error("{path} calls its trait \"{name}\", which cannot be a file's name: {rule}")]
    Name {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// What it must be.
        rule: &'static str,
    },
    /// What is not in the user's own folder is not ours to remove.
    #[error("the directions of {name} belong to the checkpoint and stay: only those that you learned or imported go")]
    NotOwn {
        /// Their name.
        name: String,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> LibraryError {
    move |source| LibraryError::Io { path: path.to_owned(), source }
}

/// The directions of a checkpoint whose weights have this SHA-256, families first. Without a hash (it takes reading all of the
/// weights), those in the user's folders whose files give the checkpoint's name.
pub fn known(source: &ModelSource, hash: Option<&str>) -> Vec<Known> {
    let name = Model::name_of(source);
    let checkpoint = source.checkpoint();
    let own = own_files(&name, hash);
    let check = |directions: &Directions, file: &str| match hash {
        Some(hash) => directions.check(file, &name, hash, directions.blocks, directions.hidden),
        None => Ok(()),
    };
    let mut all = Vec::new();
    for lane in Lane::FAMILIES {
        let file = directions_file(lane.concept());
        let place = if *source == ModelSource::Embedded { Place::Embedded } else { Place::Beside };
        let mut family = Vec::new();
        for path in own.iter().filter(|path| path.file_name().is_some_and(|own| *own == *file)) {
            let read = Directions::read(path);
            family.push(described(lane.concept(), Some(lane), Place::Own, Some(path.clone()), read, &check));
        }
        if let Ok(Some(bytes)) = checkpoint.read(&file) {
            let read = Directions::from_bytes(&bytes, &checkpoint.file(&file));
            let path = match source {
                ModelSource::Embedded => None,
                ModelSource::Directory(folder) => Some(folder.join(&file)),
            };
            family.push(described(lane.concept(), Some(lane), place, path, read, &check));
        }
        let mut found: Vec<String> = Vec::new();
        for known in family.iter_mut().filter(|known| known.problem.is_none()) {
            known.in_use = known.classes.iter().any(|class| !found.contains(class));
            found.extend(known.classes.iter().cloned());
        }
        all.extend(family);
    }
    let beside = match source {
        ModelSource::Directory(folder) => trait_files::files(folder),
        ModelSource::Embedded => Vec::new(),
    };
    let traits = own.into_iter().filter(|path| trait_files::is_trait(path)).map(|path| (Place::Own, path));
    for (place, path) in beside.into_iter().map(|path| (Place::Beside, path)).chain(traits) {
        let read = Directions::read(&path);
        let mut known = described(&trait_files::name_of(&path), None, place, Some(path), read, &check);
        known.in_use = known.problem.is_none();
        all.push(known);
    }
    all
}

/// Files in the user's folder for the checkpoint; without a hash, in all of them, by the checkpoint's name.
fn own_files(name: &str, hash: Option<&str>) -> Vec<PathBuf> {
    let files = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|own| own == "safetensors")).collect();
        files.sort();
        files
    };
    if let Some(hash) = hash {
        return files(&trait_files::user_folder(hash));
    }
    let all = user_folders::data().join("directions");
    let folders = std::fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path());
    let by_name = |path: &PathBuf| Directions::read(path).is_ok_and(|own| own.checkpoint_name == name);
    folders.flat_map(|folder| files(&folder)).filter(by_name).collect()
}

fn described(
    name: &str,
    lane: Option<Lane>,
    place: Place,
    path: Option<PathBuf>,
    read: Result<Directions, DirectionsError>,
    check: &dyn Fn(&Directions, &str) -> Result<(), DirectionsError>,
) -> Known {
    let empty = Known {
        name: name.to_owned(),
        classes: Vec::new(),
        lane,
        place,
        in_use: false,
        method: String::new(),
        told: None,
        score: 0.0,
        problem: None,
        path,
    };
    let directions = match read {
        Ok(directions) => directions,
        Err(error) => return Known { problem: Some(error.to_string()), ..empty },
    };
    let file = empty.path.as_ref().map_or_else(|| directions_file(name), |path| path.display().to_string());
    let provenance: serde_json::Value = serde_json::from_str(&directions.provenance).unwrap_or_default();
    let test = &provenance["test"];
    let best = |blocks: &serde_json::Value| {
        let scores = blocks.as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64);
        scores.fold(0.0, f64::max)
    };
    let classes: Vec<f64> = test["score"].as_array().into_iter().flatten().map(best).collect();
    Known {
        name: directions.concept.clone(),
        classes: directions.classes.clone(),
        method: directions.method.clone(),
        told: serde_json::from_value(test["told"].clone()).ok().flatten(),
        score: (classes.iter().sum::<f64>() / classes.len().max(1) as f64) as f32,
        problem: check(&directions, &file).err().map(|error| error.to_string()),
        ..empty
    }
}

/// Takes a directions file into the user's own folder for the checkpoint whose weights have this SHA-256; every instance that
/// plays it takes it up. Returns where it lies.
///
/// # Errors
/// Another checkpoint's directions ([`DirectionsError::OtherCheckpoint`] names both), and [`LibraryError::Exists`] where other
/// directions of that name are there and `replace` is not set.
pub fn import(path: &Path, source: &ModelSource, hash: &str, replace: bool) -> Result<PathBuf, LibraryError> {
    let found = std::fs::metadata(path).map_err(failed(path))?.len();
    if found > MOST_BYTES {
        return Err(LibraryError::TooLarge { path: path.to_owned(), found });
    }
    let bytes = std::fs::read(path).map_err(failed(path))?;
    let file = path.display().to_string();
    let directions = Directions::from_bytes(&bytes, &file)?;
    let decoder = Config::read(&source.checkpoint())?.decoder;
    directions.check(&file, &Model::name_of(source), hash, decoder.num_hidden_layers, decoder.hidden_size)?;
    let family = Lane::FAMILIES.into_iter().find(|lane| lane.concept() == directions.concept);
    let own = match family {
        Some(lane) => directions_file(lane.concept()),
        None => match trait_files::check_name(&directions.concept) {
            Ok(name) => trait_files::file_name(name),
            Err(rule) => {
                return Err(LibraryError::Name { path: path.to_owned(), name: directions.concept, rule });
            }
        },
    };
    let folder = trait_files::user_folder(hash);
    std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let place = folder.join(own);
    put(&bytes, &place, replace)?;
    handle::refresh_all();
    Ok(place)
}

/// Copies directions of a checkpoint to a file, for another machine or another person.
///
/// # Errors
/// [`LibraryError::Exists`] where something else is there and `replace` is not set; what the file system says.
pub fn export(known: &Known, source: &ModelSource, to: &Path, replace: bool) -> Result<(), LibraryError> {
    let bytes = match &known.path {
        Some(path) => std::fs::read(path).map_err(failed(path))?,
        None => {
            let file = directions_file(&known.name);
            let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
            let read = source.checkpoint().read(&file)?;
            read.ok_or_else(|| LibraryError::Io { path: file.into(), source: missing() })?.into_owned()
        }
    };
    put(&bytes, to, replace)
}

/// Removes directions that the user learned or imported; every instance that plays them goes back to the checkpoint's own.
///
/// # Errors
/// [`LibraryError::NotOwn`]; what the file system says.
pub fn remove(known: &Known) -> Result<(), LibraryError> {
    let (Some(path), Place::Own) = (&known.path, known.place) else {
        return Err(LibraryError::NotOwn { name: known.name.clone() });
    };
    std::fs::remove_file(path).map_err(failed(path))?;
    handle::refresh_all();
    Ok(())
}

/// Puts a file where none is, or in the place of one.
fn put(bytes: &[u8], place: &Path, replace: bool) -> Result<(), LibraryError> {
    if !replace && place.exists() {
        return match std::fs::read(place) {
            Ok(own) if own == bytes => Ok(()),
            _ => Err(LibraryError::Exists { path: place.to_owned() }),
        };
    }
    whole_file::write(place, bytes).map_err(failed(place))
}
