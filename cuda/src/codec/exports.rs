//! The codec's part of the library's C interface: what engine/src/backend/cuda/abi.rs declares. Loader and runner threads.

use std::sync::Arc;

use super::{Codec, CodecStream};
use crate::abi::{Message, Object, Operation};
use crate::error::CudaError;
use crate::exports::{given, guarded, list, null};

/// A codec as the engine holds it: filled first, then shared with its streams.
struct Handle {
    codec: Arc<Codec>,
}

/// An empty codec on a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_codec_open(device: u32, out: *mut Object, message: *mut Message) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's place for the answer.
        let out = unsafe { given(out, "place") }?;
        *out = Box::into_raw(Box::new(Handle { codec: Arc::new(Codec::open(device)?) })).cast();
        Ok(())
    })
}

/// Appends an operation with so many weights and biases, before there is any stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_codec_operation(
    codec: Object,
    facts: *const Operation,
    weight: *const f32,
    weights: u64,
    bias: *const f32,
    biases: u64,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's codec, operation and numbers.
        let (handle, facts, weight, bias) = unsafe {
            (
                given(codec.cast::<Handle>(), "codec")?,
                list(facts, 1, "operation")?[0],
                list(weight, weights as usize, "weight")?,
                list(bias, biases as usize, "bias")?,
            )
        };
        let codec = Arc::get_mut(&mut handle.codec)
            .ok_or_else(|| CudaError::Argument { what: "an operation for a codec that plays already".to_owned() })?;
        codec.append(facts, weight, bias)
    })
}

/// Gives up a codec; streams that it still has keep it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_codec_close(codec: Object) {
    if !codec.is_null() {
        guarded(std::ptr::null_mut(), || {
            // SAFETY: made by `tiller_cuda_codec_open`, and closed once.
            drop(unsafe { Box::from_raw(codec.cast::<Handle>()) });
            Ok(())
        });
    }
}

/// A stream of a codec, and the most samples that one of its runs makes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_stream_open(
    codec: Object,
    out: *mut Object,
    most: *mut u64,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's codec and places for the answers.
        let (handle, out, most) =
            unsafe { (given(codec.cast::<Handle>(), "codec")?, given(out, "place")?, given(most, "place")?) };
        let stream = CodecStream::open(handle.codec.clone())?;
        *most = stream.most() as u64;
        *out = Box::into_raw(Box::new(stream)).cast();
        Ok(())
    })
}

/// Ends a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_stream_close(stream: Object) {
    if !stream.is_null() {
        guarded(std::ptr::null_mut(), || {
            // SAFETY: made by `tiller_cuda_stream_open`, and closed once.
            drop(unsafe { Box::from_raw(stream.cast::<CodecStream>()) });
            Ok(())
        });
    }
}

/// Submits one frame's codes, or with none the end of the stream, and returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_stream_push(
    stream: Object,
    codes: *const u32,
    count: u32,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's stream and codes.
        let (stream, codes) =
            unsafe { (given(stream.cast::<CodecStream>(), "stream")?, list(codes, count as usize, "codes")?) };
        stream.push(codes)
    })
}

/// Waits for what was submitted and copies its samples into `room` places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_stream_take(
    stream: Object,
    out: *mut f32,
    room: u64,
    count: *mut u64,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's stream and place for the number.
        let (stream, count) = unsafe { (given(stream.cast::<CodecStream>(), "stream")?, given(count, "count")?) };
        if out.is_null() {
            return Err(null("place"));
        }
        // SAFETY: the caller has room for so many.
        *count = stream.take(unsafe { std::slice::from_raw_parts_mut(out, room as usize) })? as u64;
        Ok(())
    })
}

/// Back to the start of a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_stream_reset(stream: Object, message: *mut Message) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's stream.
        unsafe { given(stream.cast::<CodecStream>(), "stream") }?.reset()
    })
}
