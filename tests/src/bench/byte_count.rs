//! How many bytes one decoder step has to read: what turns steps per second into a share of the machine's bandwidth.
//! Arithmetic only; the engine says what it keeps.

use tiller_engine::decoder::{Decoder, KvCache};

/// Guidance rows of a step: each has keys and values of its own.
const GUIDANCE_ROWS: u64 = 2;

/// Bytes that one step with both guidance rows reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBytes {
    /// Matrices of all blocks and the heads, once for both rows, with their scales. Embedding rows, norms and the prompt's
    /// keys and values are some kilobytes and not counted.
    pub weights: u64,
    /// Keys and values of both rows.
    pub cache: u64,
}

impl StepBytes {
    /// A step of `decoder` that attends to so many positions.
    pub fn of(decoder: &Decoder, positions: usize) -> Self {
        let position = KvCache::new(decoder, 1).bytes_per_position() as u64;
        Self { weights: decoder.bytes_per_step() as u64, cache: GUIDANCE_ROWS * position * positions as u64 }
    }

    /// Both.
    pub fn total(self) -> u64 {
        self.weights + self.cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiller_engine::handle::ModelSource;
    use tiller_engine::model::Model;
    use tiller_engine::precision::Precision;

    #[test]
    fn the_demos_bytes_are_those_of_its_shape() {
        // 6 x (6 x 256^2 + 2 x 256 x 1024) + 4 x 1024 x 256 weights.
        const WEIGHTS: u64 = 6_553_600;
        let at = |precision| {
            let model = Model::load_at(&ModelSource::Embedded, precision, &|_| ()).expect("loads");
            StepBytes::of(model.decoder(), 500)
        };
        let [exact, bf16, int8, int4] = Precision::ALL.map(at);
        // Its file is f16. Each scale is a bf16, for 64 weights of 8 bits or 32 of 4.
        assert_eq!((exact.weights, bf16.weights), (2 * WEIGHTS, 2 * WEIGHTS));
        assert_eq!((int8.weights, int4.weights), (WEIGHTS * 33 / 32, WEIGHTS * 9 / 16));
        // 2 rows x 6 blocks x (key + value) x 256 x 500 positions.
        assert_eq!((exact.cache, bf16.cache), (12_288_000, 6_144_000));
        // A small decoder's are in bytes at 4 bits only, with a bf16 and an f32 of scale for each of the 4 heads.
        assert_eq!((int8.cache, int4.cache), (bf16.cache, 3_216_000));
        assert_eq!(bf16.total(), 2 * WEIGHTS + 6_144_000);
    }
}
