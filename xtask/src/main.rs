//! `cargo xtask COMMAND`: every developer and user command. Each does the set-up that it needs, says what it does,
//! and with `--json` prints exactly one JSON object on stdout (people's lines go to stderr then).

mod ardour;
mod bench;
mod bundle;
mod cargo;
mod check;
mod cuda;
mod demo;
mod mistakes;
mod reference;
mod screenshots;
mod setup;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::cargo::{Profile, Workspace};

/// Everything that can go wrong here ends as one line for a person.
pub type Outcome<T> = Result<T, String>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tiller: every developer and user command", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object on stdout; everything for people goes to stderr.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Build the plugin, play it in a host while steering it, write sound and picture, print the share on target.
    Demo(demo::Options),
    /// Install what is missing and run everything that CI runs.
    Test(check::Options),
    /// Make the CLAP and VST3 bundles under target/bundled.
    Bundle {
        /// `dev` bundles go to target/bundled/dev: they carry the checks that the tests need.
        #[arg(long, value_enum, default_value_t = Profile::Release)]
        profile: Profile,
        /// Build the CUDA library too and put it into both, beside the plugin.
        #[arg(long)]
        cuda: bool,
    },
    /// Make the release bundles and put them into the user's plugin folders, and the presets where VST3 hosts list them.
    Install {
        /// Put them under this folder (its `clap` and `vst3`) instead.
        #[arg(long)]
        to: Option<PathBuf>,
        /// The CUDA library too.
        #[arg(long)]
        cuda: bool,
    },
    /// Play a session in Ardour without a window: chords drawn on the timeline, keys, two exports compared.
    Ardour(ardour::Options),
    /// Make the folder that checks the CUDA library on a machine with a card, but no Rust and no network.
    CudaCheck,
    /// Run the CUDA library's tests on a driver without a card.
    Emulate,
    /// Render a WAV offline from a prompt and timed lane moves, through the same runner as the plugin.
    #[command(disable_help_flag = true)]
    Render(Rest),
    /// Learn directions for a checkpoint.
    #[command(disable_help_flag = true)]
    Learn(Rest),
    /// Judge a checkpoint by ear: its codec, prompts, music, pitch, and how it is steered.
    #[command(disable_help_flag = true)]
    Evaluate(Rest),
    /// Compare the engine with golden values of transformers, every stage; exit code 1 past the bounds.
    #[command(disable_help_flag = true)]
    Parity(Rest),
    /// Make deliberate mistakes in a copy of the engine: each must make `parity` fail.
    Mistakes(mistakes::Options),
    /// Play minutes far past the model's window: what grows, drifts, clicks or is late; `soak host` and `soak editor` in a host.
    #[command(disable_help_flag = true)]
    Soak(Rest),
    /// Measure how fast this machine plays: bandwidth, decoder, codec, whole stream, peers in turn.
    #[command(disable_help_flag = true)]
    Bench(Rest),
    /// Make a random checkpoint and the values that Hugging Face transformers computes with it.
    Reference(reference::Options),
    /// Open the editor in a host under Xvfb and take the pictures that the README shows.
    Screenshots(screenshots::Options),
    /// Render the training music or the labelled clips that learning listens to.
    #[command(disable_help_flag = true)]
    Dataset(Rest),
}

/// Arguments handed on to the program that does the work; `--help` shows its own.
#[derive(clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok((report, code)) => {
            if let (true, Some(report)) = (arguments.json, report) {
                println!("{report}");
            }
            code
        }
        Err(why) => {
            eprintln!("error: {why}");
            if arguments.json {
                println!("{}", json!({ "ok": false, "error": why }));
            }
            ExitCode::FAILURE
        }
    }
}

/// The JSON object to print, unless the command's own program has printed it, and the exit code.
fn run(arguments: &Arguments) -> Outcome<(Option<Value>, ExitCode)> {
    let workspace = Workspace::find(arguments.json)?;
    match &arguments.command {
        Command::Demo(options) => Ok((None, demo::run(&workspace, options, arguments.json)?)),
        Command::Test(options) => Ok((Some(check::run(&workspace, options)?), ExitCode::SUCCESS)),
        Command::Bundle { profile, cuda } => {
            let bundles = bundle::bundle(&workspace, *profile)?;
            if *cuda {
                cuda::into_bundles(&workspace, &bundles.code())?;
            }
            bundles.say("bundled");
            Ok((Some(bundles.report()), ExitCode::SUCCESS))
        }
        Command::Install { to, cuda } => {
            let bundles = bundle::bundle(&workspace, Profile::Release)?;
            let installed = bundle::install(&bundles, to.as_deref())?;
            if *cuda {
                cuda::into_bundles(&workspace, &installed.code())?;
            }
            bundle::install_presets(&workspace, to.as_deref())?;
            installed.say("installed");
            Ok((Some(installed.report()), ExitCode::SUCCESS))
        }
        Command::Ardour(options) => Ok((None, ardour::run(&workspace, options, arguments.json)?)),
        Command::CudaCheck => Ok((Some(cuda::check_folder(&workspace)?), ExitCode::SUCCESS)),
        Command::Emulate => {
            cuda::emulate(&workspace)?;
            Ok((Some(json!({ "ok": true })), ExitCode::SUCCESS))
        }
        Command::Render(rest) => program(&workspace, "tiller-render", rest, arguments.json),
        Command::Soak(rest) => Ok((None, soak::run(&workspace, &rest.arguments, arguments.json)?)),
        Command::Bench(rest) => match cuda::bench_arguments(&rest.arguments) {
            Some(own) => Ok((None, cuda::bench(&workspace, &own, arguments.json)?)),
            None => Ok((None, bench::run(&workspace, &rest.arguments, arguments.json)?)),
        },
        Command::Evaluate(rest) => {
            setup::packages(&[setup::SOUND_FONT])?;
            program(&workspace, "tiller-evaluate", rest, arguments.json)
        }
        Command::Parity(rest) => program(&workspace, "tiller-parity", rest, arguments.json),
        Command::Mistakes(options) => Ok((Some(mistakes::run(&workspace, options)?), ExitCode::SUCCESS)),
        Command::Learn(rest) => {
            setup::packages(&[setup::SOUND_FONT])?;
            program(&workspace, "tiller-learn", rest, arguments.json)
        }
        Command::Reference(options) => Ok((Some(reference::run(&workspace, options)?), ExitCode::SUCCESS)),
        Command::Screenshots(options) => Ok((Some(screenshots::run(&workspace, options)?), ExitCode::SUCCESS)),
        Command::Dataset(rest) => {
            setup::packages(&[setup::SOUND_FONT])?;
            program(&workspace, "tiller-dataset", rest, arguments.json)
        }
    }
}

/// Runs one of the engine's programs. Arguments after the first one of its own are the program's, `--json` too.
fn program(workspace: &Workspace, binary: &str, rest: &Rest, json: bool) -> Outcome<(Option<Value>, ExitCode)> {
    let mut line = vec!["run", "--release", "--quiet", "-p", "tiller-engine", "--bin", binary, "--"];
    line.extend(rest.arguments.iter().map(String::as_str));
    if json {
        line.push("--json");
    }
    Ok((None, workspace.cargo_code(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_programs_own_arguments_pass_through() {
        let parsed = Arguments::try_parse_from(["xtask", "render", "--seconds", "3", "--help"]).unwrap();
        let Command::Render(rest) = parsed.command else { panic!("not render") };
        assert_eq!(rest.arguments, ["--seconds", "3", "--help"]);
    }
}
