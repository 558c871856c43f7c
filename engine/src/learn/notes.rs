//! Note directions: renders single notes, listens to them through the checkpoint, takes differences of class means.
//! Worker threads, all cores.

use super::LearnError;
use super::listener::{FIRST_FRAME, Heard, Listener};
use super::mean::{Example, Examples};
use crate::control::PitchClass;
use crate::dataset::GENERATOR_VERSION;
use crate::dataset::notes::{NOTE_PROGRAMS, NoteClip};
use crate::dataset::render::Renderer;
use crate::steering::directions::Directions;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Octaves that notes are learned from, as MIDI notes: whole octaves, C3 to B5.
pub const LEARNED_RANGE: std::ops::Range<u8> = 48..84;

/// What to learn from and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// SoundFont that the notes are rendered from.
    pub soundfont: &'a Path,
    /// GM programs, 0-based.
    pub programs: &'a [u8],
    /// What strength 1 injects, as a fraction of each block's mean norm.
    pub full_dose: f32,
}

impl<'a> Request<'a> {
    /// All programs; the dose at which the trial of `demo-checkpoint.md` reached its plateau.
    pub fn new(soundfont: &'a Path) -> Self {
        Self { soundfont, programs: &NOTE_PROGRAMS, full_dose: 0.45 }
    }
}

/// Directions, and what validation said of them.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Ready to be written.
    pub directions: Directions,
    /// Notes that sounded.
    pub clips: usize,
    /// Share of notes named right by the nearest class mean with their instrument left out, `[block]`; chance is 1/12.
    pub accuracy: Vec<f32>,
}

/// Learns the twelve note directions by difference of class means. `progress` hears (clips done, clips in all), from any
/// thread.
///
/// # Errors
/// [`LearnError`], by name.
pub fn learn(
    listener: &Listener,
    request: &Request,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Learned, LearnError> {
    let renderer = Renderer::open(request.soundfont)?;
    let mut notes = NoteClip::all(request.programs);
    notes.retain(|note| LEARNED_RANGE.contains(&note.midi));
    let done = AtomicUsize::new(0);
    let heard: Vec<Option<(NoteClip, Heard)>> = notes
        .par_iter()
        .map_init(
            || listener.ear(NoteClip::SAMPLES),
            |ear, &note| -> Result<_, LearnError> {
                let heard = match note.render(&renderer, NoteClip::SAMPLES)? {
                    Some(audio) => Some((note, listener.listen(ear, &audio)?)),
                    None => None,
                };
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, notes.len());
                Ok(heard)
            },
        )
        .collect::<Result<_, _>>()?;
    let heard: Vec<(NoteClip, Heard)> = heard.into_iter().flatten().collect();

    let (blocks, hidden, clips) = (listener.blocks(), listener.hidden(), heard.len());
    let mut norms = vec![0.0f64; blocks];
    for (_, heard) in &heard {
        norms.iter_mut().zip(&heard.norms).for_each(|(sum, &norm)| *sum += f64::from(norm) / clips as f64);
    }
    let group = |program: u8| request.programs.iter().position(|p| *p == program).unwrap_or(0);
    let examples = heard
        .into_iter()
        .map(|(note, heard)| Example { class: note.pitch_class(), group: group(note.program), state: heard.mean })
        .collect();
    let examples = Examples::new(examples, PitchClass::NAMES.len(), blocks, hidden)?;
    let validation = examples.validate()?;
    let block_norms: Vec<f32> = norms.iter().map(|norm| *norm as f32).collect();
    let rms: Vec<f32> = block_norms.iter().map(|norm| norm / (hidden as f32).sqrt()).collect();
    let provenance = serde_json::json!({
        "data": {
            "kind": "single notes, one pitch struck four times in four seconds",
            "soundfont": request.soundfont.file_name().map(|name| name.to_string_lossy().into_owned()),
            "generator_version": GENERATOR_VERSION,
            "programs": request.programs,
            "midi": [LEARNED_RANGE.start, LEARNED_RANGE.end],
            "clips": clips,
        },
        "states": {
            "row": "unconditional, BOS and delay pattern, teacher-forced",
            "tensor": "block output after the residual, before any final norm",
            "pooling": format!("mean over positions from {FIRST_FRAME} on"),
        },
        "validation": {
            "rule": "nearest class mean, instrument left out; chance 1/12",
            "accuracy_by_block": validation.accuracy,
        },
        "block_rms": rms,
    });
    let directions = Directions {
        concept: "notes".to_owned(),
        classes: PitchClass::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        checkpoint_name: listener.name().to_owned(),
        checkpoint_hash: listener.hash().to_owned(),
        method: "mean".to_owned(),
        blocks,
        hidden,
        vectors: examples.directions(),
        block_norms,
        scores: validation.balanced,
        full_dose: request.full_dose,
        provenance: provenance.to_string(),
    };
    Ok(Learned { directions, clips, accuracy: validation.accuracy })
}
