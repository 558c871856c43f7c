//! The way of a model from a hub to music, against a hub on loopback that behaves and misbehaves: listed, accepted, downloaded,
//! interrupted, gone on with, found damaged, played, tried, removed. Every test is a process of its own with user folders of its
//! own; nothing leaves this machine.

mod download;
mod list;
mod place;
mod refusals;
