//! Memory on a card, and host memory that a card reaches. Loader and runner threads.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::driver::{self, Context, Outcome};
use crate::error::CudaError;

/// Where pieces of a buffer begin: a line of the card's caches, and more than any load needs.
pub const ALIGNMENT: usize = 256;

/// A stretch of device memory.
pub struct Buffer {
    address: u64,
    bytes: usize,
    context: Arc<Context>,
}

impl Buffer {
    /// Allocates `bytes`; what is in it is undefined.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Outcome<Self> {
        context.enter()?;
        let bytes = bytes.max(1);
        match driver::allocate(bytes)? {
            Some(address) => Ok(Self { address, bytes, context: context.clone() }),
            None => {
                let (free, _) = context.memory()?;
                Err(CudaError::Memory { needed: (bytes as u64).div_ceil(1 << 20), free: free >> 20 })
            }
        }
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: its owner has waited for the stream that used it; nobody else has the address.
        unsafe { driver::free(self.address) };
    }
}

/// Lays pieces out one after the other.
#[derive(Default)]
pub struct Arena {
    bytes: usize,
}

impl Arena {
    /// Where a piece of so many bytes begins.
    pub fn place(&mut self, bytes: usize) -> usize {
        let at = self.bytes;
        self.bytes += bytes.next_multiple_of(ALIGNMENT);
        at
    }

    /// All of it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One `T` in host memory that the card copies from and to while the processor does something else.
pub struct Pinned<T> {
    place: NonNull<T>,
    context: Arc<Context>,
}

// SAFETY: it owns what it points to.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T: Copy> Pinned<T> {
    pub fn new(context: &Arc<Context>, value: T) -> Outcome<Self> {
        context.enter()?;
        let address = driver::allocate_host(size_of::<T>())?;
        let place = NonNull::new(address.cast::<T>())
            .ok_or(CudaError::Lost { call: "cuMemHostAlloc", name: "no address".to_owned() })?;
        // SAFETY: freshly allocated, aligned to a page, and as large as a `T`.
        unsafe { place.write(value) };
        Ok(Self { place, context: context.clone() })
    }

    /// For copies by the card.
    pub fn pointer(&self) -> *mut T {
        self.place.as_ptr()
    }
}

impl<T> Deref for Pinned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: written when it was made; the card writes to it only between submitting and waiting, when its owner does
        // not look.
        unsafe { self.place.as_ref() }
    }
}

impl<T> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.place.as_mut() }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: its owner has waited for the stream that used it.
        unsafe { driver::free_host(self.place.as_ptr().cast()) };
    }
}

/// Numbers in host memory that the card copies to.
pub struct PinnedFloats {
    place: NonNull<f32>,
    count: usize,
    context: Arc<Context>,
}

// SAFETY: it owns what it points to.
unsafe impl Send for PinnedFloats {}

impl PinnedFloats {
    /// `count` zeros.
    pub fn new(context: &Arc<Context>, count: usize) -> Outcome<Self> {
        context.enter()?;
        let address = driver::allocate_host(4 * count.max(1))?;
        let place = NonNull::new(address.cast::<f32>())
            .ok_or(CudaError::Lost { call: "cuMemHostAlloc", name: "no address".to_owned() })?;
        // SAFETY: freshly allocated, aligned to a page, and as large as that.
        unsafe { place.write_bytes(0, count) };
        Ok(Self { place, count, context: context.clone() })
    }

    /// For copies by the card.
    pub fn pointer(&self) -> *mut f32 {
        self.place.as_ptr()
    }
}

impl Deref for PinnedFloats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: zeros at first; the card writes only between submitting and waiting, when the owner does not look.
        unsafe { std::slice::from_raw_parts(self.place.as_ptr(), self.count) }
    }
}

impl Drop for PinnedFloats {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: its owner has waited for the stream that used it.
        unsafe { driver::free_host(self.place.as_ptr().cast()) };
    }
}
