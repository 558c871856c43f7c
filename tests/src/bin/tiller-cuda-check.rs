//! What a card does for the engine: its step against the processor's in f32, any company of rows, its codec against the
//! processor's, and the whole stream through the player, roll-over, steering, sampling and the codec included, the codec on the
//! card and on the processor. One JSON object per line on stdout, what is measured first first; cuda/device-check.sh runs it where
//! there is a card. Main thread.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use tiller_engine::backend::conformance::{company, compare};
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::cuda::{CudaBackend, CudaCodec, CudaModel, Library, MOST_APART, choose};
use tiller_engine::backend::gpu::Gpu;
use tiller_engine::backend::{CodecStream, proof};
use tiller_engine::checkpoint::Checkpoint;
use tiller_engine::codec::DecoderStream;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::precision::Precision;
use tiller_tests::bench::progress::Progress;
use tiller_tests::bench::shape::{Shape, find};
use tiller_tests::bench::spread::Spread;
use tiller_tests::bench::stream::Stream;
use tiller_tests::bench::subject::Subject;
use tiller_tests::card::decode;
use tiller_tests::codec::arbitrary;
use tiller_tests::counting::Counting;
use tiller_tests::host::Outcome;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
    /// Frames of the stream with the codec on the processor, for comparison; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    compared_frames: usize,
    /// Waits for this file once the checkpoint is loaded, before the card is used for anything: what is measured has the card to
    /// itself, and what takes the processor's time is over by then. Beside it, a file that ends in `.ready` appears.
    #[arg(long)]
    gate: Option<PathBuf>,
    /// Frames that the codec alone is timed on; it is compared with the processor's on fewer.
    #[arg(long, default_value_t = 600)]
    codec_frames: usize,
    /// Bytes that the card's bandwidth is measured on.
    #[arg(long, default_value_t = 2 << 30)]
    probe: u64,
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
    let mut passed = true;
    for shape in &options.shape {
        passed &= check(options, library, *shape)?;
    }
    Ok(passed)
}

/// Waits for its turn.
fn wait(gate: &Path) -> Outcome<()> {
    let ready = gate.with_extension("ready");
    std::fs::write(&ready, b"").map_err(|error| format!("{}: {error}", ready.display()))?;
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn check(options: &Options, library: &Library, shape: Shape) -> Outcome<bool> {
    let mut progress = Progress::new();
    let found = find(shape, None, &options.cache, &progress)?;
    let files = found.files.clone();
    let began = Instant::now();
    let subject = Subject::load(found, Precision::F32, options.threads)?;
    let loaded = began.elapsed().as_secs_f64();
    let (model, prompt) = (&subject.model, &subject.prompt);
    let checkpoint = Checkpoint::load(&files, &|_| ()).map_err(|error| error.to_string())?;
    if let Some(gate) = &options.gate {
        wait(gate)?;
    }
    let cards = library.cards().map_err(|error| error.to_string())?;
    for card in &cards {
        println!("{}", json!({ "stage": "engine-card", "card": card.to_string(), "driver": card.driver }));
    }
    let card = &choose(library, options.gpu).map_err(|error| error.to_string())?;
    // What an instance asks of a card before it plays there.
    let began = Instant::now();
    let asked = proof::examine(&Gpu::Cuda(card.clone())).map_err(|error| error.to_string());
    let (seconds, refused) = (began.elapsed().as_secs_f64(), asked.as_ref().err());
    println!("{}", json!({ "stage": "engine-proof", "shape": shape.name(), "seconds": seconds, "refused": refused }));
    let began = Instant::now();
    let positions = Player::capacity(model, None);
    let on_card = CudaModel::load(library, card, &checkpoint.weights, &checkpoint.config, positions)
        .map_err(|error| error.to_string())?;
    let config = &checkpoint.config.codec;
    let codec = CudaCodec::load(library, card, &checkpoint.weights, config, model.codec());
    drop(checkpoint);
    let uploaded = began.elapsed().as_secs_f64();
    let backend = |capacity| CudaBackend::new(on_card.clone(), capacity).map_err(|error| error.to_string());
    let mut exact = CpuBackend::new(model.clone(), Arc::new(Pool::new(options.threads)), options.positions);
    let compared = compare(model, prompt, &mut exact, &mut backend(options.positions)?, options.positions)
        .map_err(|error| error.to_string())?;
    let same =
        company(model, prompt, &mut backend(options.positions)?, options.positions).map_err(|error| error.to_string());
    let pass = compared.logits_max_rel < proof::MOST_APART
        && compared.taps_max_rel < proof::MOST_APART
        && compared.steering_max_rel > 1e-3
        && same.is_ok()
        && asked.is_ok();
    println!(
        "{}",
        json!({
            "stage": "engine-parity", "shape": shape.name(), "card": card.name, "positions": options.positions,
            "bound": proof::MOST_APART, "logits_max_rel": compared.logits_max_rel, "taps_max_rel": compared.taps_max_rel,
            "drawn_equal_share": compared.drawn_equal_share, "greedy_equal_share": compared.greedy_equal_share,
            "steering_max_rel": compared.steering_max_rel,
            "company_same_bits": same.as_ref().map_or_else(|why| json!(why), |()| json!(true)),
            "load_seconds": loaded, "upload_seconds": uploaded, "pass": pass,
        })
    );
    let mut passed = pass;
    let codec = match codec {
        Ok(codec) => {
            passed &= check_codec(&subject, &codec, &card.name, options.codec_frames)?;
            Some(codec)
        }
        Err(why) => {
            println!("{}", json!({ "stage": "engine-codec", "shape": shape.name(), "error": why.to_string() }));
            passed = false;
            None
        }
    };
    let rates = library.bandwidth(card.number, options.probe).map_err(|error| error.to_string())?;
    let bandwidth = rates[0].max(rates[1]);
    for (codec, frames) in [(codec.as_ref(), options.frames), (None, options.compared_frames)] {
        if frames > 0 {
            let measured = stream(&subject, backend(positions)?, codec, &card.name, bandwidth, frames, &mut progress);
            println!("{}", measured?);
        }
    }
    progress.finish();
    Ok(passed)
}

/// The codec alone: pieces of several lengths against the processor's, then the time of a frame on either.
fn check_codec(subject: &Subject, codec: &Arc<CudaCodec>, card: &str, frames: usize) -> Outcome<bool> {
    let said = |error: tiller_engine::error::EngineError| error.to_string();
    let decoder = subject.model.codec();
    let mut exact = DecoderStream::on(subject.pool.clone(), decoder.clone(), 2);
    let mut ours = codec.stream(2).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for hop in [1, 2] {
        found.push(decode(decoder, &mut exact, &mut ours, &[1, 3, 4, frames / 15, 2, frames / 10], hop)?);
    }
    let largest = found.iter().fold(0.0f64, |most, one| most.max(one.largest));
    let apart = found.iter().fold(0.0f64, |most, one| most.max(one.apart)) / largest;
    let verified = codec.verify();
    let codes = arbitrary(frames, decoder.codebooks(), decoder.codebook_size(), 7);
    let mut audio = vec![0.0; 4 * decoder.hop() * decoder.channels()];
    // A frame's codes go there and its samples come back, one after the other.
    let mut time = |stream: &mut dyn CodecStream, hop: usize| -> Outcome<Spread> {
        stream.reset();
        let mut seconds = Vec::new();
        for some in codes.chunks(hop * decoder.codebooks()) {
            let began = Instant::now();
            stream.push(some).map_err(said)?;
            stream.collect().map_err(said)?;
            seconds.push(began.elapsed().as_secs_f32() / hop as f32);
            while stream.read(&mut audio) > 0 {}
        }
        stream.reset();
        Ok(Spread::of(seconds.into_iter().skip(frames / 12)))
    };
    let (on_card, on_processor) = (time(&mut ours, 1)?, time(&mut exact, 2)?);
    let pass = apart <= MOST_APART && verified.is_ok();
    println!(
        "{}",
        json!({
            "stage": "engine-codec", "shape": subject.name, "card": card, "bound": MOST_APART, "apart_of_largest": apart,
            "samples": found.iter().map(|one| one.samples).sum::<usize>(),
            "verified": verified.as_ref().map_or_else(|why| json!(why.to_string()), |()| json!(true)),
            "frame_on_card_hop_1": on_card.report(), "frame_on_processor_hop_2": on_processor.report(),
            "processor_threads": subject.threads, "pass": pass,
        })
    );
    Ok(pass)
}

/// The player on the card, its codec there too or on the processor.
fn stream(
    subject: &Subject,
    backend: CudaBackend,
    codec: Option<&Arc<CudaCodec>>,
    card: &str,
    bandwidth: f64,
    frames: usize,
    progress: &mut Progress,
) -> Outcome<Value> {
    let (model, prompt) = (subject.model.clone(), subject.prompt.clone());
    let mut player = Player::computed_by(Box::new(backend), subject.pool.clone(), model, prompt, None);
    if let Some(codec) = codec {
        player.decode_by(|| codec.boxed()).map_err(|error| error.to_string())?;
    }
    let mut stream = Stream::of(player);
    let measured = stream.play(subject, frames, &[500, 1000], "stream", progress)?;
    let decoder = &subject.config.decoder;
    let (hidden, blocks) = (decoder.hidden_size, decoder.num_hidden_layers);
    let weights = blocks * (6 * hidden * hidden + 2 * hidden * decoder.ffn_dim)
        + decoder.num_codebooks * decoder.vocab_size * hidden;
    // In 16 bits, like keys and values of both guidance rows; what a rebuild beside a step reads is not counted.
    let bytes = 2.0 * weights as f64 + (2 * 2 * 2 * hidden * blocks) as f64 * measured.mean_positions;
    let mut report = measured.report();
    report["stage"] = json!("engine-stream");
    report["shape"] = json!(subject.name);
    report["card"] = json!(card);
    report["count"] = json!(frames);
    report["codec"] = match codec {
        Some(_) => json!("card"),
        None => json!(format!("CPU, {} threads", subject.threads)),
    };
    report["mean_positions"] = json!(measured.mean_positions);
    report["bandwidth"] = json!(bandwidth);
    report["bandwidth_share"] = json!(bytes / (measured.spread.mean * 1e-3) / bandwidth);
    Ok(report)
}
