//! Weight files that are cut, and headers that lie.

use serde_json::json;

use super::Case;
use super::folder::{Fixture, Folder, Random, WEIGHTS};

const SHARD: &str = "model-00003-of-00004.safetensors";

pub fn cases() -> Vec<Case> {
    let mut cases = truncated();
    cases.extend(lengths());
    cases.extend(texts());
    cases.extend(offsets());
    cases
}

/// Cut at offsets drawn from a fixed seed, in the header and in the data, of a single file and of a shard.
fn truncated() -> Vec<Case> {
    let mut random = Random(3);
    let mut cases = Vec::new();
    for (fixture, file) in [(Fixture::Mono, WEIGHTS), (Fixture::Sharded, SHARD)] {
        let folder = Folder::copy(fixture);
        let whole = folder.read(file).len();
        let data = whole - folder.parts(file).1.len();
        let mut keeps = vec![0, 7, 8, 9, data - 1, data, data + 1, whole - 1];
        keeps.extend((0..8).map(|_| random.below(data)));
        keeps.extend((0..8).map(|_| data + random.below(whole - data)));
        for keep in keeps {
            let name = format!("{file} cut to {keep} of {whole} bytes");
            let found = format!("found {keep};");
            let says = [file, "truncated", &found, "download the file again"];
            let case = Case::new(name, "Truncated", &says, move |folder| folder.truncate(file, keep));
            cases.push(Case { fixture, ..case });
        }
    }
    cases
}

/// What the first eight bytes claim.
fn lengths() -> Vec<Case> {
    let claim = |length: u64| {
        move |folder: &Folder| {
            let mut bytes = folder.read(WEIGHTS);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            folder.write(WEIGHTS, bytes);
        }
    };
    let mut cases: Vec<Case> = [2 << 30, u64::MAX, u64::MAX - 7, 1 << 63, 100_000_001]
        .into_iter()
        .map(|length| {
            let says = [WEIGHTS, "header", &length.to_string(), "allows 100000000"];
            Case::new(format!("a header of {length} bytes claimed"), "Header", &says, claim(length))
        })
        .collect();
    cases.extend([
        Case::new("a header of 100,000,000 bytes claimed", "Truncated", &["100000008", "for its header"], {
            claim(100_000_000)
        }),
        Case::new("a header of 2 GB in a sparse file of 3 GB", "Header", &[WEIGHTS, "2147483648"], |folder| {
            folder.sparse(WEIGHTS, &(2u64 << 30).to_le_bytes(), 3 << 30);
        }),
        Case::new("a header of no bytes", "Header", &[WEIGHTS, "EOF"], claim(0)),
        Case::new("a header one byte too short", "Header", &[WEIGHTS], |folder| {
            let length = folder.read(WEIGHTS).len() - folder.parts(WEIGHTS).1.len() - 8;
            let mut bytes = folder.read(WEIGHTS);
            // Padding counts as header: what is left must end before the last bracket.
            let cut = bytes[..8 + length].iter().rposition(|&byte| byte == b'}').expect("a bracket") - 8;
            bytes[..8].copy_from_slice(&(cut as u64).to_le_bytes());
            folder.write(WEIGHTS, bytes);
        }),
        Case::new("a Git LFS pointer", "Header", &[WEIGHTS, "Git LFS pointer", "download"], |folder| {
            folder.write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2364430720\n");
        }),
        Case::new("a web page for weights", "Header", &[WEIGHTS, "claims to be"], |folder| {
            folder.write(WEIGHTS, "<!doctype html><html><body>Sign in to continue</body></html>");
        }),
    ]);
    cases
}

/// Headers that are not what they should be, in text.
fn texts() -> Vec<Case> {
    let header = |name: &str, says: &[&str], text: String| {
        Case::new(name, "Header", says, move |folder| folder.assemble(WEIGHTS, &text, &[0; 64]))
    };
    let entry = r#"{"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}"#;
    vec![
        header("header is no JSON", &[WEIGHTS, "damaged"], "x".repeat(100)),
        header("header is binary", &[WEIGHTS, "damaged"], "\u{0}".repeat(100)),
        header("header is a list", &[WEIGHTS, "invalid type: sequence"], "[1, 2]".to_owned()),
        header("header is a number", &[WEIGHTS, "invalid type: integer"], "7".to_owned()),
        header("header is null", &[WEIGHTS, "invalid type: null"], "null".to_owned()),
        header("header goes on after its end", &[WEIGHTS, "trailing"], r#"{} {}"#.to_owned()),
        header("header nests 100,000 brackets", &[WEIGHTS, "EOF"], {
            format!(r#"{{"__metadata__": {}"#, "[".repeat(100_000))
        }),
        header("a tensor is a string", &["tensor a", "invalid type"], r#"{"a": "F16"}"#.to_owned()),
        header("a tensor without offsets", &["tensor a", "data_offsets"], {
            r#"{"a": {"dtype": "F16", "shape": [1]}}"#.to_owned()
        }),
        header("a tensor without a shape", &["tensor a", "shape"], {
            r#"{"a": {"dtype": "F16", "data_offsets": [0, 2]}}"#.to_owned()
        }),
        header("a negative dimension", &["tensor a", "-1"], entry_with(r#""shape": [-1]"#)),
        header("a fractional dimension", &["tensor a", "1.5"], entry_with(r#""shape": [1.5]"#)),
        header("a dimension past 64 bits", &["tensor a"], entry_with(r#""shape": [99999999999999999999]"#)),
        header("a type that is a number", &["tensor a", "7"], entry_with(r#""dtype": 7"#)),
        header("three offsets", &["tensor a"], entry_with(r#""data_offsets": [0, 2, 4]"#)),
        header("10,000 dimensions", &["tensor a", "10000 dimensions"], {
            entry_with(&format!(r#""shape": [{}1]"#, "1,".repeat(9999)))
        }),
        header(
            "a type with a name of 100 kB",
            &["tensor a"],
            entry_with(&format!(r#""dtype": ["{}"]"#, "F".repeat(100_000))),
        ),
        header("a tensor with a name of 100 kB", &["xxx..."], format!(r#"{{"{}": 3}}"#, "x".repeat(100_000))),
        header("a tensor listed twice", &["lists tensor a twice"], {
            let other = entry.replace("[0, 2]", "[2, 4]");
            format!(r#"{{"a": {entry}, "a": {other}}}"#)
        }),
    ]
}

/// A header of one sound tensor, but for one of its fields.
fn entry_with(field: &str) -> String {
    let name = field.split(':').next().unwrap_or_default();
    let sound = [r#""dtype": "F16""#, r#""shape": [1]"#, r#""data_offsets": [0, 2]"#];
    let others: Vec<&str> = sound.into_iter().filter(|other| !other.starts_with(name)).collect();
    format!(r#"{{"a": {{{}, {field}}}}}"#, others.join(", "))
}

/// Places that cannot be.
fn offsets() -> Vec<Case> {
    let tensor = "decoder.lm_heads.0.weight";
    let other = "decoder.lm_heads.1.weight";
    let placed = |name: &str, kind, says: &[&str], start: u64, end: u64| {
        Case::new(name, kind, says, move |folder| {
            folder.edit_tensor(tensor, |entry| entry["data_offsets"] = json!([start, end]));
        })
    };
    let claims = [WEIGHTS, tensor, "claims bytes"];
    vec![
        placed("offsets of too few bytes", "Header", &claims, 0, 7),
        placed("offsets backwards", "Header", &claims, 9, 3),
        placed("offsets to the end of the numbers", "Header", &claims, 0, u64::MAX),
        placed("offsets at the end of the numbers", "Header", &claims, u64::MAX - 2304, u64::MAX),
        placed(
            "offsets out of the file",
            "Truncated",
            &[WEIGHTS, tensor, "bytes for tensor"],
            1_000_000_000,
            1_000_002_304,
        ),
        Case::new(
            "an unread tensor out of the file",
            "Truncated",
            &[WEIGHTS, "bytes for tensor a", "9000017"],
            |folder| {
                folder.edit_header(WEIGHTS, |header| {
                    let entry = json!({"dtype": "I64", "shape": [1], "data_offsets": [0, 9_000_000_000u64]});
                    header.insert("a".to_owned(), entry);
                });
            },
        ),
        Case::new("two tensors at one place", "Header", &[WEIGHTS, tensor, other, "overlap"], move |folder| {
            folder.edit_header(WEIGHTS, |header| {
                let place = header[tensor]["data_offsets"].clone();
                header[other]["data_offsets"] = place;
            });
        }),
        Case::new("two tensors overlap by 2 bytes", "Header", &[WEIGHTS, tensor, "overlap"], move |folder| {
            folder.edit_tensor(tensor, |entry| {
                let place = [0, 1].map(|at| entry["data_offsets"][at].as_u64().expect("an offset") - 2);
                entry["data_offsets"] = json!(place);
            });
        }),
        Case::new("100,000 tensors at one place", "Header", &[WEIGHTS, "overlap"], |folder| {
            folder.edit_header(WEIGHTS, |header| {
                for index in 0..100_000 {
                    let entry = json!({"dtype": "F16", "shape": [59_000], "data_offsets": [0, 118_000]});
                    header.insert(format!("{index}"), entry);
                }
            });
        }),
    ]
}
