//! Offline rendering through the same runner as the plugin: a list of timed moves in, audio out. Any thread that may
//! wait.

use std::time::{Duration, Instant};

use crate::control::ControlFrame;
use crate::error::EngineError;
use crate::handle::Handle;
use crate::link::{CHANNELS, StreamFormat};
use crate::status::State;

/// How long nothing may come before a render gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a render ended early.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The engine could not be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model is not ready.
    #[error("the model is not ready: {0}")]
    NotReady(String),
    /// No frame came for a minute.
    #[error("the engine made nothing for a minute after frame {0}")]
    Stalled(u32),
}

/// A change of the control values from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Seconds since the anchor. The frame whose last sample lies at or after it is the first to hear of it.
    pub seconds: f64,
    /// The new values; piece, index and kind are filled in.
    pub control: ControlFrame,
}

/// Index of the first frame whose last sample lies at or after `seconds`.
pub fn frame_of(seconds: f64, format: StreamFormat) -> u32 {
    let sample = (seconds * f64::from(format.model_rate)).ceil().max(0.0) as u64;
    (sample / format.frame_samples as u64) as u32
}

/// Renders `frames` frames. `moves` are in order of time; before the first one, an unsteered frame with the newest prompt and directions.
/// `progress` hears how many frames are done. Returns interleaved samples, `frames * frame_samples * CHANNELS`.
///
/// # Errors
/// When the model is not ready, or the engine stops answering.
pub fn render(
    handle: &Handle,
    frames: u32,
    moves: &[Move],
    progress: &mut dyn FnMut(u32),
) -> Result<Vec<f32>, RenderError> {
    handle.start()?;
    match handle.wait_settled(PATIENCE) {
        State::Ready => {}
        State::Failed(why) => return Err(RenderError::NotReady(why)),
        other => return Err(RenderError::NotReady(format!("{other:?}"))),
    }
    // As many frames in flight as keep the runner busy, no more than the queue holds.
    let ahead = 64;
    let mut link = handle.connect(ahead)?;
    link.set_patient(true);
    let format = link.format();
    let mut audio = Vec::with_capacity(frames as usize * format.frame_samples * CHANNELS);
    let mut frame = vec![0.0; format.frame_samples * CHANNELS];
    let mut control = ControlFrame::new(1, 0);
    (control.prompt, control.directions) = (handle.prompt_generation(), handle.directions_generation());
    let (mut sent, mut received, mut ended) = (0, 0, false);
    let mut moves = moves.iter().peekable();
    let mut since = Instant::now();
    while received < frames {
        while !ended {
            if sent == frames {
                ended = link.send(ControlFrame::end(1, frames));
                break;
            }
            while let Some(next) = moves.next_if(|next| frame_of(next.seconds, format) <= sent) {
                control = next.control;
            }
            (control.piece, control.index) = (1, sent);
            if !link.send(control) {
                break;
            }
            sent += 1;
        }
        match link.receive(&mut frame) {
            Some(_) => {
                audio.extend_from_slice(&frame);
                received += 1;
                progress(received);
                since = Instant::now();
            }
            None if link.is_dead(1) || since.elapsed() > PATIENCE => return Err(RenderError::Stalled(received)),
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    Ok(audio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_belongs_to_the_frame_whose_last_sample_hears_it() {
        let format = StreamFormat::PUBLISHED;
        assert_eq!(frame_of(0.0, format), 0);
        // Sample 639 is the last of frame 0, sample 640 the first of frame 1.
        assert_eq!(frame_of(639.0 / 32_000.0, format), 0);
        assert_eq!(frame_of(640.0 / 32_000.0, format), 1);
        assert_eq!(frame_of(1.0, format), 50);
        assert_eq!(frame_of(-3.0, format), 0);
    }
}
