//! One file of a download: what is here of it, the rest, its checksum, its place. A work's thread.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::client::{Client, Wanted};
use super::download::{DownloadError, Progress};
use super::snapshot::Repository;
use crate::background::Ended;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Between two tries to connect again.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSES: usize = 5;

/// A checksum in the making.
enum Checksum {
    Sha256(Sha256),
    /// Of a file in git's own store: SHA-1 of a header and the bytes.
    Git(Sha1),
}

impl Checksum {
    fn of(wanted: &Wanted) -> Self {
        if wanted.etag.len() == 64 {
            return Self::Sha256(Sha256::new());
        }
        let mut sha = Sha1::new();
        sha.update(format!("blob {}\0", wanted.size));
        Self::Git(sha)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha) => sha.update(bytes),
            Self::Git(sha) => sha.update(bytes),
        }
    }

    fn hex(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(sha) => hex(&sha.finalize()),
            Self::Git(sha) => hex(&sha.finalize()),
        }
    }
}

/// A file that is partly here, or whole.
pub(super) struct Part<'a> {
    repository: &'a Repository,
    pub wanted: Wanted,
    /// Bytes that are here.
    pub have: u64,
    checksum: Option<Checksum>,
    /// The blob is in its place, with the right checksum.
    is_whole: bool,
    /// Nobody else writes to it.
    _lock: File,
}

impl<'a> Part<'a> {
    /// Finds out what is here, which reads it once.
    pub fn open(repository: &'a Repository, wanted: Wanted, progress: &Progress<'_>) -> Result<Self, Ended> {
        let incomplete = repository.incomplete(&wanted.etag);
        let blobs = repository.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(DownloadError::disk(&blobs))?;
        let lock = repository.lock_blob(&wanted.etag).map_err(DownloadError::disk(&blobs))?;
        let lock = lock.ok_or_else(|| DownloadError::Shared { file: wanted.file.clone() })?;
        let mut own = Self { repository, wanted, have: 0, checksum: None, is_whole: false, _lock: lock };
        let blob = repository.blob(&own.wanted.etag);
        if blob.is_file() {
            own.take(&blob, progress)?;
            let sum = own.checksum.take().map(Checksum::hex);
            if own.have == own.wanted.size && sum.as_ref() == Some(&own.wanted.etag) {
                own.is_whole = true;
                return Ok(own);
            }
            log::warn!("{} was damaged on disk: it is downloaded again", own.wanted.file);
            fs::remove_file(&blob).map_err(DownloadError::disk(&blob))?;
        }
        if incomplete.is_file() {
            own.take(&incomplete, progress)?;
        } else {
            own.begin_anew();
        }
        Ok(own)
    }

    fn begin_anew(&mut self) {
        (self.have, self.checksum) = (0, Some(Checksum::of(&self.wanted)));
    }

    /// Counts and sums what a file holds; one that is too long holds nothing.
    fn take(&mut self, path: &Path, progress: &Progress<'_>) -> Result<(), Ended> {
        self.begin_anew();
        let mut file = File::open(path).map_err(DownloadError::disk(path))?;
        let length = file.metadata().map_err(DownloadError::disk(path))?.len();
        if length > self.wanted.size {
            return Ok(());
        }
        let mut piece = vec![0; PIECE];
        while self.have < length {
            progress.work.check()?;
            let read = file.read(&mut piece).map_err(DownloadError::disk(path))?;
            if read == 0 {
                break;
            }
            self.add(&piece[..read]);
            progress.check(self.have, length);
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.have += bytes.len() as u64;
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
    }

    /// Downloads what is not here and puts the file in its place.
    pub fn complete(&mut self, client: &Client<'_>, commit: &str, progress: &Progress<'_>) -> Result<(), Ended> {
        if !self.is_whole {
            let path = self.repository.incomplete(&self.wanted.etag);
            let disk = || DownloadError::disk(&path);
            let mut file = File::options().write(true).create(true).truncate(false).open(&path).map_err(disk())?;
            file.set_len(self.have).map_err(disk())?;
            file.seek(SeekFrom::End(0)).map_err(disk())?;
            client.patience.renew();
            while self.have < self.wanted.size {
                self.read_on(client, commit, &mut file, &path, progress)?;
            }
            let sum = self.checksum.take().map(Checksum::hex).unwrap_or_default();
            if sum != self.wanted.etag {
                drop(file);
                fs::remove_file(&path).map_err(DownloadError::disk(&path))?;
                let (file, wanted) = (self.wanted.file.clone(), self.wanted.etag.clone());
                return Err(DownloadError::Damaged { file, found: sum, wanted }.into());
            }
            file.sync_all().map_err(disk())?;
            drop(file);
            let blob = self.repository.blob(&self.wanted.etag);
            fs::rename(&path, &blob).map_err(DownloadError::disk(&blob))?;
            self.is_whole = true;
        }
        self.point(commit)
    }

    /// One connection's worth of bytes. A connection that breaks is no error as long as bytes come.
    fn read_on(
        &mut self,
        client: &Client<'_>,
        commit: &str,
        file: &mut File,
        path: &Path,
        progress: &Progress<'_>,
    ) -> Result<(), Ended> {
        let (body, begins) = match client.read(commit, &self.wanted, self.have) {
            Ok(answer) => answer,
            Err(why) => return progress.again(client, why),
        };
        if begins != self.have {
            self.begin_anew();
            file.set_len(0).and_then(|()| file.rewind()).map_err(DownloadError::disk(path))?;
        }
        let mut body = body.into_reader();
        let mut piece = vec![0; PIECE];
        client.patience.set_within_file(true);
        let ended = loop {
            let read = match body.read(&mut piece) {
                Ok(0) if self.have < self.wanted.size => break Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => break None,
                Ok(read) => read,
                Err(error) => break Some(error),
            };
            if self.have + read as u64 > self.wanted.size {
                client.patience.set_within_file(false);
                return Err(DownloadError::TooLong { file: self.wanted.file.clone(), size: self.wanted.size }.into());
            }
            file.write_all(&piece[..read]).map_err(DownloadError::disk(path))?;
            self.add(&piece[..read]);
            progress.hear(self.have);
            progress.work.check()?;
            client.patience.renew();
            if self.have == self.wanted.size {
                break None;
            }
        };
        client.patience.set_within_file(false);
        match ended {
            None => Ok(()),
            Some(error) => progress.again(client, client.failure(error.into())),
        }
    }

    /// The revision's name for the blob.
    fn point(&self, commit: &str) -> Result<(), Ended> {
        let folder = self.repository.snapshot(commit);
        fs::create_dir_all(&folder).map_err(DownloadError::disk(&folder))?;
        let (pointer, blob) = (folder.join(&self.wanted.file), self.repository.blob(&self.wanted.etag));
        if fs::canonicalize(&pointer).ok().zip(fs::canonicalize(&blob).ok()).is_some_and(|(a, b)| a == b) {
            return Ok(());
        }
        match fs::remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DownloadError::disk(&pointer)(error).into());
            }
            _ => {}
        }
        let target: PathBuf = ["..", "..", "blobs", &self.wanted.etag].iter().collect();
        Ok(point_to(&target, &pointer, &blob).map_err(DownloadError::disk(&pointer))?)
    }
}

#[cfg(unix)]
fn point_to(target: &Path, pointer: &Path, _: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

/// Where pointers need a right that the user may not have, the file itself is moved, as `huggingface_hub` does.
#[cfg(windows)]
fn point_to(target: &Path, pointer: &Path, blob: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, pointer).or_else(|_| fs::rename(blob, pointer))
}

impl Progress<'_> {
    /// A connection broke: says so when nothing came for too long, else waits a moment.
    fn again(&self, client: &Client<'_>, why: super::client::Failure) -> Result<(), Ended> {
        if self.work.is_stopping() {
            return Err(Ended::Stopped);
        }
        if !why.may_pass() || client.patience.is_over() {
            return Err(DownloadError::from(why).into());
        }
        log::info!("{why}: connecting again");
        for _ in 0..PAUSES {
            let began = Instant::now();
            self.work.check()?;
            if began.elapsed() > PAUSE {
                // It was paused: nobody waited for the hub.
                client.patience.renew();
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}
