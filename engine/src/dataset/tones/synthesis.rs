//! Makes a tone's sample at one key by adding sinusoids: an onset in which each has a course of its own, then a loop in which
//! they stay. Every frequency fits a whole number of times into the loop, so that its seam cannot be heard. Any thread.

use super::file::Sample;
use super::palette::{Body, Tone};
use crate::dataset::random::Random;
use std::f64::consts::TAU;

/// About how many samples a second a sample has, and a loop.
const RATE: f64 = 32_000.0;
const LOOP: f64 = 16_384.0;

/// Hz that no partial exceeds: played four semitones higher, it must stay below half the rate.
const HIGHEST: f64 = 11_000.0;

/// Root mean square of the first third of a second, of full scale, and the largest sample.
const LEVEL: f64 = 0.16;
const PEAK: f64 = 0.95;

/// Distinguishes these draws from others.
const PURPOSE: u64 = 31;

/// One sinusoid: cycles in a loop, amplitude at the start and in the loop, seconds of its way from one to the other.
#[derive(Clone, Copy)]
struct Partial {
    cycles: f64,
    from: f64,
    to: f64,
    seconds: f64,
    phase: f64,
}

/// The sample of a tone at a key.
pub fn sample(tone: &Tone, key: u8) -> Sample {
    let hertz = 440.0 * 2f64.powf((f64::from(key) - 69.0) / 12.0);
    // A whole number of samples a period; the rate makes up for it, to a thirtieth of a cent.
    let period = (RATE / hertz).round();
    let rate = (period * hertz).round();
    let periods = (LOOP / period).round();
    let length = (period * periods) as usize;
    let onset = (tone.onset() * rate) as usize;
    let mut random = Random::new(u64::from(key), tone.name.bytes().map(u64::from).sum(), PURPOSE);
    let mut audio = vec![0.0f64; onset + length];
    for partial in partials(tone, hertz, periods, &mut random) {
        add(&mut audio, partial, onset, length, rate);
    }
    add_noise(&mut audio, tone, (onset, length), rate, &mut random);
    Sample { data: quantised(&audio, rate), rate: rate as u32, loop_start: onset }
}

fn partials(tone: &Tone, hertz: f64, periods: f64, random: &mut Random) -> Vec<Partial> {
    let mut all = Vec::new();
    for (ratio, amplitude) in tone.spectrum(hertz, HIGHEST) {
        let (from, to, seconds) = match tone.body {
            // What is left in the loop falls with the envelope, which is that of the slowest partial.
            Body::Struck { damping, .. } => {
                let rate = damping * ((ratio - 1.0) + (ratio * hertz / 2_500.0).powi(2));
                (amplitude, amplitude * (-rate * tone.onset()).exp(), 1.0 / rate.max(1e-6))
            }
            // High partials come later.
            Body::Held { bloom, .. } => (0.0, amplitude, bloom * ratio.sqrt()),
        };
        let exact = ratio * periods;
        let spread = match tone.body {
            Body::Held { spread, .. } => exact * (2f64.powf(spread / 1_200.0) - 1.0),
            Body::Struck { .. } => 0.0,
        };
        // Several players are a cluster around the pitch, thinner towards its sides.
        let players: &[(f64, f64)] = match spread > 0.0 {
            true => &[(0.0, 1.0), (-0.5, 0.7), (0.5, 0.7), (-1.0, 0.45), (1.0, 0.45)],
            false => &[(0.0, 1.0)],
        };
        for (side, share) in players {
            let cycles = (exact + side * spread).round();
            let phase = TAU * random.unit();
            all.push(Partial { cycles, from: share * from, to: share * to, seconds, phase });
        }
    }
    all
}

/// Adds a partial, several samples at a time: each is the one before it, turned.
fn add(audio: &mut [f64], partial: Partial, onset: usize, length: usize, rate: f64) {
    const BLOCK: usize = 16;
    let step = TAU * partial.cycles / length as f64;
    let (mut sines, mut cosines) = ([0.0; BLOCK], [0.0; BLOCK]);
    for i in 0..BLOCK {
        (sines[i], cosines[i]) = (step * i as f64).sin_cos();
    }
    let quick = (-(BLOCK as f64) / (partial.seconds * rate)).exp();
    let struck = partial.from > partial.to;
    // From its start, or up to its level, exponentially; a struck one goes on falling as it did.
    let (mut level, goal) = (partial.from, if struck { 0.0 } else { partial.to });
    for (block, out) in audio.chunks_mut(BLOCK).enumerate() {
        let at = block * BLOCK;
        let next = if at < onset { goal + (level - goal) * quick } else { partial.to };
        // What the onset has reached goes over into the loop, whose level stays.
        let slope = if at >= onset { 0.0 } else { (next - level) / BLOCK as f64 };
        let start = if at >= onset { partial.to } else { level };
        let (sine, cosine) = (partial.phase + step * at as f64).sin_cos();
        for (i, out) in out.iter_mut().enumerate() {
            *out += (start + slope * i as f64) * (sine * cosines[i] + cosine * sines[i]);
        }
        level = next;
    }
}

/// The hammer's or the breath's.
fn add_noise(audio: &mut [f64], tone: &Tone, (onset, length): (usize, usize), rate: f64, random: &mut Random) {
    let (level, hertz) = tone.noise;
    if level == 0.0 {
        return;
    }
    // Twice through the same stretch, so that the filter's state at its end is that at its start.
    let white: Vec<f64> = (0..length).map(|_| 2.0 * random.unit() - 1.0).collect();
    let keep = (-TAU * hertz / rate).exp();
    let mut state = 0.0;
    let mut noise = vec![0.0; length];
    for i in 0..2 * length {
        state = keep * state + (1.0 - keep) * white[i % length];
        noise[i % length] = state;
    }
    let size = (noise.iter().map(|x| x * x).sum::<f64>() / length as f64).sqrt().max(1e-9);
    let sounding = (audio[..onset.max(1_600)].iter().map(|x| x * x).sum::<f64>() / onset.max(1_600) as f64).sqrt();
    let scale = level * sounding / size;
    for (i, out) in audio.iter_mut().enumerate() {
        let shape = match tone.body {
            Body::Struck { knock, .. } if i < onset => (-(i as f64) / (knock * rate)).exp(),
            Body::Struck { .. } => 0.0,
            Body::Held { .. } => 1.0,
        };
        // The loop's noise is there before the loop already.
        *out += scale * shape * noise[(i + length - onset % length) % length];
    }
}

fn quantised(audio: &[f64], rate: f64) -> Vec<i16> {
    let first = &audio[..audio.len().min((rate / 3.0) as usize)];
    let rms = (first.iter().map(|x| x * x).sum::<f64>() / first.len() as f64).sqrt();
    let peak = audio.iter().fold(0.0f64, |peak, x| peak.max(x.abs()));
    let scale = (LEVEL / rms.max(1e-9)).min(PEAK / peak.max(1e-9));
    audio.iter().map(|x| (scale * x * 32_767.0).round() as i16).collect()
}
