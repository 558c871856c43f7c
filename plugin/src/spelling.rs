//! Which triad a handful of keys spells: in any inversion, with tones doubled, and with tones beside it. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use tiller_engine::control::{Chord, PitchClass, Quality};

/// The common triads come first: C7 upon its third is C major with a tone beside it and not E diminished.
const QUALITIES: [[Quality; 2]; 2] = [[Quality::Major, Quality::Minor], [Quality::Diminished, Quality::Augmented]];

/// The triad within these keys, one bit for each; of several the one on the lowest key, then on the next class above it.
/// `None` where they hold no triad.
///
/// # Realtime safety
/// Pure arithmetic.
pub fn spelled(keys: u128) -> Option<Chord> {
    let lowest = keys.trailing_zeros() % 128;
    let mut classes = [false; 12];
    for key in (0..128u8).filter(|key| keys >> key & 1 == 1) {
        classes[PitchClass::of_key(key).index()] = true;
    }
    for qualities in QUALITIES {
        for step in 0..12 {
            let root = PitchClass::of_key(((lowest + step) % 12) as u8);
            let holds = |quality: &Quality| {
                let chord = Chord { root, quality: *quality };
                chord.tones().iter().all(|tone| classes[tone.index()])
            };
            if let Some(quality) = qualities.into_iter().find(holds) {
                return Some(Chord { root, quality });
            }
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    fn name(keys: &[u8]) -> Option<String> {
        let chord = spelled(keys.iter().fold(0, |set, key| set | 1u128 << key))?;
        Some(format!("{} {}", chord.root.name(), chord.quality.name()))
    }

    #[test]
    fn every_triad_in_every_inversion_with_doubled_tones() {
        for class in 0..Chord::COUNT {
            let chord = Chord { root: PitchClass::of_key((class / 4) as u8), quality: Quality::ALL[class % 4] };
            let [a, b, c] = chord.quality.tones().map(|tone| 48 + chord.root.index() as u8 + tone);
            for keys in [vec![a, b, c], vec![b, c, a + 12], vec![c, a + 12, b + 12], vec![a - 12, a, b, c, c + 12]] {
                let found = spelled(keys.iter().fold(0, |set, key| set | 1u128 << key));
                // The three roots of an augmented triad are one set of tones: the lowest key names it.
                let same = |found: Chord| {
                    let sorted = |chord: Chord| {
                        let mut tones = chord.tones().map(PitchClass::index);
                        tones.sort_unstable();
                        tones
                    };
                    if chord.quality == Quality::Augmented { sorted(found) == sorted(chord) } else { found == chord }
                };
                assert!(found.is_some_and(same), "{chord:?} as {keys:?}: {found:?}");
            }
        }
    }

    #[test]
    fn tones_beside_a_triad_do_not_hide_it() {
        assert_eq!(name(&[60, 64, 67, 70]).as_deref(), Some("C major"), "C7");
        assert_eq!(name(&[64, 67, 70, 72]).as_deref(), Some("C major"), "C7 upon its third");
        assert_eq!(name(&[57, 60, 64, 67]).as_deref(), Some("A minor"), "A minor 7");
        assert_eq!(name(&[60, 64, 67, 69]).as_deref(), Some("C major"), "C6");
        assert_eq!(name(&[60, 61, 62]), None, "a cluster");
        assert_eq!(name(&[60, 64, 72]), None, "two classes");
        assert_eq!(spelled(0), None);
        assert_eq!(name(&[120, 124, 127]).as_deref(), Some("C major"), "up to the last key");
    }
}
