//! Measures how well a checkpoint is steered, by ear alone. Worker threads only.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use tiller_engine::evaluation::dominance::{DominanceError, Point, Protocol, sweep};
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;

/// Note dominance against strength: generates pieces for all twelve notes and listens to them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A MusicGen directory; without it the embedded demo checkpoint.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Values of `note_strength`; 0 is always measured.
    #[arg(long, value_delimiter = ',', default_value = "0.25,0.5,1", allow_hyphen_values = true)]
    strengths: Vec<f32>,
    /// Prompts, taken in turn. May be given many times.
    #[arg(long = "prompt", default_values_t = ["slow warm strings pad", "piano arpeggio, medium", "fast guitar chords", "slow flute melody"].map(String::from))]
    prompts: Vec<String>,
    /// Pieces for each note and strength.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Length of a piece in seconds.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// When steering is switched on, in seconds; only what comes after it is heard.
    #[arg(long, default_value_t = 0.0)]
    onset: f64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed_base: u32,
    /// Guidance scale.
    #[arg(long, default_value_t = 3.0)]
    guidance: f32,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn run(arguments: &Arguments, strengths: &[f32]) -> Result<Vec<Point>, DominanceError> {
    let source = arguments.checkpoint.clone().map_or(ModelSource::Embedded, ModelSource::Directory);
    let model = Model::load(&source, &|_| ())?;
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} pieces, {eta} left");
    let bar =
        ProgressBar::new(0).with_message("playing").with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let protocol = Protocol {
        prompts: &arguments.prompts,
        strengths,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        onset: arguments.onset,
        seed_base: arguments.seed_base,
        guidance: arguments.guidance,
    };
    let points = sweep(&model, &protocol, &|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    points
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut strengths = arguments.strengths.clone();
    strengths.retain(|strength| *strength != 0.0);
    strengths.insert(0, 0.0);
    let points = match run(&arguments, &strengths) {
        Ok(points) => points,
        Err(error) => {
            eprintln!("tiller-evaluate: {error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.json {
        let last = &points[points.len() - 1];
        let notes = serde_json::json!({
            "dominance": last.dominance, "dominance_unsteered": points[0].dominance, "by_strength": points,
        });
        println!("{}", serde_json::json!({ "notes": notes, "pitch_free": { "max_share": points[0].max_pitch_share } }));
        return ExitCode::SUCCESS;
    }
    for point in &points {
        let targets: Vec<String> = point.by_target.iter().map(|share| format!("{:3.0}", 100.0 * share)).collect();
        println!(
            "strength {:5.2}: on target {:3.0} %  [{}]  silent {:2.0} %  RMS {:.3}  commonest pitch class {:2.0} %",
            point.strength,
            100.0 * point.dominance,
            targets.join(""),
            100.0 * point.silence_share,
            point.rms,
            100.0 * point.max_pitch_share
        );
    }
    ExitCode::SUCCESS
}
