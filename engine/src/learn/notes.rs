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

/// MIDI notes that are learned from: C2 to A#5.
pub const LEARNED_RANGE: std::ops::Range<u8> = 36..83;

/// How much a note counts: the number of the twelve three-octave windows from C2 .. B2 upwards that hold it, of 12. Each
/// pitch class then weighs 3 with a mean height of MIDI 59, so that a direction does not mean "lower" for C and "higher"
/// for B, as it would over plain octaves.
pub fn weight(midi: u8) -> f64 {
    (0..12).filter(|low| (36 + low..36 + low + 36).contains(&midi)).count() as f64 / 12.0
}

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
        .map(|(note, heard)| Example {
            class: note.pitch_class(),
            group: group(note.program),
            weight: weight(note.midi),
            state: heard.mean,
        })
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
            "weights": "by octave windows: every pitch class has the same mean height",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointSource;
    use crate::dataset::render::DEFAULT_SOUNDFONT;
    use crate::embedded;

    #[test]
    fn every_pitch_class_has_the_same_weight_and_height() {
        for class in 0..12u8 {
            let notes: Vec<u8> = (0..128).filter(|midi| midi % 12 == class && weight(*midi) > 0.0).collect();
            assert!(notes.iter().all(|midi| LEARNED_RANGE.contains(midi)));
            let total: f64 = notes.iter().map(|midi| weight(*midi)).sum();
            let height: f64 = notes.iter().map(|midi| weight(*midi) * f64::from(*midi)).sum::<f64>() / total;
            assert!((total - 3.0).abs() < 1e-9 && (height - 59.0).abs() < 1e-9, "{class}: {total} at {height}");
        }
    }

    #[test]
    fn the_demo_checkpoint_knows_its_notes() {
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let listener = Listener::load(&source, &|_| ()).expect("the embedded checkpoint loads");
        let request = Request { programs: &[0, 48, 73], ..Request::new(Path::new(DEFAULT_SOUNDFONT)) };
        let learned = learn(&listener, &request, &|_, _| ()).unwrap_or_else(|error| panic!("{error}"));
        let directions = &learned.directions;
        directions
            .check("notes", listener.name(), listener.hash(), listener.blocks(), listener.hidden())
            .expect("directions of this checkpoint");
        for class in 0..12 {
            for block in 0..directions.blocks {
                let norm = directions.vector(class, block).iter().map(|x| x * x).sum::<f32>().sqrt();
                assert!((norm - 1.0).abs() < 1e-4, "class {class}, block {block}: length {norm}");
            }
        }
        let best = learned.accuracy.iter().copied().fold(0.0, f32::max);
        assert!(best > 3.0 / 12.0, "notes named right by block: {:?}", learned.accuracy);
        // The directions of different notes are different directions.
        let (c, g) = (directions.vector(0, directions.blocks - 1), directions.vector(7, directions.blocks - 1));
        assert!(c.iter().zip(g).map(|(a, b)| a * b).sum::<f32>() < 0.5);
    }
}
