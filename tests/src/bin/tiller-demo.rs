//! The demo: hosts the built bundle as a DAW would, plays the embedded model with the transport running, switches the
//! note lane on mid-way for each of the twelve pitch classes, and measures from the sound alone what that did.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tiller_engine::control::PitchClass;
use tiller_engine::evaluation::chroma::{Chroma, share_on_target};
use tiller_engine::evaluation::chromagram::{Row, Target, draw};
use tiller_tests::host::{Host, Outcome};
use tiller_tests::measure;
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::score::Score;

const RATE: u32 = 48_000;
const BLOCK: u32 = 512;
/// Samples per judged frame: 20 ms.
const HOP: usize = RATE as usize / 50;
/// Unsteered seconds before the move.
const LEAD: f64 = 6.0;
/// Seconds after the move that are not judged: the music needs a moment to turn.
const SETTLE: f64 = 1.0;
/// Steering has to put the target first this many times as often as chance and the prompt do.
const WANTED_RATIO: f32 = 3.0;

#[derive(Parser)]
struct Options {
    /// The .clap to play.
    #[arg(long)]
    bundle: PathBuf,
    /// Folder for the WAVs and the picture.
    #[arg(long)]
    out: PathBuf,
    /// Seconds of steered music per target that are judged.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seed of the first target; the others follow.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// One target, played twice with the same seed: with the move and without.
struct Pair {
    note: PitchClass,
    steered: Recording,
    unsteered: Recording,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok((report, enough)) => {
            if options.json {
                println!("{report}");
            }
            if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("error: {why}");
            if options.json {
                println!("{}", json!({ "ok": false, "error": why }));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<(Value, bool)> {
    if !(10.0..=600.0).contains(&options.seconds) {
        return Err(format!("--seconds {}: between 10 and 600 are judged", options.seconds));
    }
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
    let began = Instant::now();
    let mut host = Host::load(&options.bundle)?;
    host.set_offline(true)?;
    let length = LEAD + SETTLE + options.seconds;
    let bar = progress((24.0 * length) as u64);
    let mut pairs = Vec::new();
    let mut latency = 0;
    for (note, seed) in (0..12).filter_map(PitchClass::new).zip(options.seed..) {
        let mut take = |steer: bool| -> Outcome<Recording> {
            bar.set_message(format!("{} {}", note.name(), if steer { "steered" } else { "unsteered" }));
            let score = score(&mut host, note, steer)?;
            let (recording, reported) = play(&mut host, &score, seed, length, &bar)?;
            latency = reported;
            Ok(recording)
        };
        let (steered, unsteered) = (take(true)?, take(false)?);
        pairs.push(Pair { note, steered, unsteered });
    }
    bar.finish_and_clear();
    let wall = began.elapsed().as_secs_f64();
    report(options, &pairs, latency, wall)
}

fn progress(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{msg:14} {wide_bar} {pos}/{len} s of music, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// The lane is off, then `note` at full strength from the move on, as a host would automate it.
fn score(host: &mut Host, note: PitchClass, steer: bool) -> Outcome<Score> {
    let mut score = Score::playing();
    score.param(0, "note", host.value_of("note", "off")?)?;
    score.param(0, "note_strength", host.value_of("note_strength", "0")?)?;
    if steer {
        let at = (LEAD * f64::from(RATE)) as u64;
        score.param(at, "note", host.value_of("note", note.name())?)?;
        score.param(at, "note_strength", host.value_of("note_strength", "1")?)?;
    }
    Ok(score)
}

/// Plays one take from the transport's start; the reported delay is taken off.
fn play(host: &mut Host, score: &Score, seed: u32, seconds: f64, bar: &ProgressBar) -> Outcome<(Recording, u32)> {
    host.set("seed", &seed.to_string())?;
    let mut player = host.activate(f64::from(RATE), BLOCK)?;
    let latency = host.latency()?;
    let samples = (seconds * f64::from(RATE)) as u64;
    let mut heard = Recording::default();
    let mut counted = 0;
    player.play_with(
        score,
        0..samples + u64::from(latency),
        Blocks::Fixed(BLOCK as usize),
        Pace::FlatOut,
        |l, r| {
            heard.left.extend_from_slice(l);
            heard.right.extend_from_slice(r);
            let whole = (heard.left.len() / RATE as usize).min(seconds as usize);
            bar.inc((whole - counted) as u64);
            counted = whole;
        },
    )?;
    host.deactivate(player);
    Ok((heard.compensated(latency as usize), latency))
}

fn report(options: &Options, pairs: &[Pair], latency: u32, wall: f64) -> Outcome<(Value, bool)> {
    let mut ear = Chroma::new(f64::from(RATE)).map_err(|e| e.to_string())?;
    let length = LEAD + SETTLE + options.seconds;
    let hop_seconds = HOP as f64 / f64::from(RATE);
    let judged = |note: PitchClass, frames: usize| -> Vec<Option<usize>> {
        let from = LEAD + SETTLE;
        (0..frames).map(|i| (i as f64 * hop_seconds >= from).then_some(note.index())).collect()
    };
    let (mut shares, mut targets) = ([0.0, 0.0], Vec::new());
    let mut per_target = Vec::new();
    let mut heard: [Vec<[f32; 12]>; 2] = [Vec::new(), Vec::new()];
    let mut music: [Recording; 2] = Default::default();
    let mut underruns = 0;
    for (index, pair) in pairs.iter().enumerate() {
        let mut both = [0.0, 0.0];
        for (kind, take) in [&pair.unsteered, &pair.steered].into_iter().enumerate() {
            let name = ["unsteered", "steered"][kind];
            underruns += measure::gaps(&take.left, f64::from(RATE)).len();
            let frames = ear.frames(&take.mono(), HOP);
            let share = share_on_target(&frames, &judged(pair.note, frames.len())).ok_or("nothing was judged")?;
            both[kind] = share;
            shares[kind] += share / pairs.len() as f32;
            heard[kind].extend(frames);
            music[kind].left.extend_from_slice(&take.left);
            music[kind].right.extend_from_slice(&take.right);
            wav(&options.out.join(format!("{}-{name}.wav", pair.note.name().replace('#', "-sharp"))), take)?;
        }
        let start = index as f64 * length + LEAD;
        targets.push(Target { pitch_class: pair.note.index(), start, end: start + SETTLE + options.seconds });
        eprintln!("{:3} {:5.1} % -> {:5.1} % of frames on target", pair.note.name(), 100.0 * both[0], 100.0 * both[1]);
        per_target.push(json!({ "note": pair.note.name(), "unsteered": both[0], "steered": both[1] }));
    }
    let (sound, picture) = (options.out.join("tiller-demo.wav"), options.out.join("tiller-demo.png"));
    wav(&sound, &music[1])?;
    let rows = [
        Row { title: "steered", frames: &heard[1], hop_seconds, targets: &targets },
        Row { title: "the same seeds, unsteered", frames: &heard[0], hop_seconds, targets: &targets },
    ];
    let title = "Tiller demo: twelve targets, each switched on in mid-play (boxes)";
    let partial = options.out.join("partial.png");
    draw(&partial, title, &rows).map_err(|e| e.to_string())?;
    std::fs::rename(&partial, &picture).map_err(|e| format!("{}: {e}", picture.display()))?;
    let [unsteered, steered] = shares;
    let enough = steered >= WANTED_RATIO * unsteered && steered > 0.0;
    let seconds = 2.0 * pairs.len() as f64 * length;
    eprintln!("on target: {:.1} % unsteered, {:.1} % steered", 100.0 * unsteered, 100.0 * steered);
    eprintln!("{seconds:.0} s of music in {wall:.0} s, {underruns} underruns, latency {latency} samples");
    eprintln!("{}\n{}", sound.display(), picture.display());
    if !enough {
        eprintln!("steering is too weak: {WANTED_RATIO} times the unsteered share was wanted");
    }
    let report = json!({
        "ok": enough,
        "note_share_unsteered": unsteered,
        "note_share_steered": steered,
        "underruns": underruns,
        "latency_samples": latency,
        "wall_seconds": wall,
        "audio_seconds": seconds,
        "sample_rate": RATE,
        "targets": per_target,
        "wav": sound,
        "chromagram": picture,
    });
    Ok((report, enough))
}

/// Writes 16-bit stereo beside the destination, then renames.
fn wav(path: &Path, take: &Recording) -> Outcome<()> {
    let failed = |e: hound::Error| format!("{}: {e}", path.display());
    let partial = path.with_extension("partial");
    let spec =
        hound::WavSpec { channels: 2, sample_rate: RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(&partial, spec).map_err(failed)?;
    for (left, right) in take.left.iter().zip(&take.right) {
        for sample in [left, right] {
            writer.write_sample((sample.clamp(-1.0, 1.0) * 32_767.0).round() as i16).map_err(failed)?;
        }
    }
    writer.finalize().map_err(failed)?;
    std::fs::rename(&partial, path).map_err(|e| format!("{}: {e}", path.display()))
}
