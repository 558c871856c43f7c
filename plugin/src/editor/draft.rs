//! A text that is being typed, beside the text that the project has. UI thread.

/// Both.
#[derive(Default)]
pub struct Draft {
    /// What the field shows.
    pub typed: String,
    seen: String,
}

impl Draft {
    /// Takes the project's text over when that has changed: a loaded project wins over half a line.
    pub fn follow(&mut self, project: &str) {
        if self.seen != project {
            project.clone_into(&mut self.seen);
            project.clone_into(&mut self.typed);
        }
    }

    /// Whether it says something else than the project.
    pub fn is_changed(&self) -> bool {
        self.typed.trim() != self.seen.trim()
    }
}
