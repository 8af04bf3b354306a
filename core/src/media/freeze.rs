//! The freeze rule of one viewer's video (W3C webrtc-stats `freezeCount`, as libwebrtc computes it): from the times at
//! which frames were shown, how long the viewer watched and how much of it was frozen. An open gap counts as soon as it
//! is long enough, without waiting for the frame that ends it.
//!
//! Only the demonstration (`liveqos demo`) and a browser test use it today: real players report their own freezes.

use std::time::Duration;

use crate::model::Timestamp;

/// Running totals of one viewer's playout. They never go backwards while `now` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayoutTotals {
    /// Time in playing or frozen state since the first frame, without pauses: the denominator of the stutter ratio.
    pub exposure: Duration,
    /// Time frozen: the whole gap of each freeze (W3C `totalFreezesDuration`), the open one included. At most
    /// `exposure`.
    pub frozen: Duration,
    /// Freezes begun (W3C `freezeCount`).
    pub freezes: u64,
    /// Frames shown.
    pub frames: u64,
    /// Times the stream was declared inactive and stayed so for over 5 s (W3C `pauseCount`), counted when it resumes.
    pub pauses: u64,
}

/// The playout of one viewer: the last 30 gaps between shown frames, and the totals.
///
/// ```
/// use liveqos_core::{media::Playout, model::Timestamp};
/// let mut playout = Playout::default();
/// for frame in 0..=40 {
///     playout.frame(Timestamp::from_millis(40 * frame));
/// }
/// assert_eq!(playout.totals(Timestamp::from_millis(1_600 + 195)).freezes, 0);
/// assert_eq!(playout.totals(Timestamp::from_millis(1_600 + 200)).frozen.as_millis(), 200);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Playout {
    last: Option<Timestamp>,
    inactive: Option<Timestamp>,
    gaps: Ring,
    closed: PlayoutTotals,
}

impl Playout {
    /// Records a frame shown at `at`. A frame older than the one before it (the clock was set back) ends no gap.
    pub fn frame(&mut self, at: Timestamp) {
        let Some(last) = self.last else {
            self.closed.frames = 1;
            self.last = Some(at);
            self.inactive = None;
            return;
        };
        self.closed.frames = self.closed.frames.saturating_add(1);
        if let Some(since) = self.inactive.take() {
            self.closed.pauses += u64::from(at.since(since) > PAUSE);
            self.last = Some(last.max(at));
            return;
        }
        if at < last {
            return;
        }
        let gap = at.since(last);
        self.close(gap);
        self.gaps.push(gap);
        self.last = Some(at);
    }

    /// Records that the stream was declared inactive at `at` (muted, stopped, not sent): until the next frame it is
    /// paused, neither watched nor frozen. An open freeze stays counted up to `at`.
    pub fn pause(&mut self, at: Timestamp) {
        if self.inactive.is_some() {
            return;
        }
        let Some(last) = self.last else { return };
        let at = at.max(last);
        self.close(at.since(last));
        self.last = Some(at);
        self.inactive = Some(at);
    }

    /// The totals at `now`, the open gap included: none of it is frozen until it is a freeze, then all of it.
    #[must_use]
    pub fn totals(&self, now: Timestamp) -> PlayoutTotals {
        let mut totals = self.closed;
        if let (Some(last), None) = (self.last, self.inactive) {
            let gap = now.since(last);
            totals.exposure = totals.exposure.saturating_add(gap);
            if self.gaps.is_freeze(gap) {
                totals.frozen = totals.frozen.saturating_add(gap);
                totals.freezes = totals.freezes.saturating_add(1);
            }
        }
        totals
    }

    fn close(&mut self, gap: Duration) {
        self.closed.exposure = self.closed.exposure.saturating_add(gap);
        if self.gaps.is_freeze(gap) {
            self.closed.frozen = self.closed.frozen.saturating_add(gap);
            self.closed.freezes = self.closed.freezes.saturating_add(1);
        }
    }
}

/// The newest gaps, as nanoseconds.
#[derive(Clone, Debug, Default)]
struct Ring {
    gaps: [u64; SAMPLES],
    len: usize,
    next: usize,
}

impl Ring {
    fn push(&mut self, gap: Duration) {
        self.gaps[self.next] = nanos(gap);
        self.next = (self.next + 1) % SAMPLES;
        self.len = (self.len + 1).min(SAMPLES);
    }

    /// Whether `gap`, as the newest one, is a freeze: at least 5 gaps known, and `gap >= max(3 avg, avg + 150 ms)`.
    /// Compared as fractions, not in libwebrtc's whole milliseconds, so that a growing gap never ceases to be a freeze.
    fn is_freeze(&self, gap: Duration) -> bool {
        let oldest = if self.len == SAMPLES { self.gaps[self.next] } else { 0 };
        let count = (self.len + 1).min(SAMPLES) as u128;
        let gap = u128::from(nanos(gap));
        let sum = self.gaps.iter().map(|&gap| u128::from(gap)).sum::<u128>() - u128::from(oldest) + gap;
        count >= MIN_SAMPLES && count * gap >= 3 * sum && count * gap >= sum + count * MARGIN.as_nanos()
    }
}

fn nanos(gap: Duration) -> u64 {
    u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX)
}

/// Gaps averaged, including the one under test.
const SAMPLES: usize = 30;

/// Gaps needed before any is tested.
const MIN_SAMPLES: u128 = 5;

/// A freeze is at least this much longer than the average gap.
const MARGIN: Duration = Duration::from_millis(150);

/// A longer declared inactivity is a pause (W3C `pauseCount`).
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(5_000_000 + millis)
    }

    /// Frames at a steady interval; returns the playout and the time of the last frame.
    fn steady(interval_millis: u64, frames: u64) -> (Playout, u64) {
        let mut playout = Playout::default();
        for i in 0..frames {
            playout.frame(at(i * interval_millis));
        }
        (playout, (frames - 1) * interval_millis)
    }

    /// libwebrtc's whole-millisecond mean gives the same or 1 ms less.
    #[test]
    fn thresholds_of_the_rule_at_steady_rates() {
        for (interval, least) in [(33, 189), (40, 196), (67, 223), (100, 323), (200, 645)] {
            let (playout, last) = steady(interval, 40);
            let freezes = |gap: u64| playout.totals(at(last + gap)).freezes;
            assert_eq!((freezes(least - 1), freezes(least)), (0, 1), "{interval} ms");
        }
    }

    #[test]
    fn an_open_freeze_counts_in_full_and_its_end_adds_nothing() {
        let (mut playout, last) = steady(40, 40);
        let before = playout.totals(at(last + 190));
        assert_eq!((before.frozen, before.exposure), (Duration::ZERO, Duration::from_millis(last + 190)));
        let open = playout.totals(at(last + 3_000));
        assert_eq!((open.frozen, open.freezes), (Duration::from_secs(3), 1));
        playout.frame(at(last + 3_000));
        assert_eq!(playout.totals(at(last + 3_000)), PlayoutTotals { frames: 41, ..open });
    }

    #[test]
    fn no_gap_is_a_freeze_before_the_fifth() {
        let (playout, last) = steady(40, 4);
        assert_eq!(playout.totals(at(last + 60_000)).freezes, 0);
        let (playout, last) = steady(40, 5);
        assert_eq!(playout.totals(at(last + 60_000)).freezes, 1);
    }

    #[test]
    fn a_long_gap_is_a_freeze_unless_declared_a_pause() {
        let (mut playout, last) = steady(40, 40);
        let mut declared = playout.clone();
        playout.frame(at(last + 6_000));
        assert_eq!(playout.totals(at(last + 6_000)).frozen, Duration::from_secs(6));
        declared.pause(at(last + 100));
        let paused = declared.totals(at(last + 5_999));
        assert_eq!((paused.frozen, paused.exposure), (Duration::ZERO, Duration::from_millis(last + 100)));
        declared.frame(at(last + 6_000));
        declared.frame(at(last + 6_040));
        let totals = declared.totals(at(last + 6_040));
        assert_eq!((totals.pauses, totals.freezes, totals.frames), (1, 0, 42));
        assert_eq!(totals.exposure, Duration::from_millis(last + 140));
    }

    #[test]
    fn a_short_inactivity_is_neither_freeze_nor_pause_and_a_freeze_before_it_stays() {
        let (mut playout, last) = steady(40, 40);
        playout.pause(at(last + 1_000));
        playout.pause(at(last + 1_500));
        playout.frame(at(last + 3_000));
        let totals = playout.totals(at(last + 3_000));
        assert_eq!((totals.pauses, totals.freezes, totals.frozen), (0, 1, Duration::from_secs(1)));
    }

    #[test]
    fn before_the_first_frame_nothing_counts() {
        let mut playout = Playout::default();
        playout.pause(at(0));
        assert_eq!(playout.totals(at(9_000)), PlayoutTotals::default());
        playout.frame(at(9_000));
        assert_eq!(playout.totals(at(9_010)).exposure, Duration::from_millis(10));
    }

    #[test]
    fn a_clock_set_back_makes_no_freeze_and_no_negative_time() {
        let (mut playout, last) = steady(40, 40);
        playout.frame(at(last - 1_000));
        playout.frame(at(last + 40));
        let totals = playout.totals(at(last + 40));
        assert_eq!((totals.freezes, totals.frames, totals.exposure), (0, 42, Duration::from_millis(last + 40)));
    }

    /// The rule applied literally to all gaps at once: frozen time and freezes up to the last of `times`, a cut or a
    /// frame.
    fn oracle(times: &[u64]) -> (u64, u64) {
        let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
        let (mut frozen, mut freezes) = (0, 0);
        for (i, &gap) in gaps.iter().enumerate() {
            let window = &gaps[(i + 1).saturating_sub(30)..=i];
            let (count, sum) = (window.len() as u64, window.iter().sum::<u64>());
            if count >= 5 && gap * count >= 3 * sum && gap * count >= sum + 150 * count {
                frozen += gap;
                freezes += 1;
            }
        }
        (frozen, freezes)
    }

    fn times() -> impl Strategy<Value = Vec<u64>> {
        let gap = prop_oneof![8 => 20_u64..60, 2 => 60_u64..400, 1 => 400_u64..9_000];
        prop::collection::vec(gap, 1..120).prop_map(|gaps| {
            let mut now = 0;
            gaps.into_iter()
                .map(|gap| {
                    now += gap;
                    now
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn totals_are_the_rule_applied_literally(times in times(), open in 0_u64..2_000) {
            let mut playout = Playout::default();
            for &time in &times {
                playout.frame(at(time));
            }
            let now = times.last().unwrap() + open;
            let totals = playout.totals(at(now));
            let mut cut = times.clone();
            cut.push(now);
            let actual = (totals.frozen.as_millis() as u64, totals.freezes);
            prop_assert_eq!(actual, oracle(&cut));
            prop_assert_eq!(totals.exposure, Duration::from_millis(now - times[0]));
            prop_assert_eq!(totals.frames, times.len() as u64);
        }

        #[test]
        fn cut_anywhere_the_parts_are_never_negative_and_sum_to_the_whole(
            times in times(), every in 1_u64..700, pause in prop::option::of(0_usize..120)
        ) {
            let mut playout = Playout::default();
            let mut parts = PlayoutTotals::default();
            let mut before = PlayoutTotals::default();
            let mut read = |playout: &Playout, now: u64| {
                let totals = playout.totals(at(now));
                parts.exposure += totals.exposure.checked_sub(before.exposure).expect("exposure went back");
                parts.frozen += totals.frozen.checked_sub(before.frozen).expect("frozen went back");
                parts.freezes += totals.freezes.checked_sub(before.freezes).expect("freezes went back");
                assert!(totals.frozen <= totals.exposure);
                before = totals;
            };
            let mut cut = 0;
            for (i, &time) in times.iter().enumerate() {
                while cut < time {
                    read(&playout, cut);
                    cut += every;
                }
                playout.frame(at(time));
                if pause == Some(i) {
                    playout.pause(at(time + 1));
                    cut = cut.max(time + 1);
                }
            }
            let end = cut.max(*times.last().unwrap()) + every;
            read(&playout, end);
            let whole = playout.totals(at(end));
            prop_assert_eq!((parts.exposure, parts.frozen, parts.freezes), (whole.exposure, whole.frozen, whole.freezes));
        }
    }
}
