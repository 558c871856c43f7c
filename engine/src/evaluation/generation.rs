//! Pieces to listen to, made by the player itself. Worker threads.

use crate::control::{ControlFrame, Lanes};
use crate::error::EngineError;
use crate::link::CHANNELS;
use crate::model::Model;
use crate::player::Player;
use crate::steering::table::Steering;
use crate::text::Prompt;
use std::ops::Range;
use std::sync::Arc;

/// Frames that `seconds` of a model's music have.
pub fn frames_of(model: &Model, seconds: f64) -> u32 {
    let format = model.format();
    (seconds.max(0.0) * f64::from(format.model_rate) / format.frame_samples as f64).round() as u32
}

/// Plays one piece of `frames` frames from its anchor, each as `control` says; both channels averaged.
///
/// # Errors
/// When the model's numbers are not finite.
pub fn play(
    model: &Arc<Model>,
    prompt: Arc<Prompt>,
    frames: u32,
    control: impl Fn(u32) -> ControlFrame,
) -> Result<Vec<f32>, EngineError> {
    let mut player = Player::new(model.clone(), prompt, None);
    record(&mut player, frames, control)
}

/// The same by a player of the caller's making.
fn record(player: &mut Player, frames: u32, control: impl Fn(u32) -> ControlFrame) -> Result<Vec<f32>, EngineError> {
    let mut mono = Vec::with_capacity(frames as usize * player.model().format().frame_samples);
    let mut sink =
        |_, audio: &[f32]| mono.extend(audio.chunks_exact(CHANNELS).map(|s| s.iter().sum::<f32>() / CHANNELS as f32));
    for index in 0..frames {
        player.answer(&control(index), &mut sink)?;
    }
    player.answer(&ControlFrame::end(control(0).piece, frames), &mut sink)?;
    while player.is_flushing() {
        player.flush(&mut sink)?;
    }
    Ok(mono)
}

/// Plays one piece of `frames` frames from its anchor, each as `control` says, steered by tables of the caller's.
///
/// # Errors
/// As [`play`].
pub fn play_by(
    model: &Arc<Model>,
    prompt: Arc<Prompt>,
    frames: u32,
    steering: Steering,
    control: impl Fn(u32) -> ControlFrame,
) -> Result<Vec<f32>, EngineError> {
    let mut player = Player::new(model.clone(), prompt, None);
    player.set_steering(steering);
    record(&mut player, frames, control)
}

/// Plays one piece from its anchor to the end of `steered`, with the lanes on within `steered`. Seed and sampling are
/// those of `control`.
///
/// # Errors
/// As [`play`].
pub fn generate(
    model: &Arc<Model>,
    prompt: Arc<Prompt>,
    control: ControlFrame,
    steered: Range<u32>,
) -> Result<Vec<f32>, EngineError> {
    play(model, prompt, steered.end, |index| {
        let lanes = if steered.contains(&index) { control.lanes } else { Lanes::OFF };
        ControlFrame { index, lanes, ..control }
    })
}
