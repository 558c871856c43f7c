//! The engine against golden values of Hugging Face transformers on the committed checkpoints, and proof that the comparison
//! sees every tensor: one that is dropped, or swapped with its like, never passes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tiller_engine::parity::{Report, compare};
use tiller_tests::tensors::Tensors;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Checkpoint and reference of every committed fixture, and of the demo.
fn cases() -> Vec<(PathBuf, PathBuf)> {
    let entries = std::fs::read_dir(root().join("fixtures")).expect("fixtures");
    let mut cases: Vec<(PathBuf, PathBuf)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("parity-")))
        .map(|path| (path.clone(), path.join("reference.safetensors")))
        .collect();
    cases.sort();
    cases.push((root().join("../assets/demo"), root().join("fixtures/demo-reference.safetensors")));
    cases
}

fn failures(report: &Report) -> Vec<String> {
    let stages = report.stages.iter().filter(|stage| !stage.pass).map(|stage| format!("{stage:?}"));
    stages.chain(report.codes.iter().filter(|stage| !stage.pass).map(|stage| format!("{stage:?}"))).collect()
}

#[test]
fn every_stage_is_transformers_on_every_fixture() {
    let cases = cases();
    assert!(cases.len() >= 6, "mono in two layouts, stereo, odd, equal widths, demo: {cases:?}");
    for (folder, reference) in cases {
        let name = folder.display();
        let report = compare(&folder, &reference, &|_| ()).unwrap_or_else(|error| panic!("{name}: {error}"));
        println!(
            "{name}: text {:.1e}, hidden {:.1e}, logits {:.1e}, greedy {} + {} ties, latent {:.1e}, codes {} + {} ties, audio {:.1e}, stream {:.1e}",
            report.text_max_rel,
            report.hidden_max_rel,
            report.logits_max_rel,
            report.greedy_equal_share,
            report.greedy_ties,
            report.latent_max_rel,
            report.encoded_equal_share,
            report.encoded_ties,
            report.decoded_max_rel,
            report.stream_max_abs,
        );
        assert!(report.pass, "{name}: {:#?}", failures(&report));
        // A tie is rare, or the checkpoint proves nothing.
        assert!(report.greedy_equal_share > 0.99 && report.encoded_equal_share > 0.99, "{name}");
    }
}

/// The tensor as if nobody had read it: gains 1, weight-norm gains that change nothing, everything else 0.
fn drop_tensor(tensors: &mut Tensors, name: &str) {
    let direction = name.strip_suffix("original0").map(|start| tensors.0[&format!("{start}original1")].1.clone());
    let values = &mut tensors.0.get_mut(name).expect(name).1;
    let rows = values.len();
    match direction {
        Some(direction) => {
            for (gain, row) in values.iter_mut().zip(direction.chunks_exact(direction.len() / rows)) {
                *gain = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            }
        }
        None if name.ends_with("norm.weight") => values.fill(1.0),
        None => values.fill(0.0),
    }
}

/// What no stage may need: bookkeeping of training.
fn is_unused(name: &str) -> bool {
    ["cluster_size", "embed_avg", "inited", "embed_positions.weights"].iter().any(|end| name.ends_with(end))
}

/// Runs `damage` on a copy of the fixture for each of `jobs`; gives the jobs that parity did not see.
fn unseen<J: Send + Sync + Clone + std::fmt::Debug>(
    fixture: &str,
    what: &str,
    jobs: &[J],
    damage: impl Fn(&mut Tensors, &J) + Sync,
) -> Vec<J> {
    let folder = root().join("fixtures").join(fixture);
    let tensors = Tensors::read(&folder);
    let (next, unseen) = (Mutex::new(jobs.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (folder, tensors, next, unseen, damage) = (&folder, &tensors, &next, &unseen, &damage);
            scope.spawn(move || {
                let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what}-{worker}"));
                std::fs::create_dir_all(&copy).expect("a folder");
                for file in ["config.json", "generation_config.json", "tokenizer.json"] {
                    std::fs::copy(folder.join(file), copy.join(file)).expect(file);
                }
                loop {
                    let Some(job) = next.lock().expect("no panic").next() else { return };
                    let mut damaged = tensors.clone();
                    damage(&mut damaged, job);
                    damaged.write(&copy);
                    let report = compare(&copy, &folder.join("reference.safetensors"), &|_| ());
                    if report.unwrap_or_else(|error| panic!("{job:?}: {error}")).pass {
                        unseen.lock().expect("no panic").push(job.clone());
                    }
                }
            });
        }
    });
    unseen.into_inner().expect("no panic")
}

const FIXTURE: &str = "parity-mono";

#[test]
fn a_dropped_tensor_never_passes() {
    let tensors = Tensors::read(&root().join("fixtures").join(FIXTURE));
    let jobs: Vec<String> = tensors.0.keys().filter(|name| !is_unused(name)).cloned().collect();
    assert!(jobs.len() > 100, "{}", jobs.len());
    let unseen = unseen(FIXTURE, "dropped", &jobs, |tensors, name| drop_tensor(tensors, name));
    assert!(unseen.is_empty(), "dropped and not seen: {unseen:#?}");
}

#[test]
fn a_swapped_tensor_never_passes() {
    let tensors = Tensors::read(&root().join("fixtures").join(FIXTURE));
    let names: Vec<&String> = tensors.0.keys().filter(|name| !is_unused(name)).collect();
    let mut jobs = Vec::new();
    for (index, one) in names.iter().enumerate() {
        // The next one of the same shape, in whatever module it is.
        let like = names[index + 1..].iter().find(|other| tensors.0[**other].0 == tensors.0[*one].0);
        let Some(other) = like else { continue };
        // Tied copies are equal, and an LSTM layer only ever sees the sum of its two biases.
        if tensors.0[*one] != tensors.0[*other] && one.replace("bias_hh", "bias_ih") != **other {
            jobs.push(((*one).clone(), (*other).clone()));
        }
    }
    assert!(jobs.len() > 60, "{}", jobs.len());
    let unseen = unseen(FIXTURE, "swapped", &jobs, |tensors, (one, other)| {
        let (a, b) = (tensors.0[one].clone(), tensors.0[other].clone());
        tensors.0.insert(one.clone(), b);
        tensors.0.insert(other.clone(), a);
    });
    assert!(unseen.is_empty(), "swapped and not seen: {unseen:#?}");
}
