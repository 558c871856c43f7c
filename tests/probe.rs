use tiller_tests::host::*;
use tiller_tests::measure;
use tiller_tests::player::*;
use tiller_tests::score::*;
#[test]
fn probe() -> Outcome<()> {
    let mut host = Host::load(&dev_bundle()?)?;
    let score = Score::playing();
    let mut all = vec![];
    for (offline, stopped) in [(true, false), (true, true), (false, true)] {
        host.set_offline(offline)?;
        let mut player = host.activate(48000.0, 1024)?;
        let l = host.latency()?;
        let pace = if offline { Pace::FlatOut } else { Pace::WallClock };
        if stopped {
            player.play(&Score::stopped(), 0..48000, Blocks::Fixed(256), pace)?;
        }
        let r = player.play(&score, 0..96000 + u64::from(l), Blocks::Fixed(256), pace)?.compensated(l as usize);
        println!(
            "{offline} {stopped} L {l} first {:?} rms {} {:?}",
            measure::first_sound(&r.left),
            measure::rms(&r.left),
            &r.left[..6]
        );
        all.push(r);
        host.deactivate(player);
    }
    for (i, r) in all.iter().enumerate() {
        println!(
            "{i} {:?} delay {}",
            measure::first_difference(&all[0].left, &r.left),
            measure::delay(&all[0].left[..40000], &r.left, 2000)
        );
    }
    // hurried
    let mut player = host.activate(48000.0, 1024)?;
    let score = Score::playing().stop(96000);
    player.play(&Score::stopped(), 0..48000, Blocks::Fixed(256), Pace::WallClock)?;
    for pace in [Pace::WallClock, Pace::FlatOut, Pace::FlatOut, Pace::WallClock] {
        let r = player.play(&score, 0..3 * 48000, Blocks::Fixed(256), pace)?.compensated(12500);
        println!(
            "{pace:?} {:?} rms {} diff {:?} gaps {:?}",
            measure::first_sound(&r.left),
            measure::rms(&r.left),
            measure::first_difference(&all[0].left, &r.left),
            measure::gaps(&r.left, 48000.0)
        );
    }
    Ok(())
}
