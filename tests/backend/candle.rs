//! The candle backend on candle's CPU device, through the same interface, against the engine's own processor backend. What it
//! computes on Metal nobody has seen; what is the same there is all of it but the making of the device.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiller_engine::backend::candle::{CandleBackend, CandleModel, Numbers, processor};
use tiller_engine::backend::conformance::{columns, company, compare};
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::gpu::Gpu;
use tiller_engine::backend::{Backend, BackendError, Draw, Step, StepRow, Table, Tap, proof};
use tiller_engine::decoder::MAX_CODEBOOKS;
use tiller_engine::decoder::sampling::Sampling;
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::steering::push::Push;
use tiller_engine::text::Prompt;
use tiller_tests::answers::{answers, prompts_in_turn, steered, unsteered};
use tiller_tests::card::prefilled;

/// Of logits and block outputs in f32, over the largest: other sums of the same numbers.
const EXACT: f64 = 1e-4;

/// The same of products in f16.
const HALF: f64 = 5e-3;

fn folder_of(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture)
}

fn fixture(name: &str) -> ModelSource {
    ModelSource::Directory(folder_of(name))
}

/// Stereo; heads of an odd width and a projected text; text of the hidden width; odd sizes; the demo.
fn cases() -> Vec<ModelSource> {
    let fixtures = ["decoder-stereo", "decoder-mono", "parity-equal-width", "parity-odd"].map(fixture);
    fixtures.into_iter().chain([ModelSource::Embedded]).collect()
}

/// A model on the processor and on a device of candle's.
struct Rig {
    model: Arc<Model>,
    on_device: Arc<CandleModel>,
    prompt: Arc<Prompt>,
}

impl Rig {
    fn load(source: &ModelSource, numbers: Numbers) -> Self {
        let model = Model::load(source, &|_| ()).unwrap();
        let on_device = CandleModel::shared(&processor(numbers), source).unwrap();
        let prompt = Arc::new(model.prompt("slow warm strings pad").unwrap());
        Self { model, on_device, prompt }
    }

    fn cpu(&self, capacity: usize) -> CpuBackend {
        CpuBackend::new(self.model.clone(), Arc::new(Pool::new(1)), capacity)
    }

    fn candle(&self, capacity: usize) -> CandleBackend {
        CandleBackend::new(self.on_device.clone(), self.model.clone(), capacity).unwrap()
    }

    /// Two players of this model, on the processor and on the device.
    fn players(&self, window: usize) -> [Player; 2] {
        let backend = self.candle(Player::capacity(&self.model, Some(window)));
        let (pool, model, prompt) = (Arc::new(Pool::new(1)), self.model.clone(), self.prompt.clone());
        let on_device = Player::computed_by(Box::new(backend), pool, model.clone(), prompt.clone(), Some(window));
        [Player::new(model, prompt, Some(window)), on_device]
    }
}

#[test]
fn it_computes_what_the_processor_does() {
    for source in cases() {
        for (numbers, bound, greedy) in [(Numbers::F32, EXACT, 1.0), (Numbers::F16, HALF, 0.95)] {
            let rig = Rig::load(&source, numbers);
            let compared = compare(&rig.model, &rig.prompt, &mut rig.cpu(24), &mut rig.candle(24), 24).unwrap();
            eprintln!("{}, {numbers:?}: {compared:?}", rig.model.name());
            assert!(compared.logits_max_rel < bound && compared.taps_max_rel < bound, "{compared:?}");
            assert!(compared.greedy_equal_share >= greedy && compared.drawn_equal_share == 1.0, "{compared:?}");
            assert!(compared.steering_max_rel > 1e-3, "{compared:?}");
        }
    }
}

#[test]
fn it_shows_what_a_gpu_has_to_show() {
    for numbers in [Numbers::F32, Numbers::F16] {
        proof::examine(&Gpu::Candle(processor(numbers))).unwrap();
    }
}

#[test]
fn every_activation_is_the_processors() {
    for activation in ["gelu", "gelu_new", "relu", "silu"] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("candle-{activation}"));
        fs::create_dir_all(&folder).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(folder_of("decoder-mono").join(file), folder.join(file)).unwrap();
        }
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["decoder"]["activation_function"] = activation.into();
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let rig = Rig::load(&ModelSource::Directory(folder), Numbers::F32);
        let compared = compare(&rig.model, &rig.prompt, &mut rig.cpu(6), &mut rig.candle(6), 6).unwrap();
        assert!(compared.logits_max_rel < EXACT && compared.greedy_equal_share == 1.0, "{activation}: {compared:?}");
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    for source in cases() {
        for numbers in [Numbers::F32, Numbers::F16] {
            let rig = Rig::load(&source, numbers);
            company(&rig.model, &rig.prompt, &mut rig.candle(21), 21).unwrap();
        }
    }
}

#[test]
fn a_rolled_over_window_is_a_fresh_prefill() {
    for source in [fixture("decoder-stereo"), ModelSource::Embedded] {
        let rig = Rig::load(&source, Numbers::F32);
        let controls = unsteered(1, 100, 1.0);
        let [mut exact, mut player] = rig.players(64);
        let prompts = std::slice::from_ref(&rig.prompt);
        let heard = answers(&mut player, &controls, prompts).unwrap();
        assert_eq!(heard.work.iter().filter(|work| work.switched).count(), 2);
        for (base, step) in [(0, 40), (32, 64), (32, 80), (64, 96)] {
            let mut fresh = rig.candle(80);
            let codes =
                prefilled(&rig.model, &rig.prompt, &mut fresh, &heard.columns, &controls[step], base, step).unwrap();
            assert_eq!(codes, heard.columns[step], "{}: step {step}", rig.model.name());
        }
        // The same draws as the processor's, which a difference in the last bits does not move.
        assert_eq!(heard.columns, answers(&mut exact, &controls, prompts).unwrap().columns);
    }
}

#[test]
fn pieces_that_end_and_lanes_that_move_are_played_as_on_the_processor() {
    let rig = Rig::load(&ModelSource::Embedded, Numbers::F32);
    // Each begins before the one before it is flushed; the first is rebuilt under its steering.
    let mut controls = steered(1, 90, 0.0);
    controls.extend(steered(2, 12, 0.0));
    controls.extend(steered(3, 2, 0.0));
    let [mut exact, mut player] = rig.players(64);
    let prompts = std::slice::from_ref(&rig.prompt);
    let want = answers(&mut exact, &controls, prompts).unwrap();
    let heard = answers(&mut player, &controls, prompts).unwrap();
    assert_eq!(heard.work, want.work);
    assert!(want.work.iter().any(|work| work.rebuilt > 0) && want.work.iter().any(|work| work.switched));
    assert_eq!(heard.columns, want.columns);
    assert_eq!(heard.headers, want.headers);
    assert_eq!(heard.audio, want.audio, "of the same codes the same codec makes the same samples");
    // Steering is heard: the same pieces without it are others.
    let mut plain = unsteered(1, 90, 0.0);
    plain.extend(unsteered(2, 12, 0.0));
    plain.extend(unsteered(3, 2, 0.0));
    let [_, mut player] = rig.players(64);
    assert_ne!(answers(&mut player, &plain, prompts).unwrap().columns, heard.columns);
}

#[test]
fn prompts_change_under_way() {
    let rig = Rig::load(&fixture("decoder-stereo"), Numbers::F32);
    let (controls, prompts) = prompts_in_turn(&rig.model).unwrap();
    let [mut exact, mut player] = rig.players(64);
    let changed = answers(&mut player, &controls, &prompts).unwrap().columns;
    assert_eq!(changed, answers(&mut exact, &controls, &prompts).unwrap().columns);
    let [_, mut player] = rig.players(64);
    assert_ne!(changed, answers(&mut player, &unsteered(1, 24, 0.0), &prompts).unwrap().columns, "prompts are heard");
}

/// Tables of a push that is told apart by `seed`, with a block that it leaves alone.
struct Held {
    directions: Vec<f32>,
    levels: Vec<f32>,
    limits: Vec<f32>,
}

impl Held {
    fn new(model: &Model, seed: f32) -> Self {
        let (blocks, hidden) = (model.decoder().blocks(), model.decoder().hidden());
        let mut directions: Vec<f32> = (0..blocks * hidden).map(|i| (i as f32 * 0.7 + seed).sin()).collect();
        for direction in directions.chunks_exact_mut(hidden) {
            let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
            direction.iter_mut().for_each(|x| *x /= norm);
        }
        let levels = (0..2 * blocks).map(|i| if i % 2 == 0 { -0.1 } else { 1.0 + seed }).collect();
        let limits = (0..blocks).map(|block| if block == 0 { 0.0 } else { 0.8 * block as f32 }).collect();
        Self { directions, levels, limits }
    }

    fn push(&self, reach: f32, share: f32) -> Push<'_> {
        Push { directions: &self.directions, levels: &self.levels, limits: &self.limits, reach, share }
    }
}

#[test]
fn rows_are_held_as_on_the_processor() {
    for source in [fixture("decoder-mono"), ModelSource::Embedded] {
        let rig = Rig::load(&source, Numbers::F32);
        let (mut exact, mut candle, model) = (rig.cpu(16), rig.candle(16), &rig.model);
        let held = [Held::new(model, 0.2), Held::new(model, 1.4)];
        // Both directions, one after the other on one row, and one alone on another.
        let pushes = [held[0].push(1.0, 0.5), held[1].push(-0.6, 0.5)];
        let taps = [Tap { block: 0, row: 0 }, Tap { block: model.decoder().blocks() - 1, row: 1 }];
        let taps = [taps, [Tap { block: 1, row: 0 }, Tap { block: 1, row: 3 }]];
        let mut moved = 0.0f32;
        for (position, codes) in columns(model, 12, 5).into_iter().enumerate() {
            let row = |cache: usize, pushes| {
                let prompt = cache.is_multiple_of(2).then_some(&rig.prompt);
                StepRow { cache, position, codes, prompt, injection: None, pushes }
            };
            let rows = [row(0, &pushes[..]), row(1, &pushes[1..]), row(2, &[]), row(3, &pushes[..1])];
            let plain = [0, 1, 2, 3].map(|cache| row(cache, &[]));
            let draws = [Draw { sampling: Sampling::PUBLISHED, seed: 3, frame: position as u32 }; 2];
            // The held pass last: its keys and values stay.
            for (rows, held) in [(plain, false), (rows, true)] {
                for taps in &taps {
                    let step = Step { rows: &rows, tables: &[], draws: &draws, taps };
                    exact.step(&step).unwrap();
                    candle.step(&step).unwrap();
                    for tap in 0..taps.len() {
                        let (a, b) = (exact.tapped(tap), candle.tapped(tap));
                        let largest = a.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                        let apart = a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                        assert!(f64::from(apart) < EXACT * f64::from(largest), "{held}, {taps:?}: {apart:e}");
                    }
                }
                let mut logits = [0, 1].map(|_| vec![0.0; model.decoder().codebooks() * model.decoder().vocab()]);
                for row in 0..4 {
                    exact.logits(row, &mut logits[0]).unwrap();
                    candle.logits(row, &mut logits[1]).unwrap();
                    let largest = logits[0].iter().fold(0.0f32, |most, x| most.max(x.abs()));
                    let [a, b] = &logits;
                    let apart = a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                    assert!(f64::from(apart) < EXACT * f64::from(largest), "{held}, row {row}: {apart:e}");
                    if row == 0 {
                        moved = if held { moved - largest } else { largest };
                    }
                }
            }
            assert!(moved != 0.0, "the pushes change something");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_told() {
    for numbers in [Numbers::F32, Numbers::F16] {
        let rig = Rig::load(&fixture("decoder-stereo"), numbers);
        let mut backend = rig.candle(8);
        let values = vec![f32::NAN; rig.model.decoder().blocks() * rig.model.decoder().hidden()];
        let nan = Table { values, version: 1 };
        let tables = [&nan];
        let codes: [u32; MAX_CODEBOOKS] = columns(&rig.model, 1, 1)[0];
        let row = |cache, prompt| StepRow { cache, position: 0, codes, prompt, injection: Some(0), pushes: &[] };
        let draws = [Draw { sampling: Sampling::PUBLISHED, seed: 0, frame: 0 }];
        let rows = [row(0, Some(&rig.prompt)), row(1, None)];
        let stepped = backend.step(&Step { rows: &rows, tables: &tables, draws: &draws, taps: &[] });
        match numbers {
            Numbers::F32 => assert_eq!(stepped, Err(BackendError::NotFinite)),
            // Whose fault it was the processor finds out, which goes on.
            Numbers::F16 => assert!(matches!(&stepped, Err(BackendError::Card { text, .. }) if text.contains("f16"))),
        }
    }
}

#[test]
fn what_the_device_cannot_do_is_told_and_the_processor_plays() {
    let rig = Rig::load(&fixture("decoder-stereo"), Numbers::F32);
    // Caches that are too short are as good as a device that gives up in mid-piece.
    let backend = Box::new(rig.candle(20));
    let (pool, model, prompt) = (Arc::new(Pool::new(1)), rig.model.clone(), rig.prompt.clone());
    let mut player = Player::computed_by(backend, pool, model.clone(), prompt.clone(), Some(64));
    assert_eq!(player.place(), "candle on the CPU");
    let (controls, prompts) = (unsteered(1, 40, 1.0), std::slice::from_ref(&rig.prompt));
    let heard = answers(&mut player, &controls, prompts).unwrap();
    assert_eq!((heard.columns.len(), player.place().as_str()), (40, "CPU"));
    let notice = player.take_notice().unwrap();
    assert!(notice.contains("no longer answers") && notice.contains("CPU plays"), "{notice}");
    let anew = answers(&mut Player::new(model, prompt, Some(64)), &controls[20..], prompts).unwrap();
    assert_eq!(heard.columns[20..], anew.columns[..], "the piece begins anew where it was lost");
}

#[test]
fn a_gpu_of_candles_is_chosen_through_the_same_door() {
    let source = fixture("decoder-mono");
    let model = Model::load(&source, &|_| ()).unwrap();
    let gpu = Gpu::Candle(processor(Numbers::F32));
    assert_eq!((gpu.number(), gpu.to_string().as_str()), (0, "candle on the CPU"));
    let prompt = Arc::new(model.prompt("slow warm strings pad").unwrap());
    let play = || {
        let backend = gpu.backend(&source, &model, Some(64)).unwrap();
        let mut player = Player::computed_by(backend, model.pool(), model.clone(), prompt.clone(), Some(64));
        gpu.decode(&source, &model, &mut player).unwrap();
        answers(&mut player, &unsteered(1, 12, 1.0), std::slice::from_ref(&prompt)).unwrap()
    };
    let (first, second) = (play(), play());
    assert_eq!(first.columns, second.columns);
    let mut exact = Player::new(model.clone(), prompt.clone(), Some(64));
    let want = answers(&mut exact, &unsteered(1, 12, 1.0), std::slice::from_ref(&prompt)).unwrap();
    assert_eq!((first.columns, first.audio), (want.columns, want.audio));
}
