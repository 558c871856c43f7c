//! Model rate to host rate for one stereo stream, by rubato's sinc interpolation. Audio thread; allocates in `new` only.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{
    Async, FixedAsync, Resampler as _, ResamplerConstructionError, SincInterpolationParameters, WindowFunction,
};

/// Filter length in samples of the slower rate.
const FILTER: f64 = 128.0;
const OVERSAMPLING: usize = 128;

/// Turns chunks of a fixed length at the model's rate into samples at the host's: sample n out lies at n / host rate, as
/// sample m in lies at m / model rate. It must be given a few samples more than it has given back (`lookahead`).
///
/// # Realtime safety
/// No allocation after `new`.
pub struct Resampler {
    inner: Async<f32>,
    input: Vec<Vec<f32>>,
    output: Vec<Vec<f32>>,
    /// `output[..][read..filled]` has not been taken.
    read: usize,
    filled: usize,
    /// Samples that the filter gives before the first one that counts, and how many of them are still to come.
    lead: usize,
    discard: usize,
    lookahead: usize,
}

impl Resampler {
    /// `model_rate` in, `host_rate` out, `chunk` samples per push.
    ///
    /// # Errors
    /// Rates that are not finite and positive.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn new(model_rate: f64, host_rate: f64, chunk: usize) -> Result<Self, ResamplerConstructionError> {
        let ratio = host_rate / model_rate;
        // A filter that must cut below the model's rate is longer by as much.
        let length = ((FILTER / ratio.min(1.0)) as usize).next_multiple_of(8);
        let parameters =
            SincInterpolationParameters::new(length, WindowFunction::BlackmanHarris2).oversampling_factor(OVERSAMPLING);
        let inner = Async::new_sinc(ratio, 1.0, &parameters, chunk, 2, FixedAsync::Input)?;
        let most = inner.output_frames_max() + 1;
        // Output n is centred on the input (n + 1) / ratio - length / 2 + 1 / OVERSAMPLING, and reads half a filter more.
        let half = length as f64 / 2.0;
        let lead = ((half - 1.0 / OVERSAMPLING as f64) * ratio - 1.0).round().max(0.0) as usize;
        Ok(Self {
            inner,
            input: vec![vec![0.0; chunk]; 2],
            output: vec![vec![0.0; most]; 2],
            read: 0,
            filled: 0,
            lead,
            discard: lead,
            lookahead: ((half + 2.0) * ratio).ceil() as usize + 2,
        })
    }

    /// How many host samples earlier than its place a model sample is needed.
    pub fn lookahead(&self) -> usize {
        self.lookahead
    }

    /// Samples that can be taken now.
    pub fn available(&self) -> usize {
        self.filled - self.read
    }

    /// Takes in one chunk, interleaved stereo. Only to be called when nothing is available.
    pub fn push(&mut self, interleaved: &[f32]) {
        let (left, right) = self.input.split_at_mut(1);
        for ((frame, left), right) in interleaved.chunks_exact(2).zip(&mut left[0]).zip(&mut right[0]) {
            *left = frame[0];
            *right = frame[1];
        }
        let (chunk, room) = (self.input[0].len(), self.output[0].len());
        let made = match (
            SequentialSliceOfVecs::new(&self.input, 2, chunk),
            SequentialSliceOfVecs::new_mut(&mut self.output, 2, room),
        ) {
            (Ok(input), Ok(mut output)) => {
                self.inner.process_into_buffer(&input, &mut output, None).map_or(0, |(_, made)| made)
            }
            _ => 0,
        };
        let dropped = made.min(self.discard);
        self.discard -= dropped;
        self.read = dropped;
        self.filled = made;
    }

    /// Takes as many samples as there are and fit; returns how many.
    pub fn take(&mut self, left: &mut [f32], right: &mut [f32]) -> usize {
        let count = self.available().min(left.len()).min(right.len());
        left[..count].copy_from_slice(&self.output[0][self.read..self.read + count]);
        right[..count].copy_from_slice(&self.output[1][self.read..self.read + count]);
        self.read += count;
        count
    }

    /// Back to the start of a stream.
    pub fn reset(&mut self) {
        self.inner.reset();
        self.read = 0;
        self.filled = 0;
        self.discard = self.lead;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;

    const MODEL: f64 = 32_000.0;
    const CHUNK: usize = 64;

    /// `count` samples out of `signal`, taken in blocks of `block`, and how far the input ran ahead at most (host samples).
    fn run(
        resampler: &mut Resampler,
        host: f64,
        count: usize,
        block: usize,
        signal: impl Fn(f64) -> f64,
    ) -> (Vec<f32>, f64) {
        let mut out = (vec![0.0; count], vec![0.0; count]);
        let (mut done, mut fed, mut ahead) = (0, 0_usize, 0.0_f64);
        while done < count {
            let end = (done + block).min(count);
            while done < end {
                if resampler.available() == 0 {
                    // The chunk that is asked for now begins here.
                    ahead = ahead.max(fed as f64 / MODEL * host - done as f64);
                    let chunk: Vec<f32> = (0..CHUNK)
                        .flat_map(|i| {
                            let value = signal((fed + i) as f64 / MODEL) as f32;
                            [value, -value]
                        })
                        .collect();
                    resampler.push(&chunk);
                    fed += CHUNK;
                }
                done += resampler.take(&mut out.0[done..end], &mut out.1[done..end]);
            }
        }
        assert!(out.0.iter().zip(&out.1).all(|(left, right)| left == &-right), "channels separate");
        (out.0, ahead)
    }

    /// Phase of the sine of `frequency` in `samples` against a sine that starts at sample 0, seconds late.
    fn lateness(samples: &[f32], first: usize, rate: f64, frequency: f64) -> f64 {
        let (mut sine, mut cosine) = (0.0, 0.0);
        for (index, sample) in samples.iter().enumerate().skip(first) {
            let phase = std::f64::consts::TAU * frequency * index as f64 / rate;
            sine += f64::from(*sample) * phase.sin();
            cosine += f64::from(*sample) * phase.cos();
        }
        -cosine.atan2(sine) / (std::f64::consts::TAU * frequency)
    }

    #[test]
    fn samples_lie_where_they_should_at_every_rate() {
        for host in [8_000.0, 11_025.5, 22_050.0, 44_100.0, 47_999.9, 48_000.0, 96_000.0, 192_000.0, 768_000.0] {
            let mut resampler = Resampler::new(MODEL, host, CHUNK).unwrap();
            let frequency = 440.0;
            let count = (0.25 * host) as usize;
            let tone = |time: f64| 0.5 * (std::f64::consts::TAU * frequency * time).sin();
            let (out, ahead) = run(&mut resampler, host, count, 100, tone);
            let late = lateness(&out, count / 2, host, frequency) * host;
            assert!(late.abs() <= 0.6, "{host}: {late} samples late");
            assert!(ahead >= 0.0 && ahead <= resampler.lookahead() as f64, "{host}: {ahead} samples ahead");
            let worst = out.iter().enumerate().skip(count / 2).fold(0.0_f64, |worst, (index, sample)| {
                worst.max((f64::from(*sample) - tone((index as f64 - late) / host)).abs())
            });
            assert!(worst < 1e-3, "{host}: off by {worst}");
        }
    }

    #[test]
    fn an_impulse_comes_out_at_its_own_place() {
        for host in [24_000.0, 44_100.0, 96_000.0] {
            let mut resampler = Resampler::new(MODEL, host, CHUNK).unwrap();
            let place = 1_000.0 / MODEL;
            let click = |time: f64| if (time - place).abs() < 0.5 / MODEL { 1.0 } else { 0.0 };
            let (out, _) = run(&mut resampler, host, (0.1 * host) as usize, 64, click);
            let peak = (0..out.len()).max_by(|a, b| out[*a].abs().total_cmp(&out[*b].abs())).unwrap();
            assert!((peak as f64 - place * host).abs() <= 1.0, "{host}: {peak} against {}", place * host);
        }
    }

    #[test]
    fn block_sizes_and_resets_do_not_change_bits() {
        let noise = |time: f64| (time * 12_345.678).sin() * (time * 777.7).cos();
        let mut resampler = Resampler::new(MODEL, 44_100.0, CHUNK).unwrap();
        let (whole, _) = run(&mut resampler, 44_100.0, 10_000, 10_000, noise);
        for block in [1, 7, 64, 999] {
            resampler.reset();
            assert!(run(&mut resampler, 44_100.0, 10_000, block, noise).0 == whole, "block {block}");
        }
    }
}
