//! The audio thread keeps its promises while it plays live: RealtimeSanitizer watches a minute of the built bundle in a
//! process of its own, and the dev bundle's allocation guard would end that process at once.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::json;
use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::project::Project;
use tiller_tests::turn;

const REPORT: &str = "RealtimeSanitizer";

fn watched(arguments: &[&str]) -> Outcome<Output> {
    Command::new(env!("CARGO_BIN_EXE_tiller-rtsan"))
        .arg("--bundle")
        .arg(dev_bundle()?)
        .args(arguments)
        .env("RTSAN_OPTIONS", "halt_on_error=false")
        .output()
        .map_err(|e| e.to_string())
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A project with another prompt, for a change in the middle of the piece.
fn other_prompt() -> Outcome<PathBuf> {
    let mut host = Host::load(&dev_bundle()?)?;
    let mut project = Project::open(&host.save()?)?;
    project.document["prompt"] = json!("fast bright strings arpeggio");
    let path = std::env::temp_dir().join(format!("tiller-prompt-{}.state", std::process::id()));
    std::fs::write(&path, project.close()?).map_err(|e| e.to_string())?;
    Ok(path)
}

#[test]
fn a_minute_of_live_play_breaks_no_rule() -> Outcome<()> {
    let _turn = turn();
    let state = other_prompt()?;
    let output = watched(&["--seconds", "60", "--state", &state.display().to_string()])?;
    let _ = std::fs::remove_file(&state);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output));
    assert!(output.status.success(), "{}\n{said}{errors}", output.status);
    assert!(!errors.contains(REPORT), "{errors}");
    assert!(!said.contains("rms: 0.000"), "{said}");
    Ok(())
}

#[test]
fn no_rule_is_broken_at_other_rates_blocks_and_layouts() -> Outcome<()> {
    let _turn = turn();
    // Together they cover both ends of the rates and of the blocks, odd ones, and the mono output.
    let matrix = [
        ["8000", "1", "2"],
        ["11025.5", "17", "1"],
        ["44100", "10", "2"],
        ["32000", "2027", "2"],
        ["96000", "16384", "1"],
        ["192000", "random", "2"],
        ["768000", "4096", "2"],
    ];
    for [rate, block, channels] in matrix {
        let sizes = if block == "random" { vec!["--block", "2048", "--random"] } else { vec!["--block", block] };
        let own = ["--seconds", "2", "--warm-up", "1", "--rate", rate, "--channels", channels];
        let output = watched(&[&own[..], &sizes].concat())?;
        let (said, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), errors(&output));
        assert!(output.status.success(), "{rate} Hz, {block}: {}\n{said}{errors}", output.status);
        assert!(!errors.contains(REPORT), "{rate} Hz, {block}: {errors}");
    }
    Ok(())
}

#[test]
fn a_breach_would_be_reported() -> Outcome<()> {
    let _turn = turn();
    let output = watched(&["--violate"])?;
    let errors = errors(&output);
    assert!(errors.contains(REPORT) && errors.contains("alloc"), "{errors}");
    assert!(errors.contains("ext_state_save"), "the plugin's own code is not watched:\n{errors}");
    Ok(())
}
