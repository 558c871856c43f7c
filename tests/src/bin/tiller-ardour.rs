//! Eight bars in Ardour, without a window: the chord lane automated on the timeline and a region of keys, exported twice with the
//! export tool's default settings, which runs ahead of real time without saying so. Exit code 1 unless both files are the same to
//! the byte, without a gap, a drawn gain is heard within a frame of its bar, every drawn chord as soon as the model answers, and
//! the music is heard to follow the chords.
//!
//! Ardour reads a plugin's lanes at the plugin's output, so that they are heard a latency late, but not its keys. The probe, an
//! instrument of Ardour's own kind, shows how much; Tiller's lanes have to be late by exactly its own latency there, and in their
//! place where Ardour counts the latency behind the plugin (`tiller_tests::ardour`).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use tiller_engine::control::{Chord, PitchClass, Quality};
use tiller_engine::evaluation::chord_ear::{STRETCH_SECONDS, hear_chord, profiles};
use tiller_engine::evaluation::chroma::{Chroma, share_on_target};
use tiller_tests::ardour::{Ardour, Counted, Instrument, Lane, PROBE_LATENCY, RATE, Score};
use tiller_tests::host::Outcome;
use tiller_tests::measure::{self, first_difference, first_sound};
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
const REACH: i64 = 200;

/// What steers frame f draws the upper codebooks of the three frames before it (the delay pattern), and the codec hears 3,604
/// samples of the export ahead: so much earlier than its frame a move can be heard.
const AHEAD: i64 = 3 * FRAME as i64 + 3_604;

/// A steered frame may draw the very codes that an unsteered one draws, but not for long.
const ANSWER: i64 = RATE as i64 / 2;

/// Bar of the gain step, from 0.
const GAIN: usize = 4;

/// Seconds after a move that are not judged by ear: the music needs a moment to turn.
const SETTLE: f64 = 1.0;

/// Seeds of the takes that are judged by ear: what one take plays over a chord for two bars is an anecdote.
const SEEDS: [u16; 4] = [0, 1, 2, 3];

/// Least share of half seconds that are heard as the drawn chord, over all takes, out of 24 triads (and of frames whose strongest
/// tone is the key's, out of 12); and how many times the share of each chord drawn elsewhere it has to be.
const FOLLOWS: (f64, f64) = (0.5, 4.0);

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

/// The lanes with all chords and one more.
fn lanes_and(name: &'static str, points: Vec<(u64, f64)>) -> Vec<Lane<'static>> {
    let mut all = lanes(CHORDS.len());
    all.push((name, points));
    all
}

fn gain_lane() -> Vec<Lane<'static>> {
    lanes_and("Gain", vec![(0, 0.0), ((GAIN * BAR) as u64, -6.0)])
}

/// The key in ticks of the MIDI file, a little inside its bar.
fn keys() -> Vec<(u8, u32, u32)> {
    let start = KEY.1 as u32 * 4 * 480;
    vec![(KEY.0, start + 7, start + 4 * 480 - 7)]
}

/// Samples after the start of bar `bar`, counted from 0.
fn after_bar(at: usize, bar: usize) -> i64 {
    at as i64 - (bar * BAR) as i64
}

/// Sessions and their exports.
struct Studio {
    ardour: Ardour,
}

/// An export: left and right, the file, and the instrument's latency.
struct Take {
    channels: [Vec<f32>; 2],
    file: PathBuf,
    latency: i64,
}

impl Studio {
    fn take(&self, name: &str, score: &Score) -> Outcome<Take> {
        let session = self.ardour.session(name, (BARS * BAR / RATE) as u64, score)?;
        let (channels, file) = self.ardour.export_whole(&session, name)?;
        Ok(Take { channels, file, latency: session.latency as i64 })
    }

    fn tiller(&self, name: &str, counted: Counted, lanes: &[Lane], keys: &[(u8, u32, u32)]) -> Outcome<Take> {
        self.take(name, &Score { instrument: Instrument::Tiller, counted, lanes, keys })
    }

    /// How late Ardour plays the lane and the key of an instrument of its own kind, in samples.
    fn probe(&self, name: &str, counted: Counted) -> Outcome<[i64; 2]> {
        let lanes = [("Level", vec![(0, 0.0), ((GAIN * BAR) as u64, 0.5)])];
        let keys = keys();
        let take = self.take(name, &Score { instrument: Instrument::Probe, counted, lanes: &lanes, keys: &keys })?;
        let at =
            |channel: usize| first_sound(&take.channels[channel]).ok_or_else(|| format!("{name}: the probe is silent"));
        // The keys' file has 480 ticks a beat.
        let key = keys[0].1 as usize * (RATE / 2) / 480;
        Ok([after_bar(at(0)?, GAIN), at(1)? as i64 - key as i64])
    }
}

/// Where the moves of the lanes and the key are heard, in samples after their bars.
struct Moves {
    gain: i64,
    gain_ratio: f64,
    chords: Vec<i64>,
    key: i64,
}

impl Moves {
    /// Against takes that lack a move and all that follow.
    fn hear(studio: &Studio, whole: &Take) -> Outcome<Self> {
        let left = &whole.channels[0];
        let first = |other: &Take, what: &str| {
            first_difference(left, &other.channels[0]).ok_or_else(|| format!("{what} did nothing"))
        };
        let mut chords = Vec::new();
        for (count, (bar, ..)) in CHORDS.iter().enumerate().skip(1) {
            let without = studio.tiller(&format!("before-{count}"), Counted::Behind, &lanes(count), &[])?;
            chords.push(after_bar(first(&without, &format!("the chord of bar {}", bar + 1))?, *bar));
        }
        let stepped = studio.tiller("gain", Counted::Behind, &gain_lane(), &keys())?;
        let after = GAIN * BAR + 2 * FRAME..left.len();
        let gain_ratio = measure::rms(&stepped.channels[0][after.clone()]) / measure::rms(&left[after]);
        let without = studio.tiller("no-key", Counted::Behind, &lanes(CHORDS.len()), &[])?;
        let key = after_bar(first(&without, "the key")?, KEY.1);
        Ok(Self { gain: after_bar(first(&stepped, "the gain")?, GAIN), gain_ratio, chords, key })
    }

    /// A lane's value is the one at its frame's last sample, so that a step may be heard a frame early, and never late; a change
    /// of what the model draws may be heard as early as the codec hears it, and has to be heard soon.
    fn are_in_place(&self) -> bool {
        let steered = |at: i64| (-(FRAME as i64) - AHEAD - REACH..=ANSWER).contains(&at);
        within_a_frame(self.gain)
            && (self.gain_ratio - 10f64.powf(-0.3)).abs() < 1e-3
            && self.chords.iter().chain([&self.key]).all(|at| steered(*at))
    }
}

fn within_a_frame(at: i64) -> bool {
    (-(FRAME as i64) - REACH..=FRAME as i64).contains(&at)
}

/// What one take sounds like from a second after each move on.
struct Heard {
    /// For each chord, share of half seconds heard as each of the drawn chords.
    shares: [[f64; CHORDS.len()]; CHORDS.len()],
    /// For each chord, the end of the first half second that is heard as it, in seconds after its bar.
    responses: [Option<f64>; CHORDS.len()],
    /// Share of frames whose strongest pitch class is the key's.
    key: f64,
}

impl Heard {
    fn of(take: &Take) -> Outcome<Self> {
        let mut ear = Chroma::new(RATE as f64).map_err(|e| e.to_string())?;
        let mono: Vec<f32> = take.channels[0].iter().zip(&take.channels[1]).map(|(l, r)| 0.5 * (l + r)).collect();
        let frames = ear.frames(&mono, FRAME);
        let frame_of = |seconds: f64| ((seconds * 50.0).round() as usize).min(frames.len());
        let chord = |index: usize| Chord { root: PitchClass::of_key(CHORDS[index].1), quality: CHORDS[index].2 };
        let mut heard = Self { shares: Default::default(), responses: Default::default(), key: 0.0 };
        for (index, (bar, ..)) in CHORDS.iter().enumerate() {
            let end = CHORDS.get(index + 1).map_or(KEY.1, |next| next.0);
            let start = *bar as f64 * 2.0;
            let chords = |from: f64| -> Vec<Option<Chord>> {
                let stretch = &frames[frame_of(from)..frame_of(end as f64 * 2.0)];
                let profiles = profiles(stretch, (STRETCH_SECONDS * 50.0) as usize);
                profiles.iter().map(|own| hear_chord(own.as_ref()?, &Quality::ALL[..2])).collect()
            };
            let judged = chords(start + SETTLE);
            for (other, share) in heard.shares[index].iter_mut().enumerate() {
                let count = judged.iter().filter(|own| **own == Some(chord(other))).count();
                *share = count as f64 / judged.len().max(1) as f64;
            }
            let first = chords(start).iter().position(|own| *own == Some(chord(index)));
            heard.responses[index] = first.map(|place| (place + 1) as f64 * STRETCH_SECONDS);
        }
        let of_key = &frames[frame_of(KEY.1 as f64 * 2.0 + SETTLE)..];
        heard.key = share_on_target(of_key, &vec![Some(usize::from(KEY.0 % 12)); of_key.len()]).map_or(0.0, f64::from);
        Ok(heard)
    }
}

/// What the takes come to by ear: for each chord its share, the mean share of the other drawn chords, and the median response.
struct Followed {
    chords: Vec<(f64, f64, Option<f64>)>,
    key: f64,
}

impl Followed {
    fn of(takes: &[Heard]) -> Self {
        let mean = |of: &dyn Fn(&Heard) -> f64| takes.iter().map(of).sum::<f64>() / takes.len().max(1) as f64;
        let chords = (0..CHORDS.len()).map(|index| {
            let others = (0..CHORDS.len()).filter(|other| *other != index);
            let other = others.map(|other| mean(&|take| take.shares[index][other])).sum::<f64>();
            let mut responses: Vec<f64> = takes.iter().filter_map(|take| take.responses[index]).collect();
            responses.sort_by(f64::total_cmp);
            let median = responses.get(responses.len() / 2).copied();
            (mean(&|take| take.shares[index][index]), other / (CHORDS.len() - 1) as f64, median)
        });
        Self { chords: chords.collect(), key: mean(&|take| take.key) }
    }

    fn share(&self) -> f64 {
        self.chords.iter().map(|own| own.0).sum::<f64>() / self.chords.len() as f64
    }

    fn elsewhere(&self) -> f64 {
        self.chords.iter().map(|own| own.1).sum::<f64>() / self.chords.len() as f64
    }

    /// Over all chords, and each more than the ones that are drawn elsewhere.
    fn follows(&self) -> bool {
        let (least, times) = FOLLOWS;
        let each = self.chords.iter().all(|(own, other, _)| own > other);
        each && self.share() >= least && self.share() >= times * self.elsewhere() && self.key >= least
    }
}

fn run(options: &Options) -> Outcome<(Value, bool)> {
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
    let out = options.out.canonicalize().map_err(|e| e.to_string())?;
    let studio = Studio { ardour: Ardour::new(&out, &options.bundle)? };

    // Ardour itself, with nothing of ours.
    let probe = studio.probe("probe", Counted::There)?;
    let probe_behind = studio.probe("probe-behind", Counted::Behind)?;
    let law = probe == [PROBE_LATENCY as i64, 0] && probe_behind == [0, 0];

    // As every new session is: the same file twice, and lanes as late as Ardour plays them.
    let all = lanes(CHORDS.len());
    let first = studio.tiller("first", Counted::There, &all, &keys())?;
    let second = studio.tiller("second", Counted::There, &all, &keys())?;
    let read = |take: &Take| std::fs::read(&take.file).map_err(|e| format!("{}: {e}", take.file.display()));
    let same = read(&first)? == read(&second)?;
    let cold = measure::rms(&first.channels[0][..RATE / 10]);
    let stepped = studio.tiller("gain-there", Counted::There, &gain_lane(), &keys())?;
    let there = first_difference(&first.channels[0], &stepped.channels[0]).ok_or("the gain did nothing")?;
    let there = after_bar(there, GAIN);

    // With the latency counted behind the plugin.
    let mut takes = Vec::new();
    for seed in SEEDS {
        let lanes = lanes_and("Seed", vec![(0, f64::from(seed))]);
        takes.push(studio.tiller(&format!("seed-{seed}"), Counted::Behind, &lanes, &keys())?);
    }
    let whole = studio.tiller("whole", Counted::Behind, &all, &keys())?;
    let moves = Moves::hear(&studio, &whole)?;
    let heard = takes.iter().map(Heard::of).collect::<Outcome<Vec<_>>>()?;
    let followed = Followed::of(&heard);
    let gaps: usize =
        takes.iter().chain([&first, &whole]).map(|take| measure::gaps(&take.channels[0], RATE as f64).len()).sum();

    let on_time = within_a_frame(there - first.latency) && moves.are_in_place();
    let ok = law && same && gaps == 0 && cold > 0.000_5 && on_time && followed.follows();
    let mut chords = Vec::new();
    for ((bar, root, quality), (share, other, response)) in CHORDS.iter().zip(&followed.chords) {
        let name = format!("{} {}", PitchClass::of_key(*root).name(), quality.name());
        eprintln!(
            "bar {}: {name:8} {:5.1} % of half seconds, {:4.1} % each chord drawn elsewhere; first heard within {} s",
            bar + 1,
            100.0 * share,
            100.0 * other,
            response.map_or("no".to_owned(), |seconds| format!("{seconds:.1}"))
        );
        chords.push(json!({
            "bar": bar + 1, "chord": name, "share": share, "share_elsewhere": other, "heard_within_seconds": response
        }));
    }
    let key = PitchClass::of_key(KEY.0).name();
    eprintln!("bar {}: key {key} {:5.1} % of frames; {} takes", KEY.1 + 1, 100.0 * followed.key, SEEDS.len());
    eprintln!(
        "Ardour's own: an instrument of {PROBE_LATENCY} samples' latency plays its lane {} and its key {} samples late, with the \
         latency counted behind it {} and {}",
        probe[0], probe[1], probe_behind[0], probe_behind[1]
    );
    eprintln!(
        "the gain step of bar {} is heard {there} samples after the bar, Tiller's latency is {}; counted behind it {}, x{:.4}; a \
         frame is {FRAME}",
        GAIN + 1,
        first.latency,
        moves.gain,
        moves.gain_ratio
    );
    eprintln!(
        "chords first change a sample {:?} after their bars, the key {}: the delay pattern and the codec reach {AHEAD} ahead",
        moves.chords, moves.key
    );
    eprintln!(
        "two exports {}, {gaps} gaps, {}",
        if same { "equal to the byte" } else { "DIFFER" },
        first.file.display()
    );
    let report = json!({
        "ok": ok,
        "identical": same,
        "gaps": gaps,
        "first_100_ms_rms": cold,
        "latency_samples": first.latency,
        "ardour_latency_samples": PROBE_LATENCY,
        "ardour_lane_offset_samples": probe[0],
        "ardour_key_offset_samples": probe[1],
        "ardour_offsets_counted_behind": probe_behind,
        "gain_offset_there_samples": there,
        "gain_offset_samples": moves.gain,
        "gain_ratio": moves.gain_ratio,
        "offset_samples": moves.chords,
        "key_offset_samples": moves.key,
        "frame_samples": FRAME,
        "takes": SEEDS.len(),
        "chords": chords,
        "chord_share": followed.share(),
        "chord_share_elsewhere": followed.elsewhere(),
        "key_share": followed.key,
        "wav": first.file,
        "wav_in_place": whole.file,
    });
    Ok((report, ok))
}

fn main() -> ExitCode {
    let options = Options::parse();
    conclude(run(&options), options.json)
}
