//! Where a checkpoint's files come from: a directory, or the program itself. Loader thread.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// A whole file in memory: owned, or part of the program.
pub type Bytes = Cow<'static, [u8]>;

/// Largest file that is read whole.
const MOST_BYTES: u64 = 256 << 20;

/// A checkpoint's place.
#[derive(Clone, Debug)]
pub enum CheckpointSource {
    /// A Hugging Face MusicGen directory.
    Directory(PathBuf),
    /// Files compiled into the program, named as in a directory.
    Embedded { name: &'static str, files: &'static [(&'static str, &'static [u8])] },
}

impl CheckpointSource {
    /// A directory on disk.
    pub fn directory(path: impl AsRef<Path>) -> Self {
        Self::Directory(path.as_ref().to_owned())
    }

    /// For people: the directory's last component (of a revision in the Hugging Face cache, the model's), or the embedded
    /// checkpoint's name.
    pub fn name(&self) -> String {
        match self {
            Self::Directory(path) => name_in_cache(path)
                .unwrap_or_else(|| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()),
            Self::Embedded { name, .. } => (*name).to_owned(),
        }
    }

    /// The folder as error texts name it.
    pub fn folder(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Embedded { name, .. } => format!("the built-in checkpoint {name}"),
        }
    }

    /// One of its files as error texts name it.
    pub fn file(&self, file: &str) -> String {
        match self {
            Self::Directory(path) => path.join(file).display().to_string(),
            Self::Embedded { .. } => format!("{file} of {}", self.folder()),
        }
    }

    /// Whether the file is there.
    pub fn has(&self, file: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(file).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(name, _)| *name == file),
        }
    }

    /// The whole file; `None` when it is not there. For files other than weights, which are read in parts.
    ///
    /// # Errors
    /// When it is there but cannot be read, or has more than 256 MiB.
    pub fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        self.read_at_most(file, MOST_BYTES)
    }

    /// As [`CheckpointSource::read`], for a file of a kind that has at most `most` bytes.
    ///
    /// # Errors
    /// When it is there but cannot be read, or is larger.
    pub fn read_at_most(&self, file: &str, most: u64) -> Result<Option<Bytes>, CheckpointError> {
        if !self.has(file) {
            return Ok(None);
        }
        match self {
            Self::Embedded { files, .. } => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
            Self::Directory(path) => {
                let unreadable = |error: std::io::Error| CheckpointError::Unreadable {
                    file: self.file(file),
                    reason: error.to_string(),
                };
                let stream = File::open(path.join(file)).map_err(unreadable)?;
                let found = stream.metadata().map_err(unreadable)?.len();
                if found > most {
                    return Err(CheckpointError::TooLarge { file: self.file(file), found, most });
                }
                let mut bytes = Vec::new();
                if bytes.try_reserve_exact(found as usize + 1).is_err() {
                    return Err(CheckpointError::Memory { file: self.file(file), bytes: found });
                }
                // Whatever is appended meanwhile is not read: the parsers refuse what was cut.
                stream.take(found).read_to_end(&mut bytes).map_err(unreadable)?;
                Ok(Some(Cow::Owned(bytes)))
            }
        }
    }

    /// As [`CheckpointSource::read_at_most`], with a remedy to name when the file is not there.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or is larger.
    pub fn read_required(&self, file: &str, most: u64, remedy: &'static str) -> Result<Bytes, CheckpointError> {
        self.read_at_most(file, most)?.ok_or_else(|| CheckpointError::MissingFile {
            folder: self.folder(),
            file: file.to_owned(),
            remedy,
        })
    }
}

/// "name" of `models--owner--name/snapshots/REVISION`.
fn name_in_cache(path: &Path) -> Option<String> {
    let snapshots = path.parent().filter(|folder| folder.ends_with("snapshots"))?;
    let folder = snapshots.parent()?.file_name()?.to_str()?;
    Some(folder.strip_prefix("models--")?.rsplit("--").next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_in_the_cache_has_the_models_name() {
        let name = |path: &str| CheckpointSource::directory(path).name();
        assert_eq!(name("/hub/models--facebook--musicgen-small/snapshots/4c8334b0"), "musicgen-small");
        assert_eq!(name("/music/snapshots/mine"), "mine");
        assert_eq!(name("/music/models--mine"), "models--mine");
    }
}
