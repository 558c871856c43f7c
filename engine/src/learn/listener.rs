//! Pushes audio through a checkpoint and keeps the mean hidden state of each block (`method.md` 2).
//! Worker threads, one [`Ear`] each; the weights are shared.

use std::str::FromStr;

use super::LearnError;
use super::watch::Watch;
use crate::checkpoint::{Checkpoint, CheckpointSource};
use crate::codec::CodecEncoder;
use crate::dataset::SAMPLE_RATE;
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::kv_cache::KvCache;
use crate::decoder::{Decoder, MAX_CODEBOOKS, Row, Scratch};

/// Positions left out at the start of a clip: the model needs some context before it says anything about pitch.
pub const FIRST_FRAME: usize = 8;

/// Positions per pass over the weights.
const ROWS: usize = 32;

/// How a clip's codes are laid out for the decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// BOS, then the delay pattern: what the decoder sees while it generates.
    #[default]
    Delayed,
    /// All codebooks of a frame in one column and no BOS: what the published method learns from, a layout that the
    /// decoder never saw in training (`method.md` 2.2).
    Undelayed,
}

impl Layout {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Delayed, Self::Undelayed];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Undelayed => "undelayed",
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A checkpoint that listens: codec encoder and decoder, no text.
pub struct Listener {
    source: CheckpointSource,
    name: String,
    hash: String,
    encoder: CodecEncoder,
    decoder: Decoder,
    pattern: DelayPattern,
    channels: usize,
    layout: Layout,
}

/// What one clip left in the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Mean over time of each block's output after the residual, `[block][hidden]`.
    pub mean: Vec<f32>,
    /// Mean over time of the Euclidean norm of each block's output.
    pub norms: Vec<f32>,
}

/// One thread's working memory.
pub struct Ear {
    cache: KvCache,
    scratch: Scratch,
}

impl Listener {
    /// Loads what listening needs of a checkpoint. `progress` hears the share of weight bytes read, 0 to 1.
    ///
    /// # Errors
    /// When the checkpoint cannot be used, or its codec does not run at 32 kHz.
    pub fn load(source: &CheckpointSource, progress: &dyn Fn(f32)) -> Result<Self, LearnError> {
        let checkpoint = Checkpoint::load(source, progress)?;
        let config = &checkpoint.config;
        if config.codec.sampling_rate as usize != SAMPLE_RATE {
            return Err(LearnError::SampleRate {
                checkpoint: checkpoint.name.clone(),
                found: config.codec.sampling_rate,
                expected: SAMPLE_RATE,
            });
        }
        Ok(Self {
            source: source.clone(),
            encoder: CodecEncoder::load(&checkpoint.weights, &config.codec, config.decoder.codebooks_per_channel())?,
            decoder: Decoder::load(&checkpoint.weights, config)?,
            pattern: DelayPattern::new(config.decoder.num_codebooks, config.decoder.audio_channels),
            channels: config.decoder.audio_channels,
            layout: Layout::default(),
            name: checkpoint.name.clone(),
            hash: checkpoint.weights.hash().to_owned(),
        })
    }

    /// The same with another layout of the codes.
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The layout of the codes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What people call the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its weights, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Decoder blocks.
    pub fn blocks(&self) -> usize {
        self.decoder.blocks()
    }

    /// Width of the residual stream.
    pub fn hidden(&self) -> usize {
        self.decoder.hidden()
    }

    /// Working memory for clips of up to `samples` samples.
    pub fn ear(&self, samples: usize) -> Ear {
        let positions = samples.div_ceil(self.encoder.hop()) + 1;
        Ear { cache: KvCache::new(&self.decoder, positions), scratch: Scratch::new(&self.decoder, ROWS) }
    }

    /// Codes of one mono clip at 32 kHz, a column for each frame, no codebook delayed.
    ///
    /// # Errors
    /// What the codec refuses.
    pub fn codes(&self, audio: &[f32]) -> Result<Vec<[u32; MAX_CODEBOOKS]>, LearnError> {
        self.columns(audio, Layout::Undelayed)
    }

    /// The checkpoint's decoder, exact.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// How its codebooks are staggered.
    pub fn pattern(&self) -> &DelayPattern {
        &self.pattern
    }

    /// Where the checkpoint lies.
    pub fn source(&self) -> &CheckpointSource {
        &self.source
    }

    /// Listens to one mono clip at 32 kHz, no longer than the ear was made for: encodes it, lays the codes out, and runs
    /// them through the unconditional row (no text), teacher-forced.
    ///
    /// # Errors
    /// When the clip has too few frames, or the model's numbers are not finite; [`LearnError::Stopped`].
    pub fn listen(&self, ear: &mut Ear, audio: &[f32], watch: Watch) -> Result<Heard, LearnError> {
        let columns = self.columns(audio, self.layout)?;
        if columns.len() <= FIRST_FRAME {
            return Err(LearnError::TooLittle(format!(
                "a clip of {} frames is too short to learn from: it needs more than {FIRST_FRAME}",
                columns.len()
            )));
        }
        let (blocks, hidden) = (self.blocks(), self.hidden());
        let mut sums = vec![0.0f64; blocks * hidden];
        let mut norms = vec![0.0f64; blocks];
        for (pass, columns) in columns.chunks(ROWS).enumerate() {
            watch.check()?;
            let first = pass * ROWS;
            let rows: Vec<Row> = (first..)
                .zip(columns)
                .map(|(position, &codes)| Row {
                    cache: 0,
                    position,
                    codes,
                    text: None,
                    injection: None,
                    pushes: &[],
                    logits: false,
                })
                .collect();
            let mut observe = |block: usize, row: usize, output: &[f32]| {
                if first + row < FIRST_FRAME {
                    return;
                }
                let sums = &mut sums[block * hidden..(block + 1) * hidden];
                sums.iter_mut().zip(output).for_each(|(sum, &x)| *sum += f64::from(x));
                norms[block] += output.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            };
            self.decoder.forward(&rows, &mut [&mut ear.cache], &mut ear.scratch, Some(&mut observe));
        }
        let count = (columns.len() - FIRST_FRAME) as f64;
        let mean = |values: Vec<f64>| values.into_iter().map(|value| (value / count) as f32).collect::<Vec<f32>>();
        let heard = Heard { mean: mean(sums), norms: mean(norms) };
        match heard.norms.iter().position(|norm| !norm.is_finite()) {
            Some(block) => Err(LearnError::NotFinite { checkpoint: self.name.clone(), block }),
            None => Ok(heard),
        }
    }

    /// Input columns of a clip. Delayed: BOS, then one column for each frame but the last, as the delay pattern staggers
    /// them. A stereo checkpoint hears the same codes on both sides.
    fn columns(&self, audio: &[f32], layout: Layout) -> Result<Vec<[u32; MAX_CODEBOOKS]>, LearnError> {
        let codes = self.encoder.encode(audio)?;
        let (pad, channels) = (self.decoder.pad(), self.channels);
        let code = |frame: usize, codebook: usize| codes.codebook(codebook / channels)[frame];
        let undelayed = |frame: usize| {
            let mut column = [pad; MAX_CODEBOOKS];
            (0..self.pattern.codebooks()).for_each(|codebook| column[codebook] = code(frame, codebook));
            column
        };
        let delayed = |position: usize| match position.checked_sub(1) {
            Some(column) => self.pattern.column(column, None, pad, code),
            None => [pad; MAX_CODEBOOKS],
        };
        Ok(match layout {
            Layout::Delayed => (0..codes.frames()).map(delayed).collect(),
            Layout::Undelayed => (0..codes.frames()).map(undelayed).collect(),
        })
    }
}
