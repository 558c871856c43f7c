//! How far the sound of two sets of clips lies apart: the Frechet distance between Gaussians fitted to an embedding, as in
//! FAD (Kilgour et al., "Frechet Audio Distance", Interspeech 2019). The embedding, "tiller-features-pca32": the first 32
//! principal components of the classifier's features over rendered clips, each of variance 1. Worker threads.

use crate::learn::eigen::Eigen;
use crate::learn::matrix::Matrix;
use crate::learn::samples::FitError;

/// Names of the embeddings in reports: of all features, and of those of timbre and rhythm alone (steering is to change the
/// pitches, so a distance that counts them says how much it did, not how much it broke).
pub const EMBEDDING: &str = "tiller-features-pca32";
pub const SOUND_EMBEDDING: &str = "tiller-timbre-rhythm-pca32";

/// Dimensions, at most.
pub const DIMENSIONS: usize = 32;

/// Deviation that a feature counts as having at least: one that never changed in the renders must not explode.
const LEAST: f64 = 1e-3;

/// The embedding.
#[derive(Clone, Debug)]
pub struct Embedding {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    /// `[dimension][feature]`, scaled so that each dimension has variance 1 over what it was learned from.
    axes: Matrix,
}

impl Embedding {
    /// Learns it from features of rendered clips.
    ///
    /// # Errors
    /// [`FitError`] with fewer than two clips, or features that are not finite.
    pub fn learn(rows: &[&[f32]]) -> Result<Self, FitError> {
        let width = rows.first().map_or(0, |row| row.len());
        if rows.len() < 2 || width == 0 {
            return Err(FitError::TooFew { found: rows.len(), needed: 2 });
        }
        let count = rows.len() as f64;
        let column = |i: usize| rows.iter().map(move |row| f64::from(row[i]));
        let mean: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / count).collect();
        let spread = |i: usize| (column(i).map(|x| (x - mean[i]).powi(2)).sum::<f64>() / count).sqrt().max(LEAST);
        let deviation: Vec<f64> = (0..width).map(spread).collect();
        let scaled = |row: &&[f32]| {
            let each = row.iter().zip(mean.iter().zip(&deviation));
            each.map(|(x, (mean, deviation))| (f64::from(*x) - mean) / deviation).collect::<Vec<f64>>()
        };
        let standard = Matrix::from_rows(rows.iter().flat_map(scaled).collect(), width);
        let mut covariance = standard.gram();
        covariance.data_mut().iter_mut().for_each(|x| *x /= count);
        covariance.mirror_lower();
        let eigen = Eigen::of(&covariance)?;
        let mut axes = Vec::new();
        for dimension in 0..DIMENSIONS.min(width) {
            let scale = 1.0 / eigen.values[dimension].max(1e-9).sqrt();
            axes.extend(eigen.vectors.row(dimension).iter().map(|x| x * scale));
        }
        Ok(Self { mean, deviation, axes: Matrix::from_rows(axes, width) })
    }

    /// A clip's place.
    pub fn of(&self, features: &[f32]) -> Vec<f64> {
        let standard: Vec<f64> = features
            .iter()
            .zip(self.mean.iter().zip(&self.deviation))
            .map(|(x, (mean, deviation))| (f64::from(*x) - mean) / deviation)
            .collect();
        (0..self.axes.rows()).map(|d| self.axes.row(d).iter().zip(&standard).map(|(a, x)| a * x).sum()).collect()
    }
}

/// Frechet distance between the Gaussians of two sets of places: squared distance of the means, and what the covariances
/// differ by. Compare sets of equal numbers only: it is biased upwards, the more the fewer there are.
///
/// # Errors
/// [`FitError`] with fewer than two places in a set, or numbers that are not finite.
pub fn frechet(a: &[Vec<f64>], b: &[Vec<f64>]) -> Result<f64, FitError> {
    let ((mean_a, cov_a), (mean_b, cov_b)) = (gaussian(a)?, gaussian(b)?);
    let apart: f64 = mean_a.iter().zip(&mean_b).map(|(a, b)| (a - b).powi(2)).sum();
    let root = root(&cov_a)?;
    let mut inner = root.times(&cov_b).times(&root);
    inner.mirror_lower();
    let shared: f64 = Eigen::of(&inner)?.values.iter().map(|value| value.max(0.0).sqrt()).sum();
    let trace = |m: &Matrix| (0..m.rows()).map(|i| m.row(i)[i]).sum::<f64>();
    Ok((apart + trace(&cov_a) + trace(&cov_b) - 2.0 * shared).max(0.0))
}

fn gaussian(places: &[Vec<f64>]) -> Result<(Vec<f64>, Matrix), FitError> {
    let [first, _, ..] = places else { return Err(FitError::TooFew { found: places.len(), needed: 2 }) };
    let (width, count) = (first.len(), places.len() as f64);
    let mean: Vec<f64> = (0..width).map(|i| places.iter().map(|p| p[i]).sum::<f64>() / count).collect();
    let centred = |place: &Vec<f64>| place.iter().zip(&mean).map(|(x, m)| x - m).collect::<Vec<f64>>();
    let rows = Matrix::from_rows(places.iter().flat_map(centred).collect(), width);
    let mut covariance = rows.gram();
    covariance.data_mut().iter_mut().for_each(|x| *x /= count - 1.0);
    covariance.mirror_lower();
    Ok((mean, covariance))
}

/// Symmetric square root.
fn root(matrix: &Matrix) -> Result<Matrix, FitError> {
    let eigen = Eigen::of(matrix)?;
    let mut scaled = eigen.vectors.clone();
    for (i, value) in eigen.values.iter().enumerate() {
        scaled.row_mut(i).iter_mut().for_each(|x| *x *= value.max(0.0).sqrt());
    }
    Ok(eigen.vectors.transposed_times(&scaled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::samples::normal;

    /// Places with independent components of these means and deviations.
    fn cloud(seed: u64, count: usize, mean: f64, deviation: [f64; 3]) -> Vec<Vec<f64>> {
        let noise = normal(seed, count * 3);
        noise.chunks(3).map(|z| (0..3).map(|i| mean + deviation[i] * z[i]).collect()).collect()
    }

    #[test]
    fn the_distance_of_known_gaussians() {
        let wanted = |shift: f64, a: [f64; 3], b: [f64; 3]| {
            3.0 * shift * shift + a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
        };
        for (shift, a, b) in
            [(0.0, [1.0; 3], [1.0; 3]), (2.0, [1.0; 3], [1.0; 3]), (0.5, [1.0, 2.0, 0.3], [3.0, 2.0, 1.0])]
        {
            let found = frechet(&cloud(1, 20_000, 0.0, a), &cloud(2, 20_000, shift, b)).expect("enough");
            assert!((found - wanted(shift, a, b)).abs() < 0.1, "{found} for {}", wanted(shift, a, b));
        }
        let one = cloud(3, 50, 0.0, [1.0; 3]);
        assert!(frechet(&one, &one).expect("enough") < 1e-9);
        assert!(frechet(&one[..1], &one).is_err());
    }

    #[test]
    fn the_embedding_has_variance_one_and_sees_a_shift() {
        let rows: Vec<Vec<f32>> = cloud(4, 400, 5.0, [3.0, 1.0, 0.1])
            .into_iter()
            .map(|row| vec![row[0] as f32, row[1] as f32, (row[0] + row[2]) as f32, 7.0])
            .collect();
        let views: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let embedding = Embedding::learn(&views).expect("learns");
        let places: Vec<Vec<f64>> = views.iter().map(|row| embedding.of(row)).collect();
        let (mean, covariance) = gaussian(&places).expect("enough");
        for (i, mean) in mean.iter().enumerate().take(3) {
            assert!(mean.abs() < 1e-6 && (covariance.row(i)[i] - 1.0).abs() < 0.02, "{i}: {covariance:?}");
        }
        let moved: Vec<Vec<f64>> =
            rows.iter().map(|row| embedding.of(&[row[0] + 3.0, row[1], row[2], row[3]])).collect();
        assert!(frechet(&places, &moved).expect("enough") > 1.0);
        assert!(Embedding::learn(&views[..1]).is_err());
    }
}
