//! The threads that share the matrix work of the inference threads, one pool a process. A caller works with them and
//! returns when the last chunk is done; it takes no lock, and does all of it itself where the workers have no core.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::cores;

/// How long a worker looks for the next job before it sleeps, and a caller for the last chunk before it leaves its core
/// to the worker that has it. Longer than the serial code between two jobs (1 to 20 us), short beside an audio block.
const SPIN: Duration = Duration::from_micros(50);

/// In `left`: the caller sleeps until the count is zero.
const WAITING: u32 = 1 << 31;

/// Hears which thread it runs on (below [`Pool::threads`], no two alike within one `run`) and which chunk it is to do.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Borrowed from the frame of a `run`.
#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    caller: *const Thread,
}

/// Most bytes that a thread with nothing to do fetches for its first chunk of the job to come: what stays in its cache.
const FETCH: usize = 384 << 10;

/// Bytes that the job after the current one begins with.
#[derive(Default)]
struct Ahead {
    start: AtomicUsize,
    /// From the first byte of one chunk to that of the next.
    chunk: AtomicUsize,
}

/// How far a thread has fetched them.
#[derive(Clone, Copy, Default)]
struct Fetched {
    start: usize,
    bytes: usize,
}

/// Brings a line of memory into the processor's second cache. Any address will do: nothing is read of it.
#[inline(always)]
fn fetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint to the processor, which ignores addresses that are none.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Keeps what it holds off the cache lines of its neighbours (two, since processors fetch them in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What the callers and the workers share.
/// A job lives from the store of its ticket until `left` is zero. In between, each chunk is claimed by one
/// compare-exchange of the ticket and subtracted from `left` after it ran. So whoever holds a claim that it has not
/// subtracted yet knows that `left` is not zero, that the `run` of that job has not returned, and that `job` is neither
/// written nor dead. A claim is one of the job that is current when the exchange succeeds, and `job` is read only after
/// it: a thread that slept for a hundred jobs fails its exchange, or claims from the newest.
#[derive(Default)]
struct Shared {
    /// `generation << 32 | chunks << 16 | next`: there is work while `next < chunks`, and 65,535 chunks at most.
    ticket: Apart<AtomicU64>,
    /// Chunks that are not done, and `WAITING`.
    left: Apart<AtomicU32>,
    /// A bit for each worker that is parked or about to be.
    asleep: Apart<AtomicU64>,
    /// A caller owns the pool: it alone writes `job`, `left` and new tickets.
    taken: AtomicBool,
    stop: AtomicBool,
    /// Threads that may work, the caller included. Workers beyond it sleep.
    limit: AtomicUsize,
    ahead: Apart<Ahead>,
    job: UnsafeCell<Option<Job>>,
    /// The panic of a task, on its way to the caller.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: only `job` is neither `Send` nor `Sync`. Its pointers are to a `Sync` closure and to a `Thread`, which any
// thread may use; the comment above says who reads and writes it when.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Looks for something for at most `limit`; `false` when it did not come. Time off the core counts too, so a thread
/// that has to share its core soon stops.
fn spin(limit: Duration, found: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..32 {
            if found() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() >= limit {
            return false;
        }
    }
}

/// The next chunk of a ticket that has one.
fn next_chunk(ticket: u64) -> Option<usize> {
    let (chunks, next) = ((ticket >> 16) & 0xffff, ticket & 0xffff);
    (next < chunks).then_some(next as usize)
}

impl Shared {
    /// As [`spin`], and fetches meanwhile what the thread's chunk of the next job begins with.
    fn spin_ahead(&self, thread: usize, fetched: &mut Fetched, limit: Duration, found: impl Fn() -> bool) -> bool {
        let Ahead { start, chunk } = &self.ahead.0;
        let (start, chunk) = (start.load(Ordering::Relaxed), chunk.load(Ordering::Relaxed));
        if fetched.start != start {
            *fetched = Fetched { start, bytes: 0 };
        }
        let (from, most) = (start.wrapping_add(thread * chunk), chunk.min(FETCH));
        while fetched.bytes < most {
            if found() {
                return true;
            }
            fetch(from.wrapping_add(fetched.bytes));
            fetch(from.wrapping_add(fetched.bytes + 64));
            fetched.bytes += 128;
        }
        spin(limit, found)
    }

    /// Claims one chunk of the current job. `next` stays at or below `chunks`, so the sum never carries out of its
    /// field. Acquire pairs with the store of the ticket even after other claims, which continue its release sequence.
    fn claim(&self) -> Option<usize> {
        let claimed = |ticket| next_chunk(ticket).map(|_| ticket + 1);
        self.ticket.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, claimed).ok().and_then(next_chunk)
    }

    /// Does chunks of the current job until none is left to claim; `true` when another thread took some in between, so
    /// that the two had a core each. Never unwinds.
    fn work(&self, thread: usize) -> bool {
        let Some(mut chunk) = self.claim() else { return false };
        let mut beside = false;
        // SAFETY: the claim keeps writers off the job until `finish`, and its acquire orders this read after the write.
        let Some(job) = (unsafe { *self.job.get() }) else { return false };
        let mut finished = 0;
        loop {
            // SAFETY: until `finish` subtracts the claims, `run` stays in its frame, and so the closure is borrowed.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.task)(thread, chunk) })) {
                // The drop of a payload may panic in its turn, so a former one is leaked.
                std::mem::forget(self.panic.lock().unwrap_or_else(PoisonError::into_inner).replace(panic));
            }
            finished += 1;
            let Some(next) = self.claim() else { break };
            beside |= next != chunk + 1;
            chunk = next;
        }
        self.finish(job, finished);
        beside
    }

    /// Counts chunks as done, and wakes the caller after the last if it sleeps. Nothing of the job is touched
    /// afterwards.
    fn finish(&self, job: Job, finished: u32) {
        let mut caller = None;
        // Release hands the results to the caller, and orders the reads of the job before its next write.
        let _ = self.left.0.fetch_update(Ordering::Release, Ordering::Relaxed, |left| {
            // SAFETY: the claims are not subtracted before this closure has returned: `run` still has its `Thread`.
            caller = (left - finished == WAITING).then(|| unsafe { (*job.caller).clone() });
            Some(left - finished)
        });
        // The caller may have returned already: then its next `park` returns early, as any may.
        caller.iter().for_each(Thread::unpark);
    }

    /// Returns when every chunk of the job is done. A worker that lost its core in the middle of a chunk gets this one.
    fn wait(&self) {
        if self.spin_ahead(0, &mut Fetched::default(), SPIN, || self.left.0.load(Ordering::Acquire) == 0) {
            return;
        }
        // From here on the last finisher sees the flag; or it came before, and the count is zero now.
        self.left.0.fetch_or(WAITING, Ordering::Relaxed);
        while self.left.0.load(Ordering::Acquire) & !WAITING != 0 {
            std::thread::park();
        }
    }

    /// A worker's body. Its priority is left as it is: with a lower one it would lose its core to any program in the
    /// middle of a chunk, and the inference thread with it, which has to wait for that chunk.
    fn serve(&self, thread: usize) {
        let bit = 1 << (thread - 1);
        // Halved by each vain spin: the kernel may wake a worker on the caller's core, where spinning only delays jobs.
        let mut patience = SPIN;
        let mut fetched = Fetched::default();
        while !self.stop.load(Ordering::Acquire) {
            if thread >= self.limit.load(Ordering::Relaxed) {
                self.sleep(thread, bit);
            } else if self.work(thread)
                || self.spin_ahead(thread, &mut fetched, patience, || {
                    next_chunk(self.ticket.0.load(Ordering::Relaxed)).is_some()
                })
            {
                patience = SPIN;
            } else {
                patience /= 2;
                self.sleep(thread, bit);
            }
        }
    }

    /// Parks until there is work, for this thread. Sequential consistency here and in `run`: of this flag and a new ticket, either the
    /// caller sees the flag or this thread the ticket.
    fn sleep(&self, thread: usize, bit: u64) {
        self.asleep.0.fetch_or(bit, Ordering::SeqCst);
        let is_beyond = || thread >= self.limit.load(Ordering::Relaxed);
        let nothing = || is_beyond() || next_chunk(self.ticket.0.load(Ordering::SeqCst)).is_none();
        let idle = || nothing() && !self.stop.load(Ordering::Acquire);
        while idle() && self.asleep.0.load(Ordering::Relaxed) & bit != 0 {
            std::thread::park();
        }
        self.asleep.0.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Threads that do chunks of one job at a time.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` in all, the calling one included; 1 makes no thread. Threads that the system refuses are simply fewer.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared { limit: AtomicUsize::new(usize::MAX), ..Shared::default() });
        // One bit of `asleep` each.
        let workers = (0..threads.saturating_sub(1).min(64))
            .map_while(|index| {
                let shared = shared.clone();
                let name = format!("tiller-worker-{}", index + 1);
                std::thread::Builder::new().name(name).spawn(move || shared.serve(index + 1)).ok()
            })
            .collect();
        Self { shared, workers }
    }

    /// The threads that may work on a job, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Lets only so many of the threads work from the next job on, the caller's included: at least 1. The others sleep.
    pub fn limit(&self, threads: usize) {
        self.shared.limit.store(threads.max(1), Ordering::Relaxed);
    }

    /// The threads that work on the next job, the caller's included.
    pub fn active(&self) -> usize {
        self.threads().min(self.shared.limit.load(Ordering::Relaxed))
    }

    /// Says what the job after the next one reads first: `parts` chunks side by side. A thread that has nothing to do
    /// meanwhile fetches the first of its own.
    pub fn expect(&self, bytes: &[u8], parts: usize) {
        let Ahead { start, chunk } = &self.shared.ahead.0;
        start.store(bytes.as_ptr().addr(), Ordering::Relaxed);
        // One chunk is the caller's: the others would fetch what lies behind it.
        chunk.store(if parts > 1 { bytes.len() / parts } else { 0 }, Ordering::Relaxed);
    }

    /// Calls `task(thread, i)` once for every i in 0..chunks, in any order, on any of the threads, and returns when all are
    /// done. `thread` is 0 for the caller; each does one chunk at a time, so it may have working memory of its own. While another caller has the pool (a second instance, or a task that calls this), it does them alone, in
    /// order.
    ///
    /// # Panics
    /// When a task did, after the other chunks are done; those that the caller does alone end at the panic.
    ///
    /// # Realtime safety
    /// No allocation and no lock that anyone else holds. A system call where a worker sleeps, and where the caller has
    /// to wait for a worker that lost its core. For the inference thread, not for an audio thread.
    pub fn run(&self, chunks: usize, task: &Task<'_>) {
        let shared = &*self.shared;
        let active = self.active();
        if active == 1 || !(2..=0xffff).contains(&chunks) || shared.taken.swap(true, Ordering::Acquire) {
            return (0..chunks).for_each(|chunk| task(0, chunk));
        }
        let caller = std::thread::current();
        // SAFETY: only the lifetime of what a raw pointer points to changes; `wait` keeps to it.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        // SAFETY: `taken` makes this the only writer. The job before is over, so nobody reads, and its last reads came
        // before this write (`left`, then `taken`, each released and acquired).
        unsafe { *shared.job.get() = Some(Job { task, caller: &raw const caller }) };
        // From the ticket on until `wait` returns nothing may unwind: `work` catches what the tasks throw.
        shared.left.0.store(chunks as u32, Ordering::Relaxed);
        let generation = (shared.ticket.0.load(Ordering::Relaxed) >> 32) + 1;
        shared.ticket.0.store(generation << 32 | (chunks as u64) << 16, Ordering::SeqCst);
        // Those beyond the limit keep their bits, and are not asked.
        let may = u64::MAX.checked_shl(active as u32 - 1).map_or(u64::MAX, |beyond| !beyond);
        if shared.asleep.0.load(Ordering::SeqCst) & may != 0 {
            let asleep = shared.asleep.0.fetch_and(!may, Ordering::Relaxed) & may;
            for (_, worker) in self.workers.iter().enumerate().filter(|(index, _)| asleep & (1 << index) != 0) {
                worker.thread().unpark();
            }
        }
        shared.work(0);
        shared.wait();
        // Nobody holds the lock: a panic is put there before its chunk counts as done.
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.taken.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}

static SHARED: Mutex<Weak<Pool>> = Mutex::new(Weak::new());

/// The pool that every engine of the process shares, as large as the user may choose and limited to what was chosen
/// ([`cores`]). The first call makes it, and its threads are joined when the last `Arc` goes: a host may unload the library,
/// so no thread may outlive the engines.
pub fn shared() -> Arc<Pool> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let pool = Arc::new(Pool::new(cores::most()));
        pool.limit(cores::used(cores::chosen()));
        *shared = Arc::downgrade(&pool);
        pool
    })
}

/// Limits the shared pool, where there is one.
pub fn limit_shared(threads: usize) {
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = shared.upgrade() {
        pool.limit(threads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that each chunk runs once; the marks are relaxed, so only the pool makes them visible.
    fn check(pool: &Pool, chunks: usize) {
        let marks: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
        pool.run(chunks, &|_, i| _ = marks[i].fetch_add(1, Ordering::Relaxed));
        assert!(marks.iter().all(|mark| mark.load(Ordering::Relaxed) == 1), "{chunks} chunks");
    }

    #[test]
    fn no_two_threads_of_a_run_have_one_number() {
        let pool = Pool::new(3);
        let busy: Vec<AtomicBool> = (0..pool.threads()).map(|_| AtomicBool::new(false)).collect();
        for _ in 0..2000 {
            pool.run(16, &|thread, _| {
                assert!(!busy[thread].swap(true, Ordering::Relaxed), "thread {thread} twice");
                std::hint::spin_loop();
                busy[thread].store(false, Ordering::Relaxed);
            });
        }
    }

    #[test]
    fn every_chunk_runs_once() {
        let mut random = 1u32;
        for threads in 1..=4 {
            let pool = Pool::new(threads);
            for _ in 0..1000 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                check(&pool, [0, 1, 2, 3, 7, 8, 64, 1000][(random >> 29) as usize]);
            }
            check(&pool, 0x1_0000);
        }
    }

    #[test]
    fn nothing_touches_a_job_after_it_returned() {
        let pool = Pool::new(3);
        for salt in 0..20_000 {
            let buffer: [AtomicU32; 8] = std::array::from_fn(|_| AtomicU32::new(u32::MAX));
            pool.run(8, &|_, i| buffer[i].store(salt + i as u32, Ordering::Relaxed));
            assert_eq!(buffer.map(AtomicU32::into_inner), std::array::from_fn(|i| salt + i as u32));
        }
    }

    #[test]
    fn callers_share_and_runs_nest() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            (0..3).for_each(|_| _ = scope.spawn(|| (0..2000).for_each(|_| check(&pool, 16))));
        });
        pool.run(8, &|_, _| check(&pool, 8));
    }

    #[test]
    fn a_parked_worker_wakes_and_a_panic_reaches_the_waiting_caller() {
        let pool = Pool::new(2);
        for worker_panics in [true, false] {
            std::thread::sleep(Duration::from_millis(20));
            let (started, finished) = (AtomicU32::new(0), AtomicBool::new(false));
            let task = |_: usize, _: usize| {
                // Both threads have a chunk before either goes on, so the worker woke.
                started.fetch_add(1, Ordering::Relaxed);
                assert!(spin(Duration::from_secs(10), || started.load(Ordering::Relaxed) == 2));
                if (std::thread::current().name() == Some("tiller-worker-1")) == worker_panics {
                    resume_unwind(Box::new("thrown by a task"));
                }
                std::thread::sleep(Duration::from_millis(5));
                finished.store(true, Ordering::Relaxed);
            };
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(2, &task)));
            assert_eq!(result.err().and_then(|panic| panic.downcast_ref().copied()), Some("thrown by a task"));
            assert!(finished.into_inner());
            check(&pool, 64);
        }
    }

    #[test]
    fn a_limit_holds_from_the_next_job_on_and_can_be_lifted() {
        let pool = Pool::new(3);
        let workers_of = |pool: &Pool| {
            let seen = AtomicU64::new(0);
            for _ in 0..200 {
                pool.run(32, &|thread, _| {
                    seen.fetch_or(1 << thread, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(20));
                });
            }
            seen.into_inner()
        };
        for (limit, allowed) in [(1, 0b001), (2, 0b011), (0, 0b001), (2, 0b011), (64, 0b111)] {
            pool.limit(limit);
            assert_eq!(pool.active(), limit.clamp(1, 3));
            // A worker may be between its look at the limit and the next job.
            let beyond = 0b11 & !(allowed >> 1);
            assert!(spin(Duration::from_secs(10), || pool.shared.asleep.0.load(Ordering::SeqCst) & beyond == beyond));
            assert_eq!(workers_of(&pool), allowed, "limit {limit}");
        }
        assert_eq!(pool.threads(), 3);
        pool.limit(1);
        drop(pool);
    }

    #[test]
    fn what_is_expected_changes_nothing() {
        let pool = Pool::new(3);
        for bytes in [0, 1, 64, 100_000] {
            let gone = vec![0; bytes];
            for parts in [0, 1, 8, 200_000] {
                pool.expect(&gone, parts);
                check(&pool, 8);
            }
            drop(gone);
            check(&pool, 8);
        }
    }

    #[test]
    fn dropping_joins_the_threads() {
        // No other test has a sixth worker. The system takes a moment to show a name, and to forget an ended thread.
        let shown = || {
            let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            names.filter(|name| name.trim_end() == "tiller-worker-6").count()
        };
        let shows = |count| cfg!(not(target_os = "linux")) || spin(Duration::from_secs(10), || shown() == count);
        let pool = Pool::new(7);
        assert!(shows(1));
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none() && shows(0));
    }

    #[test]
    fn the_shared_pool_lasts_as_long_as_it_is_held() {
        let (first, second) = (shared(), shared());
        assert!(Arc::ptr_eq(&first, &second) && (1..=first.threads()).contains(&first.active()));
        let gone = Arc::downgrade(&first);
        drop((first, second));
        assert!(gone.upgrade().is_none());
        check(&shared(), 64);
    }
}
