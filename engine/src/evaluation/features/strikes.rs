//! How notes begin and die away, and in what rhythm. Worker threads.

use super::super::onsets::Onsets;
use super::super::sound::percentile;
use super::super::spectrum::LogMel;
use super::{Cepstra, histogram, moments};

/// Moments around a strike at which the sound is looked at, in frames of 10 ms.
const AROUND: [isize; 7] = [-3, 2, 5, 10, 18, 30, 50];
/// Cepstral coefficients looked at there.
const COEFFICIENTS: usize = 13;
/// Edges of a histogram of the times between strikes, in seconds.
const TIMES: [f32; 8] = [0.13, 0.19, 0.26, 0.36, 0.5, 0.7, 1.0, 1.6];

pub(super) fn write(mel: &LogMel, cepstra: &Cepstra, onsets: &Onsets, out: &mut Vec<f32>) {
    shape(cepstra, onsets, out);
    spread(mel, onsets, out);
    rhythm(onsets, out);
}

/// The mean sound at each moment around a strike, over the strikes that no other one follows before that moment.
fn shape(cepstra: &Cepstra, onsets: &Onsets, out: &mut Vec<f32>) {
    let last = cepstra.rows.len() as isize - 1;
    let row = |frame: isize| cepstra.rows[frame.clamp(0, last) as usize];
    let reference = |strike: usize| cepstra.energy[(strike as isize + 2).clamp(0, last) as usize];
    for offset in AROUND {
        let alone = |i: usize| {
            let next = onsets.frames.get(i + 1).map_or(last, |next| *next as isize - 2);
            onsets.frames[i] as isize + offset <= next
        };
        let mut strikes: Vec<usize> =
            (0..onsets.frames.len()).filter(|i| alone(*i)).map(|i| onsets.frames[i]).collect();
        // Too few to say anything: all of them then, whatever follows; without any strike, the whole clip.
        if strikes.len() < 2 {
            strikes.clone_from(&onsets.frames);
        }
        let count = strikes.len() as f32;
        let mut mean = [0.0f32; COEFFICIENTS];
        let mut energy = 0.0;
        for &strike in &strikes {
            let frame = strike as isize + offset;
            mean.iter_mut().zip(row(frame)).for_each(|(sum, x)| *sum += x / count);
            energy += (cepstra.energy[frame.clamp(0, last) as usize] - reference(strike)) / count;
        }
        if strikes.is_empty() {
            for k in 1..COEFFICIENTS {
                mean[k] = moments(cepstra.rows.iter().map(|row| row[k]))[0];
            }
        }
        out.push(0.1 * energy.max(-60.0));
        out.extend_from_slice(&mean[1..]);
    }
}

/// In which bands strikes stand out: rise over 30 ms in groups of six bands.
fn spread(mel: &LogMel, onsets: &Onsets, out: &mut Vec<f32>) {
    const WIDTH: usize = 6;
    for first in (0..mel.bands).step_by(WIDTH) {
        let level = |frame: usize| mel.row(frame).iter().skip(first).take(WIDTH).sum::<f32>() / WIDTH as f32;
        let rise = |&strike: &usize| level(strike + 1) - level(strike.saturating_sub(3));
        out.extend(moments(onsets.frames.iter().map(rise)));
    }
}

fn rhythm(onsets: &Onsets, out: &mut Vec<f32>) {
    out.push(onsets.rate() as f32);
    let strength: Vec<f32> = onsets.frames.iter().map(|frame| onsets.flux[*frame]).collect();
    out.extend(moments(strength.iter().copied()));
    let times: Vec<f32> = onsets.intervals().into_iter().map(|t| t as f32).collect();
    let middle = percentile(&times, 0.5).unwrap_or(2.0);
    out.push(middle.ln());
    for share in [0.1, 0.25, 0.75, 0.9] {
        out.push((percentile(&times, share).unwrap_or(middle) / middle).ln());
    }
    out.push(times.iter().filter(|t| (*t / middle - 1.0).abs() < 0.15).count() as f32 / times.len().max(1) as f32);
    histogram(&times, &TIMES, out);
    periodicity(&onsets.flux, out);
}

/// How well the flux repeats: autocorrelation at its best lag between 0.12 and 2 s, at half and at twice that lag.
fn periodicity(flux: &[f32], out: &mut Vec<f32>) {
    let [mean, deviation] = moments(flux.iter().copied());
    let power = (deviation * deviation * flux.len() as f32).max(1e-9);
    let at =
        |lag: usize| flux.iter().zip(flux.iter().skip(lag)).map(|(a, b)| (a - mean) * (b - mean)).sum::<f32>() / power;
    let best = (12..200).map(|lag| (lag, at(lag))).fold((12, f32::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
    out.extend([(best.0 as f32 / 100.0).ln(), best.1, at(best.0 / 2), at(best.0 * 2)]);
}
