//! A General MIDI SoundFont of our own, so that learning needs no file that a musician would have to find: made in memory from
//! the formulas of `palette`, written as SoundFont 2 bytes and read by the synthesizer like any other. Nothing in it was
//! recorded, so it may go wherever Tiller goes. A pure function of this code; well under two seconds. Worker threads.

mod file;
mod palette;
mod synthesis;

use file::{Bank, Zone};
use palette::{PALETTE, PROGRAMS, Tone};
use rayon::prelude::*;

/// Semitones from one sample's key to the next.
const STEP: u8 = 8;

/// The SoundFont: all 128 programs.
pub fn soundfont() -> Vec<u8> {
    // The samples are independent; their order is not up to the threads.
    let zones: Vec<Vec<Zone>> = PALETTE.par_iter().map(zones).collect();
    let mut bank = Bank::new("Tiller tones", "Part of Tiller: MIT or Apache 2.0");
    for (tone, zones) in PALETTE.iter().zip(zones) {
        bank.add_instrument(tone.name, zones);
    }
    for (program, tone) in PROGRAMS.iter().enumerate() {
        bank.add_program(program as u8, usize::from(*tone));
    }
    bank.into_bytes()
}

/// A tone's samples and the keys that each is played at.
fn zones(tone: &Tone) -> Vec<Zone> {
    let (low, high) = tone.keys;
    let roots: Vec<u8> = (low..=high).step_by(usize::from(STEP)).collect();
    let zone = |(place, &root): (usize, &u8)| {
        let from = if place == 0 { 0 } else { root - STEP / 2 };
        let to = if place + 1 == roots.len() { 127 } else { root + STEP / 2 - 1 };
        Zone { keys: (from, to), root, sample: synthesis::sample(tone, root), envelope: tone.envelope(root) }
    };
    roots.iter().enumerate().map(zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::concepts::Concept;
    use crate::dataset::instruments::INSTRUMENTS;
    use crate::dataset::render::{Event, Renderer, rms};
    use crate::dataset::{SAMPLE_RATE, random::Random};
    use realfft::RealFftPlanner;
    use std::collections::BTreeSet;
    use std::f32::consts::TAU;

    fn programs() -> BTreeSet<u8> {
        let concepts = [Concept::Notes, Concept::TimeSignatures].map(Concept::programs);
        let played = INSTRUMENTS.iter().map(|instrument| instrument.program);
        concepts.into_iter().flatten().copied().chain(played).collect()
    }

    fn note(renderer: &Renderer, program: u8, midi: u8) -> Vec<f32> {
        let strike = Event { at: 0, strikes: true, channel: 0, midi, velocity: 80 };
        let release = Event { at: 2 * SAMPLE_RATE, strikes: false, ..strike };
        renderer.play(&[(program, 110)], vec![strike, release], 3 * SAMPLE_RATE, false).expect("plays")
    }

    /// Power spectrum of a stretch under a Hann window, padded to `size`.
    fn spectrum(audio: &[f32], size: usize) -> Vec<f32> {
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(size);
        let mut input = vec![0.0; size];
        let window = |i: usize| 0.5 - 0.5 * (TAU * i as f32 / audio.len() as f32).cos();
        audio.iter().enumerate().for_each(|(i, x)| input[i] = x * window(i));
        let mut output = fft.make_output_vec();
        fft.process(&mut input, &mut output).expect("sizes fit");
        output.iter().map(|x| x.norm_sqr()).collect()
    }

    /// Where the spectrum peaks within a semitone and a half of `hertz`, Hz, and how much that is of the whole.
    fn peak(audio: &[f32], hertz: f64) -> (f64, f32) {
        let size = 1 << 19;
        let power = spectrum(audio, size);
        let bin = |hertz: f64| (hertz * size as f64 / SAMPLE_RATE as f64) as usize;
        let (low, high) = (bin(hertz * 0.917), bin(hertz * 1.0905));
        let best = (low..high).max_by(|a, b| power[*a].total_cmp(&power[*b])).expect("a range");
        let strongest = power.iter().copied().fold(0.0, f32::max);
        (best as f64 * SAMPLE_RATE as f64 / size as f64, power[best] / strongest)
    }

    #[test]
    fn every_program_sounds_and_dies_away() {
        let renderer = Renderer::built_in().unwrap_or_else(|error| panic!("{error}"));
        let mut wrong = Vec::new();
        for program in programs() {
            for midi in [36, 48, 60, 72, 84] {
                let audio = note(&renderer, program, midi);
                assert!(audio.iter().all(|x| x.is_finite()));
                let (early, late) = (rms(&audio[..SAMPLE_RATE / 2]), rms(&audio[3 * SAMPLE_RATE - 3_200..]));
                if !(0.003..0.3).contains(&early) || late > 0.1 * early {
                    wrong.push(format!("program {program}, key {midi}: {early}, and {late} after its release"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn pitches_are_those_of_the_keys() {
        let renderer = Renderer::built_in().unwrap_or_else(|error| panic!("{error}"));
        let mut wrong = Vec::new();
        // Drums have none.
        for program in programs().into_iter().filter(|program| !(112..120).contains(program)) {
            for midi in [41, 52, 60, 67, 74, 83] {
                let hertz = 440.0 * 2f64.powf((f64::from(midi) - 69.0) / 12.0);
                let audio = note(&renderer, program, midi);
                let (found, share) = peak(&audio[1_600..SAMPLE_RATE + 1_600], hertz);
                let cents = 1_200.0 * (found / hertz).log2();
                if cents.abs() >= 5.0 || share < 0.003 {
                    wrong.push(format!(
                        "program {program}, key {midi}: {cents:.1} cents, {share} of the strongest part"
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Levels in dB of thirty bands, a third of an octave each, of a note's first second; their mean taken out.
    fn bands(audio: &[f32]) -> Vec<f32> {
        let size = 1 << 15;
        let power = spectrum(&audio[..SAMPLE_RATE], size);
        let edge = |band: i32| (60.0 * 2f64.powf(f64::from(band) / 3.0) * size as f64 / SAMPLE_RATE as f64) as usize;
        let level = |band| 10.0 * (power[edge(band)..=edge(band + 1)].iter().sum::<f32>() + 1e-6).log10();
        let levels: Vec<f32> = (0..23).map(level).collect();
        let mean = levels.iter().sum::<f32>() / levels.len() as f32;
        levels.iter().map(|level| (level - mean).max(-30.0)).collect()
    }

    #[test]
    fn instruments_sound_unlike_each_other() {
        let renderer = Renderer::built_in().unwrap_or_else(|error| panic!("{error}"));
        let timbres: Vec<(u8, Vec<f32>, f32)> = programs()
            .into_iter()
            .map(|program| {
                let audio = note(&renderer, program, 60);
                let fall = rms(&audio[SAMPLE_RATE..2 * SAMPLE_RATE]) / rms(&audio[..SAMPLE_RATE / 4]);
                (program, bands(&audio), 20.0 * fall.max(1e-3).log10())
            })
            .collect();
        let mut alike = Vec::new();
        for (place, (program, own, fall)) in timbres.iter().enumerate() {
            for (other, others, other_fall) in &timbres[..place] {
                let squares = own.iter().zip(others).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
                let apart = (squares / own.len() as f32).sqrt();
                let held = (fall - other_fall).abs();
                if apart < 2.5 && held < 6.0 {
                    alike.push(format!("{program} and {other}: {apart:.1} dB of spectrum, {held:.1} of decay"));
                }
            }
        }
        assert!(alike.is_empty(), "{alike:#?}");
    }

    #[test]
    fn it_is_the_same_every_time_and_small() {
        let made = soundfont();
        assert!(made.len() < 40 << 20, "{} bytes", made.len());
        assert_eq!(Renderer::built_in().expect("parses").hash(), Renderer::built_in().expect("parses").hash());
        let mut random = Random::new(1, 2, 3);
        let place = random.below(made.len());
        assert_eq!(made[place], soundfont()[place]);
    }
}
