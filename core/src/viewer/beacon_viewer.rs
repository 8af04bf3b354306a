//! The state of one viewer that sends beacons. Decides whether a report is new, how much exposure it may claim, and
//! which delivery latency its round trips imply; refuses repeated reports and those that claim more time than passed.

use std::time::Duration;

use super::beacon_report::MAX_EXPOSURE;
use super::group_table::Membership;
use crate::model::Timestamp;

/// A viewer, in at most 48 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BeaconViewer {
    reported_at: Timestamp,
    /// Exposure that it may still report, in milliseconds.
    credit: u32,
    /// Highest sequence number received.
    newest: u32,
    /// Which of the 32 numbers up to `newest` were received, as bits.
    received: u32,
    shortest: ShortestRoundTrip,
    /// Delivery latency in milliseconds, and when it was reported in seconds.
    latency: Option<(u32, u32)>,
    /// Its groups in its class.
    pub groups: Membership,
}

/// The shortest round trips of this and the last half minute, in microseconds. A longer round trip shows queueing.
#[derive(Clone, Copy, Debug)]
struct ShortestRoundTrip {
    micros: [u32; 2],
    half_minute: u32,
}

/// Why a viewer's report is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was received before, or it is too old to know.
    Repeated,
    /// It claims more time than passed.
    TooMuch,
}

impl BeaconViewer {
    /// A viewer with its first report. It may claim [`MAX_EXPOSURE`] once for earlier reports that did not arrive.
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            reported_at: at,
            credit: millis(MAX_EXPOSURE),
            newest: 0,
            received: 0,
            shortest: ShortestRoundTrip { micros: [u32::MAX; 2], half_minute: 0 },
            latency: None,
            groups: Membership::UNKNOWN,
        }
    }

    /// Accepts the report of this sequence number and exposure.
    ///
    /// # Errors
    /// Why it must not be counted; the viewer's state stays as it was.
    pub(super) fn accept(&mut self, sequence: u32, exposure: Duration, at: Timestamp) -> Result<(), Refused> {
        let received = self.received_with(sequence).ok_or(Refused::Repeated)?;
        let passed = at.since(self.reported_at);
        let credit = self.credit.saturating_add(millis(passed)).min(millis(MAX_EXPOSURE));
        let left = credit.checked_sub(millis(exposure.max(LEAST_COST))).ok_or(Refused::TooMuch)?;
        self.newest = self.newest.max(sequence);
        (self.received, self.credit, self.reported_at) = (received, left, self.reported_at.max(at));
        Ok(())
    }

    /// The bits of received reports with that of `sequence`, where it is new.
    fn received_with(&self, sequence: u32) -> Option<u32> {
        if sequence > self.newest || self.received == 0 {
            let ahead = sequence - self.newest;
            return Some(self.received.checked_shl(ahead).unwrap_or(0) | 1);
        }
        let bit = 1_u32.checked_shl(self.newest - sequence)?;
        (self.received & bit == 0).then_some(self.received | bit)
    }

    /// Derives the delivery latency from a round trip: half of the shortest one, and all of what exceeds the shortest,
    /// because queueing happens on the way to the viewer.
    pub(super) fn set_round_trip(&mut self, round_trip: Duration, at: Timestamp) {
        let micros = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX - 1);
        let shortest = self.shortest.update(micros, at);
        self.set_latency(round_trip.saturating_sub(Duration::from_micros(u64::from(shortest / 2))), at);
    }

    /// Sets the delivery latency.
    pub(super) fn set_latency(&mut self, latency: Duration, at: Timestamp) {
        self.latency = Some((millis(latency), seconds(at)));
    }

    /// The delivery latency, where one was reported within [`PRESENT`].
    pub(super) fn latency(&self, now: Timestamp) -> Option<Duration> {
        let (latency, at) = self.latency?;
        let fresh = u64::from(seconds(now).saturating_sub(at)) <= PRESENT.as_secs();
        fresh.then(|| Duration::from_millis(u64::from(latency)))
    }

    /// Whether it counts as a viewer.
    pub(super) fn is_present(&self, now: Timestamp) -> bool {
        now.since(self.reported_at) <= PRESENT
    }

    /// Whether its reports may still be repeated.
    pub(super) fn is_remembered(&self, now: Timestamp) -> bool {
        now.since(self.reported_at) <= REMEMBERED
    }
}

impl ShortestRoundTrip {
    /// The shortest round trip, this one included, in microseconds.
    fn update(&mut self, micros: u32, at: Timestamp) -> u32 {
        let half_minute = seconds(at) / 30;
        match half_minute.saturating_sub(self.half_minute) {
            0 => {}
            1 => self.micros = [u32::MAX, self.micros[0]],
            _ => self.micros = [u32::MAX; 2],
        }
        self.half_minute = half_minute;
        self.micros[0] = self.micros[0].min(micros);
        self.micros[0].min(self.micros[1])
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.millis() / 1_000).unwrap_or(u32::MAX)
}

/// Time without a report after which a viewer has left.
pub(super) const PRESENT: Duration = Duration::from_secs(12);
/// How long received sequence numbers are remembered: longer than a player retries.
pub(super) const REMEMBERED: Duration = Duration::from_mins(2);
/// Least exposure that a report uses up, so that the number of reports, and with it their sums, are bounded.
const LEAST_COST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_000_000);
    const FIVE: Duration = Duration::from_secs(5);

    #[test]
    fn a_report_counts_once_in_any_order() {
        let mut viewer = BeaconViewer::new(AT);
        let mut take = |sequence| viewer.accept(sequence, Duration::ZERO, AT);
        for sequence in [2, 0, 1, 7, 3] {
            assert_eq!(take(sequence), Ok(()), "{sequence}");
            assert_eq!(take(sequence), Err(Refused::Repeated), "{sequence}");
        }
        assert_eq!(take(500), Ok(()));
        assert_eq!(take(7), Err(Refused::Repeated), "too old to know");
        assert_eq!(take(469), Ok(()));
    }

    #[test]
    fn exposure_is_bounded_by_the_time_that_passed() {
        let mut viewer = BeaconViewer::new(AT);
        let mut take = |sequence, exposure, at| viewer.accept(sequence, Duration::from_secs(exposure), at);
        assert_eq!(take(0, 60, AT), Ok(()));
        assert_eq!(take(1, 5, AT), Err(Refused::TooMuch));
        assert_eq!(take(1, 5, AT + FIVE), Ok(()), "a refused report may be accepted later");
        assert_eq!(take(2, 6, AT + FIVE + FIVE), Err(Refused::TooMuch));
        assert_eq!(take(2, 60, AT + Duration::from_hours(2)), Ok(()));
        assert_eq!(take(3, 1, AT + Duration::from_hours(1)), Err(Refused::TooMuch), "a clock set back gives nothing");
    }

    #[test]
    fn an_idle_path_counts_half_its_round_trip_and_a_queue_all_of_it() {
        let mut viewer = BeaconViewer::new(AT);
        let mut latency = |millis, at| {
            viewer.set_round_trip(Duration::from_millis(millis), at);
            viewer.latency(at).map(|latency| latency.as_millis())
        };
        assert_eq!(latency(40, AT), Some(20));
        assert_eq!(latency(440, AT + FIVE), Some(420));
        assert_eq!(latency(440, AT + Duration::from_secs(36)), Some(420));
        assert_eq!(latency(440, AT + Duration::from_secs(90)), Some(220), "a longer path, not a queue");
    }

    #[test]
    fn an_old_latency_is_not_used() {
        let mut viewer = BeaconViewer::new(AT);
        assert_eq!(viewer.latency(AT), None);
        viewer.set_latency(Duration::from_millis(80), AT);
        assert!(viewer.latency(AT + PRESENT).is_some() && viewer.latency(AT + PRESENT + FIVE).is_none());
    }

    #[test]
    fn a_viewer_takes_little_memory() {
        assert!(size_of::<(u64, BeaconViewer)>() <= 56, "{}", size_of::<(u64, BeaconViewer)>());
    }

    proptest! {
        #[test]
        fn within_the_last_32_each_number_counts_exactly_once(order in prop::collection::vec(0_u32..30, 1..200), first in 0..u32::MAX - 30) {
            let mut viewer = BeaconViewer::new(AT);
            let mut known = BTreeSet::new();
            for offset in order {
                let taken = viewer.accept(first + offset, Duration::ZERO, AT).is_ok();
                prop_assert_eq!(taken, known.insert(offset));
            }
        }
    }
}
