//! `cargo xtask soak host`: an hour of steered play through the built bundle, at a multiple of real time.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tiller_tests::host::Outcome;
use tiller_tests::soak::hosted::{Heard, Plan, soak};
use tiller_tests::verdict::conclude;

/// Plays the built CLAP bundle in a host under random automation, keys and prompts, at the safe latency and with `late` at
/// fade, so that nothing is ever waited for: a frame that is late at this pace is heard as a gap.
///
/// Exit code 1 when: there is a gap; a sample is unwritten, no number, subnormal or above full scale; more than 4 MiB more are
/// allocated at the end; loudness drifts by 4 dB; a minute is below -50 dB.
#[derive(Parser)]
struct Options {
    /// The .clap to play.
    #[arg(long)]
    bundle: PathBuf,
    /// Minutes of music, at least 4.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(4..))]
    minutes: u32,
    /// Times real time.
    #[arg(long, default_value_t = 4.0)]
    speed: f64,
    /// Samples of a block.
    #[arg(long, default_value_t = 256)]
    block: usize,
    /// Of the automation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    conclude(run(&options), options.json)
}

fn run(options: &Options) -> Outcome<(Value, bool)> {
    let bar = ProgressBar::new(u64::from(options.minutes) * 60);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} s of music, {eta} left") {
        bar.set_style(style);
    }
    let plan = Plan { minutes: options.minutes, speed: Some(options.speed), block: options.block, seed: options.seed };
    let heard = soak(&options.bundle, plan, &|seconds| bar.set_position(seconds as u64))?;
    bar.finish_and_clear();
    let broken = heard.broken();
    say(&heard, options);
    broken.iter().for_each(|what| eprintln!("past the bounds: {what}"));
    let mut report = heard.report();
    report["ok"] = json!(broken.is_empty());
    report["broken"] = json!(broken);
    report["minutes"] = json!(options.minutes);
    report["speed"] = json!(options.speed);
    Ok((report, broken.is_empty()))
}

fn say(heard: &Heard, options: &Options) {
    eprintln!(
        "{} minutes at {} x real time in {:.0} s: {} moves, {} new prompts, {} gaps, peak {:.3}",
        options.minutes,
        options.speed,
        heard.wall.as_secs_f64(),
        heard.moves,
        heard.prompts,
        heard.gaps.len(),
        heard.peak
    );
    let calls: u64 = heard.costs.iter().sum();
    eprintln!("{calls} calls of process, the slowest {:.2} ms:", heard.slowest.as_secs_f64() * 1e3);
    for (bin, count) in Heard::bins().iter().zip(heard.costs) {
        eprintln!("  {bin:>11} {count:9} {:8.4} %", 100.0 * count as f64 / calls.max(1) as f64);
    }
    let levels: Vec<String> = heard.loudness.minutes.iter().map(|level| format!("{level:.1}")).collect();
    eprintln!(
        "loudness by the minute: {} dB; slope {:+.2}, last against first {:+.2}",
        levels.join(" "),
        heard.loudness.drift,
        heard.loudness.ends
    );
    if let (Some(first), Some(last), Some(growth)) = (heard.memory.first(), heard.memory.last(), heard.growth()) {
        eprintln!(
            "resident {} MiB after a minute, {} at the end; allocated {growth:+} bytes",
            first.0 >> 20,
            last.0 >> 20
        );
    }
}
