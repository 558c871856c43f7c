//! `cargo xtask bench`: how fast this machine plays, and how that compares with what it could at best and with peers. Every
//! round measures everything in turn on the main thread, so that figures of one run can be set against each other.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use tiller_engine::precision::Precision;
use tiller_tests::bench::bandwidth::Probe;
use tiller_tests::bench::codec::{self, HOPS};
use tiller_tests::bench::growth::Growth;
use tiller_tests::bench::handover;
use tiller_tests::bench::load::Load;
use tiller_tests::bench::machine::Machine;
use tiller_tests::bench::peer::{Peer, PeerKind, Programs, Task};
use tiller_tests::bench::plugin;
use tiller_tests::bench::progress::Progress;
use tiller_tests::bench::report::{Report, Round};
use tiller_tests::bench::shape::{Shape, find};
use tiller_tests::bench::steps::Steps;
use tiller_tests::bench::stolen::Moment;
use tiller_tests::bench::stream::Stream;
use tiller_tests::bench::subject::Subject;
use tiller_tests::bench::table::table;
use tiller_tests::counting::Counting;
use tiller_tests::host::Outcome;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Seconds of the bandwidth probe in a round.
const PROBE_SECONDS: f64 = 0.5;
/// Seconds of the codec at one hop in a round.
const CODEC_SECONDS: f64 = 1.0;

/// Measures how fast this machine plays: read bandwidth, decoder steps, codec, the whole stream, peers in turn.
///
/// Each round measures everything once, ours and the peers' in turn; the best of the rounds is reported and every round
/// listed, with the time that the machine's host and other processes took. Random weights of a published shape are written
/// once under target/bench. Without --plugin, --peer, --load and --minutes these are left out.
#[derive(Parser)]
struct Options {
    /// A checkpoint of this shape: random weights, or the embedded demo.
    #[arg(long, value_enum, default_value_t = Shape::Small)]
    shape: Shape,
    /// A MusicGen directory instead.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Number format of the packed weights: f32, bf16, int8 or int4.
    #[arg(long, default_value_t = Precision::Int8)]
    precision: Precision,
    /// Threads of the engine, the probe and the peers; all cores when absent.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Who to compare with, several times or as a list.
    #[arg(long, value_enum, value_delimiter = ',')]
    peer: Vec<PeerKind>,
    /// Measure the stream once more beside so many busy threads.
    #[arg(long, default_value_t = 0)]
    load: usize,
    /// Frames of the stream in each round; 3,000 hold a roll-over of the published window.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    frames: u32,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Cache lengths of the decoder steps; the first one gives the headline. Longer ones than the window are cut to it.
    #[arg(long, value_delimiter = ',', default_values_t = [500, 1500])]
    kv: Vec<usize>,
    /// Seconds of decoder steps at each length, ours and each peer's, in each round.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Minutes of endless play for the growth ratio; 0 leaves it out.
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Host the built plugin: delay and cost of process().
    #[arg(long)]
    plugin: bool,
    /// Print one JSON object on stdout; the table goes to stderr.
    #[arg(long)]
    json: bool,
    /// Folder for random checkpoints.
    #[arg(long, hide = true, default_value = "target/bench")]
    cache: PathBuf,
    /// The .clap for --plugin.
    #[arg(long, hide = true, default_value = "target/bundled/Tiller.clap")]
    bundle: PathBuf,
    /// A Python with torch and transformers.
    #[arg(long, hide = true)]
    torch_python: Option<PathBuf>,
    /// The built tests/peers/candle.
    #[arg(long, hide = true)]
    candle_program: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut progress = Progress::new();
    let outcome = run(&options, &mut progress);
    progress.finish();
    match outcome {
        Ok(report) if options.json => {
            eprintln!("{}", table(&report));
            println!("{}", report.json());
            ExitCode::SUCCESS
        }
        Ok(report) => {
            println!("{}", table(&report));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            if options.json {
                println!("{}", json!({ "ok": false, "error": why }));
            }
            ExitCode::FAILURE
        }
    }
}

/// What is measured again in every round.
struct Bench<'a> {
    options: &'a Options,
    subject: Subject,
    lengths: Vec<usize>,
    probe: Probe,
    steps: Steps,
    stream: Stream,
    peers: Vec<Peer>,
}

fn run(options: &Options, progress: &mut Progress) -> Outcome<Report> {
    if options.kv.is_empty() || options.kv.contains(&0) {
        return Err("--kv: cache lengths start at 1".to_owned());
    }
    if !(options.seconds > 0.0 && options.minutes >= 0.0) {
        return Err("--seconds and --minutes are no negative numbers".to_owned());
    }
    let machine = Machine::here();
    let threads = options.threads.map_or(machine.cores, usize::from);
    let found = find(options.shape, options.checkpoint.as_deref(), &options.cache, progress)?;
    progress.begin("loading the model", 1);
    let subject = Subject::load(found, options.precision, threads)?;
    let mut lengths: Vec<usize> = Vec::new();
    for length in options.kv.iter().map(|kv| (*kv).min(subject.model.window())) {
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let mut stream = Stream::new(&subject);
    let mut bench = Bench {
        probe: stream.leaving_out(|| Probe::new(threads))?,
        steps: stream.leaving_out(|| Ok(Steps::new(&subject, longest, progress)))?,
        stream,
        peers: Vec::new(),
        options,
        lengths,
        subject,
    };
    bench.start_peers(progress)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress.round(format!("round {round} of {}", options.rounds));
        let measured = bench.round(progress)?;
        progress.say(&format!(
            "round {round}: {:.1} GB/s, {:.1} steps/s at KV {}, stream {:.2}x; stolen {:.1} %, other processes {:.1} %",
            measured.bandwidth / 1e9,
            measured.steps.first().map_or(0.0, |steps| steps.per_second),
            bench.lengths[0],
            measured.stream.rtf,
            measured.stolen.steal * 1e2,
            measured.stolen.others * 1e2,
        ));
        rounds.push(measured);
    }
    progress.round(String::new());
    let peers = bench.peers.iter().map(|peer| (peer.kind().name(), peer.detail.clone())).collect();
    bench.peers.clear();
    let growth = match options.minutes > 0.0 {
        true => Some(Growth::measure(&mut bench.stream, options.minutes, progress)?),
        false => None,
    };
    let plugin = options.plugin.then(|| plugin::measure(&options.bundle, progress)).transpose()?;
    let Bench { subject, lengths, stream, .. } = bench;
    Ok(Report {
        machine,
        model: subject.name.clone(),
        precision: subject.precision.name(),
        threads: (threads, subject.pool.threads()),
        made_up_directions: subject.made_up_directions,
        load_seconds: subject.load_seconds,
        window: stream.window(),
        lengths: lengths.iter().map(|length| (*length, subject.bytes_per_step(*length))).collect(),
        peers,
        load: options.load,
        rounds,
        growth,
        plugin,
    })
}

impl Bench<'_> {
    fn start_peers(&mut self, progress: &Progress) -> Outcome<()> {
        let programs =
            Programs { torch_python: self.options.torch_python.clone(), candle: self.options.candle_program.clone() };
        let task = Task {
            shape: &self.subject.config.decoder,
            tokens: self.subject.prompt.cross.tokens(),
            lengths: &self.lengths,
            threads: self.subject.threads,
        };
        for kind in &self.options.peer {
            progress.begin(&format!("{} makes its model", kind.name()), 1);
            self.peers.push(Peer::start(*kind, &programs, &task)?);
        }
        Ok(())
    }

    fn round(&mut self, progress: &Progress) -> Outcome<Round> {
        let seconds = self.options.seconds;
        let children: Vec<u32> = self.peers.iter().map(Peer::process).collect();
        let before = Moment::now(&children);
        let mut round = Round { peers: vec![Vec::new(); self.peers.len()], ..Round::default() };
        for &length in &self.lengths {
            // Before each, since it changes within minutes on a machine that others use, too.
            progress.begin("read bandwidth", 1);
            let bandwidth = self.probe.measure(PROBE_SECONDS);
            if bandwidth > round.bandwidth {
                (round.bandwidth, round.handover) = (bandwidth, handover::seconds(self.subject.threads));
            }
            progress.begin(&format!("decoder at KV {length}"), 1);
            round.steps.push(self.steps.measure(&self.subject, length, seconds));
            for (peer, rates) in self.peers.iter_mut().zip(&mut round.peers) {
                progress.begin(&format!("{} at KV {length}", peer.kind().name()), 1);
                rates.push(peer.run(length, seconds)?);
            }
        }
        for hop in HOPS {
            progress.begin(&format!("codec at hop {hop}"), 1);
            round.codec.push(codec::rtf(&self.subject, hop, CODEC_SECONDS)?);
        }
        let frames = self.options.frames as usize;
        round.stream = self.stream.play(&self.subject, frames, &self.lengths, "stream", progress)?;
        // Before the load begins: its threads are ours and would hide what others did.
        round.stolen = Moment::now(&children).since(&before);
        if self.options.load > 0 {
            let load = Load::start(self.options.load)?;
            round.loaded =
                Some(self.stream.play(&self.subject, frames, &self.lengths, "stream under load", progress)?);
            drop(load);
        }
        Ok(round)
    }
}
