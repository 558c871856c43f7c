//! Hosts and measurements shared by the tests and the demo.

pub mod answers;
pub mod ardour;
pub mod bench;
pub mod card;
pub mod codec;
pub mod counting;
#[cfg(target_os = "linux")]
pub mod editor;
pub mod host;
pub mod hub;
pub mod measure;
pub mod memory;
pub mod midi_file;
pub mod player;
pub mod prefill;
pub mod project;
pub mod random;
pub mod score;
pub mod soak;
pub mod tensors;
pub mod verdict;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets the tests of one program run one after the other: what is paced by the wall clock needs the machine.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test that is paced by the wall clock, again if it fails, three times at most: other work on the machine can
/// make live play late, which is no fault of the plugin, but a fault of the plugin shows every time.
pub fn undisturbed(mut take: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut said = Vec::new();
    for _ in 0..3 {
        match take() {
            Ok(()) => return Ok(()),
            Err(why) => said.push(why),
        }
    }
    Err(format!("three times: {}", said.join("; ")))
}
