//! Directions of a concept family from rendered clips, or of a trait from the user's own audio: listens to the clips through
//! the checkpoint and finds an axis for each class and block. Worker threads, all cores.

use std::path::PathBuf;

use super::LearnError;
use super::aside;
use super::axes::{self, Axes, Method, Targets};
use super::chords::{self, ChordParts};
use super::folder::{CLIP_SAMPLES, Folder};
use super::lessons;
use super::listener::{FIRST_FRAME, Listener};
use super::samples::FEWEST;
use super::split::{Label, Part, Split};
use super::states::{StateFolder, States};
use super::told::Told;
use super::watch::Watch;
use crate::dataset::GENERATOR_VERSION;
use crate::dataset::concepts::{Clips, Concept, ConceptClip};
use crate::dataset::render::{Renderer, Tones};
use crate::steering::block_weights::BlockWeights;
use crate::steering::class_set::ClassSet;
use crate::steering::directions::Directions;
use crate::steering::push::Manner;

/// What to learn from and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The concept family.
    pub concept: Concept,
    /// Classes of it that are learned, `None` for all. What they are compared with is heard of the others, and nothing else: two
    /// notes of twelve take a little more than half the listening, and a sixth of the fitting. Their directions are those that
    /// they have among all.
    pub only: Option<ClassSet>,
    /// What the clips are rendered from.
    pub tones: &'a Tones,
    /// What clips of notes and chords are like.
    pub clips: Clips,
    /// Instruments to learn from, at most; tempo has all of them.
    pub instruments: usize,
    /// How directions are found.
    pub method: Method,
    /// What a chord's direction is made of.
    pub chords: ChordParts,
    /// Share of what pieces differ in that directions are cleared of, 0 to below 1 (`aside`).
    pub aside: f64,
    /// What strength 1 injects, as a fraction of each block's mean norm.
    pub full_dose: f32,
    /// Where what was heard is kept.
    pub states: &'a StateFolder,
}

/// Directions, and what held-out instruments said of them.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Ready to be written.
    pub directions: Directions,
    /// Clips that sounded.
    pub clips: usize,
    /// Share of test clips given their own class by the surest detector, `[block]`; `None` for levels.
    pub accuracy: Option<Vec<f32>>,
    /// AUC of class against rest on test clips, or correlation with the level, `[class][block]`.
    pub test: Vec<Vec<f32>>,
    /// How well they are told in the block that validation says is best; `None` for levels.
    pub told: Option<Told>,
    /// The user's files were so few that stretches of one are on both sides: what is told flatters.
    pub stretched: bool,
}

/// Learns the directions of a family.
///
/// # Errors
/// [`LearnError`], by name.
pub fn learn(listener: &Listener, request: &Request, watch: Watch) -> Result<Learned, LearnError> {
    let renderer = Renderer::of(request.tones)?;
    let music = if request.clips == Clips::Music { request.concept.music(request.instruments) } else { None };
    let kind = if music.is_some() { Clips::Music } else { Clips::Strikes };
    // Spread over the families of instruments rather than the first few.
    let known = request.concept.programs();
    let count = known.len().min(request.instruments);
    let chosen: Vec<u8> = (0..count).map(|i| known[i * known.len() / count]).collect();
    let clips = music.unwrap_or_else(|| request.concept.clips(&chosen));
    let mut programs: Vec<u8> = clips.iter().map(|clip| clip.program).collect();
    programs.sort_unstable();
    programs.dedup();
    let font = renderer.hash();
    let mut described = format!("{} {programs:?}", kind.name());
    let version = GENERATOR_VERSION.to_string();
    let names = request.concept.classes();
    let some = some(request, names.len())?;
    if let Some(some) = &some {
        let chosen = some.iter().map(|class| names[*class].as_str()).collect::<Vec<_>>().join(",");
        described.push_str(&format!(" only {chosen}"));
    }
    let key = [request.concept.name(), &described, &version, font];
    let (states, split) = match &some {
        None => {
            let size = (clips.len(), ConceptClip::SAMPLES);
            let states =
                request.states.listen(listener, &key, size, watch, |clip| Ok(clips[clip].render(&renderer)?))?;
            let label = |(clip, heard): (&ConceptClip, &Option<_>)| heard.as_ref().map(|_| Label::from(clip));
            let split = Split::new(clips.iter().zip(&states.heard).map(label).collect());
            (states, split)
        }
        Some(some) => {
            let plan = Split::new(clips.iter().map(|clip| Some(Label::from(clip))).collect()).learning(some.clone());
            let needed = plan.needed(axes::REST);
            let size = (needed.len(), ConceptClip::SAMPLES);
            let render = |place: usize| Ok(clips[needed[place]].render(&renderer)?);
            let own = request.states.listen(listener, &key, size, watch, render)?;
            let mut heard = vec![None; clips.len()];
            needed.iter().zip(own.heard).for_each(|(clip, own)| heard[*clip] = own);
            let split = plan.heard(heard.iter().map(Option::is_some).collect());
            (States { heard, ..own }, split)
        }
    };
    let names = match &some {
        Some(some) => some.iter().map(|class| names[*class].clone()).collect(),
        None => names,
    };
    let targets = if request.concept.is_level() { Targets::Level } else { Targets::Classes(names.len()) };
    let data = serde_json::json!({
        "soundfont": request.tones.name(),
        "soundfont_sha256": font,
        "generator_version": GENERATOR_VERSION,
        "kind": kind.name(),
        "programs": programs,
        "clips": split.count(),
        "aside": request.aside,
        "level": (targets == Targets::Level).then(|| split.scale()),
        "chords": (request.concept == Concept::Chords).then(|| request.chords.name()),
    });
    axes::check(&split, targets)?;
    let axes = match (request.concept, request.chords) {
        (Concept::Chords, ChordParts::RootAndQuality | ChordParts::Roles) if request.method != Method::Likelihood => {
            chords::of_parts(&states, &split, request.chords, request.method, watch)?
        }
        (Concept::Chords, ChordParts::Notes) => {
            let notes = learn(listener, &Request { concept: Concept::Notes, only: None, ..request.clone() }, watch)?;
            chords::of_notes(&states, &split, &notes.directions, watch)?
        }
        _ if request.method == Method::Likelihood => {
            let parts = match request.concept {
                Concept::Chords => request.chords.vectors(),
                _ => (0..targets.count()).map(|class| vec![class]).collect(),
            };
            let kept = request.states.fits(listener, &key).join("likelihood.bin");
            lessons::by_likelihood(listener, (&renderer, &clips), (&states, &split), targets, &parts, &kept, watch)?
        }
        _ => {
            let kept = request.states.fits(listener, &key);
            axes::learn(&states, &split, targets, request.method, Some(&kept), watch)?
        }
    };
    let axes = aside::clear(&states, &split, axes, request.aside, watch)?;
    let subject = Subject { name: request.concept.name(), classes: names, method: request.method, data };
    Ok(learned(listener, &states, &split, &axes, subject, request.full_dose))
}

/// The classes that are to be learned, in order, where they are not all.
fn some(request: &Request, count: usize) -> Result<Option<Vec<usize>>, LearnError> {
    let Some(only) = request.only else { return Ok(None) };
    let some: Vec<usize> = only.iter().filter(|class| *class < count).collect();
    let refused = |why: &str| Err(LearnError::TooLittle(why.to_owned()));
    match (some.len(), request.concept) {
        (0, _) => refused("none of the classes is to be learned: name one at least"),
        (found, _) if found == count => Ok(None),
        (_, Concept::Chords | Concept::Tempo) => refused("of chords and tempo all is learned, or nothing"),
        _ if request.method == Method::Likelihood => refused(
            "by likelihood all notes are learned at once, since each piece is heard on every one: learn all of them, or choose \
             rfm, mean, linear or logistic",
        ),
        _ => Ok(Some(some)),
    }
}

/// A trait to learn from the user's own audio.
#[derive(Clone, Debug)]
pub struct TraitRequest<'a> {
    /// Sound files with it.
    pub with: &'a [PathBuf],
    /// Sound files without it.
    pub without: &'a [PathBuf],
    /// What to call it.
    pub name: &'a str,
    /// How the direction is found.
    pub method: Method,
    /// What strength 1 injects, as a fraction of each block's mean norm.
    pub full_dose: f32,
    /// Where what was heard is kept.
    pub states: &'a StateFolder,
}

/// Learns a trait.
///
/// # Errors
/// [`LearnError`], by name.
pub fn learn_trait(listener: &Listener, request: &TraitRequest, watch: Watch) -> Result<Learned, LearnError> {
    if request.method == Method::Likelihood {
        return Err(LearnError::TooLittle(
            "a trait cannot be learned by likelihood, which needs every piece with and without it: choose rfm, mean, linear or \
             logistic"
                .to_owned(),
        ));
    }
    let folder = Folder::of([request.with, request.without], watch)?;
    let size = (folder.clips.len(), CLIP_SAMPLES);
    let key = ["folder", &folder.hash];
    let states = request.states.listen(listener, &key, size, watch, |i| Ok(Some(folder.clips[i].audio.clone())))?;
    let split = Split::by_file(folder.clips.iter().map(|clip| Some(clip.label)).collect());
    let data = serde_json::json!({
        "files": folder.files,
        "files_sha256": folder.hash,
        "clips": split.count(),
        "stretches_of_a_file_in_different_parts": folder.stretched,
    });
    // One direction: from the clips without the trait to those with it.
    let targets = Targets::Classes(1);
    axes::check(&split, targets)?;
    if [Part::Train, Part::Validation, Part::Test].into_iter().any(|part| split.part(part).count() < FEWEST) {
        return Err(LearnError::TooLittle(format!(
            "{} stretches of four seconds with sound are too few to learn from, to choose by and to judge on: give a minute or more of \
             either kind, best in five or more files",
            split.count()
        )));
    }
    let kept = request.states.fits(listener, &key);
    let axes = axes::learn(&states, &split, targets, request.method, Some(&kept), watch)?;
    let subject = Subject { name: request.name, classes: vec![request.name.to_owned()], method: request.method, data };
    let learned = learned(listener, &states, &split, &axes, subject, request.full_dose);
    Ok(Learned { stretched: folder.stretched, ..learned })
}

/// What is learned, whatever it is learned from.
struct Subject<'a> {
    name: &'a str,
    classes: Vec<String>,
    method: Method,
    data: serde_json::Value,
}

/// What will be learned, without any number that is heard: whether it can go into a file that is there is known before hours
/// are spent.
pub fn outline(listener: &Listener, request: &Request) -> Directions {
    let names = request.concept.classes();
    let of = |class: usize| names.get(class).cloned();
    Directions {
        concept: request.concept.name().to_owned(),
        classes: request.only.map_or_else(|| names.clone(), |only| only.iter().filter_map(of).collect()),
        checkpoint_name: listener.name().to_owned(),
        checkpoint_hash: listener.hash().to_owned(),
        method: request.method.name().to_owned(),
        blocks: listener.blocks(),
        hidden: listener.hidden(),
        vectors: Vec::new(),
        scores: Vec::new(),
        detectors: Vec::new(),
        levels: Vec::new(),
        manner: Manner::default(),
        block_norms: Vec::new(),
        full_dose: request.full_dose,
        block_weights: BlockWeights::All,
        gate: 1.0,
        conditional_only: false,
        provenance: String::new(),
    }
}

fn learned(
    listener: &Listener,
    states: &States,
    split: &Split,
    axes: &Axes,
    subject: Subject,
    full_dose: f32,
) -> Learned {
    let accuracy = axes.accuracy(states, split, Part::Test);
    let told = axes.told(states, split, accuracy.as_deref());
    let apart = axes.told_apart(states, split);
    let block_norms = states.block_norms();
    let rms: Vec<f32> = block_norms.iter().map(|norm| norm / (states.hidden as f32).sqrt()).collect();
    let each = || axes.axes.iter().flatten();
    let test: Vec<Vec<f32>> = axes.axes.iter().map(|blocks| blocks.iter().map(|axis| axis.test).collect()).collect();
    let provenance = serde_json::json!({
        "data": subject.data,
        "states": {
            "layout": listener.layout().name(),
            "row": "unconditional, teacher-forced",
            "tensor": "block output after the residual, before any final norm",
            "pooling": format!("mean over positions from {FIRST_FRAME} on"),
        },
        "test": {
            "rule": "instruments or files that nothing was fitted to; AUC of class against rest, or correlation with the level",
            "score": test,
            "accuracy_by_block": accuracy,
            "told": told,
            "told_apart": apart,
        },
        "block_rms": rms,
    });
    let directions = Directions {
        concept: subject.name.to_owned(),
        checkpoint_name: listener.name().to_owned(),
        checkpoint_hash: listener.hash().to_owned(),
        method: subject.method.name().to_owned(),
        blocks: states.blocks,
        hidden: states.hidden,
        vectors: each().flat_map(|axis| axis.direction.iter().copied()).collect(),
        scores: each().map(|axis| axis.validation).collect(),
        detectors: each().flat_map(|axis| [axis.detector.slope, axis.detector.offset]).collect(),
        levels: each().flat_map(|axis| axis.levels).collect(),
        manner: Manner::default(),
        block_norms,
        full_dose,
        block_weights: BlockWeights::All,
        gate: 1.0,
        conditional_only: false,
        provenance: provenance.to_string(),
        classes: subject.classes,
    };
    Learned { directions, clips: split.count(), accuracy, test, told, stretched: false }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Stage;
    use super::*;
    use crate::checkpoint::CheckpointSource;
    use crate::dataset::render::DEFAULT_SOUNDFONT;
    use crate::embedded;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_demo_checkpoint_knows_its_notes() {
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let listener = Listener::load(&source, &|_| ()).expect("the embedded checkpoint loads");
        let folder = std::env::temp_dir().join(format!("tiller-states-{}", std::process::id()));
        let states = StateFolder::new(folder.clone());
        let request = Request {
            concept: Concept::Notes,
            only: None,
            tones: &Tones::SoundFont(DEFAULT_SOUNDFONT.into()),
            clips: Clips::Strikes,
            instruments: 4,
            method: Method::Mean,
            chords: ChordParts::Whole,
            aside: 0.0,
            full_dose: 0.5,
            states: &states,
        };
        let heard = AtomicUsize::new(0);
        let count = |stage: Stage, _, _| {
            heard.fetch_add(usize::from(stage == Stage::Listening), Ordering::Relaxed);
        };
        let learned = learn(&listener, &request, Watch::hearing(&count)).unwrap_or_else(|error| panic!("{error}"));
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
        let best = learned.accuracy.iter().flatten().copied().fold(0.0, f32::max);
        assert!(best > 3.0 / 12.0, "notes named right by block: {:?}", learned.accuracy);
        // The directions of different notes are different directions.
        let (c, g) = (directions.vector(0, directions.blocks - 1), directions.vector(7, directions.blocks - 1));
        assert!(c.iter().zip(g).map(|(a, b)| a * b).sum::<f32>() < 0.5);
        // What was heard is not heard again, and gives the same.
        assert_eq!(heard.swap(0, Ordering::Relaxed), 4 * 48);
        let again = learn(&listener, &request, Watch::hearing(&count)).expect("learns again");
        assert_eq!((&again.directions, heard.load(Ordering::Relaxed)), (directions, 6));
        // Two notes alone are what they are among twelve, from fewer clips.
        let two = Request { only: Some([2, 9].into_iter().collect()), ..request.clone() };
        let two = learn(&listener, &two, Watch::hearing(&count)).expect("learns two");
        let clips = heard.load(Ordering::Relaxed) - 6;
        assert!((4 * 16..4 * 33).contains(&clips) && two.clips == clips, "{clips} of {} clips", 4 * 48);
        assert_eq!(two.directions.classes, ["D", "A"]);
        for (place, class) in [(0, 2), (1, 9)] {
            for block in 0..directions.blocks {
                assert_eq!(two.directions.vector(place, block), directions.vector(class, block));
            }
        }
        assert!(two.accuracy.is_none() && two.told.is_some_and(|told| told.chance == 0.5 && !told.is_chance()));
        for (only, method) in [(ClassSet::EMPTY, Method::Mean), (ClassSet::EMPTY.with(1), Method::Likelihood)] {
            assert!(learn(&listener, &Request { only: Some(only), method, ..request.clone() }, Watch::IDLE).is_err());
        }
        std::fs::remove_dir_all(folder).expect("cleaned");
    }
}
