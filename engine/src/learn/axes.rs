//! One direction for each class and block, by the method of one's choice, with its detector and held-out scores
//! (`method.md` 3.4 to 3.8). Worker threads, all cores.

use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::LearnError;
use super::detector;
use super::linear::{LOGISTIC_PENALTIES, RIDGE_PENALTIES, logistic, ridge};
use super::mean::mean_difference;
use super::rfm::Settings;
use super::samples::{FitError, Samples, Task};
use super::score::{auc, correlation};
use super::search::{Criterion, search};
use super::split::{Part, Rows, Split};
use super::states::States;
use super::told::Told;
use super::watch::{Stage, Watch};
use crate::steering::detector::Detector;
use crate::whole_file;

/// How a direction is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Recursive Feature Machine: top eigenvector of the average gradient outer product.
    Rfm,
    /// Difference of class means.
    Mean,
    /// Weights of a ridge regression.
    Linear,
    /// Weights of a logistic regression; of a ridge regression for levels.
    Logistic,
    /// Gradient of the decoder's own likelihood of the class: found for all blocks at once (`likelihood`).
    Likelihood,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 5] = [Self::Rfm, Self::Mean, Self::Linear, Self::Logistic, Self::Likelihood];

    /// Its name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfm => "rfm",
            Self::Mean => "mean",
            Self::Linear => "linear",
            Self::Logistic => "logistic",
            Self::Likelihood => "likelihood",
        }
    }

    /// A unit vector that rises with the targets.
    fn direction(self, train: &Samples, validation: &Samples, watch: Watch) -> Result<Vec<f32>, FitError> {
        match (self, train.task()) {
            // Gradients centred may predict better and yet have the concept's axis taken out: what counts here is the
            // direction.
            (Self::Rfm, _) => {
                let found = search(train, validation, &Settings::grid(), Criterion::Direction, &|_| watch.check())?;
                Ok(found.axis.direction)
            }
            // Of one block alone, the likelihood says nothing: where it begins is the difference of means.
            (Self::Mean | Self::Likelihood, _) => mean_difference(train),
            (Self::Logistic, Task::Class) => Ok(logistic(train, validation, &LOGISTIC_PENALTIES)?.direction),
            (Self::Linear | Self::Logistic, _) => Ok(ridge(train, validation, &RIDGE_PENALTIES)?.direction),
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What is learned: classes, each against the rest, or one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// So many classes.
    Classes(usize),
    /// A number.
    Level,
}

impl Targets {
    /// Directions that come of it.
    pub const fn count(self) -> usize {
        match self {
            Self::Classes(count) => count,
            Self::Level => 1,
        }
    }
}

/// Clips of other classes for each clip of a class.
pub(super) const REST: usize = 3;

/// One direction and what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Unit vector `[hidden]`.
    pub direction: Vec<f32>,
    /// Whether the concept is there, by the projection on it.
    pub detector: Detector,
    /// Mean projection without the concept and with it; at the mean level and one deviation above it.
    pub levels: [f32; 2],
    /// AUC of the validation clips' projections; correlation with the level.
    pub validation: f32,
    /// The same of the test clips.
    pub test: f32,
}

/// Directions of every class and block.
#[derive(Clone, Debug, PartialEq)]
pub struct Axes {
    /// `[class][block]`.
    pub axes: Vec<Vec<Axis>>,
    /// What is learned.
    pub targets: Targets,
}

/// Learns them. Fits that took long are kept in the folder `kept`, if any, and read from there the next time.
///
/// # Errors
/// [`LearnError::TooLittle`] where a part has no clips of a class; [`LearnError::Fit`]; [`LearnError::Stopped`].
pub fn learn(
    states: &States,
    split: &Split,
    targets: Targets,
    method: Method,
    kept: Option<&Path>,
    watch: Watch,
) -> Result<Axes, LearnError> {
    // The others take no longer than reading a file.
    let kept = kept.filter(|_| method == Method::Rfm);
    let finder = |class: usize, block: usize, train: &Samples, validation: &Samples| {
        let place = kept.map(|folder| folder.join(format!("{class}-{block}.f32")));
        if let Some(direction) = place.as_deref().and_then(|place| read_fit(place, states.hidden)) {
            return Ok(direction);
        }
        let direction = method.direction(train, validation, watch)?;
        if let Some(place) = place {
            keep_fit(&place, &direction);
        }
        Ok(direction)
    };
    find(states, split, targets, &finder, watch)
}

/// A direction that was kept; `None` for anything that is not one of this width.
fn read_fit(place: &Path, hidden: usize) -> Option<Vec<f32>> {
    let bytes = std::fs::read(place).ok().filter(|bytes| bytes.len() == 4 * hidden)?;
    let direction: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    direction.iter().all(|x| x.is_finite()).then_some(direction)
}

/// One that cannot be kept is fitted again the next time.
fn keep_fit(place: &Path, direction: &[f32]) {
    let bytes: Vec<u8> = direction.iter().flat_map(|x| x.to_le_bytes()).collect();
    if let Err(why) = whole_file::write(place, bytes) {
        log::info!("a fit cannot be kept in {}: {why}", place.display());
    }
}

/// The same for directions that come from elsewhere, `given(class, block)`: their detectors and scores.
///
/// # Errors
/// As [`learn`].
pub fn judge(
    states: &States,
    split: &Split,
    targets: Targets,
    given: &(dyn Fn(usize, usize) -> Vec<f32> + Sync),
    watch: Watch,
) -> Result<Axes, LearnError> {
    find(states, split, targets, &|class, block, _, _| Ok(given(class, block)), watch)
}

type Finder<'a> = &'a (dyn Fn(usize, usize, &Samples, &Samples) -> Result<Vec<f32>, FitError> + Sync);

fn find(states: &States, split: &Split, targets: Targets, finder: Finder, watch: Watch) -> Result<Axes, LearnError> {
    let (blocks, count) = (states.blocks, targets.count());
    let (mean, deviation) = split.scale();
    let rows = |part, class| match targets {
        Targets::Classes(_) => split.against_rest(part, class, REST),
        Targets::Level => split.levels(part, mean, deviation),
    };
    let task = match targets {
        Targets::Classes(_) => Task::Class,
        Targets::Level => Task::Level,
    };
    let done = AtomicUsize::new(0);
    let flat: Vec<Axis> = (0..count * blocks)
        .into_par_iter()
        .map(|index| {
            watch.check()?;
            let (class, block) = (index / blocks, index % blocks);
            let parts = [Part::Train, Part::Validation, Part::Test].map(|part| rows(part, class));
            let features = parts.each_ref().map(|rows| states.features(block, rows.clips.iter().copied()));
            let samples = |i: usize| -> Result<Samples, FitError> {
                Samples::new(task, states.hidden, &features[i], &parts[i].targets)
            };
            let (train, validation, test) = (samples(0)?, samples(1)?, samples(2)?);
            let direction = finder(class, block, &train, &validation)?;
            let wide: Vec<f64> = direction.iter().map(|x| f64::from(*x)).collect();
            let score = |samples: &Samples| {
                let projected = samples.project(&wide);
                let targets = samples.targets();
                let separated = (task == Task::Class).then(|| auc(&projected, targets)).flatten();
                separated.unwrap_or_else(|| correlation(&projected, targets)) as f32
            };
            let projected = train.project(&wide);
            let detector = detector::fit(&projected, &parts[0].targets, task);
            let levels = levels(&projected, &parts[0].targets, task);
            let axis = Axis { detector, levels, validation: score(&validation), test: score(&test), direction };
            watch.hear(Stage::Fitting, done.fetch_add(1, Ordering::Relaxed) + 1, count * blocks);
            Ok(axis)
        })
        .collect::<Result<_, LearnError>>()?;
    Ok(Axes { axes: flat.chunks(blocks).map(<[Axis]>::to_vec).collect(), targets })
}

/// Mean projection of the rows without the concept and of those with it; for levels, of the mean one and of one a deviation
/// above it, by least squares.
fn levels(projected: &[f64], targets: &[f64], task: Task) -> [f32; 2] {
    let count = targets.len().max(1) as f64;
    let weighted = |weight: &dyn Fn(f64) -> f64| {
        let (sum, of) =
            projected.iter().zip(targets).fold((0.0, 0.0), |(sum, of), (x, t)| (sum + weight(*t) * x, of + weight(*t)));
        sum / of.max(f64::MIN_POSITIVE)
    };
    match task {
        Task::Class => [weighted(&|target| 1.0 - target), weighted(&|target| target)].map(|x| x as f32),
        Task::Level => {
            let mean = projected.iter().sum::<f64>() / count;
            // Targets have deviation 1 where they teach.
            let slope = projected.iter().zip(targets).map(|(x, t)| (x - mean) * t).sum::<f64>() / count;
            [mean as f32, (mean + slope) as f32]
        }
    }
}

impl Axes {
    /// Share of a part's clips that are given their own class, `[block]`: the class whose detector is surest. `None` for
    /// levels, single traits, and some classes of many.
    pub fn accuracy(&self, states: &States, split: &Split, part: Part) -> Option<Vec<f32>> {
        if split.is_some() {
            return None;
        }
        // With one class there is nothing to confuse it with.
        let Targets::Classes(2..) = self.targets else { return None };
        let share = |block: usize| {
            let (mut right, mut all) = (0, 0);
            for (clip, label) in split.part(part) {
                let state = states.features(block, std::iter::once(clip));
                let sure = |axes: &Vec<Axis>| {
                    let axis = &axes[block];
                    axis.detector.value(axis.direction.iter().zip(&state).map(|(a, b)| a * b).sum())
                };
                let surest = self.axes.iter().map(sure).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
                right += usize::from(surest.is_some_and(|(class, _)| class == label.class));
                all += 1;
            }
            right as f32 / all.max(1) as f32
        };
        Some((0..states.blocks).into_par_iter().map(share).collect())
    }

    /// How well test clips are told in the block that tells validation clips best; `accuracy` is that of [`Axes::accuracy`].
    /// `None` for levels.
    pub fn told(&self, states: &States, split: &Split, accuracy: Option<&[f32]>) -> Option<Told> {
        let Targets::Classes(count) = self.targets else { return None };
        let clips = split.part(Part::Test).count();
        if let Some(accuracy) = accuracy {
            let validation = |block: usize| self.axes.iter().map(|own| own[block].validation).sum::<f32>();
            let block = (0..states.blocks).max_by(|&a, &b| validation(a).total_cmp(&validation(b)))?;
            return Some(Told { right: *accuracy.get(block)?, chance: 1.0 / count as f32, clips });
        }
        let each = self.told_apart(states, split);
        let right = each.iter().sum::<f32>() / each.len().max(1) as f32;
        Some(Told { right, chance: 0.5, clips })
    }

    /// How often test clips are rightly said to be of a class or not, `[class]`: the mean of both sides, so that guessing gives a
    /// half. In the block that is surest of the validation clips. Empty for levels.
    pub fn told_apart(&self, states: &States, split: &Split) -> Vec<f32> {
        let Targets::Classes(_) = self.targets else { return Vec::new() };
        let own = |(place, blocks): (usize, &Vec<Axis>)| {
            // Means over the clips of either side, which weigh the same however many they are.
            let mean = |part: Part, block: usize, value: &dyn Fn(f32) -> f32| {
                let axis = &blocks[block];
                let (mut sums, mut counts) = ([0.0f32; 2], [0.0f32; 2]);
                for (clip, label) in split.part(part) {
                    let state = states.features(block, std::iter::once(clip));
                    let sure = axis.detector.value(axis.direction.iter().zip(&state).map(|(a, b)| a * b).sum());
                    let has = label.class == split.class(place);
                    counts[usize::from(has)] += 1.0;
                    sums[usize::from(has)] += value(if has { sure } else { -sure });
                }
                (sums[0] / counts[0].max(1.0) + sums[1] / counts[1].max(1.0)) / 2.0
            };
            // With few clips many blocks rank all of them right: the surest one has the least log loss.
            let loss =
                |block: usize| mean(Part::Validation, block, &|sure| (-sure.abs()).exp().ln_1p() + (-sure).max(0.0));
            let block = (0..states.blocks).min_by(|&a, &b| loss(a).total_cmp(&loss(b))).unwrap_or(0);
            mean(Part::Test, block, &|sure| f32::from(u8::from(sure > 0.0)))
        };
        self.axes.par_iter().enumerate().map(own).collect()
    }
}

/// The rows of a part have to hold something: said in the words of whoever gave the clips.
pub(super) fn check(split: &Split, targets: Targets) -> Result<(), LearnError> {
    if split.groups() < 3 {
        return Err(LearnError::TooLittle(format!(
            "{} instruments or files with sound: at least 3 are needed, to learn from, to choose by and to judge on",
            split.groups()
        )));
    }
    for part in [Part::Train, Part::Validation, Part::Test] {
        for class in 0..targets.count() {
            let Rows { targets: labels, .. } = match targets {
                Targets::Classes(_) => split.against_rest(part, class, 1),
                Targets::Level => split.levels(part, 0.0, 1.0),
            };
            if labels.iter().all(|label| *label == labels[0]) {
                return Err(LearnError::TooLittle(format!(
                    "class {class} has no sounding clips of both kinds in the {part:?} part: add instruments or files"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::listener::Heard;
    use super::super::samples::normal;
    use super::super::split::Label;
    use super::*;

    /// Six instruments with 20 clips each of 3 classes; block 0 knows the class in components 0 to 2, block 1 nothing.
    fn planted() -> (States, Split) {
        const HIDDEN: usize = 12;
        let noise = normal(3, 360 * 2 * HIDDEN);
        let mut heard = Vec::new();
        let mut labels = Vec::new();
        for (clip, noise) in noise.chunks(2 * HIDDEN).enumerate() {
            let (class, group) = (clip % 3, clip / 60);
            let mut mean: Vec<f32> = noise.iter().map(|x| 0.4 * *x as f32).collect();
            mean[class] += 2.0;
            mean[8] += group as f32;
            heard.push(Some(Heard { mean, norms: vec![1.0, 1.0] }));
            labels.push(Some(Label { class, level: [1.0, 5.0, 9.0][class], group, height: None, piece: None }));
        }
        (States { heard, blocks: 2, hidden: HIDDEN }, Split::new(labels))
    }

    #[test]
    fn every_method_finds_the_planted_axes_and_knows_where_there_are_none() {
        let (states, split) = planted();
        for method in Method::ALL {
            let axes = learn(&states, &split, Targets::Classes(3), method, None, Watch::IDLE).expect("learns");
            for (class, blocks) in axes.axes.iter().enumerate() {
                let axis = &blocks[0];
                let (own, rest) = (axis.direction[class], axis.direction[(class + 1) % 3]);
                assert!(own > 0.6 && rest < 0.0, "{method:?} {class}: {:?}", axis.direction);
                let length: f32 = axis.direction.iter().map(|x| x * x).sum();
                assert!((length - 1.0).abs() < 1e-4);
                // Class means 2 apart on the axis itself, the rest's a third of it shared by the two others.
                let [without, with] = axis.levels;
                assert!(with - without > 1.2 && with - without < 3.0, "{method:?}: {without} {with}");
                assert!(axis.validation > 0.97 && axis.test > 0.97, "{method:?}: {} {}", axis.validation, axis.test);
                assert!((0.2..0.8).contains(&blocks[1].test), "{method:?}: {}", blocks[1].test);
            }
            let accuracy = axes.accuracy(&states, &split, Part::Test).expect("classes");
            assert!(accuracy[0] > 0.9 && accuracy[1] < 0.6, "{method:?}: {accuracy:?}");
        }
    }

    #[test]
    fn levels_rise_along_their_axis() {
        let (states, split) = planted();
        for method in Method::ALL {
            let axes = learn(&states, &split, Targets::Level, method, None, Watch::IDLE).expect("learns");
            let axis = &axes.axes[0][0];
            assert!(axis.direction[0] < -0.4 && axis.direction[2] > 0.4, "{method:?}: {:?}", axis.direction);
            assert!(axis.test > 0.85 && axes.accuracy(&states, &split, Part::Test).is_none());
            // In deviations: the middle class is the mean.
            assert!(
                axis.detector
                    .value(states.features(0, std::iter::once(1)).iter().zip(&axis.direction).map(|(a, b)| a * b).sum())
                    .abs()
                    < 1.0
            );
        }
    }

    #[test]
    fn too_few_groups_are_said() {
        let label = |group| Some(Label { class: group % 2, level: 0.0, group, height: None, piece: None });
        assert!(check(&Split::new(vec![label(0), label(1)]), Targets::Classes(2)).is_err());
        let (_, split) = planted();
        assert!(check(&split, Targets::Classes(3)).is_ok());
        assert!(check(&split, Targets::Classes(4)).is_err());
    }

    #[test]
    fn fits_are_kept_and_a_stop_is_no_failure() {
        use super::super::watch::Stopped;
        let (states, split) = planted();
        let folder = std::env::temp_dir().join(format!("tiller-fits-{}", std::process::id()));
        let left = AtomicUsize::new(2);
        let check = || match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Stopped),
        };
        let learn = |watch| learn(&states, &split, Targets::Classes(3), Method::Rfm, Some(&folder), watch);
        let stopped = learn(Watch::IDLE.checked_by(&check)).expect_err("two checks are not enough");
        assert!(stopped.is_stop(), "{stopped}");
        let whole = learn(Watch::IDLE).expect("learns");
        let kept = || std::fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(kept(), 6);
        // Six fits, and one check each: nothing is fitted again.
        left.store(6, Ordering::Relaxed);
        assert_eq!(learn(Watch::IDLE.checked_by(&check)).expect("reads"), whole);
        std::fs::write(folder.join("1-0.f32"), [0; 5]).expect("written");
        assert_eq!(learn(Watch::IDLE).expect("fits the damaged one again"), whole);
        std::fs::remove_dir_all(&folder).expect("cleaned");
    }
}
