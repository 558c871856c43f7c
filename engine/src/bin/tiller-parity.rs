//! Compares the engine with a file of golden values from transformers; exit code 1 past the bounds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tiller_engine::parity::{Report, compare};

/// The engine against golden values of Hugging Face transformers, every stage, in f32. Exit code 1 when a stage is past its
/// bound (named in the table), 2 when nothing could be compared.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A MusicGen directory.
    #[arg(long)]
    checkpoint: PathBuf,
    /// Golden values of that very checkpoint, as `cargo xtask reference` writes them.
    #[arg(long)]
    reference: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn print(report: &Report) {
    for stage in &report.stages {
        let verdict = if stage.pass { "ok" } else { "FAILED" };
        println!(
            "{:28} largest error {:8.1e}, relative {:8.1e}, bound {:.0e}  {verdict}",
            stage.name, stage.max_abs, stage.max_rel, stage.bound
        );
    }
    for stage in &report.codes {
        let verdict = if stage.pass { "ok" } else { "FAILED" };
        let (count, ties, wrong) = (stage.count, stage.ties.len(), stage.wrong.len());
        println!("{:28} {} of {count} equal, {ties} ties, {wrong} wrong  {verdict}", stage.name, count - ties - wrong);
        stage.ties.iter().take(20).for_each(|tie| println!("    tie: {tie}"));
        stage.wrong.iter().take(20).for_each(|wrong| println!("    wrong: {wrong}"));
    }
    println!("{}", if report.pass { "parity holds" } else { "parity FAILED" });
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match compare(&arguments.checkpoint, &arguments.reference, &|stage| eprintln!("parity: {stage}")) {
        Ok(report) => {
            if arguments.json {
                println!("{}", serde_json::json!(report));
            } else {
                print(&report);
            }
            if report.pass { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("tiller-parity: {error}");
            ExitCode::from(2)
        }
    }
}
