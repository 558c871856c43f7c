//! The interface between a player and whoever computes its steps, on the processor; and what a player does when a card gives
//! up. Cards themselves: card.rs.

#[cfg(feature = "candle")]
#[path = "backend/candle.rs"]
mod candle;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tiller_engine::backend::conformance::{columns, company, compare, table};
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::{Backend, BackendError, Device, Draw, Step, StepRow, Table, Tap};
use tiller_engine::decoder::sampling::{Sampler, Sampling};
use tiller_engine::decoder::{KvCache, Row, Scratch};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::status::State;
use tiller_engine::text::Prompt;
use tiller_tests::answers::{answers, unsteered};
use tiller_tests::card::prefilled;

fn models() -> Vec<Arc<Model>> {
    let fixture = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        Model::load(&ModelSource::Directory(folder), &|_| ()).unwrap()
    };
    vec![fixture("decoder-stereo"), fixture("decoder-mono"), Model::load(&ModelSource::Embedded, &|_| ()).unwrap()]
}

fn cpu(model: &Arc<Model>, capacity: usize) -> CpuBackend {
    CpuBackend::new(model.clone(), Arc::new(Pool::new(1)), capacity)
}

fn prompt(model: &Model) -> Arc<Prompt> {
    Arc::new(model.prompt("slow warm strings pad").unwrap())
}

#[test]
fn a_step_of_the_processor_is_the_decoders_pass_and_the_samplers_draw() {
    for model in models() {
        let (decoder, prompt, mut backend) = (model.decoder(), prompt(&model), cpu(&model, 32));
        let (mut a, mut b) = (KvCache::new(decoder, 32), KvCache::new(decoder, 32));
        let (mut scratch, mut sampler) = (Scratch::new(decoder, 2), Sampler::new(decoder.vocab()));
        let something = Table { values: table(&model), version: 1 };
        let tables = [&something];
        let mut logits = vec![0.0; decoder.codebooks() * decoder.vocab()];
        for (position, codes) in columns(&model, 20, 3).into_iter().enumerate() {
            let injection = (position % 3 == 1).then_some(0);
            let [text, none] = [Some(&prompt), None];
            let row = |cache, prompt| StepRow { cache, position, codes, prompt, injection, pushes: &[] };
            let draws = [Draw { sampling: Sampling::PUBLISHED, seed: 9, frame: position as u32 }];
            let taps = [Tap { block: 1, row: 1 }, Tap { block: 0, row: 0 }];
            let rows = [row(0, text), row(1, none)];
            backend.step(&Step { rows: &rows, tables: &tables, draws: &draws, taps: &taps }).unwrap();
            let row = |cache, text| Row {
                cache,
                position,
                codes,
                text,
                injection: injection.map(|_| tables[0].values.as_slice()),
                pushes: &[],
                logits: true,
            };
            let mut seen = [Vec::new(), Vec::new()];
            let mut observe = |block: usize, row: usize, output: &[f32]| match (block, row) {
                (1, 1) => seen[0] = output.to_vec(),
                (0, 0) => seen[1] = output.to_vec(),
                _ => {}
            };
            let rows = [row(0, Some(&prompt.cross)), row(1, None)];
            decoder.forward(&rows, &mut [&mut a, &mut b], &mut scratch, Some(&mut observe));
            for (index, seen) in seen.iter().enumerate() {
                backend.logits(index, &mut logits).unwrap();
                assert_eq!(logits, scratch.logits(index), "{}: position {position}", model.name());
                assert_eq!(backend.tapped(index), seen, "{}: position {position}", model.name());
            }
            for codebook in 0..decoder.codebooks() {
                let range = codebook * decoder.vocab()..(codebook + 1) * decoder.vocab();
                let (c, u) = (&scratch.logits(0)[range.clone()], &scratch.logits(1)[range]);
                let code = sampler.sample(c, u, &Sampling::PUBLISHED, 9, position as u32, codebook);
                assert_eq!(backend.code(0, codebook), code);
            }
        }
    }
}

#[test]
fn rows_keep_their_bits_in_company_and_a_backend_equals_itself() {
    for model in models() {
        let prompt = prompt(&model);
        company(&model, &prompt, &mut cpu(&model, 32), 21).unwrap();
        let compared = compare(&model, &prompt, &mut cpu(&model, 16), &mut cpu(&model, 16), 12).unwrap();
        assert_eq!((compared.logits_max_rel, compared.taps_max_rel), (0.0, 0.0));
        assert_eq!((compared.drawn_equal_share, compared.greedy_equal_share), (1.0, 1.0));
        assert!(compared.steering_max_rel > 1e-3, "{compared:?}");
    }
}

#[test]
fn a_rolled_over_window_is_a_fresh_prefill_through_the_interface() {
    for model in models() {
        let prompt = prompt(&model);
        let controls = unsteered(1, 120, 1.0);
        let mut player = Player::new(model.clone(), prompt.clone(), Some(64));
        let heard = answers(&mut player, &controls, std::slice::from_ref(&prompt)).unwrap();
        // 64 positions: the switches are at steps 64 and 96, and each keeps 32 frames.
        for (base, step) in [(0, 40), (32, 64), (32, 80), (64, 96)] {
            let mut fresh = cpu(&model, 80);
            let codes = prefilled(&model, &prompt, &mut fresh, &heard.columns, &controls[step], base, step).unwrap();
            assert_eq!(codes, heard.columns[step], "{}: step {step}", model.name());
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_told() {
    let model = &models()[0];
    let (prompt, mut backend) = (prompt(model), cpu(model, 8));
    let nan = Table { values: vec![f32::NAN; model.decoder().blocks() * model.decoder().hidden()], version: 1 };
    let tables = [&nan];
    let codes = columns(model, 1, 1)[0];
    let row = |cache, prompt| StepRow { cache, position: 0, codes, prompt, injection: Some(0), pushes: &[] };
    let draws = [Draw { sampling: Sampling::PUBLISHED, seed: 0, frame: 0 }];
    let rows = [row(0, Some(&prompt)), row(1, None)];
    let stepped = backend.step(&Step { rows: &rows, tables: &tables, draws: &draws, taps: &[] });
    assert_eq!(stepped, Err(BackendError::NotFinite));
}

/// The processor, until it answers as a lost card does.
struct Losing {
    backend: CpuBackend,
    left: usize,
}

impl Backend for Losing {
    fn step(&mut self, step: &Step<'_>) -> Result<(), BackendError> {
        if self.left == 0 {
            return Err(BackendError::Card { status: 6, text: "the GPU no longer answers".to_owned() });
        }
        self.left -= 1;
        self.backend.step(step)
    }

    fn code(&mut self, draw: usize, codebook: usize) -> u32 {
        self.backend.code(draw, codebook)
    }

    fn tapped(&self, tap: usize) -> &[f32] {
        self.backend.tapped(tap)
    }

    fn logits(&mut self, row: usize, out: &mut [f32]) -> Result<(), BackendError> {
        self.backend.logits(row, out)
    }

    fn place(&self) -> String {
        "a card".to_owned()
    }
}

#[test]
fn a_player_whose_card_is_lost_goes_on_on_the_processor_and_says_so() {
    let model = models().remove(2);
    let (prompt, pool) = (prompt(&model), Arc::new(Pool::new(1)));
    let capacity = Player::capacity(&model, Some(100));
    // At a frame, in the roll-over, at the end, and while the end is flushed.
    for left in [30, 85, 119, 121] {
        let backend = Losing { backend: CpuBackend::new(model.clone(), pool.clone(), capacity), left };
        let mut player = Player::computed_by(Box::new(backend), pool.clone(), model.clone(), prompt.clone(), Some(100));
        assert_eq!((player.place().as_str(), player.take_notice()), ("a card", None));
        let heard = answers(&mut player, &unsteered(1, 120, 1.0), std::slice::from_ref(&prompt)).unwrap();
        assert_eq!(heard.columns.len(), 120, "every frame is answered");
        if left < 120 {
            // The piece begins anew where it was lost: its first steps are those of a piece.
            let anew = answers(
                &mut Player::new(model.clone(), prompt.clone(), Some(100)),
                &unsteered(1, 120, 1.0)[left..],
                std::slice::from_ref(&prompt),
            )
            .unwrap();
            assert_eq!(heard.columns[left..], anew.columns[..]);
        }
        assert_eq!(player.place(), "CPU");
        assert_eq!(player.take_notice().as_deref(), Some("the GPU no longer answers"));
        assert_eq!(player.take_notice(), None, "once");
    }
}

#[test]
fn a_card_that_is_not_there_is_answered_by_the_processor_and_a_notice() {
    let handle = Handle::new();
    handle.set_device(Device::Gpu(77));
    handle.start().unwrap();
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    let status = handle.status();
    assert_eq!(status.device, "CPU");
    assert!(status.notice.contains("CPU") || status.notice.contains("choose another"), "{}", status.notice);
    // Left to itself, a small model does not even look for one.
    handle.set_device(Device::Auto);
    handle.set_model(ModelSource::Embedded);
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    let status = handle.status();
    assert_eq!((status.device.as_str(), status.notice.as_str()), ("CPU", ""));
}
