//! Progress of a program that works in stages: one bar at a time, for whatever is under way. Any thread.

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// The bar of the stage that is under way.
#[derive(Default)]
pub struct StageBar(Mutex<Option<(String, ProgressBar)>>);

impl StageBar {
    /// `done` of `all` items of a stage; another stage's name takes the bar over.
    pub fn hear(&self, stage: &str, done: usize, all: usize) {
        let mut shown = self.0.lock();
        if shown.as_ref().is_none_or(|(name, _)| name != stage) {
            if let Some((_, bar)) = shown.take() {
                bar.finish_and_clear();
            }
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left");
            let bar = ProgressBar::new(all as u64).with_message(stage.to_owned());
            let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_position(done as u64);
            // What was kept must not count as speed.
            bar.reset_eta();
            *shown = Some((stage.to_owned(), bar));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_length(all as u64);
            // Threads report out of order.
            bar.set_position(bar.position().max(done as u64));
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some((_, bar)) = self.0.lock().take() {
            bar.finish_and_clear();
        }
    }
}
