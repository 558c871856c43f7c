//! `cargo xtask bench`: how fast this machine plays (tests/src/bin/tiller-bench.rs), built for release, with the bundle and
//! the peers that it is asked about.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace, code, succeeded};
use crate::setup;

/// Builds what the arguments ask for and runs the program with its own arguments; it prints the report.
pub fn run(workspace: &Workspace, arguments: &[String], json: bool) -> Outcome<ExitCode> {
    let wanted = Wanted::of(arguments);
    let mut build = vec!["build", "--release", "-p", "tiller-tests", "--bin", "tiller-bench"];
    if wanted.plugin {
        // One call, so that the plugin and the host share one resolution of features.
        build.extend(["-p", "tiller-plugin", "--lib"]);
    }
    workspace.cargo(&build)?;
    let program = workspace.target.join("release").join(format!("tiller-bench{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&program);
    command.args(arguments).arg("--cache").arg(workspace.target.join("bench"));
    if json {
        command.arg("--json");
    }
    if wanted.plugin {
        command.arg("--bundle").arg(bundle::from_library(workspace, Profile::Release)?.clap);
    }
    if wanted.torch {
        command.arg("--torch-python").arg(setup::model_environment(workspace)?);
    }
    if wanted.candle {
        command.arg("--candle-program").arg(candle(workspace)?);
    }
    command.status().map(code).map_err(|e| format!("{} could not be started: {e}", program.display()))
}

/// Parts that are built or installed only when they are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    plugin: bool,
    torch: bool,
    candle: bool,
}

impl Wanted {
    /// What the program will be asked for; it checks the arguments itself.
    fn of(arguments: &[String]) -> Self {
        let help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
        let has = |name: &str| !help && arguments.iter().any(|argument| argument == name);
        let mut peers: Vec<&str> = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let list = match argument.strip_prefix("--peer") {
                Some("") => rest.next().map(String::as_str),
                Some(value) => value.strip_prefix('='),
                None => None,
            };
            peers.extend(list.unwrap_or_default().split(','));
        }
        let peer = |names: &[&str]| !help && names.iter().any(|name| peers.contains(name));
        Self {
            plugin: has("--plugin"),
            // Somebody who names a Python has one.
            torch: peer(&["torch", "torch-f32"]) && !has("--torch-python"),
            candle: peer(&["candle"]),
        }
    }
}

/// Builds the candle peer, a crate of its own, for exactly this processor: a peer should be at its best.
fn candle(workspace: &Workspace) -> Outcome<PathBuf> {
    let manifest = workspace.root.join("tests/peers/candle/Cargo.toml");
    let target = workspace.target.join("peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("> cargo build --release --locked --manifest-path {}", manifest.display());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-cpu=native")
        .stdout(std::io::stderr())
        .status();
    succeeded(status, "cargo build of the candle peer")?;
    Ok(target.join("release").join(format!("tiller-peer-candle{}", std::env::consts::EXE_SUFFIX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Wanted {
        Wanted::of(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_is_asked_for_is_built() {
        assert_eq!(wanted("--shape demo --load 1"), Wanted::default());
        assert_eq!(wanted("--peer candle --plugin"), Wanted { plugin: true, candle: true, torch: false });
        assert_eq!(wanted("--peer=torch-f32,candle"), Wanted { plugin: false, candle: true, torch: true });
        assert_eq!(wanted("--peer torch --peer candle --help"), Wanted::default());
        assert_eq!(wanted("--peer torch --torch-python /usr/bin/python3"), Wanted::default());
    }
}
