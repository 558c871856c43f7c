//! Writes labelled music as audio, as codes or as words alone, or single labelled notes, rendered from a SoundFont.
//! Worker threads only.

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tiller_engine::checkpoint::CheckpointSource;
use tiller_engine::dataset::DatasetError;
use tiller_engine::dataset::codes::{CodesRequest, PART, Progress, TrainingCodec, write_codes};
use tiller_engine::dataset::concepts::Concept;
use tiller_engine::dataset::files::{write_concept, write_labels, write_music};
use tiller_engine::dataset::music::Keys;
use tiller_engine::dataset::render::DEFAULT_SOUNDFONT;
use tiller_engine::embedded;

/// Labelled music from seeds: DIR/audio.i16 (mono, 32 kHz, little endian), DIR/clips.jsonl and DIR/meta.json; with
/// --codes parts of codes-FIRST.npy (u16, [clips, codebooks, frames]) and clips-FIRST.jsonl, and no audio.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    kind: Option<Kind>,
    /// Folder to write.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    /// Number of clips.
    #[arg(long, global = true, default_value_t = 64)]
    clips: u64,
    /// Seed of the data set.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Length of a clip in seconds.
    #[arg(long, global = true, default_value_t = 16.0)]
    seconds: f64,
    /// SoundFont to play.
    #[arg(long, global = true, default_value = DEFAULT_SOUNDFONT)]
    soundfont: PathBuf,
    /// Write codes of this checkpoint's codec (a MusicGen directory, or "demo"); parts that are there are kept.
    #[arg(long, value_name = "CHECKPOINT")]
    codes: Option<PathBuf>,
    /// Twelve clips in a row are one piece under one prompt on the twelve tonics.
    #[arg(long)]
    every_key: bool,
    /// With --codes: index of the first clip, a multiple of 256.
    #[arg(long, default_value_t = 0, requires = "codes")]
    first: u64,
    /// Print one JSON object on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Kind {
    /// Labelled clips of one concept, SynTheory style, 4 s each: what directions are learned from.
    Concept {
        /// Which: notes, chords, intervals, scales, tempo or time-signatures.
        name: Concept,
    },
    /// Prompts and labels alone, DIR/labels.jsonl, no sound: what a text encoder learns its words from.
    Labels,
}

fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} clips, {per_sec}, {eta} left");
    ProgressBar::new(length)
        .with_message("rendering")
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Encodes with a bar, or with a line per part when nobody watches a terminal.
fn encode(request: &CodesRequest, checkpoint: &Path) -> Result<u64, DatasetError> {
    let source = match checkpoint.to_str() {
        Some("demo") => CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES },
        _ => CheckpointSource::directory(checkpoint),
    };
    let codec = TrainingCodec::load(&source)?;
    let (bar, began) = (bar(request.clips).with_message("encoding"), Instant::now());
    let encoded = std::sync::atomic::AtomicU64::new(0);
    write_codes(request, &codec, |event| match event {
        Progress::Kept(clips) => {
            bar.inc(clips);
            bar.reset_eta();
        }
        Progress::Encoded => {
            bar.inc(1);
            let done = encoded.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            if bar.is_hidden() && done.is_multiple_of(PART) {
                let rate = done as f64 / began.elapsed().as_secs_f64();
                let left = request.clips.saturating_sub(bar.position()) as f64 / rate / 60.0;
                eprintln!("{}/{} clips, {rate:.2} a second, {left:.0} min left", bar.position(), request.clips);
            }
        }
    })
}

fn run(arguments: &Arguments) -> Result<u64, DatasetError> {
    let out = arguments.out.as_ref().ok_or_else(|| DatasetError::Request("--out DIR is missing".into()))?;
    if !(0.5..=600.0).contains(&arguments.seconds) {
        return Err(DatasetError::Request(format!("--seconds {} is outside 0.5 to 600", arguments.seconds)));
    }
    let font = &arguments.soundfont;
    let keys = if arguments.every_key { Keys::Each } else { Keys::Spread };
    match (&arguments.kind, &arguments.codes) {
        (Some(_), Some(_)) => Err(DatasetError::Request("--codes encodes music: leave concept and labels out".into())),
        (None, Some(checkpoint)) => {
            let request = CodesRequest {
                folder: out.clone(),
                soundfont: font.clone(),
                seed: arguments.seed,
                keys,
                first: arguments.first,
                clips: arguments.clips,
                seconds: arguments.seconds,
            };
            encode(&request, checkpoint)
        }
        (None, None) => {
            let bar = bar(arguments.clips);
            let seed = (arguments.seed, keys);
            write_music(out, font, seed, arguments.clips, arguments.seconds, |done| bar.set_position(done))
        }
        (Some(Kind::Concept { name }), None) => {
            let bar = bar(0);
            write_concept(out, font, *name, |done, all| {
                bar.set_length(all);
                bar.set_position(done);
            })
        }
        (Some(Kind::Labels), None) => write_labels(out, arguments.seed, arguments.clips, arguments.seconds),
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
