//! The instrument on its way through an audio device's callback: filled block by block, and given back when the device is closed.
//! Audio thread, but for making and dropping one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cpal::{FromSample, Sample};
use crossbeam_channel::{Receiver, Sender};
use nice_plug::prelude::{AuxiliaryBuffers, Buffer, NoteEvent, Plugin, Transport};
use tiller::Tiller;

use crate::host::Moment;

/// What was played so far. Any thread.
#[derive(Debug, Default)]
pub struct Played {
    samples: AtomicU64,
    /// Highest absolute sample; bit patterns of floats that are not negative are in the floats' order.
    peak: AtomicU32,
}

impl Played {
    /// Samples of each side.
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Highest absolute sample.
    pub fn peak(&self) -> f32 {
        f32::from_bits(self.peak.load(Ordering::Relaxed))
    }
}

/// The active instrument.
pub struct Player {
    plugin: Option<Box<Tiller>>,
    home: Sender<Box<Tiller>>,
    events: Receiver<NoteEvent<()>>,
    transport: Transport,
    sides: [Vec<f32>; 2],
    buffer: Buffer<'static>,
    played: Arc<Played>,
}

impl Player {
    /// An instrument that was activated for `rate` samples per second and blocks of `block` samples. It goes `home` when this
    /// is dropped.
    pub fn new(
        plugin: Box<Tiller>,
        home: Sender<Box<Tiller>>,
        events: Receiver<NoteEvent<()>>,
        rate: u32,
        block: u32,
        played: Arc<Played>,
    ) -> Self {
        let mut buffer = Buffer::default();
        // SAFETY: two empty slices of no samples.
        unsafe { buffer.set_slices(0, |slices| slices.resize_with(2, Default::default)) };
        let side = || vec![0.0; block as usize];
        Self {
            plugin: Some(plugin),
            home,
            events,
            transport: Transport::new(rate as f32),
            sides: [side(), side()],
            buffer,
            played,
        }
    }

    /// Plays into interleaved samples: left and right, or their mean to a single channel. Further channels are silent.
    ///
    /// # Realtime safety
    /// As the instrument's own.
    pub fn fill<T: Sample + FromSample<f32>>(&mut self, data: &mut [T], channels: usize) {
        let channels = channels.max(1);
        let longest = self.sides[0].len().max(1) * channels;
        for part in data.chunks_mut(longest) {
            let samples = part.len() / channels;
            self.process(samples);
            let mut peak = 0.0f32;
            for (index, frame) in part.chunks_mut(channels).enumerate() {
                let [left, right] = [0, 1].map(|side: usize| self.sides[side].get(index).copied().unwrap_or(0.0));
                peak = peak.max(left.abs()).max(right.abs());
                match frame {
                    [only] => *only = T::from_sample(0.5 * (left + right)),
                    [first, second, rest @ ..] => {
                        (*first, *second) = (T::from_sample(left), T::from_sample(right));
                        rest.fill(T::EQUILIBRIUM);
                    }
                    [] => {}
                }
            }
            self.played.peak.fetch_max(peak.to_bits(), Ordering::Relaxed);
            self.played.samples.fetch_add(samples as u64, Ordering::Relaxed);
        }
    }

    fn process(&mut self, samples: usize) {
        let Some(plugin) = &mut self.plugin else { return };
        let [left, right] = self.sides.each_mut().map(|side| {
            // SAFETY: the sides outlive the call, and nobody else touches them until the slices are taken back below.
            unsafe { std::slice::from_raw_parts_mut(side.as_mut_ptr(), samples.min(side.len())) }
        });
        let count = left.len();
        // SAFETY: both slices are of this length and live until they are replaced.
        unsafe {
            self.buffer.set_slices(count, |slices| {
                if let [first, second] = slices.as_mut_slice() {
                    (*first, *second) = (left, right);
                }
            });
        }
        let mut moment = Moment { events: &self.events, transport: &self.transport };
        let mut none = AuxiliaryBuffers { inputs: &mut [], outputs: &mut [] };
        plugin.process(&mut self.buffer, &mut none, &mut moment);
        // SAFETY: empty slices again.
        unsafe { self.buffer.set_slices(0, |slices| slices.iter_mut().for_each(|slice| *slice = Default::default())) };
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        if let Some(plugin) = self.plugin.take() {
            // Nobody waits for it any more when the application ends.
            let _ = self.home.send(plugin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Activation;
    use crossbeam_channel::{bounded, unbounded};
    use nice_assert_no_alloc::assert_no_alloc;
    use nice_plug::prelude::{AudioIOLayout, BufferConfig, ProcessMode};

    #[test]
    fn a_callback_never_allocates_and_every_channel_is_written() {
        let mut plugin = Box::new(Tiller::default());
        plugin.instance().meters.play.store(true, Ordering::Relaxed);
        let layout = Tiller::AUDIO_IO_LAYOUTS.first().copied().unwrap_or(AudioIOLayout::const_default());
        let config = BufferConfig {
            sample_rate: 48_000.0,
            min_buffer_size: None,
            max_buffer_size: 256,
            process_mode: ProcessMode::Realtime,
        };
        assert!(plugin.activate(&layout, &config, &mut Activation));
        let ((keys, events), (home, back)) = (bounded(64), unbounded());
        let played = Arc::new(Played::default());
        let mut player = Player::new(plugin, home, events, 48_000, 256, played.clone());
        for (index, channels) in [1, 2, 6].into_iter().cycle().take(300).enumerate() {
            if index % 40 == 7 {
                for bytes in [[0x90, 60, 90], [0xB0, 1, 64], [0x80, 60, 0]] {
                    assert!(NoteEvent::from_midi(0, &bytes).is_ok_and(|event| keys.try_send(event).is_ok()));
                }
            }
            // Longer than the announced block, and not a multiple of it.
            let mut samples = vec![f32::NAN; 300 * channels];
            assert_no_alloc(|| player.fill(&mut samples, channels));
            assert!(samples.iter().all(|sample| sample.is_finite()));
            assert!(samples.chunks(channels).all(|frame| frame.iter().skip(2).all(|sample| *sample == 0.0)));
        }
        assert_eq!(played.samples(), 300 * 300);
        assert!(played.peak() > 1e-3, "music, not silence");
        assert!(keys.is_empty(), "every event was taken");
        drop(player);
        assert!(back.try_recv().is_ok(), "the instrument comes back");
    }
}
