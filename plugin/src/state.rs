//! Project state between the host and the engine. The host's setter may run on the audio thread during play, so there it
//! only hands the text over; the keeper thread, or whoever asks next off the audio thread, reads it and passes it on.

pub mod document;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nice_plug::params::persist::PersistentField;
use nice_plug::plugin::{ParamValue, PluginState};
use parking_lot::Mutex;
use serde_json::Value;
use tiller_engine::control::TRAITS;

use crate::state::document::Project;

/// Texts that may wait to be read; beyond that the oldest goes, since the newest counts.
const WAITING: usize = 8;

type Listener = Box<dyn Fn(&Project) + Send + Sync>;

/// Gives a state of an older version what that did not know, at its default: a host lays what it loads over whatever is there.
pub fn migrate(state: &mut PluginState) {
    for slot in 1..=TRAITS {
        state.params.entry(format!("trait_{slot}_strength")).or_insert(ParamValue::F32(0.0));
    }
}

/// The project of one plugin instance.
pub struct ProjectStore {
    hand_over: Sender<String>,
    handed_over: Receiver<String>,
    current: Mutex<Current>,
    /// Told of every change, in order, never on the audio thread.
    listener: Listener,
    /// Mark of the thread that calls `process`, if it is a thread of its own; 0 while there is none.
    audio_thread: AtomicUsize,
}

#[derive(Default)]
struct Current {
    project: Project,
    notice: String,
}

impl ProjectStore {
    /// A store with the default project. `listener` is told of every change after that.
    pub fn new(listener: impl Fn(&Project) + Send + Sync + 'static) -> Self {
        let (hand_over, handed_over) = bounded(WAITING);
        Self {
            hand_over,
            handed_over,
            current: Mutex::new(Current::default()),
            listener: Box::new(listener),
            audio_thread: AtomicUsize::new(0),
        }
    }

    /// Takes a saved document. On any thread but the audio thread it is in use when this returns.
    ///
    /// # Realtime safety
    /// On the audio thread: moves the text into a bounded queue and no more. (Should eight of them wait, the oldest is freed.)
    pub fn hand_over(&self, text: String) {
        let mut text = text;
        while let Err(TrySendError::Full(refused)) = self.hand_over.try_send(text) {
            let _oldest = self.handed_over.try_recv();
            text = refused;
        }
        if thread_mark() != self.audio_thread.load(Ordering::Acquire) {
            self.settle();
        }
    }

    /// Reads what was handed over, if anything, and tells the listener.
    ///
    /// # Realtime safety
    /// Locks and allocates: never on the audio thread.
    pub fn settle(&self) {
        if self.handed_over.is_empty() {
            return;
        }
        let mut current = self.current.lock();
        self.settle_locked(&mut current);
    }

    fn settle_locked(&self, current: &mut Current) {
        let mut changed = false;
        // In order: a preset's document is laid over the project's before it.
        for text in self.handed_over.try_iter() {
            match current.project.take(&text) {
                Ok(notes) => {
                    current.notice = notes.join(" ");
                    changed = true;
                }
                Err(why) => {
                    current.project.keep_unreadable("document", Value::String(text));
                    current.notice = why;
                }
            }
        }
        if changed {
            (self.listener)(&current.project);
        }
    }

    /// A copy of the project as it is now.
    ///
    /// # Realtime safety
    /// Locks and allocates: never on the audio thread.
    pub fn project(&self) -> Project {
        self.read(Project::clone)
    }

    /// What was strange about the last document, or empty.
    pub fn notice(&self) -> String {
        self.current.lock().notice.clone()
    }

    /// Changes the project (from the editor) and tells the listener if that made a difference.
    ///
    /// # Realtime safety
    /// Locks and allocates: never on the audio thread.
    pub fn edit(&self, change: impl FnOnce(&mut Project)) {
        let mut current = self.current.lock();
        self.settle_locked(&mut current);
        let before = current.project.clone();
        change(&mut current.project);
        if current.project != before {
            (self.listener)(&current.project);
        }
    }

    /// Remembers that this thread calls `process`. `activating` says instead that it calls `activate`: hosts that do
    /// both on one thread (offline renderers) load state there too and expect it to count for the very next block.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn mark_thread(&self, activating: bool) {
        let mark = thread_mark();
        if activating {
            let _ = self.audio_thread.compare_exchange(mark, 0, Ordering::AcqRel, Ordering::Relaxed);
            ACTIVATES.set(true);
        } else if !ACTIVATES.get() {
            self.audio_thread.store(mark, Ordering::Release);
        }
    }

    fn read<R>(&self, reader: impl FnOnce(&Project) -> R) -> R {
        let mut current = self.current.lock();
        self.settle_locked(&mut current);
        reader(&current.project)
    }
}

thread_local! {
    /// Whether this thread has ever called `activate`. Its address is the thread's mark.
    static ACTIVATES: Cell<bool> = const { Cell::new(false) };
}

fn thread_mark() -> usize {
    ACTIVATES.with(|cell| std::ptr::from_ref(cell).addr())
}

/// The parameter field behind which the store sits.
#[derive(Clone)]
pub struct ProjectField(pub Arc<ProjectStore>);

impl PersistentField<'_, String> for ProjectField {
    fn set(&self, text: String) {
        self.0.hand_over(text);
    }

    fn map<F, R>(&self, reader: F) -> R
    where
        F: Fn(&String) -> R,
    {
        // Called when the host saves: what was handed over and not read yet belongs to the state already.
        reader(&self.0.read(Project::to_text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::document::DEFAULT_PROMPT;

    fn recording() -> (Arc<ProjectStore>, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        (Arc::new(ProjectStore::new(move |project| log.lock().push(project.prompt.clone()))), heard)
    }

    #[test]
    fn a_saved_project_is_in_use_and_saved_again_at_once() {
        let (store, heard) = recording();
        let field = ProjectField(store.clone());
        field.set(r#"{"version":1,"prompt":"organ"}"#.into());
        assert_eq!(*heard.lock(), ["organ"]);
        field.map(|text| assert!(text.contains("\"organ\"")));
        store.edit(|project| project.prompt = "harp".into());
        store.edit(|project| project.prompt = "harp".into());
        assert_eq!(*heard.lock(), ["organ", "harp"], "an edit that changes nothing is not told");
    }

    #[test]
    fn the_audio_thread_only_hands_over() {
        let (store, heard) = recording();
        let audio = store.clone();
        let thread = std::thread::spawn(move || {
            audio.mark_thread(false);
            for number in 0..3 * WAITING {
                audio.hand_over(format!("{{\"prompt\":\"{number}\"}}"));
            }
        });
        assert!(thread.join().is_ok());
        assert!(heard.lock().is_empty(), "nothing was read on the audio thread");
        assert_eq!(store.project().prompt, (3 * WAITING - 1).to_string());
        assert_eq!(heard.lock().len(), 1);
    }

    #[test]
    fn an_offline_host_with_one_thread_does_not_wait_for_the_keeper() {
        let (store, heard) = recording();
        let host = store.clone();
        let thread = std::thread::spawn(move || {
            host.mark_thread(true);
            host.mark_thread(false);
            host.hand_over("{\"prompt\":\"now\"}".into());
            assert_eq!(host.handed_over.len(), 0);
        });
        assert!(thread.join().is_ok());
        assert_eq!(*heard.lock(), ["now"]);
    }

    #[test]
    fn an_unreadable_document_changes_nothing_and_is_not_lost() {
        let (store, heard) = recording();
        store.hand_over("{truncated".into());
        assert!(heard.lock().is_empty());
        assert!(!store.notice().is_empty());
        assert_eq!(store.project().prompt, DEFAULT_PROMPT);
        ProjectField(store).map(|text| assert!(text.contains("{truncated")));
    }
}
