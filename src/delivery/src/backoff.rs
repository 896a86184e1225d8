//! How long to wait before the next try: doubling from a first delay up to a cap, with jitter, so that a
//! fleet whose receiver was away does not come back in step.

use std::time::Duration;

/// Delays of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub cap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), cap: Duration::from_secs(60) }
    }
}

/// The delays of one receiver.
#[derive(Debug, Clone)]
pub struct Backoff {
    pace: Pace,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed` makes the jitter; each machine needs another one.
    pub fn new(pace: Pace, seed: u64) -> Self {
        // A xorshift generator stays at zero for ever.
        Self { pace, failures: 0, random: seed | 1 }
    }

    /// The delay after one more failure: between half of the doubled delay and all of it.
    pub fn failed(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let whole = self.pace.first.saturating_mul(factor).min(self.pace.cap);
        self.failures = self.failures.saturating_add(1).min(31);
        whole / 2 + (whole / 2).mul_f64(self.fraction())
    }

    /// Something was taken.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// From 0 to 1: 53 bits of xorshift64* (Vigna 2016). Jitter needs no better.
    fn fraction(&mut self) -> f64 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        let bits = x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
        let fraction = bits as f64 / (1_u64 << 53) as f64;
        fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap_within_its_bounds_and_starts_anew() {
        let pace = Pace { first: Duration::from_secs(1), cap: Duration::from_secs(60) };
        let mut backoff = Backoff::new(pace, 7);
        for whole in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let (delay, whole) = (backoff.failed(), Duration::from_secs(whole));
            assert!(delay >= whole / 2 && delay <= whole, "{delay:?} of {whole:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed() <= pace.cap);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= pace.first);
    }

    #[test]
    fn seeds_part_machines() {
        let delay = |seed| Backoff::new(Pace::default(), seed).failed();
        let mut delays: Vec<_> = (1..200).map(|seed| delay(seed << 20)).collect();
        assert_eq!(delay(3), delay(3));
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 190, "{}", delays.len());
        let spread = delays[delays.len() - 1] - delays[0];
        assert!(spread > Duration::from_millis(400), "{spread:?}");
    }
}
