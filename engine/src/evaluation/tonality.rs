//! Keys and the spread of pitch classes, from what the outside ear heard. Pure arithmetic, any thread.

use super::chroma::strongest;
use crate::dataset::harmony::{Key, Mode};

/// What a stretch of music holds of each pitch class.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Pitches {
    /// Frames in which each pitch class was the strongest, C first.
    pub counts: [u32; 12],
    /// Sum over sounding frames of each pitch class's share of the frame's amplitude.
    pub shares: [f32; 12],
    /// All frames, the silent ones too.
    pub frames: u32,
}

impl Pitches {
    /// Counts frames of [`super::chroma::Chroma::frames`].
    pub fn of(frames: &[[f32; 12]]) -> Self {
        let mut pitches = Self { frames: frames.len() as u32, ..Self::default() };
        for frame in frames {
            let Some(pitch_class) = strongest(frame) else { continue };
            pitches.counts[pitch_class] += 1;
            let sum: f32 = frame.iter().map(|energy| energy.sqrt()).sum();
            pitches.shares.iter_mut().zip(frame).for_each(|(share, energy)| *share += energy.sqrt() / sum);
        }
        pitches
    }

    /// Frames in which something sounds.
    pub fn sounding(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// Share of silent frames.
    pub fn silence_share(&self) -> f32 {
        1.0 - self.sounding() as f32 / self.frames.max(1) as f32
    }

    /// Adds what another stretch holds.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(a, b)| *a += b);
        self.shares.iter_mut().zip(other.shares).for_each(|(a, b)| *a += b);
        self.frames += other.frames;
    }

    /// Share of the sounding frames that the commonest pitch class has; 0 when nothing sounds.
    pub fn max_share(&self) -> f32 {
        self.counts.iter().copied().max().unwrap_or(0) as f32 / self.sounding().max(1) as f32
    }

    /// Entropy of the strongest pitch class over sounding frames, in bits: 0 for one tone, 3.58 for all twelve alike.
    pub fn entropy(&self) -> f32 {
        let sounding = self.sounding().max(1) as f32;
        let of = |count: &u32| {
            let p = *count as f32 / sounding;
            if p > 0.0 { -p * p.log2() } else { 0.0 }
        };
        self.counts.iter().map(of).sum()
    }

    /// Share of the sounding frames whose strongest pitch class belongs to the best-fitting of the 24 major and natural
    /// minor keys. A key and its relative hold the same tones, so 12 sets compete. `None` when nothing sounds.
    pub fn in_key_share(&self) -> Option<f32> {
        let counts = self.counts.map(|count| count as f32);
        best_key(&counts)
    }

    /// As [`Pitches::in_key_share`], but of all the amplitude instead of each frame's strongest class: overtones count.
    pub fn in_key_amplitude(&self) -> Option<f32> {
        best_key(&self.shares)
    }
}

fn best_key(weights: &[f32; 12]) -> Option<f32> {
    let sum: f32 = weights.iter().sum();
    let inside = |key: Key| (0..7).map(|degree| weights[key.pitch_class(degree)]).sum::<f32>();
    let keys = (0..12).flat_map(|tonic| [Mode::Major, Mode::Minor].map(|mode| Key { tonic, mode }));
    (sum > 0.0).then(|| keys.map(inside).fold(0.0, f32::max) / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tones: &[usize]) -> [f32; 12] {
        std::array::from_fn(|pc| if tones.contains(&pc) { 1.0 } else { 0.0 })
    }

    #[test]
    fn a_scale_is_in_its_key_and_all_twelve_are_not() {
        let scale: Vec<[f32; 12]> = [2, 4, 6, 7, 9, 11, 1].iter().map(|&pc| frame(&[pc])).collect();
        let pitches = Pitches::of(&scale);
        assert_eq!((pitches.in_key_share(), pitches.in_key_amplitude()), (Some(1.0), Some(1.0)));
        assert!((pitches.entropy() - 7f32.log2()).abs() < 1e-5);
        let all: Vec<[f32; 12]> = (0..12).map(|pc| frame(&[pc])).collect();
        assert!((Pitches::of(&all).in_key_share().expect("sounds") - 7.0 / 12.0).abs() < 1e-6);
        assert!((Pitches::of(&all).entropy() - 12f32.log2()).abs() < 1e-5);
        assert_eq!(Pitches::of(&all).max_share(), 1.0 / 12.0);
    }

    #[test]
    fn silence_has_no_key() {
        let pitches = Pitches::of(&[[0.0; 12]; 8]);
        assert_eq!((pitches.in_key_share(), pitches.silence_share(), pitches.entropy()), (None, 1.0, 0.0));
        let mut both = Pitches::of(&[frame(&[0, 4, 7]), frame(&[5])]);
        assert_eq!(both.counts[0] + both.counts[5], 2);
        both.add(&pitches);
        assert_eq!((both.silence_share(), both.sounding()), (0.8, 2));
        assert!((both.shares[4] - 1.0 / 3.0).abs() < 1e-6);
    }
}
