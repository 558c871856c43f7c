//! Every sample rate that a host may choose, with odd fractions, mono and stereo.

use tiller_tests::host::Outcome;
use tiller_tests::measure;
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::score::Score;
use tiller_tests::turn;

use crate::{bounce, load};

/// What musicians use, what validators try, and both ends of what is played.
const RATES: [f64; 18] = [
    8_000.0, 11_025.5, 12_345.678, 16_000.0, 22_050.0, 32_000.0, 44_100.0, 45_678.901, 47_999.9, 48_000.0, 88_200.0,
    96_000.0, 123_456.78, 176_400.0, 192_000.0, 384_000.0, 767_999.25, 768_000.0,
];
const SECONDS: f64 = 0.5;

#[test]
fn every_rate_plays_in_stereo_and_mono() -> Outcome<()> {
    let _turn = turn();
    // It keeps the model in memory.
    let mut keeper = load()?;
    let player = keeper.activate(48_000.0, 64)?;
    let mut levels = Vec::new();
    for rate in RATES {
        for channels in [2, 1] {
            let mut host = load()?;
            host.select_layout(channels)?;
            let heard = bounce(&mut host, &Score::playing(), rate, SECONDS, Blocks::Random(rate as u64))
                .map_err(|why| format!("{rate} Hz, {channels} channels: {why}"))?;
            let level = measure::rms(&heard.mono());
            assert_eq!(measure::gaps(&heard.left, rate), [], "{rate} Hz, {channels} channels");
            levels.push((rate, channels, level));
        }
    }
    keeper.deactivate(player);
    // The same piece at every rate: as loud as at the model's own, but for what lies above half a low rate.
    let whole = levels.iter().find(|(rate, ..)| *rate == 32_000.0).map_or(0.0, |(.., level)| *level);
    assert!(whole > 0.000_5, "{whole}");
    for (rate, channels, level) in &levels {
        let share = level / whole;
        let least = if *rate < 32_000.0 { 0.5 } else { 0.98 };
        assert!((least..1.02).contains(&share), "{rate} Hz, {channels} channels: {share} of the level");
    }
    println!("{} rates and layouts", levels.len());
    Ok(())
}

#[test]
fn a_rate_that_is_not_played_is_silence_and_not_a_refusal() -> Outcome<()> {
    let _turn = turn();
    for rate in [1.0, 1_234.567_8, 7_999.0, 1_234_567.8] {
        let mut host = load()?;
        let mut player = host.activate(rate, 256)?;
        let heard = player.play(&Score::playing(), 0..4_096, Blocks::Random(1), Pace::FlatOut)?;
        assert!(heard.left.iter().chain(&heard.right).all(|sample| *sample == 0.0), "{rate}");
        host.deactivate(player);
        // And nothing is lost for the next activation.
        let heard = bounce(&mut host, &Score::playing(), 48_000.0, 0.2, Blocks::Fixed(256))?;
        assert!(measure::first_sound(&heard.left).is_some(), "{rate}");
    }
    Ok(())
}
