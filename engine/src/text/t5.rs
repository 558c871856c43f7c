//! The T5 encoder (Raffel et al. 2019, arXiv 1910.10683), relu and gated forms, on the run path's kernels. Any thread.
//! No thread pool and no foreign tensor library: the states' bits depend on the prompt alone, and nothing outlives an unload.

use crate::checkpoint::{CheckpointError, TextConfig, Weights};
use crate::kernel::Linear;
use crate::kernel::attention::Attention;
use crate::kernel::norm::rms_norm;

/// One encoder layer.
struct Layer {
    attention_norm: Vec<f32>,
    /// Query, key and value stacked: `[3 inner][d_model]`.
    attention_in: Linear,
    attention_out: Linear,
    feed_norm: Vec<f32>,
    /// `wi`, or `wi_0` and `wi_1` stacked when gated.
    feed_in: Linear,
    feed_out: Linear,
}

/// The encoder half of T5.
pub(super) struct T5Encoder {
    config: TextConfig,
    /// `[vocab][d_model]`.
    embedding: Vec<f32>,
    /// `[buckets][heads]`, of the first layer, used by all.
    position_bias: Vec<f32>,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
}

impl T5Encoder {
    pub fn load(weights: &Weights, config: &TextConfig) -> Result<Self, CheckpointError> {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let root = "text_encoder.encoder";
        let norm = |path: String| weights.tensor(&path, &[width]);
        let stacked = |paths: &[String], outputs: usize, inputs: usize| {
            let weight = weights.stacked(paths, &[outputs, inputs])?;
            Ok::<_, CheckpointError>(Linear::new(&weight, None, paths.len() * outputs, inputs))
        };
        let mut layers = Vec::with_capacity(config.num_layers);
        for index in 0..config.num_layers {
            let attention = format!("{root}.block.{index}.layer.0");
            let feed = format!("{root}.block.{index}.layer.1");
            let parts = ["q", "k", "v"].map(|part| format!("{attention}.SelfAttention.{part}.weight"));
            let wi: Vec<String> = match config.gated {
                true => (0..2).map(|i| format!("{feed}.DenseReluDense.wi_{i}.weight")).collect(),
                false => vec![format!("{feed}.DenseReluDense.wi.weight")],
            };
            layers.push(Layer {
                attention_norm: norm(format!("{attention}.layer_norm.weight"))?,
                attention_in: stacked(&parts, inner, width)?,
                attention_out: stacked(&[format!("{attention}.SelfAttention.o.weight")], width, inner)?,
                feed_norm: norm(format!("{feed}.layer_norm.weight"))?,
                feed_in: stacked(&wi, config.d_ff, width)?,
                feed_out: stacked(&[format!("{feed}.DenseReluDense.wo.weight")], width, config.d_ff)?,
            });
        }
        let tied = ["text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight"];
        let bias = format!("{root}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        Ok(Self {
            embedding: weights.tensor_of(&tied, &[config.vocab_size, width])?,
            position_bias: weights.tensor(&bias, &[config.relative_attention_num_buckets, config.num_heads])?,
            layers,
            final_norm: norm(format!("{root}.final_layer_norm.weight"))?,
            config: config.clone(),
        })
    }

    /// States `[ids][d_model]` of one unpadded prompt; every id is in the vocabulary.
    pub fn forward(&self, ids: &[u32]) -> Vec<f32> {
        let (width, inner) = (self.config.d_model, self.config.num_heads * self.config.d_kv);
        let (tokens, feed) = (ids.len(), self.config.d_ff);
        let epsilon = self.config.layer_norm_epsilon as f32;
        let mut x: Vec<f32> =
            ids.iter().flat_map(|&id| self.embedding[id as usize * width..][..width].iter()).copied().collect();
        let mut normed = vec![0.0; tokens * width];
        let mut projected = vec![0.0; tokens * 3 * inner];
        let mut attended = vec![0.0; tokens * inner];
        let gates = if self.config.gated { 2 } else { 1 };
        let mut wide = vec![0.0; tokens * gates * feed];
        let mut fed = vec![0.0; tokens * feed];
        let bias = self.distance_bias(tokens);
        for layer in &self.layers {
            rms_rows(&x, &layer.attention_norm, epsilon, &mut normed);
            layer.attention_in.forward(&normed, width, tokens, &mut projected, 3 * inner);
            self.attend(&projected, &bias, tokens, &mut attended);
            layer.attention_out.forward_add(&attended, inner, tokens, &mut x, width);

            rms_rows(&x, &layer.feed_norm, epsilon, &mut normed);
            layer.feed_in.forward(&normed, width, tokens, &mut wide, gates * feed);
            for (row, out) in wide.chunks_exact_mut(gates * feed).zip(fed.chunks_exact_mut(feed)) {
                let (gate, value) = row.split_at_mut(feed);
                self.config.activation.apply(gate);
                out.copy_from_slice(gate);
                // Empty, and so no product, unless the layer is gated.
                out.iter_mut().zip(value).for_each(|(out, value)| *out *= *value);
            }
            layer.feed_out.forward_add(&fed, feed, tokens, &mut x, width);
        }
        rms_rows(&x, &self.final_norm, epsilon, &mut normed);
        normed
    }

    /// T5's attention: no scale, one learned bias for each head and distance bucket.
    /// `projected` is `[tokens][query, key, value]`.
    fn attend(&self, projected: &[f32], bias: &[f32], tokens: usize, attended: &mut [f32]) {
        let (heads, size) = (self.config.num_heads, self.config.d_kv);
        let inner = heads * size;
        let mut cache = Attention::new(heads, size, tokens);
        for (token, row) in projected.chunks_exact(3 * inner).enumerate() {
            cache.write(token, &row[inner..2 * inner], &row[2 * inner..]);
        }
        let mut scratch = vec![0.0; Attention::scratch(tokens)];
        for (token, (row, out)) in projected.chunks_exact(3 * inner).zip(attended.chunks_exact_mut(inner)).enumerate() {
            cache.attend(&row[..inner], tokens, 1.0, &mut scratch, out, |head, weights| {
                for (other, weight) in weights.iter_mut().enumerate() {
                    *weight += bias[(other + tokens - 1 - token) * heads + head];
                }
            });
        }
    }

    /// The bias for every distance from `1 - tokens` to `tokens - 1`: `[2 tokens - 1][heads]`.
    fn distance_bias(&self, tokens: usize) -> Vec<f32> {
        let heads = self.config.num_heads;
        let span = tokens as isize - 1;
        (-span..=span)
            .flat_map(|distance| self.position_bias[self.bucket(distance) * heads..][..heads].iter())
            .copied()
            .collect()
    }

    /// Bucket of the distance from a token to the one it looks at: half of the buckets for each direction, of these half
    /// exact and half logarithmic. In f32, since the edges fall where transformers' rounding puts them.
    fn bucket(&self, distance: isize) -> usize {
        let half = self.config.relative_attention_num_buckets / 2;
        let ahead = if distance > 0 { half } else { 0 };
        let (distance, exact) = (distance.unsigned_abs(), half / 2);
        if distance < exact {
            return ahead + distance;
        }
        let most = self.config.relative_attention_max_distance as f64 / exact as f64;
        let share = f64::from(distance as f32 / exact as f32).ln() as f32 / most.ln() as f32;
        ahead + (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    }
}

fn rms_rows(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(gain.len()).zip(y.chunks_exact_mut(gain.len())) {
        rms_norm(x, gain, epsilon, y);
    }
}
