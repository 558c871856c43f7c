//! Broken and foreign checkpoints, loaded as the plugin loads them: each is refused with an error that names the file,
//! what was expected, what was found and what to do; none panics, and none takes memory for what a file only claims.

mod configs;
mod files;
mod folder;
mod headers;
mod legal;
mod noise;
mod tensors;
mod tokenizers;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Once};

use tiller_engine::error::EngineError;
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_tests::counting::{Counting, live_bytes, peak_bytes, restart_peak};

use folder::{Fixture, Folder};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One way to break a checkpoint.
pub struct Case {
    /// What is wrong, for the table.
    pub name: String,
    pub fixture: Fixture,
    pub break_it: Box<dyn Fn(&Folder)>,
    /// The variant of `CheckpointError`.
    pub kind: &'static str,
    /// What the error's text must hold: file, tensor or field, finding.
    pub says: Vec<String>,
}

impl Case {
    pub fn new(
        name: impl Into<String>,
        kind: &'static str,
        says: &[&str],
        break_it: impl Fn(&Folder) + 'static,
    ) -> Self {
        let says = says.iter().map(|part| (*part).to_owned()).collect();
        Self { name: name.into(), fixture: Fixture::Mono, break_it: Box::new(break_it), kind, says }
    }

    /// The same with other words: where the error names another field than the one that was changed.
    pub fn says_instead(self, says: &[&str]) -> Self {
        Self { says: says.iter().map(|part| (*part).to_owned()).collect(), ..self }
    }

    pub fn sharded(self) -> Self {
        Self { fixture: Fixture::Sharded, ..self }
    }
}

/// Loads a folder and measures the most memory that it took, in bytes.
pub fn load(folder: &Path) -> (Result<Arc<Model>, EngineError>, isize) {
    static HOOK: Once = Once::new();
    // The standard hook's backtrace takes more memory than any of these checkpoints, where the tokenizer's crate panics
    // inside a load.
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    restart_peak();
    let before = live_bytes();
    let loaded = Model::load(&ModelSource::Directory(folder.to_owned()), &|_| ());
    (loaded, peak_bytes() - before)
}

/// Memory that a load may take: f16 weights become f32, one copy as read and one packed to whole vectors; a byte of
/// JSON may become a value of 32 in a list that doubles; and what the tokenizer's crate and one buffer have at any size.
pub fn allowed(folder: &Folder) -> isize {
    let json = fs::metadata(folder.path("config.json")).map_or(0, |metadata| metadata.len());
    (12 * folder.size() + 32 * json) as isize + (64 << 10)
}

#[test]
fn every_malformed_checkpoint_is_refused_by_name() {
    // What the tokenizer's crate allocates once for the process is not counted against the first case.
    load(Folder::copy(Fixture::Mono).root()).0.expect("the unbroken checkpoint loads");
    let groups = [files::cases(), headers::cases(), tensors::cases(), configs::cases(), tokenizers::cases()];
    let (mut count, mut wrong) = (0, Vec::new());
    for case in groups.into_iter().flatten() {
        count += 1;
        let folder = Folder::copy(case.fixture);
        (case.break_it)(&folder);
        let (loaded, peak) = load(folder.root());
        let place = format!("{}/", folder.root().display());
        let error = match loaded {
            Ok(_) => {
                wrong.push(format!("{}: loaded", case.name));
                continue;
            }
            Err(EngineError::Checkpoint(error)) => error,
            Err(other) => {
                wrong.push(format!("{}: not a checkpoint's error: {other}", case.name));
                continue;
            }
        };
        let text = error.to_string();
        println!(
            "{:<58} {:>5} kB  {}",
            case.name,
            peak >> 10,
            text.replace(&place, "").replace(place.trim_end_matches('/'), "FOLDER")
        );
        let kind = format!("{error:?}");
        let kind = kind.split([' ', '{']).next().unwrap_or_default();
        if kind != case.kind {
            wrong.push(format!("{}: {kind} instead of {}: {text}", case.name, case.kind));
        }
        for part in case.says.iter().filter(|part| !text.contains(*part)) {
            wrong.push(format!("{}: {text:?} does not say {part:?}", case.name));
        }
        if text.len() > 700 {
            wrong.push(format!("{}: a text of {} bytes", case.name, text.len()));
        }
        if peak > allowed(&folder) {
            wrong.push(format!("{}: {peak} bytes for files of {}", case.name, folder.size()));
        }
    }
    println!("{count} malformed checkpoints");
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 50, "only {count} cases");
}
