//! Learns directions for a checkpoint and writes them beside it. Worker threads only.

use clap::Parser;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use tiller_engine::checkpoint::CheckpointSource;
use tiller_engine::control::PitchClass;
use tiller_engine::dataset::concepts::{Clips, Concept};
use tiller_engine::dataset::render::{DEFAULT_SOUNDFONT, Tones};
use tiller_engine::evaluation::steered::Aim;
use tiller_engine::handle::ModelSource;
use tiller_engine::learn::axes::Method;
use tiller_engine::learn::calibration::calibrate;
use tiller_engine::learn::chords::ChordParts;
use tiller_engine::learn::family::{self, Learned, Request, TraitRequest};
use tiller_engine::learn::folder;
use tiller_engine::learn::joining::{beside, join, obstacle};
use tiller_engine::learn::listener::{Layout, Listener};
use tiller_engine::learn::states::StateFolder;
use tiller_engine::learn::watch::{Stage, Watch};
use tiller_engine::learn::work::TRAIT_DOSE;
use tiller_engine::model::directions_file;
use tiller_engine::stages::StageBar;
use tiller_engine::steering::block_weights::BlockWeights;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::push::Manner;
use tiller_engine::steering::trait_files;

/// Learns steering directions for a MusicGen checkpoint.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The checkpoint: a Hugging Face MusicGen directory.
    #[arg(long)]
    checkpoint: PathBuf,
    /// What to learn from rendered clips; one file each.
    #[arg(long, value_delimiter = ',', default_value = "notes", conflicts_with = "from")]
    concepts: Vec<Concept>,
    /// Of the notes, learn these only, as in `--notes D,F#,Bb`. They are what they would be among all twelve, and are put into a
    /// file of notes that is there already, whose dose they then take. Two take some 55 % of the listening, since what a note is
    /// compared with is heard too, and a sixth of the fitting. Not by likelihood, which learns all notes at once; chords need all
    /// twelve notes whatever is said here.
    #[arg(long, value_delimiter = ',', conflicts_with = "from")]
    notes: Option<Vec<PitchClass>>,
    /// Learn a trait from your own audio instead: a folder with `with/` and `without/`, each with WAV or FLAC files.
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// With --from: what to call the trait; without it, the folder's name.
    #[arg(long, requires = "from", value_parser = trait_name)]
    name: Option<String>,
    /// How to learn it: rfm (Recursive Feature Machine), mean (difference of class means), linear or logistic regression, each
    /// on pooled states; likelihood (what makes the decoder itself expect the class; minutes of gradient steps, music only).
    #[arg(long, default_value = "rfm")]
    method: Method,
    /// What a chord's direction is made of: whole (each root and quality for itself), root-and-quality (the sum of two), roles
    /// (the sum of three: its notes as root, third and fifth), or notes (the sum of those of its three notes, learned as notes).
    #[arg(long, default_value = "notes")]
    chords: ChordParts,
    /// How clips are laid out for the decoder: delayed (BOS and the delay pattern, as the model plays) or undelayed (all
    /// codebooks at once and no BOS, as published).
    #[arg(long, default_value = "delayed")]
    layout: Layout,
    /// Folder to write to; without it, where the plugin looks: the checkpoint's directory.
    #[arg(long)]
    out: Option<PathBuf>,
    /// With --from: write into your own folder for the checkpoint, where the plugin finds it too.
    #[arg(long, requires = "from", conflicts_with = "out")]
    user: bool,
    /// Folder that keeps what was heard, so that learning goes on where it was stopped.
    #[arg(long)]
    states: Option<PathBuf>,
    /// What the clips are rendered from: soundfont (the file of --soundfont) or built-in (tones of Tiller's own, which need no file).
    #[arg(long, value_enum, default_value = "soundfont")]
    tones: TonesName,
    /// SoundFont that the clips are rendered from.
    #[arg(long, default_value = DEFAULT_SOUNDFONT)]
    soundfont: PathBuf,
    /// What clips of notes and chords are: music (pieces that stay on one note or chord, each in every class) or strikes (four
    /// even strikes, as published).
    #[arg(long, default_value = "music")]
    clips: Clips,
    /// Instruments to learn from, at most: fewer are faster and less sure.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u8).range(3..=128))]
    instruments: u8,
    /// What strength 1 does: with `--manner add` a fraction of each block's mean norm, with `hold` steps from the level without
    /// the class (0) to that with it (1). Without it, calibrated by playing (notes, chords, tempo), 0.05 for traits, else 0.3 and 1.
    #[arg(long)]
    full_dose: Option<f32>,
    /// How a dose acts: add (the same vector whatever the state is, as published) or hold (the state is brought as far as a
    /// level along the direction and no further).
    #[arg(long, default_value = "add")]
    manner: Manner,
    /// Clear directions of this share of what pieces differ in whatever the class (instrument, texture), 0 to below 1.
    #[arg(long, default_value_t = 0.0)]
    aside: f64,
    /// How much of the dose each block gets: `all`, `top:N` by held-out score, or `power:X` of it.
    #[arg(long, default_value = "all")]
    blocks: BlockWeights,
    /// Chance that a block is steered in a step; the paper's is 0.3, 1 gives the same dose always.
    #[arg(long, default_value_t = 1.0)]
    gate: f32,
    /// Steer the conditional guidance row only.
    #[arg(long)]
    conditional_only: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Where the tones of clips come from.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TonesName {
    BuiltIn,
    Soundfont,
}

/// It becomes part of a file's name.
fn trait_name(text: &str) -> Result<String, String> {
    trait_files::check_name(text).map(str::to_owned).map_err(str::to_owned)
}

impl Arguments {
    /// Where and when the dose is given.
    fn place(&self, directions: &mut Directions) {
        directions.block_weights = self.blocks;
        directions.manner = self.manner;
        directions.gate = self.gate;
        directions.conditional_only = self.conditional_only;
    }
}

/// Dose of what cannot be calibrated by playing, since no ear hears it.
const fn uncalibrated(manner: Manner) -> f32 {
    match manner {
        Manner::Add => 0.3,
        Manner::Hold => 1.0,
    }
}

fn run(arguments: &Arguments, bars: &StageBar) -> Result<Vec<(PathBuf, Learned)>, Box<dyn Error>> {
    let source = CheckpointSource::directory(&arguments.checkpoint);
    let percent = |share: f32| bars.hear("loading (%)", (share * 100.0) as usize, 100);
    let listener = Listener::load(&source, &percent)?.with_layout(arguments.layout);
    let states = arguments.states.clone().map_or_else(StateFolder::standard, StateFolder::new);
    let own = arguments.user.then(|| trait_files::user_folder(listener.hash()));
    let out = own.as_ref().or(arguments.out.as_ref()).unwrap_or(&arguments.checkpoint);
    // Before an hour's work, not after it.
    std::fs::create_dir_all(out)?;
    let tones = match arguments.tones {
        TonesName::BuiltIn => Tones::BuiltIn,
        TonesName::Soundfont => Tones::SoundFont(arguments.soundfont.clone()),
    };
    if let Some(folder) = &arguments.from {
        if arguments.manner == Manner::Hold {
            return Err("a trait's lane does not hold: --manner add".into());
        }
        let own = || folder.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = arguments.name.clone().or_else(own).unwrap_or_else(|| "trait".to_owned());
        let [with, without] = folder::sides(folder)?;
        let request = TraitRequest {
            with: &with,
            without: &without,
            name: &trait_name(&name)?,
            method: arguments.method,
            full_dose: arguments.full_dose.unwrap_or(TRAIT_DOSE),
            states: &states,
        };
        let hear = |stage: Stage, done, all| match stage {
            Stage::Listening => bars.hear("listening to your audio", done, all),
            Stage::Fitting | Stage::Playing => bars.hear("fitting", done, all),
        };
        let mut learned = family::learn_trait(&listener, &request, Watch::hearing(&hear))?;
        arguments.place(&mut learned.directions);
        let path = out.join(trait_files::file_name(trait_name(&name)?.as_str()));
        learned.directions.write(&path)?;
        return Ok(vec![(path, learned)]);
    }
    let mut all = Vec::new();
    for &concept in &arguments.concepts {
        let path = out.join(directions_file(concept.name()));
        let notes = arguments.notes.as_ref().filter(|_| concept == Concept::Notes);
        let mut request = Request {
            concept,
            only: notes.map(|notes| notes.iter().map(|note| note.index()).collect()),
            tones: &tones,
            clips: arguments.clips,
            instruments: usize::from(arguments.instruments),
            method: arguments.method,
            chords: arguments.chords,
            aside: arguments.aside,
            full_dose: arguments.full_dose.unwrap_or(uncalibrated(arguments.manner)),
            states: &states,
        };
        let hear = |stage: Stage, done, all| match stage {
            Stage::Listening => bars.hear(&format!("listening to {}", concept.name()), done, all),
            Stage::Fitting => bars.hear(&format!("fitting {}", concept.name()), done, all),
            Stage::Playing => bars.hear(&format!("finding the full dose of {}", concept.name()), done, all),
        };
        let mut outline = family::outline(&listener, &request);
        let old = beside(&path, &outline.checkpoint_hash, &outline.classes);
        if let Some(old) = &old {
            request.full_dose = arguments.full_dose.unwrap_or(old.full_dose);
            outline.full_dose = request.full_dose;
            arguments.place(&mut outline);
            if let Some(why) = obstacle(old, &outline) {
                return Err(format!("{}: {why}", path.display()).into());
            }
        }
        let mut learned = family::learn(&listener, &request, Watch::hearing(&hear))?;
        arguments.place(&mut learned.directions);
        let aim = Aim::ALL.into_iter().find(|aim| aim.name() == concept.name());
        if let Some(aim) = aim.filter(|_| arguments.full_dose.is_none() && old.is_none()) {
            let checkpoint = ModelSource::Directory(arguments.checkpoint.clone());
            calibrate(&checkpoint, aim, &mut learned.directions, Watch::hearing(&hear))?;
        }
        match &old {
            Some(old) => join(old, &learned.directions).write(&path)?,
            None => learned.directions.write(&path)?,
        }
        all.push((path, learned));
    }
    Ok(all)
}

fn show((path, learned): &(PathBuf, Learned)) {
    let directions = &learned.directions;
    let percent = |values: &[f32]| values.iter().map(|x| format!("{:.0}", 100.0 * x)).collect::<Vec<_>>().join(" ");
    println!("{}: {} clips heard, {} written", directions.concept, learned.clips, path.display());
    if let Some(accuracy) = &learned.accuracy {
        let chance = 100.0 / directions.classes.len() as f32;
        println!("  named right by block on other instruments, in % (chance {chance:.0}): {}", percent(accuracy));
    }
    // Of some notes, or a trait, there is nothing to name: only to say whether it is there.
    if let (None, Some(told)) = (&learned.accuracy, learned.told) {
        println!("  {told} on what nothing was fitted to");
    }
    let blocks = directions.blocks;
    let mean = |block: usize| learned.test.iter().map(|own| own[block]).sum::<f32>() / learned.test.len() as f32;
    let means: Vec<f32> = (0..blocks).map(mean).collect();
    let what = if directions.concept == Concept::Tempo.name() { "correlation" } else { "AUC" };
    println!("  mean {what} by block on what nothing was fitted to, in %: {}", percent(&means));
    if means.iter().all(|score| (score - if what == "AUC" { 0.5 } else { 0.0 }).abs() < 0.1) {
        println!(
            "  warning: no better than chance: the model does not hear the difference, so steering will not make it"
        );
    }
    match directions.manner {
        Manner::Add => println!("  strength 1 injects {} of each block's mean norm", directions.full_dose),
        Manner::Hold => println!("  strength 1 holds {} of the way to the class's own level", directions.full_dose),
    }
}

fn report((path, learned): &(PathBuf, Learned)) -> serde_json::Value {
    let directions = &learned.directions;
    serde_json::json!({
        "file": path,
        "checkpoint": directions.checkpoint_name,
        "checkpoint_sha256": directions.checkpoint_hash,
        "concept": directions.concept,
        "method": directions.method,
        "clips": learned.clips,
        "accuracy_by_block": learned.accuracy,
        "test_scores": learned.test,
        "block_norms": directions.block_norms,
        "full_dose": directions.full_dose,
        "manner": directions.manner.name(),
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.full_dose.is_some_and(|dose| dose.is_nan() || dose <= 0.0 || dose > 10.0) {
        eprintln!("tiller-learn: --full-dose must be above 0 and at most 10");
        return ExitCode::FAILURE;
    }
    if arguments.gate.is_nan() || arguments.gate <= 0.0 || arguments.gate > 1.0 {
        eprintln!("tiller-learn: --gate must be above 0 and at most 1");
        return ExitCode::FAILURE;
    }
    let bars = StageBar::default();
    let learned = run(&arguments, &bars);
    bars.clear();
    match learned {
        Ok(learned) if arguments.json => {
            println!("{}", serde_json::json!({ "learned": learned.iter().map(report).collect::<Vec<_>>() }));
            ExitCode::SUCCESS
        }
        Ok(learned) => {
            learned.iter().for_each(show);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tiller-learn: {error}");
            ExitCode::FAILURE
        }
    }
}
