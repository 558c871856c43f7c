//! MusicGen's decode step and EnCodec's decoder on NVIDIA cards, with kernels of our own: one captured graph per step, from
//! codes to codes, and one per frame of audio, from codes to samples. A library of its own behind a small C interface
//! (exports.rs), so that the engine and the plugin load on machines that have never heard of CUDA. Called from the engine's
//! loader and runner threads.

#[path = "../../engine/src/backend/cuda/abi.rs"]
mod abi;
mod capture;
mod codec;
mod driver;
mod error;
mod exports;
mod kernels;
mod layout;
mod memory;
mod model;
mod player;
mod probe;
mod prompt;
