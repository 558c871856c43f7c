//! MIDI program changes through the built bundle: each must sound exactly as its preset drawn on the timeline, prompt included.

use std::path::Path;

use serde_json::{Value, json};
use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::project::Project;
use tiller_tests::score::{Move, Score};
use tiller_tests::turn;

const RATE: f64 = 48_000.0;
const SECONDS: u64 = 4;

/// The factory's presets, as the plugin has them.
fn factory() -> Outcome<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin/presets/factory.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

fn heard(score: &Score, prompt: &str) -> Outcome<Recording> {
    let mut host = Host::load(&dev_bundle()?)?;
    let mut project = Project::open(&host.save()?)?;
    project.document["prompt"] = json!(prompt);
    host.restore(&project.close()?)?;
    host.set_offline(true)?;
    let mut player = host.activate(RATE, 512)?;
    let latency = host.latency()?;
    let length = SECONDS * RATE as u64 + u64::from(latency);
    let heard = player.play(score, 0..length, Blocks::Random(5), Pace::FlatOut)?;
    host.deactivate(player);
    // What MIDI selects is never written into the project.
    let saved = Project::open(&host.save()?)?;
    if saved.prompt()? != prompt {
        return Err(format!("the project's prompt became {:?}", saved.prompt()));
    }
    let heard = heard.compensated(latency as usize);
    if measure::rms(&heard.left) < 0.001 {
        return Err("silent".to_owned());
    }
    Ok(heard)
}

/// A preset's parameters drawn at `at`.
fn draw(score: &mut Score, at: u64, preset: &Value) -> Outcome<()> {
    let mut host = Host::load(&dev_bundle()?)?;
    let parameters = preset["parameters"].as_object().ok_or("a preset has parameters")?;
    for (name, text) in parameters {
        score.param(at, name, host.value_of(name, text.as_str().ok_or("texts")?)?)?;
    }
    Ok(())
}

fn differ(a: &Recording, b: &Recording) -> Option<f64> {
    first_difference(&a.left, &b.left).map(|at| at as f64 / RATE)
}

#[test]
fn a_program_sounds_as_its_preset_drawn_on_the_timeline() -> Outcome<()> {
    let _turn = turn();
    let presets = factory()?;
    let at = 60_001;
    // Corridor has a chord, an attack and a seed; Marimba Ostinato a note, a tempo and a grid.
    for number in [8, 11] {
        let preset = &presets[number];
        let prompt = preset["prompt"].as_str().ok_or("a preset has a prompt")?;
        let mut selected = Score::playing();
        selected.add(at, Move::Program(number as u8));
        let mut drawn = Score::playing();
        draw(&mut drawn, at, preset)?;
        let (selected, drawn, plain) =
            (heard(&selected, prompt)?, heard(&drawn, prompt)?, heard(&Score::playing(), prompt)?);
        assert_eq!(differ(&selected, &drawn), None, "{}", preset["name"]);
        assert!(differ(&selected, &plain).is_some_and(|when| when > 1.0), "{} did nothing", preset["name"]);
    }
    Ok(())
}

#[test]
fn a_programs_prompt_sounds_from_its_very_frame_and_a_bounce_repeats() -> Outcome<()> {
    let _turn = turn();
    let presets = factory()?;
    let preset = &presets[3];
    let prompt = preset["prompt"].as_str().ok_or("a preset has a prompt")?;
    let mut at_start = Score::playing();
    at_start.add(0, Move::Program(3));
    let mut drawn = Score::playing();
    draw(&mut drawn, 0, preset)?;
    assert_eq!(differ(&heard(&at_start, "calm flute melody, slow")?, &heard(&drawn, prompt)?), None);
    let mut later = Score::playing();
    later.add(70_003, Move::Program(3));
    later.add(120_000, Move::Program(4));
    // There is no such program: nothing moves.
    later.add(150_000, Move::Program(127));
    let bounces = [heard(&later, "calm flute melody, slow")?, heard(&later, "calm flute melody, slow")?];
    assert_eq!(differ(&bounces[0], &bounces[1]), None);
    assert!(differ(&bounces[0], &heard(&Score::playing(), "calm flute melody, slow")?).is_some_and(|when| when > 1.2));
    Ok(())
}

#[test]
fn what_is_drawn_after_a_program_is_the_hosts_again() -> Outcome<()> {
    let _turn = turn();
    let prompt = "medium electric bass groove";
    let mut host = Host::load(&dev_bundle()?)?;
    let (note, seed) = (host.value_of("note", "D#")?, host.value_of("seed", "99")?);
    let mut selected = Score::playing();
    selected.add(30_000, Move::Program(4));
    selected.param(90_000, "note", note)?;
    selected.param(90_000, "seed", seed)?;
    let mut drawn = Score::playing();
    draw(&mut drawn, 30_000, &factory()?[4])?;
    drawn.param(90_000, "note", note)?;
    drawn.param(90_000, "seed", seed)?;
    assert_eq!(differ(&heard(&selected, prompt)?, &heard(&drawn, prompt)?), None);
    Ok(())
}
