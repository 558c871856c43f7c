//! A global allocator that counts what the calling thread allocates, so that tests running beside do not disturb the
//! count. A test program that wants it says `#[global_allocator] static ALLOCATOR: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system allocator, counting.
pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Allocations of every thread.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// Allocations of all threads of the process so far: what a step with threads of its own costs.
pub fn all_allocations() -> usize {
    ALL.load(Ordering::Relaxed)
}

/// Allocations of this thread so far.
pub fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

/// Bytes that this thread has allocated and not freed. Negative when it freed what another thread allocated.
pub fn live_bytes() -> isize {
    LIVE.with(Cell::get)
}

/// Largest `live_bytes` since the last `restart_peak`: what was asked for counts, whether touched or not.
pub fn peak_bytes() -> isize {
    PEAK.with(Cell::get)
}

/// Begins a new measurement of the peak.
pub fn restart_peak() {
    PEAK.with(|peak| peak.set(live_bytes()));
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        ALL.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.with(|live| {
            live.set(live.get() + layout.size() as isize);
            live.get()
        });
        PEAK.with(|peak| peak.set(peak.get().max(live)));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.with(|live| live.set(live.get() - layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}
