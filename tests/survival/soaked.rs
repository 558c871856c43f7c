//! Minutes of steered play, as long as a test may take. `cargo xtask soak host` plays an hour of it.

use tiller_tests::host::{Outcome, dev_bundle};
use tiller_tests::random::cases;
use tiller_tests::soak::hosted::{Plan, soak};
use tiller_tests::turn;

#[test]
fn minutes_of_random_automation_stay_flat() -> Outcome<()> {
    let _turn = turn();
    let minutes = 4 * cases(1);
    let heard = soak(&dev_bundle()?, Plan { minutes, speed: None, block: 512, seed: 1 }, &|_| ())?;
    println!("{}", heard.report());
    assert_eq!(heard.broken(), Vec::<String>::new());
    assert!(
        heard.moves > 100 && heard.prompts as u32 >= minutes - 1,
        "{} moves, {} prompts",
        heard.moves,
        heard.prompts
    );
    Ok(())
}
