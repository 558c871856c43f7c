//! The licence that the published checkpoints come under. It is shown and accepted before anything is downloaded. Any thread but
//! the audio thread's.

use super::{ModelsError, remembered};

/// A licence for people.
#[derive(Clone, Copy, Debug)]
pub struct Licence {
    /// Its short name.
    pub name: &'static str,
    /// Where its text is.
    pub link: &'static str,
    /// What it means, in plain words.
    pub words: &'static str,
}

/// The one of all published MusicGen weights.
pub const LICENCE: Licence = Licence {
    name: "CC-BY-NC-4.0",
    link: "https://creativecommons.org/licenses/by-nc/4.0/",
    words: "Meta publishes the weights of MusicGen under Creative Commons Attribution-NonCommercial 4.0. You may use, share and \
            change them if you name their authors (Copet et al., \"Simple and Controllable Music Generation\", 2023) and say what \
            you changed, and only for purposes that are not commercial: not primarily intended for commercial advantage or \
            monetary compensation. Whether music that you make with them may be sold is a question for a lawyer, and this is no \
            advice. There is no warranty. The licence is between you and Meta; Tiller itself, and its built-in model, come under \
            licences of their own.",
};

fn line(repository: &str) -> String {
    format!("{} {repository}", LICENCE.name)
}

/// Whether the user has accepted it for this repository.
pub fn accepted(repository: &str) -> bool {
    remembered::read().licences.contains(&line(repository))
}

/// The user accepts it for this repository.
///
/// # Errors
/// The user's settings cannot be written.
pub fn accept(repository: &str) -> Result<(), ModelsError> {
    remembered::change(|own| {
        if !own.licences.contains(&line(repository)) {
            own.licences.push(line(repository));
        }
    })
}
