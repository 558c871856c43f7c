//! The library's C interface: what engine/src/backend/cuda/abi.rs declares. Nothing panics across it. Loader and runner threads.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;

use crate::abi::{self, DeviceFacts, Drawn, Message, Object, Settings, Shape, status};
use crate::driver::{Context, Driver, Outcome};
use crate::error::CudaError;
use crate::model::Model;
use crate::player::Player;
use crate::probe;

/// A model as the engine holds it: filled first, then shared with its players.
struct Handle {
    model: Arc<Model>,
}

/// Runs a call, turns an error or a panic into a status and a message.
pub(crate) fn guarded(message: *mut Message, call: impl FnOnce() -> Outcome<()>) -> i32 {
    let ended = catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(CudaError::Lost { call: "the library", name: "it panicked".to_owned() }));
    let Err(error) = ended else { return status::OK };
    let text = error.to_string();
    // SAFETY: the caller gives a message of its own, or null.
    if let Some(message) = unsafe { message.as_mut() } {
        let mut length = text.len().min(message.text.len());
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        message.text[..length].copy_from_slice(&text.as_bytes()[..length]);
        message.length = length as u32;
    }
    error.status()
}

pub(crate) fn null(what: &str) -> CudaError {
    CudaError::Argument { what: format!("no {what}") }
}

/// What the caller points to.
///
/// # Safety
/// The pointer is null, or to a living `T` that nobody else uses.
pub(crate) unsafe fn given<'a, T>(pointer: *mut T, what: &str) -> Outcome<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
}

/// What the caller points to, so many of them.
///
/// # Safety
/// The pointer is null, or to so many living `T`.
pub(crate) unsafe fn list<'a, T>(pointer: *const T, count: usize, what: &str) -> Outcome<&'a [T]> {
    if pointer.is_null() {
        return Err(null(what));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// Version of the interface.
#[unsafe(no_mangle)]
pub extern "C" fn tiller_cuda_version() -> u32 {
    abi::VERSION
}

/// Cards that the driver has, after an empty graph has run on each: at most `room` of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_devices(
    facts: *mut DeviceFacts,
    room: u32,
    count: *mut u32,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        let driver = Driver::open()?;
        let found = driver.devices.min(room);
        for device in 0..found {
            let context = Context::open(driver, device)?;
            probe::empty_graph(device)?;
            let (free, total) = context.memory()?;
            let mut name = [0; 128];
            let length = context.name.len().min(127);
            name[..length].copy_from_slice(&context.name.as_bytes()[..length]);
            let (major, minor, multiprocessors) = (context.major, context.minor, context.multiprocessors);
            // SAFETY: the caller has room for so many.
            unsafe {
                facts.add(device as usize).write(DeviceFacts {
                    name,
                    free,
                    total,
                    major,
                    minor,
                    multiprocessors,
                    driver: driver.version,
                });
            }
        }
        // SAFETY: the caller's number.
        *unsafe { given(count, "count") }? = found;
        Ok(())
    })
}

/// Room for a model on a card.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_model_open(
    device: u32,
    shape: *const Shape,
    out: *mut Object,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's shape and place for the answer.
        let (shape, out) = unsafe { (list(shape, 1, "shape")?[0], given(out, "place")?) };
        let model = Arc::new(Model::open(device, shape)?);
        *out = Box::into_raw(Box::new(Handle { model })).cast();
        Ok(())
    })
}

/// Gives a model one of its tensors, before it has any player.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_model_tensor(
    model: Object,
    tensor: u32,
    block: u32,
    values: *const c_void,
    count: u64,
    format: u32,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's model, opened here.
        let handle = unsafe { given(model.cast::<Handle>(), "model") }?;
        let model = Arc::get_mut(&mut handle.model)
            .ok_or_else(|| CudaError::Argument { what: "a tensor for a model that plays already".to_owned() })?;
        // SAFETY: the caller's values.
        unsafe { model.fill(tensor, block, values, count, format) }
    })
}

/// Gives up a model; players that it still has keep it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_model_close(model: Object) {
    if !model.is_null() {
        guarded(std::ptr::null_mut(), || {
            // SAFETY: made by `tiller_cuda_model_open`, and closed once.
            drop(unsafe { Box::from_raw(model.cast::<Handle>()) });
            Ok(())
        });
    }
}

/// A player of a model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_player_open(
    model: Object,
    settings: *const Settings,
    out: *mut Object,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's model, settings and place for the answer.
        let (handle, settings, out) = unsafe {
            (given(model.cast::<Handle>(), "model")?, list(settings, 1, "settings")?[0], given(out, "place")?)
        };
        let player = Player::open(handle.model.clone(), settings)?;
        *out = Box::into_raw(Box::new(player)).cast();
        Ok(())
    })
}

/// Ends a player.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_player_close(player: Object) {
    if !player.is_null() {
        guarded(std::ptr::null_mut(), || {
            // SAFETY: made by `tiller_cuda_player_open`, and closed once.
            drop(unsafe { Box::from_raw(player.cast::<Player>()) });
            Ok(())
        });
    }
}

/// Gives a player a prompt: text states `[tokens][text_width]`, as many numbers as `count` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_prompt_open(
    player: Object,
    states: *const f32,
    count: u32,
    out: *mut u32,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player, states and place for the answer.
        let (player, states, out) = unsafe {
            (given(player.cast::<Player>(), "player")?, list(states, count as usize, "states")?, given(out, "place")?)
        };
        *out = player.open_prompt(states)?;
        Ok(())
    })
}

/// Takes a prompt away again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_prompt_close(player: Object, prompt: u32, message: *mut Message) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player.
        unsafe { given(player.cast::<Player>(), "player") }?.close_prompt(prompt);
        Ok(())
    })
}

/// Gives a player the tables of a class that holds: `[blocks][hidden]`, `[blocks][2]`, `[blocks]`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_held_open(
    player: Object,
    directions: *const f32,
    levels: *const f32,
    limits: *const f32,
    out: *mut u32,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player and place for the answer.
        let (player, out) = unsafe { (given(player.cast::<Player>(), "player")?, given(out, "place")?) };
        let [a, b, c] = player.held_counts();
        // SAFETY: the caller's tables, of the model's shape.
        let (directions, levels, limits) =
            unsafe { (list(directions, a, "directions")?, list(levels, b, "levels")?, list(limits, c, "limits")?) };
        *out = player.open_held(directions, levels, limits)?;
        Ok(())
    })
}

/// Writes an injected table into a slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_inject(
    player: Object,
    slot: u32,
    values: *const f32,
    count: u64,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player and values.
        let (player, values) =
            unsafe { (given(player.cast::<Player>(), "player")?, list(values, count as usize, "values")?) };
        player.inject(slot, values)
    })
}

/// One step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_step(
    player: Object,
    step: *const abi::Step,
    drawn: *mut Drawn,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player, step and place for the answer.
        let (player, step, drawn) =
            unsafe { (given(player.cast::<Player>(), "player")?, &list(step, 1, "step")?[0], given(drawn, "place")?) };
        *drawn = player.step(step)?;
        Ok(())
    })
}

/// Reads what the last step left behind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_read(
    player: Object,
    what: u32,
    index: u32,
    out: *mut f32,
    count: u64,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player.
        let player = unsafe { given(player.cast::<Player>(), "player") }?;
        if out.is_null() {
            return Err(null("place"));
        }
        // SAFETY: the caller has room for so many.
        player.read(what, index, unsafe { slice::from_raw_parts_mut(out, count as usize) })
    })
}

/// The same step `count` times: seconds of each, and milliseconds of all by the card's clock. For the bench.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_time(
    player: Object,
    step: *const abi::Step,
    count: u64,
    seconds: *mut f64,
    milliseconds: *mut f32,
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's player, step and place for the answer.
        let (player, step, milliseconds) = unsafe {
            (given(player.cast::<Player>(), "player")?, &list(step, 1, "step")?[0], given(milliseconds, "place")?)
        };
        if seconds.is_null() {
            return Err(null("place"));
        }
        // SAFETY: the caller has room for so many.
        *milliseconds = player.time(step, unsafe { slice::from_raw_parts_mut(seconds, count as usize) })?;
        Ok(())
    })
}

/// Bytes per second of reading and of copying so many bytes on a card. For the bench.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_bandwidth(
    device: u32,
    bytes: u64,
    rates: *mut [f64; 2],
    message: *mut Message,
) -> i32 {
    guarded(message, || {
        // SAFETY: the caller's place for the answer.
        *unsafe { given(rates, "place") }? = probe::bandwidth(device, bytes as usize)?;
        Ok(())
    })
}

/// Bytes that a model takes on its card. For the bench.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tiller_cuda_model_bytes(model: Object) -> u64 {
    // SAFETY: the caller's model.
    unsafe { model.cast::<Handle>().as_ref() }.map_or(0, |handle| handle.model.bytes() as u64)
}
