//! A hub on loopback with the fixture on it, and a process with user folders of its own to ask it from.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tiller_engine::background::{Background, Kind, Standing};
use tiller_engine::handle::ModelSource;
use tiller_engine::models::{self, Entry, Hub, PUBLISHED, Published, download, licence};
use tiller_tests::hub::{Asked, HubServer, Manners};

/// Set in the process that is a test: its folder.
pub const OWN: &str = "TILLER_TEST_HUB";

pub const SMALL: &Published = &PUBLISHED[0];

/// What is downloaded of the fixture.
pub const FILES: [&str; 4] = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];

pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/parity-mono")
}

/// Runs a test, named with its module, in a process whose user folders, and environment of hubs and proxies, are its own.
pub fn alone(name: &str, body: impl FnOnce(&Path)) {
    alone_with(name, &[], body);
}

pub fn alone_with(name: &str, more: &[(&str, &str)], body: impl FnOnce(&Path)) {
    if let Some(folder) = env::var_os(OWN) {
        return body(Path::new(&folder));
    }
    let folder = env::temp_dir().join(format!("tiller-{}-{}", name.replace("::", "-"), std::process::id()));
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
pub fn on_a_hub(folder: &Path) -> PathBuf {
    let served = folder.join("served");
    fs::create_dir_all(&served).expect("a folder");
    for entry in fs::read_dir(fixture()).expect("the fixture").flatten() {
        fs::copy(entry.path(), served.join(entry.file_name())).expect("copied");
    }
    fs::write(served.join("pytorch_model.bin"), b"a pickle").expect("written");
    served
}

pub struct Place {
    pub server: HubServer,
    pub hub: Hub,
    pub background: Background,
}

impl Place {
    /// A hub that behaves, and an empty cache; the licence is accepted.
    pub fn new(folder: &Path) -> Self {
        let server = HubServer::start(&on_a_hub(folder), SMALL.repository, 0).expect("it serves");
        let hub = Hub::at(&server.url(), &folder.join("hub"));
        licence::accept(SMALL.repository).expect("accepted");
        Self { server, hub, background: Background::default() }
    }

    pub fn begin(&self) {
        download::begin(&self.background, SMALL, &self.hub).expect("it begins");
    }

    pub fn standing(&self) -> Standing {
        self.background.report(Kind::Download, SMALL.name).expect("a report").standing
    }

    pub fn done(&self) -> u64 {
        let report = self.background.report(Kind::Download, SMALL.name).expect("a report");
        if report.stage == "downloading" { report.done } else { 0 }
    }

    /// How it ends, and after how long.
    pub fn end(&self) -> (Standing, Duration) {
        let since = Instant::now();
        until(Duration::from_secs(30), || self.standing().is_over());
        (self.standing(), since.elapsed())
    }

    pub fn is_done(&self) {
        let (standing, _) = self.end();
        assert!(matches!(&standing, Standing::Done(said) if said.contains("checksums")), "{standing:?}");
    }

    /// What it says when it fails; within ten seconds.
    pub fn fails(&self) -> String {
        match self.end() {
            (Standing::Failed(why), took) => {
                assert!(took < Duration::from_secs(10), "{took:?}: {why}");
                why
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn entry(&self) -> Entry {
        models::list_of(&self.hub, &[]).into_iter().find(|entry| entry.name == SMALL.name).expect("it is listed")
    }

    pub fn source(&self) -> ModelSource {
        self.entry().source.expect("it is here")
    }

    pub fn blob(&self, file: &str, ending: &str) -> PathBuf {
        let etag = self.server.etag(file).expect("it is served");
        self.hub.cache.join("models--facebook--musicgen-small/blobs").join(etag + ending)
    }
}

pub fn until(most: Duration, what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < most, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The requests that sent bytes of a file.
pub fn reads<'a>(asked: &'a [Asked], file: &str) -> Vec<&'a Asked> {
    asked.iter().filter(|one| one.method == "GET" && one.sent > 0 && one.file.as_deref() == Some(file)).collect()
}

pub fn size(file: &str) -> u64 {
    fs::metadata(fixture().join(file)).expect("it is there").len()
}

/// So slow that a test can do something meanwhile.
pub fn slow() -> Manners {
    Manners { throttle: Some(400_000), ..Manners::default() }
}

/// The revision that `refs/main` of a cache names.
pub fn hf_layout(cache: &Path) -> PathBuf {
    let folder = cache.join("models--facebook--musicgen-small");
    let main = fs::read_to_string(folder.join("refs/main")).expect("a reference");
    folder.join("snapshots").join(main)
}
