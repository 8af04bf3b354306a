//! The sockets of one session's viewers, summed up. What nobody measured is absent, never zero.

use std::time::Duration;

use crate::base::LatencyHistogram;
use crate::model::Rtt;

/// The viewers' sockets of one session in one dump or, after [`PathFold::merge`], in a stretch of dumps.
/// Counters and latencies add up over dumps; the levels (`viewers` to `backlog_bytes`) are those of the last dump.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathFold {
    /// Segments with data sent, retransmissions included; `None` when no socket reported them.
    pub segments_sent: Option<u64>,
    /// Segments lost, at most `segments_sent`; `None` when no socket reported them.
    pub segments_lost: Option<u64>,
    /// Viewers, without the gone ones.
    pub viewers: u32,
    /// Viewers still in their join burst, without a latency.
    pub joining: u32,
    /// Viewers past the join burst whose latency is unknown, for want of round-trip time or media rate.
    pub unmeasured: u32,
    /// Viewers that offer no receive window: their player does not read.
    pub zero_window: u32,
    /// Sockets without an acknowledgement for so long that nobody watches.
    pub gone: u32,
    /// Bytes written for the viewers and not yet sent even once.
    pub backlog_bytes: u64,
    latencies: LatencyHistogram,
    rtts: Vec<Duration>,
}

impl PathFold {
    /// Round-trip times of the last dump's viewers; `None` when the kernel reported none.
    #[must_use]
    pub fn rtt(&self) -> Option<Rtt> {
        Rtt::of(&mut self.rtts.clone())
    }

    /// Records one socket's round-trip time, where there is one.
    pub(crate) fn record_rtt(&mut self, rtt: Option<Duration>) {
        self.rtts.extend(rtt);
    }

    /// Delivery latencies, one for each viewer and dump; empty when none was measured.
    #[must_use]
    pub const fn latencies(&self) -> &LatencyHistogram {
        &self.latencies
    }

    /// Adds the fold of a later dump of the same session. Where a later dump has no fold for the session, merge
    /// `PathFold::default()`: it has no viewer then.
    pub fn merge(&mut self, later: &Self) {
        add(&mut self.segments_sent, later.segments_sent);
        add(&mut self.segments_lost, later.segments_lost);
        self.viewers = later.viewers;
        self.joining = later.joining;
        self.unmeasured = later.unmeasured;
        self.zero_window = later.zero_window;
        self.gone = later.gone;
        self.backlog_bytes = later.backlog_bytes;
        self.latencies.add(&later.latencies);
        self.rtts.clone_from(&later.rtts);
    }

    /// Clears the fold and keeps its memory.
    pub fn clear(&mut self) {
        (self.segments_sent, self.segments_lost) = (None, None);
        (self.viewers, self.joining, self.unmeasured) = (0, 0, 0);
        (self.zero_window, self.gone, self.backlog_bytes) = (0, 0, 0);
        self.latencies.clear();
        self.rtts.clear();
    }

    /// Whether the session has no socket.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.viewers == 0 && self.gone == 0
    }

    /// Adds one viewer's delivery latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.latencies.record(latency);
    }

    /// Adds one socket's segments (sent, lost), where it reports them.
    pub(crate) fn count_segments(&mut self, segments: Option<(u32, u32)>) {
        add(&mut self.segments_sent, segments.map(|(sent, _)| u64::from(sent)));
        add(&mut self.segments_lost, segments.map(|(_, lost)| u64::from(lost)));
    }
}

fn add(total: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *total = Some(total.unwrap_or_default().saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold(latencies: &[u64], segments: Option<(u32, u32)>, viewers: u32) -> PathFold {
        let mut fold = PathFold { viewers, ..PathFold::default() };
        for millis in latencies {
            fold.record(Duration::from_millis(*millis));
        }
        fold.count_segments(segments);
        fold
    }

    #[test]
    fn counters_add_and_levels_are_the_last() {
        let mut window = fold(&[10, 300], Some((100, 1)), 2);
        window.merge(&fold(&[20], None, 5));
        assert_eq!((window.segments_sent, window.segments_lost, window.viewers), (Some(100), Some(1), 5));
        assert_eq!((window.latencies().len(), window.latencies().quantile_millis(0.0)), (3, Some(10)));
        window.merge(&PathFold::default());
        assert!(window.is_empty(), "no viewer is left, though counters stay");
        assert_eq!(window.segments_sent, Some(100));
        window.clear();
        assert_eq!(window, PathFold::default());
    }

    #[test]
    fn what_nobody_reported_is_absent() {
        let window = fold(&[], None, 1);
        assert_eq!((window.segments_sent, window.segments_lost, window.latencies().len()), (None, None, 0));
    }

    proptest! {
        #[test]
        fn windows_sum_to_the_whole(values in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..50), cut in 0_usize..50) {
            let cut = cut.min(values.len());
            let part = |values: &[(u64, u32)]| {
                let mut part = PathFold::default();
                for &(millis, segments) in values {
                    part.record(Duration::from_millis(millis));
                    part.count_segments(Some((segments, segments / 2)));
                }
                part
            };
            let mut sum = part(&values[..cut]);
            sum.merge(&part(&values[cut..]));
            prop_assert_eq!(sum, part(&values));
        }
    }
}
