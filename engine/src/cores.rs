//! How many cores the engine may use: the user's choice for this machine, one for all instances, kept in a small file. Any thread
//! but the audio thread's.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pool;
use crate::user_folders;
use crate::whole_file;

/// Used where the user chose nothing: four threads use up the bandwidth of a desktop's memory.
const USUAL: usize = 4;

/// More are not offered: workstations have the bandwidth for some.
const MOST: usize = 16;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    /// `None`: as many as suit the machine.
    threads: Option<NonZeroUsize>,
}

/// The most threads that can be chosen here: the machine's cores, up to a limit.
pub fn most() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST)
}

/// The number of threads that play, the inference thread included, after a choice that may be another machine's.
pub fn used(chosen: Option<NonZeroUsize>) -> usize {
    chosen.map_or(USUAL, NonZeroUsize::get).min(most())
}

/// What the user chose; `None` is whatever suits the machine, and so is a file that cannot be read.
pub fn chosen() -> Option<NonZeroUsize> {
    read(&file())
}

/// Keeps a choice, and goes by it from the next step on, in every instance of this process; others find it when they load a
/// model.
///
/// # Errors
/// The folder of settings cannot be written; the choice holds until the process ends.
pub fn choose(threads: Option<NonZeroUsize>) -> io::Result<()> {
    pool::limit_shared(used(threads));
    write(&file(), threads)
}

fn file() -> PathBuf {
    user_folders::config().join("cores.json")
}

fn read(file: &Path) -> Option<NonZeroUsize> {
    serde_json::from_slice::<Written>(&fs::read(file).ok()?).ok()?.threads
}

fn write(file: &Path, threads: Option<NonZeroUsize>) -> io::Result<()> {
    whole_file::write(file, serde_json::to_vec_pretty(&Written { threads })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_comes_back_and_broken_files_choose_nothing() {
        let folder = std::env::temp_dir().join(format!("tiller-cores-{}", std::process::id()));
        let file = folder.join("deep/cores.json");
        assert_eq!(read(&file), None, "no file");
        for threads in [NonZeroUsize::new(1), NonZeroUsize::new(3), None] {
            write(&file, threads).expect("written");
            assert_eq!(read(&file), threads);
        }
        for broken in ["{", "{\"threads\": 0}", "{\"threads\": -2}", "[]", "{\"threads\": \"many\"}"] {
            fs::write(&file, broken).expect("written");
            assert_eq!(read(&file), None, "{broken}");
        }
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn no_choice_makes_more_threads_than_cores() {
        for chosen in [None, NonZeroUsize::new(1), NonZeroUsize::new(1000)] {
            assert!((1..=most()).contains(&used(chosen)));
        }
        assert_eq!(used(NonZeroUsize::new(1)), 1);
    }
}
