//! What the editor watches: the newest output samples and what the lanes said, in rings that the audio thread overwrites and
//! never waits for. Any thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fmt;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use tiller_engine::control::{Lanes, TRAITS};

use crate::target::Target;

/// Samples that are kept, a power of two: 2.7 s at 48 kHz.
const SAMPLES: usize = 1 << 17;
/// Samples that share one target.
const MARK: usize = 128;
/// Control frames that are kept, a power of two: ten seconds of them.
const MOMENTS: usize = 512;
/// A reader keeps so far away from what the writer is about to overwrite, in samples.
const MARGIN: u64 = 4_096;

/// Strengths that are followed over time.
pub const LANES: usize = 4 + TRAITS;

/// The strengths of a control frame, in the order in which the editor shows them: note, chord, tempo, master, traits.
fn strengths(lanes: &Lanes) -> [f32; LANES] {
    let [a, b, c, d] = lanes.traits;
    [lanes.note_strength, lanes.chord_strength, lanes.tempo_strength, lanes.strength, a, b, c, d]
}

/// One control frame.
struct Moment {
    /// Sample at which it is heard.
    at: AtomicU64,
    strengths: [AtomicU32; LANES],
}

/// Written by the audio thread, read by the editor.
pub struct Monitor {
    samples: Box<[AtomicU32]>,
    targets: Box<[AtomicU16]>,
    /// Samples written since the instance was made.
    written: AtomicU64,
    moments: Box<[Moment]>,
    /// Control frames written since the instance was made.
    sent: AtomicU64,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("written", &self.written).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Default for Monitor {
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    fn default() -> Self {
        let moment = |_| Moment { at: AtomicU64::new(0), strengths: Default::default() };
        Self {
            samples: (0..SAMPLES).map(|_| AtomicU32::new(0)).collect(),
            targets: (0..SAMPLES / MARK).map(|_| AtomicU16::new(0)).collect(),
            written: AtomicU64::new(0),
            moments: (0..MOMENTS).map(moment).collect(),
            sent: AtomicU64::new(0),
        }
    }
}

impl Monitor {
    /// Takes over what is heard now, and what it is steered to. At most [`MARGIN`] samples at once, from one thread at a time.
    ///
    /// # Realtime safety
    /// Wait-free, no allocation.
    pub(crate) fn hear(&self, left: &[f32], right: &[f32], target: Target) {
        let start = self.written.load(Ordering::Relaxed) as usize;
        let mut end = start;
        for (left, right) in left.iter().zip(right) {
            self.samples[end % SAMPLES].store((0.5 * (left + right)).to_bits(), Ordering::Relaxed);
            if end == start || end.is_multiple_of(MARK) {
                self.targets[end / MARK % (SAMPLES / MARK)].store(target.code(), Ordering::Relaxed);
            }
            end += 1;
        }
        self.written.store(end as u64, Ordering::Release);
    }

    /// Takes over the strengths of a control frame that is heard `latency` samples from now.
    ///
    /// # Realtime safety
    /// Wait-free, no allocation.
    pub(crate) fn steer(&self, lanes: &Lanes, latency: u32) {
        let sent = self.sent.load(Ordering::Relaxed);
        let moment = &self.moments[sent as usize % MOMENTS];
        let at = self.written.load(Ordering::Relaxed) + u64::from(latency);
        moment.at.store(at, Ordering::Relaxed);
        for (place, strength) in moment.strengths.iter().zip(strengths(lanes)) {
            place.store(strength.to_bits(), Ordering::Relaxed);
        }
        self.sent.store(sent + 1, Ordering::Release);
    }

    /// Samples written so far: the next one's number.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The number of the oldest sample that can still be read.
    pub fn oldest(&self) -> u64 {
        self.written().saturating_sub(SAMPLES as u64 - MARGIN)
    }

    /// Copies the samples before number `end`, both sides mixed; `false` if they are not written yet or no longer there.
    pub fn read(&self, end: u64, samples: &mut [f32]) -> bool {
        let Some(start) = end.checked_sub(samples.len() as u64) else { return false };
        if end > self.written() {
            return false;
        }
        for (number, sample) in (start..).zip(samples) {
            *sample = f32::from_bits(self.samples[number as usize % SAMPLES].load(Ordering::Relaxed));
        }
        fence(Ordering::Acquire);
        start >= self.oldest()
    }

    /// What sample `number` is steered to.
    pub fn target(&self, number: u64) -> Target {
        Target::of_code(self.targets[number as usize / MARK % (SAMPLES / MARK)].load(Ordering::Relaxed))
    }

    /// The strengths that sample `number` is steered with: those of the newest control frame that is heard by then, unless it
    /// is older than `stale` samples, because nothing sounds.
    pub fn strengths(&self, number: u64, stale: u64) -> Option<[f32; LANES]> {
        let sent = self.sent.load(Ordering::Acquire);
        // The writer is far from these: it has the other half of the ring before it.
        let recent = (sent.saturating_sub(MOMENTS as u64 / 2)..sent).rev();
        let moments = recent.map(|index| &self.moments[index as usize % MOMENTS]);
        let at = |moment: &&Moment| moment.at.load(Ordering::Relaxed);
        let moment = moments.filter(|moment| at(moment) <= number).max_by_key(at)?;
        let fresh = number - at(&moment) <= stale;
        fresh.then(|| std::array::from_fn(|lane| f32::from_bits(moment.strengths[lane].load(Ordering::Relaxed))))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
mod tests {
    use super::*;
    use tiller_engine::control::PitchClass;

    #[test]
    fn the_newest_samples_can_be_read_and_lost_ones_are_not_passed_off() {
        let monitor = Monitor::default();
        let mut samples = [0.0; 100];
        assert!(!monitor.read(100, &mut samples), "nothing is written yet");
        let target = Target { note: PitchClass::new(2), chord: None };
        let mut number = 0;
        while number < 2 * SAMPLES {
            let left: Vec<f32> = (number..number + 256).map(|sample| sample as f32).collect();
            monitor.hear(&left, &left, if number < SAMPLES { Target::default() } else { target });
            number += 256;
        }
        assert_eq!(monitor.written(), 2 * SAMPLES as u64);
        assert!(monitor.read(2 * SAMPLES as u64 - 50, &mut samples));
        assert_eq!((samples[0], samples[99]), (2.0 * SAMPLES as f32 - 150.0, 2.0 * SAMPLES as f32 - 51.0));
        assert!(!monitor.read(SAMPLES as u64, &mut samples), "overwritten");
        assert!(!monitor.read(2 * SAMPLES as u64 + 1, &mut samples), "not there yet");
        assert!(monitor.read(monitor.oldest() + 100, &mut samples));
        assert_eq!(monitor.target(2 * SAMPLES as u64 - 1), target);
    }

    #[test]
    fn a_control_frame_counts_when_it_is_heard() {
        let monitor = Monitor::default();
        let silence = [0.0; 256];
        for strength in [0.25, -0.5] {
            monitor.steer(&Lanes { note_strength: strength, strength: 1.0, ..Lanes::OFF }, 1_000);
            monitor.hear(&silence, &silence, Target::default());
        }
        let note = |number| monitor.strengths(number, 2_000).map(|strengths| strengths[0]);
        assert_eq!([note(999), note(1_000), note(1_255), note(1_256)], [None, Some(0.25), Some(0.25), Some(-0.5)]);
        assert_eq!(note(1_256 + 2_001), None, "nothing sounds any more");
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_samples_or_none() {
        let monitor = Monitor::default();
        // Numbers that an `f32` holds exactly.
        let value = |number: u64| (number % (1 << 20)) as f32;
        let enough = AtomicU32::new(0);
        let mut torn = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while enough.load(Ordering::Relaxed) == 0 {
                    let samples: Vec<f32> = (number..number + 256).map(value).collect();
                    monitor.hear(&samples, &samples, Target::default());
                    number += 256;
                }
            });
            let mut samples = [0.0; 2_000];
            let mut seen = 0;
            while seen < 2_000 {
                // The newest samples, and the oldest, which the writer is about to overwrite.
                for end in [monitor.written(), monitor.oldest() + 2_000] {
                    if monitor.read(end, &mut samples) {
                        seen += 1;
                        torn += usize::from((end - 2_000..end).zip(&samples).any(|(at, sample)| *sample != value(at)));
                    }
                }
            }
            enough.store(1, Ordering::Relaxed);
        });
        assert_eq!(torn, 0, "a read is of one piece");
    }
}
