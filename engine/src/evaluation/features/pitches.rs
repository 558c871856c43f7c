//! Which pitches sound together and one after another, and the partials of the strongest. Worker threads.
//! Iterative multiple pitches by harmonic sums (after Klapuri, "Multiple fundamental frequency estimation by summing
//! harmonic amplitudes", ISMIR 2006), on a grid of semitones.

use super::super::onsets::Onsets;
use super::super::spectrum::Spectra;
use super::{cosine, histogram, moments};

/// Lowest semitone of the grid, as a MIDI note, and their number.
const LOWEST: usize = 26;
const TONES: usize = 96;
/// Semitones of partials 1 to 8 above the fundamental.
const PARTIALS: [usize; 8] = [0, 12, 19, 24, 28, 31, 34, 36];
/// Weight of a partial relative to the one below.
const DECAY: f32 = 0.8;
/// Voices looked for in a frame, and how strong one must be beside the first.
const VOICES: usize = 5;
const WEAKEST: f32 = 0.3;
/// Seconds between frames and length of a window.
const HOP: f64 = 0.04;
const WINDOW: f64 = 0.192;

/// Numbers that are written.
pub(super) const COUNT: usize = 92;

/// What one frame holds.
struct Frame {
    /// Amplitude on each semitone.
    tones: [f32; TONES],
    /// Indices of the voices found, strongest first.
    voices: Vec<usize>,
    /// Logarithm of each partial's share of the strongest voice's amplitude.
    partials: [f32; PARTIALS.len()],
    /// Amplitude off the partials of every voice, as a share of the whole.
    rest: f32,
}

pub(super) fn write(mono: &[f32], rate: f64, onsets: &Onsets, out: &mut Vec<f32>) {
    let hop = (rate * HOP).round() as usize;
    let size = 2 * (rate * WINDOW / 2.0).round() as usize;
    let mut frames = Vec::with_capacity(Spectra::count(mono.len(), hop));
    Spectra::new(size).visit(mono, hop, |_, power| frames.push(tones(power, rate / size as f64)));
    let loudest = frames.iter().map(|tones| tones.iter().sum::<f32>()).fold(0.0, f32::max);
    let sounding = |tones: &[f32; TONES]| tones.iter().sum::<f32>() > 0.01 * loudest;
    let frames: Vec<Frame> = frames.into_iter().filter(sounding).map(voices).collect();
    together(&frames, out);
    registers(&frames, out);
    one_after_another(&frames, out);
    across_strikes(mono.len() as f64 / rate, &frames, onsets, out);
    over_the_clip(&frames, out);
    for partial in 0..PARTIALS.len() {
        out.extend(moments(frames.iter().map(|f| f.partials[partial])));
    }
    out.extend(moments(frames.iter().map(|f| f.rest)));
}

/// Amplitudes of the spectrum's peaks, each on its nearest semitone.
fn tones(power: &[f32], bin: f64) -> [f32; TONES] {
    let mut tones = [0.0; TONES];
    for k in 2..power.len() - 1 {
        let [below, here, above] = [power[k - 1], power[k], power[k + 1]];
        if here <= below || here < above || here < 1e-9 {
            continue;
        }
        let [l, c, r] = [below, here, above].map(|p| f64::from(p.max(1e-14)).ln());
        let frequency = (k as f64 + 0.5 * (l - r) / (l - 2.0 * c + r).min(-1e-9)) * bin;
        let tone = (69.0 + 12.0 * (frequency / 440.0).log2()).round() as i64 - LOWEST as i64;
        if let Some(slot) = usize::try_from(tone).ok().and_then(|tone| tones.get_mut(tone)) {
            *slot += here.sqrt();
        }
    }
    tones
}

fn voices(tones: [f32; TONES]) -> Frame {
    let at = |tones: &[f32; TONES], i: usize| tones.get(i).copied().unwrap_or(0.0);
    let mut rest = tones;
    let (mut voices, mut first) = (Vec::new(), 0.0f32);
    let strongest = tones.iter().copied().fold(0.0, f32::max);
    for _ in 0..VOICES {
        let salience = |tone: usize| {
            let mut weight = 1.0 / DECAY;
            let partial = |step: &usize| {
                weight *= DECAY;
                weight * at(&rest, tone + step)
            };
            // A voice has its fundamental: without this, octaves below would gather the partials of those above.
            let sum: f32 = PARTIALS.iter().map(partial).sum();
            if at(&rest, tone) > 0.04 * strongest { sum } else { 0.0 }
        };
        let best = (0..TONES).map(|t| (t, salience(t))).fold((0, 0.0f32), |a, b| if b.1 > a.1 { b } else { a });
        if best.1 <= WEAKEST * first || best.1 <= 0.0 {
            break;
        }
        first = first.max(best.1);
        voices.push(best.0);
        for (n, step) in PARTIALS.iter().enumerate() {
            if let Some(slot) = rest.get_mut(best.0 + step) {
                *slot *= if n == 0 { 0.0 } else { 0.25 };
            }
        }
    }
    let fundamental = voices.first().copied().unwrap_or(0);
    let amplitudes = PARTIALS.map(|step| at(&tones, fundamental + step));
    let sum: f32 = amplitudes.iter().sum::<f32>().max(1e-9);
    let whole: f32 = tones.iter().sum::<f32>().max(1e-9);
    Frame { tones, voices, partials: amplitudes.map(|a| (a / sum + 1e-3).ln()), rest: rest.iter().sum::<f32>() / whole }
}

/// How many sound at once, and how the strongest semitones compare.
fn together(frames: &[Frame], out: &mut Vec<f32>) {
    let numbers: Vec<f32> = frames.iter().map(|f| f.voices.len() as f32).collect();
    out.extend(moments(numbers.iter().copied()));
    histogram(&numbers, &[1.5, 2.5, 3.5, 4.5], out);
    let mut sorted = [0.0f32; 8];
    for frame in frames {
        let mut tones = frame.tones;
        tones.sort_by(|a, b| b.total_cmp(a));
        sorted.iter_mut().zip(&tones[1..]).for_each(|(sum, a)| *sum += a / tones[0].max(1e-9) / frames.len() as f32);
    }
    out.extend(sorted);
}

/// Highest, lowest and strongest voice, in octaves above the grid's start.
fn registers(frames: &[Frame], out: &mut Vec<f32>) {
    let octaves = |tone: Option<&usize>| tone.copied().unwrap_or(0) as f32 / 12.0;
    out.extend(moments(frames.iter().map(|f| octaves(f.voices.iter().max()))));
    out.extend(moments(frames.iter().map(|f| octaves(f.voices.iter().min()))));
    out.extend(moments(frames.iter().map(|f| octaves(f.voices.first()))));
}

/// Steps of the strongest voice, and how alike frames are that lie some time apart.
fn one_after_another(frames: &[Frame], out: &mut Vec<f32>) {
    let step = |lag: usize| -> Vec<f32> {
        let pairs = frames.iter().zip(frames.iter().skip(lag));
        let tone = |frame: &Frame| frame.voices.first().map(|tone| *tone as f32);
        pairs.filter_map(|(a, b)| Some((tone(b)? - tone(a)?).abs())).collect()
    };
    histogram(&step(2), &[0.5, 2.5, 4.5, 5.5, 7.5, 11.5, 12.5], out);
    histogram(&step(6), &[0.5, 2.5, 4.5, 5.5, 7.5, 11.5, 12.5], out);
    for lag in [2, 4, 8, 16, 32, 64] {
        let alike = || frames.iter().zip(frames.iter().skip(lag)).map(|(a, b)| cosine(&a.tones, &b.tones));
        out.extend(moments(alike()));
        let chroma = || frames.iter().zip(frames.iter().skip(lag)).map(|(a, b)| cosine(&folded(a), &folded(b)));
        out.push(moments(chroma())[0]);
    }
}

fn folded(frame: &Frame) -> [f32; 12] {
    let mut chroma = [0.0; 12];
    frame.tones.iter().enumerate().for_each(|(tone, a)| chroma[tone % 12] += a);
    chroma
}

/// Whether a strike brings other pitches or the same again.
fn across_strikes(seconds: f64, frames: &[Frame], onsets: &Onsets, out: &mut Vec<f32>) {
    let per_second = frames.len() as f64 / seconds.max(1e-3);
    let place = |onset: usize, shift: f64| ((onset as f64 * onsets.hop_seconds + shift) * per_second) as usize;
    let alike = |&onset: &usize| {
        let (before, after) = (frames.get(place(onset, -0.1))?, frames.get(place(onset, 0.14))?);
        let again = after.voices.iter().filter(|tone| before.voices.contains(tone)).count();
        Some((cosine(&before.tones, &after.tones), again as f32 / after.voices.len().max(1) as f32))
    };
    let pairs: Vec<(f32, f32)> = onsets.frames.iter().filter_map(alike).collect();
    out.extend(moments(pairs.iter().map(|p| p.0)));
    out.extend(moments(pairs.iter().map(|p| p.1)));
    let cosines: Vec<f32> = pairs.iter().map(|p| p.0).collect();
    histogram(&cosines, &[0.3, 0.6, 0.8, 0.93], out);
    let again: Vec<f32> = pairs.iter().map(|p| p.1).collect();
    histogram(&again, &[0.01, 0.5, 0.99], out);
}

/// How many semitones the clip uses and how wide they lie.
fn over_the_clip(frames: &[Frame], out: &mut Vec<f32>) {
    let mut uses = [0.0f32; TONES];
    frames.iter().flat_map(|f| &f.voices).for_each(|tone| uses[*tone] += 1.0);
    let sum = uses.iter().sum::<f32>().max(1.0);
    let entropy: f32 = uses.iter().map(|u| u / sum).filter(|p| *p > 0.0).map(|p| -p * p.log2()).sum();
    let place = |share: f32| {
        let mut below = 0.0;
        let reached = |u: &f32| {
            below += u / sum;
            below >= share
        };
        uses.iter().position(reached).unwrap_or(0) as f32 / 12.0
    };
    let used = uses.iter().filter(|u| **u > 0.03 * sum).count() as f32;
    out.extend([entropy, used, place(0.05), place(0.5), place(0.95), place(0.95) - place(0.05)]);
}

#[cfg(test)]
mod tests {
    use super::super::super::spectrum::signals::RATE;
    use super::*;

    /// Voices of the middle of a sound of harmonic tones, as MIDI notes in rising order.
    fn heard(notes: &[usize]) -> Vec<usize> {
        let sample = |i: usize| {
            let tone = |note: &usize| {
                let f0 = 440.0 * 2f64.powf((*note as f64 - 69.0) / 12.0);
                let partial = |n: usize| (std::f64::consts::TAU * f0 * n as f64 * i as f64 / RATE).sin() / n as f64;
                (1..=6).map(partial).sum::<f64>()
            };
            (0.1 * notes.iter().map(tone).sum::<f64>()) as f32
        };
        let audio: Vec<f32> = (0..16_000).map(sample).collect();
        let mut found = Vec::new();
        Spectra::new(6_144).visit(&audio, 16_000, |_, power| {
            found = voices(tones(power, RATE / 6_144.0)).voices.iter().map(|tone| tone + LOWEST).collect();
        });
        found.sort_unstable();
        found
    }

    #[test]
    fn as_many_numbers_are_written_as_said() {
        let audio: Vec<f32> = (0..64_000).map(|i| (i as f32 * 0.07).sin() * 0.3).collect();
        let mut out = Vec::new();
        write(&audio, RATE, &Onsets::of(&audio, RATE), &mut out);
        assert_eq!(out.len(), COUNT);
    }

    #[test]
    fn single_tones_and_triads_are_taken_apart() {
        for note in 36..84 {
            assert_eq!(heard(&[note]), [note]);
        }
        let (mut right, mut all) = (0, 0);
        for root in 50..72 {
            for third in [3, 4] {
                all += 1;
                right += usize::from(heard(&[root, root + third, root + 7]) == [root, root + third, root + 7]);
            }
        }
        assert!(right * 10 >= all * 8, "{right} of {all} triads");
    }
}
