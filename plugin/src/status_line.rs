//! What the engine and the audio thread are doing, in words for a musician. Pure text, made on the UI thread.

use tiller_engine::status::{State, Status};
use tiller_engine::steering::trait_files::TraitState;

use crate::target::Target;

/// What the audio thread tells, read once per repaint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Readings {
    /// A piece is sounding now.
    pub sounding: bool,
    /// What the frame that is heard is steered to.
    pub target: Target,
    /// Highest sample of each side since the last reading, linear.
    pub peak: [f32; 2],
    /// Frames that were not there in time.
    pub late: u64,
    /// Frames that were never computed because the engine lagged.
    pub skipped: u64,
    /// Latency as reported to the host, in milliseconds; 0 before the host started the audio.
    pub latency_ms: f32,
}

/// How a line is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Something takes its time.
    Busy,
    /// It sounds, but not as it should.
    Warning,
    /// It does not sound.
    Bad,
}

/// One line of status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// How it is to be taken.
    pub tone: Tone,
    /// The words.
    pub text: String,
}

fn line(tone: Tone, text: impl Into<String>) -> StatusLine {
    StatusLine { tone, text: text.into() }
}

/// The state of the model, for the model row.
pub fn model_line(state: &State) -> StatusLine {
    match state {
        State::Absent => line(Tone::Busy, "not loaded yet"),
        State::Locating => line(Tone::Busy, "looking for the model"),
        State::Loading(percent) => line(Tone::Busy, format!("loading, {percent} %")),
        State::Warming => line(Tone::Busy, "warming up"),
        State::Ready => line(Tone::Good, "ready"),
        State::Failed(_) => line(Tone::Bad, "not loaded"),
    }
}

/// The most important thing to say now: a failure, then what the project or the engine could not do, then how playing goes.
/// `trouble` is why there is silence although the engine may be well, `project_notice` what was strange about the saved
/// project; both may be empty.
pub fn status_line(status: &Status, readings: &Readings, trouble: &str, project_notice: &str) -> StatusLine {
    if !trouble.is_empty() {
        return line(Tone::Bad, trouble);
    }
    match &status.state {
        State::Failed(why) => return line(Tone::Bad, format!("Silent: {why}")),
        State::Ready => {}
        state if project_notice.is_empty() => {
            let model = model_line(state);
            return line(model.tone, format!("Silent until the model is ready ({}).", model.text));
        }
        _ => {}
    }
    for notice in [project_notice, status.notice.as_str()] {
        if !notice.is_empty() {
            return line(Tone::Warning, notice);
        }
    }
    for (slot, state) in status.traits.iter().enumerate() {
        match state {
            TraitState::Refused(why) => return line(Tone::Warning, format!("Trait {} does nothing: {why}", slot + 1)),
            TraitState::InUse { changed: true } => {
                return line(Tone::Warning, format!("The file of trait {} has changed since it was chosen.", slot + 1));
            }
            _ => {}
        }
    }
    if let Some(missing) = missing(status, readings) {
        return line(Tone::Warning, missing);
    }
    let speed = status.real_time_factor;
    if readings.late + readings.skipped > 0 {
        let gaps = format!("{}, {} skipped", count(readings.late, "late frame"), readings.skipped);
        return if speed > 0.0 && speed < 1.0 {
            line(
                Tone::Warning,
                format!(
                    "{gaps}: the model runs at {speed:.2} × real time here. Set Late to \"wait\" for exports without gaps."
                ),
            )
        } else {
            line(Tone::Warning, format!("{gaps}. More latency gives the model more room."))
        };
    }
    let mut parts = vec![if readings.sounding { "Playing".to_owned() } else { "Ready".to_owned() }];
    parts.extend(figures(status, readings).iter().map(|figure| format!("{} {}", figure.name, figure.value)));
    line(Tone::Good, parts.join(", "))
}

/// Why what sounds is not steered to its target: the model has no directions for it.
fn missing(status: &Status, readings: &Readings) -> Option<String> {
    let [notes, chords, _] = status.targets;
    let Target { note, chord } = readings.target;
    if !readings.sounding {
        return None;
    }
    if let Some(note) = note.filter(|note| !notes.contains(note.index())) {
        let known = match notes.is_empty() {
            true => "no notes were learned for this model yet".to_owned(),
            false => format!("of the notes, this model has {} only", notes.notes()),
        };
        return Some(format!("{} does nothing: {known}. The page of models learns more.", note.name()));
    }
    let chord = chord.filter(|chord| !chords.contains(chord.class()))?;
    let known = match chords.is_empty() {
        true => "no chords were learned for this model yet".to_owned(),
        false => format!("this model has {} other chords only", chords.len()),
    };
    let name = format!("{} {}", chord.root.name(), chord.quality.name());
    Some(format!("{name} does nothing: {known}. The page of models learns more."))
}

/// A number with its name, and what it means to a musician.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// The number, with its unit.
    pub value: String,
    /// What it means.
    pub meaning: &'static str,
}

/// The figures of an engine that is well: latency, speed, gaps, and where it computes.
pub fn figures(status: &Status, readings: &Readings) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut say = |name, value, meaning| figures.push(Figure { name, value, meaning });
    if readings.latency_ms > 0.0 {
        let meaning =
            "How long a move takes to be heard. Hosts make up for it when they play what is drawn or recorded.";
        say("latency", format!("{:.0} ms", readings.latency_ms), meaning);
    }
    if status.real_time_factor > 0.0 {
        let meaning = "How much faster than needed the model makes music. Below 1 there are gaps.";
        say("speed", format!("{:.1} × real time", status.real_time_factor), meaning);
    }
    if readings.sounding {
        say("gaps", "none".to_owned(), "Frames that were not ready when they were to be heard.");
    }
    if !status.device.is_empty() {
        say("on", status.device.clone(), "Where the model computes. The page of models changes it.");
    }
    figures
}

fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiller_engine::control::{Chord, PitchClass};
    use tiller_engine::steering::class_set::ClassSet;

    fn status(state: State, notice: &str, speed: f32) -> Status {
        Status {
            state,
            model: "demo".into(),
            device: String::new(),
            notice: notice.into(),
            targets: Default::default(),
            hash: String::new(),
            traits: Default::default(),
            real_time_factor: speed,
            frames: 0,
        }
    }

    #[test]
    fn failures_come_first_and_gaps_name_the_remedy() {
        let quiet = Readings::default();
        let failed = status(State::Failed("/m/config.json: not found".into()), "prompt", 0.0);
        assert_eq!(status_line(&failed, &quiet, "", "old").tone, Tone::Bad);
        assert!(status_line(&failed, &quiet, "", "old").text.contains("/m/config.json"));
        assert_eq!(status_line(&failed, &quiet, "no thread", "").text, "no thread");
        let loading = status(State::Loading(40), "", 0.0);
        assert!(status_line(&loading, &quiet, "", "").text.contains("40 %"));
        let slow = status(State::Ready, "", 0.8);
        let late = Readings { sounding: true, late: 1, skipped: 4, ..quiet };
        let line = status_line(&slow, &late, "", "");
        assert_eq!(line.tone, Tone::Warning);
        assert!(line.text.starts_with("1 late frame, 4 skipped") && line.text.contains("\"wait\""), "{}", line.text);
        let fine = Readings { sounding: true, latency_ms: 192.6, ..quiet };
        let line = status_line(&status(State::Ready, "", 3.12), &fine, "", "");
        assert_eq!(line.text, "Playing, latency 193 ms, speed 3.1 × real time, gaps none");
        assert_eq!(status_line(&status(State::Ready, "", 3.0), &fine, "", "newer").text, "newer");
    }

    #[test]
    fn a_trait_that_does_nothing_says_why() {
        let mut status = status(State::Ready, "", 5.0);
        let said = |status: &Status| status_line(status, &Readings::default(), "", "").text;
        status.traits[2] = TraitState::Refused("directions a.safetensors belong to checkpoint x".to_owned());
        assert_eq!(said(&status), "Trait 3 does nothing: directions a.safetensors belong to checkpoint x");
        status.traits[2] = TraitState::InUse { changed: false };
        assert_eq!(said(&status), "Ready, speed 5.0 × real time");
        status.traits[2] = TraitState::InUse { changed: true };
        assert!(said(&status).contains("trait 3 has changed"));
    }

    #[test]
    fn a_target_that_was_not_learned_says_so() {
        let mut status = status(State::Ready, "", 5.0);
        let said = |status: &Status, target, sounding| {
            status_line(status, &Readings { sounding, target, ..Readings::default() }, "", "")
        };
        let note = |index| Target { note: PitchClass::new(index), chord: None };
        let chord = Target { note: None, chord: Chord::of_class(1) };
        let none = said(&status, note(4), true);
        assert_eq!((none.tone, &none.text[..24]), (Tone::Warning, "E does nothing: no notes"));
        assert!(said(&status, chord, true).text.starts_with("C minor does nothing: no chords were learned"));
        status.targets = [ClassSet::EMPTY.with(2).with(9), ClassSet::EMPTY.with(0), ClassSet::EMPTY];
        assert!(said(&status, note(4), true).text.contains("this model has D, A only"));
        assert!(said(&status, chord, true).text.contains("has 1 other chords only"));
        for (target, sounding) in [(note(9), true), (note(4), false), (chord, false), (Target::default(), true)] {
            assert_eq!(said(&status, target, sounding).tone, Tone::Good);
        }
    }

    #[test]
    fn where_it_computes_is_named() {
        let said = |device: &str| {
            let status = Status { device: device.to_owned(), ..status(State::Ready, "", 5.0) };
            status_line(&status, &Readings::default(), "", "").text
        };
        assert_eq!(said("CPU"), "Ready, speed 5.0 × real time, on CPU");
        assert_eq!(
            said("gpu 0: A, 7.0 of 8.0 GB free"),
            "Ready, speed 5.0 × real time, on gpu 0: A, 7.0 of 8.0 GB free"
        );
    }
}
