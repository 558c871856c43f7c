//! Eight bars in Ardour, without a window: the chord lane automated on the timeline and a region of keys, exported twice with the
//! export tool's default settings, which runs ahead of real time without saying so. Exit code 1 unless both files are the same to
//! the byte, without a gap, a drawn gain is heard in its very frame and every drawn chord as soon as the model answers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use tiller_engine::control::{Chord, PitchClass, Quality};
use tiller_engine::evaluation::chord_ear::{STRETCH_SECONDS, hear_chord, profiles};
use tiller_engine::evaluation::chroma::{Chroma, share_on_target};
use tiller_tests::ardour::{Ardour, Lane, RATE};
use tiller_tests::host::Outcome;
use tiller_tests::measure::{self, first_difference};
use tiller_tests::verdict::conclude;

/// Samples of a bar of 4/4 at 120 beats a minute, and of a frame.
const BAR: usize = 2 * RATE;
const FRAME: usize = RATE / 50;

/// The chord lane: from these bars on, counted from 0.
const CHORDS: [(usize, u8, Quality); 4] =
    [(0, 0, Quality::Major), (2, 9, Quality::Minor), (4, 5, Quality::Major), (6, 7, Quality::Major)];

/// The key that is held over the last bar, and its bar.
const KEY: (u8, usize) = (64, 7);

const BARS: usize = 8;

/// The resampler's filter reaches a little ahead of a frame.
const REACH: usize = 200;

/// The codec hears so far ahead, in samples of the export: what steers frame f is heard in the tail of the frames before it.
const AHEAD: i64 = 3_604;

/// A steered frame may draw the very codes that an unsteered one draws, but not for long.
const ANSWER: i64 = RATE as i64 / 2;

/// Bar of the gain step, from 0.
const GAIN: usize = 4;

/// Seconds after a move that are not judged by ear: the music needs a moment to turn.
const SETTLE: f64 = 1.0;

/// Plays a session in Ardour and measures its export.
#[derive(Parser)]
struct Options {
    /// The .vst3 to play.
    #[arg(long)]
    bundle: PathBuf,
    /// Folder for the sessions and the exports.
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// The lanes with the first `count` chords.
fn lanes(count: usize) -> Vec<Lane<'static>> {
    // Plain values as Ardour shows them: the place in the list of choices.
    let quality = |quality: Quality| match quality {
        Quality::Major => 1.0,
        Quality::Minor => 2.0,
        Quality::Diminished => 3.0,
        Quality::Augmented => 4.0,
    };
    let own = CHORDS.iter().take(count);
    let roots = own.clone().map(|(bar, root, _)| ((bar * BAR) as u64, f64::from(*root))).collect();
    let qualities = own.map(|(bar, _, own)| ((bar * BAR) as u64, quality(*own))).collect();
    vec![("Chord root", roots), ("Chord", qualities)]
}

/// The key in ticks of the MIDI file, a little inside its bar.
fn keys() -> Vec<(u8, u32, u32)> {
    let start = KEY.1 as u32 * 4 * 480;
    vec![(KEY.0, start + 7, start + 4 * 480 - 7)]
}

fn run(options: &Options) -> Outcome<(Value, bool)> {
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
    let out = options.out.canonicalize().map_err(|e| e.to_string())?;
    let ardour = Ardour::new(&out, &options.bundle)?;
    let seconds = (BARS * BAR / RATE) as u64;
    let session = ardour.session("eight-bars", seconds, &lanes(CHORDS.len()), &keys())?;
    let ([left, right], first) = ardour.export_whole(&session, "first")?;
    let (_, second) = ardour.export_whole(&session, "second")?;
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let same = read(&first)? == read(&second)?;
    let gaps = measure::gaps(&left, RATE as f64);
    let cold = measure::rms(&left[..RATE / 10]);

    // When each move takes effect: against sessions that lack it and all that follow.
    let mut late = Vec::new();
    for (count, (bar, ..)) in CHORDS.iter().enumerate().skip(1) {
        let session = ardour.session(&format!("before-{count}"), seconds, &lanes(count), &[])?;
        let ([without, _], _) = ardour.export_whole(&session, &format!("before-{count}"))?;
        let at =
            first_difference(&left, &without).ok_or_else(|| format!("the chord of bar {} did nothing", bar + 1))?;
        late.push(at as i64 - (bar * BAR) as i64);
    }
    let mut with_gain = lanes(CHORDS.len());
    with_gain.push(("Gain", vec![(0, 0.0), ((GAIN * BAR) as u64, -6.0)]));
    let session = ardour.session("gain", seconds, &with_gain, &keys())?;
    let ([stepped, _], _) = ardour.export_whole(&session, "gain")?;
    let gain_at = first_difference(&left, &stepped).ok_or("the gain did nothing")? as i64 - (GAIN * BAR) as i64;
    let after = GAIN * BAR + 2 * FRAME..left.len();
    let gain_ratio = measure::rms(&stepped[after.clone()]) / measure::rms(&left[after]);
    let session = ardour.session("no-key", seconds, &lanes(CHORDS.len()), &[])?;
    let ([without, _], _) = ardour.export_whole(&session, "no-key")?;
    let key_at = first_difference(&left, &without).ok_or("the key did nothing")? as i64 - (KEY.1 * BAR) as i64;

    // By ear: what the export sounds like from a second after each move on.
    let mut ear = Chroma::new(RATE as f64).map_err(|e| e.to_string())?;
    let mono: Vec<f32> = left.iter().zip(&right).map(|(l, r)| 0.5 * (l + r)).collect();
    let frames = ear.frames(&mono, FRAME);
    let frame_of = |seconds: f64| ((seconds * 50.0).round() as usize).min(frames.len());
    let mut heard = Vec::new();
    for (index, (bar, root, quality)) in CHORDS.iter().enumerate() {
        let chord = Chord { root: PitchClass::of_key(*root), quality: *quality };
        let end = CHORDS.get(index + 1).map_or(KEY.1, |next| next.0);
        let start = *bar as f64 * 2.0;
        let stretch = |from: f64| {
            profiles(&frames[frame_of(from)..frame_of(end as f64 * 2.0)], (STRETCH_SECONDS * 50.0) as usize)
        };
        let is_heard = |profile: &[f32; 12]| hear_chord(profile, &Quality::ALL[..2]) == Some(chord);
        let judged: Vec<bool> = stretch(start + SETTLE).iter().flatten().map(is_heard).collect();
        let share = judged.iter().filter(|right| **right).count() as f64 / judged.len().max(1) as f64;
        // The model's response: the end of the first half second that is the chord.
        let response = stretch(start)
            .iter()
            .position(|profile| profile.as_ref().is_some_and(is_heard))
            .map(|place| (place + 1) as f64 * STRETCH_SECONDS);
        let name = format!("{} {}", chord.root.name(), quality.name());
        heard.push(json!({ "bar": bar + 1, "chord": name, "share": share, "heard_within_seconds": response }));
    }
    let of_key = &frames[frame_of(KEY.1 as f64 * 2.0 + SETTLE)..];
    let key_share = share_on_target(of_key, &vec![Some(usize::from(KEY.0 % 12)); of_key.len()]);

    let in_frame = (-(REACH as i64)..=FRAME as i64).contains(&gain_at) && (gain_ratio - 10f64.powf(-0.3)).abs() < 1e-3;
    let in_time = |at: i64| (-AHEAD - (REACH as i64)..=ANSWER).contains(&at);
    let shares: Vec<f64> = heard.iter().filter_map(|own| own["share"].as_f64()).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let on_time = in_frame && late.iter().chain([&key_at]).all(|at| in_time(*at));
    let ok = same && gaps.is_empty() && cold > 0.000_5 && on_time && mean > 0.25;
    for own in &heard {
        eprintln!(
            "bar {}: {:8} {:5.1} % of half seconds, first heard within {} s",
            own["bar"],
            own["chord"].as_str().unwrap_or(""),
            100.0 * own["share"].as_f64().unwrap_or(0.0),
            own["heard_within_seconds"]
        );
    }
    eprintln!(
        "bar {}: key {} {:5.1} % of frames",
        KEY.1 + 1,
        PitchClass::of_key(KEY.0).name(),
        100.0 * key_share.unwrap_or(0.0)
    );
    eprintln!(
        "the gain step of bar {} is heard {gain_at} samples after the bar, x{gain_ratio:.4}; a frame is {FRAME}",
        GAIN + 1
    );
    eprintln!(
        "chords first change a sample {late:?} after their bars, the key {key_at}: the codec hears {AHEAD} ahead"
    );
    eprintln!(
        "two exports {}, {} gaps, {}",
        if same { "equal to the byte" } else { "DIFFER" },
        gaps.len(),
        first.display()
    );
    let report = json!({
        "ok": ok,
        "identical": same,
        "gaps": gaps.len(),
        "first_100_ms_rms": cold,
        "gain_offset_samples": gain_at,
        "gain_ratio": gain_ratio,
        "offset_samples": late,
        "key_offset_samples": key_at,
        "frame_samples": FRAME,
        "chords": heard,
        "chord_share": mean,
        "key_share": key_share,
        "wav": first,
    });
    Ok((report, ok))
}

fn main() -> ExitCode {
    let options = Options::parse();
    conclude(run(&options), options.json)
}
