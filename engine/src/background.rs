//! Long work beside playing: downloads, trials, learning. Every work has a thread of its own at the lowest priority, and whoever
//! looks (the editor of any instance) sees the same report. Any thread but the audio thread's.
//!
//! The works belong to the process, not to an instance: [`shared`] lives as long as somebody holds it, and dropping the last
//! `Arc` stops what runs and joins its threads, since a host may unload the library. What stops so leaves what it has kept on disk
//! for the next time; what is cancelled does not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::EngineError;

/// What kind of work it is. There is at most one of a kind for one subject at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A checkpoint comes from a hub.
    Download,
    /// A checkpoint plays ten seconds to itself, and is timed.
    Trial,
    /// Directions of concepts are learned for a checkpoint.
    Learn,
    /// A direction is learned from the musician's own audio.
    Trait,
}

/// What is counted in a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    #[default]
    Items,
    /// Bytes.
    Bytes,
}

/// How a work stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Running,
    /// It waits for [`Background::resume`].
    Paused,
    /// It is done; what came of it, for people.
    Done(String),
    /// It was stopped or cancelled.
    Stopped,
    /// It failed; why and what to do.
    Failed(String),
}

impl Standing {
    /// Whether nothing comes any more.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Running | Self::Paused)
    }
}

/// A work as the editor shows it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its kind.
    pub kind: Kind,
    /// What it is about: a model's or a trait's name.
    pub subject: String,
    /// What is under way, for people: "listening to notes".
    pub stage: String,
    /// Of [`Report::all`], in this stage.
    pub done: u64,
    /// Items or bytes of this stage; 0 while unknown.
    pub all: u64,
    /// What is counted.
    pub unit: Unit,
    /// Items or bytes a second, pauses left out; 0 while unknown.
    pub per_second: f64,
    /// What is left of this stage at that speed; `None` while unknown.
    pub left: Option<Duration>,
    /// How it stands.
    pub standing: Standing,
}

/// Why a body ends early.
#[derive(Debug)]
pub enum Ended {
    /// It was told to: see [`Work::check`].
    Stopped,
    /// It cannot go on; why and what to do, for people.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What the holder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    /// What was kept stays.
    Stop,
    /// What was kept goes.
    Cancel,
}

struct Progress {
    wish: Wish,
    stage: String,
    unit: Unit,
    done: u64,
    all: u64,
    /// Where the count of [`Report::per_second`] began, and with how many.
    since: Instant,
    from: u64,
    /// When it paused.
    paused: Option<Instant>,
    /// How it ended.
    over: Option<Standing>,
}

/// Threads that wait for the system and for nothing else.
type Waiting = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// The body's side of a work.
pub struct Work {
    progress: Mutex<Progress>,
    changed: Condvar,
    stopping: Arc<AtomicBool>,
    waiting: Waiting,
}

impl Work {
    fn new(waiting: Waiting) -> Self {
        let progress = Progress {
            wish: Wish::Run,
            stage: String::new(),
            unit: Unit::Items,
            done: 0,
            all: 0,
            since: Instant::now(),
            from: 0,
            paused: None,
            over: None,
        };
        let (changed, stopping) = (Condvar::new(), Arc::default());
        Self { progress: Mutex::new(progress), changed, stopping, waiting }
    }

    /// `done` of `all` in a stage. What is done already when a stage begins does not count as speed. Threads may report out of
    /// order.
    pub fn hear(&self, stage: &str, unit: Unit, done: u64, all: u64) {
        let mut own = self.progress.lock();
        if own.stage != stage || done < own.from {
            (own.stage, own.unit, own.done) = (stage.to_owned(), unit, done);
            (own.since, own.from) = (Instant::now(), done);
        }
        own.done = own.done.max(done);
        own.all = all;
    }

    /// Waits while the work is paused. To be called several times a second.
    ///
    /// # Errors
    /// [`Ended::Stopped`] when the work is to end: return it.
    pub fn check(&self) -> Result<(), Ended> {
        let mut own = self.progress.lock();
        while own.wish == Wish::Pause {
            own.paused.get_or_insert_with(Instant::now);
            self.changed.wait(&mut own);
        }
        if let Some(paused) = own.paused.take() {
            own.since += paused.elapsed();
        }
        if own.wish == Wish::Run { Ok(()) } else { Err(Ended::Stopped) }
    }

    /// Whether it is to end; never waits.
    pub fn is_stopping(&self) -> bool {
        matches!(self.progress.lock().wish, Wish::Stop | Wish::Cancel)
    }

    /// Raised when the work is to end: for what waits for it and cannot borrow it.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// Leaves a thread that waits for the system, which cannot be told to end it: it is joined with the last holder of the works.
    pub fn leave(&self, thread: JoinHandle<()>) {
        let mut waiting = self.waiting.lock();
        let over = waiting.extract_if(.., |thread| thread.is_finished());
        over.for_each(|thread| drop(thread.join()));
        waiting.push(thread);
    }

    /// Whether what was kept for going on later is to be removed: the work was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.progress.lock().wish == Wish::Cancel
    }

    fn wish(&self, wish: Wish) {
        let mut own = self.progress.lock();
        // An end is an end.
        if !matches!(own.wish, Wish::Stop | Wish::Cancel) {
            own.wish = wish;
        }
        self.stopping.store(matches!(own.wish, Wish::Stop | Wish::Cancel), Ordering::Relaxed);
        self.changed.notify_all();
    }

    fn report(&self, kind: Kind, subject: &str) -> Report {
        let own = self.progress.lock();
        let paused = own.paused.map_or(Duration::ZERO, |since| since.elapsed());
        let seconds = own.since.elapsed().saturating_sub(paused).as_secs_f64();
        let made = own.done.saturating_sub(own.from);
        let per_second = if seconds > 0.5 { made as f64 / seconds } else { 0.0 };
        let left = (per_second > 0.0)
            .then(|| Duration::try_from_secs_f64(own.all.saturating_sub(own.done) as f64 / per_second).ok())
            .flatten();
        let running = || if own.wish == Wish::Pause { Standing::Paused } else { Standing::Running };
        Report {
            kind,
            subject: subject.to_owned(),
            stage: own.stage.clone(),
            done: own.done,
            all: own.all,
            unit: own.unit,
            per_second,
            left,
            standing: own.over.clone().unwrap_or_else(running),
        }
    }
}

struct Entry {
    kind: Kind,
    subject: String,
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

impl Entry {
    fn is(&self, kind: Kind, subject: &str) -> bool {
        self.kind == kind && self.subject == subject
    }

    fn is_over(&self) -> bool {
        self.work.progress.lock().over.is_some()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The works of a process.
#[derive(Default)]
pub struct Background {
    entries: Mutex<Vec<Entry>>,
    waiting: Waiting,
}

impl Background {
    /// Begins a work, unless one of its kind for this subject goes on already. `body` runs on a thread of its own and says what
    /// came of it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn begin(
        &self,
        kind: Kind,
        subject: &str,
        body: impl FnOnce(&Work) -> Result<String, Ended> + Send + 'static,
    ) -> Result<(), EngineError> {
        let mut entries = self.entries.lock();
        if entries.iter().any(|entry| entry.is(kind, subject) && !entry.is_over()) {
            return Ok(());
        }
        entries.iter_mut().filter(|entry| entry.is(kind, subject)).for_each(Entry::join);
        entries.retain(|entry| !entry.is(kind, subject));
        let work = Arc::new(Work::new(self.waiting.clone()));
        let own = work.clone();
        let run = move || {
            yield_to_others();
            let ended = catch_unwind(AssertUnwindSafe(|| body(&own)));
            let over = match ended {
                Ok(Ok(said)) => Standing::Done(said),
                Ok(Err(Ended::Stopped)) => Standing::Stopped,
                Ok(Err(Ended::Failed(why))) => Standing::Failed(why),
                Err(panic) => Standing::Failed(EngineError::fault(&*panic).to_string()),
            };
            own.progress.lock().over = Some(over);
        };
        let thread = std::thread::Builder::new().name("tiller-work".to_owned()).spawn(run);
        let thread = Some(thread.map_err(EngineError::Thread)?);
        entries.push(Entry { kind, subject: subject.to_owned(), work, thread });
        Ok(())
    }

    /// All works, in the order in which they began; those that are over too, until [`Background::forget`].
    pub fn reports(&self) -> Vec<Report> {
        self.entries.lock().iter().map(|entry| entry.work.report(entry.kind, &entry.subject)).collect()
    }

    /// The work of a kind for a subject.
    pub fn report(&self, kind: Kind, subject: &str) -> Option<Report> {
        let entries = self.entries.lock();
        entries.iter().find(|entry| entry.is(kind, subject)).map(|entry| entry.work.report(kind, subject))
    }

    /// Has a work wait.
    pub fn pause(&self, kind: Kind, subject: &str) {
        self.wish(kind, subject, Wish::Pause);
    }

    /// Has a work that waits go on.
    pub fn resume(&self, kind: Kind, subject: &str) {
        self.wish(kind, subject, Wish::Run);
    }

    /// Ends a work; what it kept for going on later stays.
    pub fn stop(&self, kind: Kind, subject: &str) {
        self.wish(kind, subject, Wish::Stop);
    }

    /// Ends a work; what it kept for going on later goes.
    pub fn cancel(&self, kind: Kind, subject: &str) {
        self.wish(kind, subject, Wish::Cancel);
    }

    /// Takes a work that is over off the list.
    pub fn forget(&self, kind: Kind, subject: &str) {
        let mut entries = self.entries.lock();
        let over = |entry: &Entry| entry.is(kind, subject) && entry.is_over();
        entries.iter_mut().filter(|entry| over(entry)).for_each(Entry::join);
        entries.retain(|entry| !over(entry));
    }

    fn wish(&self, kind: Kind, subject: &str, wish: Wish) {
        self.entries.lock().iter().filter(|entry| entry.is(kind, subject)).for_each(|entry| entry.work.wish(wish));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let entries = self.entries.get_mut();
        entries.iter().for_each(|entry| entry.work.wish(Wish::Stop));
        entries.iter_mut().for_each(Entry::join);
        self.waiting.lock().drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// The works of this process, for as long as somebody holds them.
pub fn shared() -> Arc<Background> {
    static SHARED: Mutex<Weak<Background>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock();
    shared.upgrade().unwrap_or_else(|| {
        let background = Arc::new(Background::default());
        *shared = Arc::downgrade(&background);
        background
    })
}

/// The calling thread runs only where nobody else wants the core: playing, and the host, come first. Also for the threads that a
/// work makes for itself.
pub fn yield_to_others() {
    #[cfg(target_os = "linux")]
    let set = {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, thread_native_id};
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let own = thread_native_id();
        thread_priority::set_thread_priority_and_policy(own, ThreadPriority::Min, idle)
    };
    #[cfg(not(target_os = "linux"))]
    let set = thread_priority::set_current_thread_priority(thread_priority::ThreadPriority::Min);
    if let Err(why) = set {
        log::info!("a background thread keeps its priority: {why:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works have the lowest priority there is: on a machine that has other things to do, a panic's report alone takes seconds.
    fn until(what: impl Fn() -> bool) {
        const PATIENCE: Duration = Duration::from_secs(120);
        let since = Instant::now();
        while !what() {
            assert!(since.elapsed() < PATIENCE, "waited in vain");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Counts to a million, or to what stops it.
    fn count(work: &Work) -> Result<String, Ended> {
        for done in 0..1_000_000 {
            work.check()?;
            work.hear("counting", Unit::Items, done, 1_000_000);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok("counted".to_owned())
    }

    #[test]
    fn a_work_pauses_goes_on_and_ends() {
        let background = Background::default();
        let standing = || background.report(Kind::Learn, "a").map(|report| report.standing);
        let done = || background.report(Kind::Learn, "a").map_or(0, |report| report.done);
        background.begin(Kind::Learn, "a", count).expect("begins");
        // Another of the same kind for the same model is the one that runs.
        background.begin(Kind::Learn, "a", |_| Ok(String::new())).expect("begins");
        until(|| done() > 5);
        background.pause(Kind::Learn, "a");
        std::thread::sleep(Duration::from_millis(20));
        let paused = done();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!((standing(), done()), (Some(Standing::Paused), paused));
        background.resume(Kind::Learn, "a");
        until(|| done() > paused + 5);
        background.cancel(Kind::Learn, "a");
        until(|| standing() == Some(Standing::Stopped));
        background.forget(Kind::Learn, "a");
        assert!(background.reports().is_empty());
    }

    #[test]
    fn faults_are_reports_and_the_last_holder_joins() {
        let background = shared();
        assert!(Arc::ptr_eq(&background, &shared()));
        background.begin(Kind::Trial, "a", |_| panic!("on purpose")).expect("begins");
        background.begin(Kind::Trait, "b", |_| Err(Ended::Failed("no sound".to_owned()))).expect("begins");
        let ended = |kind, subject: &str| background.report(kind, subject).map(|report| report.standing);
        until(|| matches!(ended(Kind::Trial, "a"), Some(Standing::Failed(why)) if why.contains("on purpose")));
        until(|| ended(Kind::Trait, "b") == Some(Standing::Failed("no sound".to_owned())));
        let seen = Arc::new(Mutex::new(None));
        let own = seen.clone();
        let body = move |work: &Work| {
            let ended = count(work);
            *own.lock() = Some(work.is_cancelled());
            ended
        };
        background.begin(Kind::Download, "c", body).expect("begins");
        background.pause(Kind::Download, "c");
        drop(background);
        assert_eq!(*seen.lock(), Some(false), "stopped, and what it kept stays");
    }
}
