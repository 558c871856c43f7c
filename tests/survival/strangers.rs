//! A checkpoint, preset, state or directions file from a stranger cannot read or write other files, run code or exhaust
//! memory. (Checkpoints one by one: `malformed_checkpoints`; random ones: `fuzz`.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tiller::presets::{Preset, PresetFolder};
use tiller::state::document::Project as Document;
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::steering::directions::Directions;
use tiller_tests::host::Outcome;
use tiller_tests::memory::peak_resident;
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::project::Project;
use tiller_tests::score::Score;
use tiller_tests::turn;

use crate::{fixture, load};

/// Every file below a folder: its bytes and when it was written.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("lists").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            let written = entry.metadata().and_then(|metadata| metadata.modified()).expect("a time");
            files.insert(path.clone(), (fs::read(&path).expect("read"), written));
        }
    }
    files
}

#[test]
fn paths_from_a_project_are_read_and_never_written_to() -> Outcome<()> {
    let _turn = turn();
    let folder = std::env::temp_dir().join(format!("tiller-stranger-{}", std::process::id()));
    let model = folder.join("model");
    fs::create_dir_all(&model).map_err(|e| e.to_string())?;
    for entry in fs::read_dir(fixture("parity-mono")).map_err(|e| e.to_string())?.flatten() {
        fs::copy(entry.path(), model.join(entry.file_name())).map_err(|e| e.to_string())?;
    }
    let directions = folder.join("notes.safetensors");
    fs::write(&directions, "kept").map_err(|e| e.to_string())?;
    let before = snapshot(&folder);
    let mut host = load()?;
    let plain = host.save()?;
    for precision in [Value::Null, json!("int8"), json!("int4")] {
        let mut project = Project::open(&plain)?;
        project.document["model"] = json!({ "name": "../../elsewhere", "hash": "../x", "path": model });
        project.document["directions"] = json!({ "name": "notes", "hash": "", "path": directions });
        project.document["precision"] = precision;
        host.restore(&project.close()?)?;
        host.set_offline(true)?;
        let mut player = host.activate(32_000.0, 512)?;
        player.play(&Score::playing(), 0..32_000, Blocks::Fixed(512), Pace::FlatOut)?;
        host.save()?;
        host.deactivate(player);
    }
    drop(host);
    assert!(snapshot(&folder) == before, "a file of the project's folders changed");
    fs::remove_dir_all(&folder).map_err(|e| e.to_string())
}

#[test]
fn a_preset_cannot_name_a_place() {
    let base = std::env::temp_dir().join(format!("tiller-preset-place-{}", std::process::id()));
    let folder = PresetFolder::new(base.join("presets"));
    let names = ["../out", "..", ".", "a/b", "a\\b", "/etc/x", "C:x", "", "x\0y", ".hidden", "con\n", "\u{202e}txt"];
    for name in names {
        let text = json!({ "format": "tiller-preset", "version": 1, "name": name, "prompt": "x", "parameters": {} });
        if let Ok(preset) = Preset::parse(&text.to_string(), "stranger") {
            panic!("{name:?} is taken for a name, and would be written to {:?}", folder.write(&preset));
        }
    }
    assert!(!base.exists(), "nothing was written");
}

#[test]
fn places_that_are_no_checkpoint_are_refused_at_once() {
    let long = format!("/{}", "x".repeat(5_000));
    let places = [
        "/dev/zero",
        "/dev/stdin",
        "/proc/self",
        "/proc/self/fd",
        "/",
        "/tmp/../tmp",
        "relative/path",
        "~",
        "",
        "\u{0}",
        "a\u{0}b",
        "http://example.invalid/model",
        "\\\\server\\share",
        long.as_str(),
    ];
    for place in places {
        let began = Instant::now();
        let outcome = Model::load(&ModelSource::Directory(PathBuf::from(place)), &|_| ());
        let error = outcome.err().map(|error| error.to_string()).expect("no checkpoint");
        assert!(began.elapsed() < Duration::from_secs(2), "{place:?} took {:?}", began.elapsed());
        assert!(error.len() < 12_000, "{place:?}: {} bytes of error", error.len());
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    use std::os::unix::ffi::OsStrExt;
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tiller-notes.safetensors"] {
        let folder = std::env::temp_dir().join(format!("tiller-pipe-{file}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(fixture("decoder-mono")).expect("the fixture").flatten() {
            if entry.file_name() != file {
                fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy");
            }
        }
        let path = std::ffi::CString::new(folder.join(file).as_os_str().as_bytes()).expect("a path");
        // SAFETY: the path is a string of our own.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        let began = Instant::now();
        let loaded = Model::load(&ModelSource::Directory(folder.clone()), &|_| ());
        assert!(began.elapsed() < Duration::from_secs(5), "{file}");
        // Directions that cannot be read are as good as none; the rest is needed.
        assert_eq!(loaded.is_ok(), file.starts_with("tiller-"), "{file}");
        fs::remove_dir_all(&folder).expect("cleaned");
    }
}

#[test]
fn claims_take_no_memory() {
    let _turn = turn();
    let header = |shape: &str, end: u64| {
        let tensors = ["dir", "norm", "score", "detector", "level"]
            .map(|name| format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#));
        let text = format!("{{{}}}", tensors.join(","));
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 64]].concat()
    };
    let before = peak_resident();
    for (shape, end) in [
        ("[12,100000,100000]", 480_000_000_000),
        ("[4294967295,4294967295,4294967295]", u64::MAX),
        ("[9223372036854775807,2,1]", 16),
        ("[0,0,0]", 0),
        ("[]", 4),
    ] {
        assert!(Directions::from_bytes(&header(shape, end), "stranger").is_err(), "{shape}");
    }
    // A preset and a document that nest, and a prompt of eight megabytes.
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(1_000_000);
        assert!(Preset::parse(&deep, "deep").is_err() && Document::parse(&deep).is_err());
    }
    let long = json!({ "version": 1, "prompt": "la ".repeat(3_000_000) }).to_string();
    let (document, _) = Document::parse(&long).expect("a document");
    assert!(document.to_text().len() < 10_000, "of a long prompt the beginning is kept");
    if let (Some(before), Some(after)) = (before, peak_resident()) {
        assert!(after - before < 160 << 20, "{} bytes were taken", after - before);
    }
}
