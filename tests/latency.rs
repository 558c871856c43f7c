//! The reported delay is the measured one: at the model's rate the plugin gives the engine's offline render byte for
//! byte, L later; at other rates the correlation with it peaks at L.

use tiller_engine::control::{ControlFrame, PitchClass};
use tiller_engine::handle::Handle;
use tiller_engine::link::CHANNELS;
use tiller_engine::render::{Move, render};
use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::project::Project;
use tiller_tests::score::Score;
use tiller_tests::turn;

/// Frames of the comparison.
const FRAMES: u32 = 150;
/// Frame from which on the note lane steers.
const STEERED_FROM: u32 = 60;
const STRENGTH: f32 = 0.5;
const SEED: u32 = 4321;

/// The engine's own render of a fresh project, both channels.
fn rendered(prompt: &str, steered: bool) -> Outcome<Recording> {
    let handle = Handle::new();
    let mut control = ControlFrame::new(0, 0);
    control.prompt = handle.set_prompt(prompt);
    control.seed = SEED;
    control.lanes.strength = 1.0;
    control.lanes.note_strength = STRENGTH;
    let mut moves = vec![Move { seconds: 0.0, control }];
    if steered {
        control.lanes.note = PitchClass::new(6);
        moves.push(Move { seconds: f64::from(STEERED_FROM) * 0.02, control });
    }
    let audio = render(&handle, FRAMES, &moves, &mut |_| {}).map_err(|e| e.to_string())?;
    let channel = |index: usize| audio.iter().skip(index).step_by(CHANNELS).copied().collect();
    Ok(Recording { left: channel(0), right: channel(1) })
}

fn project(host: &mut Host) -> Outcome<String> {
    Ok(Project::open(&host.save()?)?.prompt()?.to_owned())
}

fn played(host: &mut Host, score: &Score, rate: f64, seconds: f64) -> Outcome<(Recording, u32)> {
    host.set_offline(true)?;
    let mut player = host.activate(rate, 512)?;
    let latency = host.latency()?;
    let length = u64::from(latency) + (seconds * rate) as u64;
    let heard = player.play(score, 0..length, Blocks::Random(5), Pace::FlatOut)?;
    host.deactivate(player);
    Ok((heard, latency))
}

#[test]
fn at_the_models_rate_the_plugin_is_the_render_l_later() -> Outcome<()> {
    let _turn = turn();
    let mut host = Host::load(&dev_bundle()?)?;
    let prompt = project(&mut host)?;
    host.set("seed", &SEED.to_string())?;
    host.set("note_strength", &STRENGTH.to_string())?;
    let sharp = host.value_of("note", "F#")?;
    let mut score = Score::playing();
    // The last sample of the first steered frame.
    score.param(u64::from(STEERED_FROM) * 640 + 639, "note", sharp)?;
    let (heard, latency) = played(&mut host, &score, 32_000.0, f64::from(FRAMES) * 0.02)?;
    assert_eq!(measure::first_sound(&heard.left).map(|i| i >= latency as usize), Some(true), "it sounds before L");
    let music = heard.compensated(latency as usize);
    let expected = rendered(&prompt, true)?;
    // The piece goes on in the plugin and ends in the render: the codec's last frames may differ.
    let common = (FRAMES as usize - 8) * 640;
    assert_eq!(first_difference(&music.left[..common], &expected.left[..common]), None, "left");
    assert_eq!(first_difference(&music.right[..common], &expected.right[..common]), None, "right");
    let plain = rendered(&prompt, false)?;
    let heard_from = first_difference(&plain.left, &expected.left).ok_or("steering was not heard")?;
    assert!(heard_from / 640 + 8 >= STEERED_FROM as usize, "steering from frame {}", heard_from / 640);
    Ok(())
}

#[test]
fn at_other_rates_the_correlation_peaks_at_l() -> Outcome<()> {
    let _turn = turn();
    let mut host = Host::load(&dev_bundle()?)?;
    let prompt = project(&mut host)?;
    host.set("seed", &SEED.to_string())?;
    let reference = rendered(&prompt, false)?;
    for rate in [44_100.0, 48_000.0, 96_000.0] {
        let (heard, latency) = played(&mut host, &Score::playing(), rate, 1.5)?;
        let expected = measure::at_rate(&reference.left[..16_000], 32_000.0, rate);
        // Around the reported delay, as far as a quarter of a frame to either side.
        let reach = (rate / 200.0) as usize;
        let from = latency as usize - reach;
        let peak = from + measure::delay(&expected, &heard.left[from..], 2 * reach);
        assert!(peak.abs_diff(latency as usize) <= 1, "{rate} Hz: reported {latency}, measured {peak}");
    }
    Ok(())
}
