//! Damage drawn at random from fixed seeds: whatever it makes of a checkpoint, loading it and a prompt ends in a model
//! or in an error, without a panic and in bounded memory.

use tiller_engine::error::EngineError;

use super::folder::{Fixture, Folder, Random, WEIGHTS};
use super::{allowed, load};

/// Loads `rounds` copies of a checkpoint with a few bytes of `file`, among the first `most`, replaced; gives how many
/// were refused.
fn damage(file: &str, most: impl Fn(&Folder) -> usize, rounds: usize, seed: u64) -> usize {
    let folder = Folder::copy(Fixture::Mono);
    load(folder.root()).0.expect("the unbroken checkpoint loads");
    let whole = folder.read(file);
    let most = most(&folder);
    let mut random = Random(seed);
    let mut refused = 0;
    for round in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(most);
            // Characters that mean something in JSON, any byte, or one removed.
            match random.below(4) {
                0 => bytes[at] = b"0123456789eE+-.\"{}[],: "[random.below(23)],
                1 => bytes[at] = random.below(256) as u8,
                2 => bytes[at] = bytes[random.below(most)],
                _ => drop(bytes.remove(at)),
            }
        }
        folder.write(file, &bytes);
        let (loaded, peak) = load(folder.root());
        assert!(peak <= allowed(&folder), "{file}, round {round}: {peak} bytes for files of {}", folder.size());
        match loaded {
            Ok(model) => drop(model.prompt("slow warm strings, ÄÖ \u{fb01} \u{1d53e} </s>\n\u{0}")),
            Err(EngineError::Checkpoint(error)) => {
                refused += 1;
                assert!(error.to_string().contains(&folder.root().display().to_string()), "round {round}: {error}");
            }
            Err(other) => panic!("{file}, round {round}: {other}"),
        }
    }
    refused
}

#[test]
fn damaged_headers_load_or_are_refused() {
    let header = |folder: &Folder| folder.read(WEIGHTS).len() - folder.parts(WEIGHTS).1.len();
    let refused = damage(WEIGHTS, header, 300, 11);
    println!("{refused} of 300 damaged headers refused");
    assert!(refused > 200, "{refused}");
}

#[test]
fn damaged_configurations_load_or_are_refused() {
    let refused = damage("config.json", |folder| folder.read("config.json").len(), 400, 12);
    println!("{refused} of 400 damaged configurations refused");
    assert!(refused > 100, "{refused}");
}

#[test]
fn damaged_tokenizers_load_or_are_refused() {
    let refused = damage("tokenizer.json", |folder| folder.read("tokenizer.json").len(), 400, 13);
    println!("{refused} of 400 damaged tokenizers refused");
    assert!(refused > 100, "{refused}");
}
