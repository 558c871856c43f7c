//! A host that loads the bundle, plays and unloads it, over and over in one process: no thread stays, memory does not grow.

use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure;
use tiller_tests::memory::{allocated, give_back, no_more_arenas, resident};
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::score::Score;
use tiller_tests::turn;

/// Times that it is loaded. Memory is compared between the second twenty, by when every pool and cache is as large as it gets,
/// and the last; the least of each.
const TIMES: usize = 200;
const SETTLED: std::ops::Range<usize> = 20..40;
const LAST: std::ops::Range<usize> = 180..200;

/// What the loads between may leave behind together: as resident memory, of which the allocator keeps a few free megabytes by
/// chance, and as what is allocated. A model is 40 MB, a player's caches 10: either of them, left behind once, would show.
const MOST_GROWTH: [(&str, u64); 2] = [("resident memory", 8 << 20), ("memory allocated", 1 << 20)];

/// Names of this process's threads, where the system tells.
fn threads() -> Option<Vec<String>> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let mut names: Vec<String> = tasks.filter_map(name).map(|name| name.trim_end().to_owned()).collect();
    names.sort();
    Some(names)
}

/// Plays a quarter of a second of a fresh instance of a freshly loaded bundle; gives back its level.
fn once(rate: f64) -> Outcome<f64> {
    let mut host = Host::load(&dev_bundle()?)?;
    host.set_offline(true)?;
    let mut player = host.activate(rate, 512)?;
    let latency = u64::from(host.latency()?);
    let length = latency + (rate / 4.0) as u64;
    let heard = player.play(&Score::playing(), 0..length, Blocks::Fixed(512), Pace::FlatOut)?;
    host.deactivate(player);
    Ok(measure::rms(&heard.compensated(latency as usize).left))
}

#[test]
fn two_hundred_loads_leave_nothing_behind() -> Outcome<()> {
    let _turn = turn();
    no_more_arenas();
    let before = threads();
    let mut memory = Vec::new();
    let mut first = None;
    for time in 0..TIMES {
        // Two rates, so that the resampler comes and goes too; each sounds as it did the first time.
        let level = once([48_000.0, 32_000.0][time % 2])?;
        if time == 0 {
            assert!(level > 0.0005, "a quarter of a second has an RMS of {level}");
        }
        let first = *first.get_or_insert(level);
        assert!(time % 2 == 1 || level == first, "load {time} sounds otherwise: {level} after {first}");
        give_back();
        memory.push([resident(), allocated()]);
    }
    // The kernel shows a thread for a moment after it was joined.
    let calm = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        threads() == before
    });
    assert!(calm, "threads before: {before:?}, after: {:?}", threads());
    for (index, (what, most)) in MOST_GROWTH.into_iter().enumerate() {
        let least = |times: std::ops::Range<usize>| memory[times].iter().filter_map(|at| at[index]).min();
        if let (Some(settled), Some(after)) = (least(SETTLED), least(LAST)) {
            println!("least {what} of loads {SETTLED:?}: {settled} bytes, of {LAST:?}: {after}");
            assert!(after.saturating_sub(settled) < most, "{what} grew from {settled} to {after} bytes");
        }
    }
    Ok(())
}
