//! How long a cache line takes from one core to another. The cores of a rented machine may share a cache at one minute and
//! none at the next: then memory is read faster, by two ways, and threads that work together wait longer for each other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// There and back, so many times in a row.
const TRIPS: u32 = 4_000;
/// The fastest of so many rows counts: in the others a thread may have lost its core.
const ROWS: u32 = 8;

/// A line of its own, and the one beside it, since processors fetch them in pairs.
#[repr(align(128))]
struct Line(AtomicU32);

/// Seconds from one thread's store to the other's load; `None` where there is one core only.
pub fn seconds(threads: usize) -> Option<f64> {
    if threads < 2 || !std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        return None;
    }
    let line = Line(AtomicU32::new(0));
    let wait = |number: u32| {
        while line.0.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
        }
    };
    let mut best = f64::INFINITY;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for trip in 0..ROWS * TRIPS {
                wait(2 * trip + 1);
                line.0.store(2 * trip + 2, Ordering::Release);
            }
        });
        for row in 0..ROWS {
            let began = Instant::now();
            for trip in row * TRIPS..(row + 1) * TRIPS {
                line.0.store(2 * trip + 1, Ordering::Release);
                wait(2 * trip + 2);
            }
            best = best.min(began.elapsed().as_secs_f64() / f64::from(2 * TRIPS));
        }
    });
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_has_nobody_to_hand_to_and_two_take_time() {
        assert!(seconds(1).is_none());
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let found = seconds(2);
        assert_eq!(found.is_some(), cores > 1);
        assert!(found.is_none_or(|seconds| seconds > 1e-9 && seconds.is_finite()));
    }
}
