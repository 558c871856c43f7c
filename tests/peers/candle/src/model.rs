//! The decoder and its caches on candle's tensors. Q8_0 for every matrix: candle's fastest format on a CPU that keeps the
//! model what it is. Keys and values of the prompt are cached, as in any sensible player.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{Embedding, LayerNorm};

/// Guidance rows of a step.
const ROWS: usize = 2;

/// Sizes of a MusicGen decoder.
#[derive(Clone, Copy)]
pub struct Shape {
    pub blocks: usize,
    pub hidden: usize,
    pub feed: usize,
    pub heads: usize,
    pub codebooks: usize,
    pub vocab: usize,
    pub tokens: usize,
}

struct Block {
    norms: [LayerNorm; 3],
    /// Query, key and value in one matrix: one pass over the row instead of three.
    self_in: QMatMul,
    self_out: QMatMul,
    cross_query: QMatMul,
    cross_out: QMatMul,
    feed_in: QMatMul,
    feed_out: QMatMul,
}

/// A random decoder.
pub struct Decoder {
    shape: Shape,
    embeddings: Vec<Embedding>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    heads: QMatMul,
}

/// Keys and values of every block: `[rows, heads, length, size]` of what was played, and of the prompt.
pub struct Cache {
    length: usize,
    own: Vec<(Tensor, Tensor)>,
    prompt: Vec<(Tensor, Tensor)>,
}

impl Cache {
    /// Full up to `length` positions, the last of which every step writes anew.
    pub fn new(shape: Shape, length: usize) -> Result<Self> {
        let pair = |length: usize| -> Result<(Tensor, Tensor)> {
            let size = (ROWS, shape.heads, length, shape.hidden / shape.heads);
            Ok((Tensor::randn(0f32, 1.0, size, &Device::Cpu)?, Tensor::randn(0f32, 1.0, size, &Device::Cpu)?))
        };
        Ok(Self {
            length,
            own: (0..shape.blocks).map(|_| pair(length)).collect::<Result<_>>()?,
            prompt: (0..shape.blocks).map(|_| pair(shape.tokens)).collect::<Result<_>>()?,
        })
    }
}

impl Decoder {
    /// Draws the weights and quantises them.
    pub fn new(shape: Shape) -> Result<Self> {
        let (hidden, feed) = (shape.hidden, shape.feed);
        let table = || -> Result<Embedding> {
            let rows = Tensor::randn(0f32, 0.5, (shape.vocab + 1, hidden), &Device::Cpu)?;
            Ok(Embedding::new(rows, hidden))
        };
        let block = || -> Result<Block> {
            Ok(Block {
                norms: [norm(hidden)?, norm(hidden)?, norm(hidden)?],
                self_in: matrix(3 * hidden, hidden)?,
                self_out: matrix(hidden, hidden)?,
                cross_query: matrix(hidden, hidden)?,
                cross_out: matrix(hidden, hidden)?,
                feed_in: matrix(feed, hidden)?,
                feed_out: matrix(hidden, feed)?,
            })
        };
        Ok(Self {
            embeddings: (0..shape.codebooks).map(|_| table()).collect::<Result<_>>()?,
            blocks: (0..shape.blocks).map(|_| block()).collect::<Result<_>>()?,
            norm: norm(hidden)?,
            heads: matrix(shape.codebooks * shape.vocab, hidden)?,
            shape,
        })
    }

    /// One step of both rows; `code` is the state of a small generator of codes.
    pub fn step(&self, cache: &mut Cache, code: &mut u32) -> Result<Tensor> {
        let mut x = self.embed(code)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let hidden = self.shape.hidden;
            let projected = block.self_in.forward(&block.norms[0].forward(&x)?)?;
            let part = |at: usize| self.split(&projected.narrow(D::Minus1, at * hidden, hidden)?);
            let (keys, values) = &cache.own[index];
            keys.slice_set(&part(1)?, 2, cache.length - 1)?;
            values.slice_set(&part(2)?, 2, cache.length - 1)?;
            x = (x + block.self_out.forward(&self.attend(&part(0)?, keys, values)?)?)?;

            let query = block.cross_query.forward(&block.norms[1].forward(&x)?)?;
            let (keys, values) = &cache.prompt[index];
            x = (x + block.cross_out.forward(&self.attend(&self.split(&query)?, keys, values)?)?)?;

            let wide = block.feed_in.forward(&block.norms[2].forward(&x)?)?.gelu_erf()?;
            x = (x + block.feed_out.forward(&wide)?)?;
        }
        self.heads.forward(&self.norm.forward(&x)?)
    }

    /// Sum of the embeddings of one code of each codebook, `[rows, 1, hidden]`.
    fn embed(&self, code: &mut u32) -> Result<Tensor> {
        let mut sum = Tensor::zeros((ROWS, 1, self.shape.hidden), DType::F32, &Device::Cpu)?;
        for table in &self.embeddings {
            *code = code.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = (*code >> 8) % self.shape.vocab as u32;
            let codes = Tensor::from_vec(vec![place; ROWS], (ROWS, 1), &Device::Cpu)?;
            sum = (sum + table.forward(&codes)?)?;
        }
        Ok(sum)
    }

    /// `[rows, 1, hidden]` to `[rows, heads, 1, size]`.
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, size) = (self.shape.heads, self.shape.hidden / self.shape.heads);
        x.reshape((ROWS, 1, heads, size))?.transpose(1, 2)?.contiguous()
    }

    fn attend(&self, query: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let size = self.shape.hidden / self.shape.heads;
        let scores = (query.matmul(&keys.t()?)? * (1.0 / (size as f64).sqrt()))?;
        let heard = softmax_last_dim(&scores)?.matmul(values)?;
        heard.transpose(1, 2)?.reshape((ROWS, 1, self.shape.hidden))
    }
}

fn norm(width: usize) -> Result<LayerNorm> {
    let gain = Tensor::ones(width, DType::F32, &Device::Cpu)?;
    Ok(LayerNorm::new(gain, Tensor::zeros(width, DType::F32, &Device::Cpu)?, 1e-5))
}

fn matrix(outputs: usize, inputs: usize) -> Result<QMatMul> {
    let weights = Tensor::randn(0f32, 1.0 / (inputs as f32).sqrt(), (outputs, inputs), &Device::Cpu)?;
    QMatMul::from_qtensor(QTensor::quantize(&weights, GgmlDType::Q8_0)?)
}
