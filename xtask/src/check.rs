//! `cargo xtask test`: set-up, then formatting, lints, licences, build, dev bundle and every test. CI runs this and nothing else.

use std::io::stderr;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bundle;
use crate::cargo::{Profile, Workspace, succeeded};
use crate::cuda;
use crate::setup;

/// Where cargo-deny has its advisories from.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";

/// The candle backend, and its tests.
const CANDLE: &str = "tiller-tests/candle";

/// What `test` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Only the tests whose name contains this; formatting and lints are left out.
    filter: Option<String>,
    /// Run the tests of the candle backend too: four minutes when candle has to be compiled first.
    #[arg(long)]
    candle: bool,
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
            // With the feature, so that what no other stage builds is at least looked at.
            let all = ["clippy", "--workspace", "--all-targets", "--features", CANDLE];
            workspace.cargo(&[&all[..], &["--quiet", "--", "-D", "warnings"]].concat())
        })?;
    }
    if lints {
        stage("licences, bans, sources", &|| deny(workspace))?;
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
    if options.candle {
        let line = ["test", "--workspace", "--features", CANDLE, "--test", "backend"];
        stage("the backend on candle", &|| workspace.cargo(&line))?;
    }
    if lints && cuda::can_emulate() {
        stage("cards, emulated", &|| cuda::emulate(workspace))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("everything passed in {seconds:.0} s");
    Ok(json!({ "ok": true, "wall_seconds": seconds, "stages": stages }))
}

/// `cargo deny` by deny.toml. Advisories are asked for too where their database can be had; a machine that cannot reach it is
/// told, and no reason to fail.
fn deny(workspace: &Workspace) -> Outcome<()> {
    let program = setup::cargo_deny(workspace)?;
    let check = |what: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(&workspace.root).args(["--workspace", "check"]).args(what).stdout(Stdio::from(stderr()));
        command.status()
    };
    succeeded(check(&["licenses", "bans", "sources"]), "cargo deny check licenses bans sources")?;
    let reached = Command::new("git")
        .args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=10", "ls-remote", "--heads", ADVISORIES])
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !reached.is_ok_and(|status| status.success()) {
        eprintln!("advisories: {ADVISORIES} cannot be reached from here, so they were not looked at");
        return Ok(());
    }
    succeeded(check(&["advisories"]), "cargo deny check advisories")
}
