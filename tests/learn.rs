//! Learning beside playing: paused, interrupted, gone on with after a restart, cancelled; taken up by an instance that plays;
//! directions listed, moved and removed; traits from files. In a process of its own whose user folders are the test's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiller_engine::background::{Background, Kind, Standing, shared};
use tiller_engine::control::{ControlFrame, Lanes, PitchClass};
use tiller_engine::dataset::concepts::Concept;
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::learn::work::{
    Effort, LibraryError, Order, Place, Tones, TraitOrder, begin, begin_trait, discard, export, import, remove,
    unfinished,
};
use tiller_engine::model::{Model, NOTES_FILE};
use tiller_engine::render::{Move, render};
use tiller_engine::sound_file::Sound;
use tiller_engine::status::State;
use tiller_engine::steering::class_set::ClassSet;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::trait_files::{file_name, user_folder};

const CHILD: &str = "TILLER_TEST_LEARN";

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the test of this name once more in a process whose folders are under `folder`; `false` in that process.
fn in_own_home(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let folder = Folder(std::env::temp_dir().join(format!("tiller-{name}-{}", std::process::id())));
    let program = std::env::current_exe().expect("the test's own path");
    let mut child = Command::new(program);
    child.args(["--exact", name, "--nocapture"]).env(CHILD, &folder.0);
    for (variable, own) in
        [("HOME", ""), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")]
    {
        child.env(variable, folder.0.join(own));
    }
    let ended = child.output().expect("the child runs");
    assert!(
        ended.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    true
}

fn until(what: &str, is: impl Fn() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < Duration::from_secs(240), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn standing(background: &Background, kind: Kind, subject: &str) -> Standing {
    background.report(kind, subject).map_or(Standing::Stopped, |report| report.standing)
}

/// Clips heard so far; 0 in another stage.
fn clips(background: &Background, subject: &str) -> u64 {
    let report = background.report(Kind::Learn, subject);
    report.filter(|report| report.stage.ends_with("listening to music")).map_or(0, |report| report.done)
}

/// What a work said when it was done.
fn done(background: &Background, kind: Kind, subject: &str) -> String {
    until(&format!("{subject} is over"), || standing(background, kind, subject).is_over());
    match standing(background, kind, subject) {
        Standing::Done(said) => said,
        other => panic!("{subject}: {other:?}"),
    }
}

/// Threads of this process with a name that begins so.
#[cfg(target_os = "linux")]
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a list of threads");
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|own| own.starts_with(name)).count()
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A second steered to E, by whatever the handle has.
fn steered(handle: &Handle) -> Vec<f32> {
    steered_to(handle, 4)
}

fn steered_to(handle: &Handle, note: u8) -> Vec<f32> {
    let lanes = Lanes { note: PitchClass::new(note), note_strength: 1.0, strength: 1.0, ..Lanes::OFF };
    let mut control = ControlFrame::new(1, 0);
    (control.prompt, control.directions) = (handle.prompt_generation(), handle.directions_generation());
    (control.lanes, control.seed) = (lanes, 3);
    render(handle, 50, &[Move { seconds: 0.0, control }], &mut |_| ()).expect("music")
}

#[test]
fn notes_are_learned_beside_playing() {
    if in_own_home("notes_are_learned_beside_playing") {
        return;
    }
    let home = PathBuf::from(std::env::var_os(CHILD).expect("the parent's folder"));
    let source = ModelSource::Embedded;
    let name = Model::name_of(&source);
    let handle = Handle::new();
    handle.start().expect("threads");
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    let hash = handle.status().hash;
    let before = steered(&handle);
    let order = Order {
        source: source.clone(),
        concepts: vec![Concept::Notes],
        notes: ClassSet::NOTES,
        effort: Effort::Taste,
        tones: Tones::BuiltIn,
    };

    // It waits while it is paused, and ends with its last holder, as when a host unloads the plugin.
    let background = shared();
    begin(&background, order.clone()).expect("begins");
    begin(&background, order.clone()).expect("is the one that runs");
    until("40 clips", || clips(&background, &name) >= 40);
    background.pause(Kind::Learn, &name);
    assert_eq!(standing(&background, Kind::Learn, &name), Standing::Paused);
    // Clips that are under way end first.
    std::thread::sleep(Duration::from_millis(700));
    let paused = clips(&background, &name);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(clips(&background, &name), paused);
    background.resume(Kind::Learn, &name);
    until("more clips", || clips(&background, &name) > paused + 5);
    let since = Instant::now();
    drop(background);
    assert!(since.elapsed() < Duration::from_secs(5), "an end took {:?}", since.elapsed());
    #[cfg(target_os = "linux")]
    assert_eq!((threads("tiller-work"), threads("tiller-learn")), (0, 0), "every thread was joined");

    // After a restart it is offered, and does not begin anew.
    assert_eq!(unfinished(), std::slice::from_ref(&order));
    let kept = || files(&home.join("cache"));
    let times = |paths: &[PathBuf]| -> Vec<_> {
        paths.iter().map(|path| std::fs::metadata(path).and_then(|own| own.modified()).ok()).collect()
    };
    let first = kept();
    assert!(!first.is_empty(), "40 clips are more than a part");
    let made = times(&first);
    let background = Arc::new(Background::default());
    begin(&background, unfinished().remove(0)).expect("begins");
    until("as far as before", || clips(&background, &name) > paused + 20);
    assert_eq!(times(&first), made, "what was kept was not heard again");
    let said = done(&background, Kind::Learn, &name);
    println!("{said}");
    assert!(said.starts_with("notes: told right "), "{said}");
    assert_eq!((unfinished(), kept()), (vec![], vec![]), "nothing is left over");

    // The instance that plays has taken them up.
    let own = user_folder(&hash).join(NOTES_FILE);
    assert!(own.starts_with(&home) && own.is_file());
    let with_own = steered(&handle);
    assert_ne!(with_own, before);
    assert_eq!((steered(&handle), handle.status().targets.map(ClassSet::len)), (with_own.clone(), [12, 48, 1]));
    let known = handle.known_directions();
    let notes: Vec<_> = known.iter().filter(|known| known.name == "notes").collect();
    assert_eq!(
        notes.iter().map(|known| (known.place, known.in_use)).collect::<Vec<_>>(),
        [(Place::Own, true), (Place::Embedded, false)]
    );
    let told = notes[0].told.expect("classes");
    assert!(told.right > 0.3 && !told.is_chance(), "{told}");

    // To a file and back; never over another, never another checkpoint's.
    let file = home.join("mine.safetensors");
    export(notes[0], &source, &file, false).expect("written");
    assert!(matches!(export(notes[1], &source, &file, false), Err(LibraryError::Exists { .. })));
    let learned = Directions::read(&file).expect("directions");
    remove(notes[0]).expect("ours");
    assert!(matches!(remove(notes[1]), Err(LibraryError::NotOwn { .. })));
    assert_eq!(steered(&handle), before, "back to the checkpoint's own");
    import(&file, &source, &hash, false).expect("taken");
    assert_eq!(steered(&handle), with_own);
    let other = Directions { full_dose: 0.01, ..learned.clone() };
    other.write(&file).expect("written");
    assert!(matches!(import(&file, &source, &hash, false), Err(LibraryError::Exists { .. })));
    assert_eq!(steered(&handle), with_own);
    import(&file, &source, &hash, true).expect("replaced");
    assert_ne!(steered(&handle), with_own);
    Directions { checkpoint_hash: "00ff".repeat(16), checkpoint_name: "elsewhere".to_owned(), ..learned }
        .write(&file)
        .expect("written");
    let why = import(&file, &source, &hash, true).expect_err("another checkpoint's").to_string();
    assert!(why.contains("elsewhere") && why.contains(&name) && why.contains("mine.safetensors"), "{why}");
    std::fs::write(&file, b"nothing of the kind").expect("written");
    assert!(import(&file, &source, &hash, true).is_err());

    // What is cancelled leaves nothing; what was stopped can be given up.
    for cancelled in [true, false] {
        begin(&background, order.clone()).expect("begins");
        until("a part", || clips(&background, &name) >= 34);
        if cancelled {
            background.cancel(Kind::Learn, &name)
        } else {
            background.stop(Kind::Learn, &name)
        }
        until("the end", || standing(&background, Kind::Learn, &name) == Standing::Stopped);
        assert_eq!((unfinished().is_empty(), kept().is_empty()), (cancelled, cancelled));
        discard(&source);
        assert_eq!((unfinished(), kept()), (vec![], vec![]));
    }
}

#[test]
fn some_notes_are_learned_and_join_those_of_before() {
    if in_own_home("some_notes_are_learned_and_join_those_of_before") {
        return;
    }
    let source = ModelSource::Embedded;
    let name = Model::name_of(&source);
    let handle = Handle::new();
    handle.start().expect("threads");
    assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
    let own = user_folder(&handle.status().hash).join(NOTES_FILE);
    let (d, e, a) = (2, 4, 9);
    let before = [d, e, a].map(|note| steered_to(&handle, note));
    let background = Background::default();
    let learn = |notes: &[u8], effort| {
        let notes = notes.iter().map(|note| usize::from(*note)).collect();
        let order =
            Order { source: source.clone(), concepts: vec![Concept::Notes], notes, effort, tones: Tones::BuiltIn };
        begin(&background, order.clone()).expect("begins");
        until("clips", || clips(&background, &name) > 0 || standing(&background, Kind::Learn, &name).is_over());
        let heard = background.report(Kind::Learn, &name).map_or(0, |report| report.all);
        assert!(unfinished().first().is_none_or(|kept| *kept == order));
        until("the end", || standing(&background, Kind::Learn, &name).is_over());
        let ended = standing(&background, Kind::Learn, &name);
        background.forget(Kind::Learn, &name);
        (ended, heard)
    };
    let said = |(ended, heard): (Standing, u64)| match ended {
        Standing::Done(said) => {
            println!("{heard} clips, {said}");
            (said, heard)
        }
        other => panic!("{other:?}"),
    };
    // Of 3 instruments with 8 pieces each, a note is heard beside three others of twelve.
    let (text, heard) = said(learn(&[d], Effort::Taste));
    assert!(text.starts_with("notes D: told apart ") && !text.contains("no better than guessing"), "{text}");
    assert_eq!(heard, 3 * 8 * 4);
    let first = Directions::read(&own).expect("directions");
    assert_eq!(first.classes, ["D"]);
    // What was not learned is the model's own.
    let now = [d, e, a].map(|note| steered_to(&handle, note));
    assert!(now[0] != before[0] && now[1..] == before[1..]);
    let known = handle.known_directions();
    let notes: Vec<_> = known.iter().filter(|known| known.name == "notes").collect();
    let in_use: Vec<_> = notes.iter().map(|known| (known.place, known.in_use, known.classes.len())).collect();
    assert_eq!(in_use, [(Place::Own, true, 1), (Place::Embedded, true, 12)]);

    // Another one joins it and is what it is among all.
    let (text, heard) = said(learn(&[a, e], Effort::Taste));
    assert!(text.starts_with("notes E, A: told apart ") && (150..192).contains(&heard), "{text}, {heard}");
    let three = Directions::read(&own).expect("directions");
    assert_eq!(three.classes, ["D", "E", "A"]);
    assert_eq!(three.vector(0, 1), first.vector(0, 1));
    assert!(handle.known_directions()[0].told.is_some_and(|told| told.chance == 0.5));
    assert_ne!(steered_to(&handle, a), before[2]);
    assert_eq!(handle.status().targets[0], ClassSet::NOTES);

    // A file of another dose cannot hold them: that is said before anything is heard.
    let other = Directions { full_dose: 0.5, ..three.clone() };
    other.write(&own).expect("written");
    let (ended, heard) = learn(&[a], Effort::Taste);
    assert!(matches!(&ended, Standing::Failed(why) if why.contains("full dose") && why.contains("D, E")), "{ended:?}");
    assert!(heard <= 100 && Directions::read(&own).expect("untouched") == other, "nothing was heard: {heard}");
    discard(&source);

    // All of them take the place of all.
    three.write(&own).expect("written");
    let (text, heard) = said(learn(&(0..12).collect::<Vec<u8>>(), Effort::Taste));
    assert!(text.starts_with("notes: told right ") && heard == 3 * 8 * 12, "{text}, {heard}");
    let all = Directions::read(&own).expect("directions");
    assert_eq!(all.classes.len(), 12);
    for (place, class) in [(0, d), (1, e), (2, a)] {
        for block in 0..all.blocks {
            assert_eq!(
                three.vector(place, block),
                all.vector(usize::from(class), block),
                "class {class}, block {block}"
            );
        }
    }
}

#[test]
fn a_trait_is_learned_from_files() {
    if in_own_home("a_trait_is_learned_from_files") {
        return;
    }
    let home = PathBuf::from(std::env::var_os(CHILD).expect("the parent's folder"));
    std::fs::create_dir_all(&home).expect("a folder");
    let source = ModelSource::Embedded;
    let background = Background::default();
    // Three notes of eight partials, or of one.
    let recording = |name: String, partials: u32, hertz: f32, seconds: usize| {
        let sample = |i: usize| {
            let at = |k: u32| (std::f32::consts::TAU * hertz * k as f32 * i as f32 / 32_000.0).sin() / k as f32;
            0.2 * (1..=partials).map(at).sum::<f32>() * (-(i as f32 % 16_000.0) / 6_000.0).exp()
        };
        let sound = Sound { samples: (0..seconds * 32_000).map(sample).collect(), channels: 1, rate: 32_000 };
        let path = home.join(name);
        sound.write(&path).expect("written");
        path
    };
    let files = |side: &str, partials: u32| -> Vec<PathBuf> {
        (0..5).map(|i| recording(format!("{side}-{i}.wav"), partials, 160.0 + 37.0 * i as f32, 9)).collect()
    };
    let (with, without) = (files("with", 14), files("without", 1));
    let order = |name: &str, with: &[PathBuf], without: &[PathBuf]| TraitOrder {
        source: source.clone(),
        name: name.to_owned(),
        with: with.to_vec(),
        without: without.to_vec(),
    };
    begin_trait(&background, order("bright", &with, &without)).expect("begins");
    let said = done(&background, Kind::Trait, "bright");
    println!("{said}");
    assert!(
        said.starts_with("bright: told apart 10 times of 10") && !said.contains("no better than guessing"),
        "{said}"
    );
    assert!(said.contains("only 4 of these") && !said.contains("same recordings"), "{said}");
    let hash = Model::load(&source, &|_| ()).expect("loads").hash().to_owned();
    assert!(user_folder(&hash).join(file_name("bright")).is_file());
    // Not over one that is there.
    let failed = |name: &str| {
        until("the end", || standing(&background, Kind::Trait, name).is_over());
        match standing(&background, Kind::Trait, name) {
            Standing::Failed(why) => why,
            other => panic!("{name}: {other:?}"),
        }
    };
    begin_trait(&background, order("bright", &with, &without)).expect("begins");
    assert!(failed("bright").contains("already"));
    // Two files a side are cut into stretches, and that is said; of seconds there is nothing to learn.
    begin_trait(&background, order("few", &with[..2], &without[..2])).expect("begins");
    assert!(failed("few").contains("8 stretches") && failed("few").contains("a minute"), "{}", failed("few"));
    let long = |partials: u32| -> Vec<PathBuf> {
        (0..2).map(|i| recording(format!("long-{partials}-{i}.wav"), partials, 180.0 + 50.0 * i as f32, 25)).collect()
    };
    begin_trait(&background, order("stretched", &long(14), &long(1))).expect("begins");
    let said = done(&background, Kind::Trait, "stretched");
    assert!(said.contains("same recordings"), "{said}");
    // All but the same in both boxes cannot be told apart.
    let nearly: Vec<PathBuf> = (0..5)
        .map(|i| {
            let aside = if i % 2 == 0 { 0.7 } else { -0.7 };
            recording(format!("nearly-{i}.wav"), 14, 160.0 + 37.0 * i as f32 + aside, 9)
        })
        .collect();
    begin_trait(&background, order("nothing", &with, &nearly)).expect("begins");
    let said = done(&background, Kind::Trait, "nothing");
    println!("{said}");
    assert!(said.contains("no better than guessing") || said.contains("may be luck"), "{said}");
    // What is missing is said.
    begin_trait(&background, order("half", &with, &[])).expect("begins");
    assert!(failed("half").contains("without the trait"));
    assert!(begin_trait(&background, order("../up", &with, &without)).is_err());
}
