//! The cache of packed weights, when the disk is full or the process is killed: what is there is whole or is not used, and
//! what cannot be kept is no reason not to play.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tiller_engine::checkpoint::{Checkpoint, CheckpointSource};
use tiller_engine::decoder::Decoder;
use tiller_engine::decoder::packed::{self, PackedFile};
use tiller_engine::precision::Precision;
use tiller_tests::random::{Random, cases};
use tiller_tests::turn;

use crate::fixture;

/// Set in the child that writes: where to.
const FOLDER: &str = "TILLER_TEST_CACHE";
/// Set in the child whose files may not grow beyond so many bytes.
const LIMIT: &str = "TILLER_TEST_LIMIT";
/// The test that the child is.
const WRITER: &str = "cache::a_child_that_writes";

fn checkpoint() -> Checkpoint {
    Checkpoint::load(&CheckpointSource::directory(fixture("parity-mono")), &|_| ()).expect("the fixture loads")
}

fn packed_decoder(checkpoint: &Checkpoint) -> Decoder {
    Decoder::load_at(&checkpoint.weights, &checkpoint.config, Precision::Int8).expect("it packs")
}

fn place(folder: &Path, checkpoint: &Checkpoint) -> PathBuf {
    packed::path(folder, checkpoint.weights.hash(), Precision::Int8)
}

fn is_usable(path: &Path, checkpoint: &Checkpoint) -> bool {
    let Some(file) = PackedFile::open(path) else { return false };
    Decoder::load_packed(&checkpoint.weights, &checkpoint.config, Precision::Int8, &file)
        .expect("the checkpoint itself is whole")
        .is_some()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tiller-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn child(folder: &Path, limit: Option<u64>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test's own path"));
    command.args(["--exact", WRITER, "--nocapture"]).env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(limit) = limit {
        command.env(LIMIT, limit.to_string());
    }
    command
}

/// What the children of this file's tests do: write the same file over and over, or once with a full disk.
#[test]
fn a_child_that_writes() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let checkpoint = checkpoint();
    let (decoder, path) = (packed_decoder(&checkpoint), place(&folder, &checkpoint));
    if let Some(limit) = std::env::var(LIMIT).ok().and_then(|limit| limit.parse().ok()) {
        limit_files(limit);
        match packed::write(&path, &decoder, None) {
            Ok(()) => println!("written"),
            Err(why) => println!("refused: {why}"),
        }
        return;
    }
    println!("begins");
    loop {
        packed::write(&path, &decoder, None).expect("writes");
    }
}

/// Files of this process cannot grow beyond `bytes`, as on a disk that is full.
fn limit_files(bytes: u64) {
    #[cfg(unix)]
    // SAFETY: a signal is ignored and a limit set, both of this process alone.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    #[cfg(not(unix))]
    let _ = bytes;
}

#[test]
#[cfg(unix)]
fn a_full_disk_keeps_nothing_and_harms_nothing() {
    let _turn = turn();
    let (checkpoint, folder) = (checkpoint(), folder("full"));
    let path = place(&folder, &checkpoint);
    for limit in [0, 1, 10_000, 40_000] {
        let output = child(&folder, Some(limit)).output().expect("the child runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("refused: "), "{limit}: {said}");
        assert!(said.contains(&folder.display().to_string()), "the error names the place: {said}");
        assert_eq!(fs::read_dir(&folder).expect("lists").count(), 0, "nothing is left at {limit}");
    }
    // A file that is there already survives a write that fails.
    packed::write(&path, &packed_decoder(&checkpoint), None).expect("writes");
    child(&folder, Some(10_000)).output().expect("the child runs");
    assert!(is_usable(&path, &checkpoint));
    fs::remove_dir_all(&folder).expect("cleaned");
}

#[test]
fn a_folder_that_cannot_be_is_an_error_and_no_panic() {
    let _turn = turn();
    let (checkpoint, folder) = (checkpoint(), folder("file"));
    let file = folder.join("a-file");
    fs::write(&file, "not a folder").expect("writes");
    let why = packed::write(&place(&file.join("below"), &checkpoint), &packed_decoder(&checkpoint), None);
    assert!(why.is_err_and(|why| why.contains("a-file")));
    fs::remove_dir_all(&folder).expect("cleaned");
}

#[test]
fn killed_at_any_moment_of_a_write_it_leaves_a_usable_cache() {
    let _turn = turn();
    let mut random = Random::of("killed_at_any_moment_of_a_write_it_leaves_a_usable_cache");
    let (checkpoint, folder) = (checkpoint(), folder("killed"));
    let path = place(&folder, &checkpoint);
    let (rounds, mut halves) = (cases(25), 0);
    for round in 0..rounds {
        if round % 5 == 0 && path.exists() {
            fs::remove_file(&path).expect("removed");
        }
        let mut child = child(&folder, None).spawn().expect("the child runs");
        let mut said = std::io::BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        while !line.contains("begins") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).expect("read") > 0, "the child said nothing");
        }
        // Half of them as soon as a file appears, which is when it begins to be written; the others at any moment.
        let entries = || fs::read_dir(&folder).expect("lists").count();
        let (before, until) = (entries(), Instant::now() + Duration::from_secs(2));
        while round % 2 == 0 && entries() <= before && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(100));
        }
        if round % 2 == 1 {
            std::thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        halves = fs::read_dir(&folder).expect("lists").flatten().filter(|entry| entry.path() != path).count();
        assert!(
            !path.exists() || is_usable(&path, &checkpoint),
            "round {round}: half a file in the place of a whole one"
        );
    }
    println!("{rounds} killed, {halves} halves left behind");
    // Whoever writes next finds its way, and takes away what the dead have left behind, once it is old.
    for entry in fs::read_dir(&folder).expect("lists").flatten() {
        let file = fs::OpenOptions::new().write(true).open(entry.path()).expect("opens");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3_600)).expect("aged");
    }
    packed::write(&path, &packed_decoder(&checkpoint), None).expect("writes");
    assert!(is_usable(&path, &checkpoint));
    assert_eq!(fs::read_dir(&folder).expect("lists").count(), 1, "the halves are gone");
    fs::remove_dir_all(&folder).expect("cleaned");
}
