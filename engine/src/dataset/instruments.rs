//! The General MIDI instruments that the generator plays, with the words that prompts use for them. Constant data.

use super::texture::Texture;

/// One instrument: a GM program and how it is used and named.
#[derive(Debug, PartialEq, Eq)]
pub struct Instrument {
    /// GM program, 0-based.
    pub program: u8,
    /// Label in `clips.jsonl`; also the first name.
    pub label: &'static str,
    /// Names used in prompts; none is or contains a note, key or chord name.
    pub names: &'static [&'static str],
    /// Notes last as long as they are held (bowed, blown, electronic), so pads and long notes are possible.
    pub sustained: bool,
    /// Textures that the instrument plays.
    pub textures: &'static [Texture],
}

use Texture::{Arpeggio, Bass, Chords, Melody, Pad};

const KEYS: &[Texture] = &[Melody, Chords, Arpeggio];
const SOLO: &[Texture] = &[Melody];
const WIDE: &[Texture] = &[Melody, Chords, Arpeggio, Pad];

/// Every instrument, in the order in which labels are numbered.
pub const INSTRUMENTS: &[Instrument] = &[
    Instrument {
        program: 0,
        label: "piano",
        names: &["piano", "grand piano", "acoustic piano"],
        sustained: false,
        textures: KEYS,
    },
    Instrument {
        program: 4,
        label: "electric piano",
        names: &["electric piano", "rhodes piano"],
        sustained: false,
        textures: KEYS,
    },
    Instrument { program: 11, label: "vibraphone", names: &["vibraphone", "vibes"], sustained: false, textures: KEYS },
    Instrument {
        program: 12,
        label: "marimba",
        names: &["marimba", "wooden mallets"],
        sustained: false,
        textures: &[Melody, Arpeggio],
    },
    Instrument {
        program: 16,
        label: "organ",
        names: &["organ", "drawbar organ", "electric organ"],
        sustained: true,
        textures: WIDE,
    },
    Instrument {
        program: 24,
        label: "guitar",
        names: &["guitar", "acoustic guitar", "plucked guitar"],
        sustained: false,
        textures: KEYS,
    },
    Instrument { program: 46, label: "harp", names: &["harp", "concert harp"], sustained: false, textures: KEYS },
    Instrument {
        program: 40,
        label: "violin",
        names: &["violin", "solo violin", "fiddle"],
        sustained: true,
        textures: SOLO,
    },
    Instrument { program: 42, label: "cello", names: &["cello", "solo cello"], sustained: true, textures: SOLO },
    Instrument {
        program: 48,
        label: "strings",
        names: &["strings", "string ensemble", "string section"],
        sustained: true,
        textures: WIDE,
    },
    Instrument {
        program: 52,
        label: "choir",
        names: &["choir", "voices", "vocal choir"],
        sustained: true,
        textures: &[Chords, Pad],
    },
    Instrument { program: 56, label: "trumpet", names: &["trumpet", "solo trumpet"], sustained: true, textures: SOLO },
    Instrument {
        program: 61,
        label: "brass",
        names: &["brass", "brass section", "horns"],
        sustained: true,
        textures: &[Melody, Chords, Pad],
    },
    Instrument {
        program: 65,
        label: "saxophone",
        names: &["saxophone", "alto sax", "sax"],
        sustained: true,
        textures: SOLO,
    },
    Instrument {
        program: 71,
        label: "clarinet",
        names: &["clarinet", "solo clarinet"],
        sustained: true,
        textures: SOLO,
    },
    Instrument { program: 73, label: "flute", names: &["flute", "solo flute"], sustained: true, textures: SOLO },
    Instrument {
        program: 81,
        label: "synth lead",
        names: &["synth lead", "saw synth", "synthesizer"],
        sustained: true,
        textures: &[Melody, Arpeggio],
    },
    Instrument {
        program: 89,
        label: "warm synth",
        names: &["warm synth", "soft synth", "analog synth"],
        sustained: true,
        textures: &[Chords, Pad],
    },
    Instrument {
        program: 32,
        label: "double bass",
        names: &["double bass", "upright bass", "acoustic bass"],
        sustained: false,
        textures: &[Bass],
    },
    Instrument {
        program: 33,
        label: "electric bass",
        names: &["electric bass", "bass guitar"],
        sustained: false,
        textures: &[Bass],
    },
    Instrument {
        program: 38,
        label: "synth bass",
        names: &["synth bass", "electronic bass"],
        sustained: true,
        textures: &[Bass],
    },
];

/// The instruments that play a texture.
pub fn players_of(texture: Texture) -> Vec<&'static Instrument> {
    INSTRUMENTS.iter().filter(|instrument| instrument.textures.contains(&texture)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_texture_has_players_and_programs_are_unique() {
        for texture in Texture::ALL {
            assert!(players_of(texture).len() >= 3, "{texture:?}");
        }
        let mut programs: Vec<u8> = INSTRUMENTS.iter().map(|i| i.program).collect();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), INSTRUMENTS.len());
    }
}
