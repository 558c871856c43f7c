//! Ten seconds of music on the spot: whether this machine holds real time with a model. A work of [`Background`] that reports;
//! what is measured runs beside it on a thread that `begin`'s caller starts, at the priority that playing has. (A thread that has
//! once let everybody pass, or was started by one that has, is not allowed back by the system.) What was found is kept in the
//! user's cache folder.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ModelsError, machine, memory, snapshot};
use crate::backend::Device;
use crate::background::{Background, Ended, Kind, Unit, Work};
use crate::control::{ControlFrame, Lanes, PitchClass};
use crate::embedded;
use crate::error::EngineError;
use crate::handle::ModelSource;
use crate::loader::Made;
use crate::model::Model;
use crate::precision::Precision;
use crate::user_folders;
use crate::whole_file;

/// Raised with every change of what a trial measures.
const FORMAT: &str = "tiller-trial-1";
/// Music that is played.
const SECONDS: f64 = 10.0;
/// A machine that is too slow is found out by then.
const MOST_SECONDS: f64 = 20.0;
/// What it is played to.
const PROMPT: &str = "medium piano melody";
/// Speed that real time is held with, beside a host and a desk of other things.
const ROOM: f64 = 1.1;

/// How a model plays on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Seconds of audio made per second: decoder, steering and codec.
    pub real_time: f64,
    /// The slowest frame, milliseconds.
    pub slowest_ms: f64,
    /// Length of a frame, milliseconds.
    pub frame_ms: f64,
    /// From the files to the first frame, seconds; next to nothing where an instance had loaded it already.
    pub load_seconds: f64,
    /// Memory that it took, bytes; estimated where the system does not tell.
    pub memory_bytes: u64,
    /// How exactly the weights were kept.
    #[serde(with = "by_name")]
    pub precision: Precision,
    /// Where it played: "CPU", or a card's name.
    pub device: String,
    /// The processor and its threads.
    pub machine: String,
    /// When.
    pub date: String,
}

mod by_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::precision::Precision;

    pub fn serialize<S: Serializer>(precision: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(precision.name())
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Precision, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Trial {
    /// Whether it plays without gaps.
    pub fn holds(&self) -> bool {
        self.real_time >= 1.0
    }

    /// For people, with what to do where it is too slow.
    pub fn verdict(&self) -> String {
        let times = self.real_time;
        if times >= ROOM {
            return format!("holds real time with {times:.1}x to spare");
        }
        if times >= 1.0 {
            return format!(
                "only just holds real time: {times:.2}x; the safe latency, or fewer bits, leave it more room"
            );
        }
        let on_card = self.device != "CPU";
        let remedy = match self.precision {
            Precision::F32 | Precision::Bf16 => "try 8 bit",
            Precision::Int8 => "try 4 bit",
            Precision::Int4 => "try a smaller model",
        };
        let or = if on_card { "" } else { ", or a GPU" };
        format!("too slow here: {times:.2}x; {remedy}{or}")
    }
}

/// What comes from the measured thread.
enum News {
    Stage(&'static str, u64, u64),
    Done(Box<Trial>),
    Failed(String),
}

/// The measured thread. It waits for a word and ends when it is dropped.
struct Bench {
    go: Option<Sender<()>>,
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bench {
    fn start(source: ModelSource, precision: Precision) -> Result<Self, EngineError> {
        let (go, told) = bounded(1);
        let (sender, news) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let body = move || {
            if told.recv().is_err() {
                return;
            }
            let measured = catch_unwind(AssertUnwindSafe(|| measure(&source, precision, &stopped, &sender)));
            let ended = match measured {
                Ok(Ok(Some(trial))) => News::Done(Box::new(trial)),
                Ok(Ok(None)) => return,
                Ok(Err(why)) => News::Failed(why.to_string()),
                Err(panic) => News::Failed(EngineError::fault(&*panic).to_string()),
            };
            // Nobody may listen any more.
            let _ = sender.send(ended);
        };
        let thread = std::thread::Builder::new().name("tiller-trial".to_owned()).spawn(body);
        Ok(Self { go: Some(go), news, stop, thread: Some(thread.map_err(EngineError::Thread)?) })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.go = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tries a model; at `None` with the precision that suits its size. The work's subject is the model's name, what came of it is
/// [`kept`]. To be called from a thread of ordinary priority: an editor's.
///
/// # Errors
/// There is no thread.
pub fn begin(background: &Background, source: &ModelSource, precision: Option<Precision>) -> Result<(), ModelsError> {
    let precision = precision.unwrap_or_else(|| suited(source));
    let bench = Bench::start(source.clone(), precision)?;
    Ok(background.begin(Kind::Trial, &Model::name_of(source), move |work| attend(work, &bench))?)
}

/// A configuration that cannot be read has its say when the model is loaded.
fn suited(source: &ModelSource) -> Precision {
    Model::suited_precision(source).unwrap_or_default()
}

fn attend(work: &Work, bench: &Bench) -> Result<String, Ended> {
    if let Some(go) = &bench.go {
        // It waits for this, or its thread is gone, which the news tell.
        let _ = go.send(());
    }
    loop {
        work.check()?;
        match bench.news.recv_timeout(Duration::from_millis(50)) {
            Ok(News::Stage(stage, done, all)) => work.hear(stage, Unit::Items, done, all),
            Ok(News::Done(trial)) => return Ok(trial.verdict()),
            Ok(News::Failed(why)) => return Err(Ended::Failed(why)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Ended::Stopped),
        }
    }
}

/// Loads and plays; `None` when it was told to stop.
fn measure(
    source: &ModelSource,
    precision: Precision,
    stop: &AtomicBool,
    news: &Sender<News>,
) -> Result<Option<Trial>, EngineError> {
    let is_over = || stop.load(Ordering::Relaxed);
    let tell = |stage, done, all| drop(news.send(News::Stage(stage, done, all)));
    let (began, before) = (Instant::now(), machine::resident());
    let model = Model::load_at(source, precision, &|percent| tell("loading", u64::from(percent), 100))?;
    if is_over() {
        return Ok(None);
    }
    let prompt = Arc::new(model.prompt(PROMPT)?);
    let made = Made::new(source, &model, prompt, None, Device::Auto);
    let mut player = made.player;
    player.warm_up();
    let load_seconds = began.elapsed().as_secs_f64();
    let format = model.format();
    let frame_seconds = format.frame_samples as f64 / f64::from(format.model_rate);
    let frames = (SECONDS / frame_seconds).ceil() as u32;
    // Without directions of notes this steers nothing.
    let note = PitchClass::new(9);
    let lanes = Lanes { note, note_strength: 0.6, strength: 1.0, guard: true, ..Lanes::OFF };
    let (mut slowest, mut played) = (Duration::ZERO, 0);
    let start = Instant::now();
    while played < frames && start.elapsed().as_secs_f64() < MOST_SECONDS {
        if is_over() {
            return Ok(None);
        }
        let mut control = ControlFrame::new(1, played);
        control.lanes = lanes;
        let step = Instant::now();
        player.answer(&control, &mut |_, _| ())?;
        slowest = slowest.max(step.elapsed());
        played += 1;
        tell("playing ten seconds", u64::from(played), u64::from(frames));
    }
    let seconds = start.elapsed().as_secs_f64();
    let taken = machine::resident().zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
    let estimated = memory::of_checkpoint(&source.checkpoint()).unwrap_or_default();
    let estimated = estimated.into_iter().find(|(at, _)| *at == precision).map_or(0, |(_, bytes)| bytes);
    let trial = Trial {
        real_time: f64::from(played) * frame_seconds / seconds.max(f64::MIN_POSITIVE),
        slowest_ms: 1e3 * slowest.as_secs_f64(),
        frame_ms: 1e3 * frame_seconds,
        load_seconds,
        // Of a model that an instance shares nothing new was taken.
        memory_bytes: if 2 * taken > estimated { taken } else { estimated },
        precision,
        device: player.place(),
        machine: here(),
        date: machine::today(),
    };
    remember_hash(source, model.hash());
    keep(&trial, model.hash());
    Ok(Some(trial))
}

fn here() -> String {
    format!("{}, {} threads", machine::processor(), machine::threads())
}

fn folder() -> PathBuf {
    user_folders::cache().join("trials")
}

fn name(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    hex(&digest.finalize()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn place(hash: &str, precision: Precision) -> PathBuf {
    folder().join(name(&[FORMAT, hash, precision.name(), &here()]) + ".json")
}

fn keep(trial: &Trial, hash: &str) {
    let text = serde_json::to_string_pretty(trial).unwrap_or_default() + "\n";
    write(&place(hash, trial.precision), &text);
}

/// What cannot be kept is measured again.
fn write(path: &Path, text: &str) {
    if let Err(why) = whole_file::write(path, text) {
        log::warn!("{}: {why}", path.display());
    }
}

/// What the newest trial of a model at a precision found on this machine; at `None` with the precision that suits its size.
pub fn kept(source: &ModelSource, precision: Option<Precision>) -> Option<Trial> {
    let precision = precision.unwrap_or_else(|| suited(source));
    let text = fs::read_to_string(place(&hash_of(source)?, precision)).ok()?;
    serde_json::from_str(&text).ok()
}

/// SHA-256 of a checkpoint's weights, as [`Model::hash`] has it, where it is known without reading them.
pub fn hash_of(source: &ModelSource) -> Option<String> {
    static EMBEDDED: OnceLock<String> = OnceLock::new();
    match source {
        ModelSource::Embedded => {
            let weights = |name: &&str| name.ends_with(".safetensors") && !name.starts_with("tiller-");
            let found = embedded::FILES.iter().find(|(name, _)| weights(name))?;
            Some(EMBEDDED.get_or_init(|| hex(&Sha256::digest(found.1))).clone())
        }
        ModelSource::Directory(path) => {
            let text = fs::read_to_string(hash_place(path)).ok()?;
            let hash = text.trim();
            (hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| hash.to_owned())
        }
    }
}

/// Keeps the hash of a checkpoint that was loaded, so that [`hash_of`] knows it until its files change.
pub fn remember_hash(source: &ModelSource, hash: &str) {
    if let ModelSource::Directory(path) = source {
        write(&hash_place(path), &format!("{hash}\n"));
    }
}

fn hash_place(path: &Path) -> PathBuf {
    folder().join("hashes").join(name(&[&snapshot::identity(path)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(real_time: f64, precision: Precision, device: &str) -> Trial {
        Trial {
            real_time,
            slowest_ms: 12.0,
            frame_ms: 20.0,
            load_seconds: 1.0,
            memory_bytes: 1 << 30,
            precision,
            device: device.to_owned(),
            machine: "a machine".to_owned(),
            date: "2026-11-26".to_owned(),
        }
    }

    #[test]
    fn verdicts_are_plain() {
        let said = |real_time, precision, device| trial(real_time, precision, device).verdict();
        assert_eq!(said(1.31, Precision::Int8, "CPU"), "holds real time with 1.3x to spare");
        assert_eq!(said(0.6, Precision::Int8, "CPU"), "too slow here: 0.60x; try 4 bit, or a GPU");
        assert_eq!(said(0.6, Precision::Int4, "a card"), "too slow here: 0.60x; try a smaller model");
        assert!(said(1.04, Precision::F32, "CPU").starts_with("only just"));
    }

    #[test]
    fn a_trial_is_read_as_it_was_written() {
        let own = trial(1.5, Precision::Int4, "CPU");
        let text = serde_json::to_string(&own).expect("written");
        assert_eq!(serde_json::from_str::<Trial>(&text).expect("read"), own);
    }

    #[test]
    fn the_embedded_hash_is_the_loaded_models() {
        let model = Model::load(&ModelSource::Embedded, &|_| ()).expect("it loads");
        assert_eq!(hash_of(&ModelSource::Embedded).as_deref(), Some(model.hash()));
    }
}
