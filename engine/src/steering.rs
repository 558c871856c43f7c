//! Steering: directions found in the decoder's hidden states, and their injection at block outputs (MusicRFM).

pub mod directions;
pub mod injection;
