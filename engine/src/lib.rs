//! Streaming MusicGen with steering.
pub mod codec;
pub mod kernel;

pub mod checkpoint;
pub mod control;
pub mod dataset;
pub mod decoder;
pub mod embedded;
pub mod error;
pub mod evaluation;
pub mod handle;
pub mod learn;
pub mod link;
mod loader;
pub mod model;
pub mod parity;
pub mod piece;
pub mod player;
pub mod pool;
pub mod precision;
pub mod render;
mod runner;
pub mod sound_file;
pub mod stages;
pub mod status;
pub mod steering;
pub mod text;
pub mod user_folders;
