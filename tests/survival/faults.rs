//! Faults put into the engine while it plays: the sound fades, the status says why, the host goes on and is not kept
//! waiting, and where it can the sound comes back by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tiller::latency::LatencySetting;
use tiller::slack::LateMode;
use tiller_engine::handle::ModelSource;
use tiller_engine::status::State;
use tiller_tests::measure::first_difference;
use tiller_tests::{turn, undisturbed};

use crate::desk::{Desk, FRAME, Fault, RATE, calm, largest_step};
use crate::fixture;

const SECONDS: f64 = 2.0;
/// The step that goes wrong. A player takes 8 of its own to warm up where it is loaded, not where it is handed over.
const STEP: u32 = 50;

/// The piece up to the fault sounds as ever, then fades without a click and stays silent. Where it is silent from.
fn fades(heard: &[f32], calm: &[f32]) -> usize {
    let differs = first_difference(heard, calm).expect("the fault was heard");
    // Frame STEP asks for slot STEP - 7, the first that does not come.
    let expected = (STEP as usize - 7) * FRAME;
    assert!((expected - FRAME..=expected + FRAME).contains(&differs), "other from {differs} on, expected {expected}");
    let natural = largest_step(calm);
    assert!(largest_step(heard) <= 1.5 * natural, "a click: {} beside {natural}", largest_step(heard));
    let silent = differs + FRAME;
    assert!(heard[silent..].iter().all(|sample| *sample == 0.0), "silence after the fade");
    silent
}

/// Pulls so many samples and the latency before them; nobody may be kept waiting. Returns the latency.
fn pull_without_a_stall(desk: &mut Desk, samples: usize) -> usize {
    let (latency, began) = (desk.latency(), Instant::now());
    desk.pull(latency + samples, true, LateMode::Wait);
    assert!(began.elapsed() < Duration::from_secs(8), "the host waited {:?}", began.elapsed());
    latency
}

#[test]
fn numbers_that_are_not_finite_end_the_piece_and_the_next_one_plays() {
    let _turn = turn();
    let reference = calm(SECONDS);
    let mut desk = Desk::with_fault(Fault::NotFinite, STEP..STEP + 1, LatencySetting::Safe);
    let latency = pull_without_a_stall(&mut desk, reference.len());
    fades(&desk.left[latency..], &reference);
    let why = desk.failure().expect("a failure that is told");
    assert!(why.contains("not finite") && why.contains("load it again"), "{why}");
    // Nobody loads anything: the host stops and starts.
    let from = desk.restart();
    desk.pull(desk.latency() + reference.len() / 2, true, LateMode::Wait);
    assert_eq!(first_difference(&desk.left[from..from + reference.len() / 2], &reference[..reference.len() / 2]), None);
    assert_eq!(desk.handle.status().state, State::Ready);
}

#[test]
fn a_lost_device_costs_a_new_start_of_the_piece_and_is_told() {
    let _turn = turn();
    let reference = calm(SECONDS);
    let mut desk = Desk::with_fault(Fault::Lost, STEP..u32::MAX, LatencySetting::Safe);
    let latency = pull_without_a_stall(&mut desk, reference.len());
    let heard = &desk.left[latency..];
    let differs = first_difference(heard, &reference).expect("the loss was heard");
    assert!((STEP as usize - 9) * FRAME <= differs && differs <= STEP as usize * FRAME, "{differs}");
    // What was under way, and the frames that a new start takes to be heard.
    assert!(desk.meters.late_frames() <= 8, "{} frames were lost", desk.meters.late_frames());
    assert!(largest_step(heard) <= 2.0 * largest_step(&reference), "a click of {}", largest_step(heard));
    let after = &heard[heard.len() - 16_000..];
    assert!(after.iter().any(|sample| sample.abs() > 0.005), "it goes on");
    let status = desk.handle.status();
    assert!(status.notice.contains("pulled out"), "{}", status.notice);
    assert_eq!((status.state, status.device.as_str()), (State::Ready, "CPU"));
}

#[test]
fn a_fault_of_ours_is_told_and_loading_again_heals_it() {
    let _turn = turn();
    let reference = calm(SECONDS);
    let mut desk = Desk::with_fault(Fault::Panic, STEP..u32::MAX, LatencySetting::Safe);
    let latency = pull_without_a_stall(&mut desk, reference.len());
    fades(&desk.left[latency..], &reference);
    let why = desk.failure().expect("a failure that is told");
    assert!(why.contains("a fault that a test put here") && why.contains("load the model again"), "{why}");
    desk.handle.set_model(ModelSource::Embedded);
    assert!(desk.within_seconds(|desk| desk.handle.status().state == State::Ready));
    let from = desk.restart();
    desk.pull(desk.latency() + reference.len() / 2, true, LateMode::Wait);
    assert_eq!(first_difference(&desk.left[from..from + reference.len() / 2], &reference[..reference.len() / 2]), None);
}

#[test]
fn a_slow_step_fades_is_counted_and_time_does_not_shift() -> Result<(), String> {
    let _turn = turn();
    let reference = calm(SECONDS);
    let natural = largest_step(&reference);
    undisturbed(|| {
        let mut desk = Desk::with_fault(Fault::Slow(Duration::from_millis(500)), STEP..STEP + 1, LatencySetting::Safe);
        let latency = desk.latency();
        // Live, the engine has to be there when the host starts to play.
        desk.live(6_400, false);
        let start = desk.left.len();
        desk.live(latency + reference.len(), true);
        let heard = &desk.left[start + latency..];
        let (late, skipped) = (desk.meters.late_frames(), desk.meters.skipped_frames());
        let (waits, slowest) = (desk.meters.waits(), desk.slowest);
        let holds = [
            (first_difference(heard, &reference).is_some(), "the stall was not heard".to_owned()),
            (largest_step(heard) <= 2.0 * natural, format!("a click: {} beside {natural}", largest_step(heard))),
            (late > 0 && skipped > 0, format!("{late} late, {skipped} skipped")),
            (heard[heard.len() - 8_000..].iter().any(|sample| sample.abs() > 0.005), "it stays silent".to_owned()),
            (waits == 0 && slowest < Duration::from_millis(200), format!("{waits} waits, a block took {slowest:?}")),
            (desk.failure().is_none(), format!("{:?}", desk.failure())),
        ];
        holds.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    })
}

#[test]
fn an_engine_below_real_time_is_heard_most_of_the_time() -> Result<(), String> {
    let _turn = turn();
    undisturbed(|| {
        // A nap in every step makes a fast engine slower than real time: what a small machine looks like.
        let mut desk = Desk::with_fault(Fault::Slow(Duration::from_micros(17_400)), 0..u32::MAX, LatencySetting::Safe);
        desk.live(6_400, false);
        let (start, latency) = (desk.left.len(), desk.latency());
        desk.live(latency + 6 * RATE as usize, true);
        let speed = f64::from(desk.handle.status().real_time_factor);
        let windows = desk.left[start + latency..].chunks(160);
        let count = windows.len();
        let silent = windows.filter(|window| window.iter().all(|sample| *sample == 0.0)).count();
        let share = 1.0 - silent as f64 / count as f64;
        println!("at {speed:.2} times real time it is heard {:.1} % of the time", 100.0 * share);
        let (late, waits) = (desk.meters.late_frames(), desk.meters.waits());
        if share < speed.min(1.0) - 0.1 || waits > 0 || (speed < 0.99 && late == 0) {
            return Err(format!("heard {share} of the time at {speed}, {late} late, {waits} waits"));
        }
        Ok(())
    })
}

/// A copy of a committed checkpoint.
struct Copied(PathBuf);

impl Copied {
    fn of(name: &str, place: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tiller-{place}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(fixture(name)).expect("the fixture").flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy");
        }
        Self(folder)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // A folder that cannot be removed from the temporary directory is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a desk plays of a copied checkpoint while something happens to its files half way through.
fn while_playing(place: &str, happens: impl FnOnce(&Path)) -> (Vec<f32>, Desk, Copied) {
    let copied = Copied::of("parity-mono", place);
    let mut desk = Desk::on(ModelSource::Directory(copied.0.clone()), LatencySetting::Safe);
    assert_eq!(desk.failure(), None);
    let latency = desk.latency();
    desk.pull(latency + 16_000, true, LateMode::Wait);
    happens(&copied.0);
    desk.pull(32_000, true, LateMode::Wait);
    (desk.left[latency..].to_vec(), desk, copied)
}

#[test]
fn files_that_are_removed_cut_or_rewritten_while_it_plays_are_not_heard() {
    let _turn = turn();
    let (reference, ..) = while_playing("calm", |_| ());
    assert!(reference.iter().any(|sample| *sample != 0.0));
    let weights = |folder: &Path| folder.join("model.safetensors");
    let (removed, desk, copied) = while_playing("removed", |folder| fs::remove_dir_all(folder).expect("removed"));
    assert_eq!(first_difference(&removed, &reference), None, "removed");
    // Whoever loads it anew is told, and the folder's return heals it.
    desk.handle.set_model(ModelSource::Embedded);
    assert!(desk.within_seconds(|desk| desk.handle.status().state == State::Ready));
    desk.handle.set_model(ModelSource::Directory(copied.0.clone()));
    assert!(desk.within_seconds(|desk| desk.failure().is_some()));
    assert!(desk.failure().is_some_and(|why| why.contains(&copied.0.display().to_string())));
    let back = Copied::of("parity-mono", "removed");
    desk.handle.set_model(ModelSource::Directory(back.0.clone()));
    assert!(desk.within_seconds(|desk| desk.handle.status().state == State::Ready));
    let (cut, ..) = while_playing("cut", |folder| {
        fs::OpenOptions::new().write(true).open(weights(folder)).and_then(|file| file.set_len(100)).expect("cut");
    });
    assert_eq!(first_difference(&cut, &reference), None, "cut");
    let (rewritten, ..) = while_playing("rewritten", |folder| {
        let bytes = fs::read(weights(folder)).expect("read");
        fs::write(weights(folder), bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<u8>>()).expect("written");
    });
    assert_eq!(first_difference(&rewritten, &reference), None, "rewritten");
}

/// A copy of a checkpoint with one weight that is no number.
fn with_a_nan(place: &str) -> Copied {
    let copied = Copied::of("decoder-mono", place);
    let path = copied.0.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let start = header["decoder.lm_heads.0.weight"]["data_offsets"][0].as_u64().expect("a head") as usize;
    // A half-precision NaN.
    bytes[8 + length + start..8 + length + start + 2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    copied
}

#[test]
fn weights_that_are_no_numbers_are_told() {
    let _turn = turn();
    let copied = with_a_nan("nan");
    let mut desk = Desk::on(ModelSource::Directory(copied.0.clone()), LatencySetting::Safe);
    for _ in 0..3 {
        desk.pull(32_000, true, LateMode::Wait);
        assert!(desk.failure().is_some_and(|why| why.contains("not finite")), "{:?}", desk.handle.status());
        desk.restart();
    }
    assert!(desk.left.iter().all(|sample| *sample == 0.0));
    // Another model plays at once.
    desk.handle.set_model(ModelSource::Directory(fixture("decoder-mono")));
    assert!(desk.within_seconds(|desk| desk.handle.status().state == State::Ready));
}

#[test]
fn weights_that_are_no_numbers_keep_nobody_waiting() {
    let _turn = turn();
    let copied = with_a_nan("nan-wait");
    let mut desk = Desk::on(ModelSource::Directory(copied.0.clone()), LatencySetting::Safe);
    let began = Instant::now();
    for _ in 0..3 {
        desk.pull(32_000, true, LateMode::Wait);
        desk.restart();
    }
    assert!(began.elapsed() < Duration::from_secs(8), "the host waited {:?}", began.elapsed());
}

#[test]
fn an_engine_that_ends_releases_a_waiting_host() {
    let _turn = turn();
    let mut desk = Desk::new();
    desk.pull(16_000, true, LateMode::Wait);
    // Another audio end takes the place of this one: nobody will answer any more.
    let other = desk.handle.connect(64).expect("threads");
    let began = Instant::now();
    desk.pull(320_000, true, LateMode::Wait);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(other);
}
