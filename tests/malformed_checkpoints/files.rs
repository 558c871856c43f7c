//! Whole files that are missing, of another kind, too large or named wrongly.

use std::fs;

use serde_json::json;

use super::folder::{Fixture, Folder, INDEX, WEIGHTS};
use super::{Case, load};

pub fn cases() -> Vec<Case> {
    let shard = "model-00002-of-00004.safetensors";
    let index = |name: &'static str, kind, says: &[&str], text: String| {
        Case::new(name, kind, says, move |folder| folder.write(INDEX, &text)).sharded()
    };
    let naming = |file: &str| json!({"weight_map": {"a": file}}).to_string();
    let mut cases = vec![
        Case::new("no config.json", "NotACheckpoint", &["config.json", "found only", "choose the folder"], |folder| {
            folder.remove("config.json");
        }),
        Case::new("an empty folder", "NotACheckpoint", &["found an empty folder"], |folder| {
            ["config.json", WEIGHTS, "tokenizer.json"].into_iter().for_each(|file| folder.remove(file));
        }),
        Case::new("config.json is a folder", "NotACheckpoint", &["config.json", "choose the folder"], |folder| {
            folder.remove("config.json");
            fs::create_dir(folder.path("config.json")).expect("a folder");
        }),
        Case::new("no tokenizer.json", "MissingFile", &["has no tokenizer.json", "copy tokenizer.json"], |folder| {
            folder.remove("tokenizer.json");
        }),
        Case::new("no weights", "MissingFile", &["has no model.safetensors", "download"], |folder| {
            folder.remove(WEIGHTS);
        }),
        Case::new("weights are a folder", "MissingFile", &["has no model.safetensors"], |folder| {
            folder.remove(WEIGHTS);
            fs::create_dir(folder.path(WEIGHTS)).expect("a folder");
        }),
        Case::new("a shard is missing", "MissingFile", &[shard, "download every file"], move |folder| {
            folder.remove(shard);
        })
        .sharded(),
        index("index names a shard that is not there", "MissingFile", &["x.safetensors"], naming("x.safetensors")),
        index("index names a path above", "Index", &[INDEX, "../x.safetensors"], naming("../x.safetensors")),
        index("index names an absolute path", "Index", &[INDEX, "/etc/x.safetensors"], naming("/etc/x.safetensors")),
        index("index names a Windows path", "Index", &[INDEX, "..\\x.safetensors"], naming("..\\x.safetensors")),
        index("index names a drive", "Index", &[INDEX, "C:x.safetensors"], naming("C:x.safetensors")),
        index("index names a pickle", "Index", &[INDEX, "pytorch_model.bin"], naming("pytorch_model.bin")),
        index("index names nothing", "Index", &[INDEX, "names no files"], json!({"weight_map": {}}).to_string()),
        index("index without a map", "Index", &[INDEX, "weight_map"], "{}".to_owned()),
        index("index maps to a number", "Index", &[INDEX, "3"], json!({"weight_map": {"a": 3}}).to_string()),
        index("index is cut", "Index", &[INDEX, "EOF"], r#"{"weight_map": {"a": "model-0"#.to_owned()),
        index("index nests 100,000 brackets", "Index", &[INDEX, "EOF"], {
            format!(r#"{{"metadata": {}"#, "[".repeat(100_000))
        }),
        index("index with a name of 100 kB", "Index", &[INDEX, "..."], naming(&"x".repeat(100_000))),
        Case::new("an index of 3 GB", "TooLarge", &[INDEX, "3221225472", "16777216"], |folder| {
            folder.sparse(INDEX, b"{", 3 << 30);
        })
        .sharded(),
        Case::new("a configuration of 3 GB", "TooLarge", &["config.json", "3221225472", "1048576"], |folder| {
            folder.sparse("config.json", b"{", 3 << 30);
        }),
        Case::new("a generation_config of 3 GB", "TooLarge", &["generation_config.json", "3221225472"], |folder| {
            folder.sparse("generation_config.json", b"{", 3 << 30);
        }),
        Case::new("a tokenizer of 3 GB", "TooLarge", &["tokenizer.json", "3221225472"], |folder| {
            folder.sparse("tokenizer.json", b"{", 3 << 30);
        }),
    ];
    for pickle in ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "state_dict.bin"] {
        let says = [pickle, "can run code", "expected model.safetensors", "save_pretrained"];
        cases.push(Case::new(format!("only {pickle}"), "PickleOnly", &says, move |folder| {
            folder.remove(WEIGHTS);
            folder.write(pickle, b"\x80\x02}q\x00.");
        }));
    }
    cases
}

#[test]
fn places_that_are_no_folder() {
    let folder = Folder::copy(Fixture::Mono);
    for (place, found) in [("nowhere", "nothing there"), ("tokenizer.json", "a file")] {
        let error = load(&folder.path(place)).0.err().expect("an error").to_string();
        for part in [&folder.path(place).display().to_string(), found, "choose the folder"] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}
