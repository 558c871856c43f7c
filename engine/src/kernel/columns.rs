//! Rows of outputs that several threads fill at once, each of them its own columns. Any thread.

use std::marker::PhantomData;
use std::ops::Range;

/// A borrowed `[rows][stride]` that is written by columns.
pub struct Columns<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a `&mut [f32]` that hands out parts; whoever takes one promises that nobody else has it.
unsafe impl Send for Columns<'_> {}
// SAFETY: as above.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Rows of `y`, each `stride` values after the one before.
    pub fn new(y: &'a mut [f32], stride: usize) -> Self {
        Self { start: y.as_mut_ptr(), len: y.len(), stride, borrow: PhantomData }
    }

    /// Whether `rows` rows of `width` columns lie inside without overlap.
    pub fn holds(&self, rows: usize, width: usize) -> bool {
        rows == 0 || ((self.stride >= width || rows == 1) && (rows - 1) * self.stride + width <= self.len)
    }

    /// The rows from `row` on.
    ///
    /// # Panics
    /// When there are none.
    pub fn from_row(&self, row: usize) -> Columns<'_> {
        let first = row * self.stride;
        assert!(first <= self.len, "no such row");
        // SAFETY: inside the borrow, or one past its end.
        Columns { start: unsafe { self.start.add(first) }, len: self.len - first, ..*self }
    }

    /// Some columns of one row.
    ///
    /// # Safety
    /// Nobody else reads or writes these columns of this row while the slice is in use.
    ///
    /// # Panics
    /// When they lie outside.
    #[allow(clippy::mut_from_ref, reason = "handing out disjoint parts of one borrow is what it is for")]
    pub unsafe fn row(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let (first, count) = (row * self.stride + columns.start, columns.len());
        assert!(first <= self.len && count <= self.len - first, "columns outside the rows");
        // SAFETY: inside the borrow, and the caller's promise that the part is theirs alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_fill_their_own_columns() {
        let mut y = vec![0.0; 3 * 10];
        let columns = Columns::new(&mut y, 10);
        std::thread::scope(|scope| {
            for part in 0..3 {
                let columns = &columns;
                scope.spawn(move || {
                    for row in 0..3 {
                        // SAFETY: each thread has columns of its own.
                        unsafe { columns.row(row, 3 * part..3 * part + 3) }.fill((10 * row + part) as f32);
                    }
                });
            }
        });
        assert!(columns.from_row(1).holds(2, 10) && !columns.from_row(1).holds(3, 10));
        assert!(columns.holds(3, 10) && !columns.holds(4, 10) && !columns.holds(2, 11) && columns.holds(1, 30));
        for (i, value) in y.iter().enumerate() {
            let (row, column) = (i / 10, i % 10);
            assert_eq!(*value, if column == 9 { 0.0 } else { (10 * row + column / 3) as f32 });
        }
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn nothing_outside_is_given_out() {
        let mut y = vec![0.0; 8];
        let columns = Columns::new(&mut y, 4);
        // SAFETY: nobody else is here.
        unsafe { columns.row(1, 5..9) };
    }
}
