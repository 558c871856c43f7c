//! What a checkpoint may have besides: tensors that nobody asks for, mixed types, an index beside a single file. And
//! files that somebody writes to while they are read.

use std::cell::RefCell;
use std::fs;
use std::sync::{Arc, Once};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use serde_json::json;
use tiller_engine::checkpoint::{Checkpoint, CheckpointError, CheckpointSource};
use tiller_engine::codec::CodecEncoder;
use tiller_engine::model::Model;

use super::folder::{Fixture, Folder, INDEX, WEIGHTS};
use super::load;

thread_local! {
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what each thread logs, so that tests running beside do not mix.
struct Kept;

impl Log for Kept {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        LOGGED.with(|lines| lines.borrow_mut().push(format!("{}: {}", record.level(), record.args())));
    }

    fn flush(&self) {}
}

/// What loading a folder logs.
fn logged(folder: &Folder) -> (Arc<Model>, Vec<String>) {
    static LOGGER: Once = Once::new();
    LOGGER.call_once(|| log::set_logger(&Kept).expect("no other logger"));
    log::set_max_level(LevelFilter::Debug);
    LOGGED.with(|lines| lines.borrow_mut().clear());
    let model = load(folder.root()).0.unwrap_or_else(|error| panic!("{error}"));
    (model, LOGGED.with(RefCell::take))
}

/// The number of unused tensors that a line tells, and its text.
fn unused(lines: &[String]) -> (usize, &str) {
    let line = lines.iter().find(|line| line.contains("are not used")).expect("a line about unused tensors");
    let count = line.split(' ').zip(line.split(' ').skip(1)).find(|(_, word)| *word == "tensors").expect("a count").0;
    (count.parse().expect("a number"), line)
}

#[test]
fn extra_tensors_are_ignored_and_logged() {
    let folder = Folder::copy(Fixture::Mono);
    let (plain, lines) = logged(&folder);
    // The learning half of the codec, and the buffers that the published files carry.
    let (count, line) = unused(&lines);
    assert!(line.starts_with("INFO") && line.contains("audio_encoder.encoder.layers.0.conv.bias"), "{line}");
    let hash = plain.hash().to_owned();
    drop(plain);

    folder.add_tensors(&[
        ("a.first.extra", "F32", 4, &[3, 5]),
        ("decoder.model.decoder.position_ids", "I64", 8, &[1, 2048]),
        ("audio_encoder.quantizer.layers.0.codebook.inited", "BOOL", 1, &[1]),
        ("unknown.kind", "F4_E2M1", 1, &[7]),
        ("empty", "F16", 2, &[0, 4]),
        ("scalar", "BF16", 2, &[]),
    ]);
    let (model, lines) = logged(&folder);
    // One of them took the place of one that was there.
    assert_eq!(unused(&lines).0, count + 5);
    assert!(unused(&lines).1.contains("the first is a.first.extra"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("DEBUG") && line.contains("position_ids")), "{lines:?}");
    assert_ne!(model.hash(), hash);
    model.prompt("warm strings").unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_window_that_cannot_be_played_is_moved_and_logged() {
    for (wanted, window) in [(20, 64), (5_000_000, 16_384), (600, 600)] {
        let folder = Folder::copy(Fixture::Mono);
        folder.edit_json("generation_config.json", |config| config["max_length"] = json!(wanted));
        let (model, lines) = logged(&folder);
        assert_eq!(model.window(), window);
        let told = lines.iter().any(|line| line.starts_with("WARN") && line.contains(&format!("max_length {wanted}")));
        assert_eq!(told, wanted != window, "{lines:?}");
    }
}

#[test]
fn every_float_type_loads_as_the_same_numbers() {
    let values = |folder: &Folder, tensor: &str, shape: &[usize]| {
        let source = CheckpointSource::directory(folder.root());
        let checkpoint = Checkpoint::load(&source, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
        checkpoint.weights.tensor(tensor, shape).unwrap_or_else(|error| panic!("{error}"))
    };
    let (feed, shape) = ("decoder.model.decoder.layers.1.fc1.weight", [50, 36]);
    let f16 = Folder::copy(Fixture::Mono);
    let expected = values(&f16, feed, &shape);
    assert!(expected.iter().any(|value| *value != 0.0));

    let f32 = Folder::copy(Fixture::Mono);
    f32.convert(|_| Some("F32"));
    assert_eq!(values(&f32, feed, &shape), expected);
    load(f32.root()).0.unwrap_or_else(|error| panic!("{error}"));

    let bf16 = Folder::copy(Fixture::Mono);
    bf16.convert(|_| Some("BF16"));
    let cut: Vec<f32> = expected.iter().map(|value| f32::from_bits(value.to_bits() & 0xffff_0000)).collect();
    assert_eq!(values(&bf16, feed, &shape), cut);
    load(bf16.root()).0.unwrap_or_else(|error| panic!("{error}"));

    let mixed = Folder::copy(Fixture::Mono);
    let names = ["F32", "BF16", "F16"];
    mixed.convert(|name| Some(names[name.len() % 3]));
    load(mixed.root()).0.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn tensors_longer_than_a_read_come_whole_and_in_order() {
    let folder = Folder::copy(Fixture::Mono);
    let (rows, columns) = (700, 401);
    let (mut header, mut data) = folder.parts(WEIGHTS);
    // Not a multiple of four, so that words are cut if chunks are.
    let start = data.len() + 2;
    data.resize(start, 0);
    data.extend((0..rows * columns).flat_map(|index| (index as f32).to_le_bytes()));
    header["long"] = json!({"dtype": "F32", "shape": [rows, columns], "data_offsets": [start, data.len()]});
    folder.assemble(WEIGHTS, &header.to_string(), &data);
    let source = CheckpointSource::directory(folder.root());
    let checkpoint = Checkpoint::load(&source, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
    let values = checkpoint.weights.tensor("long", &[rows, columns]).unwrap_or_else(|error| panic!("{error}"));
    assert!(values.iter().enumerate().all(|(index, value)| *value == index as f32));
    let stacked =
        checkpoint.weights.stacked(&["long", "long"], &[rows, columns]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(stacked, [values.clone(), values].concat());
}

#[test]
fn a_single_file_wins_over_an_index() {
    let folder = Folder::copy(Fixture::Mono);
    let (alone, _) = load(folder.root());
    let hash = alone.unwrap_or_else(|error| panic!("{error}")).hash().to_owned();
    folder.write(INDEX, r#"{"weight_map": {"a": "not-there.safetensors"}}"#);
    assert_eq!(load(folder.root()).0.unwrap_or_else(|error| panic!("{error}")).hash(), hash);
    folder.remove(INDEX);
    folder.write("pytorch_model.bin", b"a pickle beside is not looked at");
    load(folder.root()).0.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn of_two_shards_with_one_tensor_the_index_chooses() {
    let folder = Folder::copy(Fixture::Sharded);
    let index: serde_json::Value = serde_json::from_slice(&folder.read(INDEX)).expect("JSON");
    let tensor = "decoder.model.decoder.layer_norm.bias";
    let shard = index["weight_map"][tensor].as_str().expect("a shard").to_owned();
    let other = ["model-00001-of-00004.safetensors", "model-00004-of-00004.safetensors"];
    let value = |folder: &Folder| {
        let checkpoint = Checkpoint::load(&CheckpointSource::directory(folder.root()), &|_| ()).expect("a checkpoint");
        let width = checkpoint.config.decoder.hidden_size;
        checkpoint.weights.tensor(tensor, &[width]).expect(tensor)
    };
    let expected = value(&folder);
    for file in other.iter().filter(|file| **file != shard) {
        let (mut header, mut data) = folder.parts(file);
        let (start, bytes) = (data.len(), 4 * expected.len());
        data.resize(start + bytes, 0x3f);
        header[tensor] = json!({"dtype": "F32", "shape": [expected.len()], "data_offsets": [start, start + bytes]});
        folder.assemble(file, &header.to_string(), &data);
    }
    assert_eq!(value(&folder), expected);
}

#[test]
fn files_that_change_while_they_are_read() {
    type Change = (&'static str, fn(&Folder));
    let changes: [Change; 3] = [
        ("cut", |folder| folder.truncate(WEIGHTS, 100)),
        ("grown", |folder| folder.write(WEIGHTS, [folder.read(WEIGHTS), vec![0; 4]].concat())),
        ("rewritten", |folder| {
            folder.write(WEIGHTS, folder.read(WEIGHTS));
            // A clock too coarse to tell the two writes apart is no part of this test.
            let file = fs::OpenOptions::new().write(true).open(folder.path(WEIGHTS)).expect(WEIGHTS);
            let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
            file.set_modified(modified + Duration::from_secs(1)).expect("a time");
        }),
    ];
    for (name, change) in changes {
        let folder = Folder::copy(Fixture::Mono);
        let source = CheckpointSource::directory(folder.root());
        let checkpoint = Checkpoint::load(&source, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
        checkpoint.weights.tensor("enc_to_dec_proj.bias", &[36]).unwrap_or_else(|error| panic!("{error}"));
        change(&folder);
        let error = checkpoint.weights.tensor("enc_to_dec_proj.bias", &[36]).expect_err(name);
        assert!(matches!(error, CheckpointError::Changed { .. }), "{name}: {error}");
        assert!(error.to_string().contains(WEIGHTS) && error.to_string().contains("changed"), "{name}: {error}");
    }
}

#[test]
fn progress_rises_to_the_end_over_all_shards() {
    let folder = Folder::copy(Fixture::Sharded);
    let heard = RefCell::new(Vec::new());
    let source = CheckpointSource::directory(folder.root());
    Checkpoint::load(&source, &|share| heard.borrow_mut().push(share)).unwrap_or_else(|error| panic!("{error}"));
    let heard = heard.into_inner();
    assert!(heard.len() >= 4 && heard.is_sorted(), "{heard:?}");
    assert_eq!(heard.last(), Some(&1.0));
}

#[test]
fn what_learning_needs_is_asked_for_by_name() {
    for tensor in
        ["layers.0.conv.bias", "layers.7.lstm.weight_ih_l0", "layers.9.conv.parametrizations.weight.original1"]
    {
        let tensor = format!("audio_encoder.encoder.{tensor}");
        let folder = Folder::copy(Fixture::Mono);
        folder.edit_header(WEIGHTS, |header| {
            header.remove(&tensor).expect("the tensor");
        });
        let source = CheckpointSource::directory(folder.root());
        let checkpoint = Checkpoint::load(&source, &|_| ()).unwrap_or_else(|error| panic!("{error}"));
        let error = CodecEncoder::load(&checkpoint.weights, &checkpoint.config.codec, 4).err().expect("an error");
        assert!(matches!(error, CheckpointError::MissingTensor { .. }), "{error}");
        assert!(error.to_string().contains(&tensor), "{error}");
    }
}
