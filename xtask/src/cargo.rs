//! The workspace on disk, and cargo run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use serde_json::Value;

use crate::Outcome;

/// Which build of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Optimised, with debug assertions: the allocation guard of the audio thread works only with them.
    Dev,
    /// What people play.
    Release,
}

impl Profile {
    /// Folder under target/.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Where the sources and cargo's outputs are.
pub struct Workspace {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// cargo's target folder, wherever the user has put it.
    pub target: PathBuf,
    /// Our stdout carries one JSON object: what cargo writes there goes to stderr.
    json: bool,
}

impl Workspace {
    /// Asks cargo, so that `CARGO_TARGET_DIR` and configuration files count.
    pub fn find(json: bool) -> Outcome<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default();
        let output = cargo_command(&root)
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("cargo could not be started: {e}"))?;
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|e| format!("cargo metadata in {} gave no JSON: {e}", root.display()))?;
        let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target_directory")?;
        Ok(Self { target: PathBuf::from(target), root, json })
    }

    /// Runs cargo. An exit code other than 0 is an error.
    pub fn cargo(&self, arguments: &[&str]) -> Outcome<()> {
        eprintln!("> cargo {}", arguments.join(" "));
        let stdout = if self.json { Stdio::from(std::io::stderr()) } else { Stdio::inherit() };
        let status = cargo_command(&self.root).args(arguments).stdout(stdout).status();
        succeeded(status, &format!("cargo {}", arguments.join(" ")))
    }

    /// Runs cargo with stdout passed through, and gives back its exit code.
    pub fn cargo_code(&self, arguments: &[&str]) -> Outcome<ExitCode> {
        self.cargo_code_on(arguments, None)
    }

    /// The same on an X display.
    pub fn cargo_code_on(&self, arguments: &[&str], display: Option<&str>) -> Outcome<ExitCode> {
        eprintln!("> cargo {}", arguments.join(" "));
        let mut command = cargo_command(&self.root);
        command.envs(display.map(|display| ("DISPLAY", display)));
        let status = command.args(arguments).status();
        status.map(code).map_err(|e| format!("cargo could not be started: {e}"))
    }
}

/// The exit code of a finished program; 1 when a signal ended it.
pub fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
    ExitCode::from(code)
}

/// Turns a program's end into an outcome that names the program.
pub fn succeeded(status: std::io::Result<ExitStatus>, what: &str) -> Outcome<()> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{what}` ended with {status}")),
        Err(e) => Err(format!("`{what}` could not be started: {e}")),
    }
}

/// The same cargo that runs this program.
fn cargo_command(root: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root);
    command
}
