//! Chance in tests: every random test prints its seed and takes it from `LIVEQOS_TEST_SEED` to repeat a run.

use std::hash::{BuildHasher as _, RandomState};

/// The variable that repeats a run.
pub const VARIABLE: &str = "LIVEQOS_TEST_SEED";

/// A seed for `test`: that of the variable, else a new one. Prints it.
#[must_use]
pub fn seed(test: &str) -> u64 {
    seed_or(test, RandomState::new().hash_one(test))
}

/// [`seed`] for a test whose bounds were measured with `usual`: that of the variable, else this one. Prints it.
#[must_use]
pub fn seed_or(test: &str, usual: u64) -> u64 {
    let seed = std::env::var(VARIABLE)
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is a whole number, not {text:?}")));
    eprintln!("{test}: {VARIABLE}={seed}");
    seed
}

/// A generator from [`seed`].
#[must_use]
pub fn random(test: &str) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed(test))
}
