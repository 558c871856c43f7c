//! What a single voice can be: an instrument in a texture that it plays. Constant data.

use crate::dataset::instruments::INSTRUMENTS;
use crate::dataset::music::Music;
use crate::dataset::texture::Texture;

/// An instrument and a texture, as they stand in [`INSTRUMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    /// Index into [`INSTRUMENTS`].
    pub instrument: usize,
    /// What it plays.
    pub texture: Texture,
}

impl Class {
    /// Every class: instruments in order, their textures in order.
    pub fn all() -> Vec<Self> {
        let of = |(instrument, played): (usize, &'static [Texture])| {
            played.iter().map(move |&texture| Self { instrument, texture })
        };
        INSTRUMENTS.iter().map(|i| i.textures).enumerate().flat_map(of).collect()
    }

    /// The class with these labels, if there is one.
    pub fn named(instrument: &str, texture: &str) -> Option<Self> {
        Self::all().into_iter().find(|c| c.instrument_label() == instrument && texture_label(c.texture) == texture)
    }

    /// The class of a composed clip with one voice; `None` for a mix.
    pub fn of(music: &Music) -> Option<Self> {
        let [voice] = &music.voices[..] else { return None };
        let instrument = INSTRUMENTS.iter().position(|i| i == voice.instrument)?;
        Some(Self { instrument, texture: voice.texture })
    }

    /// Index into [`Class::all`].
    pub fn index(self) -> usize {
        Self::all().iter().position(|c| *c == self).unwrap_or(0)
    }

    /// Label of the instrument.
    pub fn instrument_label(self) -> &'static str {
        INSTRUMENTS[self.instrument].label
    }
}

/// Label of a texture, as in prompts files and data sets.
pub fn texture_label(texture: Texture) -> &'static str {
    match texture {
        Texture::Melody => "melody",
        Texture::Chords => "chords",
        Texture::Arpeggio => "arpeggio",
        Texture::Bass => "bass",
        Texture::Pad => "pad",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_numbered_and_named() {
        let all = Class::all();
        for (index, class) in all.iter().enumerate() {
            assert_eq!(class.index(), index);
            assert_eq!(Class::named(class.instrument_label(), texture_label(class.texture)), Some(*class));
        }
        assert_eq!(Class::named("flute", "chords"), None);
    }
}
