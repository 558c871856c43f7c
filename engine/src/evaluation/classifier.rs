//! A small classifier over feature vectors: an ensemble of networks with two hidden layers, trained with Adam (Kingma and
//! Ba, 2015), decoupled weight decay, dropout and input noise. Worker threads.

use crate::dataset::random::Random;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How to train.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Training {
    /// Networks whose probabilities are averaged.
    pub members: usize,
    /// Widths of the hidden layers.
    pub hidden: [usize; 2],
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples per step.
    pub batch: usize,
    /// Largest step size; it rises over the first twentieth and falls along a cosine.
    pub rate: f32,
    /// Weight decay per step, times the step size.
    pub decay: f32,
    /// Share of hidden units left out.
    pub dropout: f32,
    /// Standard deviation of the noise on standardised features.
    pub noise: f32,
    /// Probability that goes to all classes alike instead of the right one.
    pub smoothing: f32,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            members: 4,
            hidden: [192, 96],
            epochs: 40,
            batch: 64,
            rate: 4e-3,
            decay: 0.02,
            dropout: 0.3,
            noise: 0.3,
            smoothing: 0.05,
        }
    }
}

/// Standardised features further out than this count as this far: nothing was learned about what lies beyond.
const REACH: f32 = 4.0;

/// A trained classifier.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Classifier {
    classes: usize,
    mean: Vec<f32>,
    scale: Vec<f32>,
    members: Vec<[Layer; 3]>,
}

/// One affine layer, weights `[input][output]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Layer {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Classifier {
    /// Trains on examples of equal length, each with a class in `0..classes`. Members train in parallel; the result
    /// depends on the examples and `seed` alone. `progress` hears (epochs done, epochs in all).
    pub fn train(
        examples: &[(&[f32], usize)],
        classes: usize,
        training: &Training,
        seed: u64,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Self {
        let width = examples.first().map_or(0, |(x, _)| x.len());
        let count = examples.len().max(1) as f64;
        let moment = |k: usize| {
            let mean = examples.iter().map(|(x, _)| f64::from(x[k])).sum::<f64>() / count;
            let square = examples.iter().map(|(x, _)| (f64::from(x[k]) - mean).powi(2)).sum::<f64>() / count;
            (mean as f32, if square > 1e-12 { (1.0 / square.sqrt()) as f32 } else { 0.0 })
        };
        let (mean, scale): (Vec<f32>, Vec<f32>) = (0..width).map(moment).unzip();
        let mut classifier = Self { classes, mean, scale, members: Vec::new() };
        let inputs: Vec<(Vec<f32>, usize)> = examples.iter().map(|(x, y)| (classifier.standardise(x), *y)).collect();
        let done = std::sync::atomic::AtomicUsize::new(0);
        classifier.members = (0..training.members as u64)
            .into_par_iter()
            .map(|member| {
                let mut trainer = Trainer::new(width, classes, *training, Random::new(seed, member, 71));
                for epoch in 0..training.epochs {
                    trainer.epoch(&inputs, epoch);
                    let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    progress(done, training.members * training.epochs);
                }
                trainer.layers
            })
            .collect();
        classifier
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Probability of each class, the mean over the ensemble; all alike for a vector of another length.
    pub fn probabilities(&self, features: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0f32; self.classes];
        if features.len() != self.mean.len() || self.members.is_empty() {
            return vec![1.0 / self.classes as f32; self.classes];
        }
        let input = self.standardise(features);
        for layers in &self.members {
            let mut x = input.clone();
            for (i, layer) in layers.iter().enumerate() {
                let mut y = layer.apply(&x);
                if i + 1 < layers.len() {
                    y.iter_mut().for_each(|y| *y = y.max(0.0));
                }
                x = y;
            }
            softmax(&mut x);
            sum.iter_mut().zip(&x).for_each(|(sum, p)| *sum += p / self.members.len() as f32);
        }
        sum
    }

    fn standardise(&self, features: &[f32]) -> Vec<f32> {
        let one = |((x, mean), scale): ((&f32, &f32), &f32)| ((x - mean) * scale).clamp(-REACH, REACH);
        features.iter().zip(&self.mean).zip(&self.scale).map(one).collect()
    }
}

impl Layer {
    fn new(inputs: usize, outputs: usize, random: &mut Random) -> Self {
        let deviation = (2.0 / inputs.max(1) as f32).sqrt();
        Self { weights: (0..inputs * outputs).map(|_| deviation * normal(random)).collect(), bias: vec![0.0; outputs] }
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.clone();
        for (row, x) in self.weights.chunks_exact(self.bias.len()).zip(x) {
            if *x != 0.0 {
                y.iter_mut().zip(row).for_each(|(y, w)| *y += x * w);
            }
        }
        y
    }
}

fn softmax(x: &mut [f32]) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut Random) -> f32 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.unit()).cos()) as f32
}

/// One network under training.
struct Trainer {
    layers: [Layer; 3],
    /// Adam's two moments for each layer, weights then bias.
    moments: [[Vec<f32>; 2]; 3],
    gradients: [Vec<f32>; 3],
    training: Training,
    random: Random,
    step: i32,
}

impl Trainer {
    fn new(inputs: usize, classes: usize, training: Training, mut random: Random) -> Self {
        let [a, b] = training.hidden;
        let layers = [(inputs, a), (a, b), (b, classes)].map(|(i, o)| Layer::new(i, o, &mut random));
        let sizes = [0, 1, 2].map(|l: usize| layers[l].weights.len() + layers[l].bias.len());
        Self {
            moments: sizes.map(|n| [vec![0.0; n], vec![0.0; n]]),
            gradients: sizes.map(|n| vec![0.0; n]),
            layers,
            training,
            random,
            step: 0,
        }
    }

    fn epoch(&mut self, inputs: &[(Vec<f32>, usize)], epoch: usize) {
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.random.below(i + 1));
        }
        let batches = inputs.len().div_ceil(self.training.batch).max(1);
        for (number, batch) in order.chunks(self.training.batch).enumerate() {
            self.gradients.iter_mut().for_each(|g| g.fill(0.0));
            for &i in batch {
                self.back_propagate(&inputs[i].0, inputs[i].1, 1.0 / batch.len() as f32);
            }
            let done = (epoch as f32 + number as f32 / batches as f32) / self.training.epochs as f32;
            let warm = (done * 20.0).min(1.0);
            self.update(self.training.rate * warm * 0.5 * (1.0 + (std::f32::consts::PI * done).cos()));
        }
    }

    fn back_propagate(&mut self, input: &[f32], class: usize, share: f32) {
        let keep = 1.0 - self.training.dropout;
        let noise = self.training.noise;
        let mut activations = vec![input.iter().map(|x| x + noise * normal(&mut self.random)).collect::<Vec<f32>>()];
        for (i, layer) in self.layers.iter().enumerate() {
            let mut y = layer.apply(&activations[i]);
            if i < 2 {
                // Dropout is part of the activation: a unit that is off hands no gradient back either.
                y.iter_mut()
                    .for_each(|y| *y = if self.random.unit() < f64::from(keep) { y.max(0.0) / keep } else { 0.0 });
            } else {
                softmax(&mut y);
            }
            activations.push(y);
        }
        let mut delta = activations.pop().unwrap_or_default();
        let even = self.training.smoothing / delta.len() as f32;
        for (i, d) in delta.iter_mut().enumerate() {
            let wanted = even + if i == class { 1.0 - self.training.smoothing } else { 0.0 };
            *d = (*d - wanted) * share;
        }
        for i in (0..3).rev() {
            let (layer, x) = (&self.layers[i], &activations[i]);
            let outputs = layer.bias.len();
            let (weights, bias) = self.gradients[i].split_at_mut(layer.weights.len());
            bias.iter_mut().zip(&delta).for_each(|(g, d)| *g += d);
            let mut below = vec![0.0; if i > 0 { x.len() } else { 0 }];
            for (k, x) in x.iter().enumerate() {
                if *x == 0.0 {
                    continue;
                }
                let row = k * outputs..(k + 1) * outputs;
                weights[row.clone()].iter_mut().zip(&delta).for_each(|(g, d)| *g += x * d);
                if let Some(below) = below.get_mut(k) {
                    *below = layer.weights[row].iter().zip(&delta).map(|(w, d)| w * d).sum::<f32>() / keep;
                }
            }
            delta = below;
        }
    }

    fn update(&mut self, rate: f32) {
        const BETAS: [f32; 2] = [0.9, 0.999];
        self.step += 1;
        let [first, second] = BETAS.map(|beta| 1.0 / (1.0 - beta.powi(self.step)));
        for ((layer, [m, v]), gradient) in self.layers.iter_mut().zip(&mut self.moments).zip(&self.gradients) {
            let shrink = 1.0 - rate * self.training.decay;
            layer.weights.iter_mut().for_each(|w| *w *= shrink);
            let values = layer.weights.iter_mut().chain(&mut layer.bias);
            for (((value, m), v), g) in values.zip(m).zip(v).zip(gradient) {
                *m = BETAS[0] * *m + (1.0 - BETAS[0]) * g;
                *v = BETAS[1] * *v + (1.0 - BETAS[1]) * g * g;
                *value -= rate * *m * first / ((*v * second).sqrt() + 1e-8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Training = Training {
        members: 2,
        hidden: [24, 12],
        epochs: 60,
        batch: 16,
        rate: 5e-3,
        decay: 0.01,
        dropout: 0.0,
        noise: 0.05,
        smoothing: 0.02,
    };

    /// Four classes by the signs of two inputs: no line separates them, and the third input says nothing.
    fn examples(seed: u64, count: usize) -> Vec<(Vec<f32>, usize)> {
        let mut random = Random::new(seed, 0, 0);
        let one = |_| {
            let x: Vec<f32> = (0..3).map(|_| 20.0 * normal(&mut random) + 7.0).collect();
            let class = 2 * usize::from((x[0] - 7.0) * (x[1] - 7.0) > 0.0) + usize::from(x[1] > 7.0);
            (x, class)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn it_learns_what_no_line_separates() {
        let (train, test) = (examples(1, 600), examples(2, 300));
        let borrowed: Vec<(&[f32], usize)> = train.iter().map(|(x, y)| (x.as_slice(), *y)).collect();
        let classifier = Classifier::train(&borrowed, 4, &SMALL, 5, &|_, _| ());
        let best = |p: &[f32]| p.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
        let right = test.iter().filter(|(x, y)| best(&classifier.probabilities(x)) == Some(*y)).count();
        assert!(right >= 270, "{right} of 300");
        let sum: f32 = classifier.probabilities(&test[0].0).iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert_eq!(classifier.probabilities(&[1.0]), [0.25; 4]);
        let again = Classifier::train(&borrowed, 4, &SMALL, 5, &|_, _| ());
        assert_eq!(again.probabilities(&test[0].0), classifier.probabilities(&test[0].0));
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let mut trainer = Trainer::new(3, 4, Training { noise: 0.0, ..SMALL }, Random::new(3, 0, 0));
        let input = [0.3, -1.2, 0.7];
        let loss = |trainer: &Trainer| {
            let mut x = input.to_vec();
            for (i, layer) in trainer.layers.iter().enumerate() {
                x = layer.apply(&x);
                if i < 2 {
                    x.iter_mut().for_each(|x| *x = x.max(0.0));
                }
            }
            softmax(&mut x);
            let wanted = |i: usize| 0.005 + if i == 2 { 0.98 } else { 0.0 };
            -(0..4).map(|i| wanted(i) * f64::from(x[i]).ln()).sum::<f64>()
        };
        trainer.back_propagate(&input, 2, 1.0);
        for layer in 0..3 {
            for weight in (0..trainer.layers[layer].weights.len()).step_by(5) {
                let step = 3e-3;
                let mut moved = |by: f32| {
                    trainer.layers[layer].weights[weight] += by;
                    let loss = loss(&trainer);
                    trainer.layers[layer].weights[weight] -= by;
                    loss
                };
                let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                let found = f64::from(trainer.gradients[layer][weight]);
                assert!((slope - found).abs() < 2e-3 + 0.02 * slope.abs(), "layer {layer}, {weight}: {slope} {found}");
            }
        }
    }
}
