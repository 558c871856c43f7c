//! The model that is measured, its precision and the threads that it plays on. Main thread.

use std::sync::Arc;
use std::time::Instant;

use tiller_engine::checkpoint::{Checkpoint, Config};
use tiller_engine::control::{ControlFrame, MOST_HOP, PitchClass};
use tiller_engine::model::{Model, directions_file};
use tiller_engine::pool::Pool;
use tiller_engine::precision::Precision;
use tiller_engine::steering::block_weights::BlockWeights;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::doses::Lane;
use tiller_engine::steering::push::Manner;
use tiller_engine::text::Prompt;

use super::byte_count::StepBytes;
use super::shape::Found;
use crate::host::Outcome;
use crate::soak::DEFAULT_PROMPT;

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
    /// Those threads.
    pub pool: Arc<Pool>,
    /// What loading took.
    pub load_seconds: f64,
}

impl Subject {
    /// Loads what was found.
    ///
    /// # Errors
    /// The engine cannot: the checkpoint, or the precision.
    pub fn load(found: Found, precision: Precision, threads: usize) -> Outcome<Self> {
        let Found { source, files, config, name } = found;
        let made_up_directions = !files.has(&directions_file(Lane::Note.concept()));
        let started = Instant::now();
        let loaded = match made_up_directions {
            false => Model::load_at(&source, precision, &|_| ()),
            true => {
                let header = Checkpoint::load(&files, &|_| ()).map_err(|error| error.to_string())?;
                Model::steered_by(&source, precision, &[directions(&header.name, header.weights.hash(), &config)])
            }
        };
        let model = loaded.map_err(|error| error.to_string())?;
        let load_seconds = started.elapsed().as_secs_f64();
        let prompt = Arc::new(model.prompt(DEFAULT_PROMPT).map_err(|error| error.to_string())?);
        let pool = Arc::new(Pool::new(threads));
        Ok(Self { model, prompt, config, name, precision, threads, made_up_directions, pool, load_seconds })
    }

    /// What one step has to read at so many positions.
    pub fn bytes_per_step(&self, positions: usize) -> StepBytes {
        StepBytes::of(self.model.decoder(), positions)
    }

    /// Seconds of audio in one frame.
    pub fn frame_seconds(&self) -> f64 {
        let format = self.model.format();
        format.frame_samples as f64 / f64::from(format.model_rate)
    }
}

/// A steered frame as a musician would have it: one note at full strength, the default sampling settings, the hop of the
/// safe latency setting.
pub fn steered(piece: u32) -> ControlFrame {
    let mut control = ControlFrame::new(piece, 0);
    control.lanes.note = PitchClass::new(2);
    control.lanes.note_strength = 1.0;
    control.lanes.strength = 1.0;
    control.hop = MOST_HOP;
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
        levels: vec![0.0; 2 * PitchClass::NAMES.len() * blocks],
        manner: Manner::Add,
        // About what unit-variance states have.
        block_norms: vec![(hidden as f32).sqrt(); blocks],
        full_dose: 0.1,
        block_weights: BlockWeights::All,
        gate: 1.0,
        conditional_only: false,
        provenance: "{}".to_owned(),
    }
}
