//! `cargo xtask test`: set-up, then formatting, lints, build, dev bundle and every test. CI runs this and nothing else.

use std::time::Instant;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace};
use crate::cuda;
use crate::setup;

/// What `test` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Only the tests whose name contains this; formatting and lints are left out.
    filter: Option<String>,
}

/// Runs everything in order, ends at the first failure.
pub fn run(workspace: &Workspace, options: &Options) -> Outcome<Value> {
    let started = Instant::now();
    let mut stages = Vec::new();
    let mut stage = |name: &str, work: &dyn Fn() -> Outcome<()>| -> Outcome<()> {
        eprintln!("== {name}");
        let began = Instant::now();
        work()?;
        stages.push(json!({ "stage": name, "seconds": began.elapsed().as_secs_f64() }));
        Ok(())
    };
    let lints = options.filter.is_none();
    stage("set-up", &|| {
        setup::packages(&[setup::SOUND_FONT])?;
        setup::packages(&setup::SOUND_HEADERS)?;
        setup::python_environment(workspace)?;
        if lints { setup::rust_tools() } else { Ok(()) }
    })?;
    if lints {
        stage("rustfmt", &|| workspace.cargo(&["fmt", "--all", "--", "--check"]))?;
        stage("clippy", &|| {
            workspace.cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
        })?;
    }
    stage("build", &|| {
        workspace.cargo(&["build", "--workspace"])?;
        // Whatever the tests make cargo build anew is built before the bundle, which must not be older than the library.
        workspace.cargo(&["test", "--workspace", "--no-run"])?;
        bundle::from_library(workspace, Profile::Dev).map(|bundles| bundles.say("bundled"))
    })?;
    stage("tests", &|| {
        let mut line = vec!["test", "--workspace"];
        line.extend(options.filter.as_deref());
        workspace.cargo(&line)
    })?;
    if lints && cuda::can_emulate() {
        stage("cards, emulated", &|| cuda::emulate(workspace))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("everything passed in {seconds:.0} s");
    Ok(json!({ "ok": true, "wall_seconds": seconds, "stages": stages }))
}
