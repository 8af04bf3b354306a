//! Rejection thresholds of consistent probability sampling (OpenTelemetry specification, `TraceState`: Probability
//! Sampling). Digits are computed as in the Collector's `probabilistic_sampler`, so that both keep the same traces at
//! the same share.

use std::fmt;

use liveqos_core::base::hex;

/// The randomness from which on a trace is kept: 56 bits; 0 keeps all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

/// The 56 bits of a trace that are compared with the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Randomness(u64);

impl Threshold {
    /// The threshold that keeps all traces.
    pub const KEEP_ALL: Self = Self(0);

    /// The threshold that keeps this share of traces; `None` where it keeps none. It has 4 hexadecimal digits, and one
    /// more for each leading digit that a very high or very low share uses up.
    #[must_use]
    pub fn of_share(share: f64) -> Option<Self> {
        if share.is_nan() || share < SMALLEST {
            return None;
        }
        if share >= 1.0 {
            return Some(Self::KEEP_ALL);
        }
        let digits = (DIGITS + idle_digits(share).max(idle_digits(1.0 - share))).min(ALL_DIGITS);
        let kept = (share * RANGE as f64).round() as u64;
        let shift = 4 * (ALL_DIGITS - digits);
        let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
        let rounded = (RANGE - kept + half) >> shift << shift;
        // Rounded up to the whole range it would keep nothing.
        Some(Self(rounded.min(RANGE - 1)))
    }

    /// Parses the value of `th`: 1 to 14 hexadecimal digits without trailing zeros.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len();
        (1..=ALL_DIGITS).contains(&digits).then(|| lower_hex(text)).flatten().map(|value| {
            // At most 14 digits, shifted to 14.
            Self(value << (4 * (ALL_DIGITS - digits)))
        })
    }

    /// Whether a trace of this randomness is kept.
    #[must_use]
    pub const fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:014x}", self.0);
        let kept = text.trim_end_matches('0');
        f.write_str(if kept.is_empty() { "0" } else { kept })
    }
}

impl Randomness {
    /// The randomness of a trace without an explicit one: the last 56 bits of its id.
    #[must_use]
    pub const fn of_trace(id: u128) -> Self {
        Self(id as u64 & (RANGE - 1))
    }

    /// Parses the value of `rv`: exactly 14 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == ALL_DIGITS).then(|| lower_hex(text)).flatten().map(Self)
    }
}

fn lower_hex(text: &str) -> Option<u64> {
    hex::number(text.as_bytes()).filter(|_| !text.bytes().any(|digit| digit.is_ascii_uppercase()))
}

/// How many leading hexadecimal digits of `1 - share` are `f` (or of `share` are 0).
fn idle_digits(share: f64) -> usize {
    // The binary exponent of a mantissa in [0.5, 1), as in C's frexp.
    let exponent = share.log2().floor() + 1.0;
    (-exponent / 4.0).max(0.0) as usize
}

/// Hexadecimal digits of 56 bits.
const ALL_DIGITS: usize = 14;
/// Digits of a threshold: the Collector's default `sampling_precision`.
const DIGITS: usize = 4;
const RANGE: u64 = 1 << 56;
/// The smallest share that keeps anything.
const SMALLEST: f64 = 1.0 / RANGE as f64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_thresholds() {
        for (share, text) in [
            (1.0, "0"),
            (0.5, "8"),
            (0.25, "c"),
            (0.1, "e666"),
            (0.05, "f3333"),
            (0.01, "fd70a"),
            (1.0 / 3.0, "aaab"),
            (0.99, "028f6"),
        ] {
            let threshold = Threshold::of_share(share).expect("some are kept");
            assert_eq!(threshold.to_string(), text, "{share}");
            assert_eq!(Threshold::parse(text), Some(threshold));
        }
        assert_eq!(Threshold::of_share(0.0), None);
        assert_eq!(Threshold::of_share(f64::NAN), None);
        for bad in ["", "E6", "x", "0123456789abcde", "+1"] {
            assert_eq!(Threshold::parse(bad), None, "{bad}");
        }
        assert_eq!(Randomness::parse("1"), None);
        assert_eq!(Randomness::parse("ffffffffffffff"), Some(Randomness::of_trace(u128::MAX)));
    }

    proptest! {
        #[test]
        fn a_higher_share_keeps_all_that_a_lower_one_keeps(a in 0.0_f64..1.0, b in 0.0_f64..1.0, id in any::<u128>()) {
            let keeps = |share| Threshold::of_share(share).is_some_and(|t| t.keeps(Randomness::of_trace(id)));
            prop_assert!(!keeps(a.min(b)) || keeps(a.max(b)));
        }

        #[test]
        fn a_threshold_keeps_its_share(share in 0.0001_f64..0.9999) {
            let Threshold(threshold) = Threshold::of_share(share).expect("some are kept");
            let kept = (RANGE - threshold) as f64 / RANGE as f64;
            prop_assert!((kept / share - 1.0).abs() < 1e-3, "{kept} for {share}");
        }

        #[test]
        fn any_text_is_parsed_or_none(text in "[0-9a-g]{0,16}") {
            if let Some(threshold) = Threshold::parse(&text) {
                prop_assert_eq!(Threshold::parse(&threshold.to_string()), Some(threshold));
            }
        }
    }
}
