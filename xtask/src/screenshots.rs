//! `cargo xtask screenshots`: the release bundle's editor in a host that is not ours, under an X server of its own
//! (tests/python/screenshots), and the standalone application's. Pictures go to assets/, where the README shows them; what the
//! window costs while it plays and while it is idle is printed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace, succeeded};
use crate::setup;

/// What `screenshots` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Folder for the pictures; without it, assets/.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Which build is shown.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// One scene alone: first-run, playing, idle, loading, missing, keyboard, devices, models or models-offline.
    #[arg(long)]
    only: Option<String>,
}

/// Builds, bundles, opens the editor and takes the pictures.
pub fn run(workspace: &Workspace, options: &Options) -> Outcome<Value> {
    let bundles = bundle::bundle(workspace, options.profile)?;
    setup::screen()?;
    // The hub on loopback that the scenes of models download from.
    let built = ["build", "-p", "tiller-tests", "--bin", "tiller-hub"];
    let (line, folder) = match options.profile {
        Profile::Dev => (built.to_vec(), Profile::Dev.folder()),
        Profile::Release => ([&built[..], &["--release"]].concat(), Profile::Release.folder()),
    };
    workspace.cargo(&line)?;
    let hub = workspace.target.join(folder).join("tiller-hub").with_extension(std::env::consts::EXE_EXTENSION);
    let python = setup::screenshots_environment(workspace)?;
    let out = options.out.clone().unwrap_or_else(|| workspace.root.join("assets"));
    let script = workspace.root.join("tests/python/screenshots/main.py");
    let mut command = Command::new(&python);
    command.arg(&script).arg("--bundle").arg(&bundles.vst3).arg("--out").arg(&out);
    command.arg("--demo").arg(workspace.root.join("assets/demo")).arg("--hub").arg(hub);
    if let Some(standalone) = &bundles.standalone {
        command.arg("--standalone").arg(standalone);
    }
    if let Some(only) = &options.only {
        command.arg("--only").arg(only);
    }
    let run = command.stderr(Stdio::inherit()).output();
    let printed = run.as_ref().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    eprint!("{printed}");
    succeeded(run.map(|output| output.status), &format!("{} {}", python.display(), script.display()))?;
    let (pictures, said): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.ends_with(".png"));
    Ok(json!({ "ok": true, "pictures": pictures, "said": said }))
}
