//! How it sounds on the whole: cepstrum, spectrum, loudness over time, and how fast the bands move. Worker threads.

use super::super::sound::percentile;
use super::super::spectrum::{LogMel, Spectra};
use super::{CEPSTRUM, Cepstra, moments};

/// Groups of bands whose movement is looked at, as shares of all bands.
const GROUPS: [(f32, f32); 5] = [(0.0, 1.0), (0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)];
/// Edges of the bands of movement in Hz: tempo, tremolo and vibrato, roughness.
const MOVEMENT: [f32; 9] = [0.4, 1.0, 2.0, 3.2, 4.6, 6.4, 9.0, 14.0, 30.0];
/// Frames per window of movement: 2.56 s.
const WINDOW: usize = 256;

pub(super) fn write(mel: &LogMel, cepstra: &Cepstra, out: &mut Vec<f32>) {
    let loud = cepstra.loud();
    for k in 0..CEPSTRUM {
        out.extend(moments(loud.iter().map(|&frame| cepstra.rows[frame][k])));
        let slope = |&frame: &usize| cepstra.rows[(frame + 3).min(cepstra.rows.len() - 1)][k] - cepstra.rows[frame][k];
        out.push(moments(loud.iter().map(slope))[1]);
    }
    spectrum(mel, out);
    // Loudness: how far the quiet and the loud moments lie from the middle, in units of 10 dB.
    let middle = percentile(&cepstra.energy, 0.5).unwrap_or(0.0);
    for share in [0.02, 0.1, 0.25, 0.75, 0.9, 0.98] {
        out.push(0.1 * (percentile(&cepstra.energy, share).unwrap_or(0.0) - middle).max(-60.0));
    }
    out.push(loud.len() as f32 / cepstra.rows.len().max(1) as f32);
    for group in GROUPS {
        movement(mel, group, out);
    }
}

/// Logarithm of the mean power in pairs of bands: what stands out over the whole clip.
fn spectrum(mel: &LogMel, out: &mut Vec<f32>) {
    for pair in 0..mel.bands / 2 {
        let power = |frame: usize| mel.row(frame)[2 * pair].exp() + mel.row(frame)[2 * pair + 1].exp();
        let mean = (0..mel.frames()).map(power).sum::<f32>() / mel.frames().max(1) as f32;
        out.push((mean + 1e-7).ln());
    }
}

/// Logarithm of how much a group of bands moves at each speed.
fn movement(mel: &LogMel, (from, to): (f32, f32), out: &mut Vec<f32>) {
    let bands = (from * mel.bands as f32) as usize..(to * mel.bands as f32) as usize;
    let width = bands.len().max(1) as f32;
    // -80 dB below full scale is as quiet as it gets here: what the codec hisses is not the instrument.
    let level = |frame: usize| mel.row(frame)[bands.clone()].iter().map(|x| (x.exp() + 1e-6).ln()).sum::<f32>() / width;
    let levels: Vec<f32> = (0..mel.frames()).map(level).collect();
    let mean = levels.iter().sum::<f32>() / levels.len().max(1) as f32;
    let centred: Vec<f32> = levels.iter().map(|x| x - mean).collect();
    let mut sums = [0.0f32; MOVEMENT.len() - 1];
    let mut windows = 0.0f32;
    let hz = (1.0 / mel.hop_seconds) as f32 / WINDOW as f32;
    Spectra::new(WINDOW).visit(&centred, WINDOW / 2, |_, power| {
        windows += 1.0;
        for (bin, power) in power.iter().enumerate() {
            let speed = bin as f32 * hz;
            if let Some(band) = (0..sums.len()).find(|b| (MOVEMENT[*b]..MOVEMENT[b + 1]).contains(&speed)) {
                sums[band] += power;
            }
        }
    });
    out.extend(sums.map(|sum| (sum / windows.max(1.0) + 1e-6).ln()));
}
