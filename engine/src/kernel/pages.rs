//! Memory for what every step reads, packed side by side into large pages. A step goes once through hundreds of megabytes;
//! with pages of 4 kB the processor walks the page table for each, and its prefetchers stop at each border. Linux gives
//! large ones on request only (`transparent_hugepage/enabled` is `madvise` on most distributions). Loader thread.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Bytes of a large page where there is one size only, as on x86-64; elsewhere a mere alignment.
const LARGE: usize = 1 << 21;

/// Bytes that are asked for at a time. What is not handed out is never touched, so it costs addresses only.
const CHUNK: usize = 16 * LARGE;

/// Alignment of every slice: a cache line.
const LINE: usize = 64;

/// Slices below this are allocated by themselves: a small checkpoint must not take a chunk.
const SMALL: usize = LARGE / 8;

/// Memory from the system, given back with the last slice of it.
struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it only owns memory; slices of it never overlap and have an owner each.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(bytes: usize) -> Self {
        let page = if bytes < SMALL { LINE } else { LARGE };
        let Ok(layout) = Layout::from_size_align(bytes.next_multiple_of(page), page) else {
            panic!("{bytes} bytes are more than there are addresses for")
        };
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if page == LARGE {
            // SAFETY: the range is this allocation, and the advice changes no content. Refused, it does nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Self { start, layout }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: from `alloc` with this layout, and no slice is left.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Values that are their bytes and nothing else.
///
/// # Safety
/// Every pattern of bits is a value, and there is no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: an array of integers or floats, as long as its alignment.
unsafe impl Plain for super::lanes::Line {}
// SAFETY: as above.
unsafe impl Plain for super::lanes::F16Line {}
// SAFETY: as above.
unsafe impl Plain for super::lanes::Bf16Line {}
// SAFETY: as above.
unsafe impl Plain for super::dots::Bytes {}

/// The chunk that the next slice may come from, and how much of it is handed out.
static OPEN: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

/// A slice of plain values, as long as it was made.
pub struct Pages<T> {
    start: NonNull<T>,
    len: usize,
    /// Keeps the memory.
    _chunk: Option<Arc<Chunk>>,
}

// SAFETY: it owns its values as a boxed slice does.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Pages<T> {}

impl<T: Copy> Pages<T> {
    /// Nothing.
    pub const EMPTY: Self = Self { start: NonNull::dangling(), len: 0, _chunk: None };

    /// `len` times `value`.
    ///
    /// # Panics
    /// When values need a larger alignment than a cache line.
    pub fn filled(value: T, len: usize) -> Self {
        const { assert!(align_of::<T>() <= LINE) };
        let bytes = len.saturating_mul(size_of::<T>());
        if bytes == 0 {
            return Self { len, ..Self::EMPTY };
        }
        let (chunk, offset) = take(bytes);
        // SAFETY: `take` gives `bytes` bytes of the chunk at this offset to this call alone.
        let start = unsafe { chunk.start.add(offset) }.cast::<T>();
        for i in 0..len {
            // SAFETY: within those bytes; the offset is a multiple of the alignment.
            unsafe { start.add(i).write(value) };
        }
        Self { start, len, _chunk: Some(chunk) }
    }
}

impl<T: Plain> Pages<T> {
    /// The values as bytes, in this machine's order.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Plain` has no padding.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), size_of_val(&**self)) }
    }

    /// The same, to be written.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any bytes are values.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), size_of_val(&**self)) }
    }
}

/// `bytes` bytes of a chunk that nobody else has, and where they begin.
fn take(bytes: usize) -> (Arc<Chunk>, usize) {
    if !(SMALL..=CHUNK / 2).contains(&bytes) {
        return (Arc::new(Chunk::new(bytes)), 0);
    }
    let mut open = OPEN.lock();
    let (chunk, used) = match open.0.upgrade() {
        Some(chunk) if open.1 + bytes <= CHUNK => (chunk, open.1),
        _ => {
            let chunk = Arc::new(Chunk::new(CHUNK));
            open.0 = Arc::downgrade(&chunk);
            (chunk, 0)
        }
    };
    open.1 = (used + bytes).next_multiple_of(LINE);
    (chunk, used)
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `filled` wrote so many values there; an empty one dangles as an empty slice may.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the values are borrowed through their owner.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_keep_what_is_written_to_them() {
        let mut all: Vec<Pages<u32>> = Vec::new();
        for (i, len) in [3, 0, 70_000, 5_000_000, 12_000_000, 1, 4_000_000].into_iter().enumerate() {
            all.push(Pages::filled(i as u32, len));
            assert_eq!(all[i].as_ptr() as usize % if len == 0 { 4 } else { LINE }, 0);
        }
        for (i, pages) in all.iter_mut().enumerate() {
            assert!(pages.iter().all(|x| *x == i as u32));
            pages.iter_mut().for_each(|x| *x += 100);
        }
        assert_eq!(all.iter().map(|pages| pages.len()).sum::<usize>(), 21_070_004);
        all.swap_remove(0);
        assert!(all.iter().all(|pages| pages.iter().all(|x| *x == pages.first().copied().unwrap_or(0))));
    }

    #[test]
    fn a_chunk_goes_with_its_last_slice() {
        let pages = Pages::filled(7u8, CHUNK);
        let chunk = pages._chunk.as_ref().map(Arc::downgrade).expect("memory");
        assert!(chunk.upgrade().is_some());
        drop(pages);
        assert!(chunk.upgrade().is_none());
    }
}
