//! When the next round of a source begins. Decides spread, back-off and how much of a server's time may be taken;
//! refuses to read a clock, so every instant is an argument.

use std::time::Duration;

use liveqos_core::base::fnv1a;
use tokio::time::Instant;

/// A fixed grid of starts, own to each source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    first: Instant,
    interval: Duration,
}

/// How the last round went, as the pace sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastRound {
    /// When it began.
    pub started: Instant,
    /// When it was over.
    pub ended: Instant,
    /// For how long the server was busy with it.
    pub asked: Duration,
    /// Failed rounds in a row, this one included.
    pub failures: u32,
}

impl Schedule {
    /// The pace of the source `name` that is asked every `interval`, beginning within one interval from `now`.
    pub(crate) fn new(name: &str, interval: Duration, now: Instant) -> Self {
        Self { first: now + phase(name, interval), interval }
    }

    /// When the first round begins.
    pub(crate) const fn first(&self) -> Instant {
        self.first
    }

    /// When the round after `last` begins: on the grid, starts that were missed left out. A good round keeps away for
    /// [`DUTY`] times the time it took; a failed one for a doubled interval each time, up to [`MAX_BACKOFF`].
    pub(crate) fn next(&self, last: LastRound) -> Instant {
        let earliest = if last.failures == 0 {
            last.ended + last.asked.saturating_mul(DUTY).min(LONGEST_PAUSE)
        } else {
            last.ended.max(last.started + self.backoff(last.failures))
        };
        // A start is never the one that was just made, even where the round took no time at all.
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

/// Where in its interval a source is asked: the same on every start, different by name (FNV-1a).
fn phase(name: &str, interval: Duration) -> Duration {
    let hash = fnv1a(name.bytes());
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    // FNV's low bits vary least on short names; a multiplication takes the high ones.
    Duration::from_nanos(((u128::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(nanos)) >> 64) as u64)
}

/// A server is left alone for so many times as long as it took to answer: asking takes at most 2 % of its time.
pub(crate) const DUTY: u32 = 50;
/// Failed rounds double the interval up to so many times.
pub(crate) const MAX_BACKOFF_FACTOR: u32 = 4;
/// Longest pause after failed rounds, where the interval itself is not longer.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(20);
/// Longest pause after a good round, where the interval itself is not longer.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// Seconds from the start of a round at the grid's first point, that took so many milliseconds, to the next.
    fn gap(millis: u64, failures: u32) -> f64 {
        let pace = Schedule::new("srs", INTERVAL, Instant::now());
        let started = pace.first();
        let asked = Duration::from_millis(millis);
        let next = pace.next(LastRound { started, ended: started + asked, asked, failures });
        (next - started).as_secs_f64()
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole seconds are exact")]
    fn a_slow_answer_stretches_the_interval() {
        assert_eq!(gap(0, 0), 5.0);
        assert_eq!(gap(90, 0), 5.0);
        assert_eq!(gap(100, 0), 10.0, "0.1 s, then 5 s of rest, ends after the next start");
        assert_eq!(gap(1_000, 0), 55.0);
    }

    #[test]
    fn failures_back_off_and_never_stop() {
        let gaps: Vec<f64> = [1, 2, 3, 4, 40, u32::MAX].into_iter().map(|failures| gap(1_000, failures)).collect();
        assert_eq!(gaps, [5.0, 10.0, 20.0, 20.0, 20.0, 20.0]);
        let seldom = Schedule { first: Instant::now(), interval: Duration::from_mins(1) };
        assert_eq!(seldom.backoff(9), Duration::from_mins(1));
    }

    #[test]
    fn missed_starts_are_left_out() {
        let pace = Schedule::new("srs", INTERVAL, Instant::now());
        let started = pace.first();
        let (ended, asked) = (started + Duration::from_secs(13), Duration::ZERO);
        let next = pace.next(LastRound { started, ended, asked, failures: 0 });
        assert_eq!(next - started, Duration::from_secs(15));
    }

    #[test]
    fn sources_are_spread() {
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
        fn a_good_round_takes_at_most_two_percent(interval_millis in 250_u64..60_000, asked_millis in 0_u64..30_000, late in 0_u64..1_000_000) {
            let interval = Duration::from_millis(interval_millis);
            let pace = Schedule::new("x", interval, Instant::now());
            let asked = Duration::from_millis(asked_millis);
            let started = pace.first() + Duration::from_millis(late);
            let next = pace.next(LastRound { started, ended: started + asked, asked, failures: 0 });
            prop_assert!(asked * DUTY <= next - started);
            prop_assert!(next > started);
            prop_assert_eq!((next - pace.first()).as_nanos() % interval.as_nanos(), 0);
        }
    }
}
