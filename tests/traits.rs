//! Traits of the musician's own, from a folder of audio to the sound of the hosted plugin: learned, assigned, heard in both
//! directions, several at once, without effect when unset, refused by name when they cannot be used.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tiller_engine::checkpoint::CheckpointSource;
use tiller_engine::control::{ControlFrame, Lanes, PitchClass, TRAITS};
use tiller_engine::embedded;
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::learn::axes::Method;
use tiller_engine::learn::family::{TraitRequest, learn_trait};
use tiller_engine::learn::folder::sides;
use tiller_engine::learn::listener::Listener;
use tiller_engine::learn::states::StateFolder;
use tiller_engine::learn::watch::Watch;
use tiller_engine::link::CHANNELS;
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::render::{Move as Moved, render};
use tiller_engine::sound_file::Sound;
use tiller_engine::status::State;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::trait_files::{TraitReference, TraitState, file_name};
use tiller_tests::answers::{answers, unsteered};
use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::project::Project;
use tiller_tests::score::Score;
use tiller_tests::turn;

const RATE: f64 = 48_000.0;
const SECOND: u64 = 48_000;

/// What bright and dark music are to the model: the trait is learned from what it plays to these.
const BRIGHT: [&str; 4] = [
    "bright brass chords, quick",
    "bright synth lead arpeggio, fast",
    "bright trumpet melody, medium",
    "bright violin melody, quick",
];
const DARK: [&str; 4] =
    ["soft strings pad, slow", "mellow bass guitar groove, slow", "dark cello melody, slow", "calm flute melody, slow"];

/// Played in every comparison.
const PROMPT: &str = "medium piano melody";

fn model() -> Arc<Model> {
    Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded checkpoint loads")
}

/// Mono samples of a piece, every frame under `lanes`.
fn played(
    prompt: &str,
    seed: u32,
    frames: u32,
    lanes: Lanes,
    steer: Option<&[Option<TraitReference>; TRAITS]>,
) -> Vec<f32> {
    let model = model();
    let text = Arc::new(model.prompt(prompt).expect("the prompt encodes"));
    let mut controls: Vec<ControlFrame> = unsteered(1, frames, 1.0);
    controls.iter_mut().for_each(|control| (control.lanes, control.seed) = (lanes, seed));
    let mut player = Player::new(model.clone(), text, None);
    if let Some(traits) = steer {
        let equipment = model.equipped(&ModelSource::Embedded, traits);
        for (file, state) in traits.iter().zip(&equipment.traits) {
            let wanted = if file.is_some() { TraitState::InUse { changed: false } } else { TraitState::Unset };
            assert_eq!(*state, wanted);
        }
        player.set_steering(equipment.steering);
    }
    let heard = answers(&mut player, &controls, &[]).expect("finite");
    heard.audio.chunks(CHANNELS).map(|pair| pair.iter().sum::<f32>() / CHANNELS as f32).collect()
}

/// A folder that goes with the process's last test.
struct Learned {
    folder: PathBuf,
    /// Two traits: brightness, and its like from other clips.
    files: [PathBuf; 2],
}

/// Learned once: from the model's own music, as anybody would from recordings.
fn learned() -> &'static Learned {
    static LEARNED: OnceLock<Learned> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("tiller-traits-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        for (side, prompts) in [("with", BRIGHT), ("without", DARK)] {
            let own = folder.join("audio").join(side);
            std::fs::create_dir_all(&own).expect("a folder");
            for (index, prompt) in prompts.into_iter().enumerate() {
                let samples = played(prompt, 40 + index as u32, 400, Lanes::OFF, None);
                let sound = Sound { samples, channels: 1, rate: 32_000 };
                sound.write(&own.join(format!("{index}.wav"))).expect("written");
            }
        }
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let listener = Listener::load(&source, &|_| ()).expect("the embedded checkpoint loads");
        let [with, without] = sides(&folder.join("audio")).expect("sound files");
        let learn = |name: &str, method| {
            let request = TraitRequest {
                with: &with,
                without: &without,
                name,
                method,
                full_dose: 0.3,
                states: &StateFolder::new(folder.join("states")),
            };
            let learned = learn_trait(&listener, &request, Watch::IDLE).unwrap_or_else(|error| panic!("{error}"));
            let path = folder.join(file_name(name));
            learned.directions.write(&path).expect("written");
            path
        };
        let files = [learn("bright", Method::Mean), learn("brisk", Method::Linear)];
        Learned { folder, files }
    })
}

fn reference(path: &Path) -> TraitReference {
    TraitReference { name: "bright".to_owned(), hash: String::new(), path: path.to_owned() }
}

/// How much of the sound is high: the slope's share.
fn brightness(mono: &[f32]) -> f64 {
    let slope: Vec<f32> = mono.windows(2).map(|pair| pair[1] - pair[0]).collect();
    measure::rms(&slope) / measure::rms(mono).max(1e-9)
}

#[test]
fn a_learned_trait_is_heard_in_both_directions() {
    let _turn = turn();
    let files = [None, Some(reference(&learned().files[0])), None, None];
    // Towards it from music that has it not, away from it in music that has it.
    for (prompt, strength) in [(PROMPT, 1.0), (BRIGHT[0], -1.0)] {
        let heard = |strength: f32| {
            let lanes = Lanes { traits: [0.0, strength, 0.0, 0.0], strength: 1.0, ..Lanes::OFF };
            (100..103).map(|seed| brightness(&played(prompt, seed, 300, lanes, Some(&files)))).sum::<f64>() / 3.0
        };
        let (without, with) = (heard(0.0), heard(strength));
        println!("{prompt}: brightness {without:.4}, at {strength} {with:.4}");
        let moved = (with / without).ln() * f64::from(strength);
        assert!(moved > 1.3f64.ln(), "{prompt}: {without} -> {with}");
    }
}

#[test]
fn what_is_unset_or_at_zero_is_bit_equal_and_traits_add_up() {
    let _turn = turn();
    let [first, second] = learned().files.each_ref().map(|path| Some(reference(path)));
    let play = |traits: [f32; TRAITS], files: [Option<TraitReference>; TRAITS]| {
        let note = PitchClass::new(5);
        let lanes = Lanes { traits, strength: 1.0, note, note_strength: 0.5, ..Lanes::OFF };
        played(PROMPT, 7, 60, lanes, Some(&files))
    };
    let none = || [const { None }; TRAITS];
    let plain = play([0.0; TRAITS], none());
    assert_eq!(play([1.0, -1.0, 0.5, 0.25], none()), plain, "strength without directions");
    let both = || [first.clone(), None, None, second.clone()];
    assert_eq!(play([0.0, 1.0, -1.0, 0.0], both()), plain, "directions without strength");
    let one = play([0.4, 0.0, 0.0, 0.0], both());
    let other = play([0.0, 0.0, 0.0, -0.4], both());
    let together = play([0.4, 0.0, 0.0, -0.4], both());
    for (a, b) in [(&one, &plain), (&other, &plain), (&together, &one), (&together, &other)] {
        assert_ne!(a, b);
    }
    // A slot is a slot: the same file in another one does the same.
    assert_eq!(
        play([0.0, 0.4, 0.0, 0.0], [None, first.clone(), None, None]),
        play([0.4, 0.0, 0.0, 0.0], [first, None, None, None])
    );
    assert!(together.iter().all(|sample| sample.is_finite()));
}

#[test]
fn a_handle_assigns_lists_and_refuses_by_name() {
    let _turn = turn();
    let own = learned();
    // A checkpoint in a folder of its own, with traits beside it.
    let folder = own.folder.join("checkpoint");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, bytes) in embedded::FILES {
        std::fs::write(folder.join(name), bytes).expect("written");
    }
    let good = folder.join(file_name("bright"));
    std::fs::copy(&own.files[0], &good).expect("copied");
    let directions = Directions::read(&good).expect("directions");
    let foreign = folder.join(file_name("foreign"));
    let of_another = Directions {
        checkpoint_name: "musicgen-medium".to_owned(),
        checkpoint_hash: "ab".repeat(32),
        ..directions.clone()
    };
    of_another.write(&foreign).expect("written");
    let broken = folder.join(file_name("broken"));
    std::fs::write(&broken, &std::fs::read(&good).expect("read")[..500]).expect("written");

    let handle = Handle::new();
    handle.set_model(ModelSource::Directory(folder.clone()));
    handle.set_prompt(PROMPT);
    let generation = handle.set_trait(1, Some(reference(&good)));
    assert_eq!((handle.set_trait(1, Some(reference(&good))), handle.directions_generation()), (generation, generation));
    assert_eq!(handle.set_trait(9, None), generation, "there is no such slot");
    assert_eq!(handle.status().traits[1], TraitState::Waiting);
    handle.start().expect("threads");
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    assert_eq!(handle.status().traits[1], TraitState::InUse { changed: false });

    let listed = handle.trait_files();
    let names: Vec<&str> = listed.iter().map(|file| file.reference.name.as_str()).collect();
    assert_eq!(names, ["bright", "broken", "bright"], "by file; the foreign one is called what it says");
    assert!(listed[0].problem.is_none() && listed[0].reference.path == good);
    assert!(listed[1].problem.as_ref().is_some_and(|why| why.contains("tiller-trait-broken")));
    let why = listed[2].problem.as_deref().expect("another checkpoint's");
    for part in
        ["tiller-trait-foreign", "musicgen-medium", "abababababab", "checkpoint", &directions.checkpoint_hash[..12]]
    {
        assert!(why.contains(part), "{part} is not in: {why}");
    }

    let lanes = Lanes { traits: [0.7, 0.7, 0.0, 0.0], strength: 1.0, ..Lanes::OFF };
    let rendered = || {
        let mut control = ControlFrame::new(1, 0);
        (control.prompt, control.directions) = (handle.prompt_generation(), handle.directions_generation());
        (control.lanes, control.seed) = (lanes, 3);
        render(&handle, 60, &[Moved { seconds: 0.0, control }], &mut |_| ()).expect("music")
    };
    let with_good = rendered();
    // What cannot be used changes nothing that is there, and the frames wait until that is known.
    for bad in [&foreign, &broken, &folder.join("tiller-notes.safetensors"), &folder.join("gone.safetensors")] {
        handle.set_trait(0, Some(reference(bad)));
        assert_eq!(rendered(), with_good, "{}", bad.display());
        let states = handle.status().traits;
        assert_eq!(states[1], TraitState::InUse { changed: false });
        let TraitState::Refused(why) = &states[0] else { panic!("{}: {states:?}", bad.display()) };
        assert!(why.contains(&bad.display().to_string()), "{why}");
    }
    handle.set_trait(0, None);
    handle.set_trait(1, None);
    let without = rendered();
    assert_ne!(without, with_good);
    assert_eq!(handle.status().traits, [const { TraitState::Unset }; TRAITS]);
    // The file was learned anew in its place: it is used, and said to be another.
    let hash = listed[0].reference.hash.clone();
    Directions { full_dose: 0.15, ..directions }.write(&good).expect("written");
    handle.set_trait(1, Some(TraitReference { hash, ..reference(&good) }));
    assert_ne!(rendered(), without);
    assert_eq!(handle.status().traits[1], TraitState::InUse { changed: true });
}

/// Set in the process whose data folder is the test's.
const DATA: &str = "XDG_DATA_HOME";

#[test]
fn the_users_own_folder_is_found_by_the_checkpoints_hash() {
    let _turn = turn();
    let name = "the_users_own_folder_is_found_by_the_checkpoints_hash";
    if std::env::var_os("TILLER_TEST_TRAITS").is_none() {
        let own = learned();
        let data = own.folder.join("data");
        let hash = model().hash().to_owned();
        let folder = data.join("tiller/directions").join(hash);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::copy(&own.files[0], folder.join(file_name("bright"))).expect("copied");
        let program = std::env::current_exe().expect("the test's own path");
        let child =
            Command::new(program).args(["--exact", name]).env(DATA, &data).env("TILLER_TEST_TRAITS", "1").output();
        let child = child.expect("the child runs");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let handle = Handle::new();
    assert_eq!(handle.trait_files(), [], "nobody knows the checkpoint's hash yet");
    // A project from another machine: the path leads nowhere, the hash is the file's.
    handle.start().expect("threads");
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    let listed = handle.trait_files();
    assert_eq!(listed.iter().map(|file| file.problem.clone()).collect::<Vec<_>>(), [None]);
    let moved = TraitReference { path: "/home/somebody/else.safetensors".into(), ..listed[0].reference.clone() };
    handle.set_trait(3, Some(moved));
    let began = std::time::Instant::now();
    while handle.status().traits[3] != (TraitState::InUse { changed: false }) {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", handle.status().traits);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The hosted plugin plays three seconds with these traits in its project; also what it saves afterwards.
fn hosted(traits: &Value, moves: &[(u64, &str, &str)]) -> Outcome<(Recording, Project)> {
    let mut host = Host::load(&dev_bundle()?)?;
    let mut project = Project::open(&host.save()?)?;
    project.document["traits"] = traits.clone();
    project.document["prompt"] = json!(PROMPT);
    host.restore(&project.close()?)?;
    let mut score = Score::playing();
    for (at, name, text) in moves {
        score.param(*at, name, host.value_of(name, text)?)?;
    }
    host.set_offline(true)?;
    let mut player = host.activate(RATE, 512)?;
    let latency = host.latency()?;
    let heard = player.play(&score, 0..3 * SECOND + u64::from(latency), Blocks::Random(8), Pace::FlatOut)?;
    host.deactivate(player);
    let heard = heard.compensated(latency as usize);
    if measure::rms(&heard.left) < 0.001 {
        return Err("silent".to_owned());
    }
    Ok((heard, Project::open(&host.save()?)?))
}

#[test]
fn the_hosted_plugin_is_steered_by_traits_of_its_project() -> Outcome<()> {
    let _turn = turn();
    let file = |index: usize| json!({ "name": "bright", "hash": "", "path": learned().files[index] });
    let strengths = [(50_003, "trait_1_strength", "0.6"), (50_003, "trait_4_strength", "-0.5")];
    let (plain, _) = hosted(&Value::Null, &[])?;
    let (unset, _) = hosted(&Value::Null, &strengths)?;
    assert_eq!(first_difference(&plain.left, &unset.left), None, "strengths without files do nothing");
    let traits = json!([file(0), null, null, file(1)]);
    let (idle, saved) = hosted(&traits, &[])?;
    assert_eq!(first_difference(&plain.left, &idle.left), None, "files without strengths do nothing");
    assert_eq!(saved.document["traits"], traits, "the project keeps its files");
    let (steered, _) = hosted(&traits, &strengths)?;
    let (again, _) = hosted(&traits, &strengths)?;
    assert_eq!(first_difference(&steered.left, &again.left), None, "a bounce repeats");
    let since = first_difference(&steered.left, &plain.left).map(|at| at as f64 / RATE);
    assert!(since.is_some_and(|at| at > 0.9 && at < 2.0), "steered from {since:?} s on, drawn at 1.04 s");
    let (one, _) = hosted(&traits, &strengths[..1])?;
    assert!(first_difference(&steered.left, &one.left).is_some(), "the fourth lane does nothing");
    // From the first frame on: the render waits for the files.
    let early = [(0, "trait_1_strength", "0.6")];
    let (first, second) = (hosted(&traits, &early)?.0, hosted(&traits, &early)?.0);
    assert_eq!(first_difference(&first.left, &second.left), None);
    assert!(first_difference(&first.left, &plain.left).is_some_and(|at| at < SECOND as usize / 2));
    Ok(())
}

#[test]
fn a_file_that_cannot_be_used_plays_on_and_stays_in_the_project() -> Outcome<()> {
    let _turn = turn();
    let own = learned();
    let broken = own.folder.join("broken.safetensors");
    std::fs::write(&broken, b"not a directions file").map_err(|e| e.to_string())?;
    let strengths = [(0, "trait_2_strength", "1"), (0, "trait_3_strength", "-1")];
    let (plain, _) = hosted(&Value::Null, &[])?;
    let traits = json!([
        null,
        { "name": "broken", "hash": "", "path": broken },
        { "name": "gone", "hash": "00", "path": "/no/such/file", "licence": "kept" },
        null
    ]);
    let (heard, saved) = hosted(&traits, &strengths)?;
    assert_eq!(first_difference(&plain.left, &heard.left), None, "it plays as if they were not there");
    assert_eq!(saved.document["traits"], traits, "and loses nothing");
    Ok(())
}
