//! Busy neighbours: threads of ordinary priority that compute without end, as other plugins of a session do.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::host::Outcome;

/// Threads that keep cores busy until this is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `threads` of them.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(threads: usize) -> Outcome<Self> {
        let mut load = Self { stop: Arc::default(), threads: Vec::new() };
        for index in 0..threads {
            let stop = load.stop.clone();
            let spin = move || {
                let mut x = index as u64 | 1;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..10_000 {
                        x = black_box(x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ x >> 29);
                    }
                }
            };
            let named = std::thread::Builder::new().name(format!("busy-{index}"));
            load.threads.push(named.spawn(spin).map_err(|e| format!("no thread for the load: {e}"))?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It only spins: there is nothing that could have gone wrong.
            let _ = thread.join();
        }
    }
}
