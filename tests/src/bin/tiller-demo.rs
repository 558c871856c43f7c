//! The demo: hosts the built bundle as a DAW would, plays the embedded model with the transport running, switches the
//! note lane on mid-way for each of the twelve pitch classes and the chord lane for a few chords, and measures from the sound
//! alone what that did.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tiller_engine::control::{Chord, PitchClass, Quality};
use tiller_engine::evaluation::chord_ear::{STRETCH_SECONDS, hear_chord, profiles};
use tiller_engine::evaluation::chroma::{Chroma, share_on_target};
use tiller_engine::evaluation::chromagram::{Row, Target, draw};
use tiller_tests::host::{Host, Outcome};
use tiller_tests::measure;
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::score::Score;
use tiller_tests::verdict::conclude;

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

/// Chords that are steered to: roots over the octave, major and minor in turns.
const CHORDS: [(u8, Quality); 6] = [
    (0, Quality::Major),
    (3, Quality::Minor),
    (6, Quality::Major),
    (7, Quality::Minor),
    (9, Quality::Major),
    (11, Quality::Minor),
];

/// What a take is steered to.
#[derive(Clone, Copy)]
enum Goal {
    Note(PitchClass),
    Chord(Chord),
}

impl Goal {
    /// Notes first.
    fn all() -> Vec<Self> {
        let chord = |(root, quality)| Self::Chord(Chord { root: PitchClass::of_key(root), quality });
        (0..12).map(|index| Self::Note(PitchClass::of_key(index))).chain(CHORDS.map(chord)).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Note(note) => note.name().to_owned(),
            Self::Chord(chord) => format!("{} {}", chord.root.name(), chord.quality.name()),
        }
    }

    fn classes(self) -> Vec<usize> {
        match self {
            Self::Note(note) => vec![note.index()],
            Self::Chord(chord) => chord.tones().map(PitchClass::index).to_vec(),
        }
    }

    /// Share of what was heard after the move that is on target: of the frames whose strongest class is the note, of the
    /// sounding half seconds that are this very chord among the 24 major and minor ones.
    fn share(self, frames: &[[f32; 12]], hop_seconds: f64) -> Option<f32> {
        let from = ((LEAD + SETTLE) / hop_seconds).ceil() as usize;
        let frames = frames.get(from..)?;
        match self {
            Self::Note(note) => share_on_target(frames, &vec![Some(note.index()); frames.len()]),
            Self::Chord(chord) => {
                let profiles = profiles(frames, (STRETCH_SECONDS / hop_seconds).round() as usize);
                let heard: Vec<Chord> =
                    profiles.iter().flatten().filter_map(|profile| hear_chord(profile, &Quality::ALL[..2])).collect();
                let right = heard.iter().filter(|heard| **heard == chord).count();
                (!heard.is_empty()).then(|| right as f32 / heard.len() as f32)
            }
        }
    }
}

/// One target, played twice with the same seed: with the move and without.
struct Pair {
    goal: Goal,
    steered: Recording,
    unsteered: Recording,
}

fn main() -> ExitCode {
    let options = Options::parse();
    conclude(run(&options), options.json)
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
    let goals = Goal::all();
    let bar = progress((2.0 * goals.len() as f64 * length) as u64);
    let mut pairs = Vec::new();
    let mut latency = 0;
    for (goal, seed) in goals.into_iter().zip(options.seed..) {
        let mut take = |steer: bool| -> Outcome<Recording> {
            bar.set_message(format!("{} {}", goal.name(), if steer { "steered" } else { "unsteered" }));
            let score = score(&mut host, goal, steer)?;
            let (recording, reported) = play(&mut host, &score, seed, length, &bar)?;
            latency = reported;
            Ok(recording)
        };
        let (steered, unsteered) = (take(true)?, take(false)?);
        pairs.push(Pair { goal, steered, unsteered });
    }
    bar.finish_and_clear();
    let wall = began.elapsed().as_secs_f64();
    report(options, &pairs, latency, wall)
}

fn progress(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{msg:20} {wide_bar} {pos}/{len} s of music, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// The lanes are off, then the goal's is at full strength from the move on, as a host would automate it.
fn score(host: &mut Host, goal: Goal, steer: bool) -> Outcome<Score> {
    let mut score = Score::playing();
    let mut set = |at: u64, name: &str, text: &str| score.param(at, name, host.value_of(name, text)?);
    for (name, text) in [("note", "off"), ("note_strength", "0"), ("chord_quality", "off"), ("chord_strength", "0")] {
        set(0, name, text)?;
    }
    let at = (LEAD * f64::from(RATE)) as u64;
    match goal {
        _ if !steer => {}
        Goal::Note(note) => {
            set(at, "note", note.name())?;
            set(at, "note_strength", "1")?;
        }
        Goal::Chord(chord) => {
            set(at, "chord_root", chord.root.name())?;
            set(at, "chord_quality", chord.quality.name())?;
            set(at, "chord_strength", "1")?;
        }
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
    // Of notes and of chords: unsteered, steered.
    let (mut shares, mut counts) = ([[0.0f32; 2]; 2], [0usize; 2]);
    let mut targets = Vec::new();
    let mut per_target: [Vec<Value>; 2] = Default::default();
    let mut heard: [Vec<[f32; 12]>; 2] = [Vec::new(), Vec::new()];
    let mut music: [Recording; 2] = Default::default();
    let mut underruns = 0;
    for (index, pair) in pairs.iter().enumerate() {
        let kind = usize::from(matches!(pair.goal, Goal::Chord(_)));
        let name = pair.goal.name();
        let mut both = [0.0, 0.0];
        for (steered, take) in [&pair.unsteered, &pair.steered].into_iter().enumerate() {
            underruns += measure::gaps(&take.left, f64::from(RATE)).len();
            let frames = ear.frames(&take.mono(), HOP);
            both[steered] = pair.goal.share(&frames, hop_seconds).ok_or("nothing was judged")?;
            shares[kind][steered] += both[steered];
            heard[steered].extend(frames);
            music[steered].left.extend_from_slice(&take.left);
            music[steered].right.extend_from_slice(&take.right);
            let file =
                format!("{}-{}.wav", name.replace('#', "-sharp").replace(' ', "-"), ["unsteered", "steered"][steered]);
            wav(&options.out.join(file), take)?;
        }
        counts[kind] += 1;
        let start = index as f64 * length + LEAD;
        let end = start + SETTLE + options.seconds;
        targets.extend(pair.goal.classes().into_iter().map(|pitch_class| Target { pitch_class, start, end }));
        eprintln!("{name:9} {:5.1} % -> {:5.1} % on target", 100.0 * both[0], 100.0 * both[1]);
        let key = ["note", "chord"][kind];
        per_target[kind].push(json!({ key: name, "unsteered": both[0], "steered": both[1] }));
    }
    let shares: Vec<[f32; 2]> =
        shares.iter().zip(counts).map(|(both, count)| both.map(|share| share / count.max(1) as f32)).collect();
    let (sound, picture) = (options.out.join("tiller-demo.wav"), options.out.join("tiller-demo.png"));
    wav(&sound, &music[1])?;
    let rows = [
        Row { title: "steered", frames: &heard[1], hop_seconds, targets: &targets },
        Row { title: "the same seeds, unsteered", frames: &heard[0], hop_seconds, targets: &targets },
    ];
    let title = "Tiller demo: twelve notes and six chords, each switched on in mid-play (boxes)";
    let partial = options.out.join("partial.png");
    draw(&partial, title, &rows).map_err(|e| e.to_string())?;
    std::fs::rename(&partial, &picture).map_err(|e| format!("{}: {e}", picture.display()))?;
    let enough = shares.iter().all(|[unsteered, steered]| *steered >= WANTED_RATIO * unsteered && *steered > 0.0);
    let seconds = 2.0 * pairs.len() as f64 * length;
    for ([unsteered, steered], what) in shares.iter().zip(["notes: frames", "chords: half seconds"]) {
        eprintln!("{what} on target: {:.1} % unsteered, {:.1} % steered", 100.0 * unsteered, 100.0 * steered);
    }
    eprintln!("{seconds:.0} s of music in {wall:.0} s, {underruns} underruns, latency {latency} samples");
    eprintln!("{}\n{}", sound.display(), picture.display());
    if !enough {
        eprintln!("steering is too weak: {WANTED_RATIO} times the unsteered share was wanted");
    }
    let [notes, chords] = per_target;
    let report = json!({
        "ok": enough,
        "note_share_unsteered": shares[0][0],
        "note_share_steered": shares[0][1],
        "chord_share_unsteered": shares[1][0],
        "chord_share_steered": shares[1][1],
        "underruns": underruns,
        "latency_samples": latency,
        "wall_seconds": wall,
        "audio_seconds": seconds,
        "sample_rate": RATE,
        "targets": notes,
        "chords": chords,
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
