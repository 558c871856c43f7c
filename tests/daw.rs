//! The built VST3 in a DAW engine that we did not write: DawDreamer (JUCE), each render in a cold process of its own.
//! It claims real time and pulls as fast as blocks come back; settings are the defaults.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tiller_engine::control::{PitchClass, Quality};
use tiller_engine::evaluation::chord_ear::{hear_chord, profiles};
use tiller_engine::evaluation::chroma::{Chroma, share_on_target};
use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::midi_file::midi_file;
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::project::Project;
use tiller_tests::score::{Move, Score};
use tiller_tests::{turn, undisturbed};

const RATE: usize = 48_000;
const SECONDS: f64 = 6.0;

/// Files of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("tiller-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The VST3 beside the dev CLAP, and the Python that `cargo xtask test` set up.
fn tools() -> Outcome<(PathBuf, PathBuf)> {
    let clap = dev_bundle()?;
    let target = clap.ancestors().nth(3).ok_or("the bundle is not under target/bundled/dev")?;
    let python = target.join(if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" });
    if !python.exists() {
        return Err(format!("{} is missing: `cargo xtask test` makes it", python.display()));
    }
    Ok((clap.with_extension("vst3"), python))
}

/// One render in a process of its own: interleaved samples and the reported latency.
fn render(folder: &Path, block: usize, midi: &Path, automation: &Value) -> Outcome<(Vec<f32>, usize)> {
    let midi = midi.display().to_string();
    let (samples, latency, _) =
        render_with(folder, block, SECONDS, &["--midi", &midi, "--automation", &automation.to_string()])?;
    Ok((samples, latency))
}

/// One render in a process of its own, by these arguments of `render.py`: interleaved samples, the reported latency, the report.
fn render_with(folder: &Path, block: usize, seconds: f64, more: &[&str]) -> Outcome<(Vec<f32>, usize, Value)> {
    let (plugin, python) = tools()?;
    let out = folder.join("out.f32");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/render.py");
    let output = Command::new(python)
        // Nothing here wants a screen, and one that happens to be there is somebody else's.
        .env_remove("DISPLAY")
        .arg(script)
        .arg("--plugin")
        .arg(plugin)
        .arg("--out")
        .arg(&out)
        .args(["--rate", &RATE.to_string(), "--block", &block.to_string(), "--seconds", &seconds.to_string()])
        .args(more)
        .output()
        .map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let report: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).ok_or("no report")?;
    let latency = report["latency"].as_u64().ok_or("no latency in the report")? as usize;
    let bytes = std::fs::read(&out).map_err(|e| e.to_string())?;
    Ok((bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(), latency, report))
}

#[test]
fn a_cold_bounce_is_music_from_the_start_and_repeats_itself() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-cold")?;
    let midi = folder.0.join("keys.mid");
    // Two beats of E from 1 s, one key shorter than a frame, G# to the end.
    let keys = midi_file(&[(64, 960, 1_920), (67, 2_000, 2_005), (68, 2_880, 5_760)]);
    std::fs::write(&midi, keys).map_err(|e| e.to_string())?;
    let ramp: Vec<[f64; 2]> = (0..40).map(|i| [f64::from(i) * 6_007.0, 0.5 + f64::from(i) / 80.0]).collect();
    let automation = json!({ "Note strength": ramp });
    let (first, latency) = render(&folder.0, 512, &midi, &automation)?;
    assert!(latency > 0, "no latency is reported");
    assert!(first.iter().all(|s| s.is_finite()));
    let left: Vec<f32> = first.iter().step_by(2).copied().collect();
    let music = &left[latency..];
    let onset = measure::rms(&music[..RATE / 10]);
    assert!(onset > 0.000_5, "the first 100 ms have an RMS of {onset}");
    for (second, part) in music.chunks(RATE).enumerate() {
        let rms = measure::rms(part);
        assert!(rms > 0.002, "second {second} has an RMS of {rms}");
    }
    assert_eq!(measure::gaps(&left, RATE as f64), []);
    let (second, _) = render(&folder.0, 512, &midi, &automation)?;
    assert_eq!(first_difference(&first, &second), None, "two renders differ");
    // The keys and the automation are heard: without them it is other music, but the same before the first key sounds.
    let none = folder.0.join("none.mid");
    std::fs::write(&none, midi_file(&[])).map_err(|e| e.to_string())?;
    let (plain, _) = render(&folder.0, 512, &none, &automation)?;
    let at = first_difference(&first, &plain).ok_or("the keys were not heard")? / 2;
    assert!(at >= latency + RATE - RATE / 5 && at < latency + RATE + RATE / 5, "first key heard at {at}");
    Ok(())
}

#[test]
fn block_sizes_do_not_change_a_sample() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-blocks")?;
    let midi = folder.0.join("keys.mid");
    std::fs::write(&midi, midi_file(&[(66, 480, 960), (71, 3_360, 4_320)])).map_err(|e| e.to_string())?;
    // DawDreamer looks at automation once a block: 24,000 is a multiple of all three sizes.
    let automation = json!({
        "Note": [[0, 0.0], [24_000, 7.0 / 12.0], [144_000, 3.0 / 12.0], [216_000, 0.0]],
        "Note strength": [[0, 1.0], [72_000, 0.25], [120_000, 0.75]],
        "Gain": [[0, 0.8], [192_000, 0.6]],
    });
    let (reference, latency) = render(&folder.0, 64, &midi, &automation)?;
    assert!(measure::rms(&reference) > 0.002, "silent");
    for block in [480, 1_000] {
        let (other, other_latency) = render(&folder.0, block, &midi, &automation)?;
        let common = (reference.len() - 2 * latency).min(other.len() - 2 * other_latency);
        let difference = first_difference(&reference[2 * latency..][..common], &other[2 * other_latency..][..common]);
        assert_eq!(difference, None, "block size {block}");
    }
    Ok(())
}

/// One channel of interleaved samples.
fn channel(samples: &[f32], index: usize) -> Vec<f32> {
    samples.iter().skip(index).step_by(2).copied().collect()
}

/// A host that waits for late frames: a busy machine must not make two renders differ.
fn patient(more: Value) -> String {
    let mut set = json!({ "Late": 0.5 });
    if let (Some(set), Value::Object(more)) = (set.as_object_mut(), more) {
        set.extend(more);
    }
    set.to_string()
}

#[test]
fn every_parameter_swept_for_half_a_minute_stays_sound() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-sweep")?;
    let sweep = || render_with(&folder.0, 512, 30.0, &["--sweep", "--set", &patient(json!({}))]);
    let (first, _, report) = sweep()?;
    let swept = report["swept"].as_array().map_or(0, Vec::len);
    // All but `late` and the two of the latency, which no host may automate.
    assert_eq!(swept, 21, "not every parameter was swept: {}", report["swept"]);
    assert!(first.iter().all(|sample| sample.is_finite() && sample.abs() < 8.0), "beyond what 12 dB of gain can do");
    // It is silent while bypass is on or `run` says keys, and each start sounds only L later.
    let heard = first.chunks(RATE / 5).filter(|part| measure::rms(part) > 0.000_5).count();
    println!("{swept} parameters swept, {heard} of {} tenths of a second sound", first.len().div_ceil(RATE / 5));
    assert!(heard > 30, "{heard} tenths of a second sound");
    let (second, ..) = sweep()?;
    assert_eq!(first_difference(&first, &second), None, "two sweeps differ");
    Ok(())
}

#[test]
fn a_saved_state_gives_a_new_instance_the_same_samples() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-state")?;
    let path = |name: &str| folder.0.join(name).display().to_string();
    let set = json!({ "Note": 5.0 / 12.0, "Note strength": 0.85, "Seed": 0.4321, "Temperature": 0.45, "Trait 2": 0.9 });
    let (state, again) = (path("song.state"), path("again.state"));
    let (saved, latency, first) = render_with(&folder.0, 512, 4.0, &["--set", &patient(set), "--save-state", &state])?;
    let (loaded, _, second) = render_with(&folder.0, 512, 4.0, &["--load-state", &state, "--save-state", &again])?;
    assert_eq!(first["state"]["params"]["note"], json!({ "string": "e" }));
    assert_eq!(first["state"], second["state"]);
    assert!(measure::rms(&saved[2 * latency..]) > 0.002, "silent");
    assert_eq!(first_difference(&saved, &loaded), None, "the new instance plays something else");
    let (plain, ..) = render_with(&folder.0, 512, 4.0, &["--set", &patient(json!({}))])?;
    assert!(first_difference(&saved, &plain).is_some(), "the state says nothing");
    Ok(())
}

/// The `.vstpreset` files as `cargo xtask install` writes them.
fn write_presets(folder: &Path) -> Outcome<()> {
    let clap = dev_bundle()?;
    let target = clap.ancestors().nth(3).ok_or("the bundle is not under target/bundled/dev")?;
    let writer = target.join(format!("debug/tiller-presets{}", std::env::consts::EXE_SUFFIX));
    let wrote = Command::new(&writer).arg(folder).output().map_err(|e| format!("{}: {e}", writer.display()))?;
    if wrote.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&wrote.stderr).into_owned()) }
}

#[test]
fn a_host_preset_gives_the_values_and_the_sound_of_ours() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-preset")?;
    let path = |name: &str| folder.0.join(name).display().to_string();
    let presets = folder.0.join("presets");
    write_presets(&presets)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin/presets/factory.json");
    let text = std::fs::read_to_string(&source).map_err(|e| e.to_string())?;
    let factory: Vec<Value> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    assert_eq!(std::fs::read_dir(&presets).map_err(|e| e.to_string())?.count(), factory.len());
    // What a session has and a preset must not touch: the gain, and how late frames are taken.
    let (session, after) = (path("session.state"), path("after.state"));
    let set = patient(json!({ "Gain": 0.75 }));
    render_with(&folder.0, 512, 0.5, &["--set", &set, "--save-state", &session])?;
    for (index, preset) in factory.iter().enumerate() {
        let name = preset["name"].as_str().ok_or("a preset has a name")?;
        let file = presets.join(format!("{name}.vstpreset")).display().to_string();
        let seconds = if index % 5 == 2 { 3.0 } else { 0.1 };
        let arguments = ["--load-state", &session, "--preset", &file, "--save-state", &after];
        let (heard, latency, report) = render_with(&folder.0, 512, seconds, &arguments)?;
        // The same by hand through the other format.
        let mut host = Host::load(&dev_bundle()?)?;
        let mut project = Project::open(&host.save()?)?;
        project.document["prompt"] = preset["prompt"].clone();
        project.document["preset"] = preset["name"].clone();
        host.restore(&project.close()?)?;
        for (id, text) in preset["parameters"].as_object().ok_or("a preset has parameters")? {
            host.set(id, text.as_str().ok_or("texts")?)?;
        }
        host.set("gain", "-6")?;
        host.set("late", "wait")?;
        let by_hand: Value = serde_json::from_slice(&host.save()?[8..]).map_err(|e| e.to_string())?;
        assert_eq!(report["state"], by_hand, "{name}");
        if index % 5 != 2 {
            continue;
        }
        host.set_offline(true)?;
        let mut player = host.activate(RATE as f64, 512)?;
        let by_hand = player.play(&Score::playing(), 0..heard.len() as u64 / 2, Blocks::Fixed(512), Pace::FlatOut)?;
        host.deactivate(player);
        assert!(measure::rms(&by_hand.left[latency..]) > 0.000_5, "{name}: silent");
        assert_eq!(first_difference(&channel(&heard, 0), &by_hand.left), None, "{name}: other samples");
    }
    // A broken one, and one of another plugin: the host refuses them, by the header that we wrote.
    let mut foreign = std::fs::read(presets.join("Campfire.vstpreset")).map_err(|e| e.to_string())?;
    foreign[8..12].copy_from_slice(b"0000");
    for (name, bytes) in [("broken", &b"VST3 but not one"[..]), ("foreign", &foreign)] {
        let file = path(&format!("{name}.vstpreset"));
        std::fs::write(&file, bytes).map_err(|e| e.to_string())?;
        let refused = render_with(&folder.0, 512, 0.1, &["--preset", &file]);
        assert!(refused.is_err_and(|why| why.contains("loadVST3Preset")), "a {name} preset was taken");
    }
    Ok(())
}

/// What is played for [`HOLD`] beats each, with a beat of rest: single keys, then chords in several inversions.
fn phrase() -> Vec<(&'static str, Vec<u8>)> {
    let mut phrase: Vec<(&str, Vec<u8>)> = PitchClass::NAMES.into_iter().zip((60..72).map(|key| vec![key])).collect();
    phrase.extend([
        ("C major", vec![60, 64, 67]),
        ("A minor", vec![60, 64, 69]),
        ("F major", vec![53, 57, 60, 65]),
        ("D minor", vec![57, 62, 65]),
        ("G major", vec![59, 62, 67]),
        ("E minor", vec![52, 59, 67, 71]),
    ]);
    phrase
}

/// Beats that each is held.
const HOLD: u32 = 9;

#[test]
fn keys_of_a_midi_file_are_heard_and_live_events_give_the_same_samples() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-keys")?;
    let midi = folder.0.join("keys.mid");
    let phrase = phrase();
    let (mut keys, mut score) = (Vec::new(), Score::playing());
    // A tick is 50 samples; no key moves on the border of two frames.
    let tick = RATE as u32 / 2 / 480;
    for (index, (_, held)) in phrase.iter().enumerate() {
        let start = index as u32 * 480 * (HOLD + 1) + 7;
        let end = start + 480 * HOLD;
        for key in held {
            keys.push((*key, start, end));
            score.add(u64::from(start * tick), Move::KeyDown(*key));
            score.add(u64::from(end * tick), Move::KeyUp(*key));
        }
    }
    std::fs::write(&midi, midi_file(&keys)).map_err(|e| e.to_string())?;
    let seconds = f64::from(phrase.len() as u32 * (HOLD + 1)) / 2.0 + 0.5;
    let arguments = ["--midi", &midi.display().to_string(), "--set", &patient(json!({}))];
    let (file, latency, _) = render_with(&folder.0, 512, seconds, &arguments)?;
    let (left, right) = (channel(&file, 0), channel(&file, 1));

    // By ear: of the frames from one second after a key on, those whose strongest class is the key's; of the half seconds, those
    // that are the chord among the 24 major and minor ones.
    let mut ear = Chroma::new(RATE as f64).map_err(|e| e.to_string())?;
    let mono: Vec<f32> = left.iter().zip(&right).map(|(l, r)| 0.5 * (l + r)).skip(latency).collect();
    let hop = RATE / 50;
    let frames = ear.frames(&mono, hop);
    let (mut notes, mut chords) = (Vec::new(), Vec::new());
    for (index, (name, held)) in phrase.iter().enumerate() {
        let start = (index * (HOLD as usize + 1)) * 25 + 50;
        let end = (start - 50 + HOLD as usize * 25).min(frames.len());
        let heard = &frames[start..end];
        let share = if held.len() == 1 {
            let class = usize::from(held[0] % 12);
            share_on_target(heard, &vec![Some(class); heard.len()]).ok_or("nothing was heard")?
        } else {
            let stretches = profiles(heard, 25);
            let named = stretches.iter().flatten().filter_map(|profile| hear_chord(profile, &Quality::ALL[..2]));
            let named: Vec<String> =
                named.map(|chord| format!("{} {}", chord.root.name(), chord.quality.name())).collect();
            named.iter().filter(|own| own == name).count() as f32 / named.len().max(1) as f32
        };
        println!("{name:8} {:5.1} %", 100.0 * share);
        if held.len() == 1 { notes.push(share) } else { chords.push(share) }
    }
    let mean = |shares: &[f32]| shares.iter().sum::<f32>() / shares.len() as f32;
    println!("notes {:.1} % (chance 8.3), chords {:.1} % (chance 4.2)", 100.0 * mean(&notes), 100.0 * mean(&chords));
    assert!(mean(&notes) > 0.5 && mean(&chords) > 0.33, "keys are not followed");

    // The same notes as events of another host and format.
    let mut host = Host::load(&dev_bundle()?)?;
    host.set("late", "wait")?;
    let mut player = host.activate(RATE as f64, 512)?;
    let span = 0..left.len() as u64;
    let live = player.play(&score, span, Blocks::Fixed(512), Pace::FlatOut)?;
    host.deactivate(player);
    assert_eq!(host.latency()? as usize, latency);
    assert_eq!(first_difference(&left, &live.left), None, "the same notes as events");
    assert_eq!(first_difference(&right, &live.right), None, "the same notes as events");
    // And at the pace of a device, for the first keys.
    undisturbed(|| {
        let mut host = Host::load(&dev_bundle()?)?;
        let mut player = host.activate(RATE as f64, 512)?;
        player.play(&Score::stopped(), 0..RATE as u64, Blocks::Fixed(256), Pace::WallClock)?;
        let live = player.play(&score, 0..11 * RATE as u64, Blocks::Fixed(256), Pace::WallClock)?;
        host.deactivate(player);
        match first_difference(&left[..live.left.len()], &live.left) {
            None => Ok(()),
            Some(at) => Err(format!("live keys differ at {} s", at as f64 / RATE as f64)),
        }
    })
}
