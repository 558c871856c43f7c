//! Dense f64 matrices by rows, and their products. The arithmetic is the library faer's on the calling thread alone, so
//! that sums do not depend on the number of processors: whoever has many fits runs them side by side.

use faer::linalg::matmul::triangular::BlockStructure::{Rectangular, TriangularLower};
use faer::linalg::matmul::{self, triangular};
use faer::{Accum, MatMut, MatRef, Par};

/// A dense matrix. Products panic where the sizes do not fit, as indices beyond the end do.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    data: Vec<f64>,
    width: usize,
}

impl Matrix {
    /// All zeros; `width` is above 0.
    pub fn zeros(rows: usize, width: usize) -> Self {
        Self { data: vec![0.0; rows * width], width: width.max(1) }
    }

    /// From `[row][width]`; numbers beyond the last whole row are dropped.
    pub fn from_rows(mut data: Vec<f64>, width: usize) -> Self {
        let width = width.max(1);
        data.truncate(data.len() / width * width);
        Self { data, width }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.width
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.width..][..self.width]
    }

    /// One row, to write.
    pub fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.width..][..self.width]
    }

    /// All numbers, `[row][width]`.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// All numbers, to write.
    pub fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// As the library sees it.
    pub(super) fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.data, self.rows(), self.width)
    }

    fn view_mut(&mut self) -> MatMut<'_, f64> {
        let rows = self.rows();
        MatMut::from_row_major_slice_mut(&mut self.data, rows, self.width)
    }

    /// `self · other`.
    pub fn times(&self, other: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows(), other.width);
        matmul::matmul(out.view_mut(), Accum::Replace, self.view(), other.view(), 1.0, Par::Seq);
        out
    }

    /// `self · otherᵀ`.
    pub fn times_transposed(&self, other: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows(), other.rows());
        matmul::matmul(out.view_mut(), Accum::Replace, self.view(), other.view().transpose(), 1.0, Par::Seq);
        out
    }

    /// `selfᵀ · other`.
    pub fn transposed_times(&self, other: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.width, other.width);
        matmul::matmul(out.view_mut(), Accum::Replace, self.view().transpose(), other.view(), 1.0, Par::Seq);
        out
    }

    /// `self · otherᵀ` where that is known to be symmetric: half the work.
    pub fn times_transposed_symmetric(&self, other: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows(), other.rows());
        lower_product(&mut out, self.view(), other.view().transpose());
        out.mirror_lower();
        out
    }

    /// `selfᵀ · self`, symmetric to the last bit.
    pub fn gram(&self) -> Matrix {
        let mut out = Matrix::zeros(self.width, self.width);
        lower_product(&mut out, self.view().transpose(), self.view());
        out.mirror_lower();
        out
    }

    /// Copies what is below the diagonal above it, in blocks that fit the cache.
    pub fn mirror_lower(&mut self) {
        const BLOCK: usize = 32;
        let size = self.width;
        for top in (0..size).step_by(BLOCK) {
            for left in (0..=top).step_by(BLOCK) {
                for i in top..(top + BLOCK).min(size) {
                    for j in left..(left + BLOCK).min(i) {
                        self.data[j * size + i] = self.data[i * size + j];
                    }
                }
            }
        }
    }
}

fn lower_product(out: &mut Matrix, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    let out = out.view_mut();
    triangular::matmul(out, TriangularLower, Accum::Replace, left, Rectangular, right, Rectangular, 1.0, Par::Seq);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(rows: usize, width: usize, step: f64) -> Matrix {
        Matrix::from_rows((0..rows * width).map(|i| ((i as f64 * step) % 7.0) - 3.0).collect(), width)
    }

    fn transposed(a: &Matrix) -> Matrix {
        let data = (0..a.width()).flat_map(|j| (0..a.rows()).map(move |i| a.row(i)[j])).collect();
        Matrix::from_rows(data, a.rows())
    }

    fn close(a: &Matrix, b: &Matrix) {
        assert_eq!((a.rows(), a.width()), (b.rows(), b.width()));
        for (a, b) in a.data().iter().zip(b.data()) {
            assert!((a - b).abs() < 1e-10, "{a} {b}");
        }
    }

    #[test]
    fn products_agree_with_loops() {
        let (a, b) = (counting(37, 45, 1.3), counting(45, 70, 2.1));
        let mut wanted = Matrix::zeros(37, 70);
        for i in 0..37 {
            for j in 0..70 {
                wanted.row_mut(i)[j] = (0..45).map(|k| a.row(i)[k] * b.row(k)[j]).sum();
            }
        }
        close(&a.times(&b), &wanted);
        close(&a.times_transposed(&transposed(&b)), &wanted);
        close(&transposed(&a).transposed_times(&b), &wanted);
        let gram = a.gram();
        close(&gram, &a.transposed_times(&a));
        close(&a.times_transposed_symmetric(&a), &a.times_transposed(&a));
        assert_eq!(gram, transposed(&gram));
    }
}
