//! Single labelled notes, as SynTheory makes them: one pitch struck four times in four seconds. Worker threads.

use super::render::{Event, Renderer, scale_to};
use super::{DatasetError, SAMPLE_RATE};

/// GM programs that notes are learned from: the families of GM without those that have strong or ambiguous overtones.
pub const NOTE_PROGRAMS: [u8; 20] = [0, 4, 6, 11, 12, 16, 19, 24, 27, 40, 42, 46, 48, 52, 56, 61, 65, 71, 73, 89];

/// The pitches: C2 to B6 as MIDI notes.
pub const NOTE_RANGE: std::ops::Range<u8> = 36..96;

/// Level that a note is scaled to.
const NOTE_RMS: f32 = 0.12;

/// One labelled note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoteClip {
    /// MIDI note.
    pub midi: u8,
    /// GM program, 0-based.
    pub program: u8,
}

impl NoteClip {
    /// Every note of the given programs over [`NOTE_RANGE`], program by program.
    pub fn all(programs: &[u8]) -> Vec<Self> {
        programs.iter().flat_map(|&program| NOTE_RANGE.map(move |midi| Self { midi, program })).collect()
    }

    /// Pitch class, 0 = C.
    pub fn pitch_class(self) -> usize {
        usize::from(self.midi) % 12
    }

    /// Renders the note: four strikes evenly over `samples` samples at 32 kHz, mono. `None` when the SoundFont is silent there.
    ///
    /// # Errors
    /// [`DatasetError::Synthesizer`] when the synthesizer does not start.
    pub fn render(self, renderer: &Renderer, samples: usize) -> Result<Option<Vec<f32>>, DatasetError> {
        let strike = samples / 4;
        let events = (0..4)
            .flat_map(|i| {
                let on = Event { at: i * strike, strikes: true, channel: 0, midi: self.midi, velocity: 64 };
                [on, Event { at: (i + 1) * strike - 1, strikes: false, ..on }]
            })
            .collect();
        let mut audio = renderer.play(&[(self.program, 110)], events, samples, false)?;
        Ok(scale_to(&mut audio, NOTE_RMS).then_some(audio))
    }

    /// Samples of a note of the default length, four seconds.
    pub const SAMPLES: usize = 4 * SAMPLE_RATE;
}
