//! Long runs, pauses and slow engines on simulated time: how much is heard, what is never waited for, and what is.

use super::*;

/// Plays a minute live with an engine at `speed` times real time. Share of it that is heard, and the largest step.
fn minute(latency: LatencySetting, block: usize, speed: f64) -> (f64, f32, Rig) {
    let mut rig = rig(48_000.0, block, 20.0 / speed);
    for _ in 0..48_000 * 60 / block {
        let mut block = playing(block);
        block.latency = latency;
        rig.live(&block);
    }
    let start = 2 * rig.latency();
    let clicks = rig.left.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
    (sounding_share(&rig.left[start..]), clicks, rig)
}

#[test]
fn an_engine_at_95_percent_of_real_time_is_heard_85_percent_of_the_time() {
    for latency in [LatencySetting::Tight, LatencySetting::Safe, LatencySetting::Frames(12)] {
        for block in [64, 480, 1_024] {
            let (share, clicks, rig) = minute(latency, block, 0.95);
            println!("{latency:?}, blocks of {block}: {:.1} %", 100.0 * share);
            assert!(share >= 0.85, "{latency:?}, blocks of {block}: sounds {share} of the time");
            assert!(clicks < 0.02, "{latency:?}, blocks of {block}: a click of {clicks}");
            assert!(rig.meters.late_frames() > 0 && rig.meters.skipped_frames() > 0);
            assert_eq!(rig.meters.waits(), 0);
        }
    }
}

#[test]
fn slower_engines_are_heard_as_much_as_they_make() {
    for (speed, least) in [(0.9, 0.9), (0.75, 0.75), (0.5, 0.5)] {
        let (share, clicks, rig) = minute(LatencySetting::Safe, 256, speed);
        println!("{speed} x real time: {:.1} %", 100.0 * share);
        assert!(share >= least, "at {speed} it sounds {share} of the time");
        assert!(clicks < 0.02 && rig.meters.waits() == 0);
    }
}

#[test]
fn an_engine_that_keeps_up_loses_nothing_to_foresight() {
    for (latency, cost) in [(LatencySetting::Tight, 18.0), (LatencySetting::Safe, 19.9)] {
        let (share, _, rig) = minute(latency, 64, 20.0 / cost);
        assert_eq!((rig.meters.late_frames(), rig.meters.skipped_frames()), (0, 0), "{latency:?}");
        assert!(share > 0.999);
    }
}

/// Two hours of a device whose clock runs this much faster than ours. Late frames, skipped ones and waits.
fn two_hours(parts_per_million: f64) -> (u64, u64, u64) {
    const BLOCK: usize = 512;
    let mut rig = rig(32_000.0, BLOCK, 8.0);
    rig.world.set_plain();
    let (mut left, mut right) = ([0.0; BLOCK], [0.0; BLOCK]);
    let lasts = Duration::from_secs_f64(BLOCK as f64 / 32_000.0 / (1.0 + parts_per_million * 1e-6));
    for index in 0..2 * 3_600 * 32_000 / BLOCK {
        let mut block = playing(BLOCK);
        block.transport.pos_samples = Some((index * BLOCK) as i64);
        rig.processor.process(&block, &mut [&mut left, &mut right]);
        rig.world.work();
        rig.world.pass(lasts);
        assert!(index < 100 || (left[0] == 0.25 && left[BLOCK - 1] == 0.25), "a gap in block {index}");
    }
    (rig.meters.late_frames(), rig.meters.skipped_frames(), rig.meters.waits())
}

#[test]
fn a_device_200_ppm_fast_or_slow_never_waits_in_two_hours() {
    assert_eq!(two_hours(200.0), (0, 0, 0));
    assert_eq!(two_hours(-200.0), (0, 0, 0));
}

#[test]
fn an_export_after_ten_minutes_without_a_pull_has_no_gap() {
    for block in [64, 480, 1_000] {
        let mut rig = rig(48_000.0, block, 8.0);
        rig.live_for(48_000 * 5, block);
        for _ in 0..100 {
            rig.live(&stopped(block));
        }
        rig.world.pass(Duration::from_secs(600));
        let start = rig.left.len();
        rig.position = 0;
        let (waits, late) = (rig.meters.waits(), rig.meters.late_frames());
        // Thirty times real time, but for the waits.
        for _ in 0..48_000 * 20 / block {
            let mut export = playing(block);
            export.transport.pos_samples = Some(rig.position);
            rig.position += block as i64;
            rig.block(&export);
            rig.world.pass(Duration::from_secs_f64(block as f64 / 48_000.0 / 30.0));
        }
        assert_eq!(rig.meters.late_frames(), late, "blocks of {block}");
        assert!(rig.meters.waits() > waits, "blocks of {block}: the export was waited for");
        assert!(sounding_share(&rig.left[start + rig.latency()..]) > 0.999, "blocks of {block}");
    }
}

#[test]
fn an_engine_that_goes_mute_in_mid_export_releases_the_host_within_ten_seconds() {
    for late in [LateMode::Auto, LateMode::Wait] {
        let mut rig = rig(48_000.0, 1_000, 2.0);
        let export = |rig: &mut Rig, blocks: usize| {
            for _ in 0..blocks {
                let mut block = playing(1_000);
                block.late = late;
                block.offline = true;
                rig.block(&block);
                rig.world.pass(Duration::from_micros(50));
            }
        };
        export(&mut rig, 200);
        rig.world.freeze(Duration::from_secs(3_600));
        let begin = rig.world.now();
        export(&mut rig, 2_000);
        let waited = rig.world.now() - begin;
        assert!(waited < Duration::from_millis(10_500), "{late:?}: {waited:?}");
        assert_eq!(sounding_share(&rig.left[2_100_000..]), 0.0);
    }
}
