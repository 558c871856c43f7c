//! What a card does for the engine: its step against the processor's in f32, any company of rows, and the whole stream through
//! the player, roll-over, steering, sampling and the codec included. One JSON object per line on stdout, what is measured first
//! first; cuda/device-check.sh runs it where there is a card. Main thread.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::cuda::{Card, CudaBackend, CudaModel, Library, choose};
use tiller_engine::checkpoint::Checkpoint;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::precision::Precision;
use tiller_tests::bench::progress::Progress;
use tiller_tests::bench::shape::{Shape, find};
use tiller_tests::bench::stream::Stream;
use tiller_tests::bench::subject::Subject;
use tiller_tests::card::{company, compare};
use tiller_tests::counting::Counting;
use tiller_tests::host::Outcome;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of a bf16 model.
const BOUND: f64 = 2e-2;

/// Checks a card through the engine: parity with the processor, and the stream.
#[derive(Parser)]
struct Options {
    /// Which shapes; random weights are written under --cache the first time.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Demo, Shape::Small])]
    shape: Vec<Shape>,
    /// The card, as the driver counts; the one with most free memory when absent.
    #[arg(long)]
    gpu: Option<u32>,
    /// Positions that are compared with the processor in f32.
    #[arg(long, default_value_t = 32)]
    positions: usize,
    /// Frames of the stream; 0 leaves it out.
    #[arg(long, default_value_t = 2400)]
    frames: usize,
    /// Threads of the processor, for the codec too.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Folder for random checkpoints.
    #[arg(long, default_value = "target/bench")]
    cache: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("{}", json!({ "stage": "engine", "error": why }));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<bool> {
    let library = Library::open().map_err(|error| error.to_string())?;
    let cards = library.cards().map_err(|error| error.to_string())?;
    for card in &cards {
        println!("{}", json!({ "stage": "engine-card", "card": card.to_string(), "driver": card.driver }));
    }
    let card = choose(library, options.gpu).map_err(|error| error.to_string())?;
    let mut passed = true;
    for shape in &options.shape {
        passed &= check(options, library, &card, *shape)?;
    }
    Ok(passed)
}

fn check(options: &Options, library: &Library, card: &Card, shape: Shape) -> Outcome<bool> {
    let mut progress = Progress::new();
    let found = find(shape, None, &options.cache, &progress)?;
    let files = found.files.clone();
    let began = Instant::now();
    let subject = Subject::load(found, Precision::F32, options.threads)?;
    let loaded = began.elapsed().as_secs_f64();
    let (model, prompt) = (&subject.model, &subject.prompt);
    let began = Instant::now();
    let checkpoint = Checkpoint::load(&files, &|_| ()).map_err(|error| error.to_string())?;
    let positions = Player::capacity(model, None);
    let on_card = CudaModel::load(library, card, &checkpoint.weights, &checkpoint.config, positions)
        .map_err(|error| error.to_string())?;
    drop(checkpoint);
    let uploaded = began.elapsed().as_secs_f64();
    let backend = |capacity| CudaBackend::new(on_card.clone(), capacity).map_err(|error| error.to_string());
    let mut exact = CpuBackend::new(model.clone(), Arc::new(Pool::new(options.threads)), options.positions);
    let compared = compare(model, prompt, &mut exact, &mut backend(options.positions)?, options.positions)?;
    let same = company(model, prompt, &mut backend(options.positions)?, options.positions);
    let pass = compared.logits_max_rel < BOUND
        && compared.taps_max_rel < BOUND
        && compared.steering_max_rel > 1e-3
        && same.is_ok();
    println!(
        "{}",
        json!({
            "stage": "engine-parity", "shape": shape.name(), "card": card.name, "positions": options.positions,
            "bound": BOUND, "logits_max_rel": compared.logits_max_rel, "taps_max_rel": compared.taps_max_rel,
            "drawn_equal_share": compared.drawn_equal_share, "greedy_equal_share": compared.greedy_equal_share,
            "steering_max_rel": compared.steering_max_rel,
            "company_same_bits": same.as_ref().map_or_else(|why| json!(why), |()| json!(true)),
            "load_seconds": loaded, "upload_seconds": uploaded, "pass": pass,
        })
    );
    if options.frames > 0 {
        println!("{}", stream(options, &subject, backend(positions)?, &card.name, &mut progress)?);
    }
    progress.finish();
    Ok(pass)
}

/// The player on the card, the codec on the processor.
fn stream(
    options: &Options,
    subject: &Subject,
    backend: CudaBackend,
    card: &str,
    progress: &mut Progress,
) -> Outcome<Value> {
    let (model, prompt) = (subject.model.clone(), subject.prompt.clone());
    let player = Player::computed_by(Box::new(backend), subject.pool.clone(), model, prompt, None);
    let mut stream = Stream::of(player);
    let measured = stream.play(subject, options.frames, &[500, 1500], "stream", progress)?;
    Ok(json!({
        "stage": "engine-stream", "shape": subject.name, "card": card, "frames": options.frames,
        "codec": format!("CPU, {} threads", options.threads), "rtf": measured.rtf, "frame": measured.spread.report(),
        "rollovers": measured.rollovers, "allocations_per_step": measured.allocations_per_step, "rms": measured.rms,
    }))
}
