//! The application as a whole, without a window: it starts, plays through an output that is no device, and ends by itself.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// A home of its own, so that nothing of this machine's user is read or written.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tiller-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiller-standalone"));
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA"] {
            command.env(variable, &self.0);
        }
        let output = command.args(arguments).output();
        output.unwrap_or_else(|error| panic!("the application does not start: {error}"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error} in {text:?}, stderr {}", String::from_utf8_lossy(&output.stderr));
    })
}

#[test]
fn it_plays_a_second_into_nothing_and_ends() {
    let home = Home::new("headless");
    let output = home.run(&["--headless", "--seconds", "1.5", "--output", "none", "--json"]);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    // The clock paces it: a busy machine plays less, never more than has passed.
    let seconds = report["seconds"].as_f64().unwrap_or_default();
    assert!(seconds >= 1.0, "{report}");
    let peak = report["peak"].as_f64().unwrap_or_default();
    assert!(peak > 1e-3 && peak < 4.0, "music, not silence: {report}");
    assert_eq!(
        std::fs::read_dir(&home.0).map(Iterator::count).ok(),
        Some(0),
        "a run without a window remembers nothing"
    );
}

#[test]
fn an_output_that_is_not_there_is_named_and_is_no_crash() {
    let home = Home::new("no-output");
    let output = home.run(&["--headless", "--seconds", "0.2", "--output", "no such card", "--json"]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let line = report["output"].as_str().unwrap_or_default();
    assert!(line.contains("no such card") && line.contains("another output"), "{line}");
    assert!(report["seconds"].as_f64().unwrap_or_default() > 0.0, "the instrument goes on: {report}");
}

/// ALSA's own null device: the whole way through the system's audio library, on machines without a sound card.
#[test]
#[cfg(target_os = "linux")]
fn it_plays_through_the_systems_audio_library() {
    let home = Home::new("alsa");
    let text = "pcm.!default { type null }\nctl.!default { type null }\n";
    assert!(std::fs::write(home.0.join(".asoundrc"), text).is_ok());
    let output = home.run(&["--headless", "--seconds", "1", "--json"]);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert!(report["seconds"].as_f64().unwrap_or_default() > 0.5, "{report}");
}
