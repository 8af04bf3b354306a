//! Chance in tests of core: the same seed gives the same numbers on every machine, as the tables of the guides need.
//! Each test has seeds of its own, which `LIVEQOS_TEST_SEED` shifts to play other runs.

use std::cell::Cell;

/// Random numbers (xorshift64*, seeded by splitmix64 so that near seeds give different series).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let seed = seed.wrapping_add(shift());
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// Uniform in 0..1.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What the variable adds to all seeds; printed once in each test.
fn shift() -> u64 {
    thread_local! {
        static SHIFT: Cell<Option<u64>> = const { Cell::new(None) };
    }
    SHIFT.get().unwrap_or_else(|| {
        #[expect(clippy::disallowed_methods, reason = "a test run is repeated by a variable")]
        let shift = std::env::var(VARIABLE).map_or(0, |text| text.parse().expect("the seed is a whole number"));
        eprintln!("{VARIABLE}={shift}");
        SHIFT.set(Some(shift));
        shift
    })
}

const VARIABLE: &str = "LIVEQOS_TEST_SEED";
