//! Sinusoidal positions as transformers computes them, for any position: cosines first, then sines. Any thread.
//! Rounded to f32 where transformers rounds, since at position 1,500 one bit of a frequency is visible.

/// The frequencies of one width.
pub struct Positions {
    frequencies: Vec<f32>,
    width: usize,
}

impl Positions {
    /// For rows of `width` (at least 4) values.
    pub fn new(width: usize) -> Self {
        let half = width / 2;
        let step = -(10_000f64.ln() / (half - 1) as f64) as f32;
        let frequencies = (0..half).map(|i| f64::from(i as f32 * step).exp() as f32).collect();
        Self { frequencies, width }
    }

    /// Adds the embedding of `position` to `row` `[width]`. There is no last position.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub fn add(&self, position: usize, row: &mut [f32]) {
        let (cosines, sines) = row[..self.width].split_at_mut(self.frequencies.len());
        for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(&self.frequencies) {
            let (s, c) = f64::from(position as f32 * frequency).sin_cos();
            *cosine += c as f32;
            *sine += s as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let positions = Positions::new(7);
        let mut row = [0.0; 7];
        positions.add(0, &mut row);
        assert_eq!(row, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let mut row = [0.0; 7];
        positions.add(5000, &mut row);
        let expected = |f: f64| ((5000.0 * f).cos() as f32, (5000.0 * f).sin() as f32);
        assert_eq!((row[0], row[3]), expected(1.0));
        assert!((row[2] - expected(1e-4).0).abs() < 1e-6 && (row[5] - expected(1e-4).1).abs() < 1e-6);
    }
}
