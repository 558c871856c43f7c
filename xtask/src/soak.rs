//! `cargo xtask soak`: long runs, built for release. By itself the engine's core (tests/src/bin/tiller-soak.rs); `host` is an
//! hour of steered play in a host (tiller-soak-host.rs), `editor` a thousand openings of the editor (tiller-soak-editor.rs).

use std::process::{Child, Command, ExitCode, Stdio};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace};
use crate::setup;

/// Builds and runs the program with its own arguments; it prints the report.
pub fn run(workspace: &Workspace, arguments: &[String], json: bool) -> Outcome<ExitCode> {
    let (program, own) = match arguments.split_first() {
        Some((first, rest)) if first == "host" => ("tiller-soak-host", rest),
        Some((first, rest)) if first == "editor" => ("tiller-soak-editor", rest),
        _ => ("tiller-soak", arguments),
    };
    let mut own = own.to_vec();
    let asks = own.iter().any(|argument| argument == "--help" || argument == "-h");
    let mut screen = None;
    if program != "tiller-soak" && !asks {
        let bundles = bundle::bundle(workspace, Profile::Release)?;
        own.splice(0..0, ["--bundle".to_owned(), bundles.clap.display().to_string()]);
    }
    if program == "tiller-soak-editor" && !asks {
        let checkpoint = workspace.root.join("tests/fixtures/parity-mono");
        own.splice(0..0, ["--checkpoint".to_owned(), checkpoint.display().to_string()]);
        setup::screen()?;
        screen = Some(Screen::start()?);
    }
    let mut line = vec!["run", "--release", "--quiet", "-p", "tiller-tests", "--bin", program, "--"];
    line.extend(own.iter().map(String::as_str));
    if json {
        line.push("--json");
    }
    workspace.cargo_code_on(&line, screen.as_ref().map(|screen| screen.display.as_str()))
}

/// An X server of our own.
struct Screen {
    server: Child,
    display: String,
}

impl Screen {
    /// Xvfb chooses a free number and tells it.
    fn start() -> Outcome<Self> {
        let failed = |what: &dyn std::fmt::Display| format!("Xvfb: {what}");
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1400x1100x24", "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed(&e))?;
        let mut number = String::new();
        if let Some(told) = server.stdout.take() {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(told), &mut number).map_err(|e| failed(&e))?;
        }
        if number.trim().is_empty() {
            let _ = server.kill();
            return Err(failed(&"it names no display"));
        }
        Ok(Self { server, display: format!(":{}", number.trim()) })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A server that is gone already is as good.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
