//! A runner that follows a script on simulated time: the engine's part of the link, without an engine.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tiller_engine::control::{ControlFrame, ControlKind};
use tiller_engine::link::{FrameHeader, RunnerLink, StreamFormat};

use crate::slack::Clock;

pub const FORMAT: StreamFormat = StreamFormat::PUBLISHED;

/// What the scripted runner answers: left channel, right is its negative. Smooth within a piece, another pitch per seed.
pub fn sample(control: &ControlFrame, slot: u32, index: usize) -> f32 {
    let time = f64::from(slot) * FORMAT.frame_samples as f64 + index as f64;
    let note = control.lanes.note.map_or(0.0, |note| 1.0 + note.index() as f64);
    (0.25 * (time * (0.01 + 0.001 * f64::from(control.seed))).sin() * f64::from(control.gain)) as f32
        + 0.0625 * note as f32 * control.lanes.note_strength
}

/// Simulated time with a runner on it.
pub struct World {
    now: Cell<Duration>,
    runner: RefCell<Option<Runner>>,
}

struct Runner {
    link: RunnerLink,
    /// Compute time of one frame.
    cost: Duration,
    /// Does nothing before.
    frozen_until: Duration,
    busy: Option<(Duration, ControlFrame)>,
    free_at: Duration,
    /// The controls that were computed, for the slots that their answers carry.
    computed: Vec<ControlFrame>,
    log: Vec<ControlFrame>,
    /// Long runs: every sample is the same, and no log is kept.
    plain: bool,
}

#[derive(Clone)]
pub struct SimClock(pub Rc<World>);

impl World {
    pub fn new(link: RunnerLink, cost: Duration) -> Rc<Self> {
        let runner = Runner {
            link,
            cost,
            frozen_until: Duration::ZERO,
            busy: None,
            free_at: Duration::ZERO,
            computed: Vec::new(),
            log: Vec::new(),
            plain: false,
        };
        Rc::new(Self { now: Cell::new(Duration::from_secs(1)), runner: RefCell::new(Some(runner)) })
    }

    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// Lets time pass for everyone.
    pub fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
        self.work();
    }

    /// The runner takes note of what was sent at this moment.
    pub fn work(&self) {
        if let Some(runner) = self.runner.borrow_mut().as_mut() {
            runner.work(self.now.get());
        }
    }

    pub fn freeze(&self, time: Duration) {
        if let Some(runner) = self.runner.borrow_mut().as_mut() {
            runner.frozen_until = self.now.get() + time;
        }
    }

    pub fn set_cost(&self, cost: Duration) {
        if let Some(runner) = self.runner.borrow_mut().as_mut() {
            runner.cost = cost;
        }
    }

    /// Nothing but time matters from now on.
    pub fn set_plain(&self) {
        if let Some(runner) = self.runner.borrow_mut().as_mut() {
            runner.plain = true;
        }
    }

    pub fn set_dead(&self, dead: bool) {
        if let Some(runner) = self.runner.borrow().as_ref() {
            runner.link.set_dead(dead);
        }
    }

    /// Every control message that the runner took, in order.
    pub fn log(&self) -> Vec<ControlFrame> {
        self.runner.borrow().as_ref().map(|runner| runner.log.clone()).unwrap_or_default()
    }
}

impl Runner {
    fn work(&mut self, now: Duration) {
        loop {
            if let Some((done, control)) = self.busy {
                if done.max(self.frozen_until) > now {
                    return;
                }
                self.free_at = done.max(self.frozen_until);
                self.busy = None;
                self.answer(&control);
                continue;
            }
            self.link.set_pace(self.cost);
            let Some(control) = self.link.take() else {
                self.free_at = now;
                return;
            };
            if self.link.is_skipped(&control) {
                continue;
            }
            if !self.plain {
                self.log.push(control);
            }
            match control.kind {
                ControlKind::Frame => {
                    self.busy = Some((self.free_at.max(self.frozen_until) + self.cost, control));
                }
                ControlKind::End => {
                    for slot in control.index.saturating_sub(FORMAT.delay_frames as u32)..control.index {
                        self.write(control.piece, slot, slot + 1 == control.index);
                    }
                }
            }
        }
    }

    fn answer(&mut self, control: &ControlFrame) {
        if self.computed.len() == 64 {
            self.computed.remove(0);
        }
        self.computed.push(*control);
        if let Some(slot) = control.index.checked_sub(FORMAT.delay_frames as u32) {
            self.write(control.piece, slot, false);
        }
    }

    fn write(&mut self, piece: u32, slot: u32, last: bool) {
        // A slot whose own frame was skipped sounds like the one that is next to it.
        let Some(control) = self.computed.iter().filter(|c| c.piece == piece).min_by_key(|c| c.index.abs_diff(slot))
        else {
            return;
        };
        if self.plain {
            assert!(self.link.answer(FrameHeader { piece, slot, last }, &[0.25; 2 * FORMAT.frame_samples]), "full");
            return;
        }
        let samples: Vec<f32> =
            (0..FORMAT.frame_samples).flat_map(|i| [sample(control, slot, i), -sample(control, slot, i)]).collect();
        assert!(self.link.answer(FrameHeader { piece, slot, last }, &samples), "the ring is full");
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, time: Duration) {
        self.0.pass(time);
    }
}
