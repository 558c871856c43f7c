//! The keeper thread: what an instance has to do while the audio runs and nobody else is there to do it. It reads project
//! state that was handed over on the audio thread, and makes the audio end of a model that the project changed to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::instance::{Audio, Instance};
use crate::processor::Processor;

/// How long a handed-over project or a new model waits at most to be noticed.
const LOOK: Duration = Duration::from_millis(20);

/// Where processors change hands without either side waiting.
pub struct Exchange {
    fresh: (Sender<Box<Processor>>, Receiver<Box<Processor>>),
    used: (Sender<Box<Processor>>, Receiver<Box<Processor>>),
    /// Model generation that the newest processor was made for.
    built_for: AtomicU32,
    /// What the host's audio is like, while there is any.
    audio: Mutex<Option<Audio>>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { fresh: bounded(1), used: bounded(4), built_for: AtomicU32::new(0), audio: Mutex::new(None) }
    }
}

impl Exchange {
    /// The host starts its audio: makes the processor for it. From now on the keeper follows changes of the model.
    ///
    /// # Errors
    /// A sentence for the musician: there will be silence.
    pub fn open(&self, instance: &Instance, audio: Audio) -> Result<Box<Processor>, String> {
        let mut current = self.audio.lock();
        *current = None;
        let _stale = self.fresh.1.try_recv();
        self.built_for.store(instance.handle.model_generation(), Ordering::Relaxed);
        let processor = instance.processor(audio)?;
        *current = Some(audio);
        Ok(processor)
    }

    /// The host stopped its audio.
    pub fn close(&self) {
        *self.audio.lock() = None;
        let _stale = self.fresh.1.try_recv();
    }

    /// The newest processor, if the model changed. The one that it replaces goes to [`Exchange::retire`].
    ///
    /// # Realtime safety
    /// Lock-free, no allocation.
    pub fn take_fresh(&self) -> Option<Box<Processor>> {
        self.fresh.1.try_recv().ok()
    }

    /// Gives a processor away to be freed elsewhere.
    ///
    /// # Realtime safety
    /// Lock-free. Should the keeper be stuck for four changes of model, the processor is leaked rather than freed here.
    pub fn retire(&self, processor: Box<Processor>) {
        if let Err(refused) = self.used.0.try_send(processor) {
            std::mem::forget(refused.into_inner());
        }
    }

    fn follow_model(&self, instance: &Instance) {
        while self.used.1.try_recv().is_ok() {}
        let audio = self.audio.lock();
        let Some(audio) = *audio else { return };
        let generation = instance.handle.model_generation();
        if generation == self.built_for.load(Ordering::Relaxed) {
            return;
        }
        self.built_for.store(generation, Ordering::Relaxed);
        match instance.processor(audio) {
            Ok(processor) => {
                // One that was never taken is older than this one.
                let _stale = self.fresh.1.try_recv();
                let _ = self.fresh.0.try_send(processor);
            }
            Err(why) => instance.report(why),
        }
    }
}

/// The running thread; dropping it ends and joins it.
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// A sentence when the system gives no thread: then a change of model counts when the host restarts the audio.
    pub fn start(instance: Arc<Instance>, exchange: Arc<Exchange>) -> Result<Self, String> {
        let (stop, stopped) = bounded::<()>(0);
        instance.line.set_open(true);
        let line = instance.line.clone();
        let body = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                instance.project.settle();
                instance.line.settle();
                exchange.follow_model(&instance);
            }
            instance.line.set_open(false);
        };
        let thread = std::thread::Builder::new().name("tiller-keeper".to_owned()).spawn(body).map_err(|error| {
            line.set_open(false);
            format!("The system gave no thread for project changes ({error}).")
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::LatencySetting;
    use crate::state::document::FileReference;
    use std::time::Instant;
    use tiller_engine::status::State;

    const AUDIO: Audio = Audio { rate: 48_000.0, max_block: 512, latency: LatencySetting::Safe };

    fn within_seconds(mut holds: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if holds() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn a_change_of_model_brings_a_new_audio_end_and_frees_the_old_one() {
        let instance = Arc::new(Instance::default());
        let exchange = Arc::new(Exchange::default());
        assert_eq!(instance.wake(), Ok(()));
        let first = exchange.open(&instance, AUDIO).unwrap_or_else(|why| panic!("{why}"));
        let keeper = Keeper::start(instance.clone(), exchange.clone());
        assert!(keeper.is_ok());
        std::thread::sleep(3 * LOOK);
        assert!(exchange.take_fresh().is_none(), "nothing changed");

        instance.project.edit(|project| project.model = Some(FileReference::to_path("/nowhere/gone")));
        let mut fresh = None;
        assert!(within_seconds(|| {
            fresh = exchange.take_fresh();
            fresh.is_some()
        }));
        exchange.retire(first);
        assert!(within_seconds(|| exchange.used.1.is_empty()), "the keeper frees it");
        assert!(within_seconds(|| matches!(instance.handle.status().state, State::Failed(_))));

        exchange.close();
        instance.project.edit(|project| project.model = None);
        std::thread::sleep(3 * LOOK);
        assert!(exchange.take_fresh().is_none(), "without audio nothing is made");
    }

    #[test]
    fn what_was_handed_over_on_the_audio_thread_is_read_soon() {
        let instance = Arc::new(Instance::default());
        let keeper = Keeper::start(instance.clone(), Arc::default());
        let before = instance.handle.prompt_generation();
        let audio = instance.clone();
        let thread = std::thread::spawn(move || {
            audio.project.mark_thread(false);
            audio.project.hand_over(r#"{"version":1,"prompt":"organ"}"#.into());
        });
        assert!(thread.join().is_ok());
        assert!(within_seconds(|| instance.handle.prompt_generation() == before + 1));
        drop(keeper);
    }
}
