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
        let frames = latent.len() / self.width;
        let mut residual = latent.to_vec();
        let mut scores = vec![0.0; SEARCH_ROWS * self.size];
        let mut codes = Vec::with_capacity(self.tables.len());
        for (table, linear) in self.tables.iter().zip(&search.scores) {
            let mut found = Vec::with_capacity(frames);
            for rows in residual.chunks_mut(SEARCH_ROWS * self.width) {
                let count = rows.len() / self.width;
                linear.forward(rows, self.width, count, &mut scores, self.size);
                for (row, scores) in rows.chunks_exact_mut(self.width).zip(scores.chunks_exact(self.size)) {
                    let code = self.nearest(table, row, scores);
                    for (r, e) in row.iter_mut().zip(&table[code * self.width..][..self.width]) {
                        *r -= e;
                    }
                    found.push(code as u32);
                }
            }
            codes.push(found);
        }
        codes
    }

    /// Best of `scores`; near ties are settled by f64 distances, the lower code first.
    fn nearest(&self, table: &[f32], row: &[f32], scores: &[f32]) -> usize {
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let energy: f32 = row.iter().map(|v| v * v).sum();
        let floor = best - NEAR * (best.abs() + energy);
        let mut nearest = (0, f64::INFINITY);
        for (code, _) in scores.iter().enumerate().filter(|(_, score)| **score >= floor) {
            let e = &table[code * self.width..][..self.width];
            let distance: f64 = row.iter().zip(e).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            if distance < nearest.1 {
                nearest = (code, distance);
            }
        }
        nearest.0
    }
}
