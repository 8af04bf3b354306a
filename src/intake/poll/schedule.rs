//! When the next round of a source begins: spreads sources over the interval, backs off after failures, and limits the
//! share of a server's time. Reads no clock: every instant is an argument.

use std::time::Duration;

use liveqos_core::base::fnv1a;
use tokio::time::Instant;

/// A source's fixed grid of starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    first: Instant,
    interval: Duration,
}

/// The result of the last round, as the schedule needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastRound {
    /// When the round began.
    pub started: Instant,
    /// When the round ended.
    pub ended: Instant,
    /// How long the server was busy with it.
    pub busy: Duration,
    /// Failed rounds in a row, including this one.
    pub failures: u32,
}

impl Schedule {
    /// The schedule of the source `name`, which begins within one `interval` from `now`.
    pub(crate) fn new(name: &str, interval: Duration, now: Instant) -> Self {
        Self { first: now + phase(name, interval), interval }
    }

    /// When the first round begins.
    pub(crate) const fn first(&self) -> Instant {
        self.first
    }

    /// When the round after `last` begins. It lies on the grid; missed starts are skipped. After a good round the
    /// source is left alone for [`DUTY`] times as long as the server was busy; after each failed round in a row for
    /// twice as long, up to [`MAX_BACKOFF`].
    pub(crate) fn next(&self, last: LastRound) -> Instant {
        let earliest = if last.failures == 0 {
            last.ended + last.busy.saturating_mul(DUTY).min(LONGEST_PAUSE)
        } else {
            last.ended.max(last.started + self.backoff(last.failures))
        };
        // The next start is never the same one again, even if the round took no time.
        let earliest = earliest.max(last.started + Duration::from_nanos(1));
        let passed = earliest.saturating_duration_since(self.first).as_nanos();
        let steps = passed.div_ceil(self.interval.as_nanos().max(1));
        let ahead = u64::try_from(steps.saturating_mul(self.interval.as_nanos())).unwrap_or(u64::MAX);
        self.first + Duration::from_nanos(ahead)
    }

    fn backoff(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(MAX_BACKOFF_FACTOR);
        let longer = self.interval.saturating_mul(factor.clamp(1, MAX_BACKOFF_FACTOR));
        longer.min(MAX_BACKOFF).max(self.interval)
    }
}

/// The offset of a source within its interval: the same at every start, different for each name (FNV-1a).
fn phase(name: &str, interval: Duration) -> Duration {
    let hash = fnv1a(name.bytes());
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    // The low bits of FNV vary least for short names; the multiplication uses the high ones.
    Duration::from_nanos(((u128::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(nanos)) >> 64) as u64)
}

/// After a response the server is left alone for this many times as long as it took: polling uses at most 2 % of its
/// time.
pub(crate) const DUTY: u32 = 50;
/// Failed rounds multiply the interval by at most this factor.
pub(crate) const MAX_BACKOFF_FACTOR: u32 = 4;
/// Longest pause after a failed round, unless the interval itself is longer.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(20);
/// Longest pause after a good round, unless the interval itself is longer.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// Seconds from the start of a round of this many milliseconds, at the grid's first point, to the next start.
    fn gap(millis: u64, failures: u32) -> f64 {
        let schedule = Schedule::new("srs", INTERVAL, Instant::now());
        let started = schedule.first();
        let busy = Duration::from_millis(millis);
        let next = schedule.next(LastRound { started, ended: started + busy, busy, failures });
        (next - started).as_secs_f64()
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole seconds are exact")]
    fn a_slow_answer_stretches_the_interval() {
        assert_eq!(gap(0, 0), 5.0);
        assert_eq!(gap(90, 0), 5.0);
        assert_eq!(gap(100, 0), 10.0, "0.1 s, then 5 s of pause, ends after the next start");
        assert_eq!(gap(1_000, 0), 55.0);
    }

    #[test]
    fn failures_back_off_and_never_stop() {
        let gaps: Vec<f64> = [1, 2, 3, 4, 40, u32::MAX].into_iter().map(|failures| gap(1_000, failures)).collect();
        assert_eq!(gaps, [5.0, 10.0, 20.0, 20.0, 20.0, 20.0]);
        let hourly = Schedule { first: Instant::now(), interval: Duration::from_mins(1) };
        assert_eq!(hourly.backoff(9), Duration::from_mins(1));
    }

    #[test]
    fn missed_starts_are_skipped() {
        let schedule = Schedule::new("srs", INTERVAL, Instant::now());
        let started = schedule.first();
        let (ended, busy) = (started + Duration::from_secs(13), Duration::ZERO);
        let next = schedule.next(LastRound { started, ended, busy, failures: 0 });
        assert_eq!(next - started, Duration::from_secs(15));
    }

    #[test]
    fn sources_are_spread_over_the_interval() {
        let mut quarters = [0; 4];
        for number in 0..100 {
            let phase = phase(&format!("srs-{number}"), INTERVAL);
            assert!(phase < INTERVAL);
            quarters[(phase.as_millis() / 1_250) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| *count >= 10), "{quarters:?}");
    }

    proptest! {
        #[test]
        fn a_good_round_takes_at_most_two_percent(interval_millis in 250_u64..60_000, busy_millis in 0_u64..30_000, late in 0_u64..1_000_000) {
            let interval = Duration::from_millis(interval_millis);
            let schedule = Schedule::new("x", interval, Instant::now());
            let busy = Duration::from_millis(busy_millis);
            let started = schedule.first() + Duration::from_millis(late);
            let next = schedule.next(LastRound { started, ended: started + busy, busy, failures: 0 });
            prop_assert!(busy * DUTY <= next - started);
            prop_assert!(next > started);
            prop_assert_eq!((next - schedule.first()).as_nanos() % interval.as_nanos(), 0);
        }
    }
}
