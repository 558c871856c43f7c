//! `tiller-hub`: a folder with a checkpoint as a hub of models on loopback, for trying the way from the editor's list to music
//! without a network. Prints its address, for `HF_ENDPOINT`, and serves until it is killed.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tiller_tests::hub::{HubServer, Manners};

/// Serves a checkpoint's folder as a hub of models, on 127.0.0.1.
#[derive(Parser)]
struct Arguments {
    /// Folder with config.json, tokenizer.json and the weights.
    #[arg(long)]
    folder: PathBuf,
    /// What it is called.
    #[arg(long, default_value = "facebook/musicgen-small")]
    repository: String,
    /// 0 is any that is free.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Bytes a second of each connection.
    #[arg(long)]
    throttle: Option<u64>,
    /// This file arrives with another byte in its middle, once.
    #[arg(long)]
    corrupt_once: Option<String>,
    /// The first connection that sends a file ends after so many bytes of it.
    #[arg(long)]
    cut_after: Option<u64>,
    /// Every connection does, and not the first alone.
    #[arg(long)]
    cut_always: bool,
    /// Whoever does not say this token is refused.
    #[arg(long)]
    token: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let server = match HubServer::start(&arguments.folder, &arguments.repository, arguments.port) {
        Ok(server) => server,
        Err(why) => {
            eprintln!("{}: {why}", arguments.folder.display());
            return ExitCode::FAILURE;
        }
    };
    server.behave(Manners {
        throttle: arguments.throttle,
        corrupt_once: arguments.corrupt_once,
        cut_after: arguments.cut_after,
        cuts: (!arguments.cut_always).then_some(1),
        token: arguments.token,
        ..Manners::default()
    });
    println!("{}", server.url());
    if std::io::stdout().flush().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        std::thread::park();
    }
}
