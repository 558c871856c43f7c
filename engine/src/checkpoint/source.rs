//! Where a checkpoint's files come from: a directory, or the program itself. Loader thread.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// A whole file in memory: owned, or part of the program.
pub type Bytes = Cow<'static, [u8]>;

/// Bytes per read call between two progress reports.
const CHUNK: usize = 16 << 20;

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

    /// For people: the directory's last component, or the embedded checkpoint's name.
    pub fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
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

    /// Size of a file in bytes.
    ///
    /// # Errors
    /// When the system will not say.
    pub fn size(&self, file: &str) -> Result<u64, CheckpointError> {
        match self {
            Self::Directory(path) => match std::fs::metadata(path.join(file)) {
                Ok(metadata) => Ok(metadata.len()),
                Err(error) => Err(self.unreadable(file, &error)),
            },
            Self::Embedded { .. } => Ok(self.read(file)?.map_or(0, |bytes| bytes.len() as u64)),
        }
    }

    /// The whole file; `None` when it is not there.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        self.read_with_progress(file, &mut |_| ())
    }

    /// The whole file; `None` when it is not there. `progress` hears the bytes of each part as it comes in.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_with_progress(
        &self,
        file: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Bytes>, CheckpointError> {
        if !self.has(file) {
            return Ok(None);
        }
        match self {
            Self::Embedded { files, .. } => {
                let found = files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes);
                progress(found.map_or(0, |bytes| bytes.len() as u64));
                Ok(found.map(Cow::Borrowed))
            }
            Self::Directory(path) => {
                let size = self.size(file)?;
                let mut bytes = Vec::new();
                let room = usize::try_from(size).is_ok_and(|size| bytes.try_reserve_exact(size).is_ok());
                if !room {
                    return Err(CheckpointError::Memory { file: self.file(file), bytes: size });
                }
                let mut stream = File::open(path.join(file)).map_err(|error| self.unreadable(file, &error))?;
                loop {
                    let part = stream.by_ref().take(CHUNK as u64).read_to_end(&mut bytes);
                    match part {
                        Ok(0) => return Ok(Some(Cow::Owned(bytes))),
                        Ok(count) => progress(count as u64),
                        Err(error) => return Err(self.unreadable(file, &error)),
                    }
                }
            }
        }
    }

    /// The whole file, with a remedy to name when it is not there.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn read_required(&self, file: &str, remedy: &'static str) -> Result<Bytes, CheckpointError> {
        self.read(file)?.ok_or_else(|| CheckpointError::MissingFile {
            folder: self.folder(),
            file: file.to_owned(),
            remedy,
        })
    }

    fn unreadable(&self, file: &str, error: &std::io::Error) -> CheckpointError {
        CheckpointError::Unreadable { file: self.file(file), reason: error.to_string() }
    }
}
