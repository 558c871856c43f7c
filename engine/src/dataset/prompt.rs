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

/// Moods that go with quiet or slow music.
const CALM: [&str; 12] = [
    "calm",
    "dreamy",
    "peaceful",
    "relaxed",
    "mellow",
    "tender",
    "ambient",
    "melancholic",
    "nostalgic",
    "lonely",
    "sad",
    "romantic",
];
/// Moods that go with loud or fast music.
const LIVELY: [&str; 6] = ["happy", "joyful", "playful", "uplifting", "bright", "hopeful"];
/// Moods that go with anything.
const OPEN: [&str; 6] = ["warm", "dark", "mysterious", "cinematic", "hypnotic", "moody"];

/// A mood that tempo and loudness lean towards. Nothing else may: mode and pitch stay free for steering.
fn mood(wording: &Wording, random: &mut Random) -> &'static str {
    let energy = (wording.bpm - 110.0) / 50.0 + f64::from(wording.loudness - 81) / 29.0;
    let moods: &[&str] = match random.unit() {
        at if at < 0.25 => &OPEN,
        at if (at < 0.85) == (energy < 0.0) => &CALM,
        _ => &LIVELY,
    };
    random.pick(moods)
}

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

/// Words a clip. One prompt in eight is as bare as what people type first: no tempo, perhaps the instruments alone.
pub fn write(wording: &Wording, random: &mut Random) -> String {
    let tempo = random.pick(tempo_words(wording.bpm));
    let mood = mood(wording, random);
    let parts: Vec<(&str, &str)> =
        wording.voices.iter().map(|&(name, texture)| (name, random.pick(texture_words(texture)))).collect();
    let bare = random.unit();
    if bare < 0.04 {
        let names: Vec<&str> = parts.iter().map(|&(name, _)| name).collect();
        return names.join(random.pick(&[" and ", " with "]));
    }
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
    if bare < 0.08 {
        return subject;
    }
    if bare < 0.12 {
        return format!("{mood} {subject}");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(bpm: f64, loudness: i32) -> Vec<String> {
        let wording = Wording { voices: vec![("piano", Texture::Melody)], bpm, loudness, legato: 1.0 };
        (0..2000).map(|index| write(&wording, &mut Random::new(3, index, 2))).collect()
    }

    #[test]
    fn moods_lean_with_tempo_and_loudness() {
        let share = |prompts: &[String], moods: &[&str]| {
            let has = |prompt: &&String| prompt.split([' ', ',']).any(|word| moods.contains(&word));
            prompts.iter().filter(has).count() as f64 / prompts.len() as f64
        };
        let (quiet, loud) = (prompts(70.0, 55), prompts(170.0, 105));
        assert!(share(&quiet, &CALM) > 0.4 && share(&quiet, &LIVELY) < 0.2, "{}", share(&quiet, &CALM));
        assert!(share(&loud, &LIVELY) > 0.4 && share(&loud, &CALM) < 0.2, "{}", share(&loud, &LIVELY));
        assert!((share(&quiet, &OPEN) - share(&loud, &OPEN)).abs() < 0.05);
    }

    #[test]
    fn some_prompts_are_bare() {
        let prompts = prompts(120.0, 80);
        let share = |what: &dyn Fn(&String) -> bool| prompts.iter().filter(|p| what(p)).count() as f64 / 2000.0;
        let alone = share(&|prompt| prompt == "piano");
        let untimed = share(&|prompt| !tempo_words(120.0).iter().any(|word| prompt.contains(word)));
        assert!((alone - 0.04).abs() < 0.015, "{alone}");
        assert!((untimed - 0.12).abs() < 0.025, "{untimed}");
    }
}
