//! Ten minutes of endless play, far past the model's window, at the demo checkpoint's own window and at a short one:
//! nothing grows, nothing drifts, nothing clicks. No time is taken here: `cargo xtask soak` does that.

use std::sync::Arc;

use tiller_engine::control::ControlFrame;
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::player::{MAX_ROWS, Player};
use tiller_tests::counting::{Counting, allocations};
use tiller_tests::soak::clicks::Clicks;
use tiller_tests::soak::loudness::Loudness;
use tiller_tests::soak::{DEFAULT_PROMPT, Run};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MINUTES: usize = 10;

fn ten_minutes(window: Option<usize>) {
    let model = Model::load(&ModelSource::Embedded, &|_| ()).expect("the embedded checkpoint loads");
    let prompt = Arc::new(model.prompt(DEFAULT_PROMPT).expect("the prompt encodes"));
    let mut player = Player::new(model.clone(), prompt, window);
    let window = player.window();
    let format = model.format();
    let frames = MINUTES * 60 * format.model_rate as usize / format.frame_samples;
    let mut run = Run::new(format, frames);
    run.play(&mut player, ControlFrame::new(1, 0), frames as u32, |_| (), |_| ()).expect("finite logits");

    assert_eq!(run.allocations, 0, "memory is flat");
    assert!(allocations() > 0, "the count counts");
    assert_eq!((run.ear.power.len(), run.ear.out_of_order), (frames, 0), "every frame once, in order");
    assert_eq!(run.ear.not_finite, 0);
    assert!(run.ear.peak <= 1.0, "clips at {}", run.ear.peak);

    // Two guidance rows, and two more while the next window is rebuilt: always, once half a window is there.
    let keep = window / 2;
    let switches: Vec<usize> = (window..frames).step_by(keep).collect();
    assert_eq!(run.switches(), switches);
    let rebuilding = run.work.iter().filter(|work| work.rebuilt > 0).count();
    assert_eq!(rebuilding, frames - keep);
    assert!(run.work.iter().all(|work| work.rows == 2 + 2 * work.rebuilt && work.rows <= MAX_ROWS));

    let loudness = Loudness::of(&run.ear.power, run.frames_per_minute()).expect("ten minutes");
    assert!(loudness.worst() < 3.0, "{loudness:?}");
    assert!(loudness.quietest() > -50.0, "{loudness:?}");

    // The frame that begins at the switch, whose codebook 0 is the first from the new window, with a neighbour each side;
    // and everything between the first sample that can know of it and that frame's end.
    for (before, after) in [(1, 1), (format.delay_frames, 1)] {
        let clicks = Clicks::of(&run.ear.leaps, &switches, before, after).expect("switches");
        println!("window {window}, {before} frames before to {after} after: {clicks:?}");
        assert!(clicks.is_clean(), "{before} frames before to {after} after a switch: {clicks:?}");
    }
    println!("window {window}: {loudness:?}, peak {}", run.ear.peak);
}

#[test]
fn ten_minutes_at_the_checkpoints_own_window() {
    ten_minutes(None);
}

#[test]
fn ten_minutes_at_a_short_window() {
    ten_minutes(Some(128));
}
