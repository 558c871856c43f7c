//! Renders a prompt and a list of timed moves to a sound file, through the same runner as the plugin; or all clips of a
//! list, with a sheet of their spectrograms.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tiller_engine::backend::Device;
use tiller_engine::control::{Chord, ControlFrame, PitchClass, Quality, TRAITS};
use tiller_engine::evaluation::spectrogram::{self, Strip};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::link::CHANNELS;
use tiller_engine::precision::Precision;
use tiller_engine::render::{Move, render};
use tiller_engine::sound_file::Sound;
use tiller_engine::steering::trait_files::{TraitReference, TraitState};

/// Renders a prompt and a list of timed lane moves to a sound file.
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
    /// A move, as "SECONDS:KEY=VALUE,...", keys note, note_strength, chord ("A minor" or off), chord_strength,
    /// tempo_strength, trait_1_strength to trait_4_strength, attack, release (seconds), guard (0 or 1), strength, temperature, guidance, top_k, seed, gain
    /// (linear), bypass. Values hold until the next move that names them. May be given many times, in order of time.
    #[arg(long = "move")]
    moves: Vec<String>,
    /// The directions file of a trait lane (tiller-learn --from writes them); the first is trait 1. Up to four times.
    #[arg(long = "trait", value_name = "FILE")]
    traits: Vec<PathBuf>,
    /// How exactly the decoder's weights are kept: f32, bf16, int8 or int4; without it what suits the checkpoint's size.
    #[arg(long)]
    precision: Option<Precision>,
    /// Where it plays: auto, cpu, or gpu and the card's number.
    #[arg(long, default_value_t = Device::Auto)]
    device: Device,
    /// Play window in positions, shorter than the checkpoint's own.
    #[arg(long)]
    window: Option<usize>,
    /// The file to write: .wav (32-bit float) or .flac (16 bit), stereo.
    #[arg(long, required_unless_present = "clips")]
    out: Option<PathBuf>,
    /// A list of clips (see assets/clips/clips.json): renders every one beside the list, and spectrograms.png.
    #[arg(long, conflicts_with_all = ["out", "prompt", "seconds", "seed", "moves"])]
    clips: Option<PathBuf>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn pitch_class(text: &str) -> Result<PitchClass, String> {
    let index = PitchClass::NAMES.iter().position(|name| name.eq_ignore_ascii_case(text));
    let note = index.and_then(|index| PitchClass::new(index as u8));
    note.ok_or_else(|| format!("`{text}` is no note: off, C, C#, ... B"))
}

fn chord(text: &str) -> Result<Chord, String> {
    let (root, name) = text.split_once([' ', '-']).unwrap_or((text, "major"));
    let quality = Quality::ALL.into_iter().find(|quality| quality.name().eq_ignore_ascii_case(name));
    let quality = quality.ok_or_else(|| format!("`{name}` is no quality: major, minor, augmented, diminished"))?;
    Ok(Chord { root: pitch_class(root)?, quality })
}

fn apply(control: &mut ControlFrame, assignment: &str) -> Result<(), String> {
    let (key, value) = assignment.split_once('=').ok_or_else(|| format!("`{assignment}` is not KEY=VALUE"))?;
    let number = || value.parse::<f32>().map_err(|_| format!("`{value}` is no number for {key}"));
    match key {
        "note" if value.eq_ignore_ascii_case("off") => control.lanes.note = None,
        "note" => control.lanes.note = Some(pitch_class(value)?),
        "note_strength" => control.lanes.note_strength = number()?,
        "chord" if value.eq_ignore_ascii_case("off") => control.lanes.chord = None,
        "chord" => control.lanes.chord = Some(chord(value)?),
        "chord_strength" => control.lanes.chord_strength = number()?,
        "tempo_strength" => control.lanes.tempo_strength = number()?,
        "trait_1_strength" => control.lanes.traits[0] = number()?,
        "trait_2_strength" => control.lanes.traits[1] = number()?,
        "trait_3_strength" => control.lanes.traits[2] = number()?,
        "trait_4_strength" => control.lanes.traits[3] = number()?,
        "guard" => control.lanes.guard = number()? != 0.0,
        "attack" => control.lanes.attack = number()?,
        "release" => control.lanes.release = number()?,
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

/// What a list of clips holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clips {
    /// Title of the sheet.
    title: String,
    /// Length of each clip.
    seconds: f64,
    clips: Vec<Clip>,
}

/// One clip of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clip {
    /// Its file, beside the list.
    file: PathBuf,
    prompt: String,
    seed: u32,
    #[serde(default)]
    moves: Vec<String>,
}

/// What a piece came to.
struct Rendered {
    sound: Sound,
    seconds: f64,
    model: serde_json::Value,
}

/// Plays one piece from its anchor on, with progress.
fn play(arguments: &Arguments, clip: &Clip, seconds: f64) -> Result<Rendered, Box<dyn Error>> {
    let handle = Handle::new();
    handle.set_window(arguments.window);
    handle.set_precision(arguments.precision);
    handle.set_device(arguments.device);
    handle.set_model(arguments.checkpoint.clone().map_or(ModelSource::Embedded, ModelSource::Directory));
    handle.set_prompt(&clip.prompt);
    for (slot, path) in arguments.traits.iter().enumerate() {
        handle.set_trait(slot, Some(TraitReference { path: path.clone(), ..TraitReference::default() }));
    }

    let mut control = ControlFrame::new(1, 0);
    (control.prompt, control.directions) = (handle.prompt_generation(), handle.directions_generation());
    control.seed = clip.seed;
    control.lanes.strength = 1.0;
    let mut moves = vec![Move { seconds: 0.0, control }];
    for text in &clip.moves {
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
    let frames = (seconds / frame_seconds).ceil().max(1.0) as u32;
    let bar = ProgressBar::new(u64::from(frames))
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {eta} left")?);
    let samples = render(&handle, frames, &moves, &mut |done| bar.set_position(u64::from(done)))?;
    bar.finish_and_clear();
    for state in handle.status().traits {
        if let TraitState::Refused(why) = state {
            return Err(why.into());
        }
    }
    Ok(Rendered {
        sound: Sound { samples, channels: CHANNELS as u16, rate: format.model_rate },
        seconds: f64::from(frames) * frame_seconds,
        model: serde_json::json!({ "model": handle.status().model, "device": handle.status().device, "notice": handle.status().notice }),
    })
}

/// Renders, writes and describes one piece.
fn one(
    arguments: &Arguments,
    clip: &Clip,
    seconds: f64,
    out: &Path,
) -> Result<(Sound, serde_json::Value), Box<dyn Error>> {
    let started = Instant::now();
    let Rendered { sound, seconds, model } = play(arguments, clip, seconds)?;
    sound.write(out)?;
    let wall = started.elapsed().as_secs_f64();
    let rms = (sound.samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / sound.samples.len() as f64).sqrt();
    let peak = sound.samples.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    if !arguments.json {
        println!("{}: {seconds:.2} s in {wall:.2} s, RMS {rms:.3}, peak {peak:.3}", out.display());
    }
    let mut report = serde_json::json!({
        "out": out, "prompt": clip.prompt, "seed": clip.seed, "seconds": seconds, "wall_seconds": wall, "rms": rms, "peak": peak,
    });
    if let (Some(report), serde_json::Value::Object(model)) = (report.as_object_mut(), model) {
        report.extend(model);
    }
    Ok((sound, report))
}

/// Renders a list of clips beside it, and the sheet of their spectrograms as they can be read from the files.
fn list(arguments: &Arguments, path: &Path) -> Result<serde_json::Value, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let clips: Clips = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let (mut reports, mut strips) = (Vec::new(), Vec::new());
    for clip in &clips.clips {
        let out = path.with_file_name(&clip.file);
        let (sound, report) = one(arguments, clip, clips.seconds, &out)?;
        reports.push(report);
        strips.push((
            format!("\u{201c}{}\u{201d}, seed {}", clip.prompt, clip.seed),
            sound.mono(),
            f64::from(sound.rate),
        ));
    }
    let sheet = path.with_file_name("spectrograms.png");
    let strips: Vec<Strip> = strips.iter().map(|(title, mono, rate)| Strip { title, mono, rate: *rate }).collect();
    spectrogram::draw(&sheet, &clips.title, &strips)?;
    if !arguments.json {
        println!("{}: {} spectrograms", sheet.display(), strips.len());
    }
    Ok(serde_json::json!({ "clips": reports, "sheet": sheet }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.traits.len() > TRAITS {
        return Err(format!("--trait can be given {TRAITS} times").into());
    }
    let report = match (&arguments.clips, &arguments.out) {
        (Some(path), _) => list(&arguments, path)?,
        (None, Some(out)) => {
            let clip = Clip {
                file: out.clone(),
                prompt: arguments.prompt.clone(),
                seed: arguments.seed,
                moves: arguments.moves.clone(),
            };
            one(&arguments, &clip, arguments.seconds, out)?.1
        }
        (None, None) => return Err("--out or --clips says what to write".into()),
    };
    if arguments.json {
        println!("{report}");
    }
    Ok(())
}
