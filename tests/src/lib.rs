//! Hosts and measurements shared by the tests and the demo.

pub mod host;
pub mod measure;
pub mod player;
pub mod score;
