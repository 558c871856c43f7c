//! The way of a model from a hub to music, against a hub on loopback that behaves and misbehaves: listed, accepted, downloaded,
//! interrupted, gone on with, found damaged, played, tried, removed. Every test is a process of its own with user folders of its
//! own; nothing leaves this machine.

use std::env;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tiller_engine::background::{Background, Kind, Standing, Unit};
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::models::{self, Entry, Hub, ModelsError, Origin, PUBLISHED, Published, download, licence, trial};
use tiller_engine::player::Player;
use tiller_engine::precision::Precision;
use tiller_tests::answers::{answers, unsteered};
use tiller_tests::bench::shape::{Shape, config_of};
use tiller_tests::hub::{Asked, HubServer, Manners};

/// Set in the process that is a test: its folder.
const OWN: &str = "TILLER_TEST_HUB";

const SMALL: &Published = &PUBLISHED[0];

/// What is downloaded of the fixture.
const FILES: [&str; 4] = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/parity-mono")
}

/// Runs a test in a process whose user folders, and environment of hubs and proxies, are its own.
fn alone(name: &str, body: impl FnOnce(&Path)) {
    alone_with(name, &[], body);
}

fn alone_with(name: &str, more: &[(&str, &str)], body: impl FnOnce(&Path)) {
    if let Some(folder) = env::var_os(OWN) {
        return body(Path::new(&folder));
    }
    let folder = env::temp_dir().join(format!("tiller-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let mut child = Command::new(env::current_exe().expect("the test's own path"));
    child.args(["--exact", name, "--nocapture"]).env(OWN, &folder);
    for variable in
        ["HF_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "NO_PROXY", "no_proxy"]
    {
        child.env_remove(variable);
    }
    for proxy in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"] {
        child.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    for (variable, place) in [
        ("HOME", "home"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
        ("HF_HOME", "hf"),
    ] {
        child.env(variable, folder.join(place));
    }
    child.envs(more.iter().copied());
    let output = child.output().expect("the test runs");
    fs::remove_dir_all(&folder).expect("cleaned");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{}", said.join("\n"));
}

/// The fixture as it would lie on a hub, with files that nobody should ask for.
fn on_a_hub(folder: &Path) -> PathBuf {
    let served = folder.join("served");
    fs::create_dir_all(&served).expect("a folder");
    for entry in fs::read_dir(fixture()).expect("the fixture").flatten() {
        fs::copy(entry.path(), served.join(entry.file_name())).expect("copied");
    }
    fs::write(served.join("pytorch_model.bin"), b"a pickle").expect("written");
    served
}

struct Place {
    server: HubServer,
    hub: Hub,
    background: Background,
}

impl Place {
    /// A hub that behaves, and an empty cache; the licence is accepted.
    fn new(folder: &Path) -> Self {
        let server = HubServer::start(&on_a_hub(folder), SMALL.repository, 0).expect("it serves");
        let hub = Hub::at(&server.url(), &folder.join("hub"));
        licence::accept(SMALL.repository).expect("accepted");
        Self { server, hub, background: Background::default() }
    }

    fn begin(&self) {
        download::begin(&self.background, SMALL, &self.hub).expect("it begins");
    }

    fn standing(&self) -> Standing {
        self.background.report(Kind::Download, SMALL.name).expect("a report").standing
    }

    fn done(&self) -> u64 {
        let report = self.background.report(Kind::Download, SMALL.name).expect("a report");
        if report.stage == "downloading" { report.done } else { 0 }
    }

    /// How it ends, and after how long.
    fn end(&self) -> (Standing, Duration) {
        let since = Instant::now();
        until(Duration::from_secs(30), || self.standing().is_over());
        (self.standing(), since.elapsed())
    }

    fn is_done(&self) {
        let (standing, _) = self.end();
        assert!(matches!(&standing, Standing::Done(said) if said.contains("checksums")), "{standing:?}");
    }

    /// What it says when it fails; within ten seconds.
    fn fails(&self) -> String {
        match self.end() {
            (Standing::Failed(why), took) => {
                assert!(took < Duration::from_secs(10), "{took:?}: {why}");
                why
            }
            other => panic!("{other:?}"),
        }
    }

    fn entry(&self) -> Entry {
        models::list_of(&self.hub, &[]).into_iter().find(|entry| entry.name == SMALL.name).expect("it is listed")
    }

    fn source(&self) -> ModelSource {
        self.entry().source.expect("it is here")
    }

    fn blob(&self, file: &str, ending: &str) -> PathBuf {
        let etag = self.server.etag(file).expect("it is served");
        self.hub.cache.join("models--facebook--musicgen-small/blobs").join(etag + ending)
    }
}

fn until(most: Duration, what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < most, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The requests that sent bytes of a file.
fn reads<'a>(asked: &'a [Asked], file: &str) -> Vec<&'a Asked> {
    asked.iter().filter(|one| one.method == "GET" && one.sent > 0 && one.file.as_deref() == Some(file)).collect()
}

fn size(file: &str) -> u64 {
    fs::metadata(fixture().join(file)).expect("it is there").len()
}

/// So slow that a test can do something meanwhile.
fn slow() -> Manners {
    Manners { throttle: Some(400_000), ..Manners::default() }
}

#[test]
fn the_list_is_what_is_on_disk() {
    alone("the_list_is_what_is_on_disk", |folder| {
        let hub = Hub::from_env();
        assert_eq!(hub.cache, folder.join("hf/hub"));
        assert_eq!((hub.endpoint.as_str(), hub.token.as_deref()), ("https://huggingface.co", None));
        let list = models::list(&[]);
        assert_eq!((list.len(), list[0].origin, &list[0].source), (7, Origin::Embedded, &Some(ModelSource::Embedded)));
        for (entry, published) in list[1..].iter().zip(&PUBLISHED) {
            assert_eq!((entry.name.as_str(), entry.origin, &entry.source), (published.name, Origin::Hub, &None));
            assert_eq!((entry.problem.as_ref(), entry.disk_bytes, entry.published), (None, 0, Some(published)));
            assert!(entry.memory.windows(2).all(|two| two[0].1 > two[1].1), "{entry:?}");
        }
        // What other tools left in the cache: one of MusicGen, whole, one half, one of another kind.
        let snapshot = |name: &str| hub.cache.join(format!("models--{name}/snapshots/0123"));
        let copy = |name: &str, files: &[&str]| {
            fs::create_dir_all(snapshot(name)).expect("a folder");
            files
                .iter()
                .for_each(|file| drop(fs::copy(fixture().join(file), snapshot(name).join(file)).expect("copied")));
        };
        copy("someone--tuned", &FILES);
        copy("facebook--musicgen-medium", &FILES[..2]);
        copy("someone--words", &[]);
        fs::write(snapshot("someone--words").join("config.json"), r#"{"model_type": "bert"}"#).expect("written");
        let gone = folder.join("gone");
        for own in [&fixture(), &gone, &fixture()] {
            models::remember_folder(own).expect("remembered");
        }
        let list = models::list(&[folder.join("hf/hub/models--someone--tuned/snapshots/0123")]);
        assert_eq!(list.len(), 10, "{list:?}");
        let find = |name: &str| list.iter().find(|entry| entry.name == name).expect("it is listed");
        let tuned = find("tuned");
        assert_eq!(tuned.source, Some(ModelSource::Directory(snapshot("someone--tuned"))));
        assert_eq!((tuned.published, tuned.problem.as_ref()), (None, None));
        assert!(tuned.disk_bytes > size("model.safetensors") && tuned.partial_bytes == 0);
        let half = find("musicgen-medium");
        assert!(half.problem.as_ref().is_some_and(|why| why.contains("interrupted")), "{half:?}");
        assert!(half.source.is_none() && half.partial_bytes == size("config.json") + size("generation_config.json"));
        let own = find("parity-mono");
        assert_eq!(
            (own.origin, own.disk_bytes, own.problem.as_ref()),
            (Origin::Folder, size("model.safetensors"), None)
        );
        let lost = find("gone");
        assert!(lost.source.is_none() && lost.problem.as_ref().is_some_and(|why| why.contains("gone")), "{lost:?}");
        models::forget_folder(&gone).expect("forgotten");
        assert_eq!(models::remembered_folders(), [fixture()]);
    });
}

#[test]
fn the_published_sizes_are_those_of_their_configurations() {
    for (published, shape) in PUBLISHED.iter().zip([Shape::Small, Shape::Medium, Shape::Large]) {
        let (own, read) = (published.config(), config_of(shape).expect("the shape's configuration"));
        assert_eq!(own.decoder.weights_of_step(), read.decoder.weights_of_step(), "{}", published.name);
        assert_eq!((&own.codec, own.generation.max_length), (&read.codec, read.generation.max_length));
        let words =
            |text: &tiller_engine::checkpoint::TextConfig| (text.vocab_size, text.d_model, text.d_ff, text.num_layers);
        assert_eq!(words(&own.text), words(&read.text));
    }
}

#[test]
fn nothing_is_asked_before_the_licence_is_accepted() {
    alone("nothing_is_asked_before_the_licence_is_accepted", |folder| {
        let server = HubServer::start(&on_a_hub(folder), SMALL.repository, 0).expect("it serves");
        let hub = Hub::at(&server.url(), &folder.join("hub"));
        let background = Background::default();
        let said = download::begin(&background, SMALL, &hub).expect_err("it was not accepted");
        assert!(matches!(&said, ModelsError::Licence { .. }) && said.to_string().contains("CC-BY-NC-4.0"), "{said}");
        assert!(background.reports().is_empty() && server.take_asked().is_empty());
        models::list_of(&hub, &[]);
        licence::accept(PUBLISHED[1].repository).expect("accepted");
        assert!(!licence::accepted(SMALL.repository) && licence::accepted(PUBLISHED[1].repository));
        licence::accept(SMALL.repository).expect("accepted");
        assert!(licence::accepted(SMALL.repository));
        assert!(server.take_asked().is_empty(), "a list and a licence ask nobody");
        download::begin(&background, SMALL, &hub).expect("it begins");
    });
}

#[test]
fn a_download_is_whole_and_plays_as_the_original() {
    alone("a_download_is_whole_and_plays_as_the_original", |folder| {
        let place = Place::new(folder);
        place.begin();
        place.is_done();
        let report = place.background.report(Kind::Download, SMALL.name).expect("a report");
        let all: u64 = FILES.into_iter().map(size).sum();
        assert_eq!((report.unit, report.done, report.all), (Unit::Bytes, all, all));
        let asked = place.server.take_asked();
        let named = |file: &&Asked| !file.file.as_deref().is_none_or(|name| FILES.contains(&name));
        assert_eq!(asked.iter().find(named), None, "only what the loader reads is asked for");
        assert!(
            FILES.into_iter().all(|file| reads(&asked, file).iter().map(|one| one.sent).sum::<u64>() == size(file))
        );
        // Any tool of Hugging Face finds it: the revision, by name, and pointers to blobs.
        let entry = place.entry();
        assert_eq!((entry.disk_bytes, entry.partial_bytes, entry.problem.as_ref()), (all, 0, None));
        let cache = hf_layout(&place.hub.cache);
        assert_eq!(fs::read(cache.join("model.safetensors")).ok(), fs::read(fixture().join("model.safetensors")).ok());
        #[cfg(unix)]
        assert!(fs::read_link(cache.join("config.json")).expect("a pointer").starts_with("../../blobs"));

        let source = place.source();
        assert_eq!(Model::name_of(&source), SMALL.name);
        let played = |source: &ModelSource| {
            let model = Model::load(source, &|_| ()).expect("it loads");
            let prompt = Arc::new(model.prompt("piano").expect("it encodes"));
            answers(&mut Player::new(model, prompt, None), &unsteered(1, 50, 1.0), &[]).expect("it plays").audio
        };
        let heard = played(&source);
        assert!(heard.iter().any(|sample| sample.abs() > 1e-4), "it is no silence");
        assert_eq!(heard, played(&ModelSource::Directory(fixture())), "sample for sample");

        // Once more: it is checked, and nothing of it is sent again.
        place.begin();
        place.is_done();
        assert!(place.server.take_asked().iter().all(|one| one.file.is_none() || one.sent == 0));
        models::remove(&entry).expect("removed");
        let entry = place.entry();
        assert_eq!((entry.source, entry.disk_bytes, entry.problem), (None, 0, None));
        assert!(!place.hub.cache.join("models--facebook--musicgen-small").exists());
    });
}

/// The revision that `refs/main` of a cache names.
fn hf_layout(cache: &Path) -> PathBuf {
    let folder = cache.join("models--facebook--musicgen-small");
    let main = fs::read_to_string(folder.join("refs/main")).expect("a reference");
    folder.join("snapshots").join(main)
}

#[test]
fn a_download_that_was_interrupted_asks_only_for_what_is_missing() {
    alone("a_download_that_was_interrupted_asks_only_for_what_is_missing", |folder| {
        let mut place = Place::new(folder);
        place.server.behave(slow());
        place.begin();
        until(Duration::from_secs(10), || place.done() > 200_000);
        // The host unloads the plugin.
        let since = Instant::now();
        place.background = Background::default();
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        place.server.take_asked();
        let entry = place.entry();
        let half = fs::metadata(place.blob("model.safetensors", ".incomplete")).expect("a part").len();
        assert!(half > 100_000 && half < size("model.safetensors"), "{half}");
        assert!(entry.source.is_none() && entry.partial_bytes >= half, "{entry:?}");
        assert!(entry.problem.is_some_and(|why| why.contains("interrupted")));

        place.server.behave(Manners::default());
        place.begin();
        place.is_done();
        let asked = place.server.take_asked();
        let own = reads(&asked, "model.safetensors");
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!((own[0].start, own[0].sent), (Some(half), size("model.safetensors") - half));
        for file in ["config.json", "tokenizer.json"] {
            assert!(reads(&asked, file).is_empty(), "{file} was here");
        }
        assert!(place.entry().source.is_some());
    });
}

#[test]
fn connections_that_break_are_opened_again_where_they_broke() {
    alone("connections_that_break_are_opened_again_where_they_broke", |folder| {
        let place = Place::new(folder);
        place.server.behave(Manners { cut_after: Some(300_000), ..Manners::default() });
        place.begin();
        place.is_done();
        let starts: Vec<u64> =
            reads(&place.server.take_asked(), "model.safetensors").iter().map(|one| one.start.unwrap_or(0)).collect();
        assert_eq!(starts, [0, 300_000, 600_000]);
        // A hub that knows no ranges sends all of it again, and what comes of it is right all the same.
        models::remove(&place.entry()).expect("removed");
        place.server.behave(Manners {
            cut_after: Some(300_000),
            cuts: Some(1),
            ignores_ranges: true,
            ..Manners::default()
        });
        place.begin();
        place.is_done();
        let asked = place.server.take_asked();
        let sent: Vec<u64> = reads(&asked, "model.safetensors").iter().map(|one| one.sent).collect();
        assert_eq!(sent, [300_000, size("model.safetensors")]);
    });
}

#[test]
fn a_damaged_byte_is_found_named_and_removed() {
    alone("a_damaged_byte_is_found_named_and_removed", |folder| {
        let place = Place::new(folder);
        for file in ["model.safetensors", "tokenizer.json"] {
            place.server.behave(Manners { corrupt_once: Some(file.to_owned()), ..Manners::default() });
            place.begin();
            let said = place.fails();
            assert!(said.contains(file) && said.contains("damaged") && said.contains("download again"), "{said}");
            assert!(!place.blob(file, "").exists() && !place.blob(file, ".incomplete").exists(), "{file} is gone");
            assert!(place.entry().source.is_none());
            place.begin();
            place.is_done();
            // A byte that changes on the disk is found too, when the model is downloaded again.
            let mut bytes = fs::read(place.blob(file, "")).expect("the blob");
            bytes[1000] ^= 1;
            fs::write(place.blob(file, ""), bytes).expect("written");
            place.server.take_asked();
            place.begin();
            place.is_done();
            assert_eq!(reads(&place.server.take_asked(), file).len(), 1);
            assert_eq!(fs::read(place.blob(file, "")).ok(), fs::read(fixture().join(file)).ok());
            models::remove(&place.entry()).expect("removed");
        }
    });
}

#[test]
fn a_download_pauses_goes_on_and_is_cancelled() {
    alone("a_download_pauses_goes_on_and_is_cancelled", |folder| {
        let place = Place::new(folder);
        place.server.behave(slow());
        place.begin();
        until(Duration::from_secs(10), || place.done() > 100_000);
        place.background.pause(Kind::Download, SMALL.name);
        std::thread::sleep(Duration::from_millis(500));
        let paused = place.done();
        // Longer than a hub may keep us waiting.
        std::thread::sleep(Duration::from_millis(9_500));
        assert_eq!((place.standing(), place.done()), (Standing::Paused, paused));
        place.background.resume(Kind::Download, SMALL.name);
        until(Duration::from_secs(10), || place.done() > paused);
        let report = place.background.report(Kind::Download, SMALL.name).expect("a report");
        assert!(report.per_second > 50_000.0 && report.per_second < 1e6, "pauses are left out: {report:?}");
        assert!(report.left.is_some_and(|left| left < Duration::from_secs(10)), "{report:?}");
        let busy = models::remove(&place.entry()).expect_err("it is being downloaded");
        assert!(matches!(busy, ModelsError::Busy { .. }), "{busy}");
        place.background.cancel(Kind::Download, SMALL.name);
        let (standing, took) = place.end();
        assert!(standing == Standing::Stopped && took < Duration::from_secs(2), "{standing:?} {took:?}");
        assert!(!place.hub.cache.join("models--facebook--musicgen-small").exists(), "nothing is left");
        place.server.behave(Manners::default());
        place.begin();
        place.is_done();
    });
}

#[test]
fn cancelling_keeps_the_model_that_was_whole() {
    alone("cancelling_keeps_the_model_that_was_whole", |folder| {
        let place = Place::new(folder);
        place.begin();
        place.is_done();
        fs::remove_file(place.blob("model.safetensors", "")).expect("removed");
        let older = hf_layout(&place.hub.cache).with_file_name("older");
        fs::create_dir_all(&older).expect("a folder");
        FILES.into_iter().for_each(|file| drop(fs::copy(fixture().join(file), older.join(file)).expect("copied")));
        place.server.behave(slow());
        place.begin();
        until(Duration::from_secs(10), || place.blob("model.safetensors", ".incomplete").exists());
        place.background.cancel(Kind::Download, SMALL.name);
        assert_eq!(place.end().0, Standing::Stopped);
        assert!(!place.blob("model.safetensors", ".incomplete").exists());
        assert_eq!(place.source(), ModelSource::Directory(older));
    });
}

#[test]
fn who_is_not_there_is_named_at_once() {
    alone("who_is_not_there_is_named_at_once", |folder| {
        let mut place = Place::new(folder);
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let cache = place.hub.cache.clone();
        for (endpoint, words) in [
            (format!("http://{closed}"), vec!["refuses the connection", "HF_ENDPOINT"]),
            ("http://no-such-hub.invalid".to_owned(), vec!["no-such-hub.invalid", "offline", "check"]),
            ("ftp://hub".to_owned(), vec!["HF_ENDPOINT"]),
            ("no address".to_owned(), vec!["HF_ENDPOINT"]),
        ] {
            place.hub = Hub::at(&endpoint, &cache);
            place.begin();
            let said = place.fails();
            assert!(words.iter().all(|word| said.contains(word)), "{endpoint}: {said}");
        }
        place.hub = Hub { offline: true, ..Hub::at(&place.server.url(), &cache) };
        place.begin();
        assert!(place.fails().contains("HF_HUB_OFFLINE"));
        assert!(place.server.take_asked().is_empty());
        assert_eq!(place.entry().partial_bytes, 0);
    });
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    alone("a_hub_that_says_nothing_is_given_up", |folder| {
        let place = Place::new(folder);
        place.server.behave(Manners { stalls: true, ..Manners::default() });
        place.begin();
        let said = place.fails();
        assert!(said.contains("not answered for 9 seconds") && said.contains("check the connection"), "{said}");
    });
}

#[test]
fn a_body_that_stops_is_given_up_and_kept() {
    alone("a_body_that_stops_is_given_up_and_kept", |folder| {
        let place = Place::new(folder);
        place.server.behave(Manners { stalls_after: Some(100_000), ..Manners::default() });
        place.begin();
        until(Duration::from_secs(5), || place.done() > 100_000);
        // Every connection brings another 100,000 bytes, four seconds apart, until the last of them.
        place.server.behave(Manners { stalls: true, ..Manners::default() });
        let said = place.fails();
        assert!(said.contains("goes on where it stopped"), "{said}");
        let half = fs::metadata(place.blob("model.safetensors", ".incomplete")).expect("a part").len();
        assert_eq!(half, 100_000);
        place.server.behave(Manners::default());
        place.begin();
        place.is_done();
    });
}

#[test]
fn a_stop_is_noticed_wherever_it_waits() {
    alone("a_stop_is_noticed_wherever_it_waits", |folder| {
        let place = Place::new(folder);
        let silent = Manners { stalls: true, ..Manners::default() };
        let stops = Manners { stalls_after: Some(100_000), ..Manners::default() };
        for manners in [silent, stops] {
            place.server.behave(manners);
            place.begin();
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(place.standing(), Standing::Running);
            place.background.stop(Kind::Download, SMALL.name);
            let (standing, took) = place.end();
            assert!(standing == Standing::Stopped && took < Duration::from_secs(2), "{standing:?} {took:?}");
        }
    });
}

#[test]
fn refusals_say_what_to_do() {
    alone("refusals_say_what_to_do", |folder| {
        let mut place = Place::new(folder);
        for (token, status, words) in [
            (None, 401, ["HF_TOKEN", "settings/tokens"]),
            (None, 403, ["HF_TOKEN", "settings/tokens"]),
            (Some("hf_wrong"), 401, ["token", "HF_TOKEN"]),
            (Some("hf_wrong"), 403, ["token", "access"]),
            (None, 404, ["facebook/musicgen-small", "404"]),
            (None, 429, ["too many", "wait"]),
            (None, 500, ["problem of its own", "500"]),
            (None, 503, ["problem of its own", "later"]),
            (None, 418, ["418", "HF_ENDPOINT"]),
        ] {
            place.server.behave(Manners { status: Some(status), ..Manners::default() });
            place.hub.token = token.map(str::to_owned);
            place.begin();
            let said = place.fails();
            assert!(words.iter().all(|word| said.contains(word)), "{status}: {said}");
            assert!(!said.contains("hf_wrong"), "{said}");
        }
    });
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    alone("the_token_goes_to_the_hub_and_to_nobody_else", |folder| {
        let mut place = Place::new(folder);
        place.server.behave(Manners { token: Some("hf_right".to_owned()), ..Manners::default() });
        place.hub.token = Some("hf_right".to_owned());
        place.begin();
        place.is_done();
        let asked = place.server.take_asked();
        assert!(asked.iter().any(|one| !one.at_hub), "large files come from another origin");
        for one in asked {
            assert_eq!(one.authorization.as_deref(), one.at_hub.then_some("Bearer hf_right"), "{one:?}");
        }
    });
}

#[test]
fn a_disk_without_room_is_found_out_before() {
    alone("a_disk_without_room_is_found_out_before", |folder| {
        let mut place = Place::new(folder);
        place.hub.free_space = |_| Ok(65 << 20);
        place.hub.free_space = |_| Ok((64 << 20) + 700_000);
        place.begin();
        let said = place.fails();
        assert!(said.contains("713") && said.contains("HF_HUB_CACHE") && said.contains("make room"), "{said}");
        assert!(place.server.take_asked().iter().all(|one| one.sent == 0), "not a byte is asked for");
        // Nobody knows: the disk itself will tell.
        place.hub.free_space = |_| Err(io::ErrorKind::Unsupported.into());
        place.begin();
        place.is_done();
    });
}

#[test]
#[cfg(unix)]
fn a_disk_that_fills_up_keeps_what_is_there() {
    alone("a_disk_that_fills_up_keeps_what_is_there", |folder| {
        let place = Place::new(folder);
        limit_files(400_000);
        place.begin();
        let said = place.fails();
        assert!(said.contains("full") && said.contains("make room"), "{said}");
        let half = fs::metadata(place.blob("model.safetensors", ".incomplete")).expect("a part").len();
        assert!(half > 100_000 && half <= 400_000, "{half}");
        limit_files(u64::MAX);
        place.server.take_asked();
        place.begin();
        place.is_done();
        assert_eq!(reads(&place.server.take_asked(), "model.safetensors")[0].start, Some(half));
    });
}

/// Files of this process cannot grow beyond `bytes`, as on a disk that is full.
#[cfg(unix)]
fn limit_files(bytes: u64) {
    // SAFETY: a signal is ignored and a limit set, both of this process alone.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: u64::MAX };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

#[test]
fn a_hub_that_means_harm_writes_nothing_outside_the_cache() {
    alone("a_hub_that_means_harm_writes_nothing_outside_the_cache", |folder| {
        let place = Place::new(folder);
        let lies = |lies: &[(&str, u64)]| Manners {
            lies: lies.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect(),
            ..Manners::default()
        };
        // Names that lead elsewhere are nobody's; more bytes than were announced are not taken, nor sizes that none has.
        place.server.behave(lies(&[("model.safetensors", 1_000)]));
        place.begin();
        let said = place.fails();
        assert!(said.contains("more than the 1000 bytes") && said.contains("model.safetensors"), "{said}");
        place.server.behave(lies(&[("model.safetensors", 1 << 60)]));
        place.begin();
        assert!(place.fails().contains("more than a file of its kind has"));
        place.server.behave(lies(&[("model.safetensors", (64 << 30) - 1)]));
        let hub = Hub { free_space: |_| Ok(1 << 30), ..place.hub.clone() };
        download::begin(&place.background, SMALL, &hub).expect("it begins");
        assert!(place.fails().contains("make room"));
        place.server.behave(lies(&[("../../../evil", 10), ("/tmp/evil", 10)]));
        place.begin();
        place.is_done();
        let names = |folder: &Path| -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(folder)
                .expect("lists")
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&place.hub.cache), [".locks", "models--facebook--musicgen-small"]);
        assert_eq!(names(&hf_layout(&place.hub.cache)), FILES);
    });
}

#[test]
fn shards_come_by_their_index() {
    alone("shards_come_by_their_index", |folder| {
        let served = on_a_hub(folder);
        let whole = fs::read(served.join("model.safetensors")).expect("the weights");
        let tensors = SafeTensors::deserialize(&whole).expect("safetensors");
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let mut map = serde_json::Map::new();
        for (number, name) in names.into_iter().enumerate() {
            let all = tensors.tensors();
            let own: Vec<(String, TensorView<'_>)> = all
                .into_iter()
                .enumerate()
                .filter(|(index, _)| index % 2 == number)
                .map(|(_, tensor)| tensor)
                .collect();
            own.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.into())));
            fs::write(served.join(name), safetensors::serialize(own, None).expect("serialised")).expect("written");
        }
        let index = |map: serde_json::Value| {
            let text = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
            fs::write(served.join("model.safetensors.index.json"), text).expect("written");
        };
        fs::remove_file(served.join("model.safetensors")).expect("removed");
        licence::accept(SMALL.repository).expect("accepted");
        let serve = || HubServer::start(&served, SMALL.repository, 0).expect("it serves");
        // An index that leads out of the folder is none.
        index(serde_json::json!({ "a": "../../../evil.safetensors" }));
        let server = serve();
        let mut place =
            Place { hub: Hub::at(&server.url(), &folder.join("hub")), server, background: Background::default() };
        place.begin();
        let said = place.fails();
        assert!(said.contains("index"), "{said}");
        index(map.into());
        place.server = serve();
        place.hub = Hub::at(&place.server.url(), &folder.join("hub"));
        place.begin();
        place.is_done();
        let model = Model::load(&place.source(), &|_| ()).expect("it loads");
        assert_eq!(model.channels(), 1);
        assert!(place.entry().disk_bytes > whole.len() as u64);
        // Without safetensors there is nothing to take.
        names.into_iter().for_each(|name| fs::remove_file(served.join(name)).expect("removed"));
        fs::remove_file(served.join("model.safetensors.index.json")).expect("removed");
        place.server = serve();
        place.hub = Hub::at(&place.server.url(), &folder.join("other"));
        place.begin();
        assert!(place.fails().contains("pickled"));
    });
}

/// The proxy of [`a_proxy_of_the_environment_is_used`]: nobody may listen there but the test.
const PROXY: &str = "TILLER_TEST_PROXY";

#[test]
fn a_proxy_of_the_environment_is_used() {
    let name = "a_proxy_of_the_environment_is_used";
    if env::var_os(OWN).is_some() {
        return alone(name, |folder| {
            let hub = Hub { cache: folder.join("hub"), ..Hub::from_env() };
            assert_eq!((hub.endpoint.as_str(), hub.token.as_deref()), ("http://hub.example", Some("hf_mine")));
            licence::accept(SMALL.repository).expect("accepted");
            let background = Background::default();
            download::begin(&background, SMALL, &hub).expect("it begins");
            let standing = || background.report(Kind::Download, SMALL.name).expect("a report").standing;
            until(Duration::from_secs(20), || standing().is_over());
            match env::var(PROXY).as_deref() {
                Ok("open") => assert!(matches!(standing(), Standing::Done(_)), "{:?}", standing()),
                _ => {
                    let Standing::Failed(said) = standing() else { panic!("{:?}", standing()) };
                    assert!(said.contains("through the proxy 127.0.0.1:") && said.contains("the proxy"), "{said}");
                }
            }
        });
    }
    let folder = env::temp_dir().join(format!("tiller-proxy-{}", std::process::id()));
    let server = HubServer::start(&on_a_hub(&folder), SMALL.repository, 0).expect("it serves");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let own = [("HF_ENDPOINT", "http://hub.example/"), ("HF_TOKEN", "hf_mine")];
    for (proxy, state) in [(server.url(), "open"), (format!("http://{closed}"), "closed")] {
        let more = [own[0], own[1], ("HTTP_PROXY", proxy.as_str()), (PROXY, state)];
        alone_with(name, &more, |_| ());
    }
    let asked = server.take_asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("CONNECT", "hub.example:80"));
    assert!(asked.iter().any(|one| one.authorization.as_deref() == Some("Bearer hf_mine")));
    fs::remove_dir_all(folder).expect("cleaned");
}

#[test]
fn a_folder_of_the_users_own_is_never_removed() {
    alone("a_folder_of_the_users_own_is_never_removed", |folder| {
        let own = folder.join("models--mine--own");
        fs::create_dir_all(&own).expect("a folder");
        let list = models::list(std::slice::from_ref(&own));
        for entry in list.iter().filter(|entry| entry.origin != Origin::Hub || entry.place.is_none()) {
            assert!(matches!(models::remove(entry), Err(ModelsError::NotOfCache { .. })), "{entry:?}");
        }
        assert!(own.is_dir());
    });
}

#[test]
fn a_trial_says_whether_this_machine_holds_real_time() {
    alone("a_trial_says_whether_this_machine_holds_real_time", |_| {
        let background = Background::default();
        let source = ModelSource::Directory(fixture());
        assert_eq!((trial::kept(&source, None), trial::hash_of(&source)), (None, None));
        trial::begin(&background, &source, None).expect("it begins");
        // The one that runs is the one that was asked for.
        trial::begin(&background, &source, None).expect("it begins");
        let standing = || background.report(Kind::Trial, "parity-mono").expect("a report").standing;
        until(Duration::from_secs(60), || standing().is_over());
        let Standing::Done(said) = standing() else { panic!("{:?}", standing()) };
        let found = trial::kept(&source, None).expect("it is kept");
        assert_eq!(found.verdict(), said);
        assert!(found.real_time > 0.05 && found.slowest_ms > 0.0 && found.memory_bytes > 500_000, "{found:?}");
        assert_eq!((found.precision, found.device.as_str()), (Precision::F32, "CPU"));
        assert_eq!(trial::kept(&source, Some(Precision::Int4)), None, "another precision is another trial");
        let model = Model::load(&source, &|_| ()).expect("it loads");
        assert_eq!(trial::hash_of(&source).as_deref(), Some(model.hash()));
        // What cannot be loaded says why, and a trial that is stopped leaves nothing running.
        let gone = ModelSource::Directory(PathBuf::from("/nowhere/at-all"));
        trial::begin(&background, &gone, None).expect("it begins");
        let standing = |name| background.report(Kind::Trial, name).expect("a report").standing;
        until(Duration::from_secs(10), || standing("at-all").is_over());
        assert!(matches!(standing("at-all"), Standing::Failed(why) if why.contains("/nowhere/at-all")));
        trial::begin(&background, &ModelSource::Embedded, None).expect("it begins");
        let since = Instant::now();
        drop(background);
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_eq!(trial::kept(&ModelSource::Embedded, None), None);
    });
}
