//! Directions files of the musician's own: where they lie, what they are, and which of them a project means. Read off the
//! audio thread.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::directions::{Directions, DirectionsError};
use super::push::Manner;
use crate::handle::ModelSource;
use crate::user_folders;

/// What the names of their files begin with; `tiller-learn --from` writes them.
const PREFIX: &str = "tiller-trait-";

/// Their extension.
const EXTENSION: &str = "safetensors";

/// Largest file that is read, bytes: forty times what the largest checkpoint needs for one direction.
const MOST_BYTES: u64 = 16 << 20;

/// Why a trait's lane does not steer. The project keeps what it names.
#[derive(Debug, thiserror::Error)]
pub enum TraitError {
    /// The file is not where it was, and none of the same content is elsewhere.
    #[error(
        "the directions of \"{name}\" are not at {path} nor beside the checkpoint: put the file back or choose another"
    )]
    Missing { name: String, path: String },
    /// It has a size that directions never have.
    #[error("directions {file} have {found} bytes, more than the {MOST_BYTES} that a trait can have: learn it again")]
    TooLarge { file: String, found: u64 },
    /// It is no directions file, or not one for this checkpoint.
    #[error(transparent)]
    Directions(#[from] DirectionsError),
}

/// A trait's file as a project refers to it: by name for people, by hash for identity, by path for finding it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraitReference {
    /// What people call the trait.
    pub name: String,
    /// SHA-256 of the file, hex; empty while unknown.
    pub hash: String,
    /// Where it was.
    pub path: PathBuf,
}

/// A trait's file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraitFile {
    /// How to refer to it.
    pub reference: TraitReference,
    /// Why it cannot be used with the checkpoint that plays; `None` when it can, or when no checkpoint is loaded yet.
    pub problem: Option<String>,
}

/// What became of a slot's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TraitState {
    /// None was chosen.
    #[default]
    Unset,
    /// It waits for a model.
    Waiting,
    /// Its lane steers.
    InUse {
        /// The file is not the one that was chosen, though it lies in its place.
        changed: bool,
    },
    /// Its lane does not steer; why and what to do.
    Refused(String),
}

/// Name of a trait's file.
pub fn file_name(name: &str) -> String {
    format!("{PREFIX}{name}.{EXTENSION}")
}

/// What a trait may be called: it becomes part of its file's name. The name without spaces around it.
///
/// # Errors
/// What it must be.
pub fn check_name(name: &str) -> Result<&str, &'static str> {
    let fits = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    let own = name.trim();
    match !own.is_empty() && name.len() <= 60 && own.chars().all(fits) {
        true => Ok(own),
        false => Err("up to 60 letters, digits, spaces, - and _"),
    }
}

/// The user's own folder of directions for a checkpoint, by the SHA-256 of its weights.
pub fn user_folder(checkpoint_hash: &str) -> PathBuf {
    user_folders::data().join("directions").join(checkpoint_hash)
}

/// Where the traits of a checkpoint lie: beside it, then in the user's own folder.
pub fn folders(source: &ModelSource, checkpoint_hash: &str) -> Vec<PathBuf> {
    let beside = match source {
        ModelSource::Directory(path) => Some(path.clone()),
        ModelSource::Embedded => None,
    };
    let own = (!checkpoint_hash.is_empty()).then(|| user_folder(checkpoint_hash));
    beside.into_iter().chain(own).collect()
}

/// Whether a file's name is a trait's.
pub fn is_trait(path: &Path) -> bool {
    path.extension().is_some_and(|own| own == EXTENSION)
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

/// The trait's name by its file's.
pub fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.strip_prefix(PREFIX).unwrap_or(&stem).to_owned()
}

/// The trait files of a folder, by name.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_trait(path)).collect();
    files.sort();
    files
}

/// The files of these folders; `check` says what is wrong with one's directions.
pub fn list(folders: &[PathBuf], check: &dyn Fn(&Directions, &str) -> Result<(), TraitError>) -> Vec<TraitFile> {
    let look = |path: PathBuf| {
        let file = path.display().to_string();
        let by_file = name_of(&path);
        let (reference, problem) = match read(&path) {
            Ok(bytes) => {
                let hash = hash(&bytes);
                let read = Directions::from_bytes(&bytes, &file).map_err(TraitError::from);
                let name = read.as_ref().map_or(by_file, |directions| directions.concept.clone());
                let checked = read.and_then(|directions| check(&directions, &file));
                (TraitReference { name, hash, path }, checked.err())
            }
            Err(error) => (TraitReference { name: by_file, hash: String::new(), path }, Some(error)),
        };
        TraitFile { reference, problem: problem.map(|error| error.to_string()) }
    };
    folders.iter().flat_map(|folder| files(folder)).map(look).collect()
}

/// Refuses what one lane cannot play.
///
/// # Errors
/// [`DirectionsError::Metadata`].
pub fn check_kind(directions: &Directions, file: &str) -> Result<(), TraitError> {
    let wrong = |key, expected: &str, found: String| {
        Err(DirectionsError::Metadata { file: file.to_owned(), key, expected: expected.to_owned(), found }.into())
    };
    match (directions.classes.len(), directions.manner) {
        (1, Manner::Add) => Ok(()),
        (1, manner) => wrong("manner", "`add` (a trait's lane does not hold)", format!("`{}`", manner.name())),
        _ => wrong("classes", "one class", directions.classes.join(",")),
    }
}

/// The bytes of the file that is meant, the path they came from, and whether they are other than those that were chosen.
///
/// # Errors
/// [`TraitError::Missing`], and what reading can meet.
pub fn find(reference: &TraitReference, folders: &[PathBuf]) -> Result<(Vec<u8>, PathBuf, bool), TraitError> {
    let is_meant = |bytes: &[u8]| reference.hash.is_empty() || hash(bytes) == reference.hash;
    let in_place = reference.path.is_file().then(|| read(&reference.path));
    if let Some(Ok(bytes)) = &in_place
        && is_meant(bytes)
    {
        return Ok((bytes.clone(), reference.path.clone(), false));
    }
    // The project may have come from another machine, or the file may have been moved or learned anew.
    if !reference.hash.is_empty() {
        for path in folders.iter().flat_map(|folder| files(folder)) {
            if let Ok(bytes) = read(&path)
                && is_meant(&bytes)
            {
                return Ok((bytes, path, false));
            }
        }
    }
    match in_place {
        Some(bytes) => Ok((bytes?, reference.path.clone(), true)),
        None => {
            let path = reference.path.display().to_string();
            Err(TraitError::Missing { name: reference.name.clone(), path })
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TraitError> {
    let file = path.display().to_string();
    let failed = |source| DirectionsError::Io { file: file.clone(), source };
    let stream = File::open(path).map_err(failed)?;
    let found = stream.metadata().map_err(failed)?.len();
    if found > MOST_BYTES {
        return Err(TraitError::TooLarge { file, found });
    }
    let mut bytes = Vec::with_capacity(found as usize);
    stream.take(MOST_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// SHA-256, hex.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::directions::tests::example;

    fn one_class() -> Directions {
        let mut own = example();
        (own.concept, own.classes) = ("bright".to_owned(), vec!["bright".to_owned()]);
        own.vectors.truncate(8);
        (own.scores, own.detectors, own.levels) = (vec![0.75; 2], vec![0.25; 4], vec![0.5; 4]);
        own
    }

    #[test]
    fn a_file_is_found_by_its_hash_wherever_it_went() {
        let folder = std::env::temp_dir().join(format!("tiller-trait-files-{}", std::process::id()));
        let (here, there) = (folder.join("here"), folder.join("there"));
        std::fs::create_dir_all(&here).expect("a folder");
        std::fs::create_dir_all(&there).expect("a folder");
        let path = here.join(file_name("bright"));
        one_class().write(&path).expect("written");
        std::fs::write(here.join(file_name("broken")), b"no").expect("written");
        std::fs::write(here.join("tiller-notes.safetensors"), b"another family").expect("written");

        let found = list(std::slice::from_ref(&here), &check_kind);
        let names: Vec<&str> = found.iter().map(|file| file.reference.name.as_str()).collect();
        assert_eq!(names, ["bright", "broken"]);
        assert!(found[0].problem.is_none(), "{found:?}");
        assert!(found[1].problem.as_ref().is_some_and(|why| why.contains("tiller-trait-broken")), "{found:?}");

        let reference = found[0].reference.clone();
        let folders = [there.clone()];
        assert!(matches!(find(&reference, &folders), Ok((_, at, false)) if at == path));
        std::fs::rename(&path, there.join(file_name("bright"))).expect("moved");
        assert!(matches!(find(&reference, &folders), Ok((_, at, false)) if at.starts_with(&there)));
        // Another file in its place is only taken when the one that was chosen is nowhere.
        Directions { full_dose: 0.25, ..one_class() }.write(&path).expect("written");
        assert!(matches!(find(&reference, &folders), Ok((_, at, false)) if at.starts_with(&there)));
        assert!(matches!(find(&reference, &[]), Ok((_, at, true)) if at == path));
        std::fs::remove_dir_all(&folder).expect("cleaned");
        let said = find(&reference, &folders).expect_err("gone").to_string();
        assert!(said.contains("bright") && said.contains("here"), "{said}");
    }

    #[test]
    fn a_family_and_what_holds_are_no_trait() {
        assert!(check_kind(&one_class(), "a").is_ok());
        let said = check_kind(&example(), "notes.safetensors").expect_err("twelve classes").to_string();
        assert!(said.contains("notes.safetensors") && said.contains("one class"), "{said}");
        let held = Directions { manner: Manner::Hold, ..one_class() };
        assert!(check_kind(&held, "a").expect_err("it holds").to_string().contains("manner"));
    }
}
