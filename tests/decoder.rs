//! The decoder against itself: step by step, in slices, in any company. (Against transformers: parity.rs.)

use std::path::{Path, PathBuf};

use tiller_engine::checkpoint::{Checkpoint, CheckpointSource};
use tiller_engine::decoder::delay_pattern::DelayPattern;
use tiller_engine::decoder::{Decoder, KvCache, MAX_CODEBOOKS, Row, Scratch};
use tiller_engine::text::{Prompt, TextEncoder};
use tiller_tests::counting::{Counting, allocations};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Tiny odd checkpoints, and the demo.
fn cases() -> Vec<(&'static str, PathBuf)> {
    let fixture = |name: &'static str| (name, root().join("fixtures").join(name));
    vec![
        fixture("parity-mono"),
        fixture("parity-stereo"),
        fixture("parity-odd"),
        fixture("parity-equal-width"),
        ("demo", root().join("../assets/demo")),
    ]
}

/// A loaded checkpoint without its codec.
struct Rig {
    decoder: Decoder,
    text: TextEncoder,
    pattern: DelayPattern,
}

impl Rig {
    fn load(folder: &Path) -> Self {
        let source = CheckpointSource::directory(folder);
        let checkpoint = Checkpoint::load(&source, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
        let (weights, config) = (&checkpoint.weights, &checkpoint.config);
        Self {
            decoder: Decoder::load(weights, config).unwrap_or_else(|error| panic!("{error}")),
            text: TextEncoder::load(weights, &config.text, &checkpoint.tokenizer, "tokenizer.json").unwrap(),
            pattern: DelayPattern::new(config.decoder.num_codebooks, config.decoder.audio_channels),
        }
    }

    fn prompt(&self, text: &str) -> Prompt {
        Prompt::new(text, &self.text, &self.decoder).unwrap()
    }

    /// Input columns: BOS, then codes made up by `seed` under the delay pattern.
    fn columns(&self, count: usize, seed: usize) -> Vec<[u32; MAX_CODEBOOKS]> {
        let code = |frame: usize, codebook: usize| {
            ((frame * 7919 + codebook * 104_729 + seed * 31 + frame * frame) % self.decoder.vocab()) as u32
        };
        let column = |f: usize| self.pattern.column(f, None, self.decoder.pad(), code);
        std::iter::once([self.decoder.bos(); MAX_CODEBOOKS]).chain((0..count - 1).map(column)).collect()
    }

    /// Logits of every position, `rows` positions to a pass, in a cache of its own.
    fn in_slices(&self, prompt: Option<&Prompt>, columns: &[[u32; MAX_CODEBOOKS]], rows: usize) -> Vec<Vec<f32>> {
        let mut cache = KvCache::new(&self.decoder, columns.len());
        let mut scratch = Scratch::new(&self.decoder, rows);
        let mut logits = Vec::new();
        for (slice, columns) in columns.chunks(rows).enumerate() {
            let pass: Vec<Row> =
                columns.iter().enumerate().map(|(r, &codes)| row(0, slice * rows + r, codes, prompt, None)).collect();
            self.decoder.forward(&pass, &mut [&mut cache], &mut scratch, None);
            logits.extend((0..pass.len()).map(|r| scratch.logits(r).to_vec()));
        }
        logits
    }
}

fn row<'a>(
    cache: usize,
    position: usize,
    codes: [u32; MAX_CODEBOOKS],
    prompt: Option<&'a Prompt>,
    injection: Option<&'a [f32]>,
) -> Row<'a> {
    Row { cache, position, codes, text: prompt.map(|prompt| &prompt.cross), injection, pushes: &[], logits: true }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn steps_slices_and_the_whole_sequence_give_the_same_bits() {
    for (name, folder) in cases() {
        let rig = Rig::load(&folder);
        let prompt = rig.prompt("slow warm strings pad");
        let columns = rig.columns(40, 1);
        for prompt in [Some(&prompt), None] {
            let whole = rig.in_slices(prompt, &columns, columns.len());
            for rows in [1, 2, 3, 7] {
                let sliced = rig.in_slices(prompt, &columns, rows);
                for (position, (a, b)) in whole.iter().zip(&sliced).enumerate() {
                    assert_eq!(bits(a), bits(b), "{name}: position {position}, {rows} rows to a pass");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    for (name, folder) in cases() {
        let rig = Rig::load(&folder);
        let prompt = rig.prompt("slow warm strings pad");
        let other = rig.prompt("fast");
        let (columns, strangers) = (rig.columns(30, 1), rig.columns(30, 2));
        let push: Vec<f32> =
            (0..rig.decoder.blocks() * rig.decoder.hidden()).map(|i| (i as f32 * 0.37).sin() * 0.2).collect();
        let alone = rig.in_slices(Some(&prompt), &columns, 1);
        let alone_null = rig.in_slices(None, &columns, 1);
        for company in [2, 4, 6] {
            let mut store: Vec<KvCache> = (0..company).map(|_| KvCache::new(&rig.decoder, 64)).collect();
            let mut caches: Vec<&mut KvCache> = store.iter_mut().collect();
            let mut scratch = Scratch::new(&rig.decoder, company);
            for position in 0..columns.len() {
                // Our two rows move from place to place among steered and differently prompted strangers.
                let ours = position % (company - 1);
                let rows: Vec<Row> = (0..company)
                    .map(|r| match r {
                        r if r == ours => row(0, position, columns[position], Some(&prompt), None),
                        r if r == ours + 1 => row(1, position, columns[position], None, None),
                        r => {
                            let cache = if r < ours { r + 2 } else { r };
                            row(cache, position, strangers[position], (r % 2 == 0).then_some(&other), Some(&push))
                        }
                    })
                    .collect();
                rig.decoder.forward(&rows, &mut caches, &mut scratch, None);
                assert_eq!(bits(scratch.logits(ours)), bits(&alone[position]), "{name}: {company} rows");
                assert_eq!(bits(scratch.logits(ours + 1)), bits(&alone_null[position]), "{name}: {company} rows");
            }
        }
    }
}

#[test]
fn an_injection_is_added_to_the_block_output() {
    let (_, folder) = cases().remove(0);
    let rig = Rig::load(&folder);
    let (blocks, hidden) = (rig.decoder.blocks(), rig.decoder.hidden());
    let column = rig.columns(2, 1)[1];
    let run = |injection: Option<&[f32]>| {
        let mut cache = KvCache::new(&rig.decoder, 4);
        let mut scratch = Scratch::new(&rig.decoder, 1);
        let mut outputs = Vec::new();
        let mut observe = |_: usize, _: usize, output: &[f32]| outputs.push(output.to_vec());
        let rows = [row(0, 0, column, None, injection)];
        rig.decoder.forward(&rows, &mut [&mut cache], &mut scratch, Some(&mut observe));
        outputs
    };
    let plain = run(None);
    assert_eq!(plain, run(Some(&vec![0.0; blocks * hidden])), "strength 0 is bit-equal");
    let mut push = vec![0.0; blocks * hidden];
    push[hidden..].fill(0.25);
    let pushed = run(Some(&push));
    assert_eq!(pushed[0], plain[0], "nothing was added to block 0");
    let sum: Vec<f32> = plain[1].iter().map(|x| x + 0.25).collect();
    assert_eq!(pushed[1], sum);
}

#[test]
fn a_pass_allocates_nothing() {
    let (_, folder) = cases().remove(1);
    let rig = Rig::load(&folder);
    let prompt = rig.prompt("slow warm strings pad");
    let columns = rig.columns(20, 1);
    let (mut a, mut b) = (KvCache::new(&rig.decoder, 20), KvCache::new(&rig.decoder, 20));
    let mut caches = [&mut a, &mut b];
    let mut scratch = Scratch::new(&rig.decoder, 2);
    let before = allocations();
    for (position, &column) in columns.iter().enumerate() {
        let rows = [row(0, position, column, Some(&prompt), None), row(1, position, column, None, None)];
        rig.decoder.forward(&rows, &mut caches, &mut scratch, None);
    }
    assert_eq!(allocations(), before);
}

#[test]
fn prompts_of_any_kind_encode() {
    let (_, folder) = cases().remove(0);
    let rig = Rig::load(&folder);
    let eos = rig.text.encode("").unwrap().ids;
    assert_eq!(eos, [1], "an empty prompt is the end token");
    for text in ["  ", "schöne Flöte, 琴の音 🎵", "a\0b\n\tc"] {
        let encoded = rig.text.encode(text).unwrap();
        assert!(encoded.states.iter().all(|x| x.is_finite()), "{text:?}");
        assert_eq!(encoded.ids.last(), Some(&1), "{text:?}");
    }
    let error = rig.text.encode(&"loud ".repeat(3000)).err().expect("too long").to_string();
    assert!(error.contains("2048") && error.contains("shorten"), "{error}");
}
