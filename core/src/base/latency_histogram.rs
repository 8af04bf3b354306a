//! Latencies of many viewers in little memory: exact up to 256 values, beyond that an HdrHistogram of two significant
//! digits. A latency outside the bounds counts as the nearest bound.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Up to this many values are kept exactly, in 2 bytes each; beyond it the histogram (about 6 kB) is small and fast
/// enough.
pub(super) const MAX_EXACT: usize = 256;

/// Latencies from 1 ms to 2 min in whole milliseconds, above about half a minute in steps of 4 ms. Sums exactly over
/// viewers, sources and nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct LatencyHistogram(Kept);

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    /// As [`code`] encodes them.
    Exact(Vec<u16>),
    Folded(Box<Histogram<u32>>),
}

/// The serialized form: a list of values while exact, pairs of value and count beyond.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Each(Vec<u32>),
    Counted { counts: Vec<(u32, u32)> },
}

impl From<LatencyHistogram> for Written {
    fn from(latencies: LatencyHistogram) -> Self {
        match latencies.0 {
            Kept::Exact(values) => Self::Each(values.into_iter().map(decode).collect()),
            Kept::Folded(_) => {
                let mut counts = Vec::new();
                latencies.each(|millis, count| counts.push((millis as u32, count as u32)));
                Self::Counted { counts }
            }
        }
    }
}

impl From<Written> for LatencyHistogram {
    fn from(written: Written) -> Self {
        let mut out = Self::default();
        let mut record = |millis: u32, count| out.record_many(millis.clamp(1, MAX_MILLIS), count);
        match written {
            Written::Each(values) => values.into_iter().for_each(|millis| record(millis, 1)),
            Written::Counted { counts } => counts.into_iter().for_each(|(millis, count)| record(millis, count)),
        }
        out
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(Kept::Exact(Vec::new()))
    }
}

impl LatencyHistogram {
    /// Adds one viewer's latency; below 1 ms counts as 1 ms, above two minutes as two minutes.
    pub fn record(&mut self, latency: Duration) {
        let millis = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
        self.record_many(millis.clamp(1, MAX_MILLIS), 1);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Kept::Exact(values), Kept::Exact(more)) if values.len() + more.len() <= MAX_EXACT => {
                values.reserve_exact(more.len());
                values.extend_from_slice(more);
            }
            _ => other.each(|millis, count| self.record_many(millis as u32, count as u32)),
        }
    }

    /// Replaces the content, in the same memory where it fits.
    pub fn renew(&mut self, newer: Self) {
        match (&mut self.0, newer.0) {
            (Kept::Exact(values), Kept::Exact(newer)) => {
                values.clear();
                values.reserve_exact(newer.len());
                values.extend_from_slice(&newer);
            }
            (kept, newer) => *kept = newer,
        }
    }

    /// Removes everything and frees the memory.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Number of latencies.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kept::Exact(values) => values.len() as u64,
            Kept::Folded(histogram) => histogram.len(),
        }
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latency in milliseconds that a share `quantile` (0..=1) of viewers does not exceed, by nearest rank; `None`
    /// when empty.
    #[must_use]
    pub fn quantile_millis(&self, quantile: f64) -> Option<u64> {
        match &self.0 {
            Kept::Exact(values) => {
                let mut room = [0; MAX_EXACT];
                let sorted = &mut room[..values.len()];
                sorted.copy_from_slice(values);
                let rank = (quantile.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
                let at = rank.saturating_sub(1).min(sorted.len().checked_sub(1)?);
                Some(u64::from(decode(*sorted.select_nth_unstable(at).1)))
            }
            Kept::Folded(histogram) => Some(histogram.value_at_quantile(quantile)),
        }
    }

    /// Number of latencies above `millis`; of a histogram, to its precision.
    #[must_use]
    pub fn count_over(&self, millis: u64) -> u64 {
        match &self.0 {
            Kept::Exact(values) => {
                let limit = code(u32::try_from(millis).unwrap_or(MAX_MILLIS).min(MAX_MILLIS));
                values.iter().filter(|value| **value > limit).count() as u64
            }
            Kept::Folded(histogram) => histogram.count_between(millis.saturating_add(1), u64::from(MAX_MILLIS)),
        }
    }

    /// The largest latency in milliseconds; `None` when empty.
    #[must_use]
    pub fn max_millis(&self) -> Option<u64> {
        match &self.0 {
            Kept::Exact(values) => values.iter().max().map(|value| u64::from(decode(*value))),
            Kept::Folded(histogram) => Some(histogram.max()),
        }
    }

    /// Calls `take` with each recorded value in milliseconds and its count.
    pub fn each(&self, mut take: impl FnMut(u64, u64)) {
        match &self.0 {
            Kept::Exact(values) => values.iter().for_each(|value| take(u64::from(decode(*value)), 1)),
            Kept::Folded(histogram) => histogram
                .iter_recorded()
                .for_each(|step| take(step.value_iterated_to(), step.count_since_last_iteration())),
        }
    }

    fn record_many(&mut self, millis: u32, count: u32) {
        match &mut self.0 {
            Kept::Exact(values) if values.len() + count as usize <= MAX_EXACT => {
                values.extend(std::iter::repeat_n(code(millis), count as usize));
            }
            Kept::Exact(values) => {
                let mut histogram = EMPTY.with(|empty| Box::new(empty.clone()));
                for value in values.drain(..) {
                    histogram.saturating_record(u64::from(decode(value)));
                }
                histogram.saturating_record_n(u64::from(millis), count);
                self.0 = Kept::Folded(histogram);
            }
            Kept::Folded(histogram) => histogram.saturating_record_n(u64::from(millis), count),
        }
    }
}

/// The encoding of milliseconds: whole ones up to [`FINE`], steps of 4 ms beyond. It preserves order.
const fn code(millis: u32) -> u16 {
    (if millis < FINE { millis } else { FINE + (millis - FINE) / 4 }) as u16
}

const fn decode(code: u16) -> u32 {
    let code = code as u32;
    if code < FINE { code } else { FINE + (code - FINE) * 4 }
}

const FINE: u32 = 1 << 15;
const MAX_MILLIS: u32 = 120_000;

thread_local! {
    /// Bounds within the crate's limits (low ≥ 1, high ≥ 2·low, digits ≤ 5), so that creation cannot fail.
    static EMPTY: Histogram<u32> =
        Histogram::new_with_bounds(1, u64::from(MAX_MILLIS), 2).expect("constant bounds are valid");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut latencies = LatencyHistogram::default();
        millis.into_iter().for_each(|millis| latencies.record(Duration::from_millis(millis)));
        latencies
    }

    #[test]
    fn three_viewers_have_an_exact_95th_percentile() {
        assert_eq!(of([3, 900, 4]).quantile_millis(0.95), Some(900));
        assert_eq!(of([3, 900, 4]).quantile_millis(0.5), Some(4));
        assert_eq!(of([]).quantile_millis(0.5), None);
        assert_eq!(of([]).max_millis(), None);
    }

    #[test]
    fn latencies_above_a_limit_are_counted() {
        assert_eq!((of([3, 200, 201, 900]).count_over(200), of([]).count_over(0)), (2, 0));
        assert_eq!(of((1..=1_000).map(|at| if at <= 900 { 50 } else { 400 })).count_over(200), 100);
    }

    #[test]
    fn extremes_are_kept_inside_the_bounds() {
        let latencies = of([0, 999_999_999]);
        assert_eq!((latencies.quantile_millis(0.0), latencies.max_millis()), (Some(1), Some(120_000)));
    }

    #[test]
    fn newer_latencies_replace_the_others() {
        let (mut kept, many) = (of([1, 2, 3]), of((0..600).map(|at| at + 1)));
        for newer in [of([9]), many.clone(), of([4, 5]), of([])] {
            kept.renew(newer.clone());
            assert_eq!(kept, newer);
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_reads_back(millis in 1..=MAX_MILLIS, other in 1..=MAX_MILLIS) {
            let read = decode(code(millis));
            let step = if millis < FINE { 1 } else { 4 };
            prop_assert!(millis - read < step);
            prop_assert_eq!(code(millis) > code(other), read > other);
            prop_assert_eq!(of([u64::from(millis)]).count_over(u64::from(other)), u64::from(read > other));
        }

        #[test]
        fn many_agree_with_exact_within_one_percent(millis in prop::collection::vec(1_u64..120_000, 257..600), q in 0.0..1.0_f64) {
            let folded = of(millis.iter().copied()).quantile_millis(q).expect("not empty") as f64;
            let mut sorted = millis;
            sorted.sort_unstable();
            let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1] as f64;
            prop_assert!((folded - exact).abs() <= exact * 0.011 + 1.0, "{folded} beside {exact}");
        }

        #[test]
        fn sums_do_not_depend_on_the_split(millis in prop::collection::vec(1_u64..120_000, 0..600), at in 0_usize..600) {
            let at = at.min(millis.len());
            let mut sum = of(millis[..at].iter().copied());
            sum.add(&of(millis[at..].iter().copied()));
            prop_assert_eq!(sum.len(), millis.len() as u64);
            let whole = of(millis).quantile_millis(0.95).unwrap_or(0) as f64;
            prop_assert!((sum.quantile_millis(0.95).unwrap_or(0) as f64 - whole).abs() <= whole * 0.011 + 1.0);
        }
    }
}
