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
        let body = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                instance.project.settle();
                exchange.follow_model(&instance);
            }
        };
        let thread = std::thread::Builder::new()
            .name("tiller-keeper".to_owned())
            .spawn(body)
            .map_err(|error| format!("The system gave no thread for project changes ({error})."))?;
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
