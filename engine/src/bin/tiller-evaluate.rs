//! Measures a checkpoint by ear alone: its codec, whether it follows prompts, whether it makes music, whether pitch is
//! free, and how well its notes are steered. Worker threads only.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tiller_engine::control::Lanes;
use tiller_engine::dataset::render::DEFAULT_SOUNDFONT;
use tiller_engine::decoder::sampling::Sampling;
use tiller_engine::evaluation::alternatives::{Way, alternatives_part};
use tiller_engine::evaluation::cache::Cache;
use tiller_engine::evaluation::curves::{self, Chart, Table};
use tiller_engine::evaluation::ears::ears_part;
use tiller_engine::evaluation::probe::probe_part;
use tiller_engine::evaluation::report::{codec_part, music_part, pitch_part, prompt_part};
use tiller_engine::evaluation::response::response_part;
use tiller_engine::evaluation::session::{Request, Session};
use tiller_engine::evaluation::steered::Aim;
use tiller_engine::evaluation::steering_report::{Options, steering_part};
use tiller_engine::evaluation::trait_runs::{Kind, trait_run};
use tiller_engine::evaluation::{EVALUATION_VERSION, EvaluationError};
use tiller_engine::handle::ModelSource;
use tiller_engine::learn::work::TRAIT_DOSE;
use tiller_engine::precision::Precision;
use tiller_engine::stages::StageBar;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::doses::Lane;

/// Measures a checkpoint by ear alone, against music that it was never trained on.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A MusicGen directory, or "demo" for the embedded checkpoint.
    #[arg(long, default_value = "demo")]
    checkpoint: PathBuf,
    /// How exactly the decoder's weights are kept: f32, bf16, int8 or int4.
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Which prompts and seeds: everything is tuned on dev and judged on test.
    #[arg(long, value_enum, default_value_t = SplitName::Test)]
    split: SplitName,
    /// First seed of the generated pieces, instead of the split's own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    seed_base: Option<u32>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// A tenth of everything: for trying out, not for figures.
    #[arg(long)]
    quick: bool,
    /// Make everything again instead of taking what was kept.
    #[arg(long)]
    fresh: bool,
    /// SoundFont of the music to compare with.
    #[arg(long, default_value = DEFAULT_SOUNDFONT)]
    soundfont: PathBuf,
    /// Directions to steer by instead of those beside the checkpoint.
    #[arg(long, value_name = "FOLDER")]
    directions: Option<PathBuf>,
    /// Folder for the steering figures as CSV tables and PNG charts.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Steering: strengths of the lane, the one to be judged last; 0 is always measured.
    #[arg(long, value_delimiter = ',', default_value = "0.25,0.5,0.75,1", allow_hyphen_values = true)]
    strengths: Vec<f32>,
    /// Steering: strength of the tempo lane beside a note.
    #[arg(long, default_value_t = 1.0, allow_hyphen_values = true)]
    tempo: f32,
    /// Steering: pieces of ten heard seconds for each prompt.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Steering: pairs of five heard seconds for each prompt that adherence is judged on; 0 leaves it out.
    #[arg(long, default_value_t = 20)]
    adherence_rounds: usize,
    /// Steering: seconds in which a target's dose rises.
    #[arg(long, default_value_t = 0.0)]
    attack: f32,
    /// Steering: seconds in which the dose of a target that is left falls.
    #[arg(long, default_value_t = 0.0)]
    release: f32,
    /// Steering: give less while the model's own states say that the target is there.
    #[arg(long)]
    guard: bool,
    /// Guidance scale of everything that is generated.
    #[arg(long, default_value_t = Sampling::DEFAULT.guidance)]
    guidance: f32,
    /// Sampling temperature of everything that is generated.
    #[arg(long, default_value_t = Sampling::DEFAULT.temperature)]
    temperature: f32,
    /// Codes that sampling chooses from; 0 is all.
    #[arg(long, default_value_t = Sampling::DEFAULT.top_k)]
    top_k: usize,
    /// Traits: what strength 1 adds, as a share of each block's mean norm.
    #[arg(long, default_value_t = TRAIT_DOSE)]
    trait_dose: f32,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature, guidance: self.guidance, top_k: self.top_k }
    }

    fn steering(&self) -> Options {
        Options {
            strengths: self.strengths.iter().copied().filter(|strength| *strength != 0.0).collect(),
            tempo: self.tempo,
            rounds: self.rounds as usize,
            adherence_rounds: self.adherence_rounds,
            shape: Lanes { attack: self.attack, release: self.release, guard: self.guard, ..Lanes::OFF },
            sampling: self.sampling(),
        }
    }
}

impl Arguments {
    /// Writes a table and, where there are any, charts.
    fn draw(&self, name: &str, table: &Table, charts: &[Chart]) -> Result<(), String> {
        let Some(folder) = &self.out else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        table.write(&folder.join(format!("{name}.csv"))).map_err(|error| error.to_string())?;
        if charts.is_empty() {
            return Ok(());
        }
        curves::draw(&folder.join(format!("{name}.png")), name, charts).map_err(|error| error.to_string())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Dev,
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the codec does to held-out rendered clips.
    Codec,
    /// Whether the prompted instrument and texture are heard.
    Prompt,
    /// Keys, tempo words, two minutes on end.
    Music,
    /// Whether every pitch class is played.
    Pitch,
    /// The outside ears themselves, on labelled notes and triads.
    Ears,
    /// Whether the note that is steered to is heard, and what it costs.
    Notes,
    /// The same for a chord's root and quality.
    Chords,
    /// Whether tempo moves.
    Tempo,
    /// A note and tempo together.
    Pair,
    /// How soon a move is heard.
    Response,
    /// What the model's own detectors say of steered notes and chords, as the paper judges; only when asked for.
    Probe,
    /// Notes by RFM, mean differences, linear and logistic regression side by side; only when asked for.
    Methods,
    /// Four ways to make chord directions side by side; only when asked for.
    ChordParts,
    /// Two traits learned from rendered recordings, and what they do to the sound of steered pieces; only when asked for.
    Traits,
    /// The paper's ways that Tiller departs from, side by side; only when asked for.
    Departures,
}

impl Part {
    /// Measured when nothing is named: the rest learns anew and takes long.
    fn is_usual(self) -> bool {
        !matches!(self, Self::Probe | Self::Methods | Self::ChordParts | Self::Departures | Self::Traits)
    }
}

/// What was measured: one JSON object, and lines for people.
struct Outcome {
    report: serde_json::Value,
    lines: Vec<String>,
}

impl Outcome {
    fn take(
        &mut self,
        name: &str,
        started: Instant,
        figures: impl serde::Serialize,
        lines: Vec<String>,
    ) -> Result<(), String> {
        self.report[name] = serde_json::to_value(figures).map_err(|error| error.to_string())?;
        self.report["wall_seconds"][name] = started.elapsed().as_secs_f64().into();
        self.lines.extend(lines);
        Ok(())
    }
}

fn run(arguments: &Arguments, progress: &StageBar) -> Result<Outcome, String> {
    let named = |error: EvaluationError| error.to_string();
    let source = match arguments.checkpoint.to_str() {
        Some("demo") => ModelSource::Embedded,
        _ => ModelSource::Directory(arguments.checkpoint.clone()),
    };
    let folder = arguments.directions.as_deref();
    let directions = folder.map(Directions::read_folder).transpose().map_err(|error| error.to_string())?;
    let test = arguments.split == SplitName::Test;
    let request = Request {
        source: source.clone(),
        precision: arguments.precision,
        test,
        seed_base: arguments.seed_base,
        sampling: arguments.sampling(),
        quick: arguments.quick,
        soundfont: &arguments.soundfont,
        directions: directions.as_deref(),
    };
    let cache = Cache::new(Cache::default_folder(), arguments.fresh);
    let hear = |stage: &str, done, all| progress.hear(stage, done, all);
    let session = Session::new(request, cache.clone(), &hear).map_err(named)?;
    let split = if test { "test" } else { "dev" };
    let mut outcome = Outcome {
        report: serde_json::json!({
            "checkpoint": session.model().name(),
            "checkpoint_sha256": session.model().hash(),
            "precision": session.model().decoder().precision().name(),
            "split": split,
            "seed_base": session.split().seed_base,
            "quick": arguments.quick,
            "guidance": arguments.guidance,
            "temperature": arguments.temperature,
            "top_k": arguments.top_k,
            "evaluation_version": EVALUATION_VERSION,
        }),
        lines: vec![format!("{}, split {split}", session.model().name())],
    };
    if arguments.quick {
        outcome.lines.push("quick: a tenth of everything, no figures to quote".to_owned());
    }
    let wanted = |part: Part| match arguments.only.is_empty() {
        true => part.is_usual(),
        false => arguments.only.contains(&part),
    };
    if wanted(Part::Codec) {
        let started = Instant::now();
        let figures = codec_part(&session).map_err(named)?;
        outcome.take("codec", started, &figures, figures.lines())?;
    }
    if wanted(Part::Prompt) {
        let started = Instant::now();
        let figures = prompt_part(&session).map_err(named)?;
        outcome.take("prompt", started, &figures, figures.lines())?;
    }
    if wanted(Part::Pitch) {
        let started = Instant::now();
        let figures = pitch_part(&session).map_err(named)?;
        outcome.take("pitch_free", started, &figures, figures.lines())?;
    }
    if wanted(Part::Music) {
        let started = Instant::now();
        let figures = music_part(&session).map_err(named)?;
        outcome.take("music", started, &figures, figures.lines())?;
    }
    if wanted(Part::Ears) {
        let started = Instant::now();
        let figures = ears_part(&session).map_err(named)?;
        outcome.take("ears", started, &figures, figures.lines())?;
    }
    for (part, aim, lanes) in [
        (Part::Notes, Aim::Note, &[Lane::Note][..]),
        (Part::Chords, Aim::Chord, &[Lane::Chord]),
        (Part::Tempo, Aim::Tempo, &[Lane::Tempo]),
        (Part::Pair, Aim::Pair, &[Lane::Note, Lane::Tempo]),
    ] {
        if !wanted(part) {
            continue;
        }
        if let Some(lane) = lanes.iter().find(|lane| !session.model().steering().has(**lane)) {
            let why = match session.model().notice() {
                Some(notice) => notice.to_owned(),
                None => format!("no directions for {}; learn them with `cargo xtask learn`", lane.concept()),
            };
            if !arguments.only.is_empty() {
                return Err(why);
            }
            outcome.lines.push(format!("{}: not measured: {why}", aim.name()));
            continue;
        }
        let started = Instant::now();
        let figures = steering_part(&session, aim, &arguments.steering()).map_err(named)?;
        arguments.draw(aim.name(), &figures.table(), &figures.charts())?;
        outcome.take(aim.name(), started, &figures, figures.lines())?;
    }
    for aim in [Aim::Note, Aim::Chord] {
        let lane = if aim == Aim::Chord { Lane::Chord } else { Lane::Note };
        if wanted(Part::Probe) && session.model().steering().has(lane) {
            let started = Instant::now();
            let options = arguments.steering();
            let protocol = options.protocol(&session, aim);
            let figures = probe_part(&session, &protocol, &options.strengths).map_err(named)?;
            outcome.take(&format!("probe_{}", aim.name()), started, &figures, figures.lines())?;
        }
    }
    for (part, name, aim, ways) in [
        (Part::Methods, "methods", Aim::Note, Way::methods()),
        (Part::ChordParts, "chord_parts", Aim::Chord, Way::chords()),
        (Part::Departures, "departures", Aim::Note, Way::departures()),
    ] {
        if wanted(part) {
            let started = Instant::now();
            let figures = alternatives_part(&session, aim, &ways, &arguments.steering()).map_err(named)?;
            arguments.draw(name, &figures.table(), &[])?;
            outcome.take(name, started, &figures, figures.lines())?;
        }
    }
    if wanted(Part::Traits) {
        let folder = cache.folder().join("traits");
        for kind in Kind::ALL {
            let started = Instant::now();
            let figures = trait_run(&source, kind, arguments.trait_dose, arguments.rounds as usize, &folder, &hear)
                .map_err(named)?;
            outcome.take(&format!("trait_{}", kind.name()), started, &figures, figures.lines())?;
        }
    }
    if wanted(Part::Response) && session.model().steering().has(Lane::Note) {
        let started = Instant::now();
        let rounds = session.scaled(22);
        let options = arguments.steering();
        let figures = response_part(&session, options.shape, options.sampling, rounds).map_err(named)?;
        arguments.draw("response", &figures.table(), &figures.charts())?;
        outcome.take("response", started, &figures, figures.lines())?;
    }
    Ok(outcome)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = StageBar::default();
    let outcome = run(&arguments, &progress);
    progress.clear();
    match outcome {
        Ok(outcome) if arguments.json => println!("{}", outcome.report),
        Ok(outcome) => outcome.lines.iter().for_each(|line| println!("{line}")),
        Err(error) => {
            eprintln!("tiller-evaluate: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
