//! One piece as continuous sound at the host's rate: frame after frame, resampled, missing frames faded over. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use rubato::ResamplerConstructionError;
use tiller_engine::link::{CHANNELS, StreamFormat};

use crate::resampler::Resampler;

/// Where frames come from.
pub trait FrameSource {
    /// Writes the frame at `slot` of `piece`, interleaved; `false` when it is late and must be done without.
    fn fetch(&mut self, piece: u32, slot: u32, samples: &mut [f32]) -> bool;
}

/// Fades last so many parts of a second (5 ms).
pub const FADES_PER_SECOND: u32 = 200;

/// Longest chunk that is resampled at once, model samples: short, so that a small block pays for little more than its own.
const LONGEST_CHUNK: usize = 64;

/// Plays one piece at a time from its start. Time never shifts: a frame that is missing leaves silence of its own length.
///
/// # Realtime safety
/// No allocation after `new`; waits only as the `FrameSource` does.
pub struct Stream {
    /// `None`: the rates are equal and samples pass byte for byte.
    resampler: Option<Resampler>,
    chunk: usize,
    fade: usize,
    /// The frame that is being played, interleaved.
    frame: Vec<f32>,
    /// Samples per channel of it that are used up.
    used: usize,
    piece: u32,
    next_slot: u32,
    /// The last frame was missing.
    silent: bool,
}

impl Stream {
    /// `rate`: samples per second of the host.
    ///
    /// # Errors
    /// Rates that no resampler can be made for.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn new(format: StreamFormat, rate: f64) -> Result<Self, ResamplerConstructionError> {
        let model_rate = f64::from(format.model_rate);
        let length = format.frame_samples;
        let chunk = (1..=LONGEST_CHUNK.min(length)).rev().find(|chunk| length.is_multiple_of(*chunk)).unwrap_or(1);
        let resampler = if rate == model_rate { None } else { Some(Resampler::new(model_rate, rate, chunk)?) };
        Ok(Self {
            resampler,
            chunk,
            fade: ((format.model_rate / FADES_PER_SECOND) as usize).clamp(1, (length / 2).max(1)),
            frame: vec![0.0; length * CHANNELS],
            used: length,
            piece: 0,
            next_slot: 0,
            silent: false,
        })
    }

    /// How many host samples before its place a frame is needed.
    pub fn lookahead(&self) -> usize {
        self.resampler.as_ref().map_or(0, Resampler::lookahead)
    }

    /// The piece, and the slot that is needed next.
    pub fn place(&self) -> (u32, u32) {
        (self.piece, self.next_slot)
    }

    /// Goes to the start of `piece`.
    pub fn start(&mut self, piece: u32) {
        self.piece = piece;
        self.next_slot = 0;
        self.silent = false;
        self.frame.fill(0.0);
        self.used = self.length();
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
        }
    }

    /// Fills `left` and `right` (equally long) with what follows. Slots from `slots` on do not exist.
    pub fn read(&mut self, source: &mut impl FrameSource, slots: u32, left: &mut [f32], right: &mut [f32]) {
        let mut done = 0;
        while done < left.len().min(right.len()) {
            let (left, right) = (&mut left[done..], &mut right[done..]);
            if let Some(resampler) = &mut self.resampler
                && resampler.available() > 0
            {
                done += resampler.take(left, right);
                continue;
            }
            if self.used == self.length() {
                self.load(source, slots);
            }
            let begin = self.used * CHANNELS;
            if let Some(resampler) = &mut self.resampler {
                resampler.push(&self.frame[begin..begin + self.chunk * CHANNELS]);
                self.used += self.chunk;
            } else {
                let count = (self.length() - self.used).min(left.len());
                for (index, pair) in self.frame[begin..begin + count * CHANNELS].chunks_exact(CHANNELS).enumerate() {
                    left[index] = pair[0];
                    right[index] = pair[1];
                }
                self.used += count;
                done += count;
            }
        }
    }

    fn length(&self) -> usize {
        self.frame.len() / CHANNELS
    }

    /// Brings the next frame into `frame`. A missing one becomes the mirrored end of the one before, faded out; the first
    /// after a missing one is faded in.
    fn load(&mut self, source: &mut impl FrameSource, slots: u32) {
        let (slot, length) = (self.next_slot, self.length());
        self.next_slot += 1;
        self.used = 0;
        let fade = self.fade as f32;
        // What came before stays readable: the fetch writes only when it succeeds.
        if slot < slots && source.fetch(self.piece, slot, &mut self.frame) {
            for sample in &mut self.frame {
                if !sample.is_finite() {
                    *sample = 0.0;
                }
            }
            if self.silent {
                for (index, pair) in self.frame.chunks_exact_mut(CHANNELS).take(self.fade).enumerate() {
                    pair.iter_mut().for_each(|sample| *sample *= index as f32 / fade);
                }
            }
            self.silent = false;
            return;
        }
        let (head, tail) = self.frame.split_at_mut(length / 2 * CHANNELS);
        for (index, pair) in head.chunks_exact_mut(CHANNELS).enumerate() {
            let gain = if self.silent { 0.0 } else { (1.0 - (index + 1) as f32 / fade).max(0.0) };
            let mirrored = tail.chunks_exact(CHANNELS).nth_back(index);
            for (channel, sample) in pair.iter_mut().enumerate() {
                *sample = if gain > 0.0 { mirrored.map_or(0.0, |pair| pair[channel] * gain) } else { 0.0 };
            }
        }
        tail.fill(0.0);
        self.silent = true;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    const FORMAT: StreamFormat = StreamFormat { model_rate: 32_000, frame_samples: 640, delay_frames: 3 };

    /// A 200 Hz sine, without the slots in `missing`.
    struct Tone {
        missing: std::ops::Range<u32>,
        fetched: Vec<u32>,
    }

    impl FrameSource for Tone {
        fn fetch(&mut self, _: u32, slot: u32, samples: &mut [f32]) -> bool {
            self.fetched.push(slot);
            if self.missing.contains(&slot) {
                return false;
            }
            for (index, pair) in samples.chunks_exact_mut(2).enumerate() {
                let sample = tone(slot as usize * 640 + index);
                pair.copy_from_slice(&[sample, -sample]);
            }
            true
        }
    }

    fn tone(index: usize) -> f32 {
        0.5 * (std::f32::consts::TAU * index as f32 / 160.0 + 1.0).sin()
    }

    fn play(rate: f64, missing: std::ops::Range<u32>, slots: u32, count: usize, block: usize) -> (Vec<f32>, Vec<u32>) {
        let mut stream = Stream::new(FORMAT, rate).unwrap();
        let mut source = Tone { missing, fetched: Vec::new() };
        stream.start(1);
        let (mut left, mut right) = (vec![9.0; count], vec![9.0; count]);
        for (left, right) in left.chunks_mut(block).zip(right.chunks_mut(block)) {
            stream.read(&mut source, slots, left, right);
        }
        assert!(left.iter().zip(&right).all(|(left, right)| *left == -right));
        (left, source.fetched)
    }

    #[test]
    fn equal_rates_pass_byte_for_byte() {
        let (out, fetched) = play(32_000.0, 0..0, u32::MAX, 2_000, 100);
        assert!(out.iter().enumerate().all(|(index, sample)| *sample == tone(index)));
        assert_eq!(fetched, [0, 1, 2, 3]);
    }

    #[test]
    fn a_missing_frame_fades_and_time_does_not_shift() {
        let (out, _) = play(32_000.0, 2..4, u32::MAX, 640 * 6, 99);
        let largest_step = out.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(largest_step < 0.03, "a click of {largest_step}; the tone itself steps by 0.02");
        assert!(out[640 * 2 + 160..640 * 4].iter().all(|sample| *sample == 0.0), "silent 5 ms after the last frame");
        assert!(out[640 * 2..640 * 2 + 100].iter().any(|sample| sample.abs() > 0.05), "not cut");
        assert_eq!(out[640 * 5], tone(640 * 5));
        assert_eq!(out[640 * 4 + 160], tone(640 * 4 + 160), "back at its own place");
    }

    #[test]
    fn resampled_gaps_keep_their_place() {
        let (whole, _) = play(48_000.0, 0..0, u32::MAX, 960 * 6, 64);
        let (gap, _) = play(48_000.0, 2..4, u32::MAX, 960 * 6, 64);
        assert!(gap[..960 * 2 - 200] == whole[..960 * 2 - 200]);
        assert!(gap[960 * 2 + 440..960 * 4 - 200].iter().all(|sample| sample.abs() < 1e-6));
        assert!(gap[960 * 4 + 440..] == whole[960 * 4 + 440..]);
    }

    #[test]
    fn nothing_is_fetched_beyond_the_end() {
        let (out, fetched) = play(32_000.0, 0..0, 2, 640 * 4, 64);
        assert_eq!(fetched, [0, 1]);
        assert!(out[640 * 2 + 160..].iter().all(|sample| *sample == 0.0));
    }

    #[test]
    fn what_is_not_a_number_is_not_passed_on() {
        struct Broken;
        impl FrameSource for Broken {
            fn fetch(&mut self, _: u32, _: u32, samples: &mut [f32]) -> bool {
                samples.fill(f32::NAN);
                true
            }
        }
        for rate in [32_000.0, 44_100.0] {
            let mut stream = Stream::new(FORMAT, rate).unwrap();
            let (mut left, mut right) = ([9.0; 100], [9.0; 100]);
            stream.read(&mut Broken, u32::MAX, &mut left, &mut right);
            assert_eq!((left, right), ([0.0; 100], [0.0; 100]));
        }
    }
}
