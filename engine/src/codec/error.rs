//! What can be wrong with the data given to a loaded codec. (A checkpoint that does not load is a `CheckpointError`.)

/// A refused call; the stream is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("code {code} in codebook {codebook} of frame {frame}: the codec has codes 0 to {} (padding must be removed first)", size - 1)]
    UnknownCode { code: u32, codebook: usize, frame: usize, size: usize },
    #[error("{found} codes are not whole frames of {codebooks} codebooks")]
    PartialFrame { found: usize, codebooks: usize },
    #[error("{found} values are not whole samples of {channels} channels")]
    PartialSample { found: usize, channels: usize },
    #[error("{frames} frames in one push, but the stream was made for at most {most}: push fewer at a time")]
    TooManyFrames { frames: usize, most: usize },
    #[error("{waiting} samples wait in a queue of {capacity}: read them before pushing more")]
    QueueFull { waiting: usize, capacity: usize },
    #[error("codes of {frames} frames do not belong to a latent of {latent}, or have more codebooks than the codec")]
    OtherLength { frames: usize, latent: usize },
    #[error("the stream has ended: reset it before pushing more")]
    Ended,
}
