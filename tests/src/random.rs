//! Random numbers that can be had again: every test that draws says its seed, and takes another one from `TILLER_SEED`.

/// Where the seed comes from, where there is one.
pub const SEED: &str = "TILLER_SEED";
/// How many times as many cases are drawn as usual.
pub const EFFORT: &str = "TILLER_EFFORT";

/// A repeatable sequence (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The sequence of a test. Says how to have it again; the test's harness shows that when the test fails.
    pub fn of(test: &str) -> Self {
        let seed = seed();
        println!("{test}: again with {SEED}={seed} cargo test -p tiller-tests --test survival {test}");
        let mixed = test.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self(mixed)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// From 0 up to 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.bits().to_le_bytes()).take(count).collect()
    }
}

/// The seed of this run.
pub fn seed() -> u64 {
    number(SEED).unwrap_or(1)
}

/// `usual` cases, or as many times more as `TILLER_EFFORT` says.
pub fn cases(usual: u32) -> u32 {
    usual.saturating_mul(number(EFFORT).and_then(|n| u32::try_from(n).ok()).unwrap_or(1))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_comes_again_and_tests_have_their_own() {
        let draw = |test| {
            let mut random = Random::of(test);
            (random.bits(), random.below(10), random.bytes(13))
        };
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a").0, draw("b").0);
        let mut random = Random(3);
        assert!((0..1_000).map(|_| random.unit()).all(|value| (0.0..1.0).contains(&value)));
    }
}
