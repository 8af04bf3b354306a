//! Running totals as deltas and rates. Decides when two totals may be subtracted (same base, not decreasing) and over
//! which span a rate is honest for a server that updates its totals in steps. Gives no rate across a reset or a gap, or
//! from fewer than two readings.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Timestamp, Total};

/// Most readings kept: a minute of one a second, with some room.
pub(super) const MAX_POINTS: usize = 64;

/// One counter of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    last: Option<Total>,
    sum: u64,
    taken: u64,
    /// Ascending; the newest was read at `newest`, at the total `sum`.
    points: VecDeque<Point>,
    newest: Timestamp,
    /// From the oldest to the newest reading.
    span_micros: u64,
    last_reading: Option<Timestamp>,
    widest_gap: Duration,
}

/// A reading as its difference to the one before, kept small since every class has three counters. A larger difference
/// takes several points.
#[derive(Clone, Copy, Debug)]
struct Point {
    elapsed_micros: u32,
    more: u32,
}

impl Counter {
    /// Takes a reading of the server's total. `step` is how often the server updates it (zero: always current); a
    /// repeated stepped total is not a new point.
    pub(super) fn observe(&mut self, at: Timestamp, total: Total, step: Duration) {
        if self.last_reading.is_some_and(|last_reading| at <= last_reading) {
            return;
        }
        if let Some(delta) = self.last.and_then(|last| delta(last, total)) {
            let before = self.sum;
            self.sum = self.sum.saturating_add(delta);
            if delta > 0 || step.is_zero() {
                self.push(at, self.sum - before);
            }
            if let Some(last_reading) = self.last_reading {
                self.widest_gap = (self.widest_gap * 7 / 8).max(at.since(last_reading));
            }
        } else {
            self.begin(at);
        }
        self.last_reading = Some(at);
        self.last = Some(total);
        let kept = if step.is_zero() { SMOOTH_KEPT + self.widest_gap * 2 } else { KEPT };
        // One reading from before the span stays: a rate begins at it.
        let kept = kept.as_micros() as u64;
        let since = at.since(self.newest).as_micros() as u64;
        while let Some(second) = self.points.get(1) {
            let left = self.span_micros - u64::from(second.elapsed_micros);
            if self.points.len() <= MAX_POINTS && since + left <= kept {
                break;
            }
            self.span_micros = left;
            self.points.pop_front();
        }
    }

    /// Drops all readings but this one.
    fn begin(&mut self, at: Timestamp) {
        self.points.clear();
        self.points.push_back(Point { elapsed_micros: 0, more: 0 });
        (self.newest, self.span_micros) = (micros(at), 0);
    }

    /// Keeps a reading at which the total had grown by `more`.
    fn push(&mut self, at: Timestamp, more: u64) {
        let whole = u64::from(u32::MAX);
        let now = micros(at);
        let elapsed = u32::try_from(now.since(self.newest).as_micros());
        let (Ok(mut elapsed_micros), true) = (elapsed, more <= whole * MOST_PARTS) else {
            // No reading for more than an hour, or more than any link carries: no rate across it.
            return self.begin(at);
        };
        self.newest = now;
        self.span_micros += u64::from(elapsed_micros);
        let mut left = more;
        loop {
            let part = left.min(whole);
            if self.points.len() == self.points.capacity() {
                self.points.reserve_exact(ROOM);
            }
            self.points.push_back(Point { elapsed_micros, more: part as u32 });
            (left, elapsed_micros) = (left - part, 0);
            if left == 0 {
                return;
            }
        }
    }

    /// The readings from the newest back: when, and the sum.
    fn readings(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        let mut next = (self.newest, self.sum);
        self.points.iter().rev().map(move |point| {
            let (at, sum) = next;
            next = (at - Duration::from_micros(u64::from(point.elapsed_micros)), sum - u64::from(point.more));
            (at, sum)
        })
    }

    /// What was counted since the last call. Never negative; all deltas add up to the total.
    pub(super) fn take_delta(&mut self) -> u64 {
        let delta = self.sum - self.taken;
        self.taken = self.sum;
        delta
    }

    #[cfg(test)]
    const fn sum(&self) -> u64 {
        self.sum
    }

    /// Units per second up to `now`, over about `span`. For a stepped total over at least four steps, with its elapsed
    /// time rounded to whole steps where it is read often enough to distinguish them. `None` before two readings,
    /// across a reset, or when the last reading is older than `span` plus two gaps.
    #[must_use]
    pub(super) fn rate(&self, now: Timestamp, span: Duration, step: Duration) -> Option<f64> {
        let last_reading = self.last_reading?;
        if now.since(last_reading) > (span + self.widest_gap * 2).max(step * 2) {
            return None;
        }
        if step.is_zero() { self.smooth_rate(now, span) } else { self.stepped_rate(last_reading, span, step) }
    }

    fn smooth_rate(&self, now: Timestamp, span: Duration) -> Option<f64> {
        let (end, last) = self.readings().next()?;
        let from = now - span;
        let mut begin = (end, last);
        for reading in self.readings() {
            begin = reading;
            if reading.0 <= from {
                break;
            }
        }
        per_second(last - begin.1, end.since(begin.0))
    }

    fn stepped_rate(&self, last_reading: Timestamp, span: Duration, step: Duration) -> Option<f64> {
        let (end, last) = self.readings().next()?;
        if last_reading.since(end) > step * 2 + self.widest_gap {
            return (self.points.len() > 1).then_some(0.0);
        }
        let readable = self.widest_gap * 2 < step;
        let wanted = if readable { span.max(step * 4) } else { span.max(self.widest_gap * 8) };
        let from = end - wanted;
        // The first point of a base was read at an unknown phase of the server's step: it is no change.
        let changes = self.readings().take(self.points.len() - 1);
        let (start, first) = changes.take_while(|(at, _)| *at >= from).last()?;
        let elapsed = end.since(start);
        if !readable {
            return (elapsed >= step * 2).then(|| per_second(last - first, elapsed)).flatten();
        }
        let steps = (elapsed.as_secs_f64() / step.as_secs_f64()).round();
        (steps >= 1.0).then(|| (last - first) as f64 / (steps * step.as_secs_f64()))
    }
}

fn delta(last: Total, now: Total) -> Option<u64> {
    if last.base == now.base { now.value.checked_sub(last.value) } else { None }
}

fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_nanos(at.nanos() / 1_000 * 1_000)
}

fn per_second(units: u64, elapsed: Duration) -> Option<f64> {
    (elapsed >= SHORTEST).then(|| units as f64 / elapsed.as_secs_f64())
}

/// Older readings of stepped totals are dropped.
const KEPT: Duration = Duration::from_mins(1);
/// Readings of current totals need to reach back no further than this, twice the grid, plus missed polls.
const SMOOTH_KEPT: Duration = Duration::from_secs(10);
/// Rates over less than this are noise.
const SHORTEST: Duration = Duration::from_secs(1);
/// Most points of one reading: 68 GB between two readings.
const MOST_PARTS: u64 = 16;
/// Capacity grows by this many readings.
const ROOM: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_000) + Duration::from_millis(millis)
    }

    fn total(base: u64, value: u64) -> Total {
        Total { base, value }
    }

    const FIVE: Duration = Duration::from_secs(5);

    #[test]
    fn a_reset_opens_a_new_base_and_loses_only_the_unknown() {
        let mut counter = Counter::default();
        for (second, base, value) in [(0, 1, 100), (1, 1, 150), (2, 1, 20), (3, 1, 30), (4, 2, 500), (5, 2, 501)] {
            counter.observe(at(second * 1_000), total(base, value), Duration::ZERO);
        }
        assert_eq!(counter.sum(), 50 + 10 + 1);
        assert_eq!(counter.rate(at(5_000), FIVE, Duration::ZERO), Some(1.0), "only the newest base counts");
    }

    #[test]
    fn a_stepped_counter_gives_its_true_rate() {
        // A server that updates every 3 s, read every second with jitter: 200 units a second.
        let mut counter = Counter::default();
        for reading in 0..30_u64 {
            let millis = reading * 1_000 + (reading * 37) % 90;
            counter.observe(at(millis), total(1, (millis + 700) / 3_000 * 600), Duration::from_secs(3));
            if reading >= 9 {
                let rate = counter.rate(at(millis), FIVE, Duration::from_secs(3)).expect("read for 9 s");
                assert!((rate - 200.0).abs() < 1e-9, "{rate} at {millis} ms");
            }
        }
    }

    #[test]
    fn an_idle_stepped_counter_has_rate_zero_and_a_silent_one_none() {
        let mut counter = Counter::default();
        let step = Duration::from_secs(3);
        for second in 0..30_u64 {
            counter.observe(at(second * 1_000), total(1, second.min(12) / 3 * 600), step);
        }
        assert_eq!(counter.rate(at(29_000), FIVE, step), Some(0.0));
        assert_eq!(counter.rate(at(60_000), FIVE, step), None);
    }

    #[test]
    fn a_reading_of_many_gigabytes_is_kept_exactly() {
        let mut counter = Counter::default();
        for second in 0..8 {
            counter.observe(at(second * 1_000), total(1, second * 10_000_000_001), Duration::ZERO);
        }
        assert_eq!(counter.rate(at(7_000), FIVE, Duration::ZERO), Some(10_000_000_001.0));
        counter.observe(at(8_000), total(1, u64::MAX), Duration::ZERO);
        assert_eq!(counter.rate(at(8_000), FIVE, Duration::ZERO), None, "no link carries that");
        assert_eq!(counter.sum(), u64::MAX);
    }

    #[test]
    fn one_reading_gives_no_rate() {
        let mut counter = Counter::default();
        counter.observe(at(0), total(1, 7), Duration::ZERO);
        assert_eq!(counter.rate(at(100), FIVE, Duration::ZERO), None);
        counter.observe(at(0), total(1, 9), Duration::ZERO);
        assert_eq!(counter.sum(), 0, "a reading that is not newer is ignored");
    }

    proptest! {
        #[test]
        fn deltas_sum_to_the_whole(values in prop::collection::vec((0_u64..3, 0_u64..u64::MAX), 1..80), takes in prop::collection::vec(any::<bool>(), 80)) {
            let mut counter = Counter::default();
            let mut taken = 0_u64;
            for (index, (base, value)) in values.into_iter().enumerate() {
                counter.observe(at(index as u64 * 500), total(base, value), Duration::ZERO);
                if takes[index] {
                    taken = taken.saturating_add(counter.take_delta());
                }
                if let Some(rate) = counter.rate(at(index as u64 * 500), FIVE, Duration::ZERO) {
                    prop_assert!(rate >= 0.0);
                }
            }
            taken = taken.saturating_add(counter.take_delta());
            prop_assert_eq!(taken, counter.sum());
        }
    }
}
