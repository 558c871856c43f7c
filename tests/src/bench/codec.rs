//! The codec alone: random codes through the decoder stream at several hops. Main thread.

use std::time::Instant;

use tiller_engine::codec::DecoderStream;

use super::subject::Subject;
use crate::host::Outcome;

/// Frames per push that are measured.
pub const HOPS: [usize; 3] = [1, 2, 5];
/// The hop that `codec_rtf` is about.
pub const HEADLINE_HOP: usize = 2;

/// Seconds of audio made per second at one hop, both channels of a stereo checkpoint counted.
///
/// # Errors
/// The codec refuses its own codes.
pub fn rtf(subject: &Subject, hop: usize, seconds: f64) -> Outcome<f64> {
    let codec = subject.model.codec();
    let mut stream = DecoderStream::on(subject.pool.clone(), codec.clone(), hop);
    let mut audio = vec![0.0; (hop + codec.lookahead_frames() + 2) * codec.hop() * codec.channels()];
    let mut codes = vec![0; hop * codec.codebooks()];
    let (mut state, mut frames, mut spent) = (1u32, 0, 0.0);
    // The first pushes meet cold memory.
    let mut warm_up = 4;
    while spent < seconds {
        for code in &mut codes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *code = (state >> 8) % codec.codebook_size() as u32;
        }
        let start = Instant::now();
        stream.push(&codes).map_err(|error| error.to_string())?;
        stream.read(&mut audio);
        if warm_up > 0 {
            warm_up -= 1;
            continue;
        }
        spent += start.elapsed().as_secs_f64();
        frames += hop;
    }
    // A stereo language model plays left and right through one mono codec each.
    let passes = subject.model.channels() / codec.channels().min(subject.model.channels());
    Ok(frames as f64 * subject.frame_seconds() / spent / passes as f64)
}
