//! Deterministic pseudorandom numbers.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Approximately standard normal: the sum of four uniform numbers.
    pub(super) fn bell(&mut self) -> f32 {
        /// The mean sum of four 16-bit numbers.
        const MEAN: f32 = 2.0 * 65_535.0;
        /// Its standard deviation: 65,536 times the square root of a third.
        const DEVIATION: f32 = 37_837.2;
        let bits = self.next();
        let sum: u64 = (0..4).map(|n| (bits >> (16 * n)) & 0xFFFF).sum();
        (sum as f32 - MEAN) / DEVIATION
    }
}

/// Hashes a number.
pub(super) fn mix(n: u64) -> u64 {
    Random::new(n).next()
}

/// Hashes a text (FNV-1a, mixed).
pub(super) fn hash(text: &str) -> u64 {
    let folded = text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_has_its_mean_and_deviation() {
        let mut random = Random::new(1);
        let numbers: Vec<f32> = (0..100_000).map(|_| random.bell()).collect();
        let mean = numbers.iter().sum::<f32>() / 1e5;
        let deviation = (numbers.iter().map(|n| n * n).sum::<f32>() / 1e5).sqrt();
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((deviation - 1.0).abs() < 0.02, "{deviation}");
    }
}
