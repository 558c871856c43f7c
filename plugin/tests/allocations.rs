//! The audio thread never allocates or frees: at any rate, through starts, stops, wraps, keys and late frames. The guard is
//! the allocator that nice-plug brings into builds with debug assertions; an allocation aborts the test.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nice_assert_no_alloc::assert_no_alloc;
use tiller::controllers::Learnable;
use tiller::lanes::LaneValues;
use tiller::latency::{self, LatencySetting};
use tiller::meters::Meters;
use tiller::midi::{KeyEvent, TimedEvent};
use tiller::presets::PresetFolder;
use tiller::processor::{Block, Processor, ProcessorSettings};
use tiller::programs::{ProgramLine, ProgramOverlay, Programs};
use tiller::quantise::Grid;
use tiller::slack::LateMode;
use tiller::transport::{RunMode, Transport};
use tiller_engine::control::ControlKind;
use tiller_engine::handle::Handle;
use tiller_engine::link::{FrameHeader, RunnerLink, StreamFormat, link};

const FORMAT: StreamFormat = StreamFormat::PUBLISHED;

/// Answers what was sent, but nothing of every seventh group of 20 frames.
fn answer(runner: &mut RunnerLink, samples: &[f32]) {
    while let Some(control) = runner.take() {
        if runner.is_skipped(&control) || control.index % 140 >= 120 {
            continue;
        }
        let delay = FORMAT.delay_frames as u32;
        let slots = match control.kind {
            ControlKind::Frame => control.index.saturating_sub(delay)..(control.index + 1).saturating_sub(delay),
            ControlKind::End => control.index.saturating_sub(delay)..control.index,
        };
        for slot in slots {
            let last = control.kind == ControlKind::End && slot + 1 == control.index;
            assert!(runner.answer(FrameHeader { piece: control.piece, slot, last }, samples));
        }
    }
}

#[test]
fn the_audio_thread_never_allocates() {
    let samples = [0.25; FORMAT.frame_samples * 2];
    for rate in [8_000.0, 32_000.0, 44_100.0, 96_000.0] {
        let (audio, mut runner) = link(FORMAT, latency::queue_frames(FORMAT, rate, 512));
        let settings = ProcessorSettings { sample_rate: rate, max_block: 512, latency: LatencySetting::Tight };
        let meters = Arc::new(Meters::default());
        // Prompts of programs are asked for, and nobody picks them up: the line fills.
        let handle = Arc::new(Handle::new());
        let line = Arc::new(ProgramLine::new(&handle));
        line.set_open(true);
        let programs = Arc::new(Programs::read(&PresetFolder::new("/nowhere/at/all".into())));
        let mut processor = Processor::new(audio, settings, meters.clone())
            .expect("the rate is in range")
            .with_programs(ProgramOverlay::new(programs, line.clone()));
        let (mut left, mut right) = ([0.0; 1_000], [0.0; 1_000]);
        let events = [
            TimedEvent { offset: 3, event: KeyEvent::On { channel: 0, key: 60, velocity: 90 } },
            TimedEvent { offset: 30, event: KeyEvent::On { channel: 0, key: 64, velocity: 90 } },
            TimedEvent { offset: 31, event: KeyEvent::On { channel: 0, key: 67, velocity: 90 } },
            TimedEvent { offset: 60, event: KeyEvent::Controller { number: 1, value: 100 } },
            TimedEvent { offset: 61, event: KeyEvent::Program(2) },
            TimedEvent { offset: 62, event: KeyEvent::Program(127) },
            TimedEvent { offset: 90, event: KeyEvent::Off { channel: 0, key: 60 } },
            TimedEvent { offset: 91, event: KeyEvent::AllOff },
        ];
        meters.keys.latch.store(true, Ordering::Relaxed);
        meters.controllers.set(|number| (number == 1).then_some(Learnable::Strength));
        let mut position = 0_i64;
        for index in 0..6_000_usize {
            let length = [64, 512, 1, 0, 1_000][index % 5];
            let block = Block {
                samples: length,
                transport: Transport {
                    playing: index % 1_000 > 40,
                    tempo: Some(120.0),
                    pos_samples: Some(position),
                    pos_beats: Some(position as f64 / rate * 2.0),
                    bar_start_beats: Some(0.0),
                    bar_beats: Some(3.0),
                    loop_start_samples: Some(0),
                    loop_start_beats: None,
                },
                lanes: LaneValues {
                    gain: (index % 100) as f32 / 100.0,
                    traits: [(index % 7) as f32 / 7.0, 0.0, -0.5, 1.0],
                    ..LaneValues::default()
                },
                grid: [Grid::Off, Grid::Beat, Grid::Bar][index / 2_000 % 3],
                run: [RunMode::Transport, RunMode::Keys, RunMode::Free][index / 2_500],
                // Waits are real here: few of them.
                late: if index < 300 { LateMode::Auto } else { LateMode::Fade },
                latency: if index / 1_500 == 1 { LatencySetting::Safe } else { LatencySetting::Tight },
                events: if index % 50 == 7 { &events } else { &[] },
                offline: false,
            };
            position = (position + length as i64) % 100_000;
            assert_no_alloc(|| processor.process(&block, &mut [&mut left[..length], &mut right[..length]]));
            if index == 4_000 {
                assert_no_alloc(|| processor.reset());
            }
            answer(&mut runner, &samples);
        }
        assert_eq!(line.selected(), Some(2));
        assert!(meters.late_frames() > 0 && meters.take_peaks()[0] > 0.1, "the run met what it is about");
    }
}

/// Set in the child process that is to fail.
const TRESPASS: &str = "TILLER_TEST_TRESPASS";

#[test]
fn the_guard_sees_an_allocation() {
    if std::env::var_os(TRESPASS).is_some() {
        assert_no_alloc(|| drop(std::hint::black_box(Box::new(7))));
        return;
    }
    let program = std::env::current_exe().expect("the test's own path");
    let child = Command::new(program).args(["--exact", "the_guard_sees_an_allocation"]).env(TRESPASS, "1").output();
    assert!(!child.expect("the child runs").status.success(), "an allocation must end the process");
}
