//! Which triad sounds in a stretch of audio, heard by templates over the outside ear's pitch classes (Fujishima,
//! "Realtime chord recognition of musical sound", 1999). Pure arithmetic; any thread.

use super::chroma::strongest;
use crate::control::{Chord, PitchClass, Quality};

/// Length of the stretches that are judged, in seconds.
pub const STRETCH_SECONDS: f64 = 0.5;

/// Sum over a stretch of each pitch class's share of the frame's amplitude, C first; `None` when most of it is silent.
pub fn profile(frames: &[[f32; 12]]) -> Option<[f32; 12]> {
    let mut sums = [0.0f32; 12];
    let mut sounding = 0;
    for frame in frames.iter().filter(|frame| strongest(frame).is_some()) {
        let total: f32 = frame.iter().map(|energy| energy.sqrt()).sum();
        sums.iter_mut().zip(frame).for_each(|(sum, energy)| *sum += energy.sqrt() / total);
        sounding += 1;
    }
    (2 * sounding > frames.len()).then_some(sums)
}

/// Profiles of consecutive stretches of `length` frames, the last one too if it is whole.
pub fn profiles(frames: &[[f32; 12]], length: usize) -> Vec<Option<[f32; 12]>> {
    frames.chunks_exact(length.max(1)).map(profile).collect()
}

/// The best-fitting triad among those of `qualities`: the one whose three tones hold the most of the profile, the weakest
/// of them counting twice, so that two strong tones do not make a chord of any third. The root breaks ties, since an
/// augmented triad is the same from each of its tones.
pub fn hear_chord(profile: &[f32; 12], qualities: &[Quality]) -> Option<Chord> {
    let total: f32 = profile.iter().sum();
    if total.is_nan() || total <= 0.0 {
        return None;
    }
    let fit = |chord: Chord| {
        let [root, third, fifth] = chord.tones().map(|tone| profile[tone.index()] / total);
        root + third + fifth + root.min(third).min(fifth) + 0.02 * root
    };
    let every = (0..12u8).filter_map(PitchClass::new);
    let chords = every.flat_map(|root| qualities.iter().map(move |&quality| Chord { root, quality }));
    chords.map(|chord| (chord, fit(chord))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(chord, _)| chord)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tones: &[(usize, f32)]) -> [f32; 12] {
        let mut frame = [0.0; 12];
        tones.iter().for_each(|&(tone, amplitude)| frame[tone] = amplitude * amplitude);
        frame
    }

    #[test]
    fn every_triad_is_heard_with_noise_and_uneven_tones() {
        for class in 0..Chord::COUNT {
            let chord = Chord::of_class(class).expect("a chord");
            let mut tones: Vec<(usize, f32)> = (0..12).map(|tone| (tone, 0.15)).collect();
            chord.tones().iter().zip([1.0, 0.6, 0.8]).for_each(|(tone, a)| tones[tone.index()].1 = a);
            let profile = profile(&[frame(&tones); 4]).expect("sounds");
            assert_eq!(hear_chord(&profile, &Quality::ALL), Some(chord));
        }
    }

    #[test]
    fn silence_is_no_chord_and_stretches_are_whole() {
        let sound = frame(&[(0, 1.0), (4, 1.0), (7, 1.0)]);
        assert_eq!(profile(&[[0.0; 12], sound, [0.0; 12]]), None);
        assert_eq!(profile(&[]), None);
        assert_eq!(hear_chord(&[0.0; 12], &Quality::ALL), None);
        let all = profiles(&[sound, sound, sound, sound, [0.0; 12]], 2);
        assert_eq!((all.len(), all[0].is_some(), all[1].is_some()), (2, true, true));
    }
}
