//! Random and damaged input to everything that reads what others wrote. What is taken is taken whole and comes back the same;
//! what is not is an error with words.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use tiller::lanes::LaneValues;
use tiller::latency::{self, LatencySetting};
use tiller::meters::Meters;
use tiller::midi::{KeyEvent, TimedEvent};
use tiller::presets::Preset;
use tiller::processor::{Block, Processor, ProcessorSettings};
use tiller::quantise::Grid;
use tiller::slack::LateMode;
use tiller::state::document::{LONGEST_PROMPT, Project};
use tiller::transport::{RunMode, Transport};
use tiller_engine::control::ControlKind;
use tiller_engine::error::EngineError;
use tiller_engine::handle::ModelSource;
use tiller_engine::link::{FrameHeader, RunnerLink, StreamFormat, link};
use tiller_engine::model::Model;
use tiller_engine::steering::directions::Directions;
use tiller_tests::host::{Host, Outcome};
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::random::{Random, cases};
use tiller_tests::score::{Move, Score};
use tiller_tests::turn;

use crate::corpus::{Input, committed, damaged, try_all};
use crate::{fixture, load};

/// A small checkpoint of which one file is another in every case.
struct Checkpoint(PathBuf);

impl Checkpoint {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tiller-fuzz-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(fixture("decoder-mono")).expect("the fixture").flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy");
        }
        Self(folder)
    }

    /// Whether the folder loads with these bytes for `file`; an error names the folder or what it holds.
    fn loads_with(&self, file: &str, bytes: &[u8]) -> bool {
        fs::write(self.0.join(file), bytes).expect("written");
        match Model::load(&ModelSource::Directory(self.0.clone()), &|_| ()) {
            Ok(_) => true,
            Err(EngineError::Checkpoint(error)) => {
                let text = error.to_string();
                assert!(text.len() < 1_000 && text.contains("tiller-fuzz-"), "{text}");
                false
            }
            Err(other) => panic!("not a checkpoint's error: {other}"),
        }
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // A folder that cannot be removed from the temporary directory is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Header and tensors of a weight file.
fn split(weights: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = u64::from_le_bytes(weights[..8].try_into().expect("8 bytes")) as usize;
    (weights[..8 + length].to_vec(), weights[8 + length..].to_vec())
}

#[test]
fn checkpoint_headers() {
    let checkpoint = Checkpoint::new("headers");
    let (header, tensors) = split(&fs::read(fixture("decoder-mono").join("model.safetensors")).expect("the fixture"));
    let mut inputs = committed("headers");
    inputs.push(header);
    try_all("checkpoint headers", damaged(inputs), 1_500, |Input(mut bytes)| {
        bytes.extend(&tensors);
        checkpoint.loads_with("model.safetensors", &bytes)
    });
}

#[test]
fn checkpoint_configurations() {
    let checkpoint = Checkpoint::new("configurations");
    let inputs = vec![fs::read(fixture("decoder-mono").join("config.json")).expect("the fixture")];
    try_all("checkpoint configurations", damaged(inputs), 1_000, |Input(bytes)| {
        checkpoint.loads_with("config.json", &bytes)
    });
}

#[test]
fn directions_files() {
    try_all("directions", damaged(committed("directions")), 30_000, |Input(bytes)| {
        match Directions::from_bytes(&bytes, "stranger.safetensors") {
            Ok(directions) => {
                let numbers = directions.classes.len() * directions.blocks * directions.hidden;
                assert_eq!(directions.vectors.len(), numbers);
                assert!(4 * numbers <= bytes.len() && directions.full_dose.is_finite());
                assert!(directions.vectors.iter().all(|value| value.is_finite()));
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("stranger.safetensors"), "{error}");
                false
            }
        }
    });
}

/// Equal, but for the last digits of long fractions, which serde_json reads to within a few units of the last place.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            (a - b).abs() <= 4.0 * f64::EPSILON * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && is_same(a, b))
        }
        _ => a == b,
    }
}

#[test]
fn project_documents() {
    try_all("project documents", damaged(committed("documents")), 30_000, |Input(bytes)| {
        let text = String::from_utf8_lossy(&bytes);
        match Project::parse(&text) {
            Ok((project, _)) => {
                assert!(project.prompt.chars().count() <= LONGEST_PROMPT);
                let saved = project.to_text();
                let (again, _) = Project::parse(&saved).expect("what was saved is read");
                let again = serde_json::from_str(&again.to_text()).expect("JSON");
                let saved = serde_json::from_str(&saved).expect("JSON");
                assert!(is_same(&again, &saved), "saved twice it is another: {again} after {saved}");
                true
            }
            Err(why) => {
                assert!(!why.is_empty());
                false
            }
        }
    });
}

#[test]
fn preset_files() {
    try_all("presets", damaged(committed("presets")), 30_000, |Input(bytes)| {
        match Preset::parse(&String::from_utf8_lossy(&bytes), "stranger.tiller-preset") {
            Ok(preset) => {
                assert!(preset.prompt.chars().count() <= LONGEST_PROMPT);
                assert!(!preset.name.contains(['/', '\\', '\0']) && !preset.name.starts_with('.'), "{:?}", preset.name);
                let again = Preset::parse(&preset.to_text(), "again").expect("what was written is read");
                assert_eq!(again, preset);
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("stranger.tiller-preset"), "{error}");
                false
            }
        }
    });
}

/// Whether two states differ in nothing but the last digits of fractions inside their project documents.
fn documents(a: &Value, b: &Value) -> bool {
    let inside = |state: &Value| -> Option<Value> {
        let text: String = serde_json::from_str(state["fields"]["project"].as_str()?).ok()?;
        serde_json::from_str(&text).ok()
    };
    a["params"] == b["params"] && inside(a).zip(inside(b)).is_some_and(|(a, b)| is_same(&a, &b))
}

#[test]
fn state_blobs_through_the_host() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let mut inputs = vec![host.save()?];
    for document in committed("documents") {
        let mut state: Value = serde_json::from_slice(&inputs[0][8..]).map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&document).into_owned();
        state["fields"]["project"] = serde_json::json!(serde_json::json!(text).to_string());
        let json = state.to_string();
        inputs.push([&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat());
    }
    let host = RefCell::new(host);
    try_all("state blobs", damaged(inputs), 1_500, |Input(bytes)| {
        let mut host = host.borrow_mut();
        let before = host.save().expect("it saves");
        let taken = host.restore(&bytes).is_ok();
        let saved = host.save().expect("it saves");
        assert!(taken || saved == before, "a state that was refused changed something");
        host.restore(&saved).expect("what was saved is read");
        let json = |state: &[u8]| serde_json::from_slice(&state[8..]).expect("JSON");
        let (again, saved) = (host.save().expect("it saves"), saved);
        assert!(again == saved || documents(&json(&again), &json(&saved)), "saved twice it is another");
        taken
    });
    let mut host = host.into_inner();
    let mut player = host.activate(48_000.0, 256)?;
    player.play(&Score::playing(), 0..9_600, Blocks::Fixed(256), Pace::FlatOut)?;
    host.deactivate(player);
    Ok(())
}

#[test]
fn prompts() {
    let model = Model::load(&ModelSource::Directory(fixture("decoder-mono")), &|_| ()).expect("the fixture loads");
    let written = committed("prompts").into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let strategy = prop_oneof![
        2 => damaged(committed("prompts")).prop_map(|Input(bytes)| String::from_utf8_lossy(&bytes).into_owned()),
        2 => any::<String>(),
        1 => vec(any::<char>(), 0..400).prop_map(|chars| chars.into_iter().collect::<String>()),
        1 => prop::sample::select(written.collect::<Vec<String>>()).prop_map(|text| text.repeat(40)),
    ];
    try_all("prompts", strategy, 3_000, |text| {
        let first = model.prompt(&text);
        let again = model.prompt(&text);
        match (&first, &again) {
            (Ok(first), Ok(again)) => {
                assert!(first.states == again.states && first.states.iter().all(|state| state.is_finite()));
            }
            (Err(first), Err(again)) => assert_eq!(first.to_string(), again.to_string()),
            _ => panic!("once it is a prompt, once it is none"),
        }
        first.is_ok()
    });
}

const FORMAT: StreamFormat = StreamFormat::PUBLISHED;

/// Answers everything that was sent; hands on what it was.
fn answer(runner: &mut RunnerLink, samples: &[f32], mut seen: impl FnMut(&tiller_engine::control::ControlFrame)) {
    while let Some(control) = runner.take() {
        if runner.is_skipped(&control) {
            continue;
        }
        seen(&control);
        let delay = FORMAT.delay_frames as u32;
        let slots = match control.kind {
            ControlKind::Frame => control.index.saturating_sub(delay)..(control.index + 1).saturating_sub(delay),
            ControlKind::End => control.index.saturating_sub(delay)..control.index,
        };
        for slot in slots {
            assert!(
                runner.answer(FrameHeader { piece: control.piece, slot, last: false }, samples),
                "the ring is full"
            );
        }
    }
}

fn key_event() -> impl Strategy<Value = TimedEvent> {
    let event = prop_oneof![
        4 => (any::<u8>(), any::<u8>(), any::<u8>())
            .prop_map(|(channel, key, velocity)| KeyEvent::On { channel, key, velocity }),
        4 => (0..16_u8, 40..80_u8).prop_map(|(channel, key)| KeyEvent::On { channel, key, velocity: 100 }),
        4 => (0..16_u8, 40..80_u8).prop_map(|(channel, key)| KeyEvent::Off { channel, key }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(channel, key)| KeyEvent::Off { channel, key }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(number, value)| KeyEvent::Controller { number, value }),
        1 => Just(KeyEvent::AllOff),
    ];
    (prop_oneof![8 => 0..1_300_u32, 1 => any::<u32>()], event).prop_map(|(offset, event)| TimedEvent { offset, event })
}

#[test]
fn midi_streams() {
    let blocks = vec((0..1_200_usize, vec(key_event(), 0..40), any::<bool>(), any::<bool>()), 1..16);
    try_all("midi streams", (blocks, 0..3_usize), 4_000, |(blocks, run)| {
        let (audio, mut runner) = link(FORMAT, latency::queue_frames(FORMAT, 48_000.0, 1_024));
        let settings = ProcessorSettings { sample_rate: 48_000.0, max_block: 1_024, latency: LatencySetting::Tight };
        let meters = Arc::new(Meters::default());
        let mut processor = Processor::new(audio, settings, meters.clone()).expect("a rate in range");
        let samples = [2.5; FORMAT.frame_samples * 2];
        let (mut left, mut right) = ([0.0; 1_200], [0.0; 1_200]);
        let mut last = None;
        let mut play = |length: usize, playing: bool, events: &[TimedEvent], last: &mut Option<_>| {
            let block = Block {
                samples: length,
                transport: Transport { playing, tempo: Some(120.0), ..Transport::default() },
                lanes: LaneValues::default(),
                run: [RunMode::Transport, RunMode::Keys, RunMode::Free][run],
                grid: Grid::Off,
                late: LateMode::Fade,
                latency: LatencySetting::Tight,
                events,
                offline: false,
            };
            processor.process(&block, &mut [&mut left[..length], &mut right[..length]]);
            assert!(left[..length].iter().chain(&right[..length]).all(|sample| sample.abs() <= 1.0));
            answer(&mut runner, &samples, |control| {
                if control.kind == ControlKind::Frame {
                    *last = Some((control.lanes.note, control.lanes.chord));
                }
            });
        };
        for (length, events, playing, velocity) in &blocks {
            meters.keys.velocity.store(*velocity, std::sync::atomic::Ordering::Relaxed);
            play(*length, *playing, events, &mut last);
        }
        // After all notes off nothing hangs, whatever came before.
        let off = [TimedEvent { offset: 0, event: KeyEvent::AllOff }];
        play(1_000, true, &off, &mut last);
        last = None;
        for _ in 0..12 {
            play(1_000, true, &[], &mut last);
        }
        assert!(last.is_none_or(|(note, chord)| note.is_none() && chord.is_none()), "a key hangs: {last:?}");
        !blocks.is_empty()
    });
}

#[test]
fn raw_midi_through_the_host() -> Outcome<()> {
    let _turn = turn();
    let mut random = Random::of("raw_midi_through_the_host");
    let (count, seconds) = (cases(20_000), 3);
    let mut score = Score::playing();
    for _ in 0..count {
        let bytes = random.bits().to_le_bytes();
        // Status bytes most of the time, anything else too.
        let status = if random.below(8) == 0 { bytes[0] } else { 0x80 | bytes[0] };
        score.add(random.below(seconds * 48_000) as u64, Move::Midi([status, bytes[1], bytes[2]]));
    }
    let mut host: Host = load()?;
    host.set_offline(true)?;
    let mut player = host.activate(48_000.0, 512)?;
    player.play(&score, 0..seconds as u64 * 48_000, Blocks::Random(3), Pace::FlatOut)?;
    host.deactivate(player);
    println!("{count} messages of three bytes");
    Ok(())
}
