//! Hosts and measurements shared by the tests and the demo.

pub mod host;
pub mod measure;
pub mod player;
pub mod project;
pub mod score;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets the tests of one program run one after the other: what is paced by the wall clock needs the machine.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
