//! A published checkpoint comes from a hub into the Hugging Face cache, file by file: bytes are counted over all of them, what is
//! here already is not asked for again, what came is compared with the hub's checksum before it gets its name. A work of
//! [`Background`]; its thread alone asks the network.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::DecimalBytes;

use super::blob::Part;
use super::client::{Client, Description, Failure, Wanted};
use super::snapshot::{INDEX, MOST_CONFIG, MOST_INDEX, Repository, SINGLE, SMALL_FILES, missing_files, shards_of};
use super::wire::Patience;
use super::{Hub, ModelsError, Published, licence};
use crate::background::{Background, Ended, Kind, Unit, Work};

/// Bytes that stay free beside a download.
const SPARE: u64 = 64 << 20;
/// Largest tokenizer that the loader reads, and more weights than any checkpoint has.
const MOST_TOKENIZER: u64 = 64 << 20;
const MOST_WEIGHTS: u64 = 64 << 30;

/// What can end a download.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    #[error(transparent)]
    Hub(#[from] Failure),
    #[error("{name} is being downloaded by another program on this machine; wait for it")]
    Busy { name: String },
    #[error("{file} is being downloaded by another program on this machine; wait for it, then download again")]
    Shared { file: String },
    #[error("{host} has no {file} of {repository} ({why}); choose another model")]
    NoFile { host: String, repository: String, file: &'static str, why: &'static str },
    #[error("{file} would have {size}, more than a file of its kind has; check HF_ENDPOINT")]
    TooLarge { file: String, size: DecimalBytes },
    #[error(
        "{file} has more than the {size} bytes that the hub announced; check HF_ENDPOINT and the proxy, then download again"
    )]
    TooLong { file: String, size: u64 },
    #[error(
        "{file} arrived damaged: its checksum is {}... and should be {}...; the damaged bytes were removed: download again",
        &found[..found.len().min(8)], &wanted[..8]
    )]
    Damaged { file: String, found: String, wanted: String },
    #[error("{} needs {needed} more on the disk of {}, and {free} are free; make room, or set HF_HUB_CACHE to another disk", name, place.display())]
    Space { name: String, needed: DecimalBytes, free: DecimalBytes, place: PathBuf },
    #[error("the disk of {} is full; make room, then download again: it goes on where it stopped", place.display())]
    Full { place: PathBuf },
    #[error("{}: {reason}; check that the folder is there and may be written", place.display())]
    Disk { place: PathBuf, reason: io::Error },
}

impl DownloadError {
    pub(super) fn disk(place: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |reason| {
            let place = place.to_owned();
            match reason.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Self::Full { place }
                }
                _ => Self::Disk { place, reason },
            }
        }
    }
}

/// What is said of a download under way.
pub(super) struct Progress<'a> {
    pub work: &'a Work,
    /// Bytes of the files that are done.
    pub before: u64,
    /// Of all files.
    all: u64,
}

impl Progress<'_> {
    /// So many bytes of the current file are here.
    pub fn hear(&self, have: u64) {
        self.work.hear("downloading", Unit::Bytes, self.before + have, self.all);
    }

    /// What is on disk of a file is being read.
    pub fn check(&self, have: u64, length: u64) {
        self.work.hear("checking what is here", Unit::Bytes, have, length);
    }
}

/// Downloads a published checkpoint, or goes on with it; one that is here is checked. The work's subject is its name.
///
/// # Errors
/// The licence has not been accepted, or there is no thread.
pub fn begin(background: &Background, published: &'static Published, hub: &Hub) -> Result<(), ModelsError> {
    if !licence::accepted(published.repository) {
        return Err(ModelsError::Licence { name: published.name.to_owned() });
    }
    let hub = hub.clone();
    Ok(background.begin(Kind::Download, published.name, move |work| run(work, published, &hub))?)
}

/// Hands look-ups that the system has not given back to the works.
struct Leaving<'a>(&'a Work, Arc<Patience>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.1.take_lookups().into_iter().for_each(|thread| self.0.leave(thread));
    }
}

fn run(work: &Work, published: &Published, hub: &Hub) -> Result<String, Ended> {
    let patience = Arc::new(Patience::new(work.stopping()));
    let _leaving = Leaving(work, patience.clone());
    let repository = Repository::of(hub, published.repository);
    let lock = repository.lock().map_err(DownloadError::disk(&hub.cache))?;
    let _lock = lock.ok_or_else(|| DownloadError::Busy { name: published.name.to_owned() })?;
    let mut touched = BTreeSet::new();
    let ended = fetch(work, published, hub, &repository, patience, &mut touched);
    match ended {
        Err(_) if work.is_stopping() => {
            if work.is_cancelled() {
                for etag in &touched {
                    // What cannot be removed is listed as interrupted.
                    let _ = fs::remove_file(repository.incomplete(etag));
                }
                repository.remove_half();
            }
            Err(Ended::Stopped)
        }
        other => other,
    }
}

fn fetch(
    work: &Work,
    published: &Published,
    hub: &Hub,
    repository: &Repository,
    patience: Arc<Patience>,
    touched: &mut BTreeSet<String>,
) -> Result<String, Ended> {
    let client = Client::new(hub, published.repository, patience).map_err(DownloadError::from)?;
    work.hear(&format!("asking {}", client.host()), Unit::Items, 0, 0);
    let description = client.describe().map_err(DownloadError::from)?;
    let commit = &description.commit;
    let mut parts = Vec::new();
    for wanted in wanted_files(&client, &description, repository, hub, work, touched)? {
        touched.insert(wanted.etag.clone());
        parts.push(Part::open(repository, wanted, &Progress { work, before: 0, all: 0 })?);
    }
    let all = parts.iter().map(|part| part.wanted.size).sum();
    let here: u64 = parts.iter().map(|part| part.have).sum();
    room(published.name, hub, all - here)?;
    // What is here of files that are still to come counts from the beginning, or the speed would be the disk's.
    let (mut done, mut later) = (0, here);
    for part in &mut parts {
        later -= part.have;
        work.check()?;
        let progress = Progress { work, before: done + later, all };
        progress.hear(part.have);
        part.complete(&client, commit, &progress)?;
        done += part.wanted.size;
    }
    let folder = repository.snapshot(commit);
    if let Some(file) = missing_files(&folder) {
        let reason = io::Error::other(format!("{file} is gone again"));
        return Err(DownloadError::Disk { place: folder, reason }.into());
    }
    repository.set_main(commit).map_err(DownloadError::disk(&repository.folder))?;
    Ok(format!("{} is here: {}, all checksums right", published.name, DecimalBytes(all)))
}

/// The files that the loader reads, small ones first, with sizes and checksums.
fn wanted_files(
    client: &Client<'_>,
    description: &Description,
    repository: &Repository,
    hub: &Hub,
    work: &Work,
    touched: &mut BTreeSet<String>,
) -> Result<Vec<Wanted>, Ended> {
    let has = |name: &str| description.files.iter().any(|file| file == name);
    let no_file =
        |file, why| DownloadError::NoFile { host: client.host(), repository: repository.name.clone(), file, why };
    let look_at = |file: &str, most: u64| -> Result<Wanted, Ended> {
        work.check()?;
        let wanted = client.look_at(&description.commit, file).map_err(DownloadError::from)?;
        if wanted.size > most {
            return Err(DownloadError::TooLarge { file: wanted.file, size: DecimalBytes(wanted.size) }.into());
        }
        Ok(wanted)
    };
    let mut wanted = Vec::new();
    let [config, generation, tokenizer] = SMALL_FILES;
    for (file, most) in [(config, MOST_CONFIG), (generation, MOST_CONFIG), (tokenizer, MOST_TOKENIZER)] {
        match has(file) {
            true => wanted.push(look_at(file, most)?),
            false if file == generation => {}
            false => return Err(no_file(file, "every checkpoint needs it").into()),
        }
    }
    if has(SINGLE) {
        wanted.push(look_at(SINGLE, MOST_WEIGHTS)?);
        return Ok(wanted);
    }
    if !has(INDEX) {
        return Err(no_file(SINGLE, "pickled weights are never taken: they can run code when opened").into());
    }
    let index = look_at(INDEX, MOST_INDEX)?;
    touched.insert(index.etag.clone());
    room(&repository.name, hub, index.size)?;
    wanted.push(index.clone());
    let progress = Progress { work, before: 0, all: index.size };
    Part::open(repository, index, &progress)?.complete(client, &description.commit, &progress)?;
    let index = fs::read(repository.snapshot(&description.commit).join(INDEX));
    let index = index.map_err(DownloadError::disk(&repository.folder))?;
    let shards = shards_of(&index).ok_or_else(|| no_file(INDEX, "it names no files of weights"))?;
    for shard in shards {
        if !has(&shard) {
            return Err(no_file("shard that its index names", "the repository is not whole").into());
        }
        wanted.push(look_at(&shard, MOST_WEIGHTS)?);
    }
    Ok(wanted)
}

/// Refuses what does not fit the disk.
fn room(name: &str, hub: &Hub, needed: u64) -> Result<(), DownloadError> {
    match (hub.free_space)(&hub.cache) {
        Ok(free) if needed > 0 && free < needed.saturating_add(SPARE) => {
            let (needed, free) = (DecimalBytes(needed), DecimalBytes(free));
            Err(DownloadError::Space { name: name.to_owned(), needed, free, place: hub.cache.clone() })
        }
        Ok(_) => Ok(()),
        Err(why) => {
            log::info!("nobody knows how much is free: {why}");
            Ok(())
        }
    }
}
