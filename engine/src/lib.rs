//! Streaming MusicGen with steering.
pub mod codec;
pub mod kernel;

pub mod control;
pub mod link;
pub mod status;
pub mod dataset;
pub mod evaluation;
pub mod checkpoint;
pub mod decoder;
pub mod text;
pub mod steering;
pub mod error;
pub mod handle;
pub mod model;
pub mod piece;
pub mod player;
pub mod render;
pub mod embedded;
mod loader;
mod runner;
pub mod learn;
