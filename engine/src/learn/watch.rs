//! Who hears how far learning is, and may have it wait or end. Any thread.

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rendering clips and listening to them.
    Listening,
    /// Finding directions in what was heard.
    Fitting,
    /// Playing by directions, to find their dose.
    Playing,
}

/// Learning was told to end. What it has kept lets it go on from there another time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("it was stopped before its end")]
pub struct Stopped;

/// Asked several times a second by whatever learns, on every thread that it uses.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    hear: &'a (dyn Fn(Stage, usize, usize) + Sync),
    check: &'a (dyn Fn() -> Result<(), Stopped> + Sync),
}

impl<'a> Watch<'a> {
    /// Hears nothing and lets everything come to its end.
    pub const IDLE: Watch<'static> = Watch { hear: &|_, _, _| (), check: &|| Ok(()) };

    /// Hears (stage, items done, items in all) from any thread, and lets everything come to its end.
    pub fn hearing(hear: &'a (dyn Fn(Stage, usize, usize) + Sync)) -> Self {
        Self { hear, check: &|| Ok(()) }
    }

    /// The same with another who may end it: `check` returns [`Stopped`] when learning is to end, and does not return while it is
    /// to wait.
    pub fn checked_by(self, check: &'a (dyn Fn() -> Result<(), Stopped> + Sync)) -> Self {
        Self { check, ..self }
    }

    /// The same with another who hears.
    pub fn heard_by(self, hear: &'a (dyn Fn(Stage, usize, usize) + Sync)) -> Self {
        Self { hear, ..self }
    }

    /// `done` of `all` items in a stage.
    pub fn hear(&self, stage: Stage, done: usize, all: usize) {
        (self.hear)(stage, done, all);
    }

    /// Waits while learning is to wait.
    ///
    /// # Errors
    /// [`Stopped`] when it is to end.
    pub fn check(&self) -> Result<(), Stopped> {
        (self.check)()
    }
}
