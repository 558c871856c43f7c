//! Parameters as hosts send them: any value at any sample, without buffers, from two threads at once.

use tiller_tests::host::{Host, Outcome};
use tiller_tests::measure::{first_difference, rms};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::random::{Random, cases};
use tiller_tests::score::{Move, Score};
use tiller_tests::turn;

use crate::load;

const RATE: f64 = 48_000.0;

/// What a host may send for a parameter whose largest value is `max`.
fn any_value(random: &mut Random, max: f64) -> f64 {
    match random.below(12) {
        0 => 0.0,
        1 => max,
        2 => -random.unit() * 10.0,
        3 => max + random.unit() * 1e9,
        4 => *random.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, -0.0]),
        _ => random.unit() * max,
    }
}

/// Every parameter at its default from `at` on, keys and controllers up.
fn calm(host: &mut Host, score: &mut Score, at: u64) -> Outcome<()> {
    for param in host.params()? {
        score.add(at, Move::Param(tiller_tests::host::raw_id(param.id)?, param.default));
    }
    for key in 0..128 {
        score.add(at, Move::KeyUp(key));
    }
    Ok(())
}

/// Two seconds of whatever may come, then a stop, defaults, and a start at `restart`.
fn storm(host: &mut Host, random: &mut Random, restart: u64) -> Outcome<Score> {
    let mut score = Score::playing().stop(restart - 48_000).play_from(restart, 0);
    let params = host.params()?;
    for _ in 0..3_000 {
        let param = random.pick(&params).clone();
        let at = random.below(96_000) as u64;
        score.add(at, Move::Param(tiller_tests::host::raw_id(param.id)?, any_value(random, param.max)));
    }
    for _ in 0..300 {
        let at = random.below(96_000) as u64;
        let key = random.below(128) as u8;
        score.add(at, Move::KeyDown(key));
        score.add(at + random.below(5_000) as u64, Move::KeyUp(key));
        score.add(at, Move::Controller(random.below(128) as u8, random.below(128) as u8));
    }
    calm(host, &mut score, restart - 40_000)?;
    Ok(score)
}

#[test]
fn any_value_at_any_sample_leaves_nothing_behind() -> Outcome<()> {
    let _turn = turn();
    let mut random = Random::of("any_value_at_any_sample_leaves_nothing_behind");
    let restart = 192_000;
    let play = |score: &Score, host: &mut Host, blocks: Blocks| -> Outcome<Recording> {
        host.set_offline(true)?;
        let mut player = host.activate(RATE, 512)?;
        let latency = u64::from(host.latency()?);
        let heard = player.play(score, 0..restart + latency + 24_000, blocks, Pace::FlatOut)?;
        host.deactivate(player);
        Ok(heard.compensated((restart + latency) as usize))
    };
    let plain = play(&Score::stopped().play_from(restart, 0), &mut load()?, Blocks::Fixed(512))?;
    assert!(rms(&plain.left) > 0.000_5);
    for round in 0..cases(6) {
        let mut host = load()?;
        let score = storm(&mut host, &mut random, restart)?;
        let saved_before = host.save()?;
        let heard = play(&score, &mut host, Blocks::Random(u64::from(round)))?;
        for param in host.params()? {
            let id = tiller_tests::host::raw_id(param.id)?;
            assert_eq!(host.value_by_id(id)?, param.default, "round {round}: {}", param.name);
        }
        assert_eq!(host.save()?, saved_before, "round {round}: the state");
        assert_eq!(first_difference(&heard.left, &plain.left), None, "round {round}");
    }
    println!("{} automation points", 3_000 * cases(6));
    Ok(())
}

#[test]
fn what_is_no_number_never_reaches_the_project() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    for param in host.params()? {
        let id = tiller_tests::host::raw_id(param.id)?;
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
            host.set_raw(id, value)?;
            let state = host.save()?;
            let mut other = load()?;
            other.restore(&state).map_err(|why| format!("{} at {value}: {why}", param.name))?;
            assert_eq!(other.save()?, state, "{} at {value}", param.name);
            let read = other.value_by_id(id)?;
            assert!(read.is_finite() && (0.0..=param.max).contains(&read), "{} at {value}: {read}", param.name);
        }
    }
    Ok(())
}

#[test]
fn a_flush_without_buffers_is_a_value_at_the_blocks_start() -> Outcome<()> {
    let _turn = turn();
    let moves = [("note", 0.5), ("note_strength", 0.9), ("temperature", 0.2), ("seed", 77.0), ("gain", 0.6)];
    let at = 9_600;
    let render = |flush: bool| -> Outcome<Recording> {
        let mut host = load()?;
        host.set_offline(true)?;
        let mut player = host.activate(RATE, 480)?;
        let mut score = Score::playing();
        if !flush {
            for (name, value) in moves {
                score.param(at, name, value)?;
            }
        }
        let mut heard = player.play(&score, 0..at, Blocks::Fixed(480), Pace::FlatOut)?;
        if flush {
            host.flush_active(&mut player, &moves)?;
        }
        let rest = player.play(&score, at..at + 48_000, Blocks::Fixed(480), Pace::FlatOut)?;
        heard.left.extend(rest.left);
        host.deactivate(player);
        Ok(heard)
    };
    let (flushed, drawn) = (render(true)?, render(false)?);
    assert!(rms(&drawn.left) > 0.000_5);
    assert_eq!(first_difference(&flushed.left, &drawn.left), None);
    Ok(())
}

#[test]
fn a_flush_while_inactive_is_a_value_from_the_start() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let mut random = Random::of("a_flush_while_inactive_is_a_value_from_the_start");
    for round in 0..cases(50) {
        for param in host.params()? {
            let id = tiller_tests::host::raw_id(param.id)?;
            let wanted = random.unit() * param.max;
            host.set_raw(id, wanted)?;
            let read = host.value_by_id(id)?;
            // A stepped parameter takes the nearest value that it has.
            assert!((0.0..=param.max).contains(&read), "round {round}: {} at {read}", param.name);
            host.set_raw(id, read)?;
            assert_eq!(host.value_by_id(id)?, read, "round {round}: {} does not stay", param.name);
        }
    }
    Ok(())
}

#[test]
fn both_threads_at_once() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let mut random = Random::of("both_threads_at_once");
    let score = {
        let mut score = Score::playing();
        let params = host.params()?;
        for _ in 0..4_000 {
            let param = random.pick(&params).clone();
            let at = random.below(96_000) as u64;
            score.add(at, Move::Param(tiller_tests::host::raw_id(param.id)?, any_value(&mut random, param.max)));
        }
        score
    };
    let states = {
        let plain = host.save()?;
        let mut project = tiller_tests::project::Project::open(&plain)?;
        project.document["prompt"] = serde_json::json!("fast bright strings arpeggio");
        [plain, project.close()?]
    };
    let mut player = host.activate(RATE, 256)?;
    let params = host.params()?;
    let mut rounds = 0;
    let player = std::thread::scope(|scope| -> Outcome<_> {
        let audio = scope.spawn(move || -> Outcome<_> {
            player.play(&score, 0..144_000, Blocks::Random(2), Pace::WallClock)?;
            Ok(player)
        });
        while !audio.is_finished() {
            rounds += 1;
            let state: &Vec<u8> = random.pick(&states[..]);
            host.restore(state)?;
            for param in &params {
                let value = host.value_by_id(tiller_tests::host::raw_id(param.id)?)?;
                host.text_by_id(tiller_tests::host::raw_id(param.id)?, value.clamp(0.0, param.max))?;
            }
            host.save()?;
            host.latency()?;
            host.pump();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        audio.join().map_err(|_| "the audio thread panicked".to_owned())?
    })?;
    host.deactivate(player);
    println!("{rounds} rounds of states, values and texts while it played");
    assert!(rounds > 20, "{rounds}");
    Ok(())
}
