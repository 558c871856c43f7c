//! `cargo xtask ardour`: the dev bundle in Ardour (tests/src/bin/tiller-ardour.rs), which it installs where it can.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace, code};
use crate::setup;

/// What `ardour` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Folder for the sessions and the exports.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Installs, builds, bundles, exports. The program prints the report.
pub fn run(workspace: &Workspace, options: &Options, json: bool) -> Outcome<ExitCode> {
    setup::packages(&[setup::ARDOUR])?;
    let bundles = bundle::bundle(workspace, Profile::Dev)?;
    let out = options.out.clone().unwrap_or_else(|| workspace.target.join("ardour"));
    let program = workspace.target.join("debug").join(format!("tiller-ardour{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&program);
    command.arg("--bundle").arg(&bundles.vst3).arg("--out").arg(&out);
    if json {
        command.arg("--json");
    }
    command.status().map(code).map_err(|e| format!("{} could not be started: {e}", program.display()))
}
