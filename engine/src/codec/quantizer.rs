//! Residual vector quantisation, both ways: codes to a latent by table look-up, a latent to the nearest code of each residual.
//! Look-up on the runner thread, search on any thread.

use super::CodecError;
use crate::checkpoint::{CheckpointError, Weights};
use crate::kernel::Linear;

/// Latent rows searched per pass over a codebook.
const SEARCH_ROWS: usize = 64;

/// f32 scores closer than this share of the scale are compared again in f64.
const NEAR: f32 = 1e-4;

/// The tables of all codebooks, immutable.
pub struct Quantizer {
    /// `[codebook][code][width]`.
    tables: Vec<Vec<f32>>,
    size: usize,
    width: usize,
}

/// The same tables packed for the search: `x . e - |e|^2 / 2` is largest at the nearest code.
pub(super) struct Search {
    scores: Vec<Linear>,
}

impl Quantizer {
    /// Reads `codebooks` tables of `[size][width]` under `prefix` (`audio_encoder.quantizer.`).
    ///
    /// # Errors
    /// A missing or mis-shaped table, by name.
    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        codebooks: usize,
        (size, width): (usize, usize),
    ) -> Result<Self, CheckpointError> {
        let tables = (0..codebooks)
            .map(|k| weights.tensor(&format!("{prefix}layers.{k}.codebook.embed"), &[size, width]))
            .collect::<Result<_, _>>()?;
        Ok(Self { tables, size, width })
    }

    pub(super) fn codebooks(&self) -> usize {
        self.tables.len()
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Refuses codes that are not in the tables; `codes` is `[frames][codebooks]`.
    pub(super) fn check(&self, codes: &[u32]) -> Result<(), CodecError> {
        if !codes.len().is_multiple_of(self.codebooks()) {
            return Err(CodecError::PartialFrame { found: codes.len(), codebooks: self.codebooks() });
        }
        match codes.iter().position(|&code| code as usize >= self.size) {
            Some(at) => Err(CodecError::UnknownCode {
                code: codes[at],
                codebook: at % self.codebooks(),
                frame: at / self.codebooks(),
                size: self.size,
            }),
            None => Ok(()),
        }
    }

    /// Sum of one frame's code vectors, codebook 0 first. The codes have passed [`Quantizer::check`].
    pub(super) fn latent(&self, codes: &[u32], out: &mut [f32]) {
        out.fill(0.0);
        for (table, &code) in self.tables.iter().zip(codes) {
            let row = &table[code as usize * self.width..][..self.width];
            for (y, e) in out.iter_mut().zip(row) {
                *y += e;
            }
        }
    }

    pub(super) fn search(&self) -> Search {
        let scores = self.tables.iter().map(|table| {
            let bias: Vec<f32> = table
                .chunks_exact(self.width)
                .map(|e| -0.5 * e.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() as f32)
                .collect();
            Linear::new(table, Some(&bias), self.size, self.width)
        });
        Search { scores: scores.collect() }
    }

    /// Nearest code of each residual of `latent` (`[frames][width]`), codebook-major.
    pub(super) fn encode(&self, search: &Search, latent: &[f32]) -> Vec<Vec<u32>> {
        let mut residual = latent.to_vec();
        let mut codes = Vec::with_capacity(self.tables.len());
        for codebook in 0..self.codebooks() {
            let found = self.nearest_codes(search, codebook, &residual);
            for (row, &code) in residual.chunks_exact_mut(self.width).zip(&found) {
                self.subtract(codebook, code, row);
            }
            codes.push(found);
        }
        codes
    }

    /// Nearest code of one codebook for each row of `residual` (`[frames][width]`).
    pub(super) fn nearest_codes(&self, search: &Search, codebook: usize, residual: &[f32]) -> Vec<u32> {
        let (table, linear) = (&self.tables[codebook], &search.scores[codebook]);
        let mut scores = vec![0.0; SEARCH_ROWS * self.size];
        let mut found = Vec::with_capacity(residual.len() / self.width);
        for rows in residual.chunks(SEARCH_ROWS * self.width) {
            let count = rows.len() / self.width;
            linear.forward(rows, self.width, count, &mut scores, self.size);
            for (row, scores) in rows.chunks_exact(self.width).zip(scores.chunks_exact(self.size)) {
                found.push(self.nearest(table, row, scores) as u32);
            }
        }
        found
    }

    /// Squared distance from a row to a code.
    pub(super) fn distance(&self, codebook: usize, code: u32, row: &[f32]) -> f64 {
        squared_distance(row, self.code(codebook, code))
    }

    /// |x|^2 + |e|^2 of a row and a code.
    pub(super) fn terms(&self, codebook: usize, code: u32, row: &[f32]) -> f64 {
        row.iter().chain(self.code(codebook, code)).map(|&v| f64::from(v).powi(2)).sum()
    }

    /// Leaves what the code does not say.
    pub(super) fn subtract(&self, codebook: usize, code: u32, row: &mut [f32]) {
        row.iter_mut().zip(self.code(codebook, code)).for_each(|(r, e)| *r -= e);
    }

    fn code(&self, codebook: usize, code: u32) -> &[f32] {
        &self.tables[codebook][code as usize * self.width..][..self.width]
    }

    /// Best of `scores`; near ties are settled by f64 distances, the lower code first.
    fn nearest(&self, table: &[f32], row: &[f32], scores: &[f32]) -> usize {
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let energy: f32 = row.iter().map(|v| v * v).sum();
        let floor = best - NEAR * (best.abs() + energy);
        let mut nearest = (0, f64::INFINITY);
        for (code, _) in scores.iter().enumerate().filter(|(_, score)| **score >= floor) {
            let e = &table[code * self.width..][..self.width];
            let distance = squared_distance(row, e);
            if distance < nearest.1 {
                nearest = (code, distance);
            }
        }
        nearest.0
    }
}

fn squared_distance(row: &[f32], code: &[f32]) -> f64 {
    row.iter().zip(code).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}
