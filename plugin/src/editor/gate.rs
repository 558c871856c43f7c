//! Keeps nice-plug's worker away from a window that opens or closes. Main thread, and the worker that it holds.
//!
//! A VST3 host on Linux that moves a parameter while no window is open makes the audio thread post a task to a worker of
//! nice-plug's (0.4.2), which looks at the place where the window is kept. While a window opens or closes, the main thread has
//! that place to itself, and the worker panics; a task that was posted before and comes to its turn afterwards looks at the
//! window from a thread that must not, and panics too. The worker is gone then, and the host is ended when the last instance
//! goes. To see it: automate a lane, open the window, remove the instrument. So, for the moment that it takes, the worker is
//! held and its queue is full: what is posted to it then is dropped. Nothing is lost: a window paints all values once it is
//! there, and the latency is told afterwards (see [`is_shut`]). Elsewhere tasks wait for the main thread, and nothing is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::{Condvar, Mutex};

/// Room in the worker's queue (nice-plug 0.4.2).
const QUEUE: usize = 4_096;
/// A worker that does not come within this time is not there.
const COMES: Duration = Duration::from_millis(500);
/// A host asks for a window's size just before it opens it; or for another reason, and then this much is held in vain.
const ASKED: Duration = Duration::from_millis(150);
/// The longest that a window takes to open or close.
const MOVES: Duration = Duration::from_secs(10);
/// What the host does with a window after it was told of it: some instructions.
const SETTLES: Duration = Duration::from_millis(5);
/// How long an instance waits, when it ends, for what it has posted.
const PASSES: Duration = Duration::from_secs(1);

/// Holds that are not over, of all instances: they have one worker.
static SHUT: AtomicUsize = AtomicUsize::new(0);

/// Whether what is posted now is lost.
///
/// # Realtime safety
/// One load.
pub fn is_shut() -> bool {
    SHUT.load(Ordering::Relaxed) > 0
}

/// What the worker is given of ours.
pub enum Task {
    /// To do nothing but that, until it is told.
    Hold(Arc<Hold>),
    /// Takes room in the queue.
    Fill,
    /// To say that it has come so far.
    Tell(Sender<()>),
}

impl Task {
    /// The worker's part.
    pub fn run(self) {
        match self {
            Self::Hold(hold) => hold.run(),
            Self::Fill => {}
            Self::Tell(told) => _ = told.try_send(()),
        }
    }
}

struct Held {
    begun: bool,
    until: Instant,
    over: bool,
}

/// A moment in which the worker is held.
pub struct Hold {
    held: Mutex<Held>,
    changed: Condvar,
}

impl Hold {
    fn new(longest: Duration) -> Self {
        SHUT.fetch_add(1, Ordering::Relaxed);
        let held = Held { begun: false, until: Instant::now() + longest, over: false };
        Self { held: Mutex::new(held), changed: Condvar::new() }
    }

    fn run(&self) {
        let mut held = self.held.lock();
        held.begun = true;
        self.changed.notify_all();
        while !held.over && Instant::now() < held.until {
            let until = held.until;
            self.changed.wait_until(&mut held, until);
        }
        Self::end(&mut held);
    }

    fn end(held: &mut Held) {
        if !held.over {
            held.over = true;
            SHUT.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether the worker came.
    fn comes(&self) -> bool {
        let mut held = self.held.lock();
        let latest = Instant::now() + COMES;
        while !held.begun && !self.changed.wait_until(&mut held, latest).timed_out() {}
        if !held.begun {
            Self::end(&mut held);
        }
        held.begun
    }

    /// Holds until then; `false` when it is over already.
    fn last(&self, until: Instant) -> bool {
        let mut held = self.held.lock();
        held.until = until;
        self.changed.notify_all();
        !held.over
    }
}

/// One instance's way to the worker.
pub struct Gate {
    post: Box<dyn Fn(Task) + Send + Sync>,
    /// There is an audio thread that posts, and a worker that takes it.
    active: AtomicBool,
    held: Mutex<Option<Arc<Hold>>>,
}

impl Gate {
    /// `post` hands a task to the worker, or drops it where the queue is full.
    pub fn new(post: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self { post: Box::new(post), active: AtomicBool::new(false), held: Mutex::default() }
    }

    /// The audio thread begins, in a host of which this is to be feared or not.
    pub fn wake(&self, feared: bool) {
        self.active.store(feared, Ordering::Relaxed);
    }

    /// The audio thread has ended: waits until the worker has nothing left of this instance, which may be removed next.
    pub fn rest(&self) {
        if !self.active.swap(false, Ordering::Relaxed) {
            return;
        }
        self.open(Duration::ZERO);
        let latest = Instant::now() + PASSES;
        while Instant::now() < latest {
            let (tell, told) = bounded(1);
            (self.post)(Task::Tell(tell));
            // What did not fit into the queue is dropped, and says so.
            match told.recv_deadline(latest) {
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
                Ok(()) | Err(RecvTimeoutError::Timeout) => return,
            }
        }
    }

    /// The host asks for the size of a window that is not there.
    pub fn asked(&self) {
        self.shut(ASKED);
    }

    /// A window is about to open or close.
    pub fn moves(&self) {
        self.shut(MOVES);
    }

    /// It has.
    pub fn settles(&self) {
        self.open(SETTLES);
    }

    fn shut(&self, longest: Duration) {
        if !self.active.load(Ordering::Relaxed) {
            return;
        }
        let mut held = self.held.lock();
        if held.as_ref().is_some_and(|hold| hold.last(Instant::now() + longest)) {
            return;
        }
        let hold = Arc::new(Hold::new(longest));
        (self.post)(Task::Hold(hold.clone()));
        if !hold.comes() {
            log::warn!("the host's worker does not answer; the window opens or closes all the same");
            return;
        }
        for _ in 0..QUEUE {
            (self.post)(Task::Fill);
        }
        *held = Some(hold);
    }

    fn open(&self, after: Duration) {
        if let Some(hold) = &*self.held.lock() {
            hold.last(Instant::now() + after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, TrySendError};
    use std::thread::JoinHandle;

    /// A worker with a queue such as nice-plug's. Numbers stand for the tasks of other origin.
    struct Worker {
        queue: Option<Sender<Result<Task, usize>>>,
        done: Receiver<usize>,
        thread: Option<JoinHandle<()>>,
    }

    impl Worker {
        fn start() -> Self {
            let (queue, tasks) = bounded::<Result<Task, usize>>(QUEUE);
            let (note, done) = bounded(QUEUE);
            let body = move || {
                for task in tasks {
                    match task {
                        Ok(task) => task.run(),
                        Err(number) => note.send(number).expect("room"),
                    }
                }
            };
            Self { queue: Some(queue), done, thread: Some(std::thread::spawn(body)) }
        }

        fn queue(&self) -> Sender<Result<Task, usize>> {
            self.queue.clone().expect("it runs")
        }

        fn gate(&self) -> Gate {
            let queue = self.queue();
            let gate = Gate::new(move |task| _ = queue.try_send(Ok(task)));
            gate.wake(true);
            gate
        }
    }

    impl Drop for Worker {
        fn drop(&mut self) {
            self.queue = None;
            self.thread.take().expect("once").join().expect("no panic");
        }
    }

    #[test]
    fn while_it_is_shut_nothing_runs_and_nothing_is_queued() {
        let worker = Worker::start();
        let gate = worker.gate();
        worker.queue().send(Err(1)).expect("room");
        gate.moves();
        assert!(is_shut());
        assert_eq!(worker.done.try_iter().collect::<Vec<_>>(), [1], "what came before is done before");
        assert!(matches!(worker.queue().try_send(Err(2)), Err(TrySendError::Full(_))));
        gate.moves();
        gate.settles();
        // It holds for a moment more; then everything goes on.
        assert_eq!(worker.done.recv_timeout(Duration::from_millis(1)).ok(), None);
        worker.queue().send(Err(3)).expect("room");
        assert_eq!(worker.done.recv_timeout(Duration::from_secs(10)), Ok(3));
        gate.rest();
        drop(gate);
    }

    #[test]
    fn a_size_that_was_asked_for_in_vain_holds_for_a_moment() {
        let worker = Worker::start();
        let gate = worker.gate();
        gate.asked();
        worker.queue().send(Err(4)).expect("room");
        assert_eq!(worker.done.recv_timeout(Duration::from_secs(10)), Ok(4));
        gate.asked();
        gate.moves();
        std::thread::sleep(2 * ASKED);
        assert!(matches!(worker.queue().try_send(Err(5)), Err(TrySendError::Full(_))), "the window opens still");
        // The instance ends: nothing of it is left in the queue.
        gate.rest();
        assert!(worker.queue().is_empty());
        gate.moves();
        assert!(worker.queue().is_empty(), "without an audio thread there is nothing to hold");
        drop(gate);
    }

    #[test]
    fn a_worker_that_is_gone_keeps_nobody() {
        let gate = Gate::new(drop);
        gate.wake(true);
        let since = Instant::now();
        gate.moves();
        gate.settles();
        gate.rest();
        assert!(since.elapsed() < 2 * (COMES + PASSES));
    }
}
