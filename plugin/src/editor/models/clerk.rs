//! A thread of the page of models that does whatever touches the disk, so that no frame of the window waits for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

type Task = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    /// One is being done.
    busy: bool,
    stop: bool,
}

/// Does tasks one after the other. Dropping it drops those that wait, and waits for the one that is being done: hosts unload the
/// code that it runs.
pub struct Clerk {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Clerk {
    /// Starts the thread; `done` is called after each task. Without a thread nothing is done, and `is_busy` says so for ever.
    pub fn start(done: impl Fn() + Send + 'static) -> Self {
        let queue: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let own = queue.clone();
        let body = move || {
            let (queue, changed) = &*own;
            loop {
                let task = {
                    let mut queue = queue.lock();
                    queue.busy = false;
                    while queue.tasks.is_empty() && !queue.stop {
                        changed.wait(&mut queue);
                    }
                    if queue.stop {
                        return;
                    }
                    queue.busy = true;
                    queue.tasks.pop_front()
                };
                if let Some(task) = task {
                    task();
                    queue.lock().busy = false;
                    done();
                }
            }
        };
        let thread = std::thread::Builder::new().name("tiller-clerk".to_owned()).spawn(body);
        let thread = thread.inspect_err(|error| log::warn!("the page of models has no thread: {error}"));
        Self { queue, thread: thread.ok() }
    }

    /// Has something done, after what was asked for before.
    pub fn ask(&self, task: impl FnOnce() + Send + 'static) {
        let (queue, changed) = &*self.queue;
        queue.lock().tasks.push_back(Box::new(task));
        changed.notify_all();
    }

    /// Whether something is being done or waits.
    pub fn is_busy(&self) -> bool {
        let queue = self.queue.0.lock();
        queue.busy || !queue.tasks.is_empty()
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        let (queue, changed) = &*self.queue;
        queue.lock().stop = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[test]
    fn tasks_are_done_in_order_and_the_rest_is_dropped() {
        let (order, woken) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)));
        let count = woken.clone();
        let clerk = Clerk::start(move || _ = count.fetch_add(1, Ordering::Relaxed));
        for number in 0..3 {
            let own = order.clone();
            clerk.ask(move || own.lock().push(number));
        }
        while clerk.is_busy() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*order.lock(), [0, 1, 2]);
        clerk.ask(|| std::thread::sleep(Duration::from_millis(50)));
        std::thread::sleep(Duration::from_millis(10));
        let own = order.clone();
        clerk.ask(move || own.lock().push(9));
        drop(clerk);
        assert_eq!((order.lock().len(), woken.load(Ordering::Relaxed)), (3, 4), "what waited was dropped");
    }
}
