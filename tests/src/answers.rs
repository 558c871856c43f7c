//! Drives the engine's core without threads: control frames in, what it answered out.

use std::sync::Arc;

use tiller_engine::control::{ControlFrame, ControlKind, Lanes, PitchClass};
use tiller_engine::error::EngineError;
use tiller_engine::link::FrameHeader;
use tiller_engine::model::Model;
use tiller_engine::player::{Player, StepWork};
use tiller_engine::text::Prompt;

/// What a player answered.
#[derive(Default)]
pub struct Answers {
    /// One for each frame of audio.
    pub headers: Vec<FrameHeader>,
    /// Interleaved.
    pub audio: Vec<f32>,
    /// Codes that the step of each control frame sampled, `[step][codebook]`.
    pub columns: Vec<Vec<u32>>,
    /// What that step computed.
    pub work: Vec<StepWork>,
}

impl Answers {
    /// Audio of one piece, `floats` to a frame.
    pub fn of(&self, piece: u32, floats: usize) -> Vec<f32> {
        let frames = self.headers.iter().zip(self.audio.chunks(floats));
        frames.filter(|(header, _)| header.piece == piece).flat_map(|(_, frame)| frame.iter().copied()).collect()
    }

    /// The slots that were answered, in order.
    pub fn slots(&self) -> Vec<u32> {
        self.headers.iter().map(|header| header.slot).collect()
    }
}

/// Plays `controls` and flushes what is left. Before a frame whose `prompt` is another than the last one's, that one of
/// `prompts` is set, as the runner does.
///
/// # Errors
/// When the model's numbers are not finite.
pub fn answers(
    player: &mut Player,
    controls: &[ControlFrame],
    prompts: &[Arc<Prompt>],
) -> Result<Answers, EngineError> {
    let Answers { mut headers, mut audio, mut columns, mut work } = Answers::default();
    let mut sink = |header: FrameHeader, samples: &[f32]| {
        headers.push(header);
        audio.extend_from_slice(samples);
    };
    let mut current = None;
    for control in controls {
        if control.kind == ControlKind::Frame && current != Some(control.prompt) {
            current = Some(control.prompt);
            if let Some(prompt) = prompts.get(control.prompt as usize) {
                player.set_prompt(prompt.clone());
            }
        }
        player.answer(control, &mut sink)?;
        if control.kind == ControlKind::Frame {
            columns.push(player.last_column().unwrap_or_default().to_vec());
            work.push(player.last_work());
        }
    }
    while player.is_flushing() {
        player.flush(&mut sink)?;
    }
    Ok(Answers { headers, audio, columns, work })
}

/// `frames` frames of `piece` and its end. The note lane is moved at a third and at two thirds.
pub fn steered(piece: u32, frames: u32, temperature: f32) -> Vec<ControlFrame> {
    let mut controls = unsteered(piece, frames, temperature);
    for control in &mut controls[(frames / 3) as usize..frames as usize] {
        let note = PitchClass::new(if control.index < 2 * frames / 3 { 4 } else { 9 });
        control.lanes = Lanes { note, note_strength: 0.6, strength: 1.0, ..Lanes::OFF };
    }
    controls
}

/// `frames` frames of `piece` and its end, without steering.
pub fn unsteered(piece: u32, frames: u32, temperature: f32) -> Vec<ControlFrame> {
    let frame = |index| {
        let mut control = ControlFrame::new(piece, index);
        (control.temperature, control.seed) = (temperature, 7 + piece);
        control
    };
    let mut controls: Vec<ControlFrame> = (0..frames).map(frame).collect();
    controls.push(ControlFrame::end(piece, frames));
    controls
}

/// As [`unsteered`], in greedy codes, through more prompts of a decoder fixture than a device keeps, and the first one again in the
/// end; and the prompts.
///
/// # Errors
/// When the model has no words for one.
pub fn prompts_in_turn(model: &Model) -> Result<(Vec<ControlFrame>, Vec<Arc<Prompt>>), EngineError> {
    let texts = ["slow warm strings pad", "fast loud", "pad", "warm", "strings", "loud pad, fast"];
    let prompts = texts.iter().map(|text| model.prompt(text).map(Arc::new)).collect::<Result<_, _>>()?;
    let mut controls = unsteered(1, 24, 0.0);
    controls.iter_mut().for_each(|control| control.prompt = control.index / 4 % 6);
    controls[22].prompt = 0;
    controls[23].prompt = 0;
    Ok((controls, prompts))
}
