//! Who computes a step and who decodes its codes: the processor, a card through the CUDA library, or an Apple GPU through candle.
//! A player lays out rows; what comes back are codes, the few block outputs that it looks at, and samples. Made on the loader
//! thread, used on the runner's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::decoder::MAX_CODEBOOKS;
use crate::decoder::sampling::Sampling;
use crate::error::EngineError;
use crate::steering::push::Push;
use crate::text::Prompt;

#[cfg(feature = "candle")]
pub mod candle;
pub mod conformance;
pub mod cpu;
pub mod cuda;
pub mod gpu;
pub mod proof;

/// Where a model plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// A card for a model that is too large for the processor, if there is one; else the processor.
    #[default]
    Auto,
    Cpu,
    /// The card of that number, as the driver counts.
    Gpu(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Gpu(number) => write!(formatter, "gpu {number}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || text.strip_prefix("gpu").map(|rest| rest.trim_start_matches([' ', ':', '-']).parse());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "gpu" => Ok(Self::Gpu(0)),
            _ => match number() {
                Some(Ok(number)) => Ok(Self::Gpu(number)),
                _ => Err(format!("`{text}` is none of auto, cpu, gpu 0, gpu 1, ...")),
            },
        }
    }
}

/// Why a card does not play, or no longer does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The library that plays on cards is not there or does not belong to this engine.
    #[error("the CUDA library cannot be used ({reason}); without it the model plays on the CPU")]
    Library { reason: String },
    /// It says itself what is wrong, and the remedy.
    #[error("{text}")]
    Card { status: i32, text: String },
    /// Steps that are not what the processor makes of the same codes.
    #[error("this GPU does not compute what the CPU does ({how}), which plays instead; a newer driver may help")]
    Astray { how: String },
    /// Samples that are not what the processor makes of the same codes.
    #[error("its samples are {apart} of full scale from the processor's")]
    Codec { apart: String },
    /// Logits that are not finite.
    #[error("the step made numbers that are not finite")]
    NotFinite,
}

/// One position of one guidance row of one piece.
#[derive(Clone, Copy)]
pub struct StepRow<'a> {
    /// Cache of keys and values.
    pub cache: usize,
    /// Position in it; everything before was written by earlier rows.
    pub position: usize,
    /// Input codes; the rest of the array is not read.
    pub codes: [u32; MAX_CODEBOOKS],
    /// `None` is the unconditional row.
    pub prompt: Option<&'a Arc<Prompt>>,
    /// Which of the step's tables is added to the blocks' outputs.
    pub injection: Option<usize>,
    /// What they are brought to after that.
    pub pushes: &'a [Push<'a>],
}

/// How the codes of a pair of rows are drawn: the conditional row, then the unconditional one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    pub sampling: Sampling,
    pub seed: u32,
    pub frame: u32,
}

/// A block's output that the player wants to see, injection included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    pub block: usize,
    pub row: usize,
}

/// A vector for each block, `[blocks * hidden]`.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub values: Vec<f32>,
    /// Another one whenever the values are others, 0 while they are all 0: lanes move seldom, compared with frames.
    pub version: u64,
}

/// One pass over the weights. Draw i takes its codes from rows 2 i and 2 i + 1.
pub struct Step<'a> {
    pub rows: &'a [StepRow<'a>],
    /// What rows may inject.
    pub tables: &'a [&'a Table],
    pub draws: &'a [Draw],
    pub taps: &'a [Tap],
}

/// Computes steps of one player. A row's result does not depend on the rows beside it.
pub trait Backend: Send {
    /// Takes a step.
    ///
    /// # Errors
    /// Logits that are not finite, or a card that no longer answers.
    fn step(&mut self, step: &Step<'_>) -> Result<(), BackendError>;

    /// Steps from here on are steered by other tables, which may lie where the former ones lay.
    fn steering_changed(&mut self) {}

    /// The code that a draw of the last step gives a codebook.
    fn code(&mut self, draw: usize, codebook: usize) -> u32;

    /// A tapped output of the last step, `[hidden]`.
    fn tapped(&self, tap: usize) -> &[f32];

    /// Copies the logits `[codebooks * vocab]` of a row that was drawn from. For parity; a player has no need of them.
    ///
    /// # Errors
    /// A card that no longer answers.
    fn logits(&mut self, row: usize, out: &mut [f32]) -> Result<(), BackendError>;

    /// Where it computes, for people.
    fn place(&self) -> String;
}

/// Decodes the codes of one channel of one piece, or of all its channels where the codec has several.
pub trait CodecStream: Send {
    /// Takes the codes of one frame or several, `[frames][codebooks]`. Their samples may be under way when it returns.
    ///
    /// # Errors
    /// Codes of another codec, a queue that nobody reads, a stream that has ended, or a card that no longer answers.
    fn push(&mut self, codes: &[u32]) -> Result<(), EngineError>;

    /// Ends the sequence: all of its samples come out. Ending twice changes nothing.
    ///
    /// # Errors
    /// As [`CodecStream::push`].
    fn finish(&mut self) -> Result<(), EngineError>;

    /// Waits for the samples that are under way.
    ///
    /// # Errors
    /// A card that no longer answers.
    fn collect(&mut self) -> Result<(), EngineError>;

    /// Whether samples can be under way while something else is computed.
    fn runs_aside(&self) -> bool;

    /// Samples that can be read.
    fn available(&self) -> usize;

    /// Moves the oldest samples into `out`; gives how many there were.
    fn read(&mut self, out: &mut [f32]) -> usize;

    /// Back to the start of a new sequence; waiting samples are dropped. A card that no longer answers says so at the next push.
    fn reset(&mut self);
}

/// Most rows of a step: more than a player makes, since tests and cards take four positions at once.
pub const MOST_ROWS: usize = 8;
/// Most draws of a step: the piece and the ending one.
pub const MOST_DRAWS: usize = 2;
/// Most taps of a step: the guards of the note and of the chord lane.
pub const MOST_TAPS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_back() {
        for device in [Device::Auto, Device::Cpu, Device::Gpu(0), Device::Gpu(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("gpu:1".parse(), Ok(Device::Gpu(1)));
        for odd in ["gpus", "gpu x", "cuda", ""] {
            assert!(odd.parse::<Device>().is_err_and(|why| why.contains("auto")), "{odd}");
        }
    }
}
