//! What a checkpoint's codec does to rendered music that it was never trained on. Worker threads.

use super::EvaluationError;
use super::chroma::{Chroma, strongest};
use super::sound::percentile;
use super::spectrum::{LogMel, Spectra};
use crate::checkpoint::{Checkpoint, CheckpointSource};
use crate::codec::{CodecDecoder, CodecEncoder, Codes};
use crate::dataset::SAMPLE_RATE;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Both directions of a codec.
pub struct Codec {
    encoder: CodecEncoder,
    decoder: Arc<CodecDecoder>,
    fingerprint: String,
}

/// Samples between frames of the ear here: 20 ms.
const HOP: usize = SAMPLE_RATE / 50;
/// How far below the original's strongest pitch class the decoded one may lie there: 1 dB of energy.
const ONE_DECIBEL: f32 = 0.794_328_2;
/// Window of the long-term spectra.
const SPECTRUM: usize = 4096;
/// Edges of the bands whose levels are compared, in Hz.
const BANDS: [f64; 8] = [50.0, 500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0, 12_000.0, 15_900.0];
/// Distance of the lines that the 32 kHz codec's upsampling may leave, in Hz: 50 frames/s through its ratios 8 and 5.
const LINE_SPACING: usize = 2_000;

impl Codec {
    /// Reads the encoder of a checkpoint; its decoder is the loaded model's.
    ///
    /// # Errors
    /// When the encoder cannot be read, or the codec does not take mono audio at 32 kHz.
    pub fn load(source: &CheckpointSource, decoder: Arc<CodecDecoder>) -> Result<Self, EvaluationError> {
        let checkpoint = Checkpoint::load(source, &|_| ())?;
        let config = &checkpoint.config;
        let found = config.codec.sampling_rate;
        if found as usize != SAMPLE_RATE || config.codec.audio_channels != 1 {
            return Err(EvaluationError::SampleRate { checkpoint: checkpoint.name, found, expected: SAMPLE_RATE });
        }
        let codebooks = config.decoder.codebooks_per_channel();
        let encoder = CodecEncoder::load(&checkpoint.weights, &config.codec, codebooks)?;
        let mut codec = Self { encoder, decoder, fingerprint: String::new() };
        codec.fingerprint = codec.take_fingerprint()?;
        Ok(codec)
    }

    /// Hash of what it makes of a fixed sound, hex: the same for the same codec in another checkpoint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Codes of mono audio, and the audio that they decode to, as long as the original.
    ///
    /// # Errors
    /// When the codec refuses its input.
    pub fn round_trip(&self, audio: &[f32]) -> Result<(Codes, Vec<f32>), EvaluationError> {
        let codes = self.encoder.encode(audio)?;
        let mut decoded = self.decoder.decode(&codes)?;
        decoded.truncate(audio.len());
        Ok((codes, decoded))
    }

    fn take_fingerprint(&self) -> Result<String, EvaluationError> {
        let sweep: Vec<f32> = (0..SAMPLE_RATE / 2).map(|i| 0.3 * (i as f32 * i as f32 * 2e-5).sin()).collect();
        let (codes, audio) = self.round_trip(&sweep)?;
        let mut digest = Sha256::new();
        codes.frame_major().iter().for_each(|code| digest.update(code.to_le_bytes()));
        // Coarse on purpose: the last bits differ between processors.
        audio.iter().for_each(|x| digest.update(((x * 256.0).round() as i16).to_le_bytes()));
        Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// One clip before and after.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// Frames in which the original sounds.
    pub sounding: u32,
    /// Of these, frames whose decoded strongest pitch class is the original's or within 1 dB of it there.
    pub agreeing: u32,
    /// Of these, frames with the very same strongest pitch class.
    pub same: u32,
    /// `[codebook][frame]`.
    pub codes: Vec<Vec<u32>>,
    /// Scale-invariant signal-to-distortion ratio in dB.
    pub si_sdr: f32,
    /// Mean distance of the natural logarithm of the amplitude in 80 mel bands.
    pub log_mel_distance: f32,
    /// Level of decoded over original in each of the bands (see [`CodecReport::band_edges_hz`]), in dB.
    pub bands_db: Vec<f32>,
    /// The same above 12 kHz as share of frames that have 6 dB more than the original and more than -80 dB.
    pub buzz: f32,
    /// How far lines at multiples of 2 kHz stand out of the decoded spectrum beyond the original's, in dB.
    pub lines_db: f32,
}

/// The figures of a codec.
#[derive(Debug, Clone, Serialize)]
pub struct CodecReport {
    /// Clips that were heard.
    pub clips: usize,
    /// Share of sounding frames whose strongest pitch class survives or lies within 1 dB of the original's.
    pub chroma_agreement: f32,
    /// The same without the allowance.
    pub chroma_agreement_strict: f32,
    /// Two to the entropy of each codebook's use over all clips.
    pub perplexity: Vec<f32>,
    /// Codes of a codebook.
    pub codebook_size: usize,
    /// Median over clips, in dB.
    pub si_sdr: f32,
    /// Mean over clips, in nats of amplitude.
    pub log_mel_distance: f32,
    /// Median level difference above 12 kHz in dB; positive is buzz.
    pub above_12_khz_db: f32,
    /// Edges of the bands in Hz.
    pub band_edges_hz: [f64; 8],
    /// Median level difference in each band in dB.
    pub bands_db: Vec<f32>,
    /// Mean share of frames with 6 dB more than the original above 12 kHz.
    pub buzz_share: f32,
    /// Mean over clips, in dB.
    pub lines_db: f32,
}

impl Comparison {
    /// Compares a clip at 32 kHz with what came back, equally long.
    ///
    /// # Errors
    /// When the ear cannot be set up.
    pub fn of(original: &[f32], decoded: &[f32], codes: &Codes) -> Result<Self, EvaluationError> {
        let mut ear = Chroma::new(SAMPLE_RATE as f64)?;
        let (before, after) = (ear.frames(original, HOP), ear.frames(decoded, HOP));
        let (mut sounding, mut agreeing, mut same) = (0, 0, 0);
        for (before, after) in before.iter().zip(&after) {
            let Some(wanted) = strongest(before) else { continue };
            sounding += 1;
            let Some(found) = strongest(after) else { continue };
            same += u32::from(found == wanted);
            agreeing += u32::from(before[found] >= ONE_DECIBEL * before[wanted]);
        }
        let (wanted, made) = (frame_powers(original), frame_powers(decoded));
        Ok(Self {
            sounding,
            agreeing,
            same,
            codes: (0..codes.codebooks()).map(|k| codes.codebook(k).to_vec()).collect(),
            si_sdr: si_sdr(decoded, original),
            log_mel_distance: log_mel_distance(decoded, original),
            bands_db: BANDS.windows(2).map(|edges| band_db(&made, &wanted, edges[0], edges[1])).collect(),
            buzz: buzz(&made, &wanted),
            lines_db: lines_db(&mean(&made), &mean(&wanted)),
        })
    }
}

/// The figures over many clips.
pub fn report(clips: &[Comparison], codebook_size: usize) -> CodecReport {
    let sum = |value: fn(&Comparison) -> u32| clips.iter().map(value).sum::<u32>() as f32;
    let all = |value: &dyn Fn(&Comparison) -> f32| clips.iter().map(value).collect::<Vec<f32>>();
    let average = |values: Vec<f32>| values.iter().sum::<f32>() / values.len().max(1) as f32;
    let median = |values: Vec<f32>| percentile(&values, 0.5).unwrap_or(0.0);
    let sounding = sum(|c| c.sounding).max(1.0);
    let band = |band: usize| median(all(&|c| c.bands_db.get(band).copied().unwrap_or(0.0)));
    let books = clips.iter().map(|c| c.codes.len()).max().unwrap_or(0);
    let used = |k: usize| clips.iter().filter_map(move |c| c.codes.get(k)).flatten().copied();
    CodecReport {
        clips: clips.len(),
        chroma_agreement: sum(|c| c.agreeing) / sounding,
        chroma_agreement_strict: sum(|c| c.same) / sounding,
        perplexity: (0..books).map(|k| perplexity(used(k), codebook_size)).collect(),
        codebook_size,
        si_sdr: median(all(&|c| c.si_sdr)),
        log_mel_distance: average(all(&|c| c.log_mel_distance)),
        above_12_khz_db: band(BANDS.len() - 2),
        band_edges_hz: BANDS,
        bands_db: (0..BANDS.len() - 1).map(band).collect(),
        buzz_share: average(all(&|c| c.buzz)),
        lines_db: average(all(&|c| c.lines_db)),
    }
}

fn perplexity(codes: impl Iterator<Item = u32>, size: usize) -> f32 {
    let mut counts = vec![0u32; size];
    let mut sum = 0.0f64;
    for code in codes {
        if let Some(count) = counts.get_mut(code as usize) {
            *count += 1;
            sum += 1.0;
        }
    }
    let entropy: f64 = counts.iter().map(|&n| f64::from(n) / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy.exp() as f32
}

fn si_sdr(estimate: &[f32], target: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let gain = dot(estimate, target) / dot(target, target).max(1e-12);
    let wanted = gain * gain * dot(target, target);
    let rest = estimate.iter().zip(target).map(|(e, t)| (f64::from(*e) - gain * f64::from(*t)).powi(2)).sum::<f64>();
    (10.0 * (wanted.max(1e-12) / rest.max(1e-12)).log10()) as f32
}

fn log_mel_distance(a: &[f32], b: &[f32]) -> f32 {
    let [a, b] = [a, b].map(|audio| LogMel::new(audio, SAMPLE_RATE as f64, 80, 1e-9));
    // Half of the power's logarithm is the amplitude's.
    0.5 * a.rows.iter().zip(&b.rows).map(|(x, y)| (x - y).abs()).sum::<f32>() / a.rows.len().max(1) as f32
}

fn frame_powers(audio: &[f32]) -> Vec<Vec<f32>> {
    let mut frames = Vec::new();
    Spectra::new(SPECTRUM).visit(audio, SPECTRUM / 4, |_, power| frames.push(power.to_vec()));
    frames
}

fn mean(frames: &[Vec<f32>]) -> Vec<f32> {
    let bin = |k: usize| frames.iter().map(|f| f[k]).sum::<f32>() / frames.len().max(1) as f32;
    (0..=SPECTRUM / 2).map(bin).collect()
}

fn band_power(frame: &[f32], low: f64, high: f64) -> f32 {
    let bin = |f: f64| ((f * SPECTRUM as f64 / SAMPLE_RATE as f64) as usize).min(frame.len());
    frame[bin(low)..bin(high)].iter().sum()
}

/// Mean power of a band over that of the original, in dB; both count as at least -110 dB.
fn band_db(made: &[Vec<f32>], wanted: &[Vec<f32>], low: f64, high: f64) -> f32 {
    let [a, b] = [made, wanted].map(|frames| band_power(&mean(frames), low, high) + 1e-11);
    10.0 * (a / b).log10()
}

fn buzz(made: &[Vec<f32>], wanted: &[Vec<f32>]) -> f32 {
    let high = |frame: &Vec<f32>| band_power(frame, 12_000.0, 16_000.0);
    let buzzes = |(a, b): &(&Vec<f32>, &Vec<f32>)| high(a) > 4.0 * high(b) && high(a) > 1e-8;
    made.iter().zip(wanted).filter(buzzes).count() as f32 / made.len().max(1) as f32
}

/// Height of the lines at multiples of 2 kHz over the median of the bins 30 to 190 Hz away, beyond the original's.
fn lines_db(made: &[f32], wanted: &[f32]) -> f32 {
    let spacing = LINE_SPACING * SPECTRUM / SAMPLE_RATE;
    let db = |p: f32| 10.0 * (p + 1e-11).log10();
    let height = |spectrum: &[f32], place: usize| {
        let top = spectrum[place - 1..=place + 1].iter().copied().fold(0.0, f32::max);
        let beside: Vec<f32> =
            spectrum[place - 24..place - 3].iter().chain(&spectrum[place + 4..place + 25]).map(|p| db(*p)).collect();
        db(top) - percentile(&beside, 0.5).unwrap_or(0.0)
    };
    let places: Vec<usize> = (1..).map(|n| n * spacing).take_while(|p| p + 32 < made.len()).collect();
    let over = |place: &usize| (height(made, *place) - height(wanted, *place)).max(0.0);
    places.iter().map(over).sum::<f32>() / places.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::signals::{noise, sine};
    use super::*;

    fn codes() -> Codes {
        Codes::from_frames(&[1, 2, 1, 3], 2).expect("whole frames")
    }

    #[test]
    fn a_perfect_codec_differs_in_nothing() {
        let tone = sine(440.0, 0.2, 1.0);
        let same = Comparison::of(&tone, &tone, &codes()).expect("compares");
        assert_eq!((same.agreeing, same.same, same.sounding), (50, 50, 50));
        assert!(same.si_sdr > 80.0 && same.log_mel_distance == 0.0 && same.lines_db == 0.0 && same.buzz == 0.0);
        assert!(same.bands_db.iter().all(|db| *db == 0.0));
        let report = report(&[same], 1024);
        assert_eq!(report.chroma_agreement, 1.0);
        assert!((report.perplexity[0] - 1.0).abs() < 1e-6 && (report.perplexity[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn what_was_added_is_found() {
        let tone = sine(440.0, 0.2, 2.0);
        let add = |other: &[f32]| tone.iter().zip(other).map(|(a, b)| a + b).collect::<Vec<f32>>();
        let lines =
            Comparison::of(&add(&noise(1e-4, 2.0)), &add(&sine(4_000.0, 0.01, 2.0)), &codes()).expect("compares");
        assert!(lines.lines_db > 5.0, "{}", lines.lines_db);
        let hiss = Comparison::of(&tone, &add(&noise(0.02, 2.0)), &codes()).expect("compares");
        assert!(hiss.buzz > 0.9 && hiss.bands_db[6] > 20.0 && hiss.bands_db[0].abs() < 1.0, "{hiss:?}");
        // Uniform noise of 0.02 has a power of 0.02^2 / 3, the tone 0.2^2 / 2: 21.8 dB.
        assert!((hiss.si_sdr - 21.8).abs() < 0.3, "{}", hiss.si_sdr);
        let other = Comparison::of(&tone, &sine(523.25, 0.2, 2.0), &codes()).expect("compares");
        assert_eq!((other.agreeing, other.same), (0, 0));
    }

    #[test]
    fn perplexity_counts_even_use() {
        assert!((perplexity((0..1024).cycle().take(4096), 1024) - 1024.0).abs() < 0.1);
        assert!((perplexity(std::iter::repeat_n(5, 100), 1024) - 1.0).abs() < 1e-6);
    }
}
