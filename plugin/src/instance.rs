//! What the parts of one plugin instance share: engine handle, project, meters. Owned by the plugin object, lent to the
//! editor and the keeper thread; the audio thread touches atomics only.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tiller_engine::backend::Device;
use tiller_engine::background::{self, Background};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::precision::Precision;
use tiller_engine::steering::trait_files::TraitFile;

use crate::latency::{self, LatencySetting};
use crate::meters::Meters;
use crate::presets::PresetFolder;
use crate::processor::{Processor, ProcessorSettings};
use crate::programs::{ProgramLine, ProgramOverlay, Programs};
use crate::state::ProjectStore;
use crate::state::document::{DEFAULT_PROMPT, FileReference, Project};
use crate::status_line::Readings;

/// Longest wait for the embedded model. It takes less than a second unless the machine is badly loaded.
const EMBEDDED_WAIT: Duration = Duration::from_secs(5);

/// What was asked of the engine.
#[derive(Default)]
struct Asked {
    /// Which model, how exactly kept, and where it plays; `None` before anybody asked.
    model: Option<(ModelSource, Option<Precision>, Device)>,
    /// The project's prompt, as it was when it was last asked for: a program's takes its place in the engine, not in the project.
    prompt: String,
}

/// One plugin instance, without its audio.
pub struct Instance {
    /// The engine.
    pub handle: Arc<Handle>,
    /// Prompt, model and window of the project.
    pub project: Arc<ProjectStore>,
    /// Downloads, trials and learning of the process. The last instance that goes stops them and waits for their threads.
    pub background: Arc<Background>,
    /// Written by the audio thread; it also holds the Play button.
    pub meters: Arc<Meters>,
    /// Program changes on their way.
    pub line: Arc<ProgramLine>,
    programs: Mutex<Arc<Programs>>,
    asked: Arc<Mutex<Asked>>,
    trouble: Mutex<String>,
    sample_rate: AtomicU32,
}

/// What the host said about its audio when it activated the plugin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audio {
    /// Samples per second.
    pub rate: f64,
    /// Largest block that was announced, samples.
    pub max_block: usize,
    /// Room for jitter.
    pub latency: LatencySetting,
}

impl Default for Instance {
    /// Starts no thread and opens no file: hosts make instances when they scan.
    fn default() -> Self {
        let handle = Arc::new(Handle::new());
        handle.set_prompt(DEFAULT_PROMPT);
        let asked = Arc::new(Mutex::new(Asked { model: None, prompt: DEFAULT_PROMPT.to_owned() }));
        let line = Arc::new(ProgramLine::new(&handle));
        let meters: Arc<Meters> = Arc::default();
        let listener = (handle.clone(), asked.clone(), meters.clone());
        let project = Arc::new(ProjectStore::new(move |project| {
            listener.2.controllers.set(|number| project.controllers.get(&number).copied());
            listener.2.keys.latch.store(project.latch, Ordering::Relaxed);
            listener.2.keys.velocity.store(project.velocity, Ordering::Relaxed);
            follow(&listener.0, &listener.1, project);
        }));
        Self {
            handle,
            project,
            background: background::shared(),
            meters,
            line,
            programs: Mutex::default(),
            asked,
            trouble: Mutex::default(),
            sample_rate: AtomicU32::new(0),
        }
    }
}

/// Makes the engine play what the project says. A model that is asked for already is not loaded again: hosts hand the
/// same state over several times.
fn follow(handle: &Handle, asked: &Mutex<Asked>, project: &Project) {
    let mut asked = asked.lock();
    if asked.prompt != project.prompt {
        handle.set_prompt(&project.prompt);
        asked.prompt.clone_from(&project.prompt);
    }
    for (slot, file) in project.traits.iter().enumerate() {
        handle.set_trait(slot, file.as_ref().map(FileReference::trait_reference));
    }
    let wanted = (source_of(project.model.as_ref()), project.precision, project.device);
    if asked.model.as_ref().unwrap_or(&(ModelSource::Embedded, None, Device::Auto)) != &wanted {
        handle.set_precision(wanted.1);
        handle.set_device(wanted.2);
        handle.set_model(wanted.0.clone());
        asked.model = Some(wanted);
    }
}

fn source_of(model: Option<&FileReference>) -> ModelSource {
    match model {
        Some(reference) if !reference.path.is_empty() => ModelSource::Directory(PathBuf::from(&reference.path)),
        _ => ModelSource::Embedded,
    }
}

impl Instance {
    /// Loads the project's model again: a folder may have appeared since.
    pub fn reload(&self) {
        self.handle.set_model(source_of(self.project.project().model.as_ref()));
    }

    /// Starts the engine if it does not run: from here on there are threads and a model. Waits for the embedded model,
    /// which takes less than a second; others are waited for by whoever can.
    ///
    /// # Errors
    /// A sentence for the musician when the system gives no thread.
    pub fn wake(&self) -> Result<(), String> {
        self.project.settle();
        let project = self.project.project();
        let source = source_of(project.model.as_ref());
        let first = self.asked.lock().model.replace((source.clone(), project.precision, project.device)).is_none();
        if first {
            self.handle.set_precision(project.precision);
            self.handle.set_device(project.device);
            // Reads the frame clock, which the latency depends on, before any weight.
            self.handle.set_model(source.clone());
        }
        self.handle.start().map_err(|error| format!("Silent: {error}"))?;
        if source == ModelSource::Embedded {
            self.handle.wait_settled(EMBEDDED_WAIT);
        }
        Ok(())
    }

    /// Makes the audio end for the model that was asked for.
    ///
    /// # Errors
    /// A sentence for the musician: there will be silence.
    pub fn processor(&self, audio: Audio) -> Result<Box<Processor>, String> {
        let format = self.handle.format();
        let frames = latency::queue_frames(format, audio.rate, audio.max_block);
        let link = self.handle.connect(frames).map_err(|error| format!("Silent: {error}"))?;
        let settings =
            ProcessorSettings { sample_rate: audio.rate, max_block: audio.max_block, latency: audio.latency };
        let processor =
            Processor::new(link, settings, self.meters.clone()).map_err(|error| format!("Silent: {error}."))?;
        // A new audio end has no program over its parameters, so the prompt is the project's again.
        let programs = Arc::new(Programs::read(&PresetFolder::user()));
        *self.programs.lock() = programs.clone();
        self.line.forget_selected();
        self.handle.set_prompt(&self.project.project().prompt);
        let processor = processor.with_programs(ProgramOverlay::new(programs, self.line.clone()));
        self.sample_rate.store((audio.rate as f32).to_bits(), Ordering::Relaxed);
        self.report(String::new());
        Ok(Box::new(processor))
    }

    /// The presets by number, as program changes select them since the host last started the audio.
    pub fn programs(&self) -> Arc<Programs> {
        self.programs.lock().clone()
    }

    /// Gives a trait lane one of [`Handle::trait_files`], or takes it away. It goes into the project; what becomes of it is in the
    /// engine's status. `slot` counts from 0.
    pub fn assign_trait(&self, slot: usize, file: Option<&TraitFile>) {
        let file = file.map(|file| FileReference::to_trait(&file.reference));
        self.project.edit(|project| {
            if let Some(own) = project.traits.get_mut(slot) {
                *own = file;
            }
        });
    }

    /// Keeps a sentence about why there is silence; an empty one takes it back.
    pub fn report(&self, trouble: String) {
        if !trouble.is_empty() {
            log::error!("{trouble}");
        }
        *self.trouble.lock() = trouble;
    }

    /// Why there is silence although the engine may be well, or empty.
    pub fn trouble(&self) -> String {
        self.trouble.lock().clone()
    }

    /// Samples per second of the host's audio; 0 before there is any.
    pub fn sample_rate(&self) -> f32 {
        f32::from_bits(self.sample_rate.load(Ordering::Relaxed))
    }

    /// What the audio thread says now. The peaks start anew with each call.
    pub fn readings(&self) -> Readings {
        let rate = self.sample_rate();
        let latency_ms = if rate > 0.0 { self.meters.latency() as f32 / rate * 1_000.0 } else { 0.0 };
        Readings {
            sounding: self.meters.is_sounding(),
            target: self.meters.sounding_target(),
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
    use crate::controllers::Learnable;
    use tiller_engine::status::State;

    #[test]
    fn a_project_reaches_the_engine_once_and_nothing_starts() {
        let instance = Instance::default();
        let before = (instance.handle.prompt_generation(), instance.handle.model_generation());
        let state = r#"{"version":1,"prompt":"organ","model":{"name":"gone","path":"/nowhere/gone"}}"#;
        instance.project.hand_over(state.into());
        instance.project.hand_over(state.into());
        assert_eq!(instance.handle.prompt_generation(), before.0 + 1);
        assert_eq!(instance.handle.model_generation(), before.1 + 1);
        assert_eq!(instance.handle.status().state, State::Absent, "loading waits for activate");
        assert!(instance.project.project().to_text().contains("/nowhere/gone"), "a missing model stays in the project");
        instance.project.hand_over(r#"{"version":1,"prompt":"organ"}"#.into());
        assert_eq!(instance.handle.model_generation(), before.1 + 2, "back to the embedded model");
        instance.project.hand_over(r#"{"version":1,"prompt":"organ","precision":"int8"}"#.into());
        assert_eq!(instance.handle.model_generation(), before.1 + 3, "the same model in fewer bits is loaded anew");
        instance.project.hand_over(r#"{"version":1,"prompt":"organ","precision":"int8","device":"cpu"}"#.into());
        assert_eq!(instance.handle.model_generation(), before.1 + 4, "the same model elsewhere is loaded anew");
        let map = &instance.meters.controllers;
        instance.project.hand_over(r#"{"version":1,"controllers":{"1":"strength","74":"guidance"}}"#.into());
        assert_eq!([1, 74, 2].map(|n| map.target(n)), [Some(Learnable::Strength), Some(Learnable::Guidance), None]);
        instance.project.hand_over(r#"{"version":1}"#.into());
        assert_eq!(map.target(1), None, "another project has another map");
        instance.project.hand_over(r#"{"version":1,"latch":true}"#.into());
        let keys = &instance.meters.keys;
        assert_eq!((keys.latch.load(Ordering::Relaxed), keys.velocity.load(Ordering::Relaxed)), (true, false));
    }
}
