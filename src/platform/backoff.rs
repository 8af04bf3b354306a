//! Pauses between repeated attempts: exponential back-off with jitter, the one of the daemon.

use std::time::Duration;

/// The pause before attempt number `attempt` (0 is the first repeat): `first`, doubled with each attempt up to `max`,
/// of which `jitter` (0 to 1) chooses between half and all, so that 700 nodes do not come back in step.
#[must_use]
pub(crate) fn backoff(first: Duration, max: Duration, attempt: u32, jitter: f64) -> Duration {
    let whole = first.saturating_mul(2_u32.saturating_pow(attempt)).min(max);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// A random number, evenly distributed from 0 to 1.
pub(crate) fn jitter() -> f64 {
    fastrand::f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_bound_and_spreads() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(30));
        let whole: Vec<_> = (0..7).map(|n| backoff(first, max, n, 1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(first, max, 2, 0.0), Duration::from_secs(2));
        assert_eq!(backoff(first, max, u32::MAX, 1.0), max);
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
