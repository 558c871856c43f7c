//! A thread per open window that wakes it when something changed which no event tells of, so that a window in which nothing
//! happens is not painted at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::instance::Instance;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// Wakes a window until it is dropped. Dropping it ends and joins the thread: hosts unload the code that it runs.
pub struct Watcher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to look. `is_open` says whether there is a window still: nice-plug drops what is in it only with the next one.
    /// Without a thread the window is painted when the mouse or the host moves something, and so it is logged and borne.
    pub fn start(
        instance: Arc<Instance>,
        is_open: impl Fn() -> bool + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> Self {
        let (stop, stopped) = bounded::<()>(0);
        let body = move || {
            let (mut seen, mut was_open) = (fingerprint(&instance), false);
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let open = is_open();
                if was_open && !open {
                    // A window that closed no longer waits for a controller.
                    instance.meters.controllers.learn(None);
                    return;
                }
                was_open |= open;
                let now = fingerprint(&instance);
                if now != seen || instance.meters.has_peaks() {
                    seen = now;
                    wake();
                }
            }
        };
        let thread = std::thread::Builder::new().name("tiller-editor".to_owned()).spawn(body);
        let thread =
            thread.inspect_err(|error| log::warn!("the editor has no thread to watch the engine with: {error}"));
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everything that the window shows and that changes by itself.
fn fingerprint(instance: &Instance) -> impl PartialEq + use<> {
    let (status, meters) = (instance.handle.status(), &instance.meters);
    let engine = (status.state, status.model, status.device, status.notice);
    let counts = (meters.late_frames(), meters.skipped_frames(), meters.latency(), meters.is_sounding());
    let words = (instance.trouble(), instance.project.notice());
    (engine, counts, words, meters.controllers.learning(), meters.play.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32};
    use std::time::Instant;

    fn until(holds: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while !holds() {
            if start.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    #[test]
    fn it_wakes_for_changes_alone_and_ends_with_the_window() {
        let instance = Arc::new(Instance::default());
        let (open, woken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (is_open, count) = (open.clone(), woken.clone());
        let watcher = Watcher::start(
            instance.clone(),
            move || is_open.load(Ordering::Relaxed),
            move || _ = count.fetch_add(1, Ordering::Relaxed),
        );
        std::thread::sleep(5 * LOOK);
        assert_eq!(woken.load(Ordering::Relaxed), 0, "nothing changed");
        instance.report("no thread".into());
        assert!(until(|| woken.load(Ordering::Relaxed) == 1));
        instance.meters.controllers.learn(Some(crate::controllers::Learnable::Gain));
        open.store(false, Ordering::Relaxed);
        assert!(until(|| instance.meters.controllers.learning().is_none()), "the window closed");
        drop(watcher);
    }
}
