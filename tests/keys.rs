//! Keys, controllers and the host's beat, through the built bundle: each must sound exactly as the parameter drawn on the
//! timeline that it stands for.

use serde_json::json;
use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::project::Project;
use tiller_tests::score::{Move, Score};
use tiller_tests::turn;

const RATE: f64 = 48_000.0;
const FRAME: u64 = 960;
const SECONDS: u64 = 4;

fn load() -> Outcome<Host> {
    Host::load(&dev_bundle()?)
}

/// A fresh instance with these project fields plays the score offline; its delay is taken off.
fn heard(score: &Score, fields: &[(&str, serde_json::Value)]) -> Outcome<Recording> {
    let mut host = load()?;
    let mut project = Project::open(&host.save()?)?;
    for (name, value) in fields {
        project.document[*name] = value.clone();
    }
    host.restore(&project.close()?)?;
    host.set_offline(true)?;
    let mut player = host.activate(RATE, 512)?;
    let latency = host.latency()?;
    let length = SECONDS * RATE as u64 + u64::from(latency);
    let heard = player.play(score, 0..length, Blocks::Random(3), Pace::FlatOut)?;
    host.deactivate(player);
    let heard = heard.compensated(latency as usize);
    if measure::rms(&heard.left) < 0.001 {
        return Err("silent".to_owned());
    }
    Ok(heard)
}

fn differ(a: &Recording, b: &Recording) -> Option<f64> {
    first_difference(&a.left, &b.left).map(|at| at as f64 / RATE)
}

#[test]
fn three_keys_sound_as_their_chord_drawn_on_the_timeline() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let (down, up) = (50_003, 120_011);
    let mut keys = Score::playing();
    // First inversion of A minor, the root doubled; they come up together.
    for key in [60, 64, 69, 81] {
        keys.add(down, Move::KeyDown(key));
        keys.add(up, Move::KeyUp(key));
    }
    let mut drawn = Score::playing();
    drawn.param(down, "chord_root", host.value_of("chord_root", "A")?)?;
    drawn.param(down, "chord_quality", host.value_of("chord_quality", "minor")?)?;
    // Keys that are down for a part of a frame count for all of it.
    drawn.param(up + FRAME, "chord_quality", host.value_of("chord_quality", "off")?)?;
    let (by_keys, by_lane, plain) = (heard(&keys, &[])?, heard(&drawn, &[])?, heard(&Score::playing(), &[])?);
    assert_eq!(differ(&by_keys, &by_lane), None);
    let since = differ(&by_keys, &plain);
    assert!(since.is_some_and(|at| at > 0.9 && at < 2.5), "steered from {since:?} s on, keys down at 1.04 s");
    Ok(())
}

#[test]
fn a_learned_controller_sounds_as_its_parameter_drawn_on_the_timeline() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let map = [("controllers", json!({ "74": "strength", "7": "gain" }))];
    let with_note = |score: &mut Score, host: &mut Host| score.param(0, "note", host.value_of("note", "F#")?);
    let mut turned = Score::playing();
    with_note(&mut turned, &mut host)?;
    let mut drawn = turned.clone();
    for (at, value) in [(20_001, 0), (70_003, 64), (110_007, 127)] {
        turned.add(at, Move::Controller(74, value));
        drawn.param(at, "strength", host.value_of("strength", &(f64::from(value) / 127.0).to_string())?)?;
    }
    let mut sprayed = Score::playing();
    with_note(&mut sprayed, &mut host)?;
    let plain = sprayed.clone();
    for number in 0..128 {
        sprayed.add(1, Move::Controller(number, 64));
        sprayed.add(30_000, Move::Controller(number, 64));
    }
    let (by_knob, by_lane) = (heard(&turned, &map)?, heard(&drawn, &map)?);
    assert_eq!(differ(&by_knob, &by_lane), None);
    let (plain, sprayed) = (heard(&plain, &map)?, heard(&sprayed, &map)?);
    assert_eq!(differ(&plain, &sprayed), None, "a host that sends every controller at half moves nothing");
    assert!(differ(&plain, &by_knob).is_some(), "the knob did something");
    Ok(())
}

#[test]
fn a_quantised_move_sounds_as_one_drawn_on_the_beat() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let note = host.value_of("note", "B")?;
    let mut quantised = Score::playing();
    quantised.param(0, "quantise", host.value_of("quantise", "beat")?)?;
    // At 120 beats a minute the second beat lies at 48,000 samples, which is where the frame from 47,040 on ends.
    quantised.param(30_000, "note", note)?;
    let mut drawn = Score::playing();
    drawn.param(47_500, "note", note)?;
    let (quantised, drawn, plain) = (heard(&quantised, &[])?, heard(&drawn, &[])?, heard(&Score::playing(), &[])?);
    assert_eq!(differ(&quantised, &drawn), None);
    assert!(differ(&quantised, &plain).is_some());
    Ok(())
}
