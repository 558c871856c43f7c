//! Directions by maximum likelihood: the vectors that make the frozen decoder expect music of a class from the moment on at
//! which it should come, and that change nothing where the class is there already. Gradient steps on the vectors alone
//! (steering vectors: Subramani et al. 2022, arXiv 2205.05124; Adam: Kingma and Ba 2015). Worker threads, all cores.
//!
//! Every lesson is a piece in all of its classes and as it was composed, all under one prompt, cut to one length. In a move, the
//! codes of one version go over into those of a class in mid-piece, and the vector is there from then on: what follows is to
//! become likely. At rest the whole piece is of the class, and what the decoder expects is to stay what it was: without that,
//! the vectors carry along whatever else follows from them, and instruments and textures change when they are played for long.

use std::path::Path;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::axes::Targets;
use super::watch::{Stage, Stopped, Watch};
use crate::dataset::random::Random;
use crate::decoder::MAX_CODEBOOKS;
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::gradient::{Differentiable, Injected, Pass, Words};
use crate::kernel::norm::softmax;
use crate::whole_file;

/// Gradient steps for each twelve vectors.
const STEPS: usize = 200;
/// What a step is made of.
const MOVES: usize = 32;
const RESTS: usize = 16;
/// Frames of a lesson.
pub const FRAMES: usize = 90;
/// Frames of the new class that a move has at least, and of the music before it.
const AFTER: usize = 40;
const BEFORE: usize = 10;
/// Positions at the start of a piece whose expectations may change at rest: too little was heard to know the class.
const UNKNOWN: usize = 25;
/// Step size, as a share of the mean state's size.
const RATE: f32 = 0.016;
const SEED: u64 = 17;
/// Shares of moves that begin at once, of those from music as it was composed, of pieces cut from their start, and of rows
/// without a prompt.
const AT_ONCE: f64 = 0.15;
const COMPOSED: f64 = 0.6;
const FROM_START: f64 = 0.3;
const UNPROMPTED: f64 = 0.3;
/// How much the codebooks count, first to last: harmony lives in the first.
const CODEBOOKS: [f32; 4] = [0.4, 0.3, 0.175, 0.125];

/// How often what was learned so far is kept.
const SAVED: Duration = Duration::from_secs(60);

/// Codes of one clip, `[frame][codebook]`.
pub type Codes = Vec<[u32; MAX_CODEBOOKS]>;

/// A piece in all of its versions, at least [`FRAMES`] long.
pub struct Lesson {
    /// Its prompt as the blocks see it.
    pub words: Words,
    /// As it was composed.
    pub composed: Codes,
    /// Class, how much of its vector, and the codes.
    pub versions: Vec<(usize, f32, Codes)>,
}

/// What is under way.
pub struct Course<'a> {
    decoder: &'a Differentiable<'a>,
    pattern: &'a DelayPattern,
    lessons: &'a [Lesson],
    /// How much nothing may change at rest, against how much is to change in moves.
    rest: f32,
    /// What vectors each class is the sum of.
    parts: &'a [Vec<usize>],
    /// Gradient steps for each twelve vectors, and moves and pieces at rest in each.
    size: [usize; 3],
}

/// One piece of a step.
struct Task<'a> {
    words: Option<&'a Words>,
    class: usize,
    frames: Codes,
    amounts: Vec<f32>,
    /// Frame of the move; none at rest.
    from: Option<usize>,
}

/// What a task gives: its class and the gradient of its vector.
type Slope = (usize, Vec<f32>);

impl<'a> Course<'a> {
    /// Lessons for the vectors of `targets`, each the sum of those that `parts` lists for it.
    pub fn new(
        decoder: &'a Differentiable<'a>,
        pattern: &'a DelayPattern,
        lessons: &'a [Lesson],
        targets: Targets,
        parts: &'a [Vec<usize>],
    ) -> Self {
        // A class is heard or not; a level shifts what is expected at every moment.
        let rest = if targets == Targets::Level { 1.0 } else { 5.0 };
        Self { decoder, pattern, lessons, rest, parts, size: [STEPS, MOVES, RESTS] }
    }

    /// Vectors `[class][blocks * hidden]`, in the size of states, whose mean norms are `norms`. How far it has come is kept in the
    /// file `kept`, if any, when it is stopped and once a minute, and it goes on from there the next time.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn learn(&self, norms: &[f32], kept: Option<&Path>, watch: Watch) -> Result<Vec<Vec<f32>>, Stopped> {
        let classes = self.parts.len();
        let count = self.parts.iter().flatten().max().map_or(0, |last| last + 1);
        let hidden = self.decoder.decoder().hidden();
        let width = norms.len() * hidden;
        let [steps, moves, rests] = self.size;
        let steps = steps * count.div_ceil(12);
        // What one step of size 1 moves a number by: the size of a state's numbers in its block.
        let scales: Vec<f32> = norms.iter().flat_map(|norm| vec![norm / (hidden as f32).sqrt(); hidden]).collect();
        let mut parts = vec![vec![0.0f32; width]; count];
        let mut adam = Adam::new(count * width);
        let mut first = 0;
        if let Some(step) = kept.and_then(|path| adam.read(path, &mut parts)) {
            first = step.min(steps);
            log::info!("learning goes on at step {first} of {steps}");
        }
        let mut vectors = self.sums(&parts, width);
        let mut saved = Instant::now();
        for step in first..steps {
            if let Some(path) = kept.filter(|_| saved.elapsed() > SAVED) {
                adam.keep(path, step, &parts);
                saved = Instant::now();
            }
            watch.hear(Stage::Fitting, step, steps);
            let tasks = (0..moves + rests).map(|index| self.task(classes, step, index)).collect::<Vec<_>>();
            let counts = self.counts(&tasks);
            let slope = |task: &Task| {
                watch.check()?;
                Ok(self.slope(task, &vectors[task.class], &counts))
            };
            let slopes = tasks.par_iter().map(slope).collect::<Result<Vec<Slope>, Stopped>>();
            let slopes = match slopes {
                Ok(slopes) => slopes,
                Err(stopped) => {
                    if let Some(path) = kept {
                        adam.keep(path, step, &parts);
                    }
                    return Err(stopped);
                }
            };
            let mut gradient = vec![0.0f32; count * width];
            for (class, slope) in &slopes {
                for part in &self.parts[*class] {
                    gradient[part * width..][..width].iter_mut().zip(slope).for_each(|(sum, x)| *sum += x);
                }
            }
            gradient.iter_mut().zip(scales.iter().cycle()).for_each(|(x, scale)| *x *= scale);
            let warm = ((step + 1) as f32 / 10.0).min(1.0);
            let rate = RATE * warm * (1.0 - 0.95 * step as f32 / steps as f32);
            let changes = adam.step(&gradient, rate);
            let all = parts.iter_mut().flatten().zip(changes).zip(scales.iter().cycle());
            all.for_each(|((x, own), scale)| *x += own * scale);
            vectors = self.sums(&parts, width);
        }
        if let Some(path) = kept {
            // The next time is another time.
            let _ = std::fs::remove_file(path);
        }
        Ok(vectors)
    }

    /// The classes' vectors.
    fn sums(&self, parts: &[Vec<f32>], width: usize) -> Vec<Vec<f32>> {
        let sum = |own: &Vec<usize>| {
            let mut out = vec![0.0f32; width];
            own.iter().for_each(|&part| out.iter_mut().zip(&parts[part]).for_each(|(sum, x)| *sum += x));
            out
        };
        self.parts.iter().map(sum).collect()
    }

    fn task(&self, classes: usize, step: usize, index: usize) -> Task<'a> {
        let mut random = Random::new(SEED, step as u64, index as u64);
        let lesson = &self.lessons[random.below(self.lessons.len())];
        let wanted = random.below(classes);
        let of_class: Vec<_> = lesson.versions.iter().filter(|(class, ..)| *class == wanted || classes == 1).collect();
        let words = (!random.chance(UNPROMPTED)).then_some(&lesson.words);
        let (class, amount, codes) = of_class[random.below(of_class.len())];
        let length =
            lesson.versions.iter().map(|(.., codes)| codes.len()).min().unwrap_or(0).min(lesson.composed.len());
        let start = if random.chance(FROM_START) { 0 } else { random.below(length - FRAMES + 1) };
        let cut = |codes: &Codes| codes[start..start + FRAMES].to_vec();
        let mut frames = cut(codes);
        let at_rest = index >= self.size[1];
        let mut from = 0;
        if !at_rest && !random.chance(AT_ONCE) {
            from = BEFORE + random.below(FRAMES - AFTER - BEFORE);
            let other = &lesson.versions[random.below(lesson.versions.len())].2;
            let before = if random.chance(COMPOSED) { &lesson.composed } else { other };
            frames[..from].copy_from_slice(&cut(before)[..from]);
        }
        let amounts = (0..FRAMES).map(|position| if position >= from { *amount } else { 0.0 }).collect();
        Task { words, class: *class, frames, amounts, from: (!at_rest).then_some(from) }
    }

    /// Codes of each codebook that count in moves, and at rest, over all tasks.
    fn counts(&self, tasks: &[Task]) -> [Vec<usize>; 2] {
        let codebooks = self.pattern.codebooks();
        let mut counts = [vec![0; codebooks], vec![0; codebooks]];
        for task in tasks {
            for (_, codebook) in self.judged(task) {
                counts[usize::from(task.from.is_none())][codebook] += 1;
            }
        }
        counts
    }

    /// Positions and codebooks whose expectations a task judges.
    fn judged(&self, task: &Task) -> impl Iterator<Item = (usize, usize)> {
        let from = task.from;
        (0..task.frames.len())
            .flat_map(move |position| (0..self.pattern.codebooks()).map(move |k| (position, k)))
            .filter(move |&(position, codebook)| {
                let delay = self.pattern.delay(codebook);
                match from {
                    // A late codebook's first codes after the move still belong to the music before it.
                    Some(from) => position >= from + delay,
                    None => position >= UNKNOWN.max(delay),
                }
            })
    }

    fn columns(&self, frames: &Codes) -> Codes {
        let (bos, pad) = (self.decoder.decoder().bos(), self.decoder.decoder().pad());
        let column = |position: usize| match position.checked_sub(1) {
            Some(column) => self.pattern.column(column, None, pad, |frame, codebook| frames[frame][codebook]),
            None => [bos; MAX_CODEBOOKS],
        };
        (0..frames.len()).map(column).collect()
    }

    /// The gradient of a task's loss: in a move cross-entropy, at rest the divergence from what was expected without.
    fn slope(&self, task: &Task, vector: &[f32], counts: &[Vec<usize>; 2]) -> Slope {
        let (codebooks, vocab) = (self.pattern.codebooks(), self.decoder.decoder().vocab());
        let columns = self.columns(&task.frames);
        let injected = Injected { vector, amounts: &task.amounts };
        let pass = self.decoder.forward(&columns, task.words, Some(injected));
        let before: Option<Pass> = task.from.is_none().then(|| self.decoder.forward(&columns, task.words, None));
        let mut logits = vec![0.0f32; pass.logits.len()];
        let (counts, weight) = match before {
            Some(_) => (&counts[1], self.rest),
            None => (&counts[0], 1.0),
        };
        for (position, codebook) in self.judged(task) {
            let at = (position * codebooks + codebook) * vocab;
            let out = &mut logits[at..at + vocab];
            out.copy_from_slice(&pass.logits[at..at + vocab]);
            softmax(out);
            match &before {
                Some(before) => {
                    let mut expected = before.logits[at..at + vocab].to_vec();
                    softmax(&mut expected);
                    out.iter_mut().zip(expected).for_each(|(own, expected)| *own -= expected);
                }
                None => out[task.frames[position - self.pattern.delay(codebook)][codebook] as usize] -= 1.0,
            }
            let share = self.share(codebook) * weight / counts[codebook] as f32;
            out.iter_mut().for_each(|x| *x *= share);
        }
        (task.class, self.decoder.backward(&pass, task.words, &task.amounts, &logits))
    }

    /// How much a codebook counts: both channels of a stereo checkpoint alike.
    fn share(&self, codebook: usize) -> f32 {
        let channels = self.decoder.decoder().channels();
        CODEBOOKS[(codebook / channels).min(CODEBOOKS.len() - 1)] / channels as f32
    }
}

/// Adam's moments.
struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Adam {
    const KEPT: [f32; 2] = [0.9, 0.98];

    fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count], steps: 0 }
    }

    /// Keeps the moments and the vectors before `step`. What cannot be kept is learned again the next time.
    fn keep(&self, path: &Path, step: usize, parts: &[Vec<f32>]) {
        let mut bytes = (step as u64).to_le_bytes().to_vec();
        bytes.extend(self.steps.to_le_bytes());
        let numbers = parts.iter().flatten().chain(&self.first).chain(&self.second);
        bytes.extend(numbers.flat_map(|x| x.to_le_bytes()));
        if let Err(why) = whole_file::write(path, bytes) {
            log::info!("what was learned so far cannot be kept in {}: {why}", path.display());
        }
    }

    /// Takes what was kept: the step that comes next. `None`, and nothing taken, for a file that is not of this size.
    fn read(&mut self, path: &Path, parts: &mut [Vec<f32>]) -> Option<usize> {
        let bytes = std::fs::read(path).ok()?;
        let (step, rest) = bytes.split_first_chunk::<8>()?;
        let (own, rest) = rest.split_first_chunk::<4>()?;
        let numbers: Vec<f32> = rest.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let count = self.first.len();
        if rest.len() != 4 * 3 * count || numbers.iter().any(|x| !x.is_finite()) {
            return None;
        }
        parts.iter_mut().flatten().zip(&numbers).for_each(|(x, kept)| *x = *kept);
        self.first.copy_from_slice(&numbers[count..2 * count]);
        self.second.copy_from_slice(&numbers[2 * count..]);
        self.steps = i32::from_le_bytes(*own);
        usize::try_from(u64::from_le_bytes(*step)).ok()
    }

    /// What a step of this size changes.
    fn step(&mut self, gradient: &[f32], rate: f32) -> Vec<f32> {
        self.steps += 1;
        let [a, b] = Self::KEPT;
        let (lost_a, lost_b) = (1.0 - a.powi(self.steps), 1.0 - b.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second).zip(gradient);
        let change = |((first, second), x): ((&mut f32, &mut f32), &f32)| {
            *first = a * *first + (1.0 - a) * x;
            *second = b * *second + (1.0 - b) * x * x;
            -rate * (*first / lost_a) / ((*second / lost_b).sqrt() + 1e-12)
        };
        moments.map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointSource};
    use crate::decoder::Decoder;
    use crate::embedded;
    use crate::learn::samples::normal;

    /// Mean loss of moves, in nats a code, and mean divergence at rest.
    fn losses(course: &Course, vectors: Option<&[Vec<f32>]>) -> [f64; 2] {
        let (mut sums, mut counts) = ([0.0; 2], [0usize; 2]);
        for index in 0..16 {
            // Tasks of a step that is never taken.
            let task = course.task(2, 1_000, index);
            let columns = course.columns(&task.frames);
            let vector = vectors.map(|vectors| vectors[task.class].as_slice());
            let injected = vector.map(|vector| Injected { vector, amounts: &task.amounts });
            let after = course.decoder.forward(&columns, task.words, injected);
            let before = course.decoder.forward(&columns, task.words, None);
            let vocab = course.decoder.decoder().vocab();
            for (position, codebook) in course.judged(&task) {
                let at = (position * course.pattern.codebooks() + codebook) * vocab;
                let [after, before] = [&after, &before].map(|pass| {
                    let mut row = pass.logits[at..at + vocab].to_vec();
                    softmax(&mut row);
                    row
                });
                let rest = task.from.is_none();
                let wanted = task.frames[position - course.pattern.delay(codebook)][codebook] as usize;
                sums[usize::from(rest)] += match rest {
                    true => before.iter().zip(&after).map(|(p, q)| f64::from(*p) * f64::from(p / q).ln()).sum(),
                    false => -f64::from(after[wanted]).ln(),
                };
                counts[usize::from(rest)] += 1;
            }
        }
        [sums[0] / counts[0] as f64, sums[1] / counts[1] as f64]
    }

    /// Two classes of noise that never go together: codes below and above the middle.
    fn lessons(decoder: &Differentiable, count: usize) -> Vec<Lesson> {
        let (vocab, text) = (decoder.decoder().vocab() as u32, decoder.decoder().text_width());
        let codes = |seed: u64, class: u32| -> Codes {
            let noise = normal(seed, FRAMES * MAX_CODEBOOKS);
            let code = |x: &f64| class * vocab / 2 + (x.abs() * 1e6) as u32 % (vocab / 2);
            noise.chunks(MAX_CODEBOOKS).map(|row| std::array::from_fn(|k| code(&row[k]))).collect()
        };
        let lesson = |index: u64| Lesson {
            words: decoder.words(&normal(index, 3 * text).iter().map(|x| 0.2 * *x as f32).collect::<Vec<_>>()),
            composed: codes(100 + index, (index % 2) as u32),
            versions: vec![(0, 1.0, codes(200 + index, 0)), (1, 1.0, codes(300 + index, 1))],
        };
        (0..count as u64).map(lesson).collect()
    }

    #[test]
    fn vectors_make_their_class_likelier_and_leave_it_alone_when_it_is_there() {
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let checkpoint = Checkpoint::load(&source, &|_| ()).expect("loads");
        let own = Decoder::load(&checkpoint.weights, &checkpoint.config).expect("loads");
        let decoder = Differentiable::new(&own, &checkpoint.weights, &checkpoint.config).expect("reads");
        let (pattern, lessons) = (DelayPattern::new(own.codebooks(), own.channels()), lessons(&decoder, 4));
        let norms = vec![50.0; own.blocks()];
        let own_parts = [vec![0], vec![1]];
        let learned = |rest: f32| {
            let course = Course::new(&decoder, &pattern, &lessons, Targets::Classes(2), &own_parts);
            let course = Course { size: [8, 6, 3], rest, ..course };
            let learn = || course.learn(&norms, None, Watch::IDLE).expect("nobody stops it");
            let vectors = learn();
            assert_eq!(vectors, learn(), "the same lessons give the same vectors");
            losses(&Course { size: [8, 8, 8], ..course }, Some(&vectors))
        };
        let course = Course::new(&decoder, &pattern, &lessons, Targets::Classes(2), &own_parts);
        let before = losses(&Course { size: [8, 8, 8], ..course }, None);
        let ([free, changed], [bound, kept]) = (learned(0.0), learned(50.0));
        assert!(before[1] == 0.0 && free < before[0] - 0.1, "{free} after {before:?}");
        assert!(kept < 0.5 * changed && bound < before[0], "{kept} of {changed}; {bound}");
    }

    #[test]
    fn what_was_stopped_goes_on_to_the_same_vectors() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let checkpoint = Checkpoint::load(&source, &|_| ()).expect("loads");
        let own = Decoder::load(&checkpoint.weights, &checkpoint.config).expect("loads");
        let decoder = Differentiable::new(&own, &checkpoint.weights, &checkpoint.config).expect("reads");
        let (pattern, lessons) = (DelayPattern::new(own.codebooks(), own.channels()), lessons(&decoder, 2));
        let (norms, own_parts) = (vec![50.0; own.blocks()], [vec![0], vec![1]]);
        let course = Course::new(&decoder, &pattern, &lessons, Targets::Classes(2), &own_parts);
        let course = Course { size: [4, 2, 1], ..course };
        let whole = course.learn(&norms, None, Watch::IDLE).expect("nobody stops it");
        let path = std::env::temp_dir().join(format!("tiller-course-{}/own.bin", std::process::id()));
        // Three tasks a step: it is stopped within the third.
        let left = AtomicUsize::new(7);
        let check = || match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Stopped),
        };
        assert_eq!(course.learn(&norms, Some(&path), Watch::IDLE.checked_by(&check)), Err(Stopped));
        left.store(6, Ordering::Relaxed);
        let rest = course.learn(&norms, Some(&path), Watch::IDLE.checked_by(&check));
        assert!(rest.as_ref() == Ok(&whole), "two steps are left, and they end where one go ends");
        assert!(!path.exists(), "what is done is done");
        std::fs::remove_dir_all(path.parent().expect("a folder")).expect("cleaned");
    }

    #[test]
    fn adam_takes_first_steps_of_the_rate_whatever_the_gradient() {
        let mut adam = Adam::new(3);
        let step = adam.step(&[2.0, -1e-3, 0.0], 0.1);
        assert!((step[0] + 0.1).abs() < 1e-6 && (step[1] - 0.1).abs() < 1e-6 && step[2] == 0.0, "{step:?}");
    }
}
