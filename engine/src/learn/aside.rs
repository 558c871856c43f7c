//! What is not the concept: the axes along which pieces differ when each is averaged over the classes it was played in.
//! Instruments and textures lie there. A direction without its part in them moves the concept and leaves those readings
//! where they are. Any thread. Not in the paper.

use std::collections::BTreeMap;

use super::LearnError;
use super::axes::{self, Axes};
use super::eigen::Eigen;
use super::matrix::Matrix;
use super::samples::FitError;
use super::split::{Part, Split};
use super::states::States;
use super::watch::Watch;

/// Orthonormal axes `[axis][hidden]` of one block that hold `share` (below 1) of the variance between the training pieces; none
/// where clips belong to no pieces.
///
/// # Errors
/// [`FitError`] when a state is not finite.
pub fn axes_aside(states: &States, split: &Split, block: usize, share: f64) -> Result<Vec<Vec<f64>>, FitError> {
    let mut pieces: BTreeMap<(usize, u64), (Vec<f64>, f64)> = BTreeMap::new();
    for (clip, label) in split.part(Part::Train) {
        let Some(piece) = label.piece else { continue };
        let state = states.features(block, std::iter::once(clip));
        let (sum, count) = pieces.entry((label.group, piece)).or_insert_with(|| (vec![0.0; states.hidden], 0.0));
        sum.iter_mut().zip(&state).for_each(|(sum, x)| *sum += f64::from(*x));
        *count += 1.0;
    }
    if pieces.len() < 2 {
        return Ok(Vec::new());
    }
    let mut rows: Vec<f64> = pieces.values().flat_map(|(sum, count)| sum.iter().map(move |x| x / count)).collect();
    let count = pieces.len() as f64;
    let mut mean = vec![0.0; states.hidden];
    rows.chunks_exact(states.hidden).for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / count));
    rows.chunks_exact_mut(states.hidden).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean));
    let found = Eigen::of(&Matrix::from_rows(rows, states.hidden).gram())?;
    let all: f64 = found.values.iter().map(|value| value.max(0.0)).sum();
    let mut held = 0.0;
    let mut kept = Vec::new();
    for (axis, value) in found.values.iter().enumerate() {
        if held >= share * all {
            break;
        }
        held += value.max(0.0);
        kept.push(found.vectors.row(axis).to_vec());
    }
    Ok(kept)
}

/// The direction without its part along these axes, of length 1; as it was where nothing would be left.
fn cleared(direction: &[f32], aside: &[Vec<f64>]) -> Vec<f32> {
    let mut left: Vec<f64> = direction.iter().map(|x| f64::from(*x)).collect();
    for axis in aside {
        let along: f64 = left.iter().zip(axis).map(|(a, b)| a * b).sum();
        left.iter_mut().zip(axis).for_each(|(x, own)| *x -= along * own);
    }
    let length = left.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length < 1e-6 {
        return direction.to_vec();
    }
    left.iter().map(|x| (x / length) as f32).collect()
}

/// The same axes with every direction cleared of what holds `share` of the variance between pieces; detectors and scores are
/// those of the cleared ones.
///
/// # Errors
/// As [`axes::judge`].
pub fn clear(states: &States, split: &Split, axes: Axes, share: f64, watch: Watch) -> Result<Axes, LearnError> {
    if share <= 0.0 {
        return Ok(axes);
    }
    let aside: Vec<Vec<Vec<f64>>> =
        (0..states.blocks).map(|block| axes_aside(states, split, block, share)).collect::<Result<_, _>>()?;
    let given = |class: usize, block: usize| cleared(&axes.axes[class][block].direction, &aside[block]);
    axes::judge(states, split, axes.targets, &given, watch)
}

#[cfg(test)]
mod tests {
    use super::super::axes::{Method, Targets};
    use super::super::listener::Heard;
    use super::super::split::Label;
    use super::*;
    use crate::dataset::random::Random;

    const HIDDEN: usize = 8;

    /// Three classes on axes 0 to 2; pieces lie apart along axis 5, and class 1 leans that way too.
    fn planted() -> (States, Split) {
        let (mut heard, mut labels) = (Vec::new(), Vec::new());
        for clip in 0..360usize {
            let (class, piece) = (clip % 3, clip / 3);
            let mut random = Random::new(3, clip as u64, 1);
            let mut mean: Vec<f32> = (0..HIDDEN).map(|_| random.between(-100, 100) as f32 / 400.0).collect();
            mean[class] += 2.0;
            mean[5] += (piece % 7) as f32 + if class == 1 { 0.8 } else { 0.0 };
            heard.push(Some(Heard { mean, norms: vec![1.0] }));
            let piece = Some(piece as u64);
            labels.push(Some(Label { class, level: 0.0, group: clip / 60, height: None, piece }));
        }
        (States { heard, blocks: 1, hidden: HIDDEN }, Split::new(labels))
    }

    #[test]
    fn what_pieces_differ_in_is_left_alone_and_the_class_is_still_told() {
        let (states, split) = planted();
        let aside = axes_aside(&states, &split, 0, 0.9).expect("finite");
        assert_eq!(aside.len(), 1);
        assert!(aside[0][5].abs() > 0.999, "{aside:?}");
        let learned =
            axes::learn(&states, &split, Targets::Classes(3), Method::Mean, None, Watch::IDLE).expect("learns");
        assert!(learned.axes[1][0].direction[5] > 0.15);
        let cleared = clear(&states, &split, learned.clone(), 0.9, Watch::IDLE).expect("clears");
        let axis = &cleared.axes[1][0];
        assert!(axis.direction[5].abs() < 0.02 && axis.direction[1] > 0.7, "{:?}", axis.direction);
        assert!(axis.test > 0.98);
        assert_eq!(clear(&states, &split, learned.clone(), 0.0, Watch::IDLE).expect("nothing to do"), learned);
    }

    #[test]
    fn clips_of_no_piece_have_nothing_aside() {
        let (states, split) = planted();
        let labels = (0..states.heard.len()).map(|clip| Some(Label { piece: None, ..*split.label(clip)? })).collect();
        assert!(axes_aside(&states, &Split::new(labels), 0, 0.9).expect("finite").is_empty());
        let unit = [0.6f32, 0.8, 0.0];
        assert_eq!(cleared(&unit, &[vec![0.6, 0.8, 0.0]]), unit);
    }
}
