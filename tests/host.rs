//! The built CLAP bundle in a host that is not ours: parameters, project state, latency, bad projects.

use std::process::Command;

use serde_json::json;
use tiller_tests::host::{Host, Outcome, dev_bundle, param_id};
use tiller_tests::measure;
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::project::Project;
use tiller_tests::score::Score;
use tiller_tests::turn;

/// Name, automatable. Songs and control surfaces refer to these: they never change.
const FROZEN: [(&str, bool); 24] = [
    ("note", true),
    ("note_strength", true),
    ("chord_root", true),
    ("chord_quality", true),
    ("chord_strength", true),
    ("tempo_strength", true),
    ("trait_1_strength", true),
    ("trait_2_strength", true),
    ("trait_3_strength", true),
    ("trait_4_strength", true),
    ("strength", true),
    ("attack", true),
    ("release", true),
    ("temperature", true),
    ("guidance", true),
    ("top_k", true),
    ("seed", true),
    ("gain", true),
    ("quantise", true),
    ("run", true),
    ("late", false),
    ("latency", false),
    ("latency_frames", false),
    ("bypass", true),
];

fn load() -> Outcome<Host> {
    Host::load(&dev_bundle()?)
}

#[test]
fn parameters_keep_their_ids() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let params = host.params()?;
    for (name, automatable) in FROZEN {
        let param = params.iter().find(|p| p.id == param_id(name)).ok_or_else(|| format!("no parameter `{name}`"))?;
        assert_eq!(param.automatable, automatable, "{name}");
        assert_eq!(host.value(name)?, param.default, "{name}");
    }
    Ok(())
}

#[test]
fn texts_mean_the_same_both_ways() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let texts = [
        ("note", "off"),
        ("note", "C"),
        ("note", "F#"),
        ("note", "B"),
        ("chord_root", "A#"),
        ("chord_quality", "off"),
        ("chord_quality", "minor"),
        ("tempo_strength", "0.500"),
        ("trait_1_strength", "-1.000"),
        ("trait_4_strength", "0.250"),
        ("attack", "0.25 s"),
        ("quantise", "bar"),
        ("run", "transport"),
        ("run", "free"),
        ("run", "keys"),
        ("late", "auto"),
        ("late", "wait"),
        ("late", "fade"),
        ("latency", "tight"),
        ("latency", "safe"),
        ("latency", "frames"),
        ("note_strength", "-0.250"),
        ("seed", "9999"),
    ];
    for (name, text) in texts {
        let value = host.value_of(name, text)?;
        assert_eq!(host.text_of(name, value)?, text, "{name}");
    }
    assert!(host.value_of("note", "H").is_err());
    Ok(())
}

#[test]
fn a_saved_state_comes_back_byte_for_byte() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    for (name, text) in [("note", "A"), ("note_strength", "-0.5"), ("seed", "1234"), ("gain", "-3"), ("run", "free")] {
        host.set(name, text)?;
    }
    let mut project = Project::open(&host.save()?)?;
    project.document["prompt"] = json!("slow \"warm\" strings\nwith a ☂");
    project.document["from_the_future"] = json!({ "kept": [1, 2.5, null] });
    let bytes = project.close()?;
    let mut second = load()?;
    second.restore(&bytes)?;
    let saved = second.save()?;
    let mut third = load()?;
    third.restore(&saved)?;
    assert_eq!(third.save()?, saved);
    let read_back = Project::open(&saved)?;
    assert_eq!(read_back.prompt()?, "slow \"warm\" strings\nwith a ☂");
    assert_eq!(read_back.document["from_the_future"], json!({ "kept": [1, 2.5, null] }));
    assert_eq!(third.value("seed")?, host.value("seed")?);
    let note = third.value("note")?;
    assert_eq!(third.text_of("note", note)?, "A");
    // Saving while it plays gives the same bytes.
    let player = third.activate(48_000.0, 256)?;
    assert_eq!(third.save()?, saved);
    third.deactivate(player);
    Ok(())
}

#[test]
fn latency_follows_the_setting_and_nothing_else() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let mut reported = Vec::new();
    for setting in ["tight", "safe"] {
        host.set("latency", setting)?;
        let player = host.activate(32_000.0, 64)?;
        reported.push(host.latency()?);
        host.deactivate(player);
    }
    // 1 + 3 + 4 frames, and 1.5 or 5 frames of room.
    assert_eq!(reported, [6_080, 8_320]);
    Ok(())
}

#[test]
fn it_plays_with_the_transport_and_is_silent_without() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    host.set_offline(true)?;
    let mut player = host.activate(44_100.0, 512)?;
    let latency = u64::from(host.latency()?);
    let heard = player.play(&Score::playing(), 0..latency + 88_200, Blocks::Fixed(512), Pace::FlatOut)?;
    let music = heard.compensated(latency as usize);
    let rms = measure::rms(&music.left);
    assert!(rms > 0.005, "two seconds of music have an RMS of {rms}");
    assert_eq!(measure::gaps(&music.left, 44_100.0), []);
    // From the start on, not from whenever the model was ready.
    let onset = measure::rms(&music.left[..4_410]);
    assert!(onset > 0.000_5, "the first 100 ms have an RMS of {onset}");
    host.deactivate(player);
    host.set_offline(false)?;
    let mut player = host.activate(44_100.0, 512)?;
    for score in [Score::stopped(), Score::without_transport()] {
        let heard = player.play(&score, 0..44_100, Blocks::Fixed(512), Pace::FlatOut)?;
        assert_eq!(measure::first_sound(&heard.left), None);
    }
    host.deactivate(player);
    Ok(())
}

/// Set in the process that looks into the plugin's own log, which is opened when the plugin is loaded.
const LOG: &str = "NICE_LOG";

#[test]
fn a_missing_model_is_named_and_nothing_is_lost() -> Outcome<()> {
    let _turn = turn();
    let missing = "/no/such/folder/musicgen-tiny";
    if std::env::var_os(LOG).is_none() {
        let log = std::env::temp_dir().join(format!("tiller-log-{}.txt", std::process::id()));
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let again = Command::new(program)
            .args(["--exact", "a_missing_model_is_named_and_nothing_is_lost", "--nocapture"])
            .env(LOG, &log)
            .output()
            .map_err(|e| e.to_string())?;
        let said = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let _ = std::fs::remove_file(&log);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(said.contains(missing), "the log does not name the folder:\n{said}");
        return Ok(());
    }
    let mut host = load()?;
    host.set("seed", "77")?;
    let mut project = Project::open(&host.save()?)?;
    project.document["prompt"] = json!("a prompt to keep");
    project.document["model"] = json!({ "name": "musicgen-tiny", "hash": "abc", "path": missing });
    host.restore(&project.close()?)?;
    host.set_offline(true)?;
    let mut player = host.activate(48_000.0, 512)?;
    let began = std::time::Instant::now();
    let heard = player.play(&Score::playing(), 0..48_000, Blocks::Fixed(512), Pace::FlatOut)?;
    assert_eq!(measure::first_sound(&heard.left), None, "a project without its model is silent");
    assert!(began.elapsed().as_secs() < 9, "it waited {:?} for a model that cannot come", began.elapsed());
    host.deactivate(player);
    let saved = Project::open(&host.save()?)?;
    assert_eq!(saved.prompt()?, "a prompt to keep");
    assert_eq!(saved.document["model"], json!({ "name": "musicgen-tiny", "hash": "abc", "path": missing }));
    let seed = host.value("seed")?;
    assert_eq!(host.text_of("seed", seed)?, "77");
    Ok(())
}

/// Saved by the version before traits: document 1, twenty parameters.
const STATE_1: &[u8] = include_bytes!("fixtures/states/document-1.clap-state");

#[test]
fn a_project_of_document_1_is_migrated_and_loses_nothing() -> Outcome<()> {
    let _turn = turn();
    let old = Project::open(STATE_1)?;
    assert_eq!(old.document["version"], 1);
    let mut host = load()?;
    // What the old project knows nothing of is not left over from whatever was open before.
    let mut other = Project::open(&host.save()?)?;
    other.document["traits"] = json!([{ "name": "x", "hash": "", "path": "/x" }, null, null, null]);
    host.restore(&other.close()?)?;
    host.set("trait_3_strength", "0.5")?;
    host.restore(STATE_1)?;
    let saved = Project::open(&host.save()?)?;
    assert_eq!(saved.document["version"], 2);
    assert_eq!(saved.document["traits"], serde_json::Value::Null);
    for field in ["prompt", "model", "controllers", "latch", "window"] {
        assert_eq!(saved.document[field], old.document[field], "{field}");
    }
    for (name, text) in
        [("note", "F#"), ("note_strength", "-0.400"), ("seed", "4321"), ("gain", "-3.0 dB"), ("run", "free")]
    {
        let value = host.value(name)?;
        assert_eq!(host.text_of(name, value)?, text, "{name}");
    }
    for slot in 1..=4 {
        let name = format!("trait_{slot}_strength");
        let value = host.value(&name)?;
        assert_eq!(host.text_of(&name, value)?, "0.000", "{name}");
    }
    Ok(())
}
