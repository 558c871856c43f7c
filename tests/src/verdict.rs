//! How a program of the tests ends: its report if one was asked for, what went wrong in one line, and the exit code.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::host::Outcome;

/// Prints what a run came to. The report goes to stdout where `as_json`; the code says whether all was well.
pub fn conclude(outcome: Outcome<(Value, bool)>, as_json: bool) -> ExitCode {
    match outcome {
        Ok((report, well)) => {
            if as_json {
                println!("{report}");
            }
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("error: {why}");
            if as_json {
                println!("{}", json!({ "ok": false, "error": why }));
            }
            ExitCode::FAILURE
        }
    }
}
