//! How fast this machine reads memory right now: threads of our own summing a buffer far larger than any cache. What a
//! decoder step could reach at best.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use crate::host::Outcome;

/// Bytes read in a pass, by all threads together.
const BYTES: usize = 1 << 30;
/// Numbers of a cache line.
const LINE: usize = 8;
/// Cache lines that are summed side by side: several additions and several reads are always under way.
const WIDE: usize = 8;

/// The buffer and its readers.
pub struct Probe {
    memory: Vec<u64>,
    threads: usize,
}

impl Probe {
    /// Takes the memory and touches it.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(threads: usize) -> Outcome<Self> {
        let mut memory: Vec<u64> = Vec::new();
        memory.try_reserve_exact(BYTES / 8).map_err(|_| "no memory for the bandwidth probe".to_owned())?;
        large_pages(&memory);
        memory.resize(BYTES / 8, 3);
        Ok(Self { memory, threads: threads.max(1) })
    }

    /// The best pass of about `seconds`, in bytes per second.
    pub fn measure(&self, seconds: f64) -> f64 {
        let began = Instant::now();
        let mut best = 0.0f64;
        while best == 0.0 || began.elapsed().as_secs_f64() < seconds {
            // One stretch for each thread, or four: which one a processor's prefetchers like better differs.
            for pattern in [sum::<1> as fn(&[u64]) -> u64, sum::<4>] {
                best = best.max(self.memory.len() as f64 * 8.0 / self.pass(pattern));
            }
        }
        best
    }

    /// Seconds from the moment that all threads are there to the last one's end.
    fn pass(&self, pattern: fn(&[u64]) -> u64) -> f64 {
        let start = Barrier::new(self.threads);
        let share = self.memory.len().div_ceil(self.threads);
        let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let read = |part| {
                let start = &start;
                move || {
                    start.wait();
                    let began = Instant::now();
                    black_box(pattern(part));
                    (began, Instant::now())
                }
            };
            let threads: Vec<_> = self.memory.chunks(share).map(|part| scope.spawn(read(part))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let began = times.iter().map(|(began, _)| *began).min();
        let ended = times.iter().map(|(_, ended)| *ended).max();
        began.zip(ended).map_or(f64::INFINITY, |(began, ended)| (ended - began).as_secs_f64())
    }
}

/// Asks for large pages, which the engine's weights may have too: small ones cost a walk of the page table every 4 kB.
fn large_pages(memory: &Vec<u64>) {
    #[cfg(target_os = "linux")]
    {
        let page = 1 << 21;
        let start = (memory.as_ptr() as usize).next_multiple_of(page);
        let end = memory.as_ptr() as usize + memory.capacity() * 8;
        if let Some(length) = end.checked_sub(start) {
            // SAFETY: the range lies within our own allocation; the advice changes no content. Refused, it does nothing.
            unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Sum of a part of the buffer, read in `STREAMS` stretches at once, with the widest registers there are.
fn sum<const STREAMS: usize>(part: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx2")]
        fn avx512<const STREAMS: usize>(part: &[u64]) -> u64 {
            body::<STREAMS>(part)
        }
        #[target_feature(enable = "avx2")]
        fn avx2<const STREAMS: usize>(part: &[u64]) -> u64 {
            body::<STREAMS>(part)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was seen just now; the body is safe code.
            return unsafe { avx512::<STREAMS>(part) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2::<STREAMS>(part) };
        }
    }
    body::<STREAMS>(part)
}

#[inline(always)]
fn body<const STREAMS: usize>(part: &[u64]) -> u64 {
    let (blocks, rest) = part.as_chunks::<{ LINE * WIDE }>();
    let length = blocks.len() / STREAMS;
    let mut sums = [0u64; LINE * WIDE];
    for index in 0..length {
        for stream in 0..STREAMS {
            let block = &blocks[stream * length + index];
            sums.iter_mut().zip(block).for_each(|(sum, number)| *sum = sum.wrapping_add(*number));
        }
    }
    let left = blocks[STREAMS * length..].iter().flatten().chain(rest);
    sums.iter().chain(left).fold(0, |sum, number| sum.wrapping_add(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read_once() {
        for length in [0, 5, 64, 1_000, 64 * 4 * 3 + 7] {
            let numbers: Vec<u64> = (0..length).collect();
            let expected = numbers.iter().sum::<u64>();
            assert_eq!((sum::<1>(&numbers), sum::<4>(&numbers)), (expected, expected), "{length}");
        }
    }
}
