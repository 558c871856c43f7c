//! The Tiller instrument.
pub mod params;
pub mod state;
