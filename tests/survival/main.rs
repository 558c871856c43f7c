//! It survives every host: rates and blocks, parameters, state, lifetimes, engine faults, hostile files and random input,
//! each property a test of its own. What is drawn at random says its seed (`TILLER_SEED`) and can be drawn longer
//! (`TILLER_EFFORT`). The hosted bundle carries the allocation guard of the audio thread, so every test that plays it proves
//! that, too; and the host's end (`tests/src/player.rs`) refuses any sample that is unwritten, no number, subnormal or above
//! full scale, and any written behind its block.

mod blocks;
mod cache;
mod corpus;
mod desk;
mod faults;
mod fuzz;
mod lifetimes;
mod parameters;
mod rates;
mod soaked;
mod state;
mod strangers;

use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::score::Score;

/// Path of a committed checkpoint.
fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn load() -> Outcome<Host> {
    Host::load(&dev_bundle()?)
}

/// `seconds` of the score from a host that renders offline, its delay taken off. The host stays as it is otherwise.
fn bounce(host: &mut Host, score: &Score, rate: f64, seconds: f64, blocks: Blocks) -> Outcome<Recording> {
    host.set_offline(true)?;
    let mut player = host.activate(rate, 512)?;
    let latency = host.latency()?;
    let length = u64::from(latency) + (seconds * rate) as u64;
    let heard = player.play(score, 0..length, blocks, Pace::FlatOut)?;
    host.deactivate(player);
    Ok(heard.compensated(latency as usize))
}
