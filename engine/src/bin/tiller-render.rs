//! Renders a prompt and a list of timed moves to a WAV file, through the same runner as the plugin.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tiller_engine::control::{ControlFrame, PitchClass};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::link::CHANNELS;
use tiller_engine::render::{Move, render};

/// Renders a prompt and a list of timed lane moves to a WAV file.
#[derive(Parser)]
struct Arguments {
    /// A MusicGen directory; without it the embedded demo checkpoint plays.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// What to play.
    #[arg(long, default_value = "")]
    prompt: String,
    /// Length in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seed of the randomness, 0 to 9999.
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// A move, as "SECONDS:KEY=VALUE,...", keys note, note_strength, strength, temperature, guidance, top_k, seed, gain
    /// (linear), bypass. Values hold until the next move that names them. May be given many times, in order of time.
    #[arg(long = "move")]
    moves: Vec<String>,
    /// Play window in positions, shorter than the checkpoint's own.
    #[arg(long)]
    window: Option<usize>,
    /// The WAV file to write (32-bit float, stereo).
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn apply(control: &mut ControlFrame, assignment: &str) -> Result<(), String> {
    let (key, value) = assignment.split_once('=').ok_or_else(|| format!("`{assignment}` is not KEY=VALUE"))?;
    let number = || value.parse::<f32>().map_err(|_| format!("`{value}` is no number for {key}"));
    match key {
        "note" => {
            control.lanes.note = match PitchClass::NAMES.iter().position(|name| name.eq_ignore_ascii_case(value)) {
                Some(index) => PitchClass::new(index as u8),
                None if value.eq_ignore_ascii_case("off") => None,
                None => return Err(format!("`{value}` is no note: off, C, C#, ... B")),
            }
        }
        "note_strength" => control.lanes.note_strength = number()?,
        "strength" => control.lanes.strength = number()?,
        "temperature" => control.temperature = number()?,
        "guidance" => control.guidance = number()?,
        "top_k" => control.top_k = number()? as u32,
        "seed" => control.seed = number()? as u32,
        "gain" => control.gain = number()?,
        "bypass" => control.bypass = number()? != 0.0,
        _ => return Err(format!("unknown key `{key}`")),
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let handle = Handle::new();
    handle.set_window(arguments.window);
    handle.set_model(arguments.checkpoint.map_or(ModelSource::Embedded, ModelSource::Directory));
    handle.set_prompt(&arguments.prompt);

    let mut control = ControlFrame::new(1, 0);
    control.prompt = handle.prompt_generation();
    control.seed = arguments.seed;
    control.lanes.strength = 1.0;
    let mut moves = vec![Move { seconds: 0.0, control }];
    for text in &arguments.moves {
        let (seconds, assignments) =
            text.split_once(':').ok_or_else(|| format!("`{text}` is not SECONDS:KEY=VALUE,..."))?;
        let seconds: f64 = seconds.parse().map_err(|_| format!("`{seconds}` is no time in seconds"))?;
        for assignment in assignments.split(',') {
            apply(&mut control, assignment)?;
        }
        moves.push(Move { seconds, control });
    }

    let format = handle.format();
    let frame_seconds = format.frame_samples as f64 / f64::from(format.model_rate);
    let frames = (arguments.seconds / frame_seconds).ceil().max(1.0) as u32;
    let bar = ProgressBar::new(u64::from(frames))
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {eta} left")?);
    let audio = render(&handle, frames, &moves, &mut |done| bar.set_position(u64::from(done)))?;
    bar.finish_and_clear();

    let spec = hound::WavSpec {
        channels: CHANNELS as u16,
        sample_rate: format.model_rate,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    // Beside, then renamed: a render that breaks off never destroys the file that was there.
    let beside = arguments.out.with_extension("part");
    let mut writer = hound::WavWriter::create(&beside, spec)?;
    for sample in &audio {
        writer.write_sample(*sample)?;
    }
    writer.finalize()?;
    std::fs::rename(&beside, &arguments.out)?;

    let seconds = f64::from(frames) * frame_seconds;
    let wall = started.elapsed().as_secs_f64();
    let rms = (audio.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / audio.len() as f64).sqrt();
    let peak = audio.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    if arguments.json {
        let report = serde_json::json!({
            "out": arguments.out, "seconds": seconds, "wall_seconds": wall, "rms": rms, "peak": peak,
            "model": handle.status().model, "notice": handle.status().notice,
        });
        println!("{report}");
    } else {
        println!("{}: {seconds:.2} s in {wall:.2} s, RMS {rms:.3}, peak {peak:.3}", arguments.out.display());
    }
    Ok(())
}
