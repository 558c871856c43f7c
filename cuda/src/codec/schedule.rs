//! Which rows each operation makes in a run: plain counting, as engine/src/codec has it for the processor. What a graph of fixed
//! size has to make room for is found by counting through the start of a stream, and through its end there. Any thread.

use crate::abi::{Operation, operation};
use crate::layout::{MOST_OPERATIONS, Span};

/// Frames until nothing changes any more from frame to frame: a codec's reach is a few.
const HORIZON: u64 = 128;

/// Rows of an operation's output once its source has `seen`, before or at the end of the stream.
fn rows(facts: &Operation, seen: u64, last: bool) -> u64 {
    let [kernel, dilation, phases, left, trim] =
        [facts.kernel, facts.dilation, facts.phases, facts.left, facts.trim].map(u64::from);
    match facts.kind {
        operation::CONVOLUTION if last => seen,
        operation::CONVOLUTION => {
            // The reflection at the start is not known before the rows that it reflects.
            let waits = seen == 0 || (facts.reflect != 0 && seen <= left);
            if waits { 0 } else { (seen + left).saturating_sub((kernel - 1) * dilation) }
        }
        operation::TRANSPOSED if last => seen * phases,
        operation::TRANSPOSED => (seen * phases).saturating_sub(trim),
        _ => seen,
    }
}

/// How far each operation has come in one stream.
#[derive(Clone, Debug)]
pub struct Progress {
    operations: Vec<Operation>,
    frames: u64,
    made: [u64; MOST_OPERATIONS],
}

impl Progress {
    pub fn new(operations: Vec<Operation>) -> Self {
        Self { operations, frames: 0, made: [0; MOST_OPERATIONS] }
    }

    /// Back to the start of a stream.
    pub fn reset(&mut self) {
        self.frames = 0;
        self.made.fill(0);
    }

    /// Takes one more frame, or with `last` ends the stream; writes what each operation does, and gives the rows of the last
    /// one.
    pub fn advance(&mut self, last: bool, work: &mut [Span; MOST_OPERATIONS]) -> usize {
        self.frames += u64::from(!last);
        let mut count = 0;
        for (index, facts) in self.operations.iter().enumerate() {
            let seen = if index == 0 { self.frames } else { self.made[facts.source as usize] };
            let (first, until) = (self.made[index], rows(facts, seen, last));
            work[index] = Span { first: first as i64, until: until as i64, seen: seen as i64, unused: 0 };
            self.made[index] = until;
            count = (until - first) as usize;
        }
        count
    }
}

/// What a codec's graphs have to make room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most rows of each operation in a run that takes a frame, and in the one that ends the stream.
    pub frame: Vec<usize>,
    pub end: Vec<usize>,
    /// Rows of each ring, powers of two.
    pub rings: Vec<usize>,
}

impl Room {
    pub fn of(operations: &[Operation]) -> Self {
        let none = vec![0; operations.len()];
        let (mut frame, mut end, mut rings) = (none.clone(), none.clone(), none);
        let mut progress = Progress::new(operations.to_vec());
        let mut work = [Span::default(); MOST_OPERATIONS];
        let mut look = |work: &[Span; MOST_OPERATIONS], most: &mut Vec<usize>| {
            for (index, facts) in operations.iter().enumerate() {
                let Span { first, until, seen, .. } = work[index];
                most[index] = most[index].max((until - first) as usize);
                rings[index] = rings[index].max((until - first) as usize);
                if first == until || index == 0 {
                    continue;
                }
                // The oldest row that is read: by the first window, or by the reflection at the end.
                let [left, right, phases, trim] = [facts.left, facts.right, facts.phases, facts.trim].map(i64::from);
                let window = (first + trim) / phases - left;
                let oldest = if facts.kind == operation::LSTM { first } else { window.min(seen - 2 - right.max(left)) };
                let source = facts.source as usize;
                rings[source] = rings[source].max((seen - oldest.max(0)) as usize);
                if facts.skip >= 0 {
                    let skip = facts.skip as usize;
                    rings[skip] = rings[skip].max((work[skip].until - first) as usize);
                }
            }
        };
        for _ in 0..HORIZON {
            progress.advance(false, &mut work);
            look(&work, &mut frame);
            progress.clone().advance(true, &mut work);
            look(&work, &mut end);
        }
        rings.iter_mut().for_each(|rows| *rows = rows.next_power_of_two());
        Self { frame, end, rings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convolution(source: u32, kernel: u32, left: u32, right: u32) -> Operation {
        let facts = Operation { kind: operation::CONVOLUTION, source, skip: -1, inputs: 4, outputs: 4, ..transposed() };
        Operation { kernel, left, right, phases: 1, trim: 0, reflect: 1, ..facts }
    }

    fn transposed() -> Operation {
        Operation {
            kind: operation::TRANSPOSED,
            source: 1,
            skip: -1,
            inputs: 4,
            outputs: 4,
            kernel: 2,
            dilation: 1,
            phases: 8,
            left: 1,
            right: 0,
            trim: 4,
            reflect: 0,
            elu: 1,
        }
    }

    fn operations() -> Vec<Operation> {
        let latent = Operation { kind: operation::LATENT, ..convolution(0, 1, 0, 0) };
        let upsample = Operation { source: 1, ..transposed() };
        vec![latent, convolution(0, 7, 3, 3), upsample, convolution(2, 3, 1, 1), convolution(3, 1, 0, 0)]
    }

    #[test]
    fn a_stream_makes_every_row_once_whenever_it_ends() {
        for frames in 0..12 {
            let mut progress = Progress::new(operations());
            let mut work = [Span::default(); MOST_OPERATIONS];
            let mut next = [0; 5];
            let mut made = 0;
            for run in 0..=frames {
                made += progress.advance(run == frames, &mut work);
                for (index, next) in next.iter_mut().enumerate() {
                    assert_eq!(work[index].first, *next);
                    *next = work[index].until;
                }
                if run == 4 && run < frames {
                    // Five frames: the first convolution waits for three, the upsampler cuts four rows, a window lacks one.
                    assert_eq!((work[1].until, work[2].until, work[3].until), (2, 12, 11));
                }
            }
            assert_eq!(made, frames * 8);
        }
    }

    #[test]
    fn there_is_room_for_every_run() {
        let room = Room::of(&operations());
        assert_eq!(room.frame, [1, 1, 8, 8, 8]);
        // Three rows wait in the first convolution, then twenty-eight with what the upsampler cut, and one more.
        assert_eq!(room.end, [0, 3, 28, 29, 29]);
        assert!(room.rings[0] >= 7 && room.rings[2] >= 28 && room.rings.iter().all(|rows| rows.is_power_of_two()));
    }
}
