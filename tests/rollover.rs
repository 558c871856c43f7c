//! A rolled-over window is a fresh prefill of BOS and the kept frames, at every size, mono and stereo, steered and not,
//! and when the prompt changes before, in and after a rebuild: the player against brute force, code for code.

use std::path::Path;
use std::sync::Arc;

use tiller_engine::control::{ControlFrame, Lanes, PitchClass};
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::player::{MAX_ROWS, Player, StepWork};
use tiller_engine::text::Prompt;
use tiller_tests::answers::{Answers, answers, unsteered};
use tiller_tests::prefill::{self, rebuild_prompt, same_audio};

const WINDOW: u32 = 64;
/// With 64 positions, 32 are kept and rebuilt beside steps 32 to 63, 64 to 95 ...; the switches are between.
const REBUILD: u32 = 32;

fn fixtures() -> Vec<Arc<Model>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rollover");
    let fixture = |name: &str| prefill::steered_fixture(name, &folder).expect("the fixture loads");
    vec![fixture("decoder-mono"), fixture("decoder-stereo")]
}

fn demo() -> Arc<Model> {
    Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded checkpoint loads")
}

fn prompts(model: &Model) -> Vec<Arc<Prompt>> {
    let prompt = |text: &str| Arc::new(model.prompt(text).expect("the prompt encodes"));
    ["slow warm strings pad", "fast loud", "pad, pad, pad, warm"].map(prompt).to_vec()
}

/// The note lane moves every 11 frames, so also inside every kept half; it is off for a while.
fn moving(frames: u32) -> Vec<ControlFrame> {
    let mut controls = unsteered(1, frames, 1.0);
    for control in &mut controls {
        let turn = control.index / 11;
        let note = PitchClass::new((turn * 5 % 12) as u8).filter(|_| turn % 5 != 3);
        let note_strength = if turn % 2 == 0 { 0.7 } else { -0.4 };
        control.lanes = Lanes { note, note_strength, strength: 1.0, ..Lanes::OFF };
    }
    controls
}

/// Each of `changes` is the first frame under the next prompt.
fn with_prompts(mut controls: Vec<ControlFrame>, changes: &[u32]) -> Vec<ControlFrame> {
    for control in &mut controls {
        control.prompt = changes.iter().filter(|change| **change <= control.index).count() as u32;
    }
    controls
}

fn play(model: &Arc<Model>, prompts: &[Arc<Prompt>], controls: &[ControlFrame], window: u32) -> Answers {
    let mut player = Player::new(model.clone(), prompts[0].clone(), Some(window as usize));
    answers(&mut player, controls, prompts).expect("finite")
}

fn assert_brute_force(model: &Arc<Model>, controls: &[ControlFrame], window: u32, what: &str) {
    let prompts = prompts(model);
    let heard = play(model, &prompts, controls, window);
    assert_eq!(heard.slots(), (0..controls.len() as u32 - 1).collect::<Vec<_>>(), "every frame once, in order");
    let window = window as usize;
    let columns = prefill::columns(model, &prompts, controls, window, &rebuild_prompt(window));
    let at = heard.columns.iter().zip(&columns).position(|(heard, expected)| heard != expected);
    assert_eq!(at, None, "{}, window {window}, {what}: first step with other codes", model.name());
    let whole = prefill::audio(model, &columns).expect("codes of this codec");
    same_audio(&heard.audio, &whole).unwrap_or_else(|why| panic!("{}, window {window}, {what}: {why}", model.name()));
}

#[test]
fn every_window_equals_a_fresh_prefill() {
    for model in fixtures() {
        for (window, frames) in [(64, 150), (65, 150), (100, 230)] {
            assert_brute_force(&model, &unsteered(1, frames, 1.0), window, "unsteered");
            assert_brute_force(&model, &moving(frames), window, "steered");
        }
    }
    assert_brute_force(&demo(), &moving(110), WINDOW, "steered");
}

#[test]
fn what_the_parity_is_about_is_in_the_codes() {
    for model in fixtures().into_iter().chain([demo()]) {
        let (name, prompts) = (model.name(), prompts(&model));
        let play = |controls: &[ControlFrame], window| play(&model, &prompts, controls, window).columns;
        let rolled = play(&moving(150), WINDOW);
        assert!(play(&moving(150), 200) != rolled, "{name}: the roll-over");
        assert!(play(&unsteered(1, 150, 1.0), WINDOW) != rolled, "{name}: the steering");
        assert!(play(&with_prompts(moving(150), &[55]), WINDOW) != rolled, "{name}: the prompt");
        for codebook in 0..model.decoder().codebooks() {
            let mut codes: Vec<u32> = rolled.iter().map(|column| column[codebook]).collect();
            codes.sort_unstable();
            codes.dedup();
            assert!(codes.len() > 10, "{name}: {} codes in codebook {codebook}", codes.len());
        }
    }
}

/// Prompt changes relative to the first rebuild: before it, at its first step, in it, at its last, at the switch, after,
/// twice in one, and one in each of two.
const CHANGES: [&[u32]; 9] =
    [&[20], &[REBUILD - 1], &[REBUILD], &[45], &[WINDOW - 1], &[WINDOW], &[70], &[40, 50], &[60, 85]];

#[test]
fn every_position_keeps_the_prompt_that_it_first_had() {
    for model in fixtures() {
        for changes in CHANGES {
            assert_brute_force(&model, &with_prompts(moving(140), changes), WINDOW, &format!("{changes:?}"));
        }
    }
    for changes in [&[55][..], &[50, 58]] {
        assert_brute_force(&demo(), &with_prompts(moving(100), changes), WINDOW, &format!("{changes:?}"));
    }
}

#[test]
fn other_rules_for_a_rebuilds_prompt_would_show() {
    for model in fixtures() {
        let prompts = prompts(&model);
        let controls = with_prompts(moving(140), &[55]);
        let columns = |rule: prefill::RebuildPrompt<'_>| prefill::columns(&model, &prompts, &controls, 64, rule);
        let defined = columns(&rebuild_prompt(64));
        assert!(columns(&|switch, _| switch - 32) != defined, "the prompt at the rebuild's first step");
        assert!(columns(&|switch, _| switch) != defined, "the prompt at the switch");
        assert!(columns(&|switch, position| switch - 31 + position) != defined, "the prompt of the step after");
    }
}

#[test]
fn a_prompt_change_adds_no_row_to_any_step() {
    let model = demo();
    let prompts = prompts(&model);
    let plain = play(&model, &prompts, &moving(140), WINDOW);
    for (step, work) in plain.work[..140].iter().enumerate() {
        let step = step as u32;
        let rebuilt = usize::from(step >= REBUILD);
        let switched = step >= WINDOW && (step - WINDOW).is_multiple_of(32);
        assert_eq!(*work, StepWork { rows: 2 + 2 * rebuilt, rebuilt, switched }, "step {step}");
        assert!(work.rows <= MAX_ROWS);
    }
    for changes in CHANGES {
        let changed = play(&model, &prompts, &with_prompts(moving(140), changes), WINDOW);
        assert_eq!(changed.work, plain.work, "{changes:?}");
    }
}
