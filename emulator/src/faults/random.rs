//! Random numbers that a seed repeats (the SplitMix64 sequence).

/// A sequence of numbers that its seed determines.
#[derive(Clone, Debug)]
pub struct SplitMix {
    state: u64,
}

impl SplitMix {
    /// The sequence `stream` of `seed`: rules draw from streams of their own, so that one rule's draws do not depend on
    /// the requests that only another rule is about.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut spread = Self { state: stream };
        let state = seed ^ spread.next();
        Self { state }
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ bits >> 31
    }

    /// True in a share of `probability` of the calls: never for 0, always for 1.
    pub fn happens(&mut self, probability: f64) -> bool {
        // 53 bits, as many as a double holds exactly: uniform in [0, 1).
        let draw = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        draw < probability
    }

    /// A number in `0..=most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        match most.checked_add(1) {
            // The product's upper half is uniform but for a bias of less than most / 2^64.
            Some(count) => ((u128::from(self.next()) * u128::from(count)) >> 64) as u64,
            None => self.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // First outputs of SplitMix64 from state 0.
        let mut random = SplitMix { state: 0 };
        assert_eq!(random.next(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut random = SplitMix::new(3, 0);
        for _ in 0..10_000 {
            assert!(random.happens(1.0) && !random.happens(0.0));
            assert!(random.up_to(6) <= 6);
            assert_eq!(random.up_to(0), 0);
        }
        assert_ne!(SplitMix::new(3, 0).next(), SplitMix::new(3, 1).next());
        assert_ne!(SplitMix::new(3, 0).next(), SplitMix::new(4, 0).next());
    }
}
