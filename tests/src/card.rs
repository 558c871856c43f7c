//! Checks of whoever computes steps and decodes codes that only tests ask for; the others are the engine's own (`conformance`). On
//! the processor everywhere, and on a card, or the emulated driver, where there is one.

use std::sync::Arc;

use tiller_engine::backend::conformance::{apart, largest, pair};
use tiller_engine::backend::{Backend, CodecStream, Draw, Step, StepRow};
use tiller_engine::codec::CodecDecoder;
use tiller_engine::control::ControlFrame;
use tiller_engine::decoder::MAX_CODEBOOKS;
use tiller_engine::decoder::delay_pattern::DelayPattern;
use tiller_engine::decoder::sampling::Sampling;
use tiller_engine::model::Model;
use tiller_engine::text::Prompt;

use crate::codec::arbitrary;
use crate::host::Outcome;

/// Codes of `step`, for a window that starts at step `base`, by a fresh prefill on `backend` of what was played before:
/// BOS and the sampled `heard` columns under the delay pattern. Unsteered.
///
/// # Errors
/// The backend gives up.
pub fn prefilled(
    model: &Model,
    prompt: &Arc<Prompt>,
    backend: &mut dyn Backend,
    heard: &[Vec<u32>],
    control: &ControlFrame,
    base: usize,
    step: usize,
) -> Outcome<Vec<u32>> {
    let decoder = model.decoder();
    let pattern = DelayPattern::new(decoder.codebooks(), model.channels());
    let column = |position: usize| {
        let mut codes = [if position == 0 { decoder.bos() } else { decoder.pad() }; MAX_CODEBOOKS];
        for (codebook, code) in codes.iter_mut().enumerate().take(decoder.codebooks()) {
            if position > pattern.delay(codebook) {
                *code = heard[base + position - 1][codebook];
            }
        }
        codes
    };
    let last = step - base;
    for first in (0..last).step_by(4) {
        let positions = first..(first + 4).min(last);
        let rows: Vec<StepRow> =
            positions.flat_map(|position| pair([0, 1], position, column(position), prompt, None)).collect();
        let pass = Step { rows: &rows, tables: &[], draws: &[], taps: &[] };
        backend.step(&pass).map_err(|error| error.to_string())?;
    }
    let sampling =
        Sampling { temperature: control.temperature, guidance: control.guidance, top_k: control.top_k as usize };
    let rows = pair([0, 1], last, column(last), prompt, None);
    let draws = [Draw { sampling, seed: control.seed, frame: control.index }];
    let pass = Step { rows: &rows, tables: &[], draws: &draws, taps: &[] };
    backend.step(&pass).map_err(|error| error.to_string())?;
    Ok((0..decoder.codebooks()).map(|codebook| backend.code(0, codebook)).collect())
}

/// How far a codec stream is from another of the same codec.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Largest difference of a sample, and the largest sample.
    pub apart: f64,
    pub largest: f64,
    /// Samples that were compared.
    pub samples: usize,
}

/// Decodes pieces of so many frames on both, `hop` frames to a push, one piece after the other in the same streams. Every push has
/// to bring as many samples on both.
///
/// # Errors
/// Another number of samples, or one of them gives up.
pub fn decode(
    decoder: &CodecDecoder,
    exact: &mut dyn CodecStream,
    other: &mut dyn CodecStream,
    pieces: &[usize],
    hop: usize,
) -> Outcome<Decoded> {
    let said = |error: tiller_engine::error::EngineError| error.to_string();
    let (codebooks, size) = (decoder.codebooks(), decoder.codebook_size());
    let mut found = Decoded::default();
    let mut read = |exact: &mut dyn CodecStream, other: &mut dyn CodecStream| -> Outcome<()> {
        let of = |stream: &mut dyn CodecStream| -> Outcome<Vec<f32>> {
            stream.collect().map_err(said)?;
            let mut samples = vec![0.0; stream.available()];
            stream.read(&mut samples);
            Ok(samples)
        };
        let (a, b) = (of(exact)?, of(other)?);
        if a.len() != b.len() {
            return Err(format!("{} samples where {} belong", b.len(), a.len()));
        }
        found.samples += a.len();
        found.largest = found.largest.max(largest(&a));
        found.apart = found.apart.max(apart(&b, &a));
        Ok(())
    };
    for (seed, frames) in pieces.iter().enumerate() {
        for codes in arbitrary(*frames, codebooks, size, seed as u64).chunks(hop * codebooks) {
            exact.push(codes).map_err(said)?;
            other.push(codes).map_err(said)?;
            read(exact, other)?;
        }
        // Every third piece is dropped where it is, a frame under way.
        if seed % 3 == 2 {
            let codes = arbitrary(1, codebooks, size, 99);
            exact.push(&codes).map_err(said)?;
            other.push(&codes).map_err(said)?;
        } else {
            exact.finish().map_err(said)?;
            other.finish().map_err(said)?;
            read(exact, other)?;
        }
        exact.reset();
        other.reset();
    }
    Ok(found)
}
