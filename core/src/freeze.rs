//! The freeze rule of one viewer's video (W3C webrtc-stats `freezeCount`, as libwebrtc computes it). Decides from the
//! instants at which frames were shown how long the viewer watched and how much of it stood still; refuses to wait for
//! the frame that ends a freeze: an open gap counts as soon as it is long enough.

use std::time::Duration;

use crate::time::Timestamp;

/// Running totals of one viewer's playout. They never go backwards while `now` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayoutTotals {
    /// Time in playing or frozen state since the first frame: the denominator of the stutter ratio. Pauses are out.
    pub exposure: Duration,
    /// Time frozen: the whole gap of each freeze (W3C `totalFreezesDuration`), the open one included. At most `exposure`.
    pub frozen: Duration,
    /// Freezes begun (W3C `freezeCount`).
    pub freezes: u64,
    /// Frames shown.
    pub frames: u64,
    /// Times the stream was declared inactive and stayed so for over 5 s (W3C `pauseCount`), counted when it resumes.
    pub pauses: u64,
}

/// The book of one viewer's playout: the last 30 gaps between shown frames, and the totals.
///
/// ```
/// use liveqos_core::{freeze::Playout, time::Timestamp};
/// let mut playout = Playout::default();
/// for frame in 0..10 {
///     playout.frame(Timestamp::from_millis(40 * frame));
/// }
/// assert_eq!(playout.totals(Timestamp::from_millis(360 + 194)).freezes, 0);
/// assert_eq!(playout.totals(Timestamp::from_millis(360 + 200)).frozen.as_millis(), 200);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Playout {
    last: Option<Timestamp>,
    inactive: Option<Timestamp>,
    gaps: Ring,
    closed: PlayoutTotals,
}

impl Playout {
    /// A frame was shown at `at`. A frame older than the one before it (the clock was set back) ends no gap.
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

    /// The stream was declared inactive at `at` (muted, stopped, not sent): what follows until the next frame is a pause,
    /// neither watched nor frozen. A freeze that was open stays counted up to `at`.
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

    /// The totals as they stand at `now`, the open gap included: nothing of it is frozen until it is a freeze, then all.
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

    /// Whether `gap`, taken in as the newest, is a freeze: at least 5 gaps known, and `gap >= max(3 avg, avg + 150 ms)`.
    /// Compared as fractions, not with libwebrtc's whole milliseconds, so that a growing gap never ceases to be a freeze.
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

/// Gaps averaged, the judged one included.
const SAMPLES: usize = 30;

/// Gaps needed before any is judged.
const MIN_SAMPLES: u128 = 5;

/// A freeze is at least this much longer than the average gap.
const MARGIN: Duration = Duration::from_millis(150);

/// A declared inactivity longer than this is a pause (W3C `pauseCount`).
const PAUSE: Duration = Duration::from_secs(5);
