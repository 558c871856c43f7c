//! The model that is measured, and how it is asked for: precision and threads are passed to the engine here and nowhere
//! else. Main thread.

use std::sync::Arc;

use tiller_engine::checkpoint::{Checkpoint, Config};
use tiller_engine::control::{ControlFrame, PitchClass};
use tiller_engine::model::{Model, directions_file};
use tiller_engine::steering::block_weights::BlockWeights;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::doses::Lane;
use tiller_engine::text::Prompt;

use super::byte_count::{StepBytes, bytes_per_step};
use super::shape::Found;
use crate::host::Outcome;
use crate::soak::DEFAULT_PROMPT;

/// Number format of the packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// The files' own values.
    F32,
    /// 16 bits, f32's range.
    Bf16,
    /// 8 bits, a scale for each row.
    Int8,
    /// 4 bits, a scale for each group.
    Int4,
}

impl Precision {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

/// A loaded model, steered, with a prompt.
pub struct Subject {
    /// The model.
    pub model: Arc<Model>,
    /// What it plays.
    pub prompt: Arc<Prompt>,
    /// Its configuration.
    pub config: Config,
    /// For people: shape or directory.
    pub name: String,
    /// Format of its weights.
    pub precision: Precision,
    /// Threads that a step runs on.
    pub threads: usize,
    /// The note directions are made up: the checkpoint has none.
    pub made_up_directions: bool,
    wide_files: bool,
}

impl Subject {
    /// Loads what was found.
    ///
    /// # Errors
    /// The engine cannot: the checkpoint, or the precision.
    pub fn load(found: Found, precision: Precision, threads: usize) -> Outcome<Self> {
        // To be handed to `Model::load` once it takes them.
        if precision != Precision::F32 {
            return Err(format!(
                "--precision {}: the engine packs f32 only so far (16-bit files stay 16 bits wide in memory)",
                precision.name()
            ));
        }
        let Found { source, files, config, name, wide_files } = found;
        let made_up_directions = !files.has(&directions_file(Lane::Note.concept()));
        let loaded = match made_up_directions {
            false => Model::load(&source, &|_| ()),
            true => {
                let header = Checkpoint::load(&files, &|_| ()).map_err(|error| error.to_string())?;
                Model::steered_by(&source, &[directions(&header.name, header.weights.hash(), &config)])
            }
        };
        let model = loaded.map_err(|error| error.to_string())?;
        let prompt = Arc::new(model.prompt(DEFAULT_PROMPT).map_err(|error| error.to_string())?);
        Ok(Self { model, prompt, config, name, precision, threads, made_up_directions, wide_files })
    }

    /// Threads that the engine's step really uses.
    pub fn engine_threads(&self) -> usize {
        // The step runs on its caller's thread until the engine has a pool; then this is `self.threads`.
        1
    }

    /// What one step has to read at so many positions.
    pub fn bytes_per_step(&self, positions: usize) -> StepBytes {
        bytes_per_step(&self.config.decoder, positions, self.precision, self.wide_files)
    }

    /// Seconds of audio in one frame.
    pub fn frame_seconds(&self) -> f64 {
        let format = self.model.format();
        format.frame_samples as f64 / f64::from(format.model_rate)
    }
}

/// A steered frame as a musician would have it: one note at full strength, the published sampling settings.
pub fn steered(piece: u32) -> ControlFrame {
    let mut control = ControlFrame::new(piece, 0);
    control.lanes.note = PitchClass::new(2);
    control.lanes.note_strength = 1.0;
    control.lanes.strength = 1.0;
    control
}

/// Note directions that cost what learned ones cost: each class has one coordinate to itself in every block.
fn directions(name: &str, hash: &str, config: &Config) -> Directions {
    let (blocks, hidden) = (config.decoder.num_hidden_layers, config.decoder.hidden_size);
    let classes: Vec<String> = PitchClass::NAMES.iter().map(|name| (*name).to_owned()).collect();
    let mut vectors = vec![0.0; classes.len() * blocks * hidden];
    for (index, vector) in vectors.chunks_exact_mut(hidden).enumerate() {
        vector[index / blocks % hidden] = 1.0;
    }
    Directions {
        concept: Lane::Note.concept().to_owned(),
        vectors,
        scores: vec![0.75; classes.len() * blocks],
        detectors: vec![0.0; 2 * classes.len() * blocks],
        classes,
        checkpoint_name: name.to_owned(),
        checkpoint_hash: hash.to_owned(),
        method: "none: made up by bench".to_owned(),
        blocks,
        hidden,
        // About what unit-variance states have.
        block_norms: vec![(hidden as f32).sqrt(); blocks],
        full_dose: 0.1,
        block_weights: BlockWeights::All,
        gate: 1.0,
        conditional_only: false,
        provenance: "{}".to_owned(),
    }
}
