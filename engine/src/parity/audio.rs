//! EnCodec, both directions, against golden values; the stream against the whole decode. Any thread.

use std::sync::Arc;

use super::reference::{Reference, Values};
use super::report::{CodesStage, Stage};
use super::{CODEC_BOUND, ENCODED_TIE, ParityError, REFERENCE_ROUNDING};
use crate::codec::{CodecDecoder, CodecEncoder, CodecError, Codes, DecoderStream};

/// Frames per push at which the stream is tried.
const HOPS: [usize; 4] = [1, 2, 5, 7];

/// Latent and codes of `encoder_audio`.
pub(super) fn encode(
    reference: &Reference,
    encoder: &CodecEncoder,
    stages: &mut Vec<Stage>,
) -> Result<CodesStage, ParityError> {
    let audio = time_major(&reference.floats("encoder_audio", 3)?);
    let expected = time_major(&reference.floats("encoder_latent", 3)?);
    let latent = encoder.latent(&audio)?;
    stages.push(Stage::by_largest("encoder_latent", &latent, &expected, CODEC_BOUND));
    let expected = codes(reference, "encoded_codes")?;
    let (mut ties, mut wrong) = (Vec::new(), Vec::new());
    for departure in encoder.departures(&latent, &expected)? {
        let said = format!(
            "frame {}, codebook {}: {} for {}, distances {:.1e} apart, {:.1e} of the terms that f32 rounds",
            departure.frame, departure.codebook, departure.found, departure.expected, departure.gap, departure.rounding
        );
        let tie = departure.gap < ENCODED_TIE || departure.rounding < REFERENCE_ROUNDING;
        if tie { ties.push(said) } else { wrong.push(said) }
    }
    Ok(CodesStage::new("encoded_codes", expected.frames() * expected.codebooks(), ties, wrong))
}

/// Audio of `codes`, whole and streamed.
pub(super) fn decode(
    reference: &Reference,
    decoder: &Arc<CodecDecoder>,
    stages: &mut Vec<Stage>,
) -> Result<(), ParityError> {
    let codes = codes(reference, "codes")?;
    let expected = time_major(&reference.floats("decoded_audio", 3)?);
    let whole = decoder.decode(&codes)?;
    stages.push(Stage::by_deviation("decoded_audio", &whole, &expected, CODEC_BOUND));
    for hop in HOPS {
        let streamed = stream(decoder, &codes, hop)?;
        stages.push(Stage::by_deviation(format!("stream at hop {hop}"), &streamed, &whole, CODEC_BOUND));
    }
    Ok(())
}

fn stream(decoder: &Arc<CodecDecoder>, codes: &Codes, hop: usize) -> Result<Vec<f32>, CodecError> {
    let mut stream = DecoderStream::with_hop(Arc::clone(decoder), hop);
    let mut audio = Vec::with_capacity(codes.frames() * decoder.hop() * decoder.channels());
    let mut part = vec![0.0; decoder.hop() * decoder.channels()];
    let mut read = |stream: &mut DecoderStream| {
        while stream.available() > 0 {
            let count = stream.read(&mut part);
            audio.extend_from_slice(&part[..count]);
        }
    };
    for frames in codes.frame_major().chunks(hop * codes.codebooks()) {
        stream.push(frames)?;
        read(&mut stream);
    }
    stream.finish()?;
    read(&mut stream);
    Ok(audio)
}

fn codes(reference: &Reference, key: &str) -> Result<Codes, ParityError> {
    let read = reference.integers(key, 3)?;
    Ok(Codes::from_frames(&time_major(&read), read.shape[1])?)
}

/// `[1][channels][t]` in the file, `[t][channels]` here.
fn time_major<T: Copy>(read: &Values<T>) -> Vec<T> {
    let (channels, length) = (read.shape[1], read.shape[2]);
    (0..channels * length).map(|i| read.values[i % channels * length + i / channels]).collect()
}
