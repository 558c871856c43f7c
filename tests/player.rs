//! The engine's core against slow, obvious re-computations: what streams, rolls over, flushes and skips must be exactly
//! what a whole-sequence forward gives.

use std::sync::Arc;

use tiller_engine::codec::Codes;
use tiller_engine::control::{ControlFrame, Lanes, PitchClass};
use tiller_engine::decoder::delay_pattern::DelayPattern;
use tiller_engine::decoder::sampling::{Sampler, Sampling};
use tiller_engine::decoder::{KvCache, MAX_CODEBOOKS, Row, Scratch};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::link::{CHANNELS, FrameHeader};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::render::{Move, render};
use tiller_engine::text::Prompt;
use tiller_tests::counting::{Counting, allocations};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn model() -> Arc<Model> {
    Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded checkpoint loads")
}

fn prompt(model: &Model) -> Arc<Prompt> {
    Arc::new(model.prompt("slow warm strings pad").expect("the prompt encodes"))
}

/// What a player sent, by piece.
#[derive(Default)]
struct Heard {
    headers: Vec<FrameHeader>,
    audio: Vec<f32>,
}

impl Heard {
    fn of(&self, piece: u32, samples: usize) -> Vec<f32> {
        let frames = self.headers.iter().zip(self.audio.chunks(samples));
        frames.filter(|(header, _)| header.piece == piece).flat_map(|(_, frame)| frame.iter().copied()).collect()
    }
}

fn play(player: &mut Player, controls: &[ControlFrame]) -> Heard {
    let mut heard = Heard::default();
    let mut sink = |header: FrameHeader, samples: &[f32]| {
        heard.headers.push(header);
        heard.audio.extend_from_slice(samples);
    };
    for control in controls {
        player.answer(control, &mut sink).expect("finite");
    }
    while player.is_flushing() {
        player.flush(&mut sink).expect("finite");
    }
    heard
}

/// `frames` steered frames of `piece` and its end: the note lane moves twice.
fn controls(piece: u32, frames: u32, temperature: f32) -> Vec<ControlFrame> {
    let mut controls: Vec<ControlFrame> = (0..frames)
        .map(|index| {
            let mut control = ControlFrame::new(piece, index);
            control.temperature = temperature;
            control.seed = 7 + piece;
            if index >= frames / 3 {
                let note = PitchClass::new(if index < 2 * frames / 3 { 4 } else { 9 });
                control.lanes = Lanes { note, note_strength: 0.6, strength: 1.0 };
            }
            control
        })
        .collect();
    controls.push(ControlFrame::end(piece, frames));
    controls
}

/// Codes of a piece by brute force: every step is a fresh prefill of the whole window, with new caches. The window rolls
/// over as the design says: full at `window` positions, the newest half kept.
fn reference(model: &Model, prompt: &Prompt, controls: &[ControlFrame], window: usize) -> Codes {
    let decoder = model.decoder();
    let pattern = DelayPattern::new(decoder.codebooks(), model.channels());
    let frames = controls.len() - 1;
    let (mut base, mut columns) = (0, Vec::<[u32; MAX_CODEBOOKS]>::new());
    let mut sampler = Sampler::new(decoder.vocab());
    let mut scratch = Scratch::new(decoder, 2 * (window + 8));
    let width = decoder.blocks() * decoder.hidden();
    for step in 0..frames + pattern.max_delay() {
        if step == base + window && step < frames {
            base = step - window / 2;
        }
        let positions = step - base + 1;
        let control = |step: usize| {
            let mut control = controls[step.min(frames - 1)];
            control.index = step as u32;
            control
        };
        let mut injections = Vec::new();
        for position in 0..positions {
            let mut injection = vec![0.0; width];
            let steered =
                model.notes().is_some_and(|notes| notes.write(&control(base + position).lanes, &mut injection));
            injections.push(steered.then_some(injection));
        }
        let mut rows = Vec::new();
        for position in 0..positions {
            let mut codes = [if position == 0 { decoder.bos() } else { decoder.pad() }; MAX_CODEBOOKS];
            for (codebook, code) in codes.iter_mut().enumerate().take(decoder.codebooks()) {
                if position > pattern.delay(codebook) {
                    *code = columns[base + position - 1][codebook];
                }
            }
            for (cache, text) in [(0, Some(&prompt.cross)), (1, None)] {
                let injection = injections[position].as_deref();
                rows.push(Row { cache, position, codes, text, injection, logits: position + 1 == positions });
            }
        }
        let (mut conditional, mut unconditional) = (KvCache::new(decoder, positions), KvCache::new(decoder, positions));
        decoder.forward(&rows, &mut [&mut conditional, &mut unconditional], &mut scratch, None);
        let last = rows.len() - 2;
        let control = control(step);
        let mut column = [decoder.pad(); MAX_CODEBOOKS];
        for (codebook, code) in column.iter_mut().enumerate().take(decoder.codebooks()) {
            let delay = pattern.delay(codebook);
            if step < delay || step - delay >= frames {
                continue;
            }
            let range = codebook * decoder.vocab()..(codebook + 1) * decoder.vocab();
            let (c, u) = (&scratch.logits(last)[range.clone()], &scratch.logits(last + 1)[range]);
            let sampling = Sampling {
                temperature: control.temperature,
                guidance: control.guidance,
                top_k: control.top_k as usize,
            };
            *code = sampler.sample(c, u, &sampling, control.seed, control.index, codebook);
        }
        columns.push(column);
    }
    let codes: Vec<u32> = (0..frames)
        .flat_map(|frame| {
            let columns = &columns;
            (0..decoder.codebooks()).map(move |codebook| columns[frame + pattern.delay(codebook)][codebook])
        })
        .collect();
    Codes::from_frames(&codes, decoder.codebooks()).expect("whole frames")
}

fn assert_same_audio(model: &Model, heard: &[f32], codes: &Codes) {
    let whole = model.codec().decode(codes).expect("codes of this codec");
    assert_eq!(heard.len(), whole.len() * CHANNELS);
    let rms = (whole.iter().map(|x| x * x).sum::<f32>() / whole.len() as f32).sqrt();
    assert!(rms > 1e-3, "silence proves nothing (RMS {rms})");
    let error =
        heard.chunks(CHANNELS).zip(&whole).map(|(h, w)| (h[0] - w).abs().max((h[1] - w).abs())).fold(0.0, f32::max);
    assert!(error < 1e-4 * rms.max(1.0), "largest difference {error} at RMS {rms}");
}

#[test]
fn a_streamed_piece_equals_the_whole_sequence() {
    let model = model();
    let prompt = prompt(&model);
    for temperature in [0.0, 1.0] {
        let controls = controls(1, 60, temperature);
        let heard = play(&mut Player::new(model.clone(), prompt.clone(), None), &controls);
        let slots: Vec<u32> = heard.headers.iter().map(|header| header.slot).collect();
        assert_eq!(slots, (0..60).collect::<Vec<_>>(), "every frame once, in order");
        assert!(heard.headers.iter().all(|header| header.last == (header.slot == 59)));
        assert_same_audio(&model, &heard.audio, &reference(&model, &prompt, &controls, model.window()));
    }
}

#[test]
fn a_rolled_over_window_equals_a_fresh_prefill() {
    let model = model();
    let prompt = prompt(&model);
    // Window 64 keeps 32: switches at steps 64, 96 and 128, with both lane moves in between.
    let controls = controls(1, 150, 1.0);
    let heard = play(&mut Player::new(model.clone(), prompt.clone(), Some(64)), &controls);
    assert_same_audio(&model, &heard.audio, &reference(&model, &prompt, &controls, 64));
    let unrolled = play(&mut Player::new(model.clone(), prompt.clone(), Some(200)), &controls);
    assert_ne!(heard.audio, unrolled.audio, "the roll-over must matter, or this test sees nothing");
}

#[test]
fn a_new_piece_beside_an_ending_one_changes_no_bit() {
    let model = model();
    let prompt = prompt(&model);
    let samples = model.format().frame_samples * CHANNELS;
    let (first, second) = (controls(1, 30, 1.0), controls(2, 25, 1.0));
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
    let both: Vec<ControlFrame> = controls(1, 110, 1.0).into_iter().chain(controls(2, 20, 1.0)).collect();
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
        let controls = controls(1, frames, 1.0);
        let heard = play(&mut Player::new(model.clone(), prompt.clone(), None), &controls);
        assert_eq!(heard.headers.len(), frames as usize);
        assert_same_audio_or_quiet(&model, &heard.audio, &reference(&model, &prompt, &controls, model.window()));
    }
}

/// Like [`assert_same_audio`]; the first frames of a piece may well be quiet.
fn assert_same_audio_or_quiet(model: &Model, heard: &[f32], codes: &Codes) {
    let whole = model.codec().decode(codes).expect("codes of this codec");
    assert_eq!(heard.len(), whole.len() * CHANNELS);
    for (h, w) in heard.chunks(CHANNELS).zip(&whole) {
        assert!((h[0] - w).abs() < 1e-4);
    }
}

#[test]
fn strength_zero_is_bit_equal_and_strength_is_not() {
    let model = model();
    let prompt = prompt(&model);
    assert!(model.notes().is_some(), "the embedded checkpoint has directions: {:?}", model.notice());
    let with = |lanes: Lanes| {
        let mut controls = controls(1, 40, 1.0);
        controls.iter_mut().for_each(|control| control.lanes = lanes);
        play(&mut Player::new(model.clone(), prompt.clone(), None), &controls).audio
    };
    let unsteered = with(Lanes::OFF);
    let note = PitchClass::new(5);
    assert_eq!(with(Lanes { note, note_strength: 0.0, strength: 1.0 }), unsteered);
    assert_eq!(with(Lanes { note, note_strength: 1.0, strength: 0.0 }), unsteered);
    assert_ne!(with(Lanes { note, note_strength: 0.1, strength: 1.0 }), unsteered);
    assert_ne!(with(Lanes { note, note_strength: -0.1, strength: 1.0 }), unsteered);
}

#[test]
fn skipped_frames_leave_a_gap_and_nothing_moves() {
    let model = model();
    let mut controls = controls(1, 40, 1.0);
    // Frames 20 to 24 are never computed.
    controls.drain(20..25);
    let heard = play(&mut Player::new(model.clone(), prompt(&model), None), &controls);
    let slots: Vec<u32> = heard.headers.iter().map(|header| header.slot).collect();
    let delay = model.format().delay_frames as u32;
    // Audio in flight plays on, so the hole lies `delay` slots before the skipped controls.
    let expected: Vec<u32> = (0..40).filter(|slot| !(20 - delay..25 - delay).contains(slot)).collect();
    assert_eq!(slots, expected);
}

#[test]
fn gain_ramps_over_its_own_frame_and_bypass_is_silence() {
    let model = model();
    let prompt = prompt(&model);
    let samples = model.format().frame_samples;
    let plain = controls(1, 30, 1.0);
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

#[test]
fn a_prompt_change_takes_over_exactly_at_its_frame_when_nothing_hurries() {
    let run = |change: Option<f64>| {
        let handle = Handle::new();
        handle.set_prompt("slow warm strings pad");
        handle.start().expect("threads");
        let first = handle.prompt_generation();
        let second = handle.set_prompt("fast plucked guitar arpeggio");
        let mut control = ControlFrame::new(1, 0);
        control.prompt = first;
        let mut moves = vec![Move { seconds: 0.0, control }];
        if let Some(seconds) = change {
            control.prompt = second;
            moves.push(Move { seconds, control });
        }
        render(&handle, 60, &moves, &mut |_| ()).expect("renders")
    };
    let (one, two, never) = (run(Some(0.5)), run(Some(0.5)), run(None));
    assert_eq!(one, two);
    let first_difference = one.iter().zip(&never).position(|(a, b)| a != b).expect("the prompt matters") / CHANNELS;
    // Step 25 is the first under the new prompt. Its codes are heard from the codec's look-ahead before frame 25 on, no
    // earlier; and codebook 3 of frame 22 is sampled at step 25 too.
    assert!(first_difference >= (25 - 3 - 4) * 640, "sample {first_difference}");
    assert!(first_difference < 26 * 640, "sample {first_difference}");
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
