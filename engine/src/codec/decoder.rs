//! EnCodec's decoder: codes to audio, as a stream whose samples equal the whole-sequence decode. Runner thread.
//! Défossez et al. 2022 (arXiv 2210.13438); layer for layer as transformers' `EncodecDecoder`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::quantizer::Quantizer;
use super::seanet;
use super::stack::{Stack, StackStream};
use super::{CodecError, Codes};
use crate::checkpoint::{CheckpointError, CodecConfig, Weights};
use crate::pool::Pool;
use crate::precision::Precision;

/// Frames per push of a whole-sequence decode: enough to read the weights seldom, few enough to stay in cache.
const WHOLE_FRAMES: usize = 8;

/// Weights of the decoder, immutable; streams share it through an `Arc`.
pub struct CodecDecoder {
    quantizer: Quantizer,
    stack: Stack,
    hop: usize,
    channels: usize,
    lookahead_samples: usize,
    lookahead_frames: usize,
    half: bool,
}

impl CodecDecoder {
    /// Reads `audio_encoder.quantizer` and `audio_encoder.decoder` of a MusicGen checkpoint, with as many codebooks as its
    /// language model plays: a codec may have more.
    ///
    /// # Errors
    /// A missing or mis-shaped tensor, or a setting that this codec does not have, by name.
    pub fn load(weights: &Weights, config: &CodecConfig, codebooks: usize) -> Result<Self, CheckpointError> {
        Self::load_at(weights, config, codebooks, Precision::F32)
    }

    /// As [`CodecDecoder::load`], for a model that is kept at this precision: below f32 the large weights are rounded to f16,
    /// which is 60 dB below the music.
    ///
    /// # Errors
    /// As [`CodecDecoder::load`].
    pub fn load_at(
        weights: &Weights,
        config: &CodecConfig,
        codebooks: usize,
        precision: Precision,
    ) -> Result<Self, CheckpointError> {
        let quantizer = seanet::quantizer(weights, config, codebooks)?;
        let half = precision != Precision::F32;
        let stack = seanet::decoder(weights, config, half)?;
        let hop = config.upsampling_ratios.iter().product();
        let (lookahead_samples, lookahead_frames) = lookahead(&stack, hop);
        Ok(Self { quantizer, stack, hop, channels: config.audio_channels, lookahead_samples, lookahead_frames, half })
    }

    /// Samples per frame and channel.
    pub fn hop(&self) -> usize {
        self.hop
    }

    /// Audio channels of one decode (1 in every published MusicGen, stereo ones included: they decode twice).
    pub fn channels(&self) -> usize {
        self.channels
    }

    pub fn codebooks(&self) -> usize {
        self.quantizer.codebooks()
    }

    /// Codes per codebook.
    pub fn codebook_size(&self) -> usize {
        self.quantizer.size()
    }

    /// Whether the large weights are rounded to f16.
    pub(crate) fn is_half(&self) -> bool {
        self.half
    }

    /// Refuses codes that are not this codec's; `codes` is `[frames][codebooks]`.
    ///
    /// # Errors
    /// Part of a frame, or a code past the tables.
    pub(crate) fn check(&self, codes: &[u32]) -> Result<(), CodecError> {
        self.quantizer.check(codes)
    }

    /// Samples that may wait to be read in a stream that takes `frames` frames at once.
    pub(crate) fn queued(&self, frames: usize) -> usize {
        (self.stack.most_rows_out(frames) + (self.lookahead_frames + frames + 1) * self.hop) * self.channels
    }

    /// Frame `f` of audio is ready once the codes of frame `f + lookahead_frames()` are in, for every `f`.
    pub fn lookahead_frames(&self) -> usize {
        self.lookahead_frames
    }

    /// Samples per channel at the end of the known codes that still depend on later codes (away from the start).
    pub fn lookahead_samples(&self) -> usize {
        self.lookahead_samples
    }

    /// Decodes a whole sequence: `frames * hop` samples per channel, interleaved.
    ///
    /// # Errors
    /// Codes of another codec: wrong number of codebooks, or a code past the tables.
    pub fn decode(self: &Arc<Self>, codes: &Codes) -> Result<Vec<f32>, CodecError> {
        let mut stream = DecoderStream::with_hop(Arc::clone(self), WHOLE_FRAMES);
        let mut audio = Vec::with_capacity(codes.frames() * self.hop * self.channels);
        for chunk in codes.frame_major().chunks(WHOLE_FRAMES * self.codebooks()) {
            stream.push(chunk)?;
            audio.extend(stream.queue.drain(..));
        }
        stream.finish()?;
        audio.extend(stream.queue.drain(..));
        Ok(audio)
    }
}

/// Left context and waiting samples of one decode.
pub struct DecoderStream {
    decoder: Arc<CodecDecoder>,
    stack: StackStream,
    most_frames: usize,
    /// Frames taken, samples per channel made.
    seen: usize,
    made: usize,
    ended: bool,
    capacity: usize,
    queue: VecDeque<f32>,
}

impl DecoderStream {
    /// A stream that takes one frame per push. All its memory is allocated here.
    pub fn new(decoder: Arc<CodecDecoder>) -> Self {
        Self::with_hop(decoder, 1)
    }

    /// A stream that takes up to `frames` frames per push: a longer hop reads the weights less often.
    pub fn with_hop(decoder: Arc<CodecDecoder>, frames: usize) -> Self {
        Self::on(Arc::new(Pool::new(1)), decoder, frames)
    }

    /// As [`DecoderStream::with_hop`], on the threads of `pool` besides the calling one. The samples do not depend on them.
    pub fn on(pool: Arc<Pool>, decoder: Arc<CodecDecoder>, frames: usize) -> Self {
        let frames = frames.max(1);
        let capacity = decoder.queued(frames);
        let mut stack = decoder.stack.stream(frames, pool);
        // Fresh memory is mapped at its first use: that is paid here, not by the first frame of music.
        decoder.stack.push(&mut stack, frames, false, |latent| latent.fill(0.0));
        decoder.stack.reset(&mut stack);
        Self {
            stack,
            decoder,
            most_frames: frames,
            seen: 0,
            made: 0,
            ended: false,
            capacity,
            queue: VecDeque::with_capacity(capacity),
        }
    }

    /// Takes the codes of one frame or several, `[frames][codebooks]`, and queues every sample that they determine.
    ///
    /// # Errors
    /// Codes that are not this codec's, more frames than the stream was made for, a queue that nobody reads, or a
    /// stream that has ended; nothing has changed then.
    ///
    /// # Realtime safety
    /// No allocation, no lock; the work is one decoder pass, so not for the audio thread.
    pub fn push(&mut self, codes: &[u32]) -> Result<(), CodecError> {
        self.decoder.quantizer.check(codes)?;
        let frames = codes.len() / self.decoder.codebooks();
        if frames > self.most_frames {
            return Err(CodecError::TooManyFrames { frames, most: self.most_frames });
        }
        self.run(codes, frames, false)
    }

    /// Ends the sequence: queues the rest, `frames * hop` samples per channel in all. Ending twice changes nothing.
    ///
    /// # Errors
    /// A queue that nobody reads.
    ///
    /// # Realtime safety
    /// As [`DecoderStream::push`].
    pub fn finish(&mut self) -> Result<(), CodecError> {
        if self.ended { Ok(()) } else { self.run(&[], 0, true) }
    }

    fn run(&mut self, codes: &[u32], frames: usize, last: bool) -> Result<(), CodecError> {
        if self.ended {
            return Err(CodecError::Ended);
        }
        let decoder = &*self.decoder;
        let seen = self.seen + frames;
        let made = if last { seen * decoder.hop } else { decoder.stack.rows_ready(seen) };
        let waiting = self.queue.len();
        if waiting + (made - self.made) * decoder.channels > self.capacity {
            return Err(CodecError::QueueFull { waiting, capacity: self.capacity });
        }
        let width = decoder.quantizer.width();
        let audio = decoder.stack.push(&mut self.stack, frames, last, |latent| {
            for (frame, row) in codes.chunks_exact(decoder.quantizer.codebooks()).zip(latent.chunks_exact_mut(width)) {
                decoder.quantizer.latent(frame, row);
            }
        });
        debug_assert_eq!(audio.len(), (made - self.made) * decoder.channels);
        self.queue.extend(audio);
        self.seen = seen;
        self.made = made;
        self.ended = last;
        Ok(())
    }

    /// Samples that wait in the queue, all channels together.
    pub fn available(&self) -> usize {
        self.queue.len()
    }

    /// Moves the oldest samples (interleaved if there are two channels) into `out`; gives how many there were.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn read(&mut self, out: &mut [f32]) -> usize {
        let count = out.len().min(self.queue.len());
        for (y, x) in out.iter_mut().zip(self.queue.drain(..count)) {
            *y = x;
        }
        count
    }

    /// Back to the start of a new sequence; waiting samples are dropped.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn reset(&mut self) {
        self.decoder.stack.reset(&mut self.stack);
        self.seen = 0;
        self.made = 0;
        self.ended = false;
        self.queue.clear();
    }

    /// The weights that this stream runs on.
    pub fn decoder(&self) -> &Arc<CodecDecoder> {
        &self.decoder
    }
}

/// Look-ahead in samples (steady state) and in frames (the worst over the start, where reflection needs more, and after).
fn lookahead(stack: &Stack, hop: usize) -> (usize, usize) {
    // Far past any start effect: every context is a few frames at most, and counting costs nothing.
    const HORIZON: usize = 1024;
    let mut worst = 0;
    let mut frame = 0;
    for seen in 1..=HORIZON {
        while stack.rows_ready(seen) >= (frame + 1) * hop {
            worst = worst.max(seen - 1 - frame);
            frame += 1;
        }
    }
    // Frames that are still not ready at the horizon count with what they have waited so far.
    worst = worst.max(HORIZON - frame);
    (HORIZON * hop - stack.rows_ready(HORIZON), worst)
}
