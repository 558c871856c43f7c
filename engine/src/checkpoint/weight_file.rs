//! One weight file open for positioned reads, so that a checkpoint is never held whole in memory. Loader thread.
//! Not memory-mapped: a mapped file that someone truncates kills the process that reads it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::{CheckpointError, CheckpointSource};

/// Bytes per read from disk; a multiple of every element's width.
const CHUNK: u64 = 1 << 20;

/// A file of a directory, or one that is part of the program.
pub(super) struct WeightFile {
    /// As error texts name it.
    name: String,
    content: Content,
}

enum Content {
    Embedded(&'static [u8]),
    Disk { stream: Mutex<File>, stamp: Stamp },
}

/// What tells that somebody wrote to an open file.
#[derive(PartialEq)]
struct Stamp {
    length: u64,
    /// `None` where the file system does not say.
    modified: Option<SystemTime>,
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl WeightFile {
    /// Opens a file of `source`; reads nothing yet.
    ///
    /// # Errors
    /// When it is missing or the system will not open it.
    pub fn open(source: &CheckpointSource, file: &str) -> Result<Self, CheckpointError> {
        let name = source.file(file);
        let unreadable =
            |error: std::io::Error| CheckpointError::Unreadable { file: name.clone(), reason: error.to_string() };
        let content = match source {
            CheckpointSource::Embedded { files, .. } => {
                let found = files.iter().find(|(name, _)| *name == file);
                let (_, bytes) = found.ok_or_else(|| unreadable(ErrorKind::NotFound.into()))?;
                Content::Embedded(bytes)
            }
            CheckpointSource::Directory(folder) => {
                let stream = File::open(folder.join(file)).map_err(unreadable)?;
                let stamp = stream.metadata().map_err(unreadable)?.into();
                Content::Disk { stream: Mutex::new(stream), stamp }
            }
        };
        Ok(Self { name, content })
    }

    /// As error texts name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size when it was opened.
    pub fn length(&self) -> u64 {
        match &self.content {
            Content::Embedded(bytes) => bytes.len() as u64,
            Content::Disk { stamp, .. } => stamp.length,
        }
    }

    /// Hands the bytes of `range` to `part`, in order, in pieces of whole 4-byte words (but for the last).
    ///
    /// # Errors
    /// A file that cannot be read, or that changed since it was opened.
    pub fn read(&self, range: Range<u64>, mut part: impl FnMut(&[u8])) -> Result<(), CheckpointError> {
        let (stream, stamp) = match &self.content {
            Content::Embedded(bytes) => {
                let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
                let bytes = range.and_then(|(start, end)| bytes.get(start..end));
                part(bytes.ok_or_else(|| self.unreadable(&ErrorKind::UnexpectedEof.into()))?);
                return Ok(());
            }
            Content::Disk { stream, stamp } => (stream, stamp),
        };
        let mut buffer = vec![0; CHUNK.min(range.end.saturating_sub(range.start)) as usize];
        let mut stream = stream.lock();
        let read = (|| {
            stream.seek(SeekFrom::Start(range.start))?;
            let mut at = range.start;
            while at < range.end {
                let bytes = &mut buffer[..CHUNK.min(range.end - at) as usize];
                stream.read_exact(bytes)?;
                part(bytes);
                at += bytes.len() as u64;
            }
            Ok(())
        })();
        let now = stream.metadata().map_err(|error| self.unreadable(&error))?;
        // Asked after reading: what was read before a change is still what was promised.
        if Stamp::from(now) != *stamp {
            return Err(CheckpointError::Changed { file: self.name.clone() });
        }
        read.map_err(|error: std::io::Error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &std::io::Error) -> CheckpointError {
        CheckpointError::Unreadable { file: self.name.clone(), reason: error.to_string() }
    }
}
