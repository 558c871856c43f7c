//! The whole audio thread against a scripted runner on simulated time.

mod patience;

use std::rc::Rc;
use std::time::Duration;

use tiller_engine::control::{Chord, ControlKind, PitchClass, Quality};
use tiller_engine::link::link;

use super::script::{FORMAT, SimClock, World, sample};
use super::*;
use crate::controllers::Learnable;
use crate::midi::Held;

struct Rig {
    processor: Processor<SimClock>,
    world: Rc<World>,
    meters: Arc<Meters>,
    rate: f64,
    /// Position of a host that plays from 0.
    position: i64,
    left: Vec<f32>,
    right: Vec<f32>,
}

fn rig(rate: f64, max_block: usize, cost_ms: f64) -> Rig {
    let (audio, runner) = link(FORMAT, latency::queue_frames(FORMAT, rate, max_block));
    let world = World::new(runner, Duration::from_secs_f64(cost_ms / 1e3));
    let meters = Arc::new(Meters::default());
    let settings = ProcessorSettings { sample_rate: rate, max_block, latency: LatencySetting::Tight };
    let processor = Processor::with_clock(audio, settings, meters.clone(), SimClock(world.clone())).unwrap();
    Rig { processor, world, meters, rate, position: 0, left: Vec::new(), right: Vec::new() }
}

fn playing(samples: usize) -> Block<'static> {
    Block {
        samples,
        transport: Transport { playing: true, tempo: Some(120.0), ..Transport::default() },
        lanes: LaneValues::default(),
        run: RunMode::Transport,
        grid: Grid::Off,
        late: LateMode::Auto,
        latency: LatencySetting::Tight,
        events: &[],
        offline: false,
    }
}

fn stopped(samples: usize) -> Block<'static> {
    let mut block = playing(samples);
    block.transport.playing = false;
    block
}

fn on(offset: u32, key: u8) -> TimedEvent {
    TimedEvent { offset, event: KeyEvent::On { channel: 0, key, velocity: 127 } }
}

fn off(offset: u32, key: u8) -> TimedEvent {
    TimedEvent { offset, event: KeyEvent::Off { channel: 0, key } }
}

impl Rig {
    /// One block, taking no wall time of its own.
    fn block(&mut self, block: &Block) {
        let begin = self.left.len();
        self.left.resize(begin + block.samples, f32::NAN);
        self.right.resize(begin + block.samples, f32::NAN);
        self.processor.process(block, &mut [&mut self.left[begin..], &mut self.right[begin..]]);
        self.world.work();
    }

    /// One block, and then the wall time that it lasts.
    fn live(&mut self, block: &Block) {
        self.block(block);
        self.world.pass(Duration::from_secs_f64(block.samples as f64 / self.rate));
    }

    /// Plays from position 0 for `samples`, in blocks of `size`.
    fn live_for(&mut self, samples: usize, size: usize) {
        let end = self.left.len() + samples;
        while self.left.len() < end {
            let mut block = playing(size.min(end - self.left.len()));
            block.transport.pos_samples = Some(self.position);
            self.position += block.samples as i64;
            self.live(&block);
        }
    }

    fn latency(&self) -> usize {
        self.processor.latency() as usize
    }

    fn frames(&self) -> Vec<(u32, u32)> {
        let log = self.world.log();
        log.iter().filter(|c| c.kind == ControlKind::Frame).map(|c| (c.piece, c.index)).collect()
    }
}

/// What a piece of unsteered frames sounds like at the model's own rate.
fn expected(index: usize) -> f32 {
    let control = LaneValues::default().frame(1, 0, None);
    sample(&control, (index / FORMAT.frame_samples) as u32, index % FORMAT.frame_samples)
}

#[test]
fn at_the_models_rate_the_output_is_the_models_l_later() {
    let mut rig = rig(32_000.0, 64, 8.0);
    rig.live_for(32_000, 64);
    let latency = rig.latency();
    assert_eq!(latency, 6_080);
    assert!(rig.left[..latency].iter().all(|sample| *sample == 0.0));
    assert!((latency..32_000).all(|n| rig.left[n] == expected(n - latency) && rig.right[n] == -rig.left[n]));
    assert_eq!((rig.meters.late_frames(), rig.meters.skipped_frames(), rig.meters.waits()), (0, 0, 0));
}

#[test]
fn at_other_rates_the_output_lies_l_later() {
    for rate in [11_025.5, 44_100.0, 48_000.0, 96_000.0, 192_000.0] {
        let mut rig = rig(rate, 480, 8.0);
        rig.live_for(rate as usize, 480);
        let latency = rig.latency();
        let error_at = |shift: f64| {
            (latency + 2_000..latency + 6_000)
                .map(|n| {
                    let time = ((n - latency) as f64 + shift) / rate * 32_000.0;
                    (f64::from(rig.left[n]) - 0.25 * (time * 0.01).sin()).abs()
                })
                .fold(0.0, f64::max)
        };
        // One sample at this tone: a step of 0.0025 * 32,000 / rate.
        assert!(error_at(0.0) <= 0.0027 * 32_000.0 / rate, "{rate}: off by {}", error_at(0.0));
        assert_eq!(rig.meters.late_frames(), 0, "{rate}");
    }
}

#[test]
fn nothing_is_sent_while_nothing_sounds() {
    let mut rig = rig(48_000.0, 480, 8.0);
    for _ in 0..100 {
        rig.live(&stopped(480));
    }
    assert!(rig.world.log().is_empty());
    assert!(rig.left.iter().chain(&rig.right).all(|sample| *sample == 0.0));
}

#[test]
fn lanes_and_keys_count_at_the_frames_end() {
    let mut rig = rig(48_000.0, 480, 8.0);
    let mut first = playing(480);
    first.lanes.gain = 0.25;
    rig.live(&first);
    // The value at the last sample of frame 0 (sample 959), and a key that was down for samples 600 to 700 of it.
    let mut second = playing(480);
    second.lanes.gain = 0.5;
    second.lanes.note = PitchClass::new(1);
    let events = [on(120, 67), off(220, 67)];
    second.events = &events;
    rig.live(&second);
    // A key that goes down on the boundary itself belongs to frame 1, and stays held in frame 2.
    let mut third = second;
    third.lanes.gain = f32::NAN;
    let events = [on(0, 62)];
    third.events = &events;
    rig.live(&third);
    for _ in 0..20 {
        let mut more = second;
        more.events = &[];
        rig.live(&more);
    }
    let log = rig.world.log();
    let seen: Vec<_> = log.iter().take(3).map(|c| (c.index, c.lanes.note.map(PitchClass::name), c.gain)).collect();
    assert_eq!(seen, [(0, Some("G"), 0.5), (1, Some("D"), 0.5), (2, Some("D"), 0.5)]);
}

#[test]
fn any_partition_gives_the_same_bytes() {
    let events =
        [(1_234, on(0, 60)), (1_500, on(0, 64)), (30_001, off(0, 64)), (30_002, off(0, 60)), (48_000, on(0, 70))];
    let render = |rate: f64, sizes: &[usize]| {
        let mut rig = rig(rate, 1_000, 1.0);
        let (mut at, mut sizes) = (0_usize, sizes.iter().cycle());
        while at < 80_000 {
            let size = sizes.next().copied().unwrap_or(1).min(80_000 - at);
            let inside: Vec<_> = events
                .iter()
                .filter(|(time, _)| (at..at + size).contains(time))
                .map(|(time, timed)| TimedEvent { offset: (time - at) as u32, ..*timed })
                .collect();
            // Plays from 0 to 20,000 and from 30,000 to 60,000; blocks are cut where a host cuts them.
            let cuts = [20_000, 30_000, 60_000];
            let size = cuts.iter().filter(|cut| **cut > at).map(|cut| cut - at).fold(size, usize::min);
            let inside: Vec<_> = inside.into_iter().filter(|timed| (timed.offset as usize) < size).collect();
            let mut block = playing(size);
            block.transport.playing = !(20_000..30_000).contains(&at) && at < 60_000;
            block.transport.pos_samples = Some(at as i64);
            block.late = LateMode::Wait;
            block.events = &inside;
            rig.block(&block);
            at += size;
        }
        assert_eq!(rig.meters.late_frames(), 0);
        let latency = rig.latency();
        rig.left.drain(..latency);
        (rig.left, rig.world.log())
    };
    for rate in [32_000.0, 44_100.0, 48_000.0] {
        let whole = render(rate, &[1_000]);
        assert!(whole.0.iter().any(|sample| sample.abs() > 0.3), "the keys are heard");
        for sizes in [&[64][..], &[480], &[1, 999, 0, 13, 250], &[4_096]] {
            let other = render(rate, sizes);
            assert!(other.1 == whole.1, "{rate}: control frames of {sizes:?}");
            assert!(other.0 == whole.0, "{rate}: samples of {sizes:?}");
        }
    }
}

#[test]
fn a_stop_plays_on_for_l_and_fades() {
    let mut rig = rig(32_000.0, 64, 8.0);
    rig.live_for(10_048, 64);
    for _ in 0..400 {
        rig.live(&stopped(64));
    }
    let (latency, end) = (rig.latency(), 10_048 + rig.latency());
    assert!((latency..end - 160).all(|n| rig.left[n] == expected(n - latency)));
    assert!(
        rig.left[end - 160..end]
            .iter()
            .zip(latency + 10_048 - 160..)
            .all(|(sample, n)| sample.abs() <= expected(n - latency).abs())
    );
    assert!(rig.left[end..].iter().all(|sample| *sample == 0.0));
    let log = rig.world.log();
    // 10,048 samples are 15.7 frames: the one that was begun belongs to the piece.
    assert_eq!(log.last().map(|c| (c.kind, c.index)), Some((ControlKind::End, 16)));
    assert_eq!(rig.meters.late_frames(), 0);
}

#[test]
fn a_hundred_wraps_of_a_bar_without_an_underrun_all_alike() {
    // 120 bpm: a bar is 96,000 samples at 48 kHz.
    let bar = 96_000_i64;
    let mut rig = rig(48_000.0, 64, 12.0);
    for _ in 0..101 * bar / 64 {
        let mut block = playing(64);
        block.transport.pos_samples = Some(rig.position);
        block.transport.loop_start_samples = Some(0);
        rig.position = (rig.position + 64) % bar;
        rig.live(&block);
    }
    assert_eq!((rig.meters.late_frames(), rig.meters.skipped_frames()), (0, 0));
    let latency = rig.latency();
    let wrap = |index: usize| &rig.left[latency + index * bar as usize..][..bar as usize];
    assert!((0..99).all(|index| wrap(index) == wrap(index + 1)));
    assert!(rig.left[latency..].windows(2).all(|pair| (pair[1] - pair[0]).abs() < 0.01), "a click at a wrap");
    assert_eq!(rig.frames().last().map(|(piece, _)| *piece), Some(101));
}

#[test]
fn a_wrap_inside_a_block_is_anchored_where_it_happened() {
    let mut rig = rig(32_000.0, 1_000, 4.0);
    for _ in 0..100 {
        let mut block = playing(1_000);
        block.transport.pos_samples = Some(rig.position);
        block.transport.loop_start_samples = Some(0);
        // The host does not cut its blocks at the wrap.
        rig.position = (rig.position + 1_000) % 32_300;
        rig.live(&block);
    }
    let latency = rig.latency();
    for index in 0..32_000 {
        assert_eq!(rig.left[latency + 32_300 + index], expected(index), "sample {index}");
    }
    assert_eq!(rig.meters.late_frames(), 0);
}

#[test]
fn an_empty_block_without_transport_stops_nothing() {
    let mut rig = rig(32_000.0, 64, 8.0);
    for index in 0..200 {
        rig.live(&playing(64));
        let events = [on(0, 60), off(0, 60)];
        let transport = Transport::default();
        rig.live(&Block { transport, events: if index == 50 { &events } else { &[] }, ..playing(0) });
    }
    let log = rig.world.log();
    assert!(log.iter().all(|c| c.piece == 1 && c.kind == ControlKind::Frame));
    assert_eq!(log.iter().filter(|c| c.lanes.note == PitchClass::new(0)).count(), 1);
    assert!(!rig.meters.play.load(Ordering::Relaxed));
}

#[test]
fn keys_mode_sounds_from_key_to_release() {
    let mut rig = rig(32_000.0, 500, 8.0);
    for index in 0..60 {
        let mut block = stopped(500);
        block.run = RunMode::Keys;
        let events = match index {
            2 => vec![on(123, 60)],
            5 => vec![on(0, 64), off(10, 60)],
            20 => vec![off(17, 64)],
            _ => vec![],
        };
        block.events = &events;
        rig.live(&block);
    }
    let latency = rig.latency();
    let (start, stop) = (latency + 1_123, latency + 10_017);
    assert!(rig.left[..start].iter().all(|sample| *sample == 0.0));
    let heard = LaneValues::default().frame(1, 0, PitchClass::new(0).map(|note| (Held::Note(note), 1.0)));
    assert_eq!(rig.left[start], sample(&heard, 0, 0));
    assert!(rig.left[stop - 400..stop - 200].iter().all(|sample| *sample != 0.0));
    assert!(rig.left[stop..].iter().all(|sample| *sample == 0.0));
    assert_eq!(rig.frames().len(), (10_017 - 1_123_usize).div_ceil(640));
}

#[test]
fn free_mode_ignores_the_transport() {
    let mut rig = rig(32_000.0, 320, 8.0);
    for index in 0..200 {
        let mut block = if index % 3 == 0 { playing(320) } else { stopped(320) };
        block.run = RunMode::Free;
        block.transport.pos_samples = Some(index * 99_999);
        rig.live(&block);
    }
    assert_eq!(rig.frames(), (0..rig.frames().len() as u32).map(|index| (1, index)).collect::<Vec<_>>());
    assert!(rig.frames().len() >= 98);
}

#[test]
fn a_host_without_transport_starts_by_key_button_or_offline() {
    let silent = Block { transport: Transport { pos_samples: Some(0), ..Transport::default() }, ..playing(320) };
    let mut by_key = rig(32_000.0, 320, 8.0);
    by_key.live(&silent);
    assert!(!by_key.meters.is_sounding());
    let events = [on(7, 60)];
    by_key.live(&Block { events: &events, ..silent });
    assert!(by_key.meters.is_sounding() && by_key.meters.play.load(Ordering::Relaxed));
    by_key.meters.play.store(false, Ordering::Relaxed);
    by_key.live(&silent);
    assert!(!by_key.meters.is_sounding(), "the editor's button stops it");

    let mut in_daw = rig(32_000.0, 320, 8.0);
    in_daw.live(&Block { events: &events, ..stopped(320) });
    assert!(!in_daw.meters.is_sounding(), "a host that has a transport starts by its transport");
    in_daw.meters.play.store(true, Ordering::Relaxed);
    in_daw.live(&stopped(320));
    assert!(in_daw.meters.is_sounding());

    let mut offline = rig(32_000.0, 320, 8.0);
    offline.live(&Block { offline: true, ..silent });
    assert!(offline.meters.is_sounding());
}

#[test]
fn a_stall_is_over_within_l_and_half_a_second() {
    let mut rig = rig(48_000.0, 64, 8.0);
    rig.live_for(48_000 * 2, 64);
    rig.world.freeze(Duration::from_secs(2));
    rig.live_for(48_000 * 4, 64);
    let over = 48_000 * 4 + rig.latency() + 24_000;
    assert!(sounding_share(&rig.left[48_000 * 3..48_000 * 4]) < 0.01);
    assert!(sounding_share(&rig.left[over..]) > 0.999);
    // What is heard after the stall lies where it would have been without it.
    let late = rig.meters.late_frames();
    rig.live_for(48_000, 64);
    assert_eq!(rig.meters.late_frames(), late);
    let mut calm = self::rig(48_000.0, 64, 8.0);
    calm.live_for(48_000 * 7, 64);
    assert!(rig.left[over..] == calm.left[over..]);
}

/// Share of 5 ms windows that are not silent.
fn sounding_share(samples: &[f32]) -> f64 {
    let windows = samples.chunks_exact(240);
    let count = windows.len();
    windows.filter(|window| window.iter().any(|sample| sample.abs() > 1e-4)).count() as f64 / count as f64
}

#[test]
fn an_undeclared_export_waits_and_has_no_gap() {
    let mut rig = rig(48_000.0, 1_000, 8.0);
    for _ in 0..480 {
        let mut block = playing(1_000);
        block.transport.pos_samples = Some(rig.position);
        rig.position += 1_000;
        rig.block(&block);
        rig.world.pass(Duration::from_micros(100));
    }
    assert_eq!(rig.meters.late_frames(), 0);
    assert!(rig.meters.waits() > 0);
    assert!(sounding_share(&rig.left[rig.latency()..]) > 0.999);
    // Live again after a pause: a frame that is late is not waited for.
    rig.world.pass(Duration::from_secs(1));
    rig.world.set_cost(Duration::from_millis(60));
    let waits = rig.meters.waits();
    rig.live_for(48_000, 64);
    assert_eq!(rig.meters.waits(), waits);
    assert!(rig.meters.late_frames() > 0);
}

#[test]
fn a_cold_export_begins_with_music() {
    let mut rig = rig(48_000.0, 1_000, 8.0);
    // The model takes 5 s to load.
    rig.world.freeze(Duration::from_secs(5));
    for _ in 0..96 {
        rig.block(&Block { offline: true, ..playing(1_000) });
    }
    assert_eq!(rig.meters.late_frames(), 0);
    assert!(rig.world.now() > Duration::from_secs(6));
    assert!(sounding_share(&rig.left[rig.latency()..]) > 0.999);
}

#[test]
fn waits_end_when_the_engine_is_dead_or_mute() {
    let mut dead = rig(48_000.0, 1_000, 8.0);
    dead.world.set_dead(true);
    let begin = dead.world.now();
    for _ in 0..100 {
        dead.block(&Block { offline: true, ..playing(1_000) });
    }
    assert_eq!(dead.world.now(), begin);

    let mut mute = rig(48_000.0, 1_000, 8.0);
    mute.world.freeze(Duration::from_secs(30));
    let begin = mute.world.now();
    for _ in 0..100 {
        mute.block(&Block { late: LateMode::Wait, ..playing(1_000) });
    }
    let waited = mute.world.now() - begin;
    assert!(waited > Duration::from_secs(10) && waited < Duration::from_millis(10_100), "{waited:?}");
    // And when it comes back, waiting has a point again.
    mute.world.pass(Duration::from_secs(25));
    for _ in 0..100 {
        mute.block(&Block { late: LateMode::Wait, ..playing(1_000) });
    }
    assert!(sounding_share(&mute.left[150_000..]) > 0.9);
}

#[test]
fn a_full_queue_skips_and_recovers() {
    let mut rig = rig(48_000.0, 480, 8.0);
    rig.world.freeze(Duration::from_secs(20));
    rig.live_for(48_000 * 20, 480);
    let refused = rig.meters.skipped_frames();
    assert!(refused > 0);
    rig.live_for(48_000 * 2, 480);
    assert!(sounding_share(&rig.left[48_000 * 21..]) > 0.999);
    // The frame that the runner was in when it froze comes first.
    let resumed = rig.frames().get(1).copied();
    assert!(resumed.is_some_and(|(_, index)| index >= 990), "{resumed:?}: stale frames are never computed");
}

#[test]
fn a_latency_change_counts_from_the_next_anchor() {
    let mut rig = rig(32_000.0, 64, 8.0);
    rig.live_for(6_400, 64);
    let tight = rig.latency();
    for index in 0..1_000 {
        let mut block = if index < 300 { stopped(64) } else { playing(64) };
        block.latency = LatencySetting::Safe;
        rig.live(&block);
    }
    let safe = rig.latency();
    assert_eq!((tight, safe), (6_080, 8_320));
    assert_eq!(rig.left[tight + 100], expected(100));
    let second = 6_400 + 300 * 64 + safe;
    assert_eq!(rig.left[second - 1], 0.0);
    assert_eq!(rig.left[second + 100], expected(100));
}

#[test]
fn channels_and_odd_blocks() {
    let mut one = rig(32_000.0, 64, 1.0);
    let mut many = rig(32_000.0, 64, 1.0);
    let (mut mono, mut outs) = (Vec::new(), vec![Vec::new(); 4]);
    // Larger than announced, empty, and buffers longer than the block.
    for size in [64, 0, 10_000, 1, 5_000] {
        let block = Block { late: LateMode::Wait, ..playing(size) };
        let mut buffer = vec![f32::NAN; size + 3];
        one.processor.process(&block, &mut [&mut buffer]);
        assert_eq!(&buffer[size..], &[0.0; 3]);
        mono.extend_from_slice(&buffer[..size]);
        let mut buffers = vec![vec![f32::NAN; size]; 4];
        let mut slices: Vec<&mut [f32]> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
        many.processor.process(&block, &mut slices);
        for (out, buffer) in outs.iter_mut().zip(&buffers) {
            out.extend_from_slice(buffer);
        }
        one.processor.process(&block, &mut []);
        many.processor.process(&block, &mut []);
    }
    assert!(mono.iter().all(|sample| *sample == 0.0), "left and right are each other's negative");
    assert!(outs[0].iter().any(|sample| *sample != 0.0) && outs[0].iter().zip(&outs[1]).all(|(l, r)| *l == -r));
    assert!(outs[2].iter().chain(&outs[3]).all(|sample| *sample == 0.0));
    assert_eq!((one.meters.late_frames(), many.meters.late_frames()), (0, 0));
    assert!(many.meters.take_peaks()[0] > 0.1);
}

#[test]
fn tiny_loops_and_scrubbing_do_not_break_it() {
    let mut rig = rig(48_000.0, 64, 1.0);
    for index in 0..20_000_i64 {
        let mut block = playing(64);
        block.transport.loop_start_samples = Some(0);
        block.transport.pos_samples = Some(match index {
            0..5_000 => index * 64 % 192,
            5_000..10_000 => (index * 7_919 * 480) % 1_000_000,
            _ => index * 64,
        });
        rig.live(&block);
    }
    assert!(rig.left.iter().all(|sample| sample.is_finite()));
    let late = rig.meters.late_frames();
    rig.live_for(48_000, 64);
    assert!(sounding_share(&rig.left[19_000 * 64..]) > 0.99);
    assert_eq!(rig.meters.late_frames(), late);
}

#[test]
fn reset_is_silence_and_a_fresh_start() {
    let mut rig = rig(32_000.0, 64, 8.0);
    rig.live_for(12_800, 64);
    rig.processor.reset();
    let begin = rig.left.len();
    rig.live_for(12_800, 64);
    let latency = rig.latency();
    assert!(rig.left[begin..begin + latency].iter().all(|sample| *sample == 0.0));
    assert_eq!(rig.left[begin + latency + 50], expected(50));
    let log = rig.world.log();
    assert!(log.iter().any(|c| c.kind == ControlKind::End && c.piece == 1));
    assert_eq!(rig.meters.late_frames(), 0);
}

#[test]
fn the_note_that_is_heard_is_shown() {
    let mut rig = rig(48_000.0, 480, 8.0);
    let mut block = playing(480);
    block.lanes.note = PitchClass::new(5);
    for _ in 0..10 {
        rig.live(&block);
    }
    assert_eq!(rig.meters.sounding_target().note, None, "not heard yet");
    for _ in 0..30 {
        rig.live(&block);
    }
    assert_eq!(rig.meters.sounding_target().note, PitchClass::new(5));
}

#[test]
fn three_keys_steer_to_their_chord_and_letting_go_gives_the_lanes_back() {
    let mut rig = rig(32_000.0, 320, 8.0);
    let on = |key| TimedEvent { offset: 0, event: KeyEvent::On { channel: 0, key, velocity: 127 } };
    let off = |key| TimedEvent { offset: 0, event: KeyEvent::Off { channel: 0, key } };
    for index in 0..100 {
        let events = match index {
            20 => vec![on(57), on(60), on(64)],
            60 => vec![off(57), off(60), off(64)],
            _ => vec![],
        };
        let mut block = playing(320);
        block.lanes = LaneValues {
            note: PitchClass::new(2),
            chord_quality: Some(Quality::Major),
            tempo_strength: 0.5,
            ..block.lanes
        };
        block.events = &events;
        rig.live(&block);
    }
    let log = rig.world.log();
    let lanes = |index: u32| log.iter().find(|c| c.index == index).map(|c| (c.lanes.note, c.lanes.chord));
    assert_eq!(lanes(5), Some((PitchClass::new(2), Chord::of_class(0))));
    let a_minor = Chord { root: PitchClass::of_key(69), quality: Quality::Minor };
    assert_eq!(lanes(15), Some((None, Some(a_minor))));
    assert_eq!(lanes(40), Some((PitchClass::new(2), Chord::of_class(0))));
    assert!(log.iter().filter(|c| c.kind == ControlKind::Frame).all(|c| c.lanes.tempo_strength == 0.5));
}

#[test]
fn a_learned_controller_moves_its_parameter_within_a_block() {
    let mut rig = rig(32_000.0, 6_400, 8.0);
    rig.meters.controllers.set(|number| (number == 74).then_some(Learnable::Gain));
    let moved = |offset, value| TimedEvent { offset, event: KeyEvent::Controller { number: 74, value } };
    let events = [moved(1_300, 0), moved(3_000, 127)];
    let mut block = playing(6_400);
    block.events = &events;
    rig.live(&block);
    rig.live(&playing(6_400));
    // The host's own knob takes the parameter back.
    let mut drawn = playing(6_400);
    drawn.lanes.gain = 0.5;
    rig.live(&drawn);
    let log = rig.world.log();
    let gains: Vec<f32> = log.iter().filter(|c| c.kind == ControlKind::Frame).map(|c| c.gain).collect();
    assert_eq!(gains[..5], [1.0, 1.0, 0.0, 0.0, 10.0f32.powf(12.0 / 20.0)]);
    assert_eq!((gains[15], gains[25]), (10.0f32.powf(12.0 / 20.0), 0.5));
}

#[test]
fn latched_keys_go_on_and_velocity_sets_strength_where_the_project_says_so() {
    let mut rig = rig(32_000.0, 640, 8.0);
    rig.meters.keys.latch.store(true, Ordering::Relaxed);
    rig.meters.keys.velocity.store(true, Ordering::Relaxed);
    for index in 0..40 {
        let events = match index {
            5 => vec![TimedEvent { offset: 0, event: KeyEvent::On { channel: 0, key: 67, velocity: 64 } }],
            9 => vec![TimedEvent { offset: 0, event: KeyEvent::Off { channel: 0, key: 67 } }],
            30 => vec![TimedEvent { offset: 0, event: KeyEvent::AllOff }],
            _ => vec![],
        };
        let mut block = playing(640);
        block.lanes.note_strength = 0.5;
        block.events = &events;
        rig.live(&block);
    }
    let log = rig.world.log();
    let lanes = |index: u32| log.iter().find(|c| c.index == index).map(|c| (c.lanes.note, c.lanes.note_strength));
    let g = (PitchClass::new(7), 0.5 * 64.0 / 127.0);
    assert_eq!([lanes(4), lanes(6), lanes(25), lanes(33)], [Some((None, 0.5)), Some(g), Some(g), Some((None, 0.5))]);
}

#[test]
fn quantised_targets_wait_for_the_beat_and_not_for_the_block() {
    // 32 kHz, frames of 640 samples; at 120 beats a minute a beat has 16,000 samples, 25 frames.
    let frames_on = |size: usize| {
        let mut rig = rig(32_000.0, 640, 8.0);
        for start in (0..64_000).step_by(size) {
            let mut block = playing(size);
            block.grid = Grid::Beat;
            block.transport.pos_samples = Some(start as i64);
            block.transport.pos_beats = Some(start as f64 / 16_000.0);
            // Asked for a little after the first beat, given up a little before the third.
            block.lanes.note = if (17_000..47_000).contains(&start) { PitchClass::new(4) } else { None };
            rig.live(&block);
        }
        let log = rig.world.log();
        log.iter().filter(|c| c.lanes.note.is_some()).map(|c| c.index).collect::<Vec<u32>>()
    };
    // The frame whose end is the beat belongs to it: a lane's value is the one at a frame's last sample.
    assert_eq!(frames_on(640), (49..74).collect::<Vec<u32>>());
    assert_eq!(frames_on(320), frames_on(640));
    assert_eq!(frames_on(500), frames_on(640));
}

#[test]
fn a_rate_out_of_range_is_refused_by_name() {
    for rate in [0.0, 7_999.0, 1e6, f64::NAN] {
        let (audio, _runner) = link(FORMAT, 4);
        let settings = ProcessorSettings { sample_rate: rate, max_block: 64, latency: LatencySetting::Tight };
        let error = Processor::new(audio, settings, Arc::new(Meters::default())).err();
        assert!(error.is_some_and(|error| error.to_string().contains("sample rate")));
    }
}
