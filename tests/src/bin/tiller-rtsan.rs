//! Plays the plugin under RealtimeSanitizer, paced by the wall clock, with automation, MIDI and a prompt change.
//! A program of its own, so that the interceptors are in no other test. tests/realtime.rs runs it and reads its output.

#[cfg(rtsan)]
fn main() -> std::process::ExitCode {
    match watched::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(rtsan))]
fn main() -> std::process::ExitCode {
    eprintln!("error: built without RealtimeSanitizer: the toolchain's rustlib folder holds no librustc-*_rt.rtsan.a");
    std::process::ExitCode::FAILURE
}

#[cfg(rtsan)]
mod watched {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use clap::Parser;
    use tiller_tests::host::{Host, Outcome};
    use tiller_tests::measure;
    use tiller_tests::player::{Blocks, Pace, Player, Watch};
    use tiller_tests::score::{Move, Score};

    unsafe extern "C" {
        fn __rtsan_ensure_initialized();
        fn __rtsan_realtime_enter();
        fn __rtsan_realtime_exit();
    }

    #[derive(Parser)]
    struct Options {
        /// The .clap to play.
        #[arg(long)]
        bundle: PathBuf,
        /// Seconds to watch, after the warm-up.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// Seconds before the watch begins: thread-local set-up and the like happen once.
        #[arg(long, default_value_t = 3.0)]
        warm_up: f64,
        /// Samples per second of the host.
        #[arg(long, default_value_t = 48_000.0)]
        rate: f64,
        /// Samples of a block, or of the largest.
        #[arg(long, default_value_t = 256)]
        block: u32,
        /// Blocks of any size up to that.
        #[arg(long)]
        random: bool,
        /// Channels of the output: 1 or 2.
        #[arg(long, default_value_t = 2)]
        channels: usize,
        /// State that the main thread loads in the middle of the watch: a project with another prompt.
        #[arg(long)]
        state: Option<PathBuf>,
        /// Has the plugin break the rule (it saves its state while watched), so that it is seen that this is reported.
        #[arg(long)]
        violate: bool,
    }

    fn enter() {
        // SAFETY: counts this thread into the watched region; `exit` below is its counterpart.
        unsafe { __rtsan_realtime_enter() }
    }

    fn exit() {
        // SAFETY: called once per `enter`, on the same thread.
        unsafe { __rtsan_realtime_exit() }
    }

    pub fn run() -> Outcome<()> {
        let options = Options::parse();
        // SAFETY: idempotent, and no other thread runs yet.
        unsafe { __rtsan_ensure_initialized() }
        let state = options.state.as_ref().map(std::fs::read).transpose().map_err(|e| format!("--state: {e}"))?;
        let mut host = Host::load(&options.bundle)?;
        if options.violate {
            // The plugin's own code allocates here: the report shows that it is watched, not this program alone.
            enter();
            let saved = host.save();
            exit();
            return saved.map(|_| ());
        }
        let sharp = host.value_of("note", "C#")?;
        host.select_layout(options.channels)?;
        let player = host.activate(options.rate, options.block)?;
        let mut score = Score::playing();
        let total = options.warm_up + options.seconds;
        moves(&mut score, options.rate, total, sharp)?;
        let half = Duration::from_secs_f64(options.warm_up + options.seconds / 2.0);
        let began = Instant::now();
        let mut state = state;
        let (player, heard) = std::thread::scope(|scope| -> Outcome<(Player, Vec<f32>)> {
            let audio = scope.spawn(|| play(player, &score, &options));
            while !audio.is_finished() {
                host.pump();
                if began.elapsed() >= half
                    && let Some(bytes) = state.take()
                {
                    host.restore(&bytes)?;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            audio.join().map_err(|_| "the audio thread panicked".to_owned())?
        })?;
        println!("slowest process: {:.3} ms", player.slowest.as_secs_f64() * 1e3);
        let gaps = measure::gaps(&heard, options.rate);
        println!("gaps: {}", gaps.len());
        for (start, length) in gaps {
            println!("gap at {:.3} s, {:.1} ms", start as f64 / options.rate, length as f64 / options.rate * 1e3);
        }
        println!("rms: {:.4}", measure::rms(&heard));
        host.deactivate(player);
        Ok(())
    }

    /// Automation on several parameters, keys and a controller, spread over the whole time.
    fn moves(score: &mut Score, rate: f64, seconds: f64, sharp: f64) -> Outcome<()> {
        let at = |time: f64| (time * rate) as u64;
        let mut time = 0.5;
        let mut round = 0_u32;
        while time < seconds {
            score.param(at(time), "note", if round.is_multiple_of(2) { sharp } else { 0.0 })?;
            for step in 0..40 {
                let value = f64::from((step * 7 + round * 3) % 41) / 40.0;
                score.param(at(time + 0.013 * f64::from(step)), "note_strength", value)?;
                score.param(at(time + 0.017 * f64::from(step)), "temperature", 0.3 + 0.3 * value)?;
                // Not down to silence, which would look like a gap.
                score.param(at(time + 0.019 * f64::from(step)), "gain", 0.5 + 0.4 * value)?;
            }
            let key = 48 + (round % 24) as u8;
            score.add(at(time + 0.3), Move::KeyDown(key));
            score.add(at(time + 0.4), Move::Controller(1, (round % 128) as u8));
            score.add(at(time + 0.6), Move::KeyUp(key));
            // Shorter than a frame.
            score.add(at(time + 0.9), Move::KeyDown(60));
            score.add(at(time + 0.901), Move::KeyUp(60));
            time += 1.0;
            round += 1;
        }
        Ok(())
    }

    fn play(mut player: Player, score: &Score, options: &Options) -> Outcome<(Player, Vec<f32>)> {
        let warm = (options.warm_up * options.rate) as u64;
        let end = warm + (options.seconds * options.rate) as u64;
        let mut heard = Vec::with_capacity((end - warm) as usize + options.block as usize);
        let fixed = Blocks::Fixed(options.block as usize);
        let blocks = if options.random { Blocks::Random(u64::from(options.block)) } else { fixed };
        player.play(score, 0..warm, blocks, Pace::WallClock)?;
        player.watch = Some(Watch { enter, exit });
        player.play_with(score, warm..end, blocks, Pace::WallClock, |left, _| {
            heard.extend_from_slice(left);
        })?;
        player.watch = None;
        Ok((player, heard))
    }
}
