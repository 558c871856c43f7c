//! The promise of frame-locked control, through the built bundle: the same input gives the same samples at any block
//! size and pace, a move is heard at its place, loops and stops behave.

use tiller_tests::host::{Host, Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::score::{Move, Score};
use tiller_tests::{turn, undisturbed};

const RATE: f64 = 48_000.0;
const SECOND: u64 = 48_000;
const FRAME: u64 = 960;
const MAX_BLOCK: u32 = 1_024;
/// Samples before a piece's end in which it may differ from a piece that goes on: it ends like a clip, and the codes and
/// the codec look 7 frames ahead. One more frame, since the end lies inside one.
const ENDING: u64 = 8 * FRAME;

fn load() -> Outcome<Host> {
    Host::load(&dev_bundle()?)
}

/// Moves at samples that are no multiple of anything, and keys shorter than a frame.
fn busy(host: &mut Host, mut score: Score) -> Outcome<Score> {
    let (sharp, minus) = (host.value_of("note", "F#")?, host.value_of("note_strength", "-0.75")?);
    let (half, warm) = (host.value_of("note_strength", "0.5")?, host.value_of("temperature", "0.8")?);
    let quiet = host.value_of("gain", "-6")?;
    // An earlier run of the same instance leaves its last values behind.
    for (name, text) in [("note", "off"), ("note_strength", "1"), ("temperature", "1"), ("gain", "0")] {
        score.param(0, name, host.value_of(name, text)?)?;
    }
    for (at, name, value) in [
        (12_345, "note", sharp),
        (33_331, "note_strength", minus),
        (50_003, "note_strength", half),
        (61_441, "temperature", warm),
        (77_777, "gain", quiet),
        (100_001, "note", 0.0),
    ] {
        score.param(at, name, value)?;
    }
    for (down, up, key) in [(20_011, 20_250, 61), (70_001, 90_007, 64), (110_000, 110_001, 67)] {
        score.add(down, Move::KeyDown(key));
        score.add(up, Move::KeyUp(key));
    }
    Ok(score)
}

/// A fresh instance plays `length` samples beyond its latency; what came out, with the delay taken off.
fn fresh(score: &Score, length: u64, blocks: Blocks, pace: Pace, offline: bool) -> Outcome<Recording> {
    let mut host = load()?;
    host.set_offline(offline)?;
    let mut player = host.activate(RATE, MAX_BLOCK)?;
    let latency = host.latency()?;
    let heard = player.play(score, 0..length + u64::from(latency), blocks, pace)?;
    host.deactivate(player);
    Ok(heard.compensated(latency as usize))
}

fn same(a: &Recording, b: &Recording, what: &str) -> Outcome<()> {
    if measure::rms(&a.left) < 0.001 {
        return Err(format!("{what}: silent"));
    }
    for (name, x, y) in [("left", &a.left, &b.left), ("right", &a.right, &b.right)] {
        if let Some(at) = first_difference(x, y) {
            return Err(format!("{what}: {name} differs at {} s of {}", at as f64 / RATE, x.len() as f64 / RATE));
        }
    }
    Ok(())
}

#[test]
fn block_sizes_do_not_change_a_sample() -> Outcome<()> {
    let _turn = turn();
    let score = busy(&mut load()?, Score::playing())?;
    let whole = fresh(&score, 3 * SECOND, Blocks::Fixed(64), Pace::FlatOut, true)?;
    for blocks in [Blocks::Fixed(480), Blocks::Fixed(1_000), Blocks::Random(1), Blocks::Random(2)] {
        let cut = fresh(&score, 3 * SECOND, blocks, Pace::FlatOut, true)?;
        same(&whole, &cut, &format!("{blocks:?}"))?;
    }
    Ok(())
}

#[test]
fn live_equals_offline() -> Outcome<()> {
    let _turn = turn();
    let score = busy(&mut load()?, Score::playing())?;
    let offline = fresh(&score, 4 * SECOND, Blocks::Fixed(512), Pace::FlatOut, true)?;
    let hurried = fresh(&score, 4 * SECOND, Blocks::Fixed(512), Pace::FlatOut, false)?;
    same(&offline, &hurried, "as fast as it goes, but said to be real time")?;
    undisturbed(|| {
        // Live, the model has to be there when the host starts to play.
        let mut host = load()?;
        let mut player = host.activate(RATE, MAX_BLOCK)?;
        let latency = host.latency()?;
        player.play(&Score::stopped(), 0..SECOND, Blocks::Fixed(256), Pace::WallClock)?;
        let span = 0..4 * SECOND + u64::from(latency);
        let heard = player.play(&score, span, Blocks::Fixed(256), Pace::WallClock)?;
        host.deactivate(player);
        same(&offline, &heard.compensated(latency as usize), "paced by the wall clock")
    })
}

#[test]
fn real_time_then_offline_then_real_time() -> Outcome<()> {
    let _turn = turn();
    undisturbed(|| {
        let mut host = load()?;
        let score = busy(&mut host, Score::playing())?;
        let mut heard = Vec::new();
        for offline in [false, true, false] {
            host.set_offline(offline)?;
            let mut player = host.activate(RATE, MAX_BLOCK)?;
            let latency = host.latency()?;
            let pace = if offline { Pace::FlatOut } else { Pace::WallClock };
            player.play(&Score::stopped(), 0..SECOND, Blocks::Fixed(256), pace)?;
            let span = 0..3 * SECOND + u64::from(latency);
            heard.push(player.play(&score, span, Blocks::Fixed(256), pace)?.compensated(latency as usize));
            host.deactivate(player);
        }
        same(&heard[0], &heard[1], "live, then bounced")?;
        same(&heard[0], &heard[2], "live again")
    })
}

#[test]
fn a_host_that_hurries_without_a_word_is_waited_for() -> Outcome<()> {
    let _turn = turn();
    undisturbed(|| {
        let mut host = load()?;
        let score = busy(&mut host, Score::playing().stop(3 * SECOND))?;
        let mut player = host.activate(RATE, MAX_BLOCK)?;
        let latency = host.latency()?;
        player.play(&Score::stopped(), 0..SECOND, Blocks::Fixed(256), Pace::WallClock)?;
        let mut heard = Vec::new();
        for pace in [Pace::WallClock, Pace::FlatOut, Pace::WallClock] {
            let recording = player.play(&score, 0..4 * SECOND, Blocks::Fixed(256), pace)?;
            heard.push(recording.compensated(latency as usize));
        }
        host.deactivate(player);
        same(&heard[0], &heard[1], "live, then as fast as it goes")?;
        same(&heard[0], &heard[2], "live again")
    })
}

#[test]
fn every_wrap_of_a_loop_is_the_same_as_a_seek_to_its_start() -> Outcome<()> {
    let _turn = turn();
    let bar = 2 * SECOND;
    let (start, wraps) = (3 * SECOND, 4);
    let looped =
        fresh(&Score::looping(start, start + bar, wraps), wraps * bar, Blocks::Fixed(480), Pace::FlatOut, true)?;
    let sought = fresh(&Score::playing_from(start), bar, Blocks::Fixed(480), Pace::FlatOut, true)?;
    let rounds: Vec<&[f32]> = looped.left.chunks(bar as usize).collect();
    assert!(measure::rms(rounds[0]) > 0.001);
    for (index, round) in rounds.iter().enumerate().take(wraps as usize - 1) {
        assert_eq!(first_difference(round, rounds[0]), None, "wrap {index}");
    }
    let before_end = (bar - ENDING) as usize;
    assert_eq!(first_difference(&rounds[0][..before_end], &sought.left[..before_end]), None, "seek");
    // A leap of the song position is believed in its second block: the new piece begins there.
    let block = 64;
    let score = Score::playing_from(0).play_from(SECOND, start);
    let leapt = fresh(&score, SECOND + block + bar, Blocks::Fixed(block as usize), Pace::FlatOut, true)?;
    assert_eq!(first_difference(&leapt.left[(SECOND + block) as usize..], &sought.left), None, "seek while playing");
    Ok(())
}

#[test]
fn a_hundred_wraps_of_a_bar_at_the_tight_setting_have_no_underrun() -> Outcome<()> {
    let _turn = turn();
    undisturbed(|| {
        let mut host = load()?;
        host.set("latency", "tight")?;
        let mut player = host.activate(RATE, 256)?;
        let latency = u64::from(host.latency()?);
        // One bar of 4/4 at 240 beats per minute.
        let (bar, wraps) = (SECOND, 100);
        player.play(&Score::stopped(), 0..SECOND, Blocks::Fixed(256), Pace::WallClock)?;
        let score = Score::looping(0, bar, wraps);
        let heard = player.play(&score, 0..wraps * bar + latency, Blocks::Fixed(256), Pace::WallClock)?;
        host.deactivate(player);
        let music = heard.compensated(latency as usize);
        let gaps = measure::gaps(&music.left, RATE);
        if !gaps.is_empty() {
            return Err(format!("{} gaps (start, length) in samples: {gaps:?}", gaps.len()));
        }
        let rounds: Vec<&[f32]> = music.left.chunks(bar as usize).collect();
        if measure::rms(rounds[0]) < 0.001 {
            return Err("silent".to_owned());
        }
        match rounds.iter().take(wraps as usize - 1).position(|round| first_difference(round, rounds[0]).is_some()) {
            Some(wrap) => Err(format!("wrap {wrap} differs from the first")),
            None => Ok(()),
        }
    })
}

#[test]
fn a_stop_lets_what_was_played_sound_to_its_end() -> Outcome<()> {
    let _turn = turn();
    let stop = SECOND + 12_345;
    let stopped = fresh(&Score::playing().stop(stop), 3 * SECOND, Blocks::Fixed(441), Pace::FlatOut, true)?;
    let endless = fresh(&Score::playing(), 3 * SECOND, Blocks::Fixed(441), Pace::FlatOut, true)?;
    let until = (stop - ENDING) as usize;
    assert_eq!(first_difference(&stopped.left[..until], &endless.left[..until]), None);
    let last = stopped.left.iter().rposition(|s| *s != 0.0).ok_or("silent")? as u64;
    assert!(last < stop, "it sounds until {last}, the stop was at {stop}");
    assert!(last + FRAME / 4 > stop, "it ends at {last}, long before the stop at {stop}");
    Ok(())
}

#[test]
fn a_gain_step_is_heard_at_its_frame() -> Outcome<()> {
    let _turn = turn();
    let quiet = load()?.value_of("gain", "-6")?;
    let plain = fresh(&Score::playing(), 10 * SECOND, Blocks::Fixed(480), Pace::FlatOut, true)?;
    // In the middle of a frame, and on the first sample of bar 5: four bars of 4/4 at 120 beats a minute are 8 s.
    for at in [60_000, 8 * SECOND] {
        let mut score = Score::playing();
        score.param(at, "gain", quiet)?;
        let stepped = fresh(&score, 10 * SECOND, Blocks::Random(9), Pace::FlatOut, true)?;
        step_is_heard_at(at, &stepped, &plain)?;
    }
    Ok(())
}

fn step_is_heard_at(at: u64, stepped: &Recording, plain: &Recording) -> Outcome<()> {
    let first = first_difference(&stepped.left, &plain.left).ok_or("the gain was not heard")? as u64;
    let frame_start = at / FRAME * FRAME;
    // The resampler's filter reaches a little ahead of the frame.
    assert!(
        first >= frame_start - 200 && first <= frame_start + FRAME,
        "heard at {first}, frame starts at {frame_start}"
    );
    let later = (frame_start + 2 * FRAME) as usize..plain.left.len();
    let ratio = measure::rms(&stepped.left[later.clone()]) / measure::rms(&plain.left[later]);
    assert!((ratio - 10_f64.powf(-0.3)).abs() < 1e-4, "ratio {ratio}");
    Ok(())
}
