//! Whether a concept is there, by the projection of a state on its direction: the cheap probe that steering may look at
//! while it plays (`method.md` 3.6). Plain arithmetic; any thread. Fitted by [`crate::learn::detector`].

/// A line over the projection: the log-odds of a class, or a level in deviations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detector {
    /// Rise per unit of projection.
    pub slope: f32,
    /// Value where the projection is 0.
    pub offset: f32,
}

impl Detector {
    /// Log-odds of the class, or the level.
    pub fn value(&self, projection: f32) -> f32 {
        self.slope * projection + self.offset
    }
}
