//! The words for a clip: instrument, texture, tempo and mood in varied order. Any thread.
//!
//! A prompt sees only [`Wording`]: no key, mode or pitch goes in, so none can come out. It never holds the article
//! "a", which is also a note's name.

use super::random::Random;
use super::texture::Texture;

/// All that a prompt may speak of.
#[derive(Debug, Clone)]
pub struct Wording {
    /// Name of each voice's instrument and its texture, the leading voice first; one or two of them.
    pub voices: Vec<(&'static str, Texture)>,
    /// Beats per minute.
    pub bpm: f64,
    /// Mean MIDI velocity.
    pub loudness: i32,
    /// Share of its slot for which a note is held.
    pub legato: f64,
}

const MOODS: [&str; 24] = [
    "warm",
    "dreamy",
    "calm",
    "happy",
    "sad",
    "dark",
    "bright",
    "mellow",
    "peaceful",
    "hopeful",
    "nostalgic",
    "melancholic",
    "joyful",
    "romantic",
    "mysterious",
    "relaxed",
    "playful",
    "tender",
    "ambient",
    "cinematic",
    "hypnotic",
    "moody",
    "uplifting",
    "lonely",
];

/// Words for a tempo: slow below 90 beats per minute, fast from 130 on, medium between.
pub fn tempo_words(bpm: f64) -> &'static [&'static str] {
    if bpm < 90.0 {
        &["slow", "slow", "unhurried"]
    } else if bpm < 130.0 {
        &["medium", "moderate", "mid-tempo"]
    } else {
        &["fast", "fast", "quick"]
    }
}

fn texture_words(texture: Texture) -> &'static [&'static str] {
    match texture {
        Texture::Melody => &["melody", "melody", "lead line", "tune", "solo line"],
        Texture::Chords => &["chords", "chords", "block chords", "accompaniment"],
        Texture::Arpeggio => &["arpeggio", "arpeggio", "broken chords", "arpeggiated pattern"],
        Texture::Bass => &["bass line", "bass line", "low line", "groove"],
        Texture::Pad => &["pad", "pad", "sustained pad", "held chords"],
    }
}

fn touch_word(wording: &Wording, random: &mut Random) -> Option<&'static str> {
    let loud = match wording.loudness {
        ..=66 => Some(random.pick(&["soft", "gentle", "quiet"])),
        98.. => Some(random.pick(&["strong", "bold", "powerful"])),
        _ => None,
    };
    let held = if wording.legato < 0.7 { Some(random.pick(&["staccato", "short notes", "detached"])) } else { None };
    match (loud, held) {
        (Some(a), Some(b)) => Some(if random.chance(0.5) { a } else { b }),
        (a, b) => a.or(b).filter(|_| random.chance(0.8)),
    }
}

/// Words a clip.
pub fn write(wording: &Wording, random: &mut Random) -> String {
    let tempo = random.pick(tempo_words(wording.bpm));
    let mood = random.pick(&MOODS);
    let parts: Vec<(&str, &str)> =
        wording.voices.iter().map(|&(name, texture)| (name, random.pick(texture_words(texture)))).collect();
    let subject = match parts[..] {
        [(first, line), (second, below)] => match random.below(4) {
            0 => format!("{first} {line} with {second} {below}"),
            1 => format!("{first} {line} over {second} {below}"),
            2 => format!("{first} and {second}, {line} and {below}"),
            _ => format!("{first} {line} and {second} {below}"),
        },
        [(name, line), ..] => match random.below(4) {
            0 => format!("{line} on {name}"),
            1 => format!("{line} played by {name}"),
            _ => format!("{name} {line}"),
        },
        [] => String::new(),
    };
    let mut text = match random.below(7) {
        0 => format!("{tempo} {mood} {subject}"),
        1 => format!("{mood} {subject}, {tempo}"),
        2 => format!("{tempo} {subject}, {mood}"),
        3 => format!("{subject}, {tempo} and {mood}"),
        4 => format!("{subject}, {mood}, {tempo}"),
        5 => format!("{mood} {tempo} {subject}"),
        _ => format!("{tempo} {subject}"),
    };
    if let Some(touch) = touch_word(wording, random) {
        text = if random.chance(0.5) { format!("{text}, {touch}") } else { format!("{touch}, {text}") };
    }
    text
}
