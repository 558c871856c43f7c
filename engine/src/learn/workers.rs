//! Threads for learning inside a host's process: a pool of our own that yields to everybody else and is joined, since a host may
//! unload the library. rayon's global pool is never joined, and dropping one of its pools does not wait for its threads.

use std::thread::JoinHandle;

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::background::yield_to_others;

/// Most threads of a work: past these a frame's worth of memory traffic is all that more of them add.
const MOST: usize = 16;

/// A pool of threads at the lowest priority, joined when dropped.
pub struct Workers {
    /// `None` only while it is dropped.
    pool: Option<ThreadPool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// As many as the machine has cores: they run only where nobody else wants to.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new() -> Result<Self, ThreadPoolBuildError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Mutex::new(Vec::new());
        let pool = ThreadPoolBuilder::new()
            .num_threads(cores.min(MOST))
            .spawn_handler(|thread| {
                let run = move || {
                    yield_to_others();
                    thread.run();
                };
                threads.lock().push(std::thread::Builder::new().name("tiller-learn".to_owned()).spawn(run)?);
                Ok(())
            })
            .build();
        match pool {
            Ok(pool) => Ok(Self { pool: Some(pool), threads }),
            Err(error) => {
                // Those that did start have been told to end.
                threads.into_inner().into_iter().for_each(|thread| drop(thread.join()));
                Err(error)
            }
        }
    }

    /// Runs `work` on the pool: all that it does in parallel stays there.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // The threads end when their pool is gone.
        self.pool = None;
        // One that panicked has nothing left to give back.
        self.threads.get_mut().drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts its thread's end, which comes after all else that the thread does.
    struct Counted<'a>(&'a AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(50));
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn work_stays_on_the_pools_threads_and_all_of_them_are_joined() {
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: Counted<'static> = const { Counted(&ENDED) });
        let workers = Workers::new().expect("threads");
        let names: HashSet<Option<String>> = workers.run(|| {
            (0..1_000)
                .into_par_iter()
                .map(|_| {
                    OWN.with(|_| ());
                    std::thread::sleep(std::time::Duration::from_micros(50));
                    std::thread::current().name().map(str::to_owned)
                })
                .collect()
        });
        assert_eq!(names, HashSet::from([Some("tiller-learn".to_owned())]));
        let touched = workers.run(|| rayon::broadcast(|_| OWN.with(|_| ())).len());
        drop(workers);
        assert_eq!(ENDED.load(Ordering::SeqCst), touched, "every thread's own data is gone with its pool");
    }
}
