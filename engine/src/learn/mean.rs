//! Difference of class means: the simplest direction there is, and the baseline that MusicRFM lacks (`method.md` 3.8).
//! Plain arithmetic on pooled hidden states; any thread.

use super::LearnError;

/// One clip: its class, the group that is left out with it in validation (its instrument), and its pooled states.
#[derive(Clone, Debug)]
pub struct Example {
    /// Class, 0-based.
    pub class: usize,
    /// Group left out together, such as an instrument.
    pub group: usize,
    /// How much it counts, above 0.
    pub weight: f64,
    /// `[block][hidden]`.
    pub state: Vec<f32>,
}

/// Labelled pooled states of one concept family.
#[derive(Clone, Debug)]
pub struct Examples {
    examples: Vec<Example>,
    classes: usize,
    blocks: usize,
    hidden: usize,
}

/// How well the nearest class mean names the class, with the example's group left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Share of examples named right, by weight, `[block]`.
    pub accuracy: Vec<f32>,
    /// Balanced accuracy of class against the rest, `[class][block]`; 0.5 is chance.
    pub balanced: Vec<f32>,
}

impl Examples {
    /// Checks the labels and shapes.
    ///
    /// # Errors
    /// A class without examples, fewer than two classes, or a state of another size.
    pub fn new(examples: Vec<Example>, classes: usize, blocks: usize, hidden: usize) -> Result<Self, LearnError> {
        let too_little = |why: String| Err(LearnError::TooLittle(why));
        if classes < 2 || blocks == 0 || hidden == 0 {
            return too_little(format!("{classes} classes, {blocks} blocks, width {hidden}: nothing to tell apart"));
        }
        if let Some(bad) = examples
            .iter()
            .find(|e| e.class >= classes || e.state.len() != blocks * hidden || e.weight.is_nan() || e.weight <= 0.0)
        {
            let found = bad.state.len();
            return too_little(format!(
                "class {} with {found} numbers: expected {} numbers",
                bad.class,
                blocks * hidden
            ));
        }
        if let Some(class) = (0..classes).find(|class| examples.iter().all(|e| e.class != *class)) {
            return too_little(format!("class {class} has no examples: every class needs some sound"));
        }
        Ok(Self { examples, classes, blocks, hidden })
    }

    /// Unit vectors `[class][block][hidden]`: the class's mean minus the mean of all other classes' means. Classes weigh
    /// the same however many examples they have; within a class, examples weigh what their weight says.
    pub fn directions(&self) -> Vec<f32> {
        let means = Sums::over(self, |_| true).means();
        let width = self.blocks * self.hidden;
        let mut directions = Vec::with_capacity(self.classes * width);
        for class in 0..self.classes {
            let mut difference: Vec<f64> = (0..width)
                .map(|i| {
                    let all: f64 = (0..self.classes).map(|other| means[other * width + i]).sum();
                    let own = means[class * width + i];
                    own - (all - own) / (self.classes - 1) as f64
                })
                .collect();
            for block in difference.chunks_mut(self.hidden) {
                let norm = block.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
                block.iter_mut().for_each(|x| *x /= norm);
            }
            directions.extend(difference.into_iter().map(|x| x as f32));
        }
        directions
    }

    /// Names every example by the nearest class mean of the other groups.
    ///
    /// # Errors
    /// When a class occurs in one group only, so that nothing is left to compare with.
    pub fn validate(&self) -> Result<Validation, LearnError> {
        let total = Sums::over(self, |_| true);
        let mut groups: Vec<usize> = self.examples.iter().map(|e| e.group).collect();
        groups.sort_unstable();
        groups.dedup();
        let (classes, blocks, hidden) = (self.classes, self.blocks, self.hidden);
        // [block][actual class][named class]
        let mut confusion = vec![0.0f64; blocks * classes * classes];
        for group in groups {
            let rest = total.minus(&Sums::over(self, |e| e.group == group));
            if rest.weights.iter().any(|weight| *weight < 1e-9) {
                return Err(LearnError::TooLittle(
                    "a class occurs in one instrument only: use more instruments".into(),
                ));
            }
            let means = rest.means();
            for example in self.examples.iter().filter(|e| e.group == group) {
                for block in 0..blocks {
                    let state = &example.state[block * hidden..][..hidden];
                    let distance = |class: usize| -> f64 {
                        let mean = &means[(class * blocks + block) * hidden..][..hidden];
                        state.iter().zip(mean).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum()
                    };
                    let nearest = (0..classes).map(|c| (c, distance(c))).min_by(|a, b| a.1.total_cmp(&b.1));
                    let named = nearest.map_or(0, |(class, _)| class);
                    confusion[(block * classes + example.class) * classes + named] += example.weight;
                }
            }
        }
        let at = |block: usize, actual: usize, named: usize| confusion[(block * classes + actual) * classes + named];
        let every: f64 = total.weights.iter().sum();
        let accuracy = (0..blocks).map(|b| ((0..classes).map(|c| at(b, c, c)).sum::<f64>() / every) as f32).collect();
        let mut balanced = Vec::with_capacity(classes * blocks);
        for class in 0..classes {
            let own = total.weights[class];
            for block in 0..blocks {
                let named: f64 = (0..classes).map(|actual| at(block, actual, class)).sum();
                let right = at(block, class, class);
                let false_alarms = (named - right) / (every - own).max(f64::MIN_POSITIVE);
                balanced.push((0.5 * (right / own + 1.0 - false_alarms)) as f32);
            }
        }
        Ok(Validation { accuracy, balanced })
    }
}

/// Weighted sums of states per class, so that leaving a group out is a subtraction.
struct Sums {
    sums: Vec<f64>,
    weights: Vec<f64>,
}

impl Sums {
    fn over(examples: &Examples, keep: impl Fn(&Example) -> bool) -> Self {
        let width = examples.blocks * examples.hidden;
        let mut sums = vec![0.0; examples.classes * width];
        let mut weights = vec![0.0; examples.classes];
        for example in examples.examples.iter().filter(|e| keep(e)) {
            weights[example.class] += example.weight;
            let own = &mut sums[example.class * width..][..width];
            own.iter_mut().zip(&example.state).for_each(|(sum, &x)| *sum += example.weight * f64::from(x));
        }
        Self { sums, weights }
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            sums: self.sums.iter().zip(&other.sums).map(|(a, b)| a - b).collect(),
            weights: self.weights.iter().zip(&other.weights).map(|(a, b)| a - b).collect(),
        }
    }

    /// `[class][block][hidden]`.
    fn means(&self) -> Vec<f64> {
        let width = self.sums.len() / self.weights.len();
        self.sums.iter().enumerate().map(|(i, sum)| sum / self.weights[i / width]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::random::Random;

    /// Three classes at the corners of a triangle in a plane of an 8-wide space, plus an offset for each group and noise.
    /// Block 1 holds noise only.
    fn triangle(noise: f64) -> Examples {
        let mut random = Random::new(1, 2, 3);
        let mut gauss = move || (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        let mut examples = Vec::new();
        for group in 0..5 {
            for i in 0..30 {
                let class = i % 3;
                let mut state: Vec<f32> = (0..16).map(|_| (noise * gauss()) as f32).collect();
                state[class] += 1.0;
                state[7] += 0.1 * group as f32;
                examples.push(Example { class, group, weight: 1.0, state });
            }
        }
        Examples::new(examples, 3, 2, 8).expect("well formed")
    }

    #[test]
    fn directions_are_unit_differences_of_means() {
        let directions = triangle(0.0).directions();
        let (own, other) = ((2.0f32 / 3.0).sqrt(), -(1.0f32 / 6.0).sqrt());
        for class in 0..3 {
            for i in 0..8 {
                let wanted = if i == class {
                    own
                } else if i < 3 {
                    other
                } else {
                    0.0
                };
                assert!((directions[class * 16 + i] - wanted).abs() < 1e-6, "class {class}, {i}");
            }
        }
    }

    #[test]
    fn validation_tells_signal_from_noise() {
        let validation = triangle(0.2).validate().expect("five groups");
        assert!(validation.accuracy[0] > 0.95, "{validation:?}");
        assert!((0.2..0.5).contains(&validation.accuracy[1]), "{validation:?}");
        for class in 0..3 {
            assert!(validation.balanced[class * 2] > 0.95);
            assert!((0.3..0.7).contains(&validation.balanced[class * 2 + 1]), "{validation:?}");
        }
    }

    #[test]
    fn weights_count_like_repetition() {
        let example = |class, weight, x: f32| Example { class, group: 0, weight, state: vec![x, 1.0] };
        let weighted = Examples::new(vec![example(0, 2.0, 1.0), example(0, 1.0, 4.0), example(1, 1.0, 0.0)], 2, 1, 2);
        let repeated = Examples::new(
            vec![example(0, 1.0, 1.0), example(0, 1.0, 1.0), example(0, 1.0, 4.0), example(1, 5.0, 0.0)],
            2,
            1,
            2,
        );
        let means =
            |examples: &Result<Examples, _>| Sums::over(examples.as_ref().expect("well formed"), |_| true).means();
        assert_eq!(means(&weighted), [2.0, 1.0, 0.0, 1.0]);
        assert_eq!(means(&weighted), means(&repeated));
    }

    #[test]
    fn too_little_is_said() {
        let example = |class, group| Example { class, group, weight: 1.0, state: vec![0.0; 2] };
        assert!(Examples::new(vec![example(0, 0)], 2, 1, 2).is_err());
        assert!(Examples::new(vec![example(0, 0), example(2, 0)], 2, 1, 2).is_err());
        let lonely = Examples::new(vec![example(0, 0), example(1, 1)], 2, 1, 2).expect("both classes");
        assert!(lonely.validate().is_err());
    }
}
