//! `cargo xtask soak editor`: the editor opened and closed a thousand times while the plugin plays and while models load.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Opens and closes the editor of the built CLAP bundle in a window on `DISPLAY`, half of the times while the plugin plays and
/// half while a model loads, for times between nothing and 30 ms, every fiftieth time for half a second.
///
/// Exit code 1 when it does not open, a thread or a window is left, the sound has a gap or a sample that is none, or memory
/// grows by more than 32 MiB from the hundredth time on.
#[derive(Parser)]
struct Options {
    /// The .clap to play.
    #[arg(long)]
    bundle: PathBuf,
    /// How often.
    #[arg(long, default_value_t = 1_000)]
    times: u32,
    /// A checkpoint that is loaded over and over.
    #[arg(long)]
    checkpoint: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    let options = Options::parse();
    eprintln!("error: {} can be opened {} times under X11 only", options.bundle.display(), options.times);
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let options = Options::parse();
    let told = storm::run(&options).map(|report| {
        eprintln!("{report}");
        (serde_json::json!({ "ok": true, "times": options.times, "report": report }), true)
    });
    tiller_tests::verdict::conclude(told, options.json)
}

#[cfg(target_os = "linux")]
mod storm {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use serde_json::json;
    use tiller_tests::editor::Screen;
    use tiller_tests::host::{Host, Outcome};
    use tiller_tests::measure;
    use tiller_tests::memory::{allocated, give_back, resident};
    use tiller_tests::player::Player;
    use tiller_tests::project::Project;
    use tiller_tests::random::Random;
    use tiller_tests::score::Score;

    use super::Options;

    const RATE: f64 = 48_000.0;
    const BLOCK: usize = 512;
    /// The window's own first times take memory for good: fonts, shaders, what the driver keeps.
    const SETTLED: u32 = 100;
    const MOST_GROWTH: u64 = 32 << 20;

    pub fn run(options: &Options) -> Outcome<String> {
        let screen = Screen::open()?;
        let mut host = Host::load(&options.bundle)?;
        let plain = host.save()?;
        let mut random = Random(1);
        let began = Instant::now();
        let half = options.times / 2;
        let mut settled = None;
        let mut each = |host: &mut Host, time: u32| -> Outcome<()> {
            let stay = if time.is_multiple_of(50) { 500_000 } else { random.below(30_000) as u64 };
            host.open_editor(&screen, Duration::from_micros(stay))?;
            if time == SETTLED.min(options.times / 2) {
                give_back();
                settled = resident().zip(allocated());
            }
            Ok(())
        };
        // While it plays, paced by the wall clock.
        let player = host.activate(RATE, BLOCK as u32)?;
        let stop = AtomicBool::new(false);
        let (player, heard) = std::thread::scope(|scope| -> Outcome<(Player, Vec<f32>)> {
            let audio = scope.spawn(|| play(player, &stop));
            let opened = (0..half).try_for_each(|time| each(&mut host, time));
            stop.store(true, Ordering::Relaxed);
            let played = audio.join().map_err(|_| "the audio thread panicked".to_owned())?;
            opened?;
            played
        })?;
        host.deactivate(player);
        let gaps = measure::gaps(&heard, RATE).len();
        if measure::rms(&heard) < 0.001 {
            return Err("it was silent while the editor was opened".to_owned());
        }
        // While models load, active and not.
        let mut project = Project::open(&plain)?;
        project.document["model"] = json!({ "name": "loading", "path": options.checkpoint });
        let other = project.close()?;
        for time in half..options.times {
            host.restore(if time % 2 == 0 { &other } else { &plain })?;
            let player = if time % 3 == 0 { Some(host.activate(RATE, BLOCK as u32)?) } else { None };
            each(&mut host, time)?;
            if let Some(player) = player {
                host.deactivate(player);
            }
        }
        give_back();
        let last = resident().zip(allocated());
        drop(host);
        std::thread::sleep(Duration::from_millis(200));
        let children = screen.children()?;
        if children != 0 {
            return Err(format!("{children} windows are left"));
        }
        let threads = threads();
        if !threads.is_empty() {
            return Err(format!("threads are left: {threads:?}"));
        }
        let grown =
            settled.zip(last).map(|(settled, last)| [settled.0.abs_diff(last.0), last.1.saturating_sub(settled.1)]);
        if let Some([_, allocated]) = grown.filter(|grown| grown[1] > MOST_GROWTH) {
            return Err(format!("{allocated} bytes more are allocated than after {SETTLED} times"));
        }
        Ok(format!(
            "{} times in {:.0} s; {} s of sound meanwhile with {gaps} gaps; resident and allocated memory moved by {:?} MiB",
            options.times,
            began.elapsed().as_secs_f64(),
            heard.len() / RATE as usize,
            grown.map(|grown| grown.map(|bytes| bytes >> 20))
        ))
    }

    fn play(mut player: Player, stop: &AtomicBool) -> Outcome<(Player, Vec<f32>)> {
        let score = Score::playing();
        let (began, mut at, mut heard) = (Instant::now(), 0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let due = began + Duration::from_secs_f64(at as f64 / RATE);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            player.block(&score, at, BLOCK)?;
            heard.extend_from_slice(player.output(BLOCK).0);
            at += BLOCK as u64;
        }
        Ok((player, heard))
    }

    fn threads() -> Vec<String> {
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        let names = tasks.flatten().filter_map(name).map(|name| name.trim_end().to_owned());
        // This program's own name is cut to 15 letters.
        names.filter(|name| name.starts_with("tiller-") && !name.starts_with("tiller-soak")).collect()
    }
}
