//! Steering: directions found in the decoder's hidden states, and their injection at block outputs (MusicRFM).

pub mod block_weights;
pub mod class_set;
pub mod detector;
pub mod directions;
pub mod doses;
pub mod envelope;
pub mod guard;
pub mod injection;
pub mod push;
pub mod schedule;
pub mod table;
pub mod trait_files;
