//! `cargo xtask soak`: many minutes through the engine's core on one thread, with times. What grows, drifts, clicks or
//! makes a frame late past the bounds ends with exit code 1.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tiller_engine::control::ControlFrame;
use tiller_engine::handle::ModelSource;
use tiller_engine::link::{CHANNELS, StreamFormat};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_tests::counting::Counting;
use tiller_tests::host::Outcome;
use tiller_tests::memory::resident;
use tiller_tests::soak::clicks::Clicks;
use tiller_tests::soak::loudness::Loudness;
use tiller_tests::soak::slots::{Kind, Late, Times};
use tiller_tests::soak::{DEFAULT_PROMPT, Run, waited_for_a_core};
use tiller_tests::verdict::conclude;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Loudness may drift by less than this, dB.
const MOST_DRIFT: f64 = 3.0;
/// The quietest minute must be louder, dB of full scale.
const SILENCE: f64 = -50.0;
/// Mean compute time of a step in the last minute over that in the second one must be less.
const MOST_GROWTH: f64 = 1.1;
/// Resident memory may grow by less than this from the first minute's end on.
const MOST_MEMORY: u64 = 4 << 20;

/// Plays many minutes through the engine's core, far past the model's window, and measures what grows, drifts, clicks or
/// is late.
///
/// A frame's control arrives at its own time, its step starts then or after the step before, its audio is due one frame
/// later. Late frames are counted by the first take's wall time, and by each step's least compute time (on a core) of all
/// takes: other work on the machine and its host lengthens one take's steps, a roll-over would lengthen the same ones in
/// each.
///
/// Exit code 1 when: a frame within a rebuild or at a switch is late by compute time; a take sounds otherwise than the
/// first; anything is allocated after the first 100 steps; resident memory grows by 4 MiB after minute 1; the mean compute time of a step in the last minute is 1.1
/// times that in minute 2; loudness drifts by 3 dB (slope over the minutes, or last two minutes against first two); a
/// minute is below -50 dB; a sample is beyond +-1 or no number; or the largest sample steps at the switches stand out from
/// those elsewhere (rank sum, highest hundredth, largest).
#[derive(Parser)]
struct Options {
    /// Minutes to play, at least 4.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Play window in positions, shorter than the checkpoint's own (64 at least).
    #[arg(long)]
    window: Option<usize>,
    /// A MusicGen directory; without it the embedded demo checkpoint plays.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// What to play.
    #[arg(long, default_value = DEFAULT_PROMPT)]
    prompt: String,
    /// Seed of the randomness, 0 to 9999.
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// How often the same piece is played.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    takes: u32,
    /// A WAV file for what was played (32-bit float, stereo).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    conclude(soak(&options), options.json)
}

/// A WAV file that is renamed into place when it is whole.
struct Wav {
    writer: hound::WavWriter<std::io::BufWriter<std::fs::File>>,
    beside: PathBuf,
    place: PathBuf,
    /// The first write that failed.
    failed: Option<hound::Error>,
}

impl Wav {
    fn create(place: &Path, format: StreamFormat) -> Outcome<Self> {
        let spec = hound::WavSpec {
            channels: CHANNELS as u16,
            sample_rate: format.model_rate,
            bits_per_sample: 32,
            sample_format: hound::SampleFormat::Float,
        };
        let beside = place.with_extension("part");
        let writer =
            hound::WavWriter::create(&beside, spec).map_err(|error| format!("{}: {error}", beside.display()))?;
        Ok(Self { writer, beside, place: place.to_owned(), failed: None })
    }

    fn write(&mut self, samples: &[f32]) {
        for sample in samples {
            if let (None, Err(error)) = (&self.failed, self.writer.write_sample(*sample)) {
                self.failed = Some(error);
            }
        }
    }

    fn finish(self) -> Outcome<()> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.beside.display());
        match self.failed {
            Some(error) => return Err(named(&error)),
            None => self.writer.finalize().map_err(|error| named(&error))?,
        }
        std::fs::rename(&self.beside, &self.place).map_err(|error| format!("{}: {error}", self.place.display()))
    }
}

fn soak(options: &Options) -> Outcome<(Value, bool)> {
    if !(4..=24 * 60).contains(&options.minutes) {
        return Err(format!("--minutes {}: between 4 and 1440 are played", options.minutes));
    }
    let source = options.checkpoint.clone().map_or(ModelSource::Embedded, ModelSource::Directory);
    let model = Model::load(&source, &|_| ()).map_err(|error| error.to_string())?;
    let prompt = Arc::new(model.prompt(&options.prompt).map_err(|error| error.to_string())?);
    let mut player = Player::new(model.clone(), prompt, options.window);
    player.warm_up();
    let format = model.format();
    let frames = options.minutes as usize * 60 * format.model_rate as usize / format.frame_samples;
    let mut runs: Vec<Run> = (0..options.takes).map(|_| Run::new(format, frames)).collect();
    let mut wav = options.out.as_ref().map(|place| Wav::create(place, format)).transpose()?;
    let bar = ProgressBar::new(frames as u64 * u64::from(options.takes));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} frames, {eta} left") {
        bar.set_style(style);
    }
    let mut control = ControlFrame::new(1, 0);
    control.seed = options.seed;
    let (began, waited) = (Instant::now(), waited_for_a_core());
    let mut early = None;
    for (take, run) in runs.iter_mut().enumerate() {
        let minute = run.frames_per_minute();
        let write = |samples: &[f32]| {
            if let Some(wav) = wav.as_mut().filter(|_| take == 0) {
                wav.write(samples);
            }
        };
        let each = |step: usize| {
            if take == 0 && step + 1 == minute {
                early = resident();
            }
            if step.is_multiple_of(50) {
                bar.set_position((take * frames + step) as u64);
            }
        };
        control.piece += 1;
        run.play(&mut player, control, frames as u32, write, each).map_err(|error| error.to_string())?;
    }
    let wall = began.elapsed().as_secs_f64();
    let waited = waited_for_a_core().zip(waited).map(|(after, before)| after - before);
    let memory = early.zip(resident());
    bar.finish_and_clear();
    if let Some(wav) = wav {
        wav.finish()?;
    }
    let mut takes = runs.into_iter();
    let Some(mut run) = takes.next() else { return Err("nothing was played".to_owned()) };
    let late = Late::of(&run.seconds, &run.work, run.frame_seconds());
    let mut same = true;
    for take in takes {
        // Every take is compared, also behind one that differs.
        same &= run.shorten(&take);
    }
    let report = Report::of(&run, late, same, memory)?;
    report.say();
    let json = json!({
        "ok": report.broken.is_empty(),
        "broken": report.broken,
        "model": model.name(), "prompt": options.prompt, "seed": options.seed,
        "window": player.window(), "minutes": options.minutes, "frames": frames, "takes": options.takes,
        "wall_seconds": wall, "waited_for_a_core_seconds": waited,
        "rtf": f64::from(options.takes) * frames as f64 * run.frame_seconds() / wall,
        "steps": report.steps(),
        "late_frames": report.late.frames, "late_frames_rollover": report.late.in_rollover,
        "late_frames_compute": report.late_compute.frames,
        "late_frames_rollover_compute": report.late_compute.in_rollover,
        "longest_frame_ms": report.late.longest * 1e3, "longest_frame_compute_ms": report.late_compute.longest * 1e3,
        "allocations": run.allocations,
        "resident_minute_1": memory.map(|(early, _)| early), "resident_end": memory.map(|(_, late)| late),
        "growth_ratio": report.growth.0, "growth_ratio_median": report.growth.1,
        "loudness_db": report.loudness.minutes, "drift_db": report.loudness.drift, "ends_db": report.loudness.ends,
        "peak": run.ear.peak,
        "clicks_one_frame": report.clicks[0].report(), "clicks_transition": report.clicks[1].report(),
        "wav": options.out,
    });
    Ok((json, report.broken.is_empty()))
}

/// What was measured, and which bounds it breaks.
struct Report {
    /// By kind of step: wall time, compute time, the least of all takes.
    times: [(Times, Times); Kind::ALL.len()],
    /// By the first take's wall time, and by the least compute time of all takes.
    late: Late,
    late_compute: Late,
    loudness: Loudness,
    /// One frame either side of a switch; from the first sample that can know of it to the end of the frame behind it.
    clicks: [Clicks; 2],
    /// Mean and median compute time of the last minute's steps over those of the second's.
    growth: (f64, f64),
    memory: Option<(u64, u64)>,
    broken: Vec<String>,
}

impl Report {
    fn of(run: &Run, late: Late, same: bool, memory: Option<(u64, u64)>) -> Outcome<Self> {
        let loudness = Loudness::of(&run.ear.power, run.frames_per_minute()).ok_or("too short for a drift")?;
        let switches = run.switches();
        let clicks = |before| {
            Clicks::of(&run.ear.leaps, &switches, before, 1)
                .ok_or("the window never rolled over: play longer, or give --window")
        };
        let last = (run.seconds.len() / run.frames_per_minute()).saturating_sub(1);
        let (second, latest) =
            run.compute_in_minute(1).zip(run.compute_in_minute(last)).ok_or("too short for growth")?;
        let mut report = Self {
            times: Kind::ALL
                .map(|kind| (Times::of(kind, &run.seconds, &run.work), Times::of(kind, &run.compute, &run.work))),
            late,
            late_compute: Late::of(&run.compute, &run.work, run.frame_seconds()),
            clicks: [clicks(1)?, clicks(run.format.delay_frames)?],
            growth: (latest.0 / second.0, latest.1 / second.1),
            broken: Vec::new(),
            loudness,
            memory,
        };
        let grown = memory.map_or(0, |(early, late)| late.saturating_sub(early));
        let bounds = [
            (
                report.late_compute.in_rollover == 0,
                format!("{} frames late in a roll-over by compute time", report.late_compute.in_rollover),
            ),
            (same, "a take sounds otherwise than the first".to_owned()),
            (run.allocations == 0, format!("{} allocations", run.allocations)),
            (grown < MOST_MEMORY, format!("memory grew by {grown} bytes")),
            (report.growth.0 < MOST_GROWTH, format!("steps take {:.3} times as long at the end", report.growth.0)),
            (report.loudness.worst() < MOST_DRIFT, format!("loudness drifts by {:.2} dB", report.loudness.worst())),
            (report.loudness.quietest() > SILENCE, format!("a minute at {:.1} dB", report.loudness.quietest())),
            (run.ear.peak <= 1.0, format!("clips at {}", run.ear.peak)),
            (run.ear.not_finite == 0, format!("{} samples that are no number", run.ear.not_finite)),
            (run.ear.out_of_order == 0, format!("{} frames out of order", run.ear.out_of_order)),
            (report.clicks.iter().all(Clicks::is_clean), "the switches click".to_owned()),
        ];
        report.broken = bounds.into_iter().filter(|(kept, _)| !kept).map(|(_, what)| what).collect();
        Ok(report)
    }

    fn steps(&self) -> Value {
        let kinds = Kind::ALL.iter().zip(&self.times);
        let report = |(kind, (wall, compute)): (&Kind, &(Times, Times))| {
            (kind.name().to_owned(), json!({ "wall": wall.report(), "compute": compute.report() }))
        };
        Value::Object(kinds.map(report).collect())
    }

    fn say(&self) {
        eprintln!("steps, each at its least of all takes: count | wall ms p50, p99, max | compute ms p50, p99, max");
        for (kind, (wall, compute)) in Kind::ALL.iter().zip(&self.times) {
            let three = |times: &Times| format!("{:6.2} {:6.2} {:6.2}", times.p50, times.p99, times.max);
            eprintln!("{:12} {:7} |  {} |  {}", kind.name(), wall.count, three(wall), three(compute));
        }
        for (late, time) in [(self.late, "wall"), (self.late_compute, "compute")] {
            let (frames, rollover) = (late.frames, late.in_rollover);
            eprintln!("late frames by {time} time: {frames}, of them in a roll-over {rollover}");
        }
        eprintln!("growth of the compute time: {:.3} (median {:.3})", self.growth.0, self.growth.1);
        if let Some((early, late)) = self.memory {
            let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            eprintln!("resident memory: {:.1} MiB after minute 1, {:.1} at the end", megabytes(early), megabytes(late));
        }
        let minutes: Vec<String> = self.loudness.minutes.iter().map(|level| format!("{level:.1}")).collect();
        eprintln!(
            "loudness by the minute: {} dB; slope {:+.2}, last against first {:+.2}",
            minutes.join(" "),
            self.loudness.drift,
            self.loudness.ends
        );
        for (clicks, which) in self.clicks.iter().zip(["one frame either side of a switch", "the whole transition"]) {
            eprintln!(
                "{which}: largest sample step {:.3} of {} ({:.3} of {} elsewhere), mean rank {:.3} ({:+.1} deviations)",
                clicks.largest[0],
                clicks.counts[0],
                clicks.largest[1],
                clicks.counts[1],
                clicks.mean_rank,
                clicks.deviations
            );
        }
        for broken in &self.broken {
            eprintln!("past the bounds: {broken}");
        }
    }
}
