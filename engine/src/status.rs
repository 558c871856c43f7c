//! What the editor, the host log and the audio thread may read of the engine: a visible state machine and counters.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::control::TRAITS;
use crate::model::Model;
use crate::steering::class_set::ClassSet;
use crate::steering::doses::Lane;
use crate::steering::trait_files::TraitState;

/// Where the model is between nothing and ready.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No model was asked for yet.
    Absent,
    /// Looking for the checkpoint's files.
    Locating,
    /// Reading and packing weights, 0 to 100.
    Loading(u8),
    /// Running the first steps so that the first heard one is not the slowest.
    Warming,
    /// Answers control frames.
    Ready,
    /// Will not answer; the text names the thing and the remedy.
    Failed(String),
}

impl State {
    /// Neither loading nor about to.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Absent | Self::Ready | Self::Failed(_))
    }
}

/// A snapshot for people.
#[derive(Clone, Debug)]
pub struct Status {
    /// The state machine.
    pub state: State,
    /// Name of the model that is loaded or being loaded.
    pub model: String,
    /// Where the model plays: "CPU", or a card's name and its free memory when the model was loaded. Empty before that.
    pub device: String,
    /// The last problem that did not stop the engine (a prompt that could not be encoded, directions refused), or empty.
    pub notice: String,
    /// What each lane of the concept families can be steered to ([`Lane::FAMILIES`]).
    pub targets: [ClassSet; Lane::FAMILIES.len()],
    /// SHA-256 of the weights of the model that is loaded, hex; empty before that.
    pub hash: String,
    /// What became of the file of each trait lane.
    pub traits: [TraitState; TRAITS],
    /// Real-time factor of the runner: audio seconds made per wall second while it computes; 0 before the first frame.
    pub real_time_factor: f32,
    /// Frames computed since the engine started.
    pub frames: u64,
}

/// The shared cell behind [`Status`]. Written by the loader and the runner.
pub struct StatusCell {
    text: Mutex<(State, String, String)>,
    device: Mutex<String>,
    traits: Mutex<[TraitState; TRAITS]>,
    targets: Mutex<[ClassSet; Lane::FAMILIES.len()]>,
    /// The model that is loaded; weak, or it would outlive its player.
    loaded: Mutex<Weak<Model>>,
    real_time_factor: AtomicU32,
    frames: AtomicU64,
}

impl Default for StatusCell {
    fn default() -> Self {
        Self {
            text: Mutex::new((State::Absent, String::new(), String::new())),
            device: Mutex::default(),
            traits: Mutex::default(),
            targets: Mutex::default(),
            loaded: Mutex::default(),
            real_time_factor: AtomicU32::new(0),
            frames: AtomicU64::new(0),
        }
    }
}

impl StatusCell {
    /// A copy of everything.
    ///
    /// # Realtime safety
    /// May block and allocates: never on the audio thread.
    pub fn read(&self) -> Status {
        let (state, model, notice) = self.text.lock().clone();
        Status {
            state,
            model,
            device: self.device.lock().clone(),
            notice,
            targets: *self.targets.lock(),
            hash: self.loaded().map_or_else(String::new, |model| model.hash().to_owned()),
            traits: self.traits.lock().clone(),
            real_time_factor: f32::from_bits(self.real_time_factor.load(Ordering::Relaxed)),
            frames: self.frames.load(Ordering::Relaxed),
        }
    }

    /// The state alone.
    pub fn state(&self) -> State {
        self.text.lock().0.clone()
    }

    pub(crate) fn set_state(&self, state: State) {
        if let State::Failed(why) = &state {
            log::error!("{why}");
        }
        self.text.lock().0 = state;
    }

    pub(crate) fn set_model(&self, name: &str) {
        self.text.lock().1 = name.to_owned();
    }

    pub(crate) fn set_device(&self, device: String) {
        *self.device.lock() = device;
    }

    pub(crate) fn set_loaded(&self, model: Option<&Arc<Model>>) {
        *self.loaded.lock() = model.map(Arc::downgrade).unwrap_or_default();
    }

    pub(crate) fn loaded(&self) -> Option<Arc<Model>> {
        self.loaded.lock().upgrade()
    }

    pub(crate) fn set_traits(&self, traits: [TraitState; TRAITS]) {
        for state in &traits {
            if let TraitState::Refused(why) = state {
                log::warn!("{why}");
            }
        }
        *self.traits.lock() = traits;
    }

    pub(crate) fn set_targets(&self, targets: [ClassSet; Lane::FAMILIES.len()]) {
        *self.targets.lock() = targets;
    }

    pub(crate) fn set_notice(&self, notice: String) {
        if !notice.is_empty() {
            log::warn!("{notice}");
        }
        self.text.lock().2 = notice;
    }

    pub(crate) fn count_frame(&self, real_time_factor: f32) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.real_time_factor.store(real_time_factor.to_bits(), Ordering::Relaxed);
    }
}
