//! Steps with candle's tensors: on Apple's GPUs with the feature `metal`, and on candle's CPU device, which is how the arithmetic
//! is tested. **It has never run on Metal**: where it was written there is none. With `metal` it has only been type-checked
//! (`cargo check -p tiller-engine --features metal --target aarch64-apple-darwin`). What is different there are the few lines of
//! `device.rs` behind that feature, and the width of the numbers (f16), which the tests also try on the CPU device.
//!
//! Not for a host on the CPU device: from 65,536 elements up candle starts thread pools that nobody can join, and threads
//! that outlive an unloaded plugin crash the host. Tensors of a Metal device are computed by its kernels alone: what is given to
//! it and taken back is copied here, on the calling thread, and no pool starts.
//!
//! A step always has [`MOST_ROWS`](super::MOST_ROWS) rows, zeros where the player has none: the shapes of its products then depend
//! on nothing but a row's own position and prompt, so a row keeps its bits in any company. It allocates, as candle's
//! operations do; that is the runner's thread, never the audio thread. Loader and runner threads.

mod device;
mod model;
mod steering;
mod step;

#[cfg(feature = "metal")]
pub use device::metal;
pub use device::{CandleDevice, Numbers, processor};
pub use model::CandleModel;
pub use step::CandleBackend;

use super::BackendError;

/// What candle says, as the answer of a card.
fn failed(status: i32, what: &str, error: &candle_core::Error) -> BackendError {
    // The rest is a backtrace, where one is asked for.
    let said = error.to_string();
    BackendError::Card { status, text: format!("{what} ({}); the CPU plays", said.lines().next().unwrap_or_default()) }
}
