//! A prompt changed while music plays: it takes over exactly at a frame, no frame is missing, and an ended piece keeps the
//! prompt that it ended under. Through the player, and through the handle and the runner, patient and live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiller_engine::control::ControlFrame;
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::link::{CHANNELS, FrameHeader};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::render::{Move, render};
use tiller_engine::status::State;
use tiller_engine::text::Prompt;
use tiller_tests::answers::{answers, unsteered};

const PROMPTS: [&str; 2] = ["slow warm strings pad", "fast plucked guitar arpeggio"];

fn model() -> Arc<Model> {
    Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded checkpoint loads")
}

fn prompts(model: &Model) -> Vec<Arc<Prompt>> {
    PROMPTS.map(|text| Arc::new(model.prompt(text).expect("the prompt encodes"))).to_vec()
}

/// What a player makes of `frames` frames, the second prompt from frame `change` on.
fn changed_at(model: &Arc<Model>, prompts: &[Arc<Prompt>], frames: u32, change: u32) -> Vec<f32> {
    let mut controls = unsteered(1, frames, 1.0);
    controls.iter_mut().for_each(|control| control.prompt = u32::from(control.index >= change));
    let mut player = Player::new(model.clone(), prompts[0].clone(), None);
    answers(&mut player, &controls, prompts).expect("finite").audio
}

fn first_difference(a: &[f32], b: &[f32]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b).map(|index| index / CHANNELS)
}

/// Samples of a piece that cannot know of a change at frame `change`: codebook 3 of frame `change - 3` is sampled at that
/// step, and the codec looks 2,402 samples (4 frames) ahead of what it gives.
fn untouched(model: &Model, change: u32) -> usize {
    let format = model.format();
    (change as usize).saturating_sub(format.delay_frames) * format.frame_samples
}

#[test]
fn an_ended_piece_is_flushed_under_the_prompt_that_it_ended_with() {
    let model = model();
    let prompts = prompts(&model);
    let (first, mut second) = (unsteered(1, 30, 1.0), unsteered(2, 20, 1.0));
    second.iter_mut().for_each(|control| control.prompt = 1);
    let floats = model.format().frame_samples * CHANNELS;
    let new = |prompt: usize| Player::new(model.clone(), prompts[prompt].clone(), None);
    let alone = answers(&mut new(0), &first, &prompts).expect("finite").audio;
    // The new piece's frames are there at once: the flush rides along with steps under another prompt.
    let both: Vec<ControlFrame> = first.iter().chain(&second).copied().collect();
    let beside = answers(&mut new(0), &both, &prompts).expect("finite");
    assert!(beside.of(1, floats) == alone);
    assert!(beside.of(2, floats) == answers(&mut new(1), &second, &prompts).expect("finite").audio);
    let other = answers(&mut new(1), &unsteered(1, 30, 1.0), &[]).expect("finite").audio;
    assert!(other != alone, "the prompt matters");
}

#[test]
fn it_takes_over_exactly_at_its_frame_when_nothing_hurries() {
    let run = |change: Option<f64>| {
        let handle = Handle::new();
        handle.set_prompt(PROMPTS[0]);
        handle.start().expect("threads");
        let first = handle.prompt_generation();
        let second = handle.set_prompt(PROMPTS[1]);
        let mut control = ControlFrame::new(1, 0);
        (control.prompt, control.seed, control.temperature) = (first, 8, 1.0);
        let mut moves = vec![Move { seconds: 0.0, control }];
        if let Some(seconds) = change {
            control.prompt = second;
            moves.push(Move { seconds, control });
        }
        render(&handle, 60, &moves, &mut |_| ()).expect("renders")
    };
    let (one, two, never) = (run(Some(0.5)), run(Some(0.5)), run(None));
    assert!(one == two);
    let model = model();
    let prompts = prompts(&model);
    // Step 25 is the first under the new prompt; exactly that, and not a frame beside it.
    assert!(one == changed_at(&model, &prompts, 60, 25), "frame 25");
    for other in [24, 26] {
        assert!(one != changed_at(&model, &prompts, 60, other), "frame {other}");
    }
    let first = first_difference(&one, &never).expect("the prompt matters");
    assert!((untouched(&model, 25)..26 * 640).contains(&first), "sample {first}");
}

/// Live play in a closed loop: a dozen frames are always on their way, and nothing waits for a prompt.
#[test]
fn live_it_takes_over_at_one_frame_and_none_is_missing() {
    const LONGEST: u32 = 3_000;
    const ASKED: u32 = 40;
    let model = model();
    let prompts = prompts(&model);
    let handle = Handle::new();
    handle.set_prompt(PROMPTS[0]);
    let mut link = handle.connect(64).expect("threads");
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    let floats = model.format().frame_samples * CHANNELS;
    // What would sound without the change, made beside the live music.
    let mut unchanged = Player::new(model.clone(), prompts[0].clone(), None);
    let mut control = unsteered(1, 1, 1.0)[0];
    control.prompt = handle.prompt_generation();
    let (mut headers, mut heard, mut plain) = (Vec::<FrameHeader>::new(), Vec::<f32>::new(), Vec::<f32>::new());
    let (mut frame, mut sent, mut last) = (vec![0.0; floats], 0, None);
    let mut since = Instant::now();
    loop {
        while sent < last.unwrap_or(LONGEST) && sent < headers.len() as u32 + 12 {
            if sent == ASKED {
                // The frames from here on ask for it; it sounds when it is ready.
                control.prompt = handle.set_prompt(PROMPTS[1]);
            }
            control.index = sent;
            assert!(link.send(control), "room for {sent}");
            unchanged.answer(&control, &mut |_, samples| plain.extend_from_slice(samples)).expect("finite");
            sent += 1;
            if last == Some(sent) {
                assert!(link.send(ControlFrame::end(1, sent)));
            }
        }
        match link.receive(&mut frame) {
            Some(header) => {
                headers.push(header);
                heard.extend_from_slice(&frame);
                since = Instant::now();
                let compared = heard.len().min(plain.len());
                if last.is_none()
                    && heard[compared.saturating_sub(floats)..compared]
                        != plain[compared.saturating_sub(floats)..compared]
                {
                    last = Some(sent + 10);
                }
                if header.last {
                    break;
                }
            }
            None => {
                assert!(since.elapsed() < Duration::from_secs(60), "nothing came after frame {}", headers.len());
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        assert!(headers.len() < LONGEST as usize - 20, "the new prompt was never heard");
    }
    let frames = headers.len() as u32;
    assert_eq!(headers.iter().map(|header| header.slot).collect::<Vec<_>>(), (0..frames).collect::<Vec<_>>());
    assert_eq!(link.skipped(), 0);
    // Not before it was asked for, and from one frame on as if it had always been planned for that frame.
    let first = first_difference(&heard, &changed_at(&model, &prompts, frames, u32::MAX)).expect("the prompt matters");
    assert!(first >= untouched(&model, ASKED), "sample {first}");
    let at = (first / model.format().frame_samples) as u32;
    let exact = (at..=at + model.format().delay_frames as u32 + 1)
        .filter(|change| *change >= ASKED && changed_at(&model, &prompts, frames, *change) == heard)
        .count();
    assert_eq!(exact, 1, "one frame at which the change gives what was heard");
}
