//! The engine's core against slow, obvious re-computations: what streams, flushes and skips must be exactly what a
//! whole-sequence forward gives.

use std::sync::Arc;

use tiller_engine::control::{ControlFrame, Lanes, MOST_HOP, PitchClass};
use tiller_engine::embedded;
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::link::CHANNELS;
use tiller_engine::model::{Model, NOTES_FILE};
use tiller_engine::player::Player;
use tiller_engine::precision::Precision;
use tiller_engine::render::render;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::doses::Lane;
use tiller_engine::steering::push::Manner;
use tiller_engine::text::Prompt;
use tiller_tests::answers::{Answers, answers, steered};
use tiller_tests::counting::{Counting, allocations};
use tiller_tests::prefill::{self, same_audio};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn model() -> Arc<Model> {
    Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded checkpoint loads")
}

fn prompt(model: &Model) -> Arc<Prompt> {
    Arc::new(model.prompt("slow warm strings pad").expect("the prompt encodes"))
}

fn play(player: &mut Player, controls: &[ControlFrame]) -> Answers {
    answers(player, controls, &[]).expect("finite")
}

/// What `heard` must be, by a fresh prefill for every step.
fn whole(model: &Model, prompt: &Arc<Prompt>, controls: &[ControlFrame]) -> Vec<f32> {
    let window = model.window();
    let columns =
        prefill::columns(model, std::slice::from_ref(prompt), controls, window, &prefill::rebuild_prompt(window));
    prefill::audio(model, &columns).expect("codes of this codec")
}

#[test]
fn a_streamed_piece_equals_the_whole_sequence() {
    let model = model();
    let prompt = prompt(&model);
    for temperature in [0.0, 1.0] {
        let controls = steered(1, 60, temperature);
        let heard = play(&mut Player::new(model.clone(), prompt.clone(), None), &controls);
        assert_eq!(heard.slots(), (0..60).collect::<Vec<_>>(), "every frame once, in order");
        assert!(heard.headers.iter().all(|header| header.last == (header.slot == 59)));
        same_audio(&heard.audio, &whole(&model, &prompt, &controls)).expect("the whole sequence");
    }
}

#[test]
fn frames_that_wait_for_each_other_sound_the_same() {
    let model = model();
    let prompt = prompt(&model);
    for frames in [1, 2, 9, 41] {
        let mut controls = steered(1, frames, 1.0);
        let alone = play(&mut Player::new(model.clone(), prompt.clone(), None), &controls);
        // Two at a time; then changed on the way, as when the latency setting is.
        for changed in [u32::MAX, frames / 2] {
            controls.iter_mut().for_each(|control| control.hop = if control.index < changed { MOST_HOP } else { 1 });
            let mut player = Player::new(model.clone(), prompt.clone(), None);
            let mut most = 0;
            for control in &controls[..frames as usize] {
                let mut together = 0;
                player.answer(control, &mut |_, _| together += 1).expect("finite");
                most = most.max(together);
            }
            assert_eq!(most, if frames > 20 { 2 } else { most }, "frames come two at a time");
            let heard = play(&mut Player::new(model.clone(), prompt.clone(), None), &controls);
            assert_eq!((heard.headers, heard.audio), (alone.headers.clone(), alone.audio.clone()), "{frames} frames");
        }
    }
}

#[test]
fn a_new_piece_beside_an_ending_one_changes_no_bit() {
    let model = model();
    let prompt = prompt(&model);
    let samples = model.format().frame_samples * CHANNELS;
    let (first, second) = (steered(1, 30, 1.0), steered(2, 25, 1.0));
    let alone = |controls: &[ControlFrame]| play(&mut Player::new(model.clone(), prompt.clone(), None), controls).audio;
    let mut player = Player::new(model.clone(), prompt.clone(), None);
    // Three times over, so that caches and streams are reused.
    for round in 0..3 {
        let both: Vec<ControlFrame> = first.iter().chain(&second).copied().collect();
        let heard = play(&mut player, &both);
        assert_eq!(heard.of(1, samples), alone(&first), "round {round}");
        assert_eq!(heard.of(2, samples), alone(&second), "round {round}");
    }
}

#[test]
fn no_step_allocates() {
    let model = model();
    let mut player = Player::new(model.clone(), prompt(&model), Some(64));
    // Steering moves, two roll-overs, an end beside the next piece's beginning.
    let both: Vec<ControlFrame> = steered(1, 110, 1.0).into_iter().chain(steered(2, 20, 1.0)).collect();
    let before = allocations();
    let mut frames = 0;
    for control in &both {
        player.answer(control, &mut |_, _| frames += 1).expect("finite");
    }
    while player.is_flushing() {
        player.flush(&mut |_, _| frames += 1).expect("finite");
    }
    assert_eq!((allocations() - before, frames), (0, 130));
    let before = allocations();
    drop(std::hint::black_box(vec![1u8; 16]));
    assert_eq!(allocations() - before, 1, "the count counts");
}

#[test]
fn a_short_piece_is_whole() {
    let model = model();
    let prompt = prompt(&model);
    for frames in [1, 2, 5, 8] {
        let controls = steered(1, frames, 1.0);
        let heard = play(&mut Player::new(model.clone(), prompt.clone(), None), &controls);
        assert_eq!(heard.headers.len(), frames as usize);
        // The first frames of a piece may well be quiet, so the difference is all that can be asked for.
        let whole = whole(&model, &prompt, &controls);
        assert_eq!(heard.audio.len(), whole.len());
        assert!(heard.audio.iter().zip(&whole).all(|(h, w)| (h - w).abs() < 1e-4), "{frames} frames");
    }
}

#[test]
fn strength_zero_is_bit_equal_and_strength_is_not() {
    let model = model();
    let prompt = prompt(&model);
    assert!(model.steering().has(Lane::Note), "the embedded checkpoint has directions: {:?}", model.notice());
    let with = |lanes: Lanes| {
        let mut controls = steered(1, 40, 1.0);
        controls.iter_mut().for_each(|control| control.lanes = lanes);
        play(&mut Player::new(model.clone(), prompt.clone(), None), &controls).audio
    };
    let unsteered = with(Lanes::OFF);
    let note = PitchClass::new(5);
    assert_eq!(with(Lanes { note, note_strength: 0.0, strength: 1.0, ..Lanes::OFF }), unsteered);
    assert_eq!(with(Lanes { note, note_strength: 1.0, strength: 0.0, ..Lanes::OFF }), unsteered);
    assert_ne!(with(Lanes { note, note_strength: 0.1, strength: 1.0, ..Lanes::OFF }), unsteered);
    assert_ne!(with(Lanes { note, note_strength: -0.1, strength: 1.0, ..Lanes::OFF }), unsteered);
}

/// The embedded checkpoint with its own notes, added rather than held: what holds needs no guard.
fn adding_model() -> Arc<Model> {
    let own =
        embedded::FILES.iter().find(|(name, _)| *name == NOTES_FILE).expect("the embedded checkpoint has directions");
    let notes = Directions::from_bytes(own.1, NOTES_FILE).expect("directions");
    let added = Directions { manner: Manner::Add, full_dose: 0.2, ..notes };
    Model::steered_by(&ModelSource::Embedded, Precision::F32, &[added]).expect("steers")
}

#[test]
fn the_guard_gives_less_once_the_target_is_there_and_nothing_before() {
    let model = adding_model();
    let prompt = prompt(&model);
    let with = |guard: bool, strength: f32| {
        let mut controls = steered(1, 150, 1.0);
        let lanes = Lanes { note: PitchClass::new(5), note_strength: 1.0, strength, guard, ..Lanes::OFF };
        controls.iter_mut().for_each(|control| control.lanes = lanes);
        play(&mut Player::new(model.clone(), prompt.clone(), None), &controls).audio
    };
    assert_eq!(with(true, 0.0), with(false, 0.0), "looking changes nothing");
    let (guarded, whole) = (with(true, 1.0), with(false, 1.0));
    // It looks for half a second, 25 steps, before it gives less. Step 25 gives the last codebook of frame 22, and the
    // codec looks four frames ahead.
    let first = guarded.iter().zip(&whole).position(|(a, b)| a != b).expect("the target comes within three seconds");
    assert!(first >= 18 * model.format().frame_samples * CHANNELS, "already at sample {first}");
    assert_eq!(guarded, with(true, 1.0), "nothing depends on time");
}

#[test]
fn skipped_frames_leave_a_gap_and_nothing_moves() {
    let model = model();
    let mut controls = steered(1, 40, 1.0);
    // Frames 20 to 24 are never computed.
    controls.drain(20..25);
    let heard = play(&mut Player::new(model.clone(), prompt(&model), None), &controls);
    let delay = model.format().delay_frames as u32;
    // Audio in flight plays on, so the hole lies `delay` slots before the skipped controls.
    let expected: Vec<u32> = (0..40).filter(|slot| !(20 - delay..25 - delay).contains(slot)).collect();
    assert_eq!(heard.slots(), expected);
}

#[test]
fn gain_ramps_over_its_own_frame_and_bypass_is_silence() {
    let model = model();
    let prompt = prompt(&model);
    let samples = model.format().frame_samples;
    let plain = steered(1, 30, 1.0);
    let mut moved = plain.clone();
    moved[12..].iter_mut().for_each(|control| control.gain = 0.5);
    moved[20..].iter_mut().for_each(|control| control.bypass = true);
    let play = |controls: &[ControlFrame]| play(&mut Player::new(model.clone(), prompt.clone(), None), controls).audio;
    let (plain, moved) = (play(&plain), play(&moved));
    let frame = |audio: &[f32], frame: usize| audio[frame * samples * CHANNELS..][..samples * CHANNELS].to_vec();
    assert_eq!(frame(&plain, 11), frame(&moved, 11));
    assert_eq!(frame(&moved, 12).last().copied(), frame(&plain, 12).last().map(|x| x * 0.5));
    assert_eq!(frame(&moved, 13), frame(&plain, 13).iter().map(|x| x * 0.5).collect::<Vec<_>>());
    assert!(frame(&moved, 21).iter().all(|x| *x == 0.0));
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_outlives_its_handle() {
    let named = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("tiller-"))
            .count()
    };
    // Other tests of this process have handles of their own: count in a child that runs nothing else.
    if std::env::var_os("TILLER_ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "no_thread_outlives_its_handle"])
            .env("TILLER_ALONE", "1")
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("child").success());
        return;
    }
    for _ in 0..5 {
        let handle = Handle::new();
        assert_eq!(named(), 0, "nothing starts before it is asked to");
        handle.start().expect("threads");
        // A thread names itself when it first runs.
        let born = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            named() == 2
        });
        assert!(born, "loader and runner");
        render(&handle, 10, &[], &mut |_| ()).expect("renders");
        drop(handle);
        // Joined threads leave /proc a moment later.
        let gone = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            named() == 0
        });
        assert!(gone, "a thread is left");
    }
}
