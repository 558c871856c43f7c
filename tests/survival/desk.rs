//! The plugin's audio thread and a real engine without a host between them: here a test can put a fault into the engine and
//! look at the meters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tiller::ceiling;
use tiller::lanes::LaneValues;
use tiller::latency::LatencySetting;
use tiller::meters::Meters;
use tiller::processor::{Block, Processor, ProcessorSettings};
use tiller::quantise::Grid;
use tiller::slack::LateMode;
use tiller::transport::{RunMode, Transport};
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::{Backend, BackendError, Step};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::status::State;

/// Samples of a block; a frame is 640 at the model's own rate.
pub const BLOCK: usize = 320;
pub const RATE: f64 = 32_000.0;
pub const FRAME: usize = 640;

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Numbers that are not finite.
    NotFinite,
    /// The card is gone.
    Lost,
    /// A fault of ours.
    Panic,
    /// It takes so long.
    Slow(Duration),
}

/// The processor, but for the steps in which something goes wrong.
pub struct Faulty {
    inner: CpuBackend,
    /// Steps so far.
    steps: Arc<AtomicU32>,
    fault: Fault,
    /// The steps that meet it.
    when: std::ops::Range<u32>,
}

impl Backend for Faulty {
    fn step(&mut self, step: &Step<'_>) -> Result<(), BackendError> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        if self.when.contains(&number) {
            match self.fault {
                Fault::NotFinite => return Err(BackendError::NotFinite),
                Fault::Lost => {
                    return Err(BackendError::Card {
                        status: 1,
                        text: "the card was pulled out; the CPU goes on".into(),
                    });
                }
                Fault::Panic => panic!("a fault that a test put here"),
                Fault::Slow(time) => std::thread::sleep(time),
            }
        }
        self.inner.step(step)
    }

    fn code(&mut self, draw: usize, codebook: usize) -> u32 {
        self.inner.code(draw, codebook)
    }

    fn tapped(&self, tap: usize) -> &[f32] {
        self.inner.tapped(tap)
    }

    fn logits(&mut self, row: usize, out: &mut [f32]) -> Result<(), BackendError> {
        self.inner.logits(row, out)
    }

    fn place(&self) -> String {
        "a faulty processor".to_owned()
    }
}

/// An engine, an audio thread, and what came out.
pub struct Desk {
    pub handle: Handle,
    pub meters: Arc<Meters>,
    processor: Processor,
    /// Everything that was pulled, left.
    pub left: Vec<f32>,
    position: i64,
    /// Longest time that one block took.
    pub slowest: Duration,
}

impl Desk {
    /// On the embedded model.
    pub fn new() -> Self {
        Self::on(ModelSource::Embedded, LatencySetting::Safe)
    }

    pub fn on(source: ModelSource, latency: LatencySetting) -> Self {
        let handle = Handle::new();
        handle.set_model(source);
        handle.set_prompt("calm piano broken chords, slow");
        Self::of(handle, latency)
    }

    /// On the embedded model, its steps computed by a backend with a fault in these steps.
    pub fn with_fault(fault: Fault, when: std::ops::Range<u32>, latency: LatencySetting) -> Self {
        let handle = Handle::new();
        handle.set_prompt("calm piano broken chords, slow");
        let model = Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded model loads");
        let prompt = Arc::new(model.prompt("calm piano broken chords, slow").expect("the prompt encodes"));
        let pool = Arc::new(Pool::new(1));
        let inner = CpuBackend::new(model.clone(), pool.clone(), Player::capacity(&model, None));
        let backend = Faulty { inner, steps: Arc::default(), fault, when };
        let player = Player::computed_by(Box::new(backend), pool, model, prompt, None);
        handle.play(Box::new(player)).expect("threads");
        Self::of(handle, latency)
    }

    fn of(handle: Handle, latency: LatencySetting) -> Self {
        handle.start().expect("threads");
        handle.wait_settled(Duration::from_secs(20));
        let (meters, frames) = (Arc::new(Meters::default()), Processor::queue_frames(handle.format(), RATE, BLOCK));
        let link = handle.connect(frames).expect("threads");
        let settings = ProcessorSettings { sample_rate: RATE, max_block: BLOCK, latency };
        let processor = Processor::new(link, settings, meters.clone()).expect("a rate in range");
        Self { handle, meters, processor, left: Vec::new(), position: 0, slowest: Duration::ZERO }
    }

    /// L, samples.
    pub fn latency(&self) -> usize {
        self.processor.latency() as usize
    }

    /// Pulls so many samples of a host that plays on from where it was, or stands still.
    pub fn pull(&mut self, samples: usize, playing: bool, late: LateMode) {
        let end = self.left.len() + samples;
        while self.left.len() < end {
            let count = BLOCK.min(end - self.left.len());
            let transport =
                Transport { playing, tempo: Some(120.0), pos_samples: Some(self.position), ..Transport::default() };
            let lanes = LaneValues { prompt: self.handle.prompt_generation(), ..LaneValues::default() };
            let block = Block {
                samples: count,
                transport,
                lanes,
                run: RunMode::Transport,
                grid: Grid::Off,
                late,
                latency: LatencySetting::Safe,
                events: &[],
                offline: false,
            };
            let (mut left, mut right) = ([f32::NAN; BLOCK], [f32::NAN; BLOCK]);
            let began = Instant::now();
            self.processor.process(&block, &mut [&mut left[..count], &mut right[..count]]);
            self.slowest = self.slowest.max(began.elapsed());
            assert!(left[..count].iter().chain(&right[..count]).all(|s| s.is_finite() && s.abs() <= 1.0));
            self.left.extend_from_slice(&left[..count]);
            self.position += if playing { count as i64 } else { 0 };
        }
    }

    /// The same at the pace of a device.
    pub fn live(&mut self, samples: usize, playing: bool) {
        let (began, from) = (Instant::now(), self.left.len());
        let end = from + samples;
        while self.left.len() < end {
            let due = Duration::from_secs_f64((self.left.len() - from) as f64 / RATE);
            std::thread::sleep((began + due).saturating_duration_since(Instant::now()));
            self.pull(BLOCK.min(end - self.left.len()), playing, LateMode::Fade);
        }
    }

    /// The host stops, and starts from the beginning of the song: a new piece. Where in `left` it is heard.
    pub fn restart(&mut self) -> usize {
        let latency = self.latency();
        self.pull(latency + 2 * FRAME, false, LateMode::Wait);
        self.position = 0;
        self.left.len() + latency
    }

    /// Why there is silence, if that is so.
    pub fn failure(&self) -> Option<String> {
        match self.handle.status().state {
            State::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// Waits until something is so, at most some seconds.
    pub fn within_seconds(&self, holds: impl Fn(&Self) -> bool) -> bool {
        (0..1_000).any(|_| {
            let so = holds(self);
            if !so {
                std::thread::sleep(Duration::from_millis(5));
            }
            so
        })
    }
}

/// Largest step between neighbours.
pub fn largest_step(samples: &[f32]) -> f32 {
    samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
}

/// Seconds of the piece that nothing goes wrong in, without the delay: what every test here compares with.
pub fn calm(seconds: f64) -> Vec<f32> {
    let mut desk = Desk::new();
    let latency = desk.latency();
    desk.pull(latency + (seconds * RATE) as usize, true, LateMode::Wait);
    assert_eq!(desk.meters.late_frames(), 0);
    let music = desk.left.split_off(latency);
    assert!(music.iter().all(|sample| sample.abs() < ceiling::KNEE) && music.iter().any(|sample| sample.abs() > 0.01));
    music
}
