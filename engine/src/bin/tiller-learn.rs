//! Learns directions for a checkpoint and writes them beside it. Worker threads only.

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tiller_engine::checkpoint::CheckpointSource;
use tiller_engine::dataset::notes::NOTE_PROGRAMS;
use tiller_engine::dataset::render::DEFAULT_SOUNDFONT;
use tiller_engine::handle::ModelSource;
use tiller_engine::learn::calibration::calibrate;
use tiller_engine::learn::listener::Listener;
use tiller_engine::learn::notes::{self, Learned, Request};
use tiller_engine::model::{Model, NOTES_FILE};

/// Learns steering directions for a MusicGen checkpoint.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The checkpoint: a Hugging Face MusicGen directory.
    #[arg(long)]
    checkpoint: PathBuf,
    /// What to learn.
    #[arg(long, value_enum, default_value_t = Concepts::Notes)]
    concepts: Concepts,
    /// How to learn it.
    #[arg(long, value_enum, default_value_t = Method::Mean)]
    method: Method,
    /// The file to write; without it, where the plugin looks for it: in the checkpoint's directory.
    #[arg(long)]
    out: Option<PathBuf>,
    /// SoundFont that the notes are rendered from.
    #[arg(long, default_value = DEFAULT_SOUNDFONT)]
    soundfont: PathBuf,
    /// Instruments to learn from: fewer are faster and less sure.
    #[arg(long, default_value_t = NOTE_PROGRAMS.len(), value_parser = instruments)]
    instruments: usize,
    /// What strength 1 injects, as a fraction of each block's mean norm; without it, calibrated by playing.
    #[arg(long)]
    full_dose: Option<f32>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Concepts {
    /// The twelve pitch classes.
    Notes,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    /// Difference of class means.
    Mean,
}

fn instruments(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (2..=NOTE_PROGRAMS.len()).contains(&count) => Ok(count),
        _ => Err(format!("expected 2 to {}", NOTE_PROGRAMS.len())),
    }
}

fn run(arguments: &Arguments, out: &Path) -> Result<Learned, Box<dyn Error>> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let loading = ProgressBar::new(100).with_message("loading (%)").with_style(style.clone());
    let source = CheckpointSource::directory(&arguments.checkpoint);
    let listener = Listener::load(&source, &|share| loading.set_position((share * 100.0) as u64))?;
    loading.finish_and_clear();

    let mut request = Request::new(&arguments.soundfont);
    request.full_dose = arguments.full_dose.unwrap_or(1.0);
    // Spread over the families of instruments rather than the first few.
    let spread = |i: usize| NOTE_PROGRAMS[i * NOTE_PROGRAMS.len() / arguments.instruments];
    let programs: Vec<u8> = (0..arguments.instruments).map(spread).collect();
    request.programs = &programs;

    let listening = ProgressBar::new(0).with_message("listening to notes").with_style(style.clone());
    let mut learned = match (arguments.concepts, arguments.method) {
        (Concepts::Notes, Method::Mean) => notes::learn(&listener, &request, &|done, all| {
            listening.set_length(all as u64);
            listening.set_position(done as u64);
        })?,
    };
    listening.finish_and_clear();
    learned.directions.write(out)?;
    if arguments.full_dose.is_none() {
        let playing = ProgressBar::new(0).with_message("finding the full dose").with_style(style);
        let model = Model::load(&ModelSource::Directory(arguments.checkpoint.clone()), &|_| ())?;
        calibrate(&model, &mut learned.directions, &|done, all| {
            playing.set_length(all as u64);
            playing.set_position(done as u64);
        })?;
        playing.finish_and_clear();
        learned.directions.write(out)?;
    }
    Ok(learned)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.full_dose.is_some_and(|dose| dose.is_nan() || dose <= 0.0 || dose > 2.0) {
        eprintln!("tiller-learn: --full-dose must be above 0 and at most 2");
        return ExitCode::FAILURE;
    }
    if arguments.full_dose.is_none() && arguments.out.is_some() {
        eprintln!(
            "tiller-learn: calibration plays what lies in the checkpoint's directory: give --full-dose with --out"
        );
        return ExitCode::FAILURE;
    }
    let out = arguments.out.clone().unwrap_or_else(|| arguments.checkpoint.join(NOTES_FILE));
    let learned = match run(&arguments, &out) {
        Ok(learned) => learned,
        Err(error) => {
            eprintln!("tiller-learn: {error}");
            return ExitCode::FAILURE;
        }
    };
    let directions = &learned.directions;
    if arguments.json {
        let report = serde_json::json!({
            "file": out,
            "checkpoint": directions.checkpoint_name,
            "checkpoint_sha256": directions.checkpoint_hash,
            "concept": directions.concept,
            "method": directions.method,
            "clips": learned.clips,
            "accuracy_by_block": learned.accuracy,
            "block_norms": directions.block_norms,
            "full_dose": directions.full_dose,
        });
        println!("{report}");
    } else {
        let percent = |accuracy: &f32| format!("{:.0}", 100.0 * accuracy);
        let blocks: Vec<String> = learned.accuracy.iter().map(percent).collect();
        println!("{} notes heard, {} written", learned.clips, out.display());
        println!("notes named right by block, instrument left out, in % (chance 8): {}", blocks.join(" "));
        println!("strength 1 injects {} of each block's mean norm", directions.full_dose);
    }
    ExitCode::SUCCESS
}
