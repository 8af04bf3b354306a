//! What is remembered of one viewer that reports. Decides whether a report is new, how much time it may speak for, and
//! what its round trips say of delivery; refuses reports that come again or claim more time than passed.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use liveqos_core::viewer::Membership;

use super::beacon_report::MAX_SPAN;

/// A viewer; it costs [`size_of::<Viewer>()`](size_of) bytes and its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer {
    heard_at: Timestamp,
    /// Time of viewing that it may still report, in milliseconds.
    credit: u32,
    /// Highest number of a report, and which of the 32 up to it came.
    newest: u32,
    seen: u32,
    floor: Floor,
    latency: Option<(Latency, u32)>,
    /// Its groups in its class.
    pub(crate) groups: Membership,
}

/// Milliseconds.
type Latency = u32;

/// The shortest round trips of this and the last half minute, in microseconds: what is above them is a queue.
#[derive(Clone, Copy, Debug)]
struct Floor {
    shortest: [u32; 2],
    half_minute: u32,
}

/// Why a viewer's report is not folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It came already, or so many newer ones did that nobody can tell.
    Repeated,
    /// More time than passed.
    TooMuch,
}

impl Viewer {
    /// A viewer heard of for the first time. What it may have missed to report before is believed once.
    pub(crate) fn new(at: Timestamp) -> Self {
        let floor = Floor { shortest: [u32::MAX; 2], half_minute: 0 };
        Self {
            heard_at: at,
            credit: millis(MAX_SPAN),
            newest: 0,
            seen: 0,
            floor,
            latency: None,
            groups: Membership::UNKNOWN,
        }
    }

    /// Takes a report's number and the time it speaks for.
    pub(crate) fn take(&mut self, sequence: u32, watched: Duration, at: Timestamp) -> Result<(), Refused> {
        let seen = self.marked(sequence).ok_or(Refused::Repeated)?;
        let passed = at.since(self.heard_at);
        let credit = self.credit.saturating_add(millis(passed)).min(millis(MAX_SPAN));
        let left = credit.checked_sub(millis(watched.max(LEAST_COST))).ok_or(Refused::TooMuch)?;
        self.newest = self.newest.max(sequence);
        (self.seen, self.credit, self.heard_at) = (seen, left, self.heard_at.max(at));
        Ok(())
    }

    /// The marks with that of `sequence`, where it is new.
    fn marked(&self, sequence: u32) -> Option<u32> {
        if sequence > self.newest || self.seen == 0 {
            let ahead = sequence - self.newest;
            return Some(self.seen.checked_shl(ahead).unwrap_or(0) | 1);
        }
        let mark = 1_u32.checked_shl(self.newest - sequence)?;
        (self.seen & mark == 0).then_some(self.seen | mark)
    }

    /// Takes its newest round trip: half the shortest one, and all that is above it, since the queue lies on the way to
    /// the viewer.
    pub(crate) fn round_trip(&mut self, round_trip: Duration, at: Timestamp) {
        let micros = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX - 1);
        let shortest = self.floor.take(micros, at);
        self.delivered_after(round_trip.saturating_sub(Duration::from_micros(u64::from(shortest / 2))), at);
    }

    /// Takes its delivery latency.
    pub(crate) fn delivered_after(&mut self, latency: Duration, at: Timestamp) {
        self.latency = Some((millis(latency), seconds(at)));
    }

    /// Its delivery latency, where heard of lately.
    pub(crate) fn latency(&self, now: Timestamp) -> Option<Duration> {
        let (latency, at) = self.latency?;
        let fresh = u64::from(seconds(now).saturating_sub(at)) <= PRESENT.as_secs();
        fresh.then(|| Duration::from_millis(u64::from(latency)))
    }

    /// Whether it counts as a viewer.
    pub(crate) fn is_present(&self, now: Timestamp) -> bool {
        now.since(self.heard_at) <= PRESENT
    }

    /// Whether its reports may still come again.
    pub(crate) fn is_remembered(&self, now: Timestamp) -> bool {
        now.since(self.heard_at) <= REMEMBERED
    }
}

impl Floor {
    fn take(&mut self, micros: u32, at: Timestamp) -> u32 {
        let half_minute = seconds(at) / 30;
        match half_minute.saturating_sub(self.half_minute) {
            0 => {}
            1 => self.shortest = [u32::MAX, self.shortest[0]],
            _ => self.shortest = [u32::MAX; 2],
        }
        self.half_minute = half_minute;
        self.shortest[0] = self.shortest[0].min(micros);
        self.shortest[0].min(self.shortest[1])
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / 1_000).unwrap_or(u32::MAX)
}

/// A viewer that says nothing for so long is gone.
pub(crate) const PRESENT: Duration = Duration::from_secs(12);
/// For so long it is known which reports of it came: longer than a player tries to send one.
pub(crate) const REMEMBERED: Duration = Duration::from_mins(2);
/// What a report costs of the time that a viewer may report, so that its sums are bounded too.
const LEAST_COST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_000_000);
    const FIVE: Duration = Duration::from_secs(5);

    #[test]
    fn a_report_counts_once_in_whatever_order_they_come() {
        let mut viewer = Viewer::new(AT);
        let mut take = |sequence| viewer.take(sequence, Duration::ZERO, AT);
        for sequence in [2, 0, 1, 7, 3] {
            assert_eq!(take(sequence), Ok(()), "{sequence}");
            assert_eq!(take(sequence), Err(Refused::Repeated), "{sequence}");
        }
        assert_eq!(take(500), Ok(()));
        assert_eq!(take(7), Err(Refused::Repeated), "too old to tell");
        assert_eq!(take(469), Ok(()));
    }

    #[test]
    fn no_more_time_than_passed_but_for_what_was_missed_once() {
        let mut viewer = Viewer::new(AT);
        let mut take = |sequence, watched, at| viewer.take(sequence, Duration::from_secs(watched), at);
        assert_eq!(take(0, 60, AT), Ok(()));
        assert_eq!(take(1, 5, AT), Err(Refused::TooMuch));
        assert_eq!(take(1, 5, AT + FIVE), Ok(()), "what was refused may come later");
        assert_eq!(take(2, 6, AT + FIVE + FIVE), Err(Refused::TooMuch));
        assert_eq!(take(2, 60, AT + Duration::from_hours(2)), Ok(()));
        assert_eq!(take(3, 1, AT + Duration::from_hours(1)), Err(Refused::TooMuch), "a clock set back gives nothing");
    }

    #[test]
    fn a_queue_shows_whole_and_an_idle_path_by_half_its_round_trip() {
        let mut viewer = Viewer::new(AT);
        let mut latency = |millis, at| {
            viewer.round_trip(Duration::from_millis(millis), at);
            viewer.latency(at).map(|latency| latency.as_millis())
        };
        assert_eq!(latency(40, AT), Some(20));
        assert_eq!(latency(440, AT + FIVE), Some(420));
        assert_eq!(latency(440, AT + Duration::from_secs(36)), Some(420));
        assert_eq!(latency(440, AT + Duration::from_secs(90)), Some(220), "a longer way, not a queue");
    }

    #[test]
    fn an_old_latency_is_not_told() {
        let mut viewer = Viewer::new(AT);
        assert_eq!(viewer.latency(AT), None);
        viewer.delivered_after(Duration::from_millis(80), AT);
        assert!(viewer.latency(AT + PRESENT).is_some() && viewer.latency(AT + PRESENT + FIVE).is_none());
    }

    #[test]
    fn a_viewer_takes_little_room() {
        assert!(size_of::<(u64, Viewer)>() <= 56, "{}", size_of::<(u64, Viewer)>());
    }

    proptest! {
        #[test]
        fn within_the_last_32_each_number_counts_exactly_once(order in prop::collection::vec(0_u32..30, 1..200), first in 0..u32::MAX - 30) {
            let mut viewer = Viewer::new(AT);
            let mut known = BTreeSet::new();
            for offset in order {
                let taken = viewer.take(first + offset, Duration::ZERO, AT).is_ok();
                prop_assert_eq!(taken, known.insert(offset));
            }
        }
    }
}
