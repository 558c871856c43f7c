//! The inference thread: takes control frames off the link, plays them, writes audio back. It polls, since a wake-up
//! would be a system call on the audio thread; it sleeps when there is nothing to do.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::control::{ControlFrame, ControlKind};
use crate::error::EngineError;
use crate::link::{FrameHeader, RunnerLink};
use crate::player::Player;
use crate::status::{State, StatusCell};
use crate::steering::table::Steering;
use crate::text::Prompt;

/// How often the queue is looked at while music plays. Far below a frame (20 ms), so it costs no audible latency.
const POLL: Duration = Duration::from_micros(300);

/// How often after a second without a control frame.
const IDLE_POLL: Duration = Duration::from_millis(4);

/// When idling begins.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The longest wait for a prompt that is being encoded or directions that are being read, while the audio thread is able to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the loader and the handle tell the runner.
pub(crate) enum Order {
    /// A new audio end: the old one is dropped.
    Connect(RunnerLink),
    /// Play this model from the next frame on, with the prompt and the trait lanes' directions of the given generations.
    Play { player: Box<Player>, prompt: u32, directions: u32 },
    /// A prompt is ready; `None` when it could not be encoded and the old one stays.
    Prompt { generation: u32, prompt: Option<Arc<Prompt>> },
    /// Tables with the trait lanes' directions are ready.
    Directions { generation: u32, steering: Steering },
    /// There is no model to play (loading, failed); frames are not answered.
    Silence { dead: bool },
    /// End the thread.
    Stop,
}

pub(crate) struct Runner {
    orders: Receiver<Order>,
    status: Arc<StatusCell>,
    link: Option<RunnerLink>,
    player: Option<Box<Player>>,
    /// `None` keeps the prompt that sounds.
    prompts: Changes<Option<Arc<Prompt>>>,
    directions: Changes<Steering>,
    /// No model: say so to the audio thread, so that it does not wait.
    dead: bool,
    /// The first slot that a control frame to come can ask for, with its piece.
    next: (u32, u32),
    /// The status tells of a piece whose numbers went wrong. Its frames go unanswered, the next piece is tried: what steering
    /// drove astray is well again from the start of a piece.
    ailing: bool,
    /// Smoothed compute time of a frame, seconds.
    frame_seconds: f64,
    /// Told to stop while waiting for something else.
    stopping: bool,
}

/// Changes that are ready but whose frame has not come.
struct Changes<T> {
    ready: Vec<(u32, T)>,
    /// Generation that sounds.
    current: u32,
}

impl<T> Changes<T> {
    const NONE: Self = Self { ready: Vec::new(), current: 0 };

    /// A player that starts with this generation.
    fn begin(&mut self, generation: u32) {
        self.ready.clear();
        self.current = generation;
    }

    fn push(&mut self, generation: u32, change: T) {
        // One that comes after a later one has no frame left.
        if generation > self.current {
            self.ready.push((generation, change));
        }
    }

    /// The newest that frames of generation `asked` may sound under, if it does not sound yet.
    fn take(&mut self, asked: u32) -> Option<T> {
        let due = |(_, (generation, _)): &(usize, &(u32, T))| *generation <= asked;
        let (place, _) = self.ready.iter().enumerate().filter(due).max_by_key(|(_, (generation, _))| *generation)?;
        let (generation, change) = self.ready.swap_remove(place);
        self.current = generation;
        self.ready.retain(|(other, _)| *other > generation);
        Some(change)
    }
}

impl Runner {
    pub(crate) fn new(orders: Receiver<Order>, status: Arc<StatusCell>) -> Self {
        Self {
            orders,
            status,
            link: None,
            player: None,
            prompts: Changes::NONE,
            directions: Changes::NONE,
            dead: true,
            ailing: false,
            next: (0, 0),
            frame_seconds: 0.0,
            stopping: false,
        }
    }

    /// The thread's body; returns when told to stop or when every sender is gone.
    pub(crate) fn run(mut self) {
        let mut busy = Instant::now();
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(order) => self.obey(order),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if self.work() {
                busy = Instant::now();
                continue;
            }
            if self.stopping {
                return;
            }
            let pause = if busy.elapsed() > IDLE_AFTER { IDLE_POLL } else { POLL };
            match self.orders.recv_timeout(pause) {
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Connect(link) => {
                link.set_dead(self.dead);
                self.link = Some(link);
                if let Some(player) = &mut self.player {
                    player.stop();
                }
            }
            Order::Play { player, prompt, directions } => {
                self.player = Some(player);
                self.prompts.begin(prompt);
                self.directions.begin(directions);
                self.ailing = false;
                self.set_dead(false);
            }
            Order::Prompt { generation, prompt } => self.prompts.push(generation, prompt),
            Order::Directions { generation, steering } => self.directions.push(generation, steering),
            Order::Silence { dead } => {
                self.player = None;
                self.set_dead(dead);
            }
            Order::Stop => {}
        }
    }

    fn set_dead(&mut self, dead: bool) {
        self.dead = dead;
        if let Some(link) = &self.link {
            link.set_dead(dead);
        }
    }

    /// Does one piece of work; `false` when there was none.
    fn work(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        if link.is_closed() {
            self.link = None;
            return false;
        }
        // Without a player the frames stay in the queue: the audio thread counts and skips them when they are late.
        let Some(player) = &self.player else { return false };
        if player.model().format() != link.format() {
            self.status
                .set_notice("the new model has another frame clock: stop and start the host's audio engine".to_owned());
            link.set_dead(true);
            return false;
        }
        match link.peek() {
            Some(control) if link.is_skipped(&control) => {
                link.take();
                true
            }
            Some(control) if link.has_failed(control.piece) => {
                link.take();
                true
            }
            Some(control) => {
                if !self.adopt(&control) {
                    return false;
                }
                if let Some(link) = &mut self.link {
                    link.take();
                }
                self.play(Some(&control));
                true
            }
            None if player.is_flushing() => {
                self.play(None);
                true
            }
            None => false,
        }
    }

    /// Brings the prompt and the directions that `control` asks for, as far as they are ready. `false`: not yet, and the audio
    /// thread can wait.
    fn adopt(&mut self, control: &ControlFrame) -> bool {
        let since = Instant::now();
        loop {
            if let Some(player) = &mut self.player {
                if let Some(Some(prompt)) = self.prompts.take(control.prompt) {
                    player.set_prompt(prompt);
                }
                if let Some(steering) = self.directions.take(control.directions) {
                    player.set_steering(steering);
                }
            }
            let lacks = self.prompts.current < control.prompt || self.directions.current < control.directions;
            // Live: what was before goes on until the new is ready.
            if !lacks || !self.link.as_ref().is_some_and(|link| link.is_patient() && !link.is_closed()) {
                return true;
            }
            match self.orders.recv_timeout(POLL) {
                Ok(Order::Stop) => {
                    self.stopping = true;
                    return false;
                }
                Ok(order) => {
                    let ready = matches!(order, Order::Prompt { .. } | Order::Directions { .. });
                    self.obey(order);
                    if !ready {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Timeout) if since.elapsed() < PATIENCE => {}
                Err(_) => return true,
            }
        }
    }

    fn play(&mut self, control: Option<&ControlFrame>) {
        let (Some(player), Some(link)) = (&mut self.player, &mut self.link) else { return };
        let start = Instant::now();
        let mut sink = |header: FrameHeader, samples: &[f32]| {
            while !link.answer(header, samples) {
                if link.is_closed() {
                    return;
                }
                std::thread::sleep(POLL);
            }
        };
        // A fault of ours must not take the host's process with it, nor leave it waiting. The player's state is not to be
        // trusted afterwards, and goes.
        let result = catch_unwind(AssertUnwindSafe(|| match control {
            Some(control) => player.answer(control, &mut sink),
            None => player.flush(&mut sink),
        }));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                player.stop();
                self.status.set_state(State::Failed(error.to_string()));
                // An ended piece that fails while it is flushed has slots that somebody waits for, too.
                link.set_failed(control.map_or(self.next.0, |control| control.piece));
                self.ailing = true;
                return;
            }
            Err(panic) => {
                self.player = None;
                self.status.set_state(State::Failed(EngineError::fault(&*panic).to_string()));
                self.set_dead(true);
                return;
            }
        }
        if control.is_some() && std::mem::take(&mut self.ailing) {
            self.status.set_state(State::Ready);
        }
        if let Some(notice) = player.take_notice() {
            self.status.set_device(player.place());
            self.status.set_notice(notice);
            // The piece began anew at this frame. What was under way is gone, and nobody is to wait for it.
            let (piece, slot) = match control {
                Some(control) => (control.piece, control.index),
                None => self.next,
            };
            link.set_lost_before(piece, slot);
        }
        if let Some(control) = control {
            if control.kind == ControlKind::End && self.next != (control.piece, control.index) {
                // Its last frames were skipped, perhaps all of them: their slots do not come, and a host that waits is to know.
                link.set_lost_before(control.piece, control.index);
            }
            self.next = match control.kind {
                ControlKind::Frame => (control.piece, control.index + 1),
                ControlKind::End => (control.piece, u32::MAX),
            };
        }
        if control.is_some() {
            let seconds = start.elapsed().as_secs_f64();
            self.frame_seconds += (seconds - self.frame_seconds) * if self.frame_seconds == 0.0 { 1.0 } else { 0.05 };
            link.set_pace(Duration::from_secs_f64(self.frame_seconds));
            let format = link.format();
            let frame = format.frame_samples as f64 / f64::from(format.model_rate);
            self.status.count_frame((frame / self.frame_seconds.max(1e-9)) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_change_that_is_due_sounds_and_older_ones_are_forgotten() {
        let mut changes = Changes::NONE;
        changes.push(2, "two");
        changes.push(3, "three");
        changes.push(1, "one, late");
        assert_eq!(changes.take(0), None);
        assert_eq!((changes.take(2), changes.current), (Some("two"), 2));
        changes.push(1, "one, later still");
        assert_eq!(changes.ready, [(3, "three")]);
        assert_eq!((changes.take(9), changes.current, changes.take(9)), (Some("three"), 3, None));
        changes.begin(7);
        changes.push(7, "seven");
        assert_eq!(changes.take(9), None, "the player began with it");
    }
}
