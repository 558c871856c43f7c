//! The way from the built-in model to another one, through the page that a musician has: list, licence, download that is paused,
//! cut off and damaged, use, ten-second test, learning that is stopped and gone on with; then the same without a network. The
//! page is drawn without a window and its buttons are pressed by their names. Each case is a process of its own, since where
//! things lie and which hub is asked are facts of a process.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::accesskit::Role;
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use tiller::editor::models::ModelsPage;
use tiller::instance::Instance;
use tiller_engine::background::{Kind, Standing};
use tiller_engine::learn::work::unfinished;
use tiller_engine::status::State;
use tiller_tests::hub::{HubServer, Manners};

const REPOSITORY: &str = "facebook/musicgen-small";
/// What the page calls the download.
const SUBJECT: &str = "musicgen-small";
/// Longest that a frame's drawing may take: far more than it does, far less than any disk, hub or model takes.
const MOST_OF_A_FRAME: Duration = Duration::from_millis(250);
/// Longest that anything may hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs one of the ignored tests below in a process with a home of its own.
fn alone(name: &str, endpoint: &str) {
    let home = std::env::temp_dir().join(format!("tiller-path-{name}-{}", std::process::id()));
    fs::create_dir_all(&home).expect("a home");
    let own = std::env::current_exe().expect("this program");
    let mut child = Command::new(own);
    child.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    for variable in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE"] {
        child.env_remove(variable);
    }
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env_remove(variable);
    }
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        child.env(variable, &home);
    }
    let ended = child.env("HF_HOME", home.join("hf")).env("HF_ENDPOINT", endpoint).status().expect("it runs");
    let _ = fs::remove_dir_all(&home);
    assert!(ended.success(), "{name}: {ended}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

#[test]
fn from_the_list_to_music() {
    alone("path_with_a_hub", &format!("http://127.0.0.1:{}", free_port()));
}

#[test]
fn without_a_network_every_message_names_cause_and_next_step() {
    alone("path_refused", &format!("http://127.0.0.1:{}", free_port()));
}

#[test]
fn a_hub_that_says_nothing_holds_nobody_up() {
    // Taken and never answered.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    alone("path_stalled", &format!("http://{}", silent.local_addr().expect("its address")));
}

#[test]
fn recordings_come_into_their_boxes_several_at_once() {
    alone("path_of_recordings", &format!("http://127.0.0.1:{}", free_port()));
}

struct Window {
    page: ModelsPage,
    instance: Arc<Instance>,
}

struct Desk {
    harness: Harness<'static, Window>,
    slowest: Duration,
}

impl Desk {
    fn open() -> Self {
        let instance: Arc<Instance> = Arc::default();
        instance.wake().expect("an engine");
        let window = Window { page: ModelsPage::default(), instance };
        let draw = |ui: &mut egui::Ui, window: &mut Window| {
            let status = window.instance.handle.status();
            window.page.show(ui, &window.instance, &status);
        };
        let harness =
            Harness::builder().with_size([960.0, 2_000.0]).with_accessibility_check(false).build_ui_state(draw, window);
        let mut desk = Self { harness, slowest: Duration::ZERO };
        desk.until("the list", |desk| desk.has("musicgen-stereo-large"));
        // Fonts are made in the first frames.
        desk.slowest = Duration::ZERO;
        desk
    }

    fn step(&mut self) {
        let before = Instant::now();
        self.harness.step();
        self.slowest = self.slowest.max(before.elapsed());
    }

    fn has(&self, text: &str) -> bool {
        self.harness.query_all_by_label_contains(text).next().is_some()
    }

    /// Everything that is written on the page.
    fn text(&self) -> String {
        let all = self.harness.query_all_by(|node| matches!(node.role(), Role::Label | Role::Button));
        let words = all.filter_map(|node| node.accesskit_node().label().or_else(|| node.value()));
        words.collect::<Vec<_>>().join("\n")
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.within(Duration::from_secs(120), what, holds);
    }

    fn within(&mut self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        loop {
            self.step();
            if holds(self) {
                return;
            }
            assert!(since.elapsed() < limit, "waited in vain for {what}; the page says:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn press(&mut self, name: &str) {
        self.until(name, |desk| desk.harness.query_by_role_and_label(Role::Button, name).is_some());
        self.harness.get_by_role_and_label(Role::Button, name).click();
        self.step();
        self.step();
    }

    fn choose(&mut self, name: &str) {
        let row = format!("{name}, ");
        self.until(name, |desk| desk.has(&row));
        let rows = self.harness.query_all_by(|node| node.label().is_some_and(|label| label.starts_with(&row)));
        rows.into_iter().next().expect("the row").click();
        self.step();
        self.step();
    }

    fn instance(&self) -> &Arc<Instance> {
        &self.harness.state().instance
    }

    fn standing(&self, kind: Kind) -> Option<Standing> {
        self.instance()
            .background
            .reports()
            .into_iter()
            .find(|report| report.kind == kind)
            .map(|report| report.standing)
    }

    /// Waits for a failure, which must come soon, and gives its words.
    fn failure(&mut self, kind: Kind, limit: Duration) -> String {
        self.within(limit, "a failure", |desk| matches!(desk.standing(kind), Some(Standing::Failed(_))));
        let Some(Standing::Failed(why)) = self.standing(kind) else { panic!("no failure") };
        self.step();
        assert!(self.has(&why), "the page does not say: {why}\nbut:\n{}", self.text());
        why
    }

    /// Has read how a work ended. The list is made anew after that end, and may move the button away from under a click.
    fn put_by(&mut self, kind: Kind) {
        while self.standing(kind).is_some() {
            self.press("Got it");
        }
    }

    fn close(self) {
        println!("slowest frame {:.1} ms", 1e3 * self.slowest.as_secs_f64());
        assert!(self.slowest < MOST_OF_A_FRAME, "a frame took {:?}", self.slowest);
        let since = Instant::now();
        drop(self);
        assert!(since.elapsed() < PATIENCE, "closing took {:?}", since.elapsed());
        assert_eq!(threads(), BTreeSet::new(), "threads are left");
    }
}

/// Names of the threads of ours that run.
fn threads() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).filter(|name| name.starts_with("tiller-")).collect()
}

fn folder(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(variable).expect("set by `alone`"))
}

/// Bytes of files that are not whole.
fn partial() -> u64 {
    files(&folder("HF_HOME")).filter(|path| path.to_string_lossy().contains("incomplete")).map(|path| size(&path)).sum()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn files(folder: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    Box::new(entries.flat_map(|entry| {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder { files(&path) } else { Box::new(std::iter::once(path)) as Box<dyn Iterator<Item = PathBuf>> }
    }))
}

/// The built-in checkpoint as a folder, without its directions.
fn checkpoint() -> PathBuf {
    let (demo, own) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo"), folder("HOME").join("served"));
    fs::create_dir_all(&own).expect("a folder");
    for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(demo.join(name), own.join(name)).expect("copied");
    }
    own
}

#[test]
#[ignore = "run by from_the_list_to_music"]
fn path_with_a_hub() {
    let endpoint = std::env::var("HF_ENDPOINT").expect("set by `alone`");
    let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let served = checkpoint();
    let hub = HubServer::start(&served, REPOSITORY, port).expect("a hub");
    let mut desk = Desk::open();

    // List and licence: nobody has asked the hub anything.
    desk.choose(SUBJECT);
    desk.until("the download", |desk| desk.has("Download "));
    let button = desk.text().lines().find(|line| line.starts_with("Download ")).map(str::to_owned).expect("its button");
    desk.press(&button);
    desk.until("the licence", |desk| desk.has("CC-BY-NC-4.0") && desk.has("creativecommons.org"));
    desk.press("Not now");
    assert!(hub.take_asked().is_empty(), "a server was asked without a click");
    assert!(desk.standing(Kind::Download).is_none());

    // Accept, download, pause and go on, at a pace that leaves time for it.
    hub.behave(Manners { throttle: Some(4 << 20), ..Manners::default() });
    desk.press(&button);
    desk.press("Accept and download");
    desk.until("bytes", |_| partial() > 1 << 20);
    assert!(desk.has("MB of ") && desk.has("downloading"), "{}", desk.text());
    desk.press("Pause");
    desk.until("the pause", |desk| desk.has("paused"));
    std::thread::sleep(Duration::from_millis(300));
    let paused = partial();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(partial(), paused, "it came on while paused");
    desk.press("Resume");
    desk.until("more bytes", |_| partial() > paused);

    // The hub goes away; what came stays, and the download goes on from there.
    drop(hub);
    let why = desk.failure(Kind::Download, Duration::from_secs(60));
    println!("cut off: {why}");
    let kept = partial();
    assert!(kept >= paused && kept < 12 << 20, "{kept} bytes were kept of {paused}");
    desk.put_by(Kind::Download);
    let hub = HubServer::start(&served, REPOSITORY, port).expect("the hub again");
    hub.behave(Manners { corrupt_once: Some("model.safetensors".to_owned()), ..Manners::default() });
    desk.until("the rest", |desk| desk.has("to come"));
    let rest = desk.text().lines().find(|line| line.starts_with("Go on, ")).map(str::to_owned).expect("its button");
    desk.press(&rest);
    let why = desk.failure(Kind::Download, Duration::from_secs(60));
    println!("damaged: {why}");
    assert!(why.contains("model.safetensors") && why.contains("download again"), "{why}");
    let asked = hub.take_asked();
    let resumed = asked.iter().filter(|asked| asked.file.as_deref() == Some("model.safetensors"));
    assert!(resumed.into_iter().any(|asked| asked.start.is_some_and(|start| start > 0)), "{asked:?}");
    assert_eq!(partial(), 0, "damaged bytes were kept");
    desk.put_by(Kind::Download);
    // The small files are whole and stay.
    desk.until("the rest", |desk| desk.has("to come"));
    let rest = desk.text().lines().find(|line| line.starts_with("Go on, ")).map(str::to_owned).expect("its button");
    desk.press(&rest);
    desk.until("the model", |desk| desk.has("Use in this project"));
    desk.put_by(Kind::Download);
    let snapshot = files(&folder("HF_HOME")).find(|path| path.ends_with("model.safetensors")).expect("its weights");
    assert!(fs::read(&snapshot).expect("read") == fs::read(served.join("model.safetensors")).expect("read"));

    // It plays.
    desk.press("Use in this project");
    desk.until("the model to load", |desk| desk.instance().handle.status().state == State::Ready);
    let project = desk.instance().project.project().model.expect("in the project");
    assert_eq!((project.name.as_str(), Path::new(&project.path)), (SUBJECT, snapshot.parent().expect("its folder")));
    desk.press("Test (10 s)");
    desk.until("the test", |desk| desk.has("× real time"));
    println!("{}", desk.text().lines().filter(|line| line.contains("real time")).collect::<Vec<_>>().join("; "));

    // Learning begins, is stopped, is offered again, goes on and is cancelled.
    desk.press("Steering");
    assert!(desk.has("not learned yet"), "{}", desk.text());
    desk.press("D");
    desk.press("F#");
    desk.press("F#");
    desk.press("A");
    assert!(desk.has("Hears 56 % of what all twelve take"), "{}", desk.text());
    desk.press("Learn");
    desk.until("listening", |desk| desk.has("listening to music"));
    desk.press("Stop, go on later");
    desk.until("the end", |desk| desk.has("Go on"));
    assert_eq!(unfinished().len(), 1);
    assert!(desk.has("Learning of the notes D, A was interrupted."), "{}", desk.text());
    desk.press("Go on");
    desk.until("listening", |desk| desk.has("listening to music"));
    desk.press("Cancel");
    desk.until("the end", |desk| desk.has("not learned yet") && !desk.has("Cancel"));
    desk.until("nothing to go on with", |_| unfinished().is_empty());

    // Removing it leaves the project with its name and the page without the files.
    desk.press("About");
    desk.press("Remove");
    desk.press("Remove it");
    desk.until("the removal", |desk| desk.has("Download "));
    assert!(!snapshot.exists());
    assert_eq!(desk.instance().project.project().model, Some(project));
    desk.close();
    drop(hub);
}

fn ask_for_a_download(desk: &mut Desk) {
    desk.choose(SUBJECT);
    desk.until("the download", |desk| desk.has("Download "));
    let button = desk.text().lines().find(|line| line.starts_with("Download ")).map(str::to_owned).expect("its button");
    desk.press(&button);
    desk.press("Accept and download");
}

#[test]
#[ignore = "run by recordings_come_into_their_boxes_several_at_once"]
fn path_of_recordings() {
    let sounds = folder("HOME").join("sounds");
    fs::create_dir_all(&sounds).expect("a folder");
    for name in ["a.wav", "b b.wav", "c.flac", "d.wav", "no sound.txt"] {
        fs::write(sounds.join(name), b"").expect("written");
    }
    let mut desk = Desk::open();
    desk.press("Your own trait");
    assert!(desk.has("With it") && !desk.has("With it, "));
    // As file managers copy: addresses, one a line. egui-baseview hands over what is pasted as text.
    let fields: Vec<_> = desk.harness.query_all_by_role(Role::TextInput).collect();
    assert_eq!(fields.len(), 4, "the folder of a model, the name, and one for either box");
    fields[2].focus();
    drop(fields);
    desk.step();
    let address = |name: &str| format!("file://{}\r\n", sounds.join(name).display().to_string().replace(' ', "%20"));
    desk.harness.event(egui::Event::Text(["a.wav", "b b.wav", "no sound.txt"].map(address).concat()));
    desk.until("the pasted files", |desk| desk.has("With it, 2"));
    desk.until("what is none", |desk| desk.has("no sound.txt is no WAV or FLAC file"));
    assert!(desk.text().contains("b b.wav") && !desk.has("Without it, "), "{}", desk.text());

    // Clicked one after the other, and all that are left: the look stays open, and what is in the box is marked.
    let buttons: Vec<_> = desk.harness.query_all_by_role_and_label(Role::Button, "Browse").collect();
    buttons.last().expect("the look of the second box").click();
    drop(buttons);
    desk.press("sounds/");
    desk.press("d.wav");
    desk.press("c.flac");
    desk.until("what was clicked", |desk| desk.has("Without it, 2"));
    desk.until("its mark", |desk| {
        let row = desk.harness.query_by_role_and_label(Role::Button, "c.flac");
        row.is_some_and(|row| row.accesskit_node().is_disabled())
    });
    desk.press("Add all here");
    desk.until("the others", |desk| desk.has("Without it, 4") && desk.has("With it, 2"));
    desk.close();
}

#[test]
#[ignore = "run by without_a_network_every_message_names_cause_and_next_step"]
fn path_refused() {
    let mut desk = Desk::open();
    ask_for_a_download(&mut desk);
    let why = desk.failure(Kind::Download, PATIENCE);
    println!("refused: {why}");
    let endpoint = std::env::var("HF_ENDPOINT").expect("set by `alone`");
    let host = endpoint.trim_start_matches("http://");
    assert!(why.contains(host), "the cause: {why}");
    assert!(["check", "again", "connect"].iter().any(|step| why.contains(step)), "the next step: {why}");
    // Everything that needs no network goes on.
    desk.put_by(Kind::Download);
    desk.choose("Tiller demo");
    desk.press("Test (10 s)");
    desk.until("the test", |desk| desk.has("× real time"));
    assert_eq!(desk.instance().handle.status().state, State::Ready);
    assert!(desk.instance().project.project().model.is_none());
    desk.close();
}

#[test]
#[ignore = "run by a_hub_that_says_nothing_holds_nobody_up"]
fn path_stalled() {
    let mut desk = Desk::open();
    ask_for_a_download(&mut desk);
    let why = desk.failure(Kind::Download, PATIENCE);
    println!("stalled: {why}");
    assert!(["check", "again", "connect"].iter().any(|step| why.contains(step)), "the next step: {why}");
    desk.put_by(Kind::Download);
    // While it hangs, everything can be stopped at once, by the window that closes too.
    ask_again(&mut desk);
    desk.until("the work", |desk| matches!(desk.standing(Kind::Download), Some(Standing::Running)));
    let since = Instant::now();
    desk.press("Cancel");
    desk.until("the end", |desk| desk.standing(Kind::Download).is_none_or(|standing| standing.is_over()));
    println!("cancelled after {:?}", since.elapsed());
    assert!(since.elapsed() < PATIENCE);
    ask_again(&mut desk);
    desk.until("the work", |desk| matches!(desk.standing(Kind::Download), Some(Standing::Running)));
    desk.close();
}

fn ask_again(desk: &mut Desk) {
    let button = desk.text().lines().find(|line| line.starts_with("Download ")).map(str::to_owned).expect("its button");
    desk.press(&button);
}
