//! `cargo xtask demo`: release bundle, then the demo host (tests/src/bin/tiller-demo.rs) plays it in a process of its own.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace, code};

/// What `demo` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Seconds of steered music per target that are judged (at least 10).
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Folder for the WAVs and the picture.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Builds, bundles, plays. The demo host prints the report.
pub fn run(workspace: &Workspace, options: &Options, json: bool) -> Outcome<ExitCode> {
    // One call, so that the plugin and the host share one resolution of features.
    workspace.cargo(&[
        "build",
        "--release",
        "-p",
        "tiller-plugin",
        "-p",
        "tiller-tests",
        "--lib",
        "--bin",
        "tiller-demo",
    ])?;
    let bundles = bundle::from_library(workspace, Profile::Release)?;
    bundles.say("bundled");
    let out = options.out.clone().unwrap_or_else(|| workspace.target.join("demo"));
    let host = workspace.target.join("release").join(format!("tiller-demo{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&host);
    command.arg("--bundle").arg(&bundles.clap).arg("--out").arg(&out);
    command.arg("--seconds").arg(options.seconds.to_string());
    if json {
        command.arg("--json");
    }
    command.status().map(code).map_err(|e| format!("{} could not be started: {e}", host.display()))
}
