//! Tokenizers that do not parse, or that would harm when used.

use serde_json::{Value, json};

use super::Case;
use super::folder::Folder;

const FILE: &str = "tokenizer.json";

pub fn cases() -> Vec<Case> {
    let refused = |name: &str, says: &[&str], break_it: Box<dyn Fn(&Folder)>| {
        let says: Vec<&str> =
            [FILE, "no usable tokenizer", "copy tokenizer.json"].into_iter().chain(says.iter().copied()).collect();
        Case::new(name, "Tokenizer", &says, break_it)
    };
    let text = |name: &str, says: &[&str], text: String| {
        refused(name, says, Box::new(move |folder| folder.write(FILE, &text)))
    };
    let field = |name: &str, pointer: &'static str, value: Value| {
        refused(
            name,
            &[],
            Box::new(move |folder| {
                folder.edit_json(FILE, |tokenizer| *tokenizer.pointer_mut(pointer).expect(pointer) = value.clone());
            }),
        )
    };
    // The first four bytes of a character map say how long its trie is.
    let map = |name: &str, says: &[&str], base64: &'static str| {
        refused(
            name,
            says,
            Box::new(move |folder| {
                let map = json!({"type": "Precompiled", "precompiled_charsmap": base64});
                folder.edit_json(FILE, |tokenizer| tokenizer["normalizer"] = map.clone());
            }),
        )
    };
    vec![
        text("tokenizer is empty", &["EOF"], String::new()),
        text("tokenizer is {}", &[], "{}".to_owned()),
        text("tokenizer is a web page", &[], "<!doctype html>".to_owned()),
        text("tokenizer nests 100,000 brackets", &["invalid type: sequence"], "[".repeat(100_000)),
        text("tokenizer's normalizer nests 100,000 brackets", &["recursion limit"], {
            format!("{{\"version\": \"1.0\", \"normalizer\": {}", "[".repeat(100_000))
        }),
        refused("tokenizer is cut", &["EOF"], Box::new(|folder| folder.truncate(FILE, 900))),
        field("tokenizer's model is a number", "/model", json!(3)),
        field("tokenizer of an unknown kind", "/model/type", json!("Bigram")),
        field("tokenizer's unknown word is not in it", "/model/unk_id", json!(96)),
        field("tokenizer without words", "/model/vocab", json!([])),
        field("tokenizer's words are numbers", "/model/vocab", json!([1, 2, 3])),
        field("tokenizer of version 9", "/version", json!("9.0")),
        map("a character map that claims 4 GB", &["precompiled_charsmap", "4294967295"], "/////2FiYw=="),
        map("a character map that claims 2 GB", &["precompiled_charsmap", "2147483644"], "/P//f2FiYw=="),
        map("a character map with an empty trie", &["precompiled_charsmap", "trie of 0 bytes"], "AAAAAGFiYw=="),
        map("a character map of one byte", &["precompiled_charsmap", "has 1 byte"], "/w=="),
        map("a character map that points out of itself", &["out of itself"], "BAAAAAAAAABhYmM="),
        map("a character map that is no base64", &["precompiled_charsmap is no base64"], "!!!!"),
        refused(
            "a character map without a map",
            &["precompiled_charsmap is no base64"],
            Box::new(|folder| {
                folder.edit_json(FILE, |tokenizer| tokenizer["normalizer"] = json!({"type": "Precompiled"}));
            }),
        ),
        refused(
            "a template with a token that is not in it",
            &["failed on it"],
            Box::new(|folder| folder.replace(FILE, r#""SpecialToken":{"id":"</s>""#, r#""SpecialToken":{"id":"</t>""#)),
        ),
    ]
}
