//! The built plugin in a host: its delay, reported and measured, and what `process` costs at 64 samples. This thread is
//! both the host's main thread and its audio thread.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tiller_engine::control::{ControlFrame, PitchClass};
use tiller_engine::handle::Handle;
use tiller_engine::link::CHANNELS;
use tiller_engine::render::{Move, render};

use super::progress::Progress;
use super::spread::Spread;
use crate::host::{Host, Outcome};
use crate::measure;
use crate::player::{Blocks, Pace};
use crate::project::Project;
use crate::score::Score;

/// The model's own rate: there the plugin's output is the engine's, byte for byte, so the delay is exact.
const MODEL_RATE: f64 = 32_000.0;
const FRAME: usize = 640;
/// What `process` is paid at.
const RATE: f64 = 48_000.0;
const BLOCK: usize = 64;
/// Frames that are compared, and the one whose first sample the knob moves at.
const FRAMES: u32 = 100;
const MOVED: u32 = 50;
const SEED: u32 = 4321;
/// Seconds of live play, and those at the beginning that do not count: the engine warms up.
const SECONDS: f64 = 12.0;
const UNCOUNTED: f64 = 2.0;

/// What the host saw.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Delay at the tight setting, 32 kHz, blocks of 64: as reported.
    pub reported: u32,
    /// As found in the output; `None` when the engine's own render is nowhere in it.
    pub found: Option<usize>,
    /// Samples from a knob's move at a frame's first sample to the first sample that differs for it.
    pub knob_to_sound: Option<usize>,
    /// Times of `process` at 48 kHz, blocks of 64, paced as a device paces them.
    pub process: Spread,
    /// Runs of silence in that play: late frames.
    pub gaps: usize,
}

impl Measured {
    /// Mean time of `process` over the time that its block lasts.
    pub fn process_share(&self) -> f64 {
        self.process.mean * 1e-3 / (BLOCK as f64 / RATE)
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        let milliseconds = |samples: usize| samples as f64 / MODEL_RATE * 1e3;
        json!({
            "rate": MODEL_RATE, "block": BLOCK,
            "latency_ms": milliseconds(self.reported as usize),
            "knob_to_sound_ms": self.knob_to_sound.map(milliseconds),
            "process": self.process.report(), "process_rate": RATE,
            "process_share_p99": self.process.p99 * 1e-3 / (BLOCK as f64 / RATE),
            "gaps": self.gaps,
        })
    }
}

/// Hosts the bundle, once for the delay and once live.
///
/// # Errors
/// The bundle cannot be hosted or its output is not what it should be.
pub fn measure(bundle: &Path, progress: &Progress) -> Outcome<Measured> {
    progress.begin("plugin: delay", 1);
    let mut host = load(bundle)?;
    host.set_offline(true)?;
    let (plain, reported) = played(&mut host, false)?;
    let (moved, _) = played(&mut host, true)?;
    let prompt = Project::open(&host.save()?)?.prompt()?.to_owned();
    drop(host);
    let expected = rendered(&prompt)?;
    let knob = MOVED as usize * FRAME;
    let knob_to_sound = measure::first_difference(&plain, &moved).and_then(|heard| heard.checked_sub(knob));
    let (process, gaps) = live(bundle, progress)?;
    Ok(Measured { reported, found: place(&expected, &plain), knob_to_sound, process, gaps })
}

fn load(bundle: &Path) -> Outcome<Host> {
    let mut host = Host::load(bundle)?;
    host.set("latency", "tight")?;
    host.set("seed", &SEED.to_string())?;
    Ok(host)
}

/// The left channel at the model's rate, and the reported delay. With the knob, the note lane goes on at frame `MOVED`.
fn played(host: &mut Host, knob: bool) -> Outcome<(Vec<f32>, u32)> {
    let mut score = Score::playing();
    // An earlier run of the same instance leaves its last value behind.
    score.param(0, "note", host.value_of("note", "off")?)?;
    if knob {
        score.param(u64::from(MOVED) * FRAME as u64, "note", host.value_of("note", "F#")?)?;
    }
    let mut player = host.activate(MODEL_RATE, BLOCK as u32)?;
    let latency = host.latency()?;
    let length = u64::from(latency) + u64::from(FRAMES) * FRAME as u64;
    let heard = player.play(&score, 0..length, Blocks::Fixed(BLOCK), Pace::FlatOut)?;
    host.deactivate(player);
    Ok((heard.left, latency))
}

/// The left channel of the engine's own render of the same piece.
fn rendered(prompt: &str) -> Outcome<Vec<f32>> {
    let handle = Handle::new();
    let mut control = ControlFrame::new(0, 0);
    control.prompt = handle.set_prompt(prompt);
    control.seed = SEED;
    let audio = render(&handle, FRAMES, &[Move { seconds: 0.0, control }], &mut |_| ()).map_err(|e| e.to_string())?;
    Ok(audio.into_iter().step_by(CHANNELS).collect())
}

/// Where a signal begins in a longer one, bit for bit. Its last frames are left out: the render ends there, the plugin's
/// piece goes on.
fn place(signal: &[f32], within: &[f32]) -> Option<usize> {
    let signal = &signal[..signal.len().saturating_sub(8 * FRAME)];
    let same = |window: &[f32]| window.iter().zip(signal).all(|(a, b)| a.to_bits() == b.to_bits());
    within.windows(signal.len().max(1)).position(same)
}

/// Times of `process` in live play with the note lane on, and how many gaps were heard.
fn live(bundle: &Path, progress: &Progress) -> Outcome<(Spread, usize)> {
    progress.begin("plugin: live (seconds)", SECONDS as usize);
    let mut host = load(bundle)?;
    let mut score = Score::playing();
    let note = PitchClass::of_key(62).name();
    score.param(0, "note", host.value_of("note", note)?)?;
    let mut player = host.activate(RATE, BLOCK as u32)?;
    let length = (SECONDS * RATE) as usize;
    let (mut times, mut left) = (Vec::with_capacity(length / BLOCK), Vec::with_capacity(length));
    let began = Instant::now();
    for at in (0..length).step_by(BLOCK) {
        let due = began + Duration::from_secs_f64(at as f64 / RATE);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        player.block(&score, at as u64, BLOCK)?;
        left.extend_from_slice(player.output(BLOCK).0);
        if at as f64 >= UNCOUNTED * RATE {
            times.push(player.last.as_secs_f32());
        }
        if at % (BLOCK * 750) == 0 {
            progress.at((at as f64 / RATE) as usize);
        }
    }
    host.deactivate(player);
    Ok((Spread::of(times), measure::gaps(&left, RATE).len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_found_where_it_begins() {
        let signal: Vec<f32> = (0..9 * FRAME).map(|i| (i as f32 * 0.1).sin()).collect();
        let mut late = vec![0.0; 77];
        late.extend_from_slice(&signal);
        assert_eq!(place(&signal, &late), Some(77));
        assert_eq!(place(&signal, &late[200..]), None);
    }
}
