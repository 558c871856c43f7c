//! Writes labelled music, or single labelled notes, rendered from a SoundFont. Worker threads only.

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use tiller_engine::dataset::DatasetError;
use tiller_engine::dataset::files::{write_music, write_notes};
use tiller_engine::dataset::notes::{NOTE_PROGRAMS, NoteClip};
use tiller_engine::dataset::render::DEFAULT_SOUNDFONT;

/// Labelled music from seeds: DIR/audio.i16 (mono, 32 kHz, little endian), DIR/clips.jsonl and DIR/meta.json.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    kind: Option<Kind>,
    /// Folder to write.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    /// Number of clips.
    #[arg(long, default_value_t = 64)]
    clips: u64,
    /// Seed of the data set.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of a clip in seconds.
    #[arg(long, default_value_t = 16.0)]
    seconds: f64,
    /// SoundFont to play.
    #[arg(long, global = true, default_value = DEFAULT_SOUNDFONT)]
    soundfont: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Kind {
    /// Single notes for learning directions, SynTheory style: 12 pitch classes x 5 octaves x 20 instruments, 4 s each.
    Notes,
}

fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} clips, {eta} left");
    ProgressBar::new(length)
        .with_message("rendering")
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn run(arguments: &Arguments) -> Result<u64, DatasetError> {
    let out = arguments.out.as_ref().ok_or_else(|| DatasetError::Request("--out DIR is missing".into()))?;
    if !(0.5..=600.0).contains(&arguments.seconds) {
        return Err(DatasetError::Request(format!("--seconds {} is outside 0.5 to 600", arguments.seconds)));
    }
    let font = &arguments.soundfont;
    match arguments.kind {
        None => {
            let bar = bar(arguments.clips);
            write_music(out, font, arguments.seed, arguments.clips, arguments.seconds, |done| bar.set_position(done))
        }
        Some(Kind::Notes) => {
            let notes = NoteClip::all(&NOTE_PROGRAMS);
            let bar = bar(notes.len() as u64);
            write_notes(out, font, &notes, |done| bar.set_position(done))
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(clips) => {
            if arguments.json {
                println!("{}", serde_json::json!({ "clips": clips, "folder": arguments.out }));
            } else {
                println!("{clips} clips written");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tiller-dataset: {error}");
            ExitCode::FAILURE
        }
    }
}
