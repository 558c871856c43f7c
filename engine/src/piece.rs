//! One piece of music from its anchor to its end: the columns sampled so far, the codec streams, and the audio that is
//! due. Lives on the runner thread; no allocation after construction.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;

use crate::backend::CodecStream;
use crate::codec::{CodecDecoder, DecoderStream};
use crate::control::{ControlFrame, MOST_HOP};
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::{Decoder, MAX_CODEBOOKS};
use crate::error::EngineError;
use crate::link::{CHANNELS, FrameHeader};
use crate::pool::Pool;
use crate::steering::doses::{Doses, Lane};
use crate::steering::envelope::Envelope;
use crate::steering::guard::Guard;

/// Where answers go: the header, then `frame_samples * CHANNELS` interleaved samples.
pub type Sink<'a> = &'a mut dyn FnMut(FrameHeader, &[f32]);

/// What a step was asked for, kept until its audio is out and its position has left the window.
#[derive(Clone, Copy)]
struct Step {
    /// Sampled codes, one for each codebook; PAD where the delay pattern has no frame.
    column: [u32; MAX_CODEBOOKS],
    /// What it injects.
    doses: Doses,
    /// Output gain, 0 while bypassed.
    gain: f32,
}

/// A codec stream on the processor, on the threads of `pool` besides the runner's.
pub fn on_processor(codec: &Arc<CodecDecoder>, pool: &Arc<Pool>) -> Box<dyn CodecStream> {
    Box::new(DecoderStream::on(pool.clone(), codec.clone(), MOST_HOP as usize))
}

/// State of one piece.
pub struct Piece {
    pattern: DelayPattern,
    bos: u32,
    pad: u32,
    /// Ring over steps, long enough for the window and the codec's look-ahead.
    steps: Vec<Step>,
    /// Codec streams: one for mono, left and right for stereo.
    streams: Vec<Box<dyn CodecStream>>,
    /// One frame as it leaves a stream: one channel, or both interleaved when the codec itself is stereo.
    channel: Vec<f32>,
    /// Samples of a frame and channel.
    frame_samples: usize,
    /// One interleaved frame.
    frame: Vec<f32>,
    /// Decoder steps taken, the flush ones too.
    taken: u32,
    /// Frames asked for; known once the piece has ended.
    ended: Option<u32>,
    /// Frames whose codes went to the codec.
    decoded: u32,
    /// Frames of audio that have left.
    answered: u32,
    /// The last control frame that was computed.
    last: ControlFrame,
    /// Gain at the end of the last frame that left; `None` before the first.
    gain: Option<f32>,
    /// Steering targets on their way.
    envelope: Envelope,
    /// Of the note and of the chord lane.
    guards: [Guard; 2],
    /// Length of a frame.
    frame_seconds: f32,
}

impl Piece {
    /// Room for a piece with `window` positions and frames of `frame_seconds`.
    pub fn new(
        decoder: &Decoder,
        codec: &Arc<CodecDecoder>,
        channels: usize,
        window: usize,
        frame_seconds: f32,
        pool: &Arc<Pool>,
    ) -> Self {
        let (bos, pad, frame_samples) = (decoder.bos(), decoder.pad(), codec.hop());
        let pattern = DelayPattern::new(decoder.codebooks(), channels);
        let delay = pattern.max_delay() + codec.lookahead_frames();
        let blank = Step { column: [pad; MAX_CODEBOOKS], doses: Doses::NONE, gain: 1.0 };
        Self {
            bos,
            pad,
            steps: vec![blank; window + delay + 2],
            streams: (0..pattern.channels()).map(|_| on_processor(codec, pool)).collect(),
            channel: vec![0.0; frame_samples * codec.channels()],
            frame_samples,
            frame: vec![0.0; frame_samples * CHANNELS],
            taken: 0,
            ended: None,
            decoded: 0,
            answered: 0,
            last: ControlFrame::new(0, 0),
            gain: None,
            envelope: Envelope::default(),
            guards: [Guard::default(); 2],
            frame_seconds,
            pattern,
        }
    }

    /// How many codec streams it needs.
    pub fn channels(&self) -> usize {
        self.streams.len()
    }

    /// Codes are decoded by these from now on, as many as [`Piece::channels`]; the piece must not be under way.
    pub fn decode_by(&mut self, streams: Vec<Box<dyn CodecStream>>) {
        debug_assert_eq!(streams.len(), self.streams.len());
        self.streams = streams;
    }

    /// Whether a card decodes its codes.
    pub fn runs_aside(&self) -> bool {
        self.streams.iter().any(|stream| stream.runs_aside())
    }

    /// Forgets everything: the next step is the first of piece `number`.
    pub fn begin(&mut self, number: u32) {
        self.streams.iter_mut().for_each(|stream| stream.reset());
        self.taken = 0;
        self.ended = None;
        self.decoded = 0;
        self.answered = 0;
        self.last = ControlFrame::new(number, 0);
        self.gain = None;
        self.envelope = Envelope::default();
        self.guards = [Guard::default(); 2];
    }

    /// The piece's number.
    pub fn number(&self) -> u32 {
        self.last.piece
    }

    /// Decoder steps taken so far: the number of the next one.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// The control frame that the last step was computed for.
    pub fn last(&self) -> ControlFrame {
        self.last
    }

    /// No further frame will be asked for; the ones under way remain to be flushed.
    pub fn end(&mut self) {
        self.ended.get_or_insert(self.taken);
    }

    /// Everything that was asked for has left.
    pub fn is_over(&self) -> bool {
        self.ended.is_some_and(|frames| self.answered >= frames)
    }

    /// Whether a decoder step is needed to go on, as opposed to only the codec's end.
    pub fn needs_step(&self) -> bool {
        match self.ended {
            None => true,
            Some(0) => false,
            Some(frames) => self.taken < frames + self.pattern.max_delay() as u32,
        }
    }

    /// Codes that step `step` reads: what the step before sampled, or BOS. For a window that starts at `base`, frames
    /// before it are PAD, exactly as in a piece that began there.
    pub fn input(&self, step: u32, base: u32) -> [u32; MAX_CODEBOOKS] {
        let mut column = [if step > base { self.pad } else { self.bos }; MAX_CODEBOOKS];
        if step > base {
            let sampled = &self.step(step - 1).column;
            for (codebook, code) in column.iter_mut().enumerate().take(self.pattern.codebooks()) {
                if step > base + self.pattern.delay(codebook) as u32 {
                    *code = sampled[codebook];
                }
            }
        }
        column
    }

    /// Guards of the note and of the chord lane: what they look at, and what they are told.
    pub fn guards(&mut self) -> [(Lane, &mut Guard); 2] {
        let [note, chord] = &mut self.guards;
        [(Lane::Note, note), (Lane::Chord, chord)]
    }

    /// What step `step` injected.
    pub fn doses(&self, step: u32) -> &Doses {
        &self.step(step).doses
    }

    /// Codes `[codebooks]` that the last step sampled; PAD where the delay pattern has no frame.
    pub fn column(&self) -> Option<&[u32]> {
        let last = self.taken.checked_sub(1)?;
        Some(&self.step(last).column[..self.pattern.codebooks()])
    }

    /// Records what is asked for before the step is computed. While the piece is being flushed, the last control goes on.
    pub fn ask(&mut self, control: Option<&ControlFrame>) {
        match control {
            Some(control) => self.last = *control,
            None => self.last.index += 1,
        }
        let gain = if self.last.bypass { 0.0 } else { self.last.gain };
        let lanes = &self.last.lanes;
        let mut doses = self.envelope.advance(lanes, self.frame_seconds);
        let note = lanes.note.map(|note| note.index() as u8);
        let chord = lanes.chord.map(|chord| chord.class() as u8);
        for ((lane, class), guard) in [(Lane::Note, note), (Lane::Chord, chord)].into_iter().zip(&mut self.guards) {
            guard.follow(class.filter(|_| lanes.guard));
            if let Some(class) = guard.class() {
                doses.scale(lane, class, guard.gain());
            }
        }
        let (pad, taken) = (self.pad, self.taken);
        *self.step_mut(taken) = Step { column: [pad; MAX_CODEBOOKS], doses, gain };
    }

    /// Takes the codes that were sampled for the step and sends out the audio that became determined.
    /// `sample` gives the code of one codebook.
    ///
    /// # Errors
    /// When the codec refuses its input, or a card that decodes no longer answers.
    pub fn take(&mut self, mut sample: impl FnMut(usize) -> u32, sink: Sink<'_>) -> Result<(), EngineError> {
        let taken = self.taken;
        let frames = self.ended.unwrap_or(u32::MAX);
        for codebook in 0..self.pattern.codebooks() {
            let delay = self.pattern.delay(codebook) as u32;
            if taken >= delay && taken - delay < frames {
                self.step_mut(taken).column[codebook] = sample(codebook);
            }
        }
        self.taken += 1;
        let whole = self.taken.saturating_sub(self.pattern.max_delay() as u32);
        match self.ended {
            None => {
                let hop = self.last.hop.clamp(1, MOST_HOP);
                if hop > 1 && self.runs_aside() {
                    // Frames may wait for each other, so a card has the time of the next step to decode this one in.
                    self.collect()?;
                    self.decode(whole)?;
                } else if whole - self.decoded >= hop {
                    self.decode(whole)?;
                    self.collect()?;
                }
                while self.send(sink)? {}
                Ok(())
            }
            Some(_) => {
                self.decode(whole)?;
                self.flush(sink)
            }
        }
    }

    /// After the last step of an ended piece: what the codec still holds.
    ///
    /// # Errors
    /// As [`Piece::take`].
    pub fn flush(&mut self, sink: Sink<'_>) -> Result<(), EngineError> {
        let frames = self.ended.unwrap_or(0);
        self.collect()?;
        if self.decoded < frames {
            return self.send(sink).map(|_| ());
        }
        for stream in &mut self.streams {
            stream.finish()?;
        }
        self.collect()?;
        while self.answered < frames && self.send(sink)? {}
        self.answered = frames;
        Ok(())
    }

    /// Waits for the samples that are under way.
    fn collect(&mut self) -> Result<(), EngineError> {
        self.streams.iter_mut().try_for_each(|stream| stream.collect())
    }

    /// Gives the codec the frames before `until` that it has not had, as many at once as it takes.
    fn decode(&mut self, until: u32) -> Result<(), EngineError> {
        let channels = self.streams.len();
        let per_channel = self.pattern.codebooks() / channels;
        while self.decoded < until {
            let frames = (until - self.decoded).min(MOST_HOP);
            for channel in 0..channels {
                let mut codes = [0; MAX_CODEBOOKS * MOST_HOP as usize];
                for (place, code) in codes.iter_mut().enumerate().take(per_channel * frames as usize) {
                    // Left and right interleave: codebook q of channel c is the model's codebook q * channels + c.
                    let codebook = place % per_channel * channels + channel;
                    let frame = self.decoded + (place / per_channel) as u32;
                    *code = self.step(frame + self.pattern.delay(codebook) as u32).column[codebook];
                }
                self.streams[channel].push(&codes[..per_channel * frames as usize])?;
            }
            self.decoded += frames;
        }
        Ok(())
    }

    /// Sends the oldest whole frame, if there is one.
    fn send(&mut self, sink: Sink<'_>) -> Result<bool, EngineError> {
        let (samples, decoded) = (self.frame_samples, self.channel.len());
        if self.streams.iter().any(|stream| stream.available() < decoded) {
            return Ok(false);
        }
        let mono = self.streams.len() == 1;
        for (channel, stream) in self.streams.iter_mut().enumerate() {
            stream.read(&mut self.channel);
            if decoded == self.frame.len() {
                // A stereo codec behind a mono language model: left and right come interleaved already.
                self.frame.copy_from_slice(&self.channel);
                continue;
            }
            for (frame, sample) in self.frame.chunks_exact_mut(CHANNELS).zip(&self.channel) {
                frame[channel] = *sample;
                if mono {
                    frame[1] = *sample;
                }
            }
        }
        let gain = self.step(self.answered).gain;
        let before = self.gain.replace(gain).unwrap_or(gain);
        if before != gain {
            // A lane's value is the one at the frame's last sample, so the ramp arrives there.
            let slope = (gain - before) / samples as f32;
            for (index, frame) in self.frame.chunks_exact_mut(CHANNELS).enumerate() {
                let gain = before + slope * (index + 1) as f32;
                frame.iter_mut().for_each(|sample| *sample *= gain);
            }
        } else if gain != 1.0 {
            self.frame.iter_mut().for_each(|sample| *sample *= gain);
        }
        // Behind the newest control by what is under way: after a skip, the audio in flight plays on without a hole.
        let newest = self.taken - 1;
        let slot = (self.last.index).saturating_sub(newest - self.answered);
        self.answered += 1;
        let last = self.ended == Some(self.answered);
        sink(FrameHeader { piece: self.last.piece, slot, last }, &self.frame);
        Ok(true)
    }

    fn step(&self, step: u32) -> &Step {
        &self.steps[step as usize % self.steps.len()]
    }

    fn step_mut(&mut self, step: u32) -> &mut Step {
        let capacity = self.steps.len();
        &mut self.steps[step as usize % capacity]
    }
}
