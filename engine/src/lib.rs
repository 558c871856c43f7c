//! Streaming MusicGen with steering.
pub mod kernel;

pub mod control;
pub mod link;
pub mod status;
pub mod dataset;
pub mod evaluation;
