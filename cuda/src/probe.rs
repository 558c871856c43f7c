//! How fast a card's memory is, by a plain read and a plain copy: what a step is measured against. And the first call on any
//! card: its driver, and a graph with nothing in it. Any thread.

use crate::driver::{Context, Driver, Event, Outcome, Stream};
use crate::kernels::Kernels;
use crate::layout;
use crate::memory::Buffer;

/// Passes of which the best counts.
const PASSES: usize = 10;

/// Runs a graph with nothing in it.
pub fn empty_graph(device: u32) -> Outcome<()> {
    let context = Context::open(Driver::open()?, device)?;
    let stream = Stream::new(&context)?;
    let graph = stream.capture(|| Ok(()))?;
    stream.run(&graph)?;
    stream.wait()
}

/// Bytes per second of reading and of copying (read and written bytes counted) `bytes` bytes.
pub fn bandwidth(device: u32, bytes: usize) -> Outcome<[f64; 2]> {
    let context = Context::open(Driver::open()?, device)?;
    let kernels = Kernels::load(&context)?;
    let stream = Stream::new(&context)?;
    let bytes = bytes.max(1 << 12).next_multiple_of(1 << 12);
    let (from, to, sink) = (Buffer::new(&context, bytes)?, Buffer::new(&context, bytes)?, Buffer::new(&context, 8)?);
    // SAFETY: all of our own memory.
    unsafe { stream.clear(from.address(), bytes) }?;
    let probe = layout::Probe { memory: from.address(), sink: sink.address(), words: (bytes / 8) as i64 };
    let (begin, end) = (Event::new()?, Event::new()?);
    let mut best = [f32::INFINITY; 2];
    for pass in 0..2 * PASSES {
        let copies = pass % 2;
        stream.mark(&begin)?;
        // SAFETY: as above.
        unsafe {
            match copies {
                0 => kernels.probe(&stream, probe)?,
                _ => stream.copy(to.address(), from.address(), bytes)?,
            }
        }
        stream.mark(&end)?;
        stream.wait()?;
        best[copies] = best[copies].min(begin.until(&end)?);
    }
    let rate = |milliseconds: f32, bytes: usize| bytes as f64 / (f64::from(milliseconds) * 1e-3);
    Ok([rate(best[0], bytes), rate(best[1], 2 * bytes)])
}
