//! Pieces to listen to, made by the player itself. Worker threads.

use crate::control::{ControlFrame, Lanes};
use crate::error::EngineError;
use crate::link::CHANNELS;
use crate::model::Model;
use crate::player::Player;
use crate::text::Prompt;
use std::ops::Range;
use std::sync::Arc;

/// Frames that `seconds` of a model's music have.
pub fn frames_of(model: &Model, seconds: f64) -> u32 {
    let format = model.format();
    (seconds.max(0.0) * f64::from(format.model_rate) / format.frame_samples as f64).round() as u32
}

/// Plays one piece from its anchor to the end of `steered`, with the lanes on within `steered`; both channels averaged.
/// Seed and sampling are those of `control`.
///
/// # Errors
/// When the model's numbers are not finite.
pub fn generate(
    model: &Arc<Model>,
    prompt: Arc<Prompt>,
    control: ControlFrame,
    steered: Range<u32>,
) -> Result<Vec<f32>, EngineError> {
    let mut player = Player::new(model.clone(), prompt, None);
    let mut mono = Vec::with_capacity(steered.end as usize * model.format().frame_samples);
    let mut sink =
        |_, audio: &[f32]| mono.extend(audio.chunks_exact(CHANNELS).map(|s| s.iter().sum::<f32>() / CHANNELS as f32));
    for index in 0..steered.end {
        let lanes = if steered.contains(&index) { control.lanes } else { Lanes::OFF };
        player.answer(&ControlFrame { index, lanes, ..control }, &mut sink)?;
    }
    player.answer(&ControlFrame::end(control.piece, steered.end), &mut sink)?;
    while player.is_flushing() {
        player.flush(&mut sink)?;
    }
    Ok(mono)
}
