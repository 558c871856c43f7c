//! Files that are whole or as they were: written beside their place and then renamed into it, so that a crash, a full disk or
//! somebody who reads meanwhile never meets half of one. Any thread but the audio thread and the runner.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// How names of what lies beside end: no file of ours is called so.
pub const BESIDE: &str = ".part";

/// Writes a file, and makes its folder where that is missing. The bytes are on the disk before the name is: a machine that
/// loses its power keeps the file that was there, or has the new one.
///
/// # Errors
/// The folder or the file cannot be written; what was there is as it was.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    write_by(path, |beside| {
        let mut file = File::create(beside)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()
    })
}

/// The same for a file that `make` writes, in a folder that is there.
///
/// # Errors
/// Those of `make`, and of the renaming; what was there is as it was.
pub fn write_by(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path);
    let made = make(&beside).and_then(|()| fs::rename(&beside, path));
    if made.is_err() {
        // Half a file is of no use to anyone; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&beside);
    }
    made
}

/// A name that no other process, and no other thread of this one, writes under.
fn beside(path: &Path) -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{}{BESIDE}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tiller-whole-file-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there_and_nothing_beside() {
        let folder = folder("fails");
        let path = folder.join("a.json");
        write(&path, "one").unwrap();
        let failed = write_by(&path, |beside| {
            fs::write(beside, "tw")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(&folder)), ("one", vec!["a.json".to_owned()]));
        // A folder stands where the file should be: the renaming fails.
        fs::create_dir(folder.join("b.json")).unwrap();
        write(&folder.join("b.json"), "two").unwrap_err();
        assert_eq!(names(&folder).len(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn whoever_reads_while_many_write_finds_one_of_theirs_whole() {
        let folder = folder("many");
        let path = folder.join("a.bin");
        write(&path, [0u8; 4096]).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| write(path, [writer; 4096]).unwrap()));
            }
            for _ in 0..200 {
                let found = fs::read(&path).unwrap();
                assert!(found.len() == 4096 && found.iter().all(|byte| *byte == found[0]));
            }
        });
        assert_eq!(names(&folder), ["a.bin"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
