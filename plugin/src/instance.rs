//! What the parts of one plugin instance share: engine handle, project, meters. Owned by the plugin object, lent to the
//! editor and the keeper thread; the audio thread touches atomics only.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tiller_engine::handle::{Handle, ModelSource};

use crate::meters::Meters;
use crate::state::ProjectStore;
use crate::state::document::{DEFAULT_PROMPT, FileReference, Project};
use crate::status_line::Readings;

/// One plugin instance, without its audio.
pub struct Instance {
    /// The engine.
    pub handle: Arc<Handle>,
    /// Prompt, model and window of the project.
    pub project: Arc<ProjectStore>,
    /// Written by the audio thread; it also holds the Play button.
    pub meters: Arc<Meters>,
    sample_rate: AtomicU32,
}

impl Default for Instance {
    /// Starts no thread and opens no file: hosts make instances when they scan.
    fn default() -> Self {
        let handle = Arc::new(Handle::new());
        handle.set_prompt(DEFAULT_PROMPT);
        let asked = Mutex::new(None);
        let engine = handle.clone();
        let project = Arc::new(ProjectStore::new(move |project| follow(&engine, &asked, project)));
        Self { handle, project, meters: Arc::default(), sample_rate: AtomicU32::new(0) }
    }
}

/// Makes the engine play what the project says. A model that is asked for already is not loaded again: hosts hand the
/// same state over several times.
fn follow(handle: &Handle, asked: &Mutex<Option<ModelSource>>, project: &Project) {
    handle.set_prompt(&project.prompt);
    let source = source_of(project.model.as_ref());
    let mut asked = asked.lock();
    if asked.as_ref().unwrap_or(&ModelSource::Embedded) != &source {
        handle.set_model(source.clone());
        *asked = Some(source);
    }
}

fn source_of(model: Option<&FileReference>) -> ModelSource {
    match model {
        Some(reference) if !reference.path.is_empty() => ModelSource::Directory(PathBuf::from(&reference.path)),
        _ => ModelSource::Embedded,
    }
}

impl Instance {
    /// Whether the project plays the embedded model, whose loading is worth waiting for.
    pub fn plays_embedded(&self) -> bool {
        source_of(self.project.project().model.as_ref()) == ModelSource::Embedded
    }

    /// Loads the project's model again: a folder may have appeared since.
    pub fn reload(&self) {
        self.handle.set_model(source_of(self.project.project().model.as_ref()));
    }

    /// Remembers the rate that the meters' latency is counted in, samples per second.
    pub fn set_sample_rate(&self, rate: f32) {
        self.sample_rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// What the audio thread says now. The peaks start anew with each call.
    pub fn readings(&self) -> Readings {
        let rate = f32::from_bits(self.sample_rate.load(Ordering::Relaxed));
        let latency_ms = if rate > 0.0 { self.meters.latency() as f32 / rate * 1_000.0 } else { 0.0 };
        Readings {
            sounding: self.meters.is_sounding(),
            note: self.meters.sounding_note(),
            peak: self.meters.take_peaks(),
            late: self.meters.late_frames(),
            skipped: self.meters.skipped_frames(),
            latency_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiller_engine::status::State;

    #[test]
    fn a_project_reaches_the_engine_once_and_nothing_starts() {
        let instance = Instance::default();
        let before = (instance.handle.prompt_generation(), instance.handle.model_generation());
        assert!(instance.plays_embedded());
        let state = r#"{"version":1,"prompt":"organ","model":{"name":"gone","path":"/nowhere/gone"}}"#;
        instance.project.hand_over(state.into());
        instance.project.hand_over(state.into());
        assert_eq!(instance.handle.prompt_generation(), before.0 + 1);
        assert_eq!(instance.handle.model_generation(), before.1 + 1);
        assert!(!instance.plays_embedded());
        assert_eq!(instance.handle.status().state, State::Absent, "loading waits for activate");
        assert!(instance.project.project().to_text().contains("/nowhere/gone"), "a missing model stays in the project");
        instance.project.hand_over(r#"{"version":1,"prompt":"organ"}"#.into());
        assert_eq!(instance.handle.model_generation(), before.1 + 2);
        assert!(instance.plays_embedded());
    }
}
