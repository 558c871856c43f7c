//! MusicGen's delay pattern: codebook k of a frame is sampled k steps late (Copet et al. 2023, arXiv 2306.05284).
//! Stereo interleaves left and right codebooks, and a pair shares one delay.

use super::MAX_CODEBOOKS;

/// The pattern of one checkpoint. Column f holds codebook k of frame f - delay(k); the decoder's input is BOS and then
/// the columns, so step f reads column f - 1 and gives column f.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayPattern {
    codebooks: usize,
    channels: usize,
}

impl DelayPattern {
    /// `codebooks` counts all channels' codebooks and is a multiple of `channels` (1 or 2).
    pub fn new(codebooks: usize, channels: usize) -> Self {
        Self { codebooks, channels: channels.max(1) }
    }

    /// Codebooks of all channels.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// 1 mono, 2 stereo.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Frames by which a codebook is late.
    pub fn delay(&self, codebook: usize) -> usize {
        codebook / self.channels
    }

    /// The largest delay: a frame is complete this many steps after its own.
    pub fn max_delay(&self) -> usize {
        self.codebooks / self.channels - 1
    }

    /// Columns of a finite piece; an endless one has no end.
    pub fn columns(&self, frames: usize) -> usize {
        frames + self.max_delay()
    }

    /// The frame that a codebook has in a column: `None` is PAD. `frames` is `None` for an endless piece.
    pub fn frame(&self, column: usize, codebook: usize, frames: Option<usize>) -> Option<usize> {
        let frame = column.checked_sub(self.delay(codebook))?;
        frames.is_none_or(|frames| frame < frames).then_some(frame)
    }

    /// One column of a piece whose codes are given by `code(frame, codebook)`.
    pub fn column(
        &self,
        column: usize,
        frames: Option<usize>,
        pad: u32,
        code: impl Fn(usize, usize) -> u32,
    ) -> [u32; MAX_CODEBOOKS] {
        let mut codes = [pad; MAX_CODEBOOKS];
        for (codebook, slot) in codes.iter_mut().enumerate().take(self.codebooks) {
            if let Some(frame) = self.frame(column, codebook, frames) {
                *slot = code(frame, codebook);
            }
        }
        codes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 99;

    fn table(pattern: DelayPattern, frames: Option<usize>, columns: usize) -> Vec<Vec<u32>> {
        (0..columns)
            .map(|f| pattern.column(f, frames, PAD, |frame, _| frame as u32)[..pattern.codebooks()].to_vec())
            .collect()
    }

    #[test]
    fn a_finite_mono_piece_has_pad_in_both_corners() {
        let pattern = DelayPattern::new(4, 1);
        assert_eq!((pattern.max_delay(), pattern.columns(3)), (3, 6));
        let expected = [
            [0, PAD, PAD, PAD],
            [1, 0, PAD, PAD],
            [2, 1, 0, PAD],
            [PAD, 2, 1, 0],
            [PAD, PAD, 2, 1],
            [PAD, PAD, PAD, 2],
        ];
        assert_eq!(table(pattern, Some(3), 6), expected);
    }

    #[test]
    fn left_and_right_share_a_delay() {
        let pattern = DelayPattern::new(8, 2);
        assert_eq!(pattern.max_delay(), 3);
        assert_eq!(table(pattern, None, 2), [[0, 0, PAD, PAD, PAD, PAD, PAD, PAD], [1, 1, 0, 0, PAD, PAD, PAD, PAD]]);
    }

    #[test]
    fn an_endless_piece_never_ends_in_pad() {
        assert_eq!(DelayPattern::new(4, 1).frame(100_000, 3, None), Some(99_997));
    }
}
