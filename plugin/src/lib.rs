//! The Tiller instrument.
