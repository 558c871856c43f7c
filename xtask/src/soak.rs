//! `cargo xtask soak`: minutes of endless play with times (tests/src/bin/tiller-soak.rs), built for release.

use std::process::ExitCode;

use crate::Outcome;
use crate::cargo::Workspace;

/// Builds and runs the program with its own arguments; it prints the report.
pub fn run(workspace: &Workspace, arguments: &[String], json: bool) -> Outcome<ExitCode> {
    let mut line = vec!["run", "--release", "--quiet", "-p", "tiller-tests", "--bin", "tiller-soak", "--"];
    line.extend(arguments.iter().map(String::as_str));
    if json {
        line.push("--json");
    }
    workspace.cargo_code(&line)
}
