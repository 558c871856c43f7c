//! The audio thread's dealings with the runner: control frames out, frames in, waiting, skipping, counting. Audio thread.

#![deny(clippy::disallowed_methods, clippy::disallowed_macros, clippy::disallowed_types)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;
use std::time::Duration;

use tiller_engine::control::ControlFrame;
use tiller_engine::link::{Link, StreamFormat};

use crate::meters::Meters;
use crate::slack::{Clock, LateMode, SlackClock};
use crate::store::FrameStore;
use crate::stream::FrameSource;
use crate::target::Target;

/// How often a wait looks again.
const POLL: Duration = Duration::from_micros(200);
/// A wait ends when nothing came for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Note targets that are remembered, a power of two above all that can be under way.
const REMEMBERED: usize = 1_024;

/// The link with everything that decides about a frame that is not there.
pub struct Feed<C> {
    link: Link,
    store: FrameStore,
    clock: C,
    slack: SlackClock,
    late: LateMode,
    meters: Arc<Meters>,
    /// The newest control frame that was sent: piece and index.
    newest: (u32, u32),
    /// Absent slots before this one (piece, slot) will not come, and are not waited for.
    lost_before: (u32, u32),
    /// An end that found the queue full.
    unsent_end: Option<ControlFrame>,
    /// Control frames that found the queue full.
    refused: u64,
    /// When a frame last came, and which: piece and slot.
    came: Duration,
    arrived: (u32, u32),
    /// When this block was asked for, and whether its frames may be waited for.
    entered: Duration,
    patient: bool,
    /// Nothing came for so long that waiting has no point until something does.
    gave_up: bool,
    /// Targets of the frames sent, by the low bits of piece and index.
    targets: Vec<(u32, u32, Target)>,
}

impl<C: Clock> Feed<C> {
    /// `frames`: how many can be under way.
    #[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
    pub fn new(link: Link, clock: C, slack: SlackClock, frames: usize, meters: Arc<Meters>) -> Self {
        let store = FrameStore::new(frames, link.format().frame_samples);
        let came = clock.now();
        Self {
            link,
            store,
            clock,
            slack,
            late: LateMode::Auto,
            meters,
            newest: (0, 0),
            lost_before: (0, 0),
            unsent_end: None,
            refused: 0,
            came,
            arrived: (0, 0),
            entered: came,
            patient: false,
            gave_up: false,
            targets: vec![(0, 0, Target::default()); REMEMBERED],
        }
    }

    /// The runner's clock.
    pub fn format(&self) -> StreamFormat {
        self.link.format()
    }

    /// A block begins. `place` is the piece and slot that is to be played next.
    pub fn enter(&mut self, offline: bool, late: LateMode, place: (u32, u32)) {
        let now = self.clock.now();
        self.slack.enter(now, offline);
        self.late = late;
        self.entered = now;
        self.patient = !self.gave_up && self.slack.allowance(now, late) > Duration::ZERO;
        self.link.set_patient(self.patient);
        self.drain(place);
    }

    /// The block is done: `samples` more were pulled.
    pub fn leave(&mut self, samples: usize) {
        self.slack.leave(self.clock.now(), samples);
        self.meters.set_skipped(self.link.skipped() + self.refused);
    }

    /// Sends one control frame. One that finds the queue full is skipped, as is all that waits in the queue: the runner
    /// is further behind than the queue is long.
    pub fn send(&mut self, control: ControlFrame) {
        let slot = (control.piece as usize * 127 + control.index as usize) % REMEMBERED;
        self.targets[slot] = (control.piece, control.index, Target::of(&control.lanes));
        if self.flush_end() && self.link.send(control) {
            self.newest = (control.piece, control.index);
        } else {
            self.refused += 1;
            self.link.skip_before(control.piece, control.index + 1);
            self.lose_before(control.piece, control.index + 1);
        }
    }

    /// Ends `piece` after `frames` frames.
    pub fn end(&mut self, piece: u32, frames: u32) {
        let end = ControlFrame::end(piece, frames);
        if !self.flush_end() {
            // Frames of a later piece are refused until that end is out: of this piece nothing was asked for, so nothing comes.
            self.lost_before = self.lost_before.max((piece, frames));
        } else if !self.link.send(end) {
            self.unsent_end = Some(end);
        }
    }

    /// What frame `slot` of `piece` is steered to.
    pub fn target(&self, piece: u32, slot: u32) -> Target {
        let (of_piece, index, target) = self.targets[(piece as usize * 127 + slot as usize) % REMEMBERED];
        if (of_piece, index) == (piece, slot) { target } else { Target::default() }
    }

    /// Drops what has arrived and forgets the past.
    pub fn reset(&mut self) {
        self.store.clear();
        self.slack.reset();
        self.gave_up = false;
        self.came = self.clock.now();
    }

    fn flush_end(&mut self) -> bool {
        let Some(end) = self.unsent_end else { return true };
        let sent = self.link.send(end);
        if sent {
            self.unsent_end = None;
        }
        sent
    }

    /// The slots that control frames of `piece` before `index` ask for will not come.
    fn lose_before(&mut self, piece: u32, index: u32) {
        let slot = index.saturating_sub(self.link.format().delay_frames as u32);
        self.lost_before = self.lost_before.max((piece, slot));
    }

    /// Whether a slot that is not here will never be.
    fn is_lost(&self, piece: u32, slot: u32) -> bool {
        (piece, slot) < self.lost_before.max(self.link.lost_before())
    }

    /// The runner has used up its room, and the frame at `slot` of `piece` is late: only the newest control frame can still
    /// be answered in time, or, where its answer is due within two frames, the one that is being collected now. Such a
    /// runner may need a frame's time for the step that it is in, and another for the one it is sent to.
    fn skip(&mut self, piece: u32, slot: u32) {
        let (newest_piece, newest) = self.newest;
        let due = newest.saturating_sub(self.link.format().delay_frames as u32);
        let target = if newest_piece == piece && due < slot + 2 { newest + 1 } else { newest };
        self.link.skip_before(newest_piece, target);
        self.lose_before(newest_piece, target);
    }

    /// Gives up a frame of `piece` before it is late, where the runner is slower than real time and would finish it too late:
    /// the time goes into the frame after it, which can be in time. Once late, two frames are lost, that one and the next.
    /// `asked` tells how long after this block was asked for the host will ask for the block that a slot begins in.
    pub fn foresee(&mut self, piece: u32, asked: impl Fn(u32) -> f64) {
        let (format, pace) = (self.link.format(), self.link.pace().as_secs_f64());
        if self.patient || self.arrived.0 != piece || pace * f64::from(format.model_rate) < format.frame_samples as f64
        {
            return;
        }
        // The runner is in the frame after the one that came last; the one after that can still be given up.
        let next = self.arrived.1 + 2;
        let waits = self.newest.0 == piece && self.newest.1 >= next + format.delay_frames as u32;
        let finished = self.came.as_secs_f64() + 2.0 * pace;
        if waits && (piece, next) >= self.lost_before && finished > self.entered.as_secs_f64() + asked(next) {
            self.skip(piece, next);
        }
    }

    fn drain(&mut self, place: (u32, u32)) {
        if let Some(last) = self.store.drain(&mut self.link, place.0, place.1) {
            self.arrived = self.arrived.max(last);
            self.came = self.clock.now();
            self.gave_up = false;
        }
    }

    /// Waits for a frame as long as that is allowed; `false` when it did not come.
    fn wait(&mut self, piece: u32, slot: u32, samples: &mut [f32]) -> bool {
        let begin = self.clock.now();
        let allowance = self.slack.allowance(begin, self.late);
        if allowance.is_zero() || self.gave_up || self.link.is_dead(piece) {
            return false;
        }
        self.meters.count_wait();
        let came = loop {
            self.clock.sleep(POLL);
            // What is waited for may be what this end asks for.
            self.flush_end();
            self.drain((piece, slot));
            if self.store.take(piece, slot, samples) {
                break true;
            }
            let now = self.clock.now();
            if now.saturating_sub(self.came.max(begin)) > PATIENCE {
                self.gave_up = true;
            }
            if self.gave_up
                || self.link.is_dead(piece)
                || self.is_lost(piece, slot)
                || now.saturating_sub(begin) >= allowance
            {
                break false;
            }
        };
        self.slack.waited(self.clock.now().saturating_sub(begin));
        came
    }
}

impl<C: Clock> FrameSource for Feed<C> {
    fn fetch(&mut self, piece: u32, slot: u32, samples: &mut [f32]) -> bool {
        self.drain((piece, slot));
        if self.store.take(piece, slot, samples) {
            return true;
        }
        if !self.is_lost(piece, slot) && self.wait(piece, slot, samples) {
            return true;
        }
        if self.link.is_dead(piece) {
            return false;
        }
        self.meters.count_late();
        if !self.is_lost(piece, slot) {
            self.skip(piece, slot);
        }
        false
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros, clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tiller_engine::control::ControlKind;
    use tiller_engine::link::{FrameHeader, RunnerLink, link};

    const FRAMES: usize = 2;
    const FORMAT: StreamFormat = StreamFormat::PUBLISHED;

    /// Time passes while somebody waits, and a runner that has nothing to do but end pieces works then.
    struct Waiting {
        now: Cell<Duration>,
        runner: RefCell<RunnerLink>,
        works: bool,
    }

    impl Clock for &Waiting {
        fn now(&self) -> Duration {
            self.now.get()
        }

        fn sleep(&self, time: Duration) {
            self.now.set(self.now.get() + time);
            let mut runner = self.runner.borrow_mut();
            let Some(control) = self.works.then(|| runner.take()).flatten() else { return };
            if control.kind == ControlKind::End {
                let header = FrameHeader { piece: control.piece, slot: 0, last: true };
                assert!(runner.answer(header, &vec![0.25; 2 * FORMAT.frame_samples]), "the ring has room");
            }
        }
    }

    fn waiting(works: bool) -> (Waiting, Link) {
        let (audio, runner) = link(FORMAT, FRAMES);
        (Waiting { now: Cell::new(Duration::from_secs(1)), runner: RefCell::new(runner), works }, audio)
    }

    /// A feed of which a queue's length of frames of piece 1 and its end were sent: the end finds the queue full.
    fn full(clock: &Waiting, link: Link) -> Feed<&Waiting> {
        let slack = SlackClock::new(f64::from(FORMAT.model_rate), 64);
        let mut feed = Feed::new(link, clock, slack, 64, Arc::new(Meters::default()));
        feed.enter(false, LateMode::Wait, (1, 0));
        (0..FRAMES as u32).for_each(|index| feed.send(ControlFrame::new(1, index)));
        assert_eq!(feed.refused, 0);
        feed.end(1, FRAMES as u32);
        assert!(feed.unsent_end.is_some());
        feed
    }

    #[test]
    fn an_end_that_finds_the_queue_full_goes_out_while_its_frames_are_waited_for() {
        let (clock, audio) = waiting(true);
        let mut feed = full(&clock, audio);
        let mut samples = vec![0.0; 2 * FORMAT.frame_samples];
        assert!(feed.fetch(1, 0, &mut samples), "the end asked for it");
        assert!(samples.iter().all(|sample| *sample == 0.25) && clock.now.get() < Duration::from_secs(2));
    }

    #[test]
    fn a_piece_of_which_nothing_was_sent_is_not_waited_for() {
        let (clock, audio) = waiting(false);
        let mut feed = full(&clock, audio);
        let frames = 2 + FORMAT.delay_frames as u32;
        (0..frames).for_each(|index| feed.send(ControlFrame::new(2, index)));
        feed.end(2, frames);
        let began = clock.now.get();
        let mut samples = vec![0.0; 2 * FORMAT.frame_samples];
        assert!((0..frames).all(|slot| !feed.fetch(2, slot, &mut samples)));
        assert_eq!((clock.now.get(), u64::from(frames)), (began, feed.refused));
    }
}
