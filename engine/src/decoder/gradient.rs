//! How the decoder's outputs change with what is injected into its blocks: a forward pass over one whole piece that keeps
//! what the way back needs, and the way back (reverse-mode differentiation, Griewank and Walther 2008). The weights are
//! constants. Exact weights only, f32; one piece a call, so that threads share out pieces. Worker threads; allocates.

use super::forward::normalise;
use super::weights::{Block, NORM_EPSILON, Norm, Reader, Reversed};
use super::{Decoder, MAX_CODEBOOKS};
use crate::checkpoint::{Activation, CheckpointError, Config, Weights};
use crate::kernel::Linear;
use crate::kernel::activation::add;
use crate::kernel::elementary::{erf, sigmoid, tanh};
use crate::kernel::layer::Layer;
use crate::kernel::norm::softmax;
use crate::kernel::vectors::{add_scaled, dot};
use crate::precision::Precision;

/// A decoder and the transposes of its weights.
pub struct Differentiable<'a> {
    decoder: &'a Decoder,
    reversed: Vec<Reversed>,
    heads: Linear,
}

/// Cross-attention keys and values of a prompt, `[block][tokens][2 hidden]`.
pub struct Words {
    blocks: Vec<Vec<f32>>,
}

/// What is added to every block's output: a vector `[blocks * hidden]`, so much of it at each position.
#[derive(Clone, Copy)]
pub struct Injected<'a> {
    /// `[blocks * hidden]`
    pub vector: &'a [f32],
    /// `[position]`
    pub amounts: &'a [f32],
}

/// A pass over one piece.
pub struct Pass {
    positions: usize,
    blocks: Vec<Kept>,
    /// Output of the last block, injection included.
    last: Vec<f32>,
    /// Logits `[position][codebooks * vocab]`.
    pub logits: Vec<f32>,
}

/// What one block keeps for the way back; all `[position][...]`.
struct Kept {
    input: Vec<f32>,
    /// Query, key and value.
    projected: Vec<f32>,
    /// `[head][position][position]`
    own_weights: Vec<f32>,
    /// Behind the self-attention.
    attended: Vec<f32>,
    cross_query: Vec<f32>,
    /// `[head][position][token]`
    cross_weights: Vec<f32>,
    /// Behind the cross-attention.
    told: Vec<f32>,
    /// Of the feed-forward layer, before its activation.
    fed: Vec<f32>,
}

impl<'a> Differentiable<'a> {
    /// Reads the weights once more.
    ///
    /// # Errors
    /// When they cannot be read.
    ///
    /// # Panics
    /// When the decoder does not keep its weights as they are.
    pub fn new(decoder: &'a Decoder, weights: &Weights, config: &Config) -> Result<Self, CheckpointError> {
        assert!(decoder.precision == Precision::F32, "gradients are those of the exact weights");
        let reader = Reader::new(weights, config, Precision::F32);
        let reversed = (0..decoder.blocks()).map(|index| reader.reversed_block(index)).collect::<Result<_, _>>()?;
        Ok(Self { decoder, reversed, heads: reader.reversed_heads()? })
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        self.decoder
    }

    /// What a prompt's text states `[tokens][text_width]` are to the blocks.
    pub fn words(&self, states: &[f32]) -> Words {
        let projected = match &self.decoder.text_projection {
            Some(projection) => applied(projection, states),
            None => states.to_vec(),
        };
        Words { blocks: self.decoder.blocks.iter().map(|block| applied(&block.cross_in, &projected)).collect() }
    }

    /// Runs a piece, given by its input columns, under a prompt or as the unconditional row.
    pub fn forward(
        &self,
        columns: &[[u32; MAX_CODEBOOKS]],
        words: Option<&Words>,
        injected: Option<Injected<'_>>,
    ) -> Pass {
        let (decoder, hidden) = (self.decoder, self.decoder.hidden);
        let mut state = vec![0.0; columns.len() * hidden];
        for (position, (codes, x)) in columns.iter().zip(state.chunks_exact_mut(hidden)).enumerate() {
            for (table, &code) in decoder.embeddings.iter().zip(codes) {
                add(x, &table[code as usize * hidden..][..hidden]);
            }
            decoder.positions.add(position, x);
        }
        let mut blocks = Vec::with_capacity(decoder.blocks());
        for (index, block) in decoder.blocks.iter().enumerate() {
            let words = words.map(|words| words.blocks[index].as_slice());
            blocks.push(self.block(block, &mut state, words));
            if let Some(Injected { vector, amounts }) = injected {
                let vector = &vector[index * hidden..][..hidden];
                let rows = state.chunks_exact_mut(hidden).zip(amounts);
                rows.for_each(|(row, amount)| add_scaled(row, *amount, vector));
            }
        }
        let logits = exact(&decoder.heads_out, &normed(&decoder.final_norm, &state));
        Pass { positions: columns.len(), blocks, last: state, logits }
    }

    fn block(&self, block: &Block, state: &mut [f32], words: Option<&[f32]>) -> Kept {
        let (hidden, heads) = (self.decoder.hidden, self.decoder.heads);
        let input = state.to_vec();
        let projected = exact(&block.self_in, &normed(&block.self_norm, state));
        let mut out = vec![0.0; state.len()];
        let own = Attended { heads, hidden, causal: true };
        let own_weights =
            own.forward([&projected, &projected[hidden..], &projected[2 * hidden..]], [3 * hidden; 3], &mut out);
        add(state, &exact(&block.self_out, &out));
        let attended = state.to_vec();
        let (mut cross_query, mut cross_weights) = (Vec::new(), Vec::new());
        if let Some(words) = words {
            cross_query = exact(&block.cross_query, &normed(&block.cross_norm, state));
            let told = Attended { heads, hidden, causal: false };
            cross_weights =
                told.forward([&cross_query, words, &words[hidden..]], [hidden, 2 * hidden, 2 * hidden], &mut out);
            add(state, &exact(&block.cross_out, &out));
        }
        let told = state.to_vec();
        let fed = exact(&block.feed_in, &normed(&block.feed_norm, state));
        let mut active = fed.clone();
        self.decoder.activation.apply(&mut active);
        add(state, &exact(&block.feed_out, &active));
        Kept { input, projected, own_weights, attended, cross_query, cross_weights, told, fed }
    }

    /// From the gradient of the logits to that of the injected vector, `[blocks * hidden]`. The words and the amounts are
    /// those of the pass.
    pub fn backward(&self, pass: &Pass, words: Option<&Words>, amounts: &[f32], logits: &[f32]) -> Vec<f32> {
        let hidden = self.decoder.hidden;
        let mut gradient = vec![0.0; self.decoder.blocks() * hidden];
        let mut state = vec![0.0; pass.positions * hidden];
        norm_back(&self.decoder.final_norm, &pass.last, &applied(&self.heads, logits), &mut state);
        for index in (0..self.decoder.blocks()).rev() {
            let own = &mut gradient[index * hidden..][..hidden];
            state.chunks_exact(hidden).zip(amounts).for_each(|(row, amount)| add_scaled(own, *amount, row));
            // Nothing is injected before the first block.
            if index > 0 {
                let words = words.map(|words| words.blocks[index].as_slice());
                self.block_back(index, &pass.blocks[index], words, &mut state);
            }
        }
        gradient
    }

    fn block_back(&self, index: usize, kept: &Kept, words: Option<&[f32]>, state: &mut [f32]) {
        let (block, reversed) = (&self.decoder.blocks[index], &self.reversed[index]);
        let (hidden, heads) = (self.decoder.hidden, self.decoder.heads);
        let mut fed = applied(&reversed.feed_out, state);
        fed.iter_mut().zip(&kept.fed).for_each(|(d, x)| *d *= slope(self.decoder.activation, *x));
        norm_back(&block.feed_norm, &kept.told, &applied(&reversed.feed_in, &fed), state);
        if let Some(words) = words {
            let out = applied(&reversed.cross_out, state);
            let mut query = vec![0.0; out.len()];
            let told = Attended { heads, hidden, causal: false };
            let back = Back { weights: &kept.cross_weights, out: &out };
            told.backward(
                &back,
                [&kept.cross_query, words, &words[hidden..]],
                [hidden, 2 * hidden, 2 * hidden],
                &mut query,
                None,
            );
            norm_back(&block.cross_norm, &kept.attended, &applied(&reversed.cross_query, &query), state);
        }
        let out = applied(&reversed.self_out, state);
        let (mut query, mut rest) = (vec![0.0; out.len()], vec![0.0; 2 * out.len()]);
        let own = Attended { heads, hidden, causal: true };
        let back = Back { weights: &kept.own_weights, out: &out };
        let projected = &kept.projected;
        own.backward(
            &back,
            [projected, &projected[hidden..], &projected[2 * hidden..]],
            [3 * hidden; 3],
            &mut query,
            Some(&mut rest),
        );
        let rows = query.chunks_exact(hidden).zip(rest.chunks_exact(2 * hidden));
        let all: Vec<f32> = rows.flat_map(|(query, rest)| query.iter().chain(rest).copied()).collect();
        norm_back(&block.self_norm, &kept.input, &applied(&reversed.self_in, &all), state);
    }
}

/// Attention over keys and values that lie in rows.
struct Attended {
    heads: usize,
    hidden: usize,
    /// A query sees its own position and those before it; otherwise all.
    causal: bool,
}

/// What the way back through attention begins with.
struct Back<'a> {
    weights: &'a [f32],
    /// Gradient of the outputs, `[position][hidden]`.
    out: &'a [f32],
}

impl Attended {
    /// Queries, keys and values begin every so many floats; outputs `[position][hidden]` are overwritten. Gives the weights
    /// `[head][query][key]`.
    fn forward(&self, parts: [&[f32]; 3], strides: [usize; 3], out: &mut [f32]) -> Vec<f32> {
        let [queries, keys, values] = parts;
        let (size, count) = (self.hidden / self.heads, out.len() / self.hidden);
        let seen = keys.len().div_ceil(strides[1]);
        let factor = 1.0 / (size as f32).sqrt();
        let mut weights = vec![0.0; self.heads * count * seen];
        out.fill(0.0);
        for (head, weights) in weights.chunks_exact_mut((count * seen).max(1)).enumerate() {
            let at = head * size;
            for (q, weights) in weights.chunks_exact_mut(seen).enumerate() {
                let reach = if self.causal { q + 1 } else { seen };
                let query = &queries[q * strides[0] + at..][..size];
                for (k, weight) in weights[..reach].iter_mut().enumerate() {
                    *weight = factor * dot(query, &keys[k * strides[1] + at..][..size]);
                }
                softmax(&mut weights[..reach]);
                let out = &mut out[q * self.hidden + at..][..size];
                for (k, weight) in weights[..reach].iter().enumerate() {
                    add_scaled(out, *weight, &values[k * strides[2] + at..][..size]);
                }
            }
        }
        weights
    }

    /// Gradients of the queries `[position][hidden]` and, where they are wanted, of keys and values `[position][2 hidden]`; all
    /// are added to.
    fn backward(
        &self,
        back: &Back,
        parts: [&[f32]; 3],
        strides: [usize; 3],
        query_out: &mut [f32],
        mut rest_out: Option<&mut [f32]>,
    ) {
        let [queries, keys, values] = parts;
        let (size, count) = (self.hidden / self.heads, back.out.len() / self.hidden);
        let seen = keys.len().div_ceil(strides[1]);
        let factor = 1.0 / (size as f32).sqrt();
        let mut slopes = vec![0.0; seen];
        for (head, weights) in back.weights.chunks_exact((count * seen).max(1)).enumerate() {
            let at = head * size;
            for (q, weights) in weights.chunks_exact(seen).enumerate() {
                let reach = if self.causal { q + 1 } else { seen };
                let out = &back.out[q * self.hidden + at..][..size];
                for (k, slope) in slopes[..reach].iter_mut().enumerate() {
                    *slope = dot(out, &values[k * strides[2] + at..][..size]);
                }
                let mean = dot(&weights[..reach], &slopes[..reach]);
                let query = &queries[q * strides[0] + at..][..size];
                for (k, weight) in weights[..reach].iter().enumerate() {
                    let score = factor * weight * (slopes[k] - mean);
                    add_scaled(
                        &mut query_out[q * self.hidden + at..][..size],
                        score,
                        &keys[k * strides[1] + at..][..size],
                    );
                    if let Some(rest) = rest_out.as_deref_mut() {
                        let row = &mut rest[k * 2 * self.hidden..][..2 * self.hidden];
                        add_scaled(&mut row[at..][..size], score, query);
                        add_scaled(&mut row[self.hidden + at..][..size], *weight, out);
                    }
                }
            }
        }
    }
}

/// Rows through a linear layer.
fn applied(linear: &Linear, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / linear.inputs();
    let mut y = vec![0.0; rows * linear.outputs()];
    linear.forward(x, linear.inputs(), rows, &mut y, linear.outputs());
    y
}

/// The same for a layer of exact weights.
fn exact(layer: &Layer, x: &[f32]) -> Vec<f32> {
    match layer {
        Layer::Float(linear) => applied(linear, x),
        _ => unreachable!("`new` takes exact weights only"),
    }
}

fn normed(norm: &Norm, x: &[f32]) -> Vec<f32> {
    let width = norm.gain.len();
    let mut y = vec![0.0; x.len()];
    x.chunks_exact(width).zip(y.chunks_exact_mut(width)).for_each(|(x, y)| normalise(norm, x, y));
    y
}

/// Adds the gradient of a layer norm's inputs `x`, given that of its outputs.
fn norm_back(norm: &Norm, x: &[f32], outputs: &[f32], inputs: &mut [f32]) {
    let width = norm.gain.len();
    let rows = x.chunks_exact(width).zip(outputs.chunks_exact(width)).zip(inputs.chunks_exact_mut(width));
    for ((x, outputs), inputs) in rows {
        let count = width as f32;
        let mean = x.iter().sum::<f32>() / count;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / count;
        let scale = 1.0 / (variance + NORM_EPSILON).sqrt();
        let (mut all, mut along) = (0.0, 0.0);
        for ((x, d), gain) in x.iter().zip(outputs).zip(&norm.gain) {
            all += d * gain;
            along += d * gain * (x - mean) * scale;
        }
        let (all, along) = (all / count, along / count);
        for (((x, d), gain), input) in x.iter().zip(outputs).zip(&norm.gain).zip(inputs) {
            *input += scale * (d * gain - all - (x - mean) * scale * along);
        }
    }
}

/// Slope of an activation.
fn slope(activation: Activation, x: f32) -> f32 {
    use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
    match activation {
        Activation::Gelu => {
            let density = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI * (-0.5 * x * x).exp();
            0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * density
        }
        Activation::GeluTanh => {
            const CUBIC: f32 = 0.044_715;
            let root = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
            let bend = tanh(root * (x + CUBIC * x * x * x));
            0.5 * (1.0 + bend) + 0.5 * x * (1.0 - bend * bend) * root * (1.0 + 3.0 * CUBIC * x * x)
        }
        Activation::Relu => f32::from(u8::from(x > 0.0)),
        Activation::Silu => {
            let gate = sigmoid(x);
            gate * (1.0 + x * (1.0 - gate))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointSource};
    use crate::decoder::{KvCache, Row, Scratch};
    use crate::embedded;
    use crate::learn::samples::normal;

    fn demo() -> (Decoder, Checkpoint) {
        let source = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
        let checkpoint = Checkpoint::load(&source, &|_| ()).expect("loads");
        (Decoder::load(&checkpoint.weights, &checkpoint.config).expect("loads"), checkpoint)
    }

    fn columns(decoder: &Decoder, count: usize) -> Vec<[u32; MAX_CODEBOOKS]> {
        let code = |position: usize, k: usize| ((position * 7_919 + k * 104_729 + 13) % decoder.vocab()) as u32;
        let first = [decoder.bos(); MAX_CODEBOOKS];
        (0..count).map(|p| if p == 0 { first } else { std::array::from_fn(|k| code(p, k)) }).collect()
    }

    #[test]
    fn the_pass_is_that_of_the_run_path() {
        let (decoder, checkpoint) = demo();
        let whole = Differentiable::new(&decoder, &checkpoint.weights, &checkpoint.config).expect("reads");
        let columns = columns(&decoder, 12);
        let states: Vec<f32> = normal(3, 5 * decoder.text_width()).iter().map(|x| 0.3 * *x as f32).collect();
        let vector: Vec<f32> = normal(4, decoder.blocks() * decoder.hidden()).iter().map(|x| *x as f32).collect();
        let amounts: Vec<f32> = (0..12).map(|p| if p < 5 { 0.0 } else { 0.7 }).collect();
        let scaled: Vec<f32> = vector.iter().map(|x| 0.7 * x).collect();
        for text in [true, false] {
            let (words, cross) = (whole.words(&states), decoder.cross_cache(&states));
            let injected = Injected { vector: &vector, amounts: &amounts };
            let pass = whole.forward(&columns, text.then_some(&words), Some(injected));
            let (mut cache, mut scratch) = (KvCache::new(&decoder, 12), Scratch::new(&decoder, 12));
            let row = |(position, codes): (usize, &[u32; MAX_CODEBOOKS])| Row {
                cache: 0,
                position,
                codes: *codes,
                text: text.then_some(&cross),
                injection: (position >= 5).then_some(scaled.as_slice()),
                pushes: &[],
                logits: true,
            };
            let rows: Vec<Row> = columns.iter().enumerate().map(row).collect();
            decoder.forward(&rows, &mut [&mut cache], &mut scratch, None);
            for (position, own) in pass.logits.chunks_exact(decoder.codebooks() * decoder.vocab()).enumerate() {
                let far = own.iter().zip(scratch.logits(position)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 2e-3, "position {position}: off by {far}");
            }
        }
    }

    #[test]
    fn the_way_back_agrees_with_finite_differences() {
        let (decoder, checkpoint) = demo();
        let whole = Differentiable::new(&decoder, &checkpoint.weights, &checkpoint.config).expect("reads");
        let columns = columns(&decoder, 9);
        let states: Vec<f32> = normal(5, 4 * decoder.text_width()).iter().map(|x| 0.3 * *x as f32).collect();
        let width = decoder.blocks() * decoder.hidden();
        let vector: Vec<f32> = normal(6, width).iter().map(|x| 0.1 * *x as f32).collect();
        let amounts: Vec<f32> = (0..9).map(|p| 0.25 * (p % 4) as f32).collect();
        // The loss is a fixed weighted sum of all logits.
        let count = columns.len() * decoder.codebooks() * decoder.vocab();
        let weights: Vec<f32> = normal(7, count).iter().map(|x| *x as f32 / 50.0).collect();
        for text in [true, false] {
            let words = whole.words(&states);
            let words = text.then_some(&words);
            let loss = |vector: &[f32]| -> f64 {
                let pass = whole.forward(&columns, words, Some(Injected { vector, amounts: &amounts }));
                pass.logits.iter().zip(&weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let pass = whole.forward(&columns, words, Some(Injected { vector: &vector, amounts: &amounts }));
            let gradient = whole.backward(&pass, words, &amounts, &weights);
            for block in 0..decoder.blocks() {
                // Along a random way in each block, so that its whole gradient takes part.
                let mut way = vec![0.0; width];
                let own = block * decoder.hidden()..(block + 1) * decoder.hidden();
                way[own].iter_mut().zip(normal(8 + block as u64, decoder.hidden())).for_each(|(w, x)| *w = x as f32);
                let at = |step: f32| loss(&vector.iter().zip(&way).map(|(v, w)| v + step * w).collect::<Vec<_>>());
                let measured = (at(0.01) - at(-0.01)) / 0.02;
                let told: f64 = gradient.iter().zip(&way).map(|(g, w)| f64::from(*g) * f64::from(*w)).sum();
                let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                assert!((measured - told).abs() < 0.01 * size, "block {block}: {told} for {measured} of {size}");
            }
        }
    }

    #[test]
    fn slopes_are_those_of_the_activations() {
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu] {
            for x in [-3.0f32, -1.1, -0.2, 0.3, 1.7, 4.0] {
                let at = |x: f32| {
                    let mut one = [x];
                    activation.apply(&mut one);
                    f64::from(one[0])
                };
                let measured = (at(x + 1e-2) - at(x - 1e-2)) / 2e-2;
                assert!((f64::from(slope(activation, x)) - measured).abs() < 2e-3, "{activation:?} at {x}");
            }
        }
    }
}
