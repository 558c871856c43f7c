//! Other programs that take the same decoder step: each in a process of its own, told by lines on its stdin when to run, so
//! that ours and theirs can take turns. While it is not told to, a peer waits for a line and uses no core.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tiller_engine::checkpoint::DecoderConfig;

use crate::host::Outcome;

/// Who can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerKind {
    /// Hugging Face transformers on torch, bf16.
    Torch,
    /// The same in f32.
    TorchF32,
    /// candle with Q8_0 weights.
    Candle,
}

impl PeerKind {
    /// As on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torch => "torch",
            Self::TorchF32 => "torch-f32",
            Self::Candle => "candle",
        }
    }
}

/// Where the peers' programs are.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// A Python that has torch and transformers.
    pub torch_python: Option<PathBuf>,
    /// The built tests/peers/candle.
    pub candle: Option<PathBuf>,
}

/// What a peer has to be like.
pub struct Task<'a> {
    /// Shape of its decoder.
    pub shape: &'a DecoderConfig,
    /// Tokens of the prompt that it attends to.
    pub tokens: usize,
    /// Cache lengths that it will be asked for.
    pub lengths: &'a [usize],
    /// Threads that it may use.
    pub threads: usize,
}

/// A peer that runs.
pub struct Peer {
    kind: PeerKind,
    /// What it says that it is, versions included.
    pub detail: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// A line that a peer writes.
#[derive(Clone, Debug, PartialEq)]
enum Reply {
    /// `ready WHAT`: its model is made and its caches are full.
    Ready(String),
    /// `steps_per_s RATE STEPS`.
    Steps { per_second: f64, count: usize },
}

impl Peer {
    /// Starts the program and waits until it is ready.
    ///
    /// # Errors
    /// There is no such program, or it does not answer as it should.
    pub fn start(kind: PeerKind, programs: &Programs, task: &Task) -> Outcome<Self> {
        let missing = |what: &str| format!("--peer {}: {what}; `cargo xtask bench` finds it", kind.name());
        let mut command = match kind {
            PeerKind::Candle => Command::new(programs.candle.as_ref().ok_or_else(|| missing("no --candle-program"))?),
            PeerKind::Torch | PeerKind::TorchF32 => {
                let python = programs.torch_python.as_ref().ok_or_else(|| missing("no --torch-python"))?;
                let mut command = Command::new(python);
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/bench/torch_step.py"));
                command.args(["--dtype", if kind == PeerKind::Torch { "bf16" } else { "f32" }]);
                command
            }
        };
        let threads = task.threads.to_string();
        command
            .args(arguments(task))
            .env("OMP_NUM_THREADS", &threads)
            .env("RAYON_NUM_THREADS", &threads)
            // Spinning threads of a waiting torch would take the cores from everything else.
            .env("OMP_WAIT_POLICY", "passive")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| missing(&format!("it could not be started: {error}")))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Some(stdout) = stdout else { return Err(missing("it has no stdout")) };
        let mut peer = Self { kind, detail: String::new(), child, stdin, stdout: BufReader::new(stdout) };
        match peer.reply()? {
            Reply::Ready(detail) => peer.detail = detail,
            other => return Err(format!("{} should be ready, said {other:?}", kind.name())),
        }
        Ok(peer)
    }

    /// Who it is.
    pub fn kind(&self) -> PeerKind {
        self.kind
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Steps per second at one of the cache lengths, measured for about `seconds`.
    ///
    /// # Errors
    /// The peer is gone, or says something else.
    pub fn run(&mut self, length: usize, seconds: f64) -> Outcome<f64> {
        let gone = || format!("{} is gone", self.kind.name());
        let stdin = self.stdin.as_mut().ok_or_else(gone)?;
        writeln!(stdin, "run {length} {seconds}").and_then(|()| stdin.flush()).map_err(|_| gone())?;
        match self.reply()? {
            Reply::Steps { per_second, count } if count > 0 => Ok(per_second),
            other => Err(format!("{} should have run, said {other:?}", self.kind.name())),
        }
    }

    fn reply(&mut self) -> Outcome<Reply> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => Err(format!("{} ended; what it said is above", self.kind.name())),
            Ok(_) => parse(&line).map_err(|why| format!("{}: {why}", self.kind.name())),
            Err(error) => Err(format!("{}: {error}", self.kind.name())),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input is the end of its work; one that hangs is ended.
        self.stdin = None;
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What every peer is told at its start.
fn arguments(task: &Task) -> Vec<OsString> {
    let shape = task.shape;
    let lengths: Vec<String> = task.lengths.iter().map(usize::to_string).collect();
    let numbers = [
        ("--blocks", shape.num_hidden_layers),
        ("--hidden", shape.hidden_size),
        ("--feed", shape.ffn_dim),
        ("--heads", shape.num_attention_heads),
        ("--codebooks", shape.num_codebooks),
        ("--channels", shape.audio_channels),
        ("--vocab", shape.vocab_size),
        ("--tokens", task.tokens),
        ("--threads", task.threads),
    ];
    let pairs = numbers.map(|(name, number)| [name.to_owned(), number.to_string()]);
    let all = pairs.into_iter().flatten().chain(["--kv".to_owned(), lengths.join(",")]);
    all.map(OsString::from).collect()
}

fn parse(line: &str) -> Outcome<Reply> {
    let line = line.trim();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let unknown = || format!("its answer is none: `{line}`");
    match word {
        "ready" => Ok(Reply::Ready(rest.to_owned())),
        "steps_per_s" => {
            let mut numbers = rest.split_whitespace();
            let per_second: f64 = numbers.next().and_then(|number| number.parse().ok()).ok_or_else(unknown)?;
            let count = numbers.next().and_then(|number| number.parse().ok()).ok_or_else(unknown)?;
            match per_second.is_finite() && per_second > 0.0 && numbers.next().is_none() {
                true => Ok(Reply::Steps { per_second, count }),
                false => Err(unknown()),
            }
        }
        "error" => Err(rest.to_owned()),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shape::{Shape, config_of};

    #[test]
    fn answers_are_understood() {
        assert_eq!(parse("ready torch 2.15, bf16\n"), Ok(Reply::Ready("torch 2.15, bf16".to_owned())));
        assert_eq!(parse("steps_per_s 13.25 27"), Ok(Reply::Steps { per_second: 13.25, count: 27 }));
        assert_eq!(parse("error no such length"), Err("no such length".to_owned()));
        for wrong in ["", "steps_per_s", "steps_per_s nan 3", "steps_per_s 3", "steps_per_s 1 2 3", "hello"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_peer_is_told_the_shape() {
        let config = config_of(Shape::Small).unwrap();
        let task = Task { shape: &config.decoder, tokens: 9, lengths: &[500, 1500], threads: 2 };
        let line: Vec<String> = arguments(&task).into_iter().map(|a| a.to_string_lossy().into_owned()).collect();
        for pair in [["--blocks", "24"], ["--hidden", "1024"], ["--kv", "500,1500"], ["--tokens", "9"]] {
            assert!(line.windows(2).any(|two| two == pair), "{pair:?} in {line:?}");
        }
    }

    #[test]
    fn a_peer_that_is_not_there_is_named() {
        let config = config_of(Shape::Small).unwrap();
        let task = Task { shape: &config.decoder, tokens: 9, lengths: &[500], threads: 2 };
        let programs = Programs { candle: Some("/no/such/program".into()), torch_python: None };
        for kind in [PeerKind::Candle, PeerKind::Torch] {
            let why = Peer::start(kind, &programs, &task).err().unwrap();
            assert!(why.contains(kind.name()), "{why}");
        }
    }
}
