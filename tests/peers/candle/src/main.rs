//! A peer of `cargo xtask bench`: one decoder step of MusicGen's shape on candle, Q8_0 weights, both guidance rows in one
//! batch, an f32 cache that is full up to a given length. Reads `run LENGTH SECONDS` lines, answers each with
//! `steps_per_s RATE STEPS`; ends at the end of its input. One thread of its own; candle's pools beside it.

mod model;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::Result;

use model::{Cache, Decoder, Shape};

const WARM_UP: usize = 3;
const LEAST_STEPS: usize = 5;

fn main() {
    if let Err(why) = serve() {
        println!("error {why}");
        std::process::exit(1);
    }
}

fn serve() -> std::result::Result<(), String> {
    let options = options(std::env::args().skip(1))?;
    let number = |name: &str| -> std::result::Result<usize, String> {
        options.get(name).and_then(|text| text.parse().ok()).ok_or_else(|| format!("{name} wants a number"))
    };
    let shape = Shape {
        blocks: number("--blocks")?,
        hidden: number("--hidden")?,
        feed: number("--feed")?,
        heads: number("--heads")?,
        codebooks: number("--codebooks")?,
        vocab: number("--vocab")?,
        tokens: number("--tokens")?,
    };
    let lengths = options.get("--kv").ok_or("--kv wants lengths")?.split(',').map(str::parse::<usize>);
    let lengths = lengths.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| format!("--kv: {e}"))?;
    let failed = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let decoder = Decoder::new(shape).map_err(failed)?;
    let mut caches = HashMap::new();
    for length in lengths {
        caches.insert(length, Cache::new(shape, length).map_err(failed)?);
    }
    say("ready candle 0.11.1, Q8_0 weights, f32 cache")?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let request = match words[..] {
            ["run", length, seconds] => length.parse::<usize>().ok().zip(seconds.parse::<f64>().ok()),
            _ => None,
        };
        let found = request.and_then(|(length, seconds)| Some((caches.get_mut(&length)?, seconds)));
        match found {
            Some((cache, seconds)) => {
                let (rate, count) = measure(&decoder, cache, seconds).map_err(failed)?;
                say(&format!("steps_per_s {rate} {count}"))?;
            }
            None => say(&format!("error not understood: {line}"))?,
        }
    }
    Ok(())
}

fn say(line: &str) -> std::result::Result<(), String> {
    println!("{line}");
    std::io::stdout().flush().map_err(|e| e.to_string())
}

/// `--name value` pairs.
fn options(arguments: impl Iterator<Item = String>) -> std::result::Result<HashMap<String, String>, String> {
    let all: Vec<String> = arguments.collect();
    let pair = |pair: &[String]| match pair {
        [name, value] if name.starts_with("--") => Ok((name.clone(), value.clone())),
        other => Err(format!("not understood: {}", other.join(" "))),
    };
    all.chunks(2).map(pair).collect()
}

fn measure(decoder: &Decoder, cache: &mut Cache, seconds: f64) -> Result<(f64, usize)> {
    let mut code = 1;
    for _ in 0..WARM_UP {
        decoder.step(cache, &mut code)?;
    }
    let (began, mut count) = (Instant::now(), 0);
    while count < LEAST_STEPS || began.elapsed().as_secs_f64() < seconds {
        decoder.step(cache, &mut code)?;
        count += 1;
    }
    Ok((count as f64 / began.elapsed().as_secs_f64(), count))
}
