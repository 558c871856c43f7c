//! Every block size, announced or not: the sound is the same, every sample is written and none behind the block.

use tiller_tests::host::{Host, Outcome};
use tiller_tests::measure::{first_difference, rms};
use tiller_tests::player::{Blocks, Pace, Recording};
use tiller_tests::random::Random;
use tiller_tests::score::Score;
use tiller_tests::turn;

use crate::load;

const RATE: f64 = 48_000.0;
/// Samples that are compared.
const LENGTH: u64 = 32_768;

/// Plays blocks of these sizes, in turn, for `LENGTH` samples beyond the latency of `announced` as the largest block.
fn played(host: &mut Host, announced: u32, mut size: impl FnMut() -> usize) -> Outcome<Recording> {
    host.set_offline(true)?;
    let mut player = host.activate(RATE, announced)?;
    let latency = u64::from(host.latency()?);
    let (score, mut at, end) = (Score::playing(), 0, LENGTH + latency);
    let mut heard = Recording::default();
    while at < end {
        let length = size().min((end - at) as usize);
        player.block(&score, at, length)?;
        let (left, right) = player.output(length);
        heard.left.extend_from_slice(left);
        heard.right.extend_from_slice(right);
        at += length as u64;
    }
    host.deactivate(player);
    Ok(heard.compensated(latency as usize))
}

fn same(heard: &Recording, reference: &Recording, what: &str) {
    assert_eq!(first_difference(&heard.left, &reference.left), None, "{what}, left");
    assert_eq!(first_difference(&heard.right, &reference.right), None, "{what}, right");
}

#[test]
fn every_block_size_gives_the_same_bytes() -> Outcome<()> {
    let _turn = turn();
    for channels in [2, 1] {
        let new = || -> Outcome<Host> {
            let mut host = load()?;
            host.select_layout(channels)?;
            Ok(host)
        };
        let mut first = new()?;
        let reference = played(&mut first, 512, || 512)?;
        assert!(rms(&reference.left) > 0.000_5);
        for size in [1, 10, 17, 64, 256, 1_024, 1_536, 2_027, 4_096, 16_384] {
            let heard = played(&mut new()?, size as u32, || size)?;
            same(&heard, &reference, &format!("{channels} channels, blocks of {size}"));
        }
    }
    Ok(())
}

#[test]
fn random_and_empty_blocks_give_the_same_bytes() -> Outcome<()> {
    let _turn = turn();
    let reference = played(&mut load()?, 512, || 512)?;
    let mut random = Random::of("random_and_empty_blocks_give_the_same_bytes");
    for round in 0..8 {
        let largest = *random.pick(&[64_u32, 480, 2_048, 4_096]);
        // A fifth of them has one sample, a tenth none.
        let heard = played(&mut load()?, largest, || match random.below(10) {
            0 => 0,
            1 | 2 => 1,
            _ => 1 + random.below(largest as usize),
        })?;
        same(&heard, &reference, &format!("round {round}, at most {largest}"));
    }
    Ok(())
}

#[test]
fn blocks_larger_than_announced_give_the_same_bytes() -> Outcome<()> {
    let _turn = turn();
    let reference = played(&mut load()?, 512, || 512)?;
    for (announced, size) in [(32, 64), (64, 1_000), (512, 513), (512, 16_384)] {
        let heard = played(&mut load()?, announced, || size)?;
        same(&heard, &reference, &format!("{size} where {announced} were announced"));
    }
    Ok(())
}

#[test]
fn a_host_that_pulls_while_stopped_hears_nothing() -> Outcome<()> {
    let _turn = turn();
    for score in [Score::stopped(), Score::without_transport()] {
        let mut host = load()?;
        let mut player = host.activate(RATE, 333)?;
        let heard = player.play(&score, 0..LENGTH, Blocks::Random(7), Pace::FlatOut)?;
        assert!(heard.left.iter().chain(&heard.right).all(|sample| sample.to_bits() == 0));
        host.deactivate(player);
    }
    Ok(())
}
