//! Input to try: committed files (`tests/corpus/TARGET`), each as it is and damaged. What broke something once is added to
//! them, so that it is tried for ever.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use tiller_tests::random::{EFFORT, SEED, cases, seed};

/// What JSON parsers and readers of lengths stumble over.
const TOKENS: [&[u8]; 20] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"null",
    b"true",
    b"-",
    b"1e999",
    b"18446744073709551615",
    b"-9223372036854775809",
    b"0.1",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"../",
    b"\0",
    b"\xf0\x9f\x8e\xb9",
];

/// One thing done to an input. Places are shares of its length.
#[derive(Clone, Debug)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static [u8]),
    Repeat(prop::sample::Index, u16, u8),
    Remove(prop::sample::Index, u16),
    Copy(prop::sample::Index, u16, prop::sample::Index),
    Cut(prop::sample::Index),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &prop::sample::Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Set(at, value) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            Self::Set(..) => {}
            Self::Insert(at, token) => {
                let at = place(at, bytes);
                bytes.splice(at..at, token.iter().copied());
            }
            Self::Repeat(at, count, value) => {
                let at = place(at, bytes);
                bytes.splice(at..at, std::iter::repeat_n(*value, usize::from(*count)));
            }
            Self::Remove(at, count) => {
                let at = place(at, bytes);
                let end = (at + usize::from(*count)).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Copy(from, count, to) => {
                let from = place(from, bytes);
                let part = bytes[from..(from + usize::from(*count)).min(bytes.len())].to_vec();
                let to = place(to, bytes);
                bytes.splice(to..to, part);
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, value)| Edit::Set(at, value)),
        4 => (index(), prop::sample::select(&TOKENS[..])).prop_map(|(at, token)| Edit::Insert(at, token)),
        1 => (index(), 1..2_000_u16, prop::sample::select(&b"[{\" 0\xff"[..]))
            .prop_map(|(at, count, value)| Edit::Repeat(at, count, value)),
        2 => (index(), 1..64_u16).prop_map(|(at, count)| Edit::Remove(at, count)),
        2 => (index(), 1..64_u16, index()).prop_map(|(from, count, to)| Edit::Copy(from, count, to)),
        1 => index().prop_map(Edit::Cut),
    ]
}

/// The committed inputs of a target.
pub fn committed(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).expect("a corpus").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

/// Bytes that are shown as text where they are any.
#[derive(Clone)]
pub struct Input(pub Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Any of them, damaged in up to six places.
pub fn damaged(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    (prop::sample::select(inputs), vec(edit(), 0..6)).prop_map(|(mut bytes, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        Input(bytes)
    })
}

/// Tries what a strategy makes, `usual` times or more. `accept` says whether an input was taken for whole; it fails by
/// panicking, and then the smallest input that does so is shown.
pub fn try_all<S: Strategy>(target: &str, strategy: S, usual: u32, accept: impl Fn(S::Value) -> bool) {
    let count = cases(usual);
    let config = Config {
        cases: count,
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        max_shrink_iters: 4_096,
        ..Config::default()
    };
    let accepted = std::cell::Cell::new(0_u32);
    let outcome = TestRunner::new(config).run(&strategy, |input| {
        accepted.set(accepted.get() + u32::from(accept(input)));
        Ok::<(), TestCaseError>(())
    });
    if let Err(failure) = outcome {
        panic!(
            "{target}: {failure}\nagain with {SEED}={} {EFFORT}={} cargo test -p tiller-tests --test survival",
            seed(),
            count / usual
        );
    }
    println!("{target}: {count} inputs, {} of them taken for whole, {SEED}={}", accepted.get(), seed());
}
