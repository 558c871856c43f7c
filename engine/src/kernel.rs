//! The f32 arithmetic of the run path (decoder and codec): no allocation, and the same bits whatever rows share a call.
//! Any thread. candle serves loading, T5 and learning only.

pub mod linear;

pub use linear::Linear;
