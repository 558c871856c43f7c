//! Instances that come and go: storms of activations and resets, destruction while a model loads, many at once.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tiller_tests::host::{Host, Outcome};
use tiller_tests::measure::{first_difference, rms};
use tiller_tests::memory::{allocated, give_back};
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::project::Project;
use tiller_tests::random::{Random, cases};
use tiller_tests::score::Score;
use tiller_tests::turn;

use crate::{bounce, fixture, load};

/// Set in the process that a test runs itself in.
const ALONE: &str = "TILLER_TEST_ALONE";

/// Names of this process's threads that are ours, where the system tells.
fn threads() -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let names = tasks.flatten().filter_map(name).map(|name| name.trim_end().to_owned());
    names.filter(|name| name.starts_with("tiller-")).collect()
}

/// No thread of ours is left; the kernel shows one for a moment after it was joined.
fn no_thread_is_left() -> Outcome<()> {
    for _ in 0..200 {
        if threads().is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("threads are left: {:?}", threads()))
}

#[test]
fn a_storm_of_activations_and_resets_leaves_a_sound_instance() -> Outcome<()> {
    let _turn = turn();
    let mut random = Random::of("a_storm_of_activations_and_resets_leaves_a_sound_instance");
    let mut host = load()?;
    let rounds = cases(120);
    let score = Score::playing();
    for _ in 0..rounds {
        host.set_offline(random.below(2) == 0)?;
        let rate = *random.pick(&[8_000.0, 32_000.0, 44_100.0, 48_000.0, 96_000.0, 1_234.5]);
        let block = *random.pick(&[16_u32, 64, 480, 2_048]);
        let mut player = host.activate(rate, block)?;
        let mut at = 0;
        for _ in 0..random.below(6) {
            for _ in 0..random.below(4) {
                player.reset();
            }
            let length = random.below(3 * block as usize);
            player.play(&score, at..at + length as u64, Blocks::Random(at), Pace::FlatOut)?;
            at += length as u64;
        }
        host.deactivate(player);
        if random.below(10) == 0 {
            host.pump();
        }
    }
    let after = bounce(&mut host, &score, 48_000.0, 0.5, Blocks::Fixed(512))?;
    let fresh = bounce(&mut load()?, &score, 48_000.0, 0.5, Blocks::Fixed(512))?;
    assert!(rms(&fresh.left) > 0.000_3);
    assert_eq!(first_difference(&after.left, &fresh.left), None);
    drop(host);
    println!("{rounds} activations");
    no_thread_is_left()
}

#[test]
fn a_reset_while_it_plays_is_a_fresh_start() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    host.set_offline(true)?;
    let mut player = host.activate(48_000.0, 512)?;
    let latency = u64::from(host.latency()?);
    let span = 0..latency + 24_000;
    let first = player.play(&Score::playing(), span.clone(), Blocks::Fixed(512), Pace::FlatOut)?;
    for _ in 0..50 {
        player.play(&Score::playing(), 0..700, Blocks::Fixed(512), Pace::FlatOut)?;
        player.reset();
    }
    let again = player.play(&Score::playing(), span, Blocks::Fixed(512), Pace::FlatOut)?;
    host.deactivate(player);
    assert!(rms(&first.left) > 0.000_3);
    assert_eq!(first_difference(&again.left, &first.left), None);
    Ok(())
}

/// A host whose project names a checkpoint.
fn with_model(name: &str, prompt: &str) -> Outcome<Host> {
    let mut host = load()?;
    let mut project = Project::open(&host.save()?)?;
    project.document["prompt"] = json!(prompt);
    project.document["model"] = json!({ "name": name, "path": fixture(name) });
    host.restore(&project.close()?)?;
    Ok(host)
}

#[test]
fn it_can_be_destroyed_at_any_moment_of_a_load() -> Outcome<()> {
    let _turn = turn();
    let mut random = Random::of("it_can_be_destroyed_at_any_moment_of_a_load");
    let rounds = cases(60);
    for round in 0..rounds {
        let mut host = match round % 3 {
            0 => load()?,
            1 => with_model("parity-mono", "organ")?,
            _ => with_model("parity-stereo", "organ")?,
        };
        let mut player = host.activate(48_000.0, 256)?;
        if random.below(2) == 0 {
            player.play(&Score::playing(), 0..2_048, Blocks::Fixed(256), Pace::FlatOut)?;
        }
        // A change of model on top, and away with it while one of them loads.
        if random.below(2) == 0 {
            let mut project = Project::open(&host.save()?)?;
            project.document["model"] = json!({ "name": "decoder-mono", "path": fixture("decoder-mono") });
            host.restore(&project.close()?)?;
        }
        std::thread::sleep(Duration::from_micros(random.below(60_000) as u64));
        host.deactivate(player);
        drop(host);
    }
    println!("{rounds} destroyed");
    no_thread_is_left()
}

#[test]
fn it_can_be_destroyed_without_ever_being_activated() -> Outcome<()> {
    let _turn = turn();
    for _ in 0..cases(100) {
        let mut host = load()?;
        let state = host.save()?;
        host.restore(&state)?;
        assert_eq!(threads(), Vec::<String>::new(), "a scan starts nothing");
    }
    Ok(())
}

#[test]
fn sixteen_instances_share_one_copy_of_the_weights() -> Outcome<()> {
    let _turn = turn();
    // In a process of its own: the memory of tests that run beside it would be counted too.
    if std::env::var_os(ALONE).is_none() {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let name = "lifetimes::sixteen_instances_share_one_copy_of_the_weights";
        let again = Command::new(program).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output();
        let again = again.map_err(|e| e.to_string())?;
        print!("{}", String::from_utf8_lossy(&again.stdout));
        let passed = String::from_utf8_lossy(&again.stdout).contains("1 passed");
        assert!(again.status.success() && passed, "{}", String::from_utf8_lossy(&again.stderr));
        return Ok(());
    }
    const COUNT: usize = 16;
    /// Less than the built-in checkpoint's weights take, which only the first instance brings.
    const WEIGHTS: u64 = 20 << 20;
    give_back();
    let mut playing = Vec::new();
    let mut memory = vec![allocated()];
    for _ in 0..COUNT {
        let mut host = load()?;
        host.set_offline(true)?;
        let player = host.activate(48_000.0, 512)?;
        playing.push((host, player));
        give_back();
        memory.push(allocated());
    }
    if let Some(memory) = memory.into_iter().collect::<Option<Vec<u64>>>() {
        let first = memory[1].saturating_sub(memory[0]);
        let each = memory[COUNT].saturating_sub(memory[1]) / (COUNT as u64 - 1);
        println!("{first} bytes for the first instance, {each} for each further one");
        // Two thirds of what a further one takes are the keys and values of its own player.
        assert!(
            first > each + WEIGHTS,
            "the first takes {first} bytes, a further one {each}: is there one copy of the weights?"
        );
        assert!(each < 80 << 20, "{each} bytes for each further instance");
    }
    let latency = u64::from(playing[0].0.latency()?);
    let mut heard = vec![Vec::new(); COUNT];
    for at in (0..latency + 14_400).step_by(4_800) {
        for ((_, player), heard) in playing.iter_mut().zip(&mut heard) {
            let block = player.play(&Score::playing(), at..at + 4_800, Blocks::Fixed(480), Pace::FlatOut)?;
            heard.extend(block.left);
        }
    }
    assert!(rms(&heard[0]) > 0.000_1);
    for (number, other) in heard.iter().enumerate() {
        assert_eq!(first_difference(other, &heard[0]), None, "instance {number}");
    }
    for (mut host, player) in playing {
        host.deactivate(player);
    }
    no_thread_is_left()
}
