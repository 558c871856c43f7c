//! Judging what was made from its audio alone: the outside ear, and pictures of what it heard. Worker threads.

pub mod chroma;
pub mod chromagram;
pub mod dominance;
