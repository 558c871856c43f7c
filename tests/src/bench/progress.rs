//! One progress bar for a run of many measurements. It draws only when it is told to: a drawing thread of its own would
//! take time and memory from what is measured.

use indicatif::{ProgressBar, ProgressStyle};

/// The bar.
pub struct Progress {
    bar: ProgressBar,
    round: String,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// An empty bar on stderr.
    pub fn new() -> Self {
        let bar = ProgressBar::new(1);
        if let Ok(style) = ProgressStyle::with_template("{msg:44} {wide_bar} {pos}/{len}") {
            bar.set_style(style);
        }
        Self { bar, round: String::new() }
    }

    /// What comes belongs to this round.
    pub fn round(&mut self, name: String) {
        self.round = name;
    }

    /// A measurement begins that has `length` parts.
    pub fn begin(&self, what: &str, length: usize) {
        self.bar.set_length(length.max(1) as u64);
        self.bar.set_position(0);
        self.bar.set_message(match self.round.is_empty() {
            true => what.to_owned(),
            false => format!("{}: {what}", self.round),
        });
    }

    /// So many parts are done.
    pub fn at(&self, done: usize) {
        self.bar.set_position(done as u64);
    }

    /// A line for a person above the bar, or alone where no bar can be drawn.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// The bar goes.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
