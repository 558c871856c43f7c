//! Tiller as an application: the same instrument and the same window as in a host, with audio and MIDI devices of its own.

mod audio;
mod control;
mod host;
mod midi;
mod player;
mod session;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use nice_plug::context::gui::{AsyncExecutor, GuiContext};
use nice_plug::editor::{Editor, EditorHandle};
use nice_plug::prelude::Plugin;
use serde_json::json;
use tiller::Tiller;
use tiller::editor::TillerEditor;
use tiller::editor::devices::{Chosen, Devices, Midi, Output};
use tiller_engine::status::State;

use crate::control::Control;

/// Plays a MusicGen model live and lets you steer it. Devices are chosen in the window.
#[derive(Parser)]
#[command(version, name = "tiller")]
struct Arguments {
    /// No window: plays for --seconds and says how it went. Nothing is remembered.
    #[arg(long, requires = "seconds")]
    headless: bool,
    /// How long to play without a window.
    #[arg(long)]
    seconds: Option<f64>,
    /// Audio output for this run: `none`, or a device's name.
    #[arg(long)]
    output: Option<String>,
    /// Print the report of --headless as one JSON object.
    #[arg(long)]
    json: bool,
}

/// How long a model may take to load before a run without a window gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let mut plugin = Box::new(Tiller::default());
    let params = plugin.params();
    let file = settings::file();
    let mut chosen =
        if arguments.headless { Chosen { midi: Midi::None, ..Chosen::default() } } else { settings::chosen(&file) };
    match arguments.output.as_deref() {
        Some("none") => chosen.output = Output::None,
        Some(name) => chosen.output = Output::Device(name.to_owned()),
        None => {}
    }
    if let Some(seconds) = arguments.seconds.filter(|_| arguments.headless) {
        return headless(plugin, chosen, seconds, arguments.json);
    }
    if let Some(state) = settings::session(&file) {
        session::restore(&*params, &state);
    }
    let executor = AsyncExecutor::new(Arc::new(drop), Arc::new(drop));
    let editor = plugin.editor(executor).ok_or("the instrument has no window")?;
    let control = Arc::new(Control::start(plugin, chosen, arguments.output.is_none())?);
    let shown =
        show(editor.with_devices(control.clone()), GuiContext::new(Arc::new(host::Window::new(params.clone()))));
    let saved = settings::remember_session(&file, &session::state_of(&*params));
    control.stop();
    shown?;
    saved.map_err(|error| format!("the settings were not saved: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the window until it is closed.
fn show(editor: TillerEditor, context: GuiContext) -> Result<(), String> {
    let spawned = editor.spawn(None, false, None, context, None);
    let spawned = spawned.map_err(|error| format!("no window can be opened: {error}"))?;
    // The handle says that the window is open as long as it lives.
    let _handle = spawned.handle;
    <TillerEditor as Editor>::Handle::run_until_closed(spawned.window).map_err(|error| error.to_string())
}

/// Plays without a window.
fn headless(plugin: Box<Tiller>, chosen: Chosen, seconds: f64, as_json: bool) -> Result<ExitCode, String> {
    let instance = plugin.instance();
    instance.meters.play.store(true, Ordering::Relaxed);
    let control = Control::start(plugin, chosen, false)?;
    let started = Instant::now();
    while instance.handle.status().state != State::Ready {
        if let State::Failed(why) = instance.handle.status().state {
            return Err(why);
        }
        if started.elapsed() > PATIENCE {
            return Err("the model was not ready within a minute".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)));
    let (line, late) = (control.line(), instance.meters.late_frames() + instance.meters.skipped_frames());
    control.stop();
    let (played, rate) = (control.played(), instance.sample_rate());
    let report = json!({
        "output": line.text, "seconds": played.samples() as f64 / f64::from(rate), "peak": played.peak(), "late_frames": late,
    });
    if as_json {
        println!("{report}");
    } else {
        println!(
            "{:.1} s played to {} peak {:.2}, {late} frames late",
            report["seconds"].as_f64().unwrap_or(0.0),
            line.text,
            played.peak()
        );
    }
    Ok(if line.tone == tiller::status_line::Tone::Bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
