//! EnCodec against transformers, as a stream and whole, on odd configurations and on the demo checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use tiller_engine::checkpoint::{CheckpointError, CheckpointSource, Config, Weights};
use tiller_engine::codec::{CodecDecoder, CodecEncoder, CodecError, Codes, DecoderStream};
use tiller_engine::precision::Precision;
use tiller_tests::codec::checkpoint as codec_checkpoint;
use tiller_tests::counting::{Counting, allocations};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CASES: [&str; 5] = ["published", "odd", "causal", "half-trim", "zero-pad"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A file of reference values.
struct Reference(Vec<u8>);

impl Reference {
    fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a safetensors file")
    }

    /// Names that begin and end so, with what is between.
    fn between(&self, start: &str, end: &str) -> Vec<String> {
        let mut found: Vec<String> = self
            .tensors()
            .names()
            .iter()
            .filter_map(|name| Some(name.strip_prefix(start)?.strip_suffix(end)?.to_owned()))
            .collect();
        found.sort();
        found
    }

    /// `[channels][t]` in the file, `[t][channels]` here.
    fn audio(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect(name);
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let channels = view.shape()[view.shape().len() - 2];
        time_major(&values, channels)
    }

    fn codes(&self, name: &str) -> Codes {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect(name);
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let values: Vec<u32> = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        let codebooks = view.shape()[view.shape().len() - 2];
        Codes::from_frames(&time_major(&values, codebooks), codebooks).expect("whole frames")
    }
}

fn time_major<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
    let length = values.len() / channels;
    (0..values.len()).map(|i| values[i % channels * length + i / channels]).collect()
}

fn load(source: &CheckpointSource) -> Result<(Arc<CodecDecoder>, CodecEncoder), CheckpointError> {
    let config = Config::read(source)?;
    let weights = Weights::read(source, &|_| ())?;
    let codebooks = config.codec.num_quantizers;
    let decoder = CodecDecoder::load(&weights, &config.codec, codebooks)?;
    Ok((Arc::new(decoder), CodecEncoder::load(&weights, &config.codec, codebooks)?))
}

/// A fixture, loaded.
fn fixture(case: &str, test: &str) -> (Arc<CodecDecoder>, CodecEncoder, Reference) {
    let file = root().join(format!("fixtures/codec-{case}.safetensors"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("codec-{test}-{case}"));
    let source = codec_checkpoint(&file, &folder).unwrap_or_else(|error| panic!("{error}"));
    let (decoder, encoder) = load(&source).unwrap_or_else(|error| panic!("{error}"));
    (decoder, encoder, Reference::open(&file))
}

/// Largest error as a share of the deviation about the mean.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let mean = expected.iter().map(|&v| f64::from(v)).sum::<f64>() / expected.len() as f64;
    let power = expected.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / expected.len() as f64;
    let worst = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
    // A single sample has no deviation: its size then is the scale.
    worst / power.sqrt().max(mean.abs() * 1e-2)
}

fn streamed(decoder: &Arc<CodecDecoder>, codes: &Codes, hop: usize) -> Vec<f32> {
    let mut stream = DecoderStream::with_hop(decoder.clone(), hop);
    let mut audio = Vec::new();
    let mut read = |stream: &mut DecoderStream| {
        let mut part = vec![0.0; stream.available()];
        assert_eq!(stream.read(&mut part), part.len());
        audio.extend(part);
    };
    for chunk in codes.frame_major().chunks(hop * codes.codebooks()) {
        stream.push(chunk).expect("a push");
        read(&mut stream);
    }
    stream.finish().expect("an end");
    read(&mut stream);
    audio
}

/// `frames` frames of arbitrary codes.
fn some_codes(decoder: &CodecDecoder, frames: usize) -> Vec<u32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    (0..frames * decoder.codebooks()).map(|_| (next() % decoder.codebook_size()) as u32).collect()
}

#[test]
fn decodes_as_transformers_does_at_any_hop() {
    for case in CASES {
        let (decoder, _, reference) = fixture(case, "decode");
        let lengths = reference.between("decode.", ".codes");
        assert!(lengths.len() >= 4, "{case}");
        for frames in lengths {
            let codes = reference.codes(&format!("decode.{frames}.codes"));
            let expected = reference.audio(&format!("decode.{frames}.audio"));
            let whole = decoder.decode(&codes).expect("a decode");
            let error = relative_error(&whole, &expected);
            assert!(error < 1e-5, "{case}, {frames} frames: {error:e}");
            for hop in [1, 2, 5, 7] {
                let stream = streamed(&decoder, &codes, hop);
                assert!(stream.iter().map(|v| v.to_bits()).eq(whole.iter().map(|v| v.to_bits())), "{case} hop {hop}");
            }
        }
    }
}

#[test]
fn large_weights_in_half_precision_stay_far_below_the_music() {
    for case in CASES {
        let (exact, _, _) = fixture(case, "half");
        let codes = some_codes(&exact, 24);
        let codes = Codes::from_frames(&codes, exact.codebooks()).expect("whole frames");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("codec-half-{case}"));
        let source = CheckpointSource::directory(&folder);
        let config = Config::read(&source).expect("the fixture's").codec;
        let weights = Weights::read(&source, &|_| ()).expect("the fixture's");
        let at = |precision| {
            let decoder = CodecDecoder::load_at(&weights, &config, config.num_quantizers, precision).expect("loads");
            streamed(&Arc::new(decoder), &codes, 1)
        };
        let (whole, half) = (streamed(&exact, &codes, 1), at(Precision::Int8));
        assert_eq!(at(Precision::F32), whole);
        let power = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let noise = power(&mut whole.iter().zip(&half).map(|(a, b)| a - b)) / power(&mut whole.iter().copied());
        let below = -10.0 * noise.log10();
        println!("{case}: {below:.1} dB below the music");
        assert!(noise > 0.0 && below > 50.0, "{case}: rounding is only {below:.1} dB below the music");
    }
}

#[test]
fn encodes_as_transformers_does_at_any_length() {
    for case in CASES {
        let (_, encoder, reference) = fixture(case, "encode");
        let lengths = reference.between("encode.", ".audio");
        assert!(lengths.len() >= 5, "{case}");
        for samples in lengths {
            let audio = reference.audio(&format!("encode.{samples}.audio"));
            let expected = reference.audio(&format!("encode.{samples}.latent"));
            let latent = encoder.latent(&audio).expect("a latent");
            let error = relative_error(&latent, &expected);
            assert!(error < 1e-5, "{case}, {samples} samples: {error:e}");
            let codes = encoder.encode(&audio).expect("codes");
            assert_eq!(codes, reference.codes(&format!("encode.{samples}.codes")), "{case}, {samples} samples");
        }
    }
}

#[test]
fn lookahead_is_what_changing_later_codes_shows() {
    for case in CASES {
        let (decoder, _, _) = fixture(case, "lookahead");
        let (frames, codebooks) = (24, decoder.codebooks());
        let codes = some_codes(&decoder, frames);
        let decode = |codes: &[u32]| {
            decoder.decode(&Codes::from_frames(codes, codebooks).expect("whole frames")).expect("a decode")
        };
        let before = decode(&codes);
        let (mut samples, mut whole_frames) = (0, 0);
        for cut in 1..frames - 8 {
            let mut changed = codes.clone();
            for code in &mut changed[cut * codebooks..] {
                *code = (*code + 1) % decoder.codebook_size() as u32;
            }
            let first = decode(&changed).iter().zip(&before).position(|(a, b)| a != b).expect("a change");
            let first = first / decoder.channels();
            if cut >= 10 {
                samples = samples.max((cut * decoder.hop()).saturating_sub(first));
            }
            whole_frames = whole_frames.max(cut - first / decoder.hop());
        }
        assert_eq!(samples, decoder.lookahead_samples(), "{case}");
        assert_eq!(whole_frames, decoder.lookahead_frames(), "{case}");

        // And the stream holds to it: frame f is there once frame f + look-ahead is in.
        let mut stream = DecoderStream::new(decoder.clone());
        let mut audio = vec![0.0; decoder.hop() * decoder.channels()];
        for (pushed, frame) in codes.chunks(codebooks).enumerate() {
            stream.push(frame).expect("a push");
            if pushed >= decoder.lookahead_frames() {
                assert_eq!(stream.read(&mut audio), audio.len(), "{case}, frame {pushed}");
            }
        }
    }
    let (published, _, _) = fixture("published", "lookahead");
    assert_eq!((published.lookahead_samples(), published.lookahead_frames()), (2402, 4));
}

#[test]
fn a_running_stream_allocates_nothing() {
    for case in CASES {
        let (decoder, _, _) = fixture(case, "allocations");
        let mut stream = DecoderStream::with_hop(decoder.clone(), 2);
        let codes = some_codes(&decoder, 40);
        let mut audio = vec![0.0; 4 * decoder.hop() * decoder.channels()];
        let before = allocations();
        let mut heard = 0;
        for _ in 0..2 {
            for (turn, chunk) in codes.chunks(2 * decoder.codebooks()).enumerate() {
                let (one, other) = chunk.split_at(if turn % 3 == 0 { decoder.codebooks() } else { 0 });
                stream.push(one).expect("a push");
                stream.push(other).expect("a push");
                heard += stream.read(&mut audio);
            }
            stream.finish().expect("an end");
            while stream.available() > 0 {
                heard += stream.read(&mut audio);
            }
            stream.reset();
        }
        assert_eq!(allocations() - before, 0, "{case}");
        assert_eq!(heard, 2 * 40 * decoder.hop() * decoder.channels(), "{case}");
    }
}

#[test]
fn a_reset_stream_starts_anew() {
    for case in CASES {
        let (decoder, _, _) = fixture(case, "reset");
        let codebooks = decoder.codebooks();
        let codes = some_codes(&decoder, 30);
        let mut stream = DecoderStream::with_hop(decoder.clone(), 8);
        let mut run = |codes: &[u32], end: bool| {
            let mut audio = Vec::new();
            for chunk in codes.chunks(4 * codebooks) {
                stream.push(chunk).expect("a push");
                let mut part = vec![0.0; stream.available()];
                stream.read(&mut part);
                audio.extend(part);
            }
            if end {
                stream.finish().expect("an end");
                stream.finish().expect("ending twice changes nothing");
                let mut part = vec![0.0; stream.available()];
                stream.read(&mut part);
                audio.extend(part);
            }
            stream.reset();
            audio
        };
        let first = run(&codes, true);
        // Left in the middle, and even before its first sample.
        run(&codes[..7 * codebooks], false);
        run(&codes[..codebooks], false);
        assert_eq!(run(&codes, true), first, "{case}");
    }
}

#[test]
fn bad_codes_are_refused_and_change_nothing() {
    let (decoder, encoder, _) = fixture("odd", "refused");
    let codes = some_codes(&decoder, 12);
    let whole = decoder.decode(&Codes::from_frames(&codes, 3).expect("whole frames")).expect("a decode");
    let mut stream = DecoderStream::with_hop(decoder.clone(), 4);
    stream.push(&codes[..12]).expect("a push");
    let unknown = stream.push(&[0, 1, 2, 3, 16, 5]);
    assert_eq!(unknown, Err(CodecError::UnknownCode { code: 16, codebook: 1, frame: 1, size: 16 }));
    assert_eq!(stream.push(&[0, 1]), Err(CodecError::PartialFrame { found: 2, codebooks: 3 }));
    assert_eq!(stream.push(&codes[..15]), Err(CodecError::TooManyFrames { frames: 5, most: 4 }));
    stream.push(&codes[12..24]).expect("a push");
    stream.push(&codes[24..]).expect("a push");
    stream.finish().expect("an end");
    assert_eq!(stream.push(&codes[..3]), Err(CodecError::Ended));
    let mut audio = vec![0.0; stream.available()];
    stream.read(&mut audio);
    assert_eq!(audio, whole);

    stream.reset();
    let full = (0..1000).find_map(|_| stream.push(&codes[..12]).err());
    assert!(matches!(full, Some(CodecError::QueueFull { .. })), "{full:?}");
    // Two channels: half a sample is none.
    assert_eq!(encoder.encode(&[0.0; 5]), Err(CodecError::PartialSample { found: 5, channels: 2 }));
    assert_eq!(encoder.encode(&[]).map(|codes| codes.frames()), Ok(0));
}
