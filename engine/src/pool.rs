//! The threads that share the matrix work of the inference threads, one pool a process. A caller works with them and
//! returns when the last chunk is done; it takes no lock, and does all of it itself where the workers have no core.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
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
    /// How many of them.
    chunks: AtomicUsize,
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
/// A job lives from the store of its unclaimed chunks until `left` is zero. In between, each chunk is claimed by one
/// compare-exchange of a side's word and subtracted from `left` after it ran. So whoever holds a claim that it has not
/// subtracted yet knows that `left` is not zero, that the `run` of that job has not returned, and that `job` is neither
/// written nor dead, on either side. A claim is one of the job that is current when the exchange succeeds, and that side's
/// `job` is read only after it: a thread that slept for a hundred jobs fails its exchange, or claims from the newest.
#[derive(Default)]
struct Shared {
    sides: [Apart<Side>; 2],
    /// Chunks that are not done, and `WAITING`.
    left: Apart<AtomicU32>,
    /// A bit for each worker that is parked or about to be.
    asleep: Apart<AtomicU64>,
    /// A caller owns the pool: it alone writes jobs, `left` and new chunks.
    taken: AtomicBool,
    stop: AtomicBool,
    /// Threads that may work, the caller included. Workers beyond it sleep.
    limit: AtomicUsize,
    ahead: Apart<Ahead>,
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

/// The chunks of one side that nobody has claimed: `generation << 32 | end << 16 | next`. Even threads and odd ones have a
/// side each and claim its chunks in ascending order, so that what a thread reads lies in one stretch, which is what a
/// processor's prefetchers want. Whoever is through with its own takes what is left of the other, from its end. A word for
/// each side, because a cache line that two cores write goes to and fro between them at every claim: 0.2 us each way where
/// they have no cache in common.
#[derive(Clone, Copy)]
struct Unclaimed(u64);

impl Unclaimed {
    fn new(generation: u64, chunks: Range<usize>) -> Self {
        Self(generation << 32 | (chunks.end as u64) << 16 | chunks.start as u64)
    }

    fn generation(self) -> u64 {
        self.0 >> 32
    }

    fn chunks(self) -> Range<usize> {
        (self.0 & 0xffff) as usize..(self.0 >> 16 & 0xffff) as usize
    }

    /// Without its first chunk, or its last, and that chunk.
    fn claim(self, last: bool) -> Option<(Self, usize)> {
        let mut chunks = self.chunks();
        let chunk = if last { chunks.next_back() } else { chunks.next() }?;
        Some((Self::new(self.generation(), chunks), chunk))
    }
}

/// What a thread needs for a claim and to do what it claimed, in one cache line.
#[derive(Default)]
struct Side {
    unclaimed: AtomicU64,
    job: UnsafeCell<Option<Job>>,
}

/// The first chunk of each side, and the end.
fn borders(chunks: usize) -> [usize; 3] {
    [0, chunks.div_ceil(2), chunks]
}

impl Shared {
    /// As [`spin`], and fetches meanwhile what the thread's chunk of the next job begins with.
    fn spin_ahead(&self, thread: usize, fetched: &mut Fetched, limit: Duration, found: impl Fn() -> bool) -> bool {
        let Ahead { start, chunk, chunks } = &self.ahead.0;
        let [start, chunk, chunks] = [start, chunk, chunks].map(|x| x.load(Ordering::Relaxed));
        if fetched.start != start {
            *fetched = Fetched { start, bytes: 0 };
        }
        // Its first claim; the threads of a side take turns.
        let first = borders(chunks)[thread % 2] + thread / 2;
        let (from, most) = (start.wrapping_add(first.wrapping_mul(chunk)), chunk.min(FETCH));
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

    /// Claims one chunk of a side, its first or its last. Acquire pairs with the store of the chunks even after other claims,
    /// which continue its release sequence.
    fn claim(&self, side: usize, last: bool) -> Option<usize> {
        let mut chunk = None;
        let claimed = |word| {
            let (rest, claimed) = Unclaimed(word).claim(last)?;
            chunk = Some(claimed);
            Some(rest.0)
        };
        self.sides[side].0.unclaimed.fetch_update(Ordering::Acquire, Ordering::Relaxed, claimed).ok()?;
        chunk
    }

    /// The chunks of a side that are not claimed, now or a moment ago.
    fn unclaimed(&self, side: usize, order: Ordering) -> Range<usize> {
        Unclaimed(self.sides[side].0.unclaimed.load(order)).chunks()
    }

    /// Whether there is something to claim, for a thread of this side.
    fn has_work(&self, side: usize, order: Ordering) -> bool {
        !self.unclaimed(side, order).is_empty() || !self.unclaimed(1 - side, order).is_empty()
    }

    /// Does chunks of the current job until none is left to claim, its own side's first; `true` when it did some and the
    /// other side's were claimed meanwhile, so that the two had a core each. Never unwinds.
    fn work(&self, thread: usize) -> bool {
        let (own, other) = (thread % 2, 1 - thread % 2);
        let claim = || {
            let first = || self.claim(own, false).map(|chunk| (own, chunk));
            first().or_else(|| self.claim(other, true).map(|chunk| (other, chunk)))
        };
        let Some((side, mut chunk)) = claim() else { return false };
        // What is claimed below is of the same job: it cannot end before `finish`.
        // SAFETY: the claim keeps writers off the job until `finish`, and its acquire orders this read after the write.
        let Some(job) = (unsafe { *self.sides[side].0.job.get() }) else { return false };
        // Of the other side's chunks, what was left when its own were done, and what it took of them.
        let (mut left, mut taken) = (None, 0);
        let mut finished = 0;
        loop {
            // SAFETY: until `finish` subtracts the claims, `run` stays in its frame, and so the closure is borrowed.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.task)(thread, chunk) })) {
                // The drop of a payload may panic in its turn, so a former one is leaked.
                std::mem::forget(self.panic.lock().unwrap_or_else(PoisonError::into_inner).replace(panic));
            }
            finished += 1;
            if self.unclaimed(own, Ordering::Relaxed).is_empty() {
                left.get_or_insert_with(|| self.unclaimed(other, Ordering::Relaxed).len());
            }
            let Some((side, next)) = claim() else { break };
            taken += usize::from(side == other);
            chunk = next;
        }
        self.finish(job, finished);
        left.is_some_and(|left| left == 0 || taken < left)
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
                || self.spin_ahead(thread, &mut fetched, patience, || self.has_work(thread % 2, Ordering::Relaxed))
            {
                patience = SPIN;
            } else {
                patience /= 2;
                self.sleep(thread, bit);
            }
        }
    }

    /// Parks until there is work, for this thread. Sequential consistency here and in `run`: of this flag and new chunks, either the
    /// caller sees the flag or this thread the chunks.
    fn sleep(&self, thread: usize, bit: u64) {
        self.asleep.0.fetch_or(bit, Ordering::SeqCst);
        let is_beyond = || thread >= self.limit.load(Ordering::Relaxed);
        let nothing = || is_beyond() || !self.has_work(thread % 2, Ordering::SeqCst);
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
        let Ahead { start, chunk, chunks } = &self.shared.ahead.0;
        start.store(bytes.as_ptr().addr(), Ordering::Relaxed);
        chunks.store(parts, Ordering::Relaxed);
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
        for side in &shared.sides {
            // SAFETY: `taken` makes this the only writer. The job before is over, so nobody reads, and its last reads came
            // before this write (`left`, then `taken`, each released and acquired).
            unsafe { *side.0.job.get() = Some(Job { task, caller: &raw const caller }) };
        }
        // From here on until `wait` returns nothing may unwind: `work` catches what the tasks throw.
        shared.left.0.store(chunks as u32, Ordering::Relaxed);
        let [first, middle, end] = borders(chunks);
        // The workers' side first.
        for (side, chunks) in [(1, middle..end), (0, first..middle)] {
            let word = &shared.sides[side].0.unclaimed;
            let generation = Unclaimed(word.load(Ordering::Relaxed)).generation() + 1;
            word.store(Unclaimed::new(generation, chunks).0, Ordering::SeqCst);
        }
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
mod tests;
