//! Learning as a work of the process, beside playing: stages with progress, pause, stop, and going on after a restart. What is
//! learned goes into the user's own folder for the checkpoint, and every instance that plays it takes it up. Its threads are the
//! work's own, yield to everybody else, and are joined when it ends.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::axes::{self, Method};
use super::chords::ChordParts;
use super::family::{self, Learned, Request, TraitRequest};
use super::joining::{beside, join, obstacle};
use super::listener::Listener;
use super::states::StateFolder;
use super::watch::{Stage, Stopped, Watch};
use super::workers::Workers;
use super::{LearnError, orders};
use crate::background::{Background, Ended, Kind, Unit, Work};
use crate::dataset::concepts::{Clips, Concept};
use crate::error::EngineError;
use crate::handle::{self, ModelSource};
use crate::model::{Model, directions_file};
use crate::steering::class_set::ClassSet;
use crate::steering::directions::Directions;
use crate::steering::trait_files;

pub use super::library::{Known, LibraryError, Place, export, import, known, remove};
pub use crate::dataset::render::Tones;

/// How much time is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Three instruments (one to learn from, one to choose by, one to judge on): soon tells whether a large model can be steered at
    /// all, and steers it roughly.
    Taste,
    /// Five instruments (three to learn from, one to choose by, one to judge on) and differences of class means: a quarter of the
    /// listening and no fitting to speak of. On the embedded model such notes are heard as often and cost the prompt a little more.
    #[default]
    Quick,
    /// All 21 instruments and the Recursive Feature Machine, as the command line does.
    Full,
}

impl Effort {
    fn instruments(self) -> usize {
        match self {
            Self::Taste => 3,
            Self::Quick => 5,
            Self::Full => 21,
        }
    }

    /// Tempo is only ever steered by what was learned by likelihood, whatever that takes.
    fn method(self, concept: Concept) -> Method {
        match (self, concept) {
            (_, Concept::Tempo) => Method::Likelihood,
            (Self::Taste | Self::Quick, _) => Method::Mean,
            (Self::Full, _) => Method::Rfm,
        }
    }
}

/// What strength 1 adds, as a share of each block's mean norm: what these methods were found to need on the embedded model, where
/// more was heard little more often and cost the prompt much (README). Finding it by playing would take a published model hours
/// on a few cores, and would find the loudest dose rather than the best; strength and a lane's own slider go down from here.
const fn dose(concept: Concept) -> f32 {
    match concept {
        Concept::Notes => 0.045,
        Concept::Chords => 0.05,
        Concept::Tempo => 0.1,
        Concept::Intervals | Concept::Scales | Concept::TimeSignatures => 0.1,
    }
}

/// The same of a trait: with this, brightness and staccato rise with every step of strength; at 0.3 all is said by half of it
/// (`tiller-evaluate --only traits --trait-dose`).
pub const TRAIT_DOSE: f32 = 0.05;

/// Concepts to learn for a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The checkpoint.
    pub source: ModelSource,
    /// In this order.
    pub concepts: Vec<Concept>,
    /// Of the notes, these. Some of them take less time, and join the user's own of before; chords take all twelve for
    /// themselves whatever is here.
    pub notes: ClassSet,
    /// How much time is spent.
    pub effort: Effort,
    /// What the music to learn from is rendered with.
    pub tones: Tones,
}

/// How much of what all notes take is heard for some of them, 0 to 1: these, and what each of them is compared with, which is
/// drawn for each of them.
pub fn share_of_listening(notes: ClassSet) -> f32 {
    let (all, own) = (ClassSet::NOTES.len() as f32, notes.len() as f32);
    let not_drawn = (1.0 - axes::REST as f32 / (all - 1.0)).powf(own);
    ((own + (all - own) * (1.0 - not_drawn)) / all).min(1.0)
}

/// A trait to learn from the musician's own recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct TraitOrder {
    /// The checkpoint.
    pub source: ModelSource,
    /// What the trait is called.
    pub name: String,
    /// WAV and FLAC files that have it.
    pub with: Vec<PathBuf>,
    /// Files that have it not.
    pub without: Vec<PathBuf>,
}

/// Why nothing began.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The order or what came of it cannot be written.
    #[error("what is to be learned cannot be kept in {path}: {source}; make room there, or make the folder writable")]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The trait's name cannot be a file's.
    #[error("\"{name}\" cannot be a trait's name: {rule}")]
    Name {
        /// The name.
        name: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The system gave no thread.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Begins to learn, unless something is being learned for this checkpoint already. The work's kind is [`Kind::Learn`], its subject
/// the checkpoint's name ([`Model::name_of`]). Until it is done or cancelled, [`unfinished`] has it.
///
/// # Errors
/// [`WorkError`]; what goes wrong later is in the work's report.
pub fn begin(background: &Background, order: Order) -> Result<(), WorkError> {
    let subject = Model::name_of(&order.source);
    if background.report(Kind::Learn, &subject).is_some_and(|report| !report.standing.is_over()) {
        return Ok(());
    }
    orders::remember(&order).map_err(|(path, source)| WorkError::Keep { path, source })?;
    let body = move |work: &Work| {
        let folder = orders::working_folder(&order.source, "concepts");
        let ended = learn(work, &order, &StateFolder::new(folder.clone()));
        if ended.is_ok() || work.is_cancelled() {
            orders::forget(&order.source);
            orders::clear(&folder);
        }
        ended
    };
    Ok(background.begin(Kind::Learn, &subject, body)?)
}

/// What a restart or a stop has interrupted, or an error ended: each goes on from what it has kept when it is begun again. Those
/// that are going on in this process are among them.
pub fn unfinished() -> Vec<Order> {
    orders::remembered()
}

/// Gives up what was interrupted, with all that it has kept. What goes on is cancelled instead ([`Background::cancel`]).
pub fn discard(source: &ModelSource) {
    orders::forget(source);
    orders::clear(&orders::working_folder(source, "concepts"));
}

/// Begins to learn a trait, unless one of that name is being learned already. The work's kind is [`Kind::Trait`], its subject the
/// trait's name. A trait of the same name for this checkpoint is not written over: the work ends with that.
///
/// # Errors
/// [`WorkError`]; what goes wrong later is in the work's report.
pub fn begin_trait(background: &Background, order: TraitOrder) -> Result<(), WorkError> {
    let name = match trait_files::check_name(&order.name) {
        Ok(name) => name.to_owned(),
        Err(rule) => return Err(WorkError::Name { name: order.name, rule }),
    };
    let subject = name.clone();
    let body = move |work: &Work| {
        let folder = orders::working_folder(&order.source, &format!("trait {name}"));
        let ended = learn_trait(work, &name, &order, &StateFolder::new(folder.clone()));
        // What a restart interrupts is heard again: recordings may be elsewhere by then.
        if ended.is_ok() || work.is_cancelled() {
            orders::clear(&folder);
        }
        ended
    };
    Ok(background.begin(Kind::Trait, &subject, body)?)
}

fn ended(error: LearnError) -> Ended {
    if error.is_stop() { Ended::Stopped } else { Ended::Failed(error.to_string()) }
}

/// Loads what listens.
fn listener(work: &Work, source: &ModelSource) -> Result<Listener, Ended> {
    work.check()?;
    let percent = |share: f32| work.hear("loading the model (%)", Unit::Items, (share * 100.0) as u64, 100);
    let listener = Listener::load(&source.checkpoint(), &percent).map_err(ended)?;
    work.check()?;
    Ok(listener)
}

fn make(folder: &Path) -> Result<(), Ended> {
    let kept = std::fs::create_dir_all(folder);
    kept.map_err(|source| Ended::Failed(WorkError::Keep { path: folder.to_owned(), source }.to_string()))
}

fn check(work: &Work) -> Result<(), Stopped> {
    work.check().map_err(|_| Stopped)
}

fn learn(work: &Work, order: &Order, states: &StateFolder) -> Result<String, Ended> {
    let workers = Workers::new()?;
    let listener = listener(work, &order.source)?;
    let folder = trait_files::user_folder(listener.hash());
    make(&folder)?;
    let mut said = Vec::new();
    for &concept in &order.concepts {
        let hear = |stage: Stage, done: usize, all: usize| {
            let stage = match stage {
                Stage::Listening => format!("{}: listening to music", concept.name()),
                Stage::Fitting | Stage::Playing => format!("{}: finding directions", concept.name()),
            };
            work.hear(&stage, Unit::Items, done as u64, all as u64);
        };
        let path = folder.join(directions_file(concept.name()));
        let only = (concept == Concept::Notes && order.notes != ClassSet::NOTES).then_some(order.notes);
        let request = Request {
            concept,
            only,
            tones: &order.tones,
            clips: Clips::Music,
            instruments: order.effort.instruments(),
            method: order.effort.method(concept),
            chords: ChordParts::Notes,
            aside: 0.0,
            full_dose: dose(concept),
            states,
        };
        let check = || check(work);
        let watch = Watch::hearing(&hear).checked_by(&check);
        if only.is_some() {
            to_join(&path, &family::outline(&listener, &request))?;
        }
        let learned = workers.run(|| family::learn(&listener, &request, watch)).map_err(ended)?;
        match to_join(&path, &learned.directions)? {
            Some(old) => join(&old, &learned.directions).write(&path)?,
            None => learned.directions.write(&path)?,
        }
        // Each as soon as it is there: the others may take hours.
        handle::refresh_all();
        let name =
            only.map_or_else(|| concept.name().to_owned(), |notes| format!("{} {}", concept.name(), notes.notes()));
        said.push(words(&name, &learned, "instruments"));
    }
    Ok(said.join("; "))
}

/// What the user has already of the concept that is not learned now.
fn to_join(path: &Path, new: &Directions) -> Result<Option<Directions>, Ended> {
    let Some(old) = beside(path, &new.checkpoint_hash, &new.classes) else { return Ok(None) };
    match obstacle(&old, new) {
        Some(why) => Err(Ended::Failed(format!("{}: {why}", path.display()))),
        None => Ok(Some(old)),
    }
}

fn learn_trait(work: &Work, name: &str, order: &TraitOrder, states: &StateFolder) -> Result<String, Ended> {
    let workers = Workers::new()?;
    let listener = listener(work, &order.source)?;
    let folder = trait_files::user_folder(listener.hash());
    let path = folder.join(trait_files::file_name(name));
    if path.exists() {
        return Err(Ended::Failed(format!(
            "there is a trait \"{name}\" already ({}): choose another name, or remove it first",
            path.display()
        )));
    }
    let hear = |stage: Stage, done: usize, all: usize| {
        let stage = match stage {
            Stage::Listening => "listening to your audio",
            Stage::Fitting | Stage::Playing => "finding the direction",
        };
        work.hear(stage, Unit::Items, done as u64, all as u64);
    };
    let request = TraitRequest {
        with: &order.with,
        without: &order.without,
        name,
        method: Method::Rfm,
        full_dose: TRAIT_DOSE,
        states,
    };
    let check = || check(work);
    let watch = Watch::hearing(&hear).checked_by(&check);
    let learned = workers.run(|| family::learn_trait(&listener, &request, watch)).map_err(ended)?;
    make(&folder)?;
    learned.directions.write(&path)?;
    handle::refresh_all();
    Ok(words(name, &learned, "parts"))
}

/// What came of it, for people; `kind` is what it was judged on.
fn words(name: &str, learned: &Learned, kind: &str) -> String {
    let Some(told) = learned.told else {
        let best = learned.test.iter().flatten().copied().fold(0.0, f32::max);
        return format!("{name}: follows it with a correlation of {best:.2} on {kind} that it had not heard");
    };
    let mut said = format!("{name}: {told} on {kind} that it had not heard");
    if told.is_chance() {
        said.push_str(
            ". That is no better than guessing: the model does not hear the difference, so steering will hardly make it",
        );
    } else if told.may_be_luck() {
        said.push_str(&format!(
            ". That may be luck, since there were only {} of these: give it more recordings",
            told.clips
        ));
    }
    if learned.stretched {
        said.push_str(
            ". The files were so few that these parts come from the same recordings as those it learned from: it may tell others \
             less well. Three or more files on either side are better",
        );
    }
    said
}
