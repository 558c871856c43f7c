//! Many minutes of steered play through the built bundle in a host, at a multiple of real time: random automation, keys and
//! new prompts, while gaps, levels, memory and the cost of `process` are kept. The host never grants a wait, so at four times
//! real time the engine has a quarter of the time that a musician gives it.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::loudness::Loudness;
use crate::host::{Host, Outcome, Param, raw_id};
use crate::measure::GAP_SECONDS;
use crate::memory::{allocated, give_back, resident};
use crate::player::Player;
use crate::project::Project;
use crate::random::Random;
use crate::score::{Move, Score};

const RATE: f64 = 48_000.0;
const FRAME: usize = 960;
const FRAMES_PER_MINUTE: usize = 3_000;

/// What new prompts are taken from, one a minute.
const PROMPTS: [&str; 5] = [
    "calm piano broken chords, slow",
    "slow warm strings pad, gentle",
    "fast plucked guitar arpeggio, playful",
    "medium flute melody, hopeful",
    "bright brass chords, quick",
];

/// Upper ends of the bins of the cost of `process`, microseconds; the last bin has none.
const BINS: [u32; 9] = [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000];

/// Parameters that are left alone: they would silence the music, or change what is measured.
const KEPT: [&str; 8] = ["Gain", "Bypass", "Run", "Late", "Latency", "Latency frames", "Top k", "Temperature"];

/// What is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Minutes of music, at least 4.
    pub minutes: u32,
    /// How many times faster than real time; `None` is as fast as it goes, each frame waited for.
    pub speed: Option<f64>,
    /// Samples of a block.
    pub block: usize,
    /// Of the automation.
    pub seed: u64,
}

/// A run of silence inside the sound.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// Where it begins in the music.
    pub seconds: f64,
    /// Its length.
    pub milliseconds: f64,
    /// How late the host's own audio thread had been woken, at most, in the second of wall time before: a machine that holds up the
    /// host holds up the engine too.
    pub host_late_ms: f64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, milliseconds, host_late_ms } = self;
        write!(f, "{milliseconds:.0} ms at {seconds:.2} s (the host itself {host_late_ms:.0} ms late)")
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub loudness: Loudness,
    /// Runs of silence inside the sound: late frames.
    pub gaps: Vec<Gap>,
    pub peak: f32,
    /// Calls of `process` by what they cost: one number for each of [`Heard::bins`].
    pub costs: [u64; BINS.len() + 1],
    pub slowest: Duration,
    /// Resident and allocated bytes after each minute, where the system tells.
    pub memory: Vec<(u64, u64)>,
    /// Automation points, keys and prompts that were played.
    pub moves: usize,
    pub prompts: usize,
    pub wall: Duration,
}

/// Listens to blocks as they come.
struct Ear {
    /// Mean square of each frame.
    power: Vec<f32>,
    sum: f64,
    count: usize,
    zeros: usize,
    heard: usize,
    sounding: bool,
    gaps: Vec<Gap>,
    peak: f32,
    /// The host's worst lateness of late, ms, and when it was.
    late: (f64, Instant),
}

impl Ear {
    /// The host's thread should have been here at `due`.
    fn wake(&mut self, due: Instant) {
        let (now, (worst, when)) = (Instant::now(), self.late);
        let late = now.saturating_duration_since(due).as_secs_f64() * 1e3;
        if late >= worst || now - when > Duration::from_secs(1) {
            self.late = (late, now);
        }
    }

    fn hear(&mut self, left: &[f32], right: &[f32]) {
        for (left, right) in left.iter().zip(right) {
            self.peak = self.peak.max(left.abs()).max(right.abs());
            self.sum += f64::from(*left) * f64::from(*left);
            self.count += 1;
            if self.count == FRAME {
                self.power.push((self.sum / FRAME as f64) as f32);
                (self.sum, self.count) = (0.0, 0);
            }
            if *left == 0.0 && *right == 0.0 {
                self.zeros += 1;
            } else {
                if self.sounding && self.zeros as f64 >= GAP_SECONDS * RATE {
                    let seconds = (self.heard - self.zeros) as f64 / RATE;
                    let milliseconds = self.zeros as f64 / RATE * 1e3;
                    self.gaps.push(Gap { seconds, milliseconds, host_late_ms: self.late.0 });
                }
                (self.zeros, self.sounding) = (0, true);
            }
            self.heard += 1;
        }
    }
}

/// A quarter of a second apart: any parameter at any value, keys now and then, controllers.
fn automation(params: &[Param], minutes: u32, seed: u64) -> Outcome<(Score, usize)> {
    let mut random = Random(seed);
    let mut score = Score::playing();
    let free: Vec<&Param> =
        params.iter().filter(|param| param.automatable && !KEPT.contains(&param.name.as_str())).collect();
    let (end, mut at, mut moves) = (u64::from(minutes) * 60 * RATE as u64, 0, 0);
    while at < end {
        at += 1 + random.below(24_000) as u64;
        let param = random.pick(&free);
        score.add(at, Move::Param(raw_id(param.id)?, random.unit() * param.max));
        moves += 1;
        if random.below(8) == 0 {
            let first = 48 + random.below(24) as u8;
            for key in [first, first + 4, first + 7].into_iter().take(1 + random.below(3)) {
                score.add(at, Move::KeyDown(key));
                score.add(at + 4_800 + random.below(48_000) as u64, Move::KeyUp(key));
                moves += 2;
            }
        }
    }
    Ok((score, moves))
}

/// Plays the plan. `progress` hears the seconds of music that are done.
///
/// # Errors
/// The bundle cannot be hosted, or a sample is unwritten, no number, subnormal or above full scale.
pub fn soak(bundle: &Path, plan: Plan, progress: &(dyn Fn(f64) + Sync)) -> Outcome<Heard> {
    let mut host = Host::load(bundle)?;
    host.set("late", if plan.speed.is_some() { "fade" } else { "wait" })?;
    let (score, moves) = automation(&host.params()?, plan.minutes, plan.seed)?;
    let prompts = prompts(&mut host)?;
    let mut player = host.activate(RATE, plan.block as u32)?;
    // Live, the engine has to be warm when the host starts to play.
    let stopped = Score::stopped();
    for block in 0..200 {
        player.block(&stopped, block * plan.block as u64, plan.block)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    let frames = plan.minutes as usize * FRAMES_PER_MINUTE;
    let mut ear = Ear {
        power: Vec::with_capacity(frames + 1),
        sum: 0.0,
        count: 0,
        zeros: 0,
        heard: 0,
        sounding: false,
        gaps: Vec::with_capacity(1_024),
        peak: 0.0,
        late: (0.0, Instant::now()),
    };
    let mut costs = [0; BINS.len() + 1];
    player.slowest = Duration::ZERO;
    let (done, began) = (AtomicU64::new(0), Instant::now());
    let (mut memory, mut changed) = (Vec::new(), 0);
    let player = std::thread::scope(|scope| -> Outcome<Player> {
        let audio = scope.spawn(|| -> Outcome<Player> {
            let end = u64::from(plan.minutes) * 60 * RATE as u64;
            let mut at = 0;
            while at < end {
                if let Some(speed) = plan.speed {
                    let due = began + Duration::from_secs_f64(at as f64 / RATE / speed);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    ear.wake(due);
                }
                player.block(&score, at, plan.block)?;
                let (left, right) = player.output(plan.block);
                ear.hear(left, right);
                let micros = player.last.as_micros();
                costs[BINS.iter().position(|bin| micros < u128::from(*bin)).unwrap_or(BINS.len())] += 1;
                at += plan.block as u64;
                done.store(at, Ordering::Relaxed);
            }
            Ok(player)
        });
        while !audio.is_finished() {
            let seconds = done.load(Ordering::Relaxed) as f64 / RATE;
            progress(seconds);
            if seconds >= 60.0 * (changed + 1) as f64 {
                changed += 1;
                memory.extend(resident().zip(allocated()));
                host.restore(&prompts[changed % prompts.len()])?;
            }
            host.pump();
            std::thread::sleep(Duration::from_millis(20));
        }
        audio.join().map_err(|_| "the audio thread panicked".to_owned())?
    })?;
    let (slowest, wall) = (player.slowest, began.elapsed());
    give_back();
    memory.extend(resident().zip(allocated()));
    host.deactivate(player);
    let loudness = Loudness::of(&ear.power, FRAMES_PER_MINUTE).ok_or("four minutes at least")?;
    Ok(Heard { loudness, gaps: ear.gaps, peak: ear.peak, costs, slowest, memory, moves, prompts: changed, wall })
}

/// States that differ from the host's own in their prompts alone.
fn prompts(host: &mut Host) -> Outcome<Vec<Vec<u8>>> {
    let state = host.save()?;
    let with = |prompt: &str| {
        let mut project = Project::open(&state)?;
        project.document["prompt"] = json!(prompt);
        project.close()
    };
    PROMPTS.iter().map(|prompt| with(prompt)).collect()
}

impl Heard {
    /// Names of the bins of [`Heard::costs`].
    pub fn bins() -> Vec<String> {
        BINS.iter().map(|bin| format!("< {bin} us")).chain([format!(">= {} us", BINS[BINS.len() - 1])]).collect()
    }

    /// How much more is allocated at the end than after the fifth part of the minutes, when every cache is as large as it gets.
    pub fn growth(&self) -> Option<i64> {
        let allocated: Vec<i64> = self.memory.iter().map(|(_, allocated)| *allocated as i64).collect();
        let early = allocated.get(allocated.len().div_ceil(5))?;
        Some(allocated.last()? - early)
    }

    /// What is not as it should be.
    pub fn broken(&self) -> Vec<String> {
        const MOST_GROWTH: i64 = 4 << 20;
        const MOST_DRIFT: f64 = 4.0;
        let mut broken = Vec::new();
        if !self.gaps.is_empty() {
            let gaps: Vec<String> = self.gaps.iter().take(10).map(Gap::to_string).collect();
            broken.push(format!("{} gaps: {}", self.gaps.len(), gaps.join(", ")));
        }
        if self.loudness.worst() > MOST_DRIFT {
            broken.push(format!("loudness drifts by {:.2} dB", self.loudness.worst()));
        }
        if self.loudness.quietest() < -50.0 {
            broken.push(format!("a minute at {:.1} dB", self.loudness.quietest()));
        }
        if let Some(growth) = self.growth().filter(|growth| *growth > MOST_GROWTH) {
            broken.push(format!("{growth} bytes more are allocated at the end"));
        }
        broken
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        let costs: serde_json::Map<String, Value> =
            Self::bins().into_iter().zip(self.costs).map(|(bin, count)| (bin, json!(count))).collect();
        json!({
            "gaps": self.gaps.len(), "peak": self.peak, "moves": self.moves, "prompts": self.prompts,
            "process_cost": costs, "slowest_process_ms": self.slowest.as_secs_f64() * 1e3,
            "loudness_db": self.loudness.minutes, "drift_db": self.loudness.drift, "ends_db": self.loudness.ends,
            "allocated_growth": self.growth(),
            "resident_first": self.memory.first().map(|m| m.0), "resident_last": self.memory.last().map(|m| m.0),
            "wall_seconds": self.wall.as_secs_f64(),
        })
    }
}
