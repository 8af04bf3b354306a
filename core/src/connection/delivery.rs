//! Delivery latency and loss of each viewer that a media server's client list attributes, from socket dump to socket
//! dump, folded per session. Decides how much time a socket's backlog amounts to; without media rate or round-trip time
//! there is no latency.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::join::{Assignment, Candidate, Role, SessionIndex};
use super::loss::TcpLoss;
use super::summary::PathFold;
use super::tcp_info::TcpReading;
use crate::model::Timestamp;

/// The state of each socket between dumps, of at most [`MAX_TRACKED`] sockets.
#[derive(Debug, Default)]
pub struct PathTable {
    sockets: HashMap<u64, TrackedSocket>,
    dumps: u64,
    last: Option<Timestamp>,
    untracked: u64,
}

/// The folds of one dump, one for each session with a viewer in it.
pub type Folds = BTreeMap<SessionIndex, PathFold>;

impl PathTable {
    /// Folds one dump, made at `at`: each attributed viewer goes into its session's fold in `folds`, which is cleared
    /// first (its memory is kept). `egress` gives the bytes per second of media sent to one viewer of a session, where
    /// known.
    ///
    /// Delivery latency of a viewer = max(queued media time, waiting time) + RTT/2. Queued media time is
    /// `tcpi_notsent_bytes` / `egress`; `idiag_wqueue` would also contain what is in flight, which RTT/2 covers
    /// already. Waiting time is how long unacknowledged bytes have been there without any being acknowledged, as far as
    /// dumps prove it. What the server itself still holds for a full socket is not visible: the latency of such a
    /// viewer is a lower bound.
    pub fn step(
        &mut self,
        at: Timestamp,
        dump: &[TcpReading],
        egress: impl Fn(SessionIndex) -> Option<f64>,
        folds: &mut Folds,
    ) {
        folds.values_mut().for_each(PathFold::clear);
        let gap = self.last.map(|last| at.since(last));
        let started = gap.filter(|gap| *gap <= LONGEST_GAP).map(|gap| at - gap / 2);
        self.dumps += 1;
        for reading in dump {
            if !self.sockets.contains_key(&reading.identity) && self.sockets.len() >= MAX_TRACKED {
                self.untracked += 1;
                continue;
            }
            let socket = self.sockets.entry(reading.identity).or_insert_with(|| TrackedSocket::new(at, started));
            if socket.dump == self.dumps {
                continue;
            }
            let lost = socket.advance(at, reading, self.dumps);
            if let Some((session, Role::Viewer)) = socket.assigned {
                let fold = folds.entry(session).or_default();
                fold.count_segments(lost);
                socket.fold(at, reading, egress(session), fold);
            }
        }
        self.last = Some(at);
        self.sockets.retain(|_, socket| self.dumps - socket.dump < FORGET_AFTER_DUMPS);
        folds.retain(|_, fold| !fold.is_empty());
    }

    /// Fills `out` (cleared first) with what the join needs of each socket in `dump`. Sockets that [`PathTable::step`]
    /// has not seen are left out.
    pub fn candidates(&self, dump: &[TcpReading], out: &mut Vec<Candidate>) {
        out.clear();
        out.extend(dump.iter().filter_map(|reading| {
            let socket = self.sockets.get(&reading.identity)?;
            Some(Candidate {
                address: reading.peer.ip(),
                role: Role::of(reading),
                first_seen: socket.started,
                identity: reading.identity,
            })
        }));
    }

    /// Replaces all assignments by those of a new join; a socket that it does not name is unassigned.
    pub fn assign(&mut self, assignments: &[Assignment]) {
        self.sockets.values_mut().for_each(|socket| socket.assigned = None);
        for assignment in assignments {
            if let Some(socket) = self.sockets.get_mut(&assignment.identity) {
                socket.assigned = Some((assignment.session, assignment.role));
            }
        }
    }

    /// The newest round-trip time to the publisher of `session`, where its socket is joined and has one.
    #[must_use]
    pub fn publisher_rtt(&self, session: SessionIndex) -> Option<Duration> {
        let publishers = self.sockets.values().filter(|socket| socket.assigned == Some((session, Role::Publisher)));
        publishers.filter_map(|socket| socket.rtt).min()
    }

    /// How often a socket was skipped because [`MAX_TRACKED`] were remembered already; a running total.
    #[must_use]
    pub const fn untracked_total(&self) -> u64 {
        self.untracked
    }
}

/// The most sockets remembered at once, as many as one dump contains. Skipped ones are counted in
/// [`PathTable::untracked_total`].
pub(super) const MAX_TRACKED: usize = 200_000;

/// The start of a connection, in which the server sends its stored group of pictures at once: no measure of the path.
pub const JOIN_BURST: Duration = Duration::from_secs(2);

/// A socket without any acknowledgement for this long has no viewer: it is counted as gone and has no latency.
pub(super) const GONE_AFTER: Duration = Duration::from_mins(2);

/// After a longer gap between two dumps, the start of a socket that is new in the second is not known.
pub(super) const LONGEST_GAP: Duration = Duration::from_secs(2);

/// A socket is forgotten after this many dumps without it: the kernel can skip one while others come and go.
pub(super) const FORGET_AFTER_DUMPS: u64 = 4;

/// The state of one socket.
#[derive(Debug)]
struct TrackedSocket {
    appeared: Timestamp,
    /// Halfway between the last dump without it and the first dump with it; `None` when it may be older.
    started: Option<Timestamp>,
    /// The number of the last dump that contained it.
    dump: u64,
    assigned: Option<(SessionIndex, Role)>,
    bytes_acked: Option<u64>,
    /// The first dump since which bytes wait and none was acknowledged.
    waiting_since: Option<Timestamp>,
    loss: TcpLoss,
    rtt: Option<Duration>,
}

impl TrackedSocket {
    fn new(at: Timestamp, started: Option<Timestamp>) -> Self {
        Self {
            appeared: at,
            started,
            dump: 0,
            assigned: None,
            bytes_acked: None,
            waiting_since: None,
            loss: TcpLoss::default(),
            rtt: None,
        }
    }

    /// Advances to `reading`; returns the segments (sent, lost) since the last one, or `None` when the kernel does not
    /// report them.
    fn advance(&mut self, at: Timestamp, reading: &TcpReading, dump: u64) -> Option<(u32, u32)> {
        self.dump = dump;
        self.rtt = reading.rtt;
        let progressed = reading.bytes_acked.is_none() || reading.bytes_acked != self.bytes_acked;
        self.bytes_acked = reading.bytes_acked;
        if reading.wqueue_bytes == 0 {
            self.waiting_since = None;
        } else if progressed || self.waiting_since.is_none() {
            self.waiting_since = Some(at);
        }

        self.loss.advance(reading)
    }

    fn fold(&self, at: Timestamp, reading: &TcpReading, egress: Option<f64>, fold: &mut PathFold) {
        let waiting = self.waiting_since.map_or(Duration::ZERO, |since| at.since(since));
        if waiting > GONE_AFTER {
            fold.gone += 1;
            return;
        }
        fold.viewers += 1;
        fold.record_rtt(reading.rtt);
        fold.backlog_bytes = fold.backlog_bytes.saturating_add(u64::from(reading.notsent_bytes.unwrap_or_default()));
        fold.zero_window += u32::from(reading.send_window_bytes == Some(0));
        if at.since(self.appeared) < JOIN_BURST {
            fold.joining += 1;
            return;
        }
        match delivery_latency(reading, waiting, egress) {
            Some(latency) => fold.record(latency),
            None => fold.unmeasured += 1,
        }
    }
}

/// The delivery latency of one viewer; `None` without RTT or backlog, or when bytes wait at an unknown media rate.
fn delivery_latency(reading: &TcpReading, waiting: Duration, egress: Option<f64>) -> Option<Duration> {
    let one_way = reading.rtt? / 2;
    let queued = match reading.notsent_bytes? {
        0 => Duration::ZERO,
        bytes => {
            let rate = egress.filter(|rate| rate.is_finite() && *rate > 0.0)?;
            Duration::try_from_secs_f64(f64::from(bytes) / rate).unwrap_or(Duration::MAX)
        }
    };
    Some(queued.max(waiting).saturating_add(one_way))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASS: SessionIndex = SessionIndex(3);

    fn reading(identity: u64) -> TcpReading {
        let (local, peer) = ("10.0.0.1:1935".parse().unwrap(), "10.0.0.2:4000".parse().unwrap());
        TcpReading {
            rtt: Some(Duration::from_millis(20)),
            notsent_bytes: Some(0),
            bytes_acked: Some(100_000),
            bytes_received: Some(3_400),
            data_segments_sent: Some(100),
            retransmitted_segments: Some(0),
            dsack_segments: Some(0),
            ..TcpReading::bare(local, peer, identity)
        }
    }

    fn viewer(identity: u64) -> Assignment {
        Assignment { identity, session: CLASS, role: Role::Viewer }
    }

    fn rate(session: SessionIndex) -> Option<f64> {
        (session == CLASS).then_some(100_000.0)
    }

    /// A table that has seen `sockets` at 0 s, joined to the class, out of their join burst at 10 s.
    fn table(sockets: &[TcpReading]) -> (PathTable, Folds) {
        let (mut table, mut folds) = (PathTable::default(), Folds::new());
        table.step(Timestamp::from_secs(0), sockets, rate, &mut folds);
        table.assign(&sockets.iter().map(|socket| viewer(socket.identity)).collect::<Vec<_>>());
        table.step(Timestamp::from_secs(10), sockets, rate, &mut folds);
        (table, folds)
    }

    #[test]
    fn a_viewer_without_backlog_has_half_a_round_trip() {
        let (_, folds) = table(&[reading(1)]);
        let fold = &folds[&CLASS];
        assert_eq!((fold.viewers, fold.backlog_bytes, fold.latencies().len()), (1, 0, 1));
        assert_eq!(fold.latencies().max_millis(), Some(10));
    }

    #[test]
    fn a_backlog_becomes_time_only_where_the_rate_is_known() {
        let queued = TcpReading { notsent_bytes: Some(50_000), wqueue_bytes: 60_000, ..reading(1) };
        let progressed = TcpReading { bytes_acked: Some(200_000), ..queued };
        let (mut table, mut folds) = table(&[queued, reading(2)]);
        table.step(Timestamp::from_millis(10_250), &[progressed, reading(2)], rate, &mut folds);
        let fold = &folds[&CLASS];
        let (most, least) = (fold.latencies().max_millis(), fold.latencies().quantile_millis(0.0));
        assert_eq!((most.map(|millis| millis / 10), least), (Some(51), Some(10)));
        assert_eq!((fold.viewers, fold.backlog_bytes, fold.unmeasured), (2, 50_000, 0));
        table.step(Timestamp::from_millis(10_500), &[queued, reading(2)], |_| None, &mut folds);
        assert_eq!((folds[&CLASS].latencies().max_millis(), folds[&CLASS].unmeasured), (Some(10), 1));
        for nonsense in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            table.step(Timestamp::from_millis(10_750), &[queued], |_| Some(nonsense), &mut folds);
            assert_eq!((folds[&CLASS].latencies().len(), folds[&CLASS].unmeasured), (0, 1));
        }
        table.step(Timestamp::from_secs(11), &[TcpReading { rtt: None, ..reading(1) }], rate, &mut folds);
        assert_eq!((folds[&CLASS].latencies().len(), folds[&CLASS].unmeasured), (0, 1));
    }

    #[test]
    fn a_stalled_viewer_is_as_late_as_it_waits_and_then_gone() {
        let stalled = TcpReading { wqueue_bytes: 1, send_window_bytes: Some(0), ..reading(1) };
        let (mut table, mut folds) = (PathTable::default(), Folds::new());
        table.step(Timestamp::from_secs(0), &[reading(1)], rate, &mut folds);
        table.assign(&[viewer(1)]);
        for second in 10..=130 {
            table.step(Timestamp::from_secs(second), &[stalled], rate, &mut folds);
            let fold = &folds[&CLASS];
            let waiting = fold.latencies().max_millis();
            assert!(waiting.is_some_and(|millis| millis >= (second - 10) * 1000), "at {second} s");
            assert_eq!((fold.zero_window, fold.gone), (1, 0));
        }
        table.step(Timestamp::from_secs(131), &[stalled], rate, &mut folds);
        assert_eq!((folds[&CLASS].viewers, folds[&CLASS].gone, folds[&CLASS].latencies().len()), (0, 1, 0));
        let back = TcpReading { bytes_acked: Some(100_001), ..stalled };
        table.step(Timestamp::from_secs(132), &[back], rate, &mut folds);
        assert_eq!(
            (folds[&CLASS].viewers, folds[&CLASS].latencies().max_millis()),
            (1, Some(10)),
            "an acknowledgement ends the wait"
        );
    }

    #[test]
    fn the_join_burst_has_no_latency() {
        let burst = TcpReading { notsent_bytes: Some(500_000), wqueue_bytes: 500_000, ..reading(1) };
        let (mut table, mut folds) = (PathTable::default(), Folds::new());
        table.step(Timestamp::from_millis(0), &[burst], rate, &mut folds);
        table.assign(&[viewer(1)]);
        table.step(Timestamp::from_millis(1_999), &[burst], rate, &mut folds);
        assert_eq!((folds[&CLASS].viewers, folds[&CLASS].joining, folds[&CLASS].latencies().len()), (1, 1, 0));
        table.step(Timestamp::from_millis(2_000), &[burst], rate, &mut folds);
        assert_eq!((folds[&CLASS].joining, folds[&CLASS].latencies().len()), (0, 1));
    }

    #[test]
    fn needless_retransmissions_are_not_loss() {
        let at = |second, sent, retransmitted, dsacked| {
            let counters = (Some(sent), Some(retransmitted), Some(dsacked));
            let mut reading = reading(1);
            (reading.data_segments_sent, reading.retransmitted_segments, reading.dsack_segments) = counters;
            (Timestamp::from_secs(second), [reading])
        };
        let (mut table, mut folds) = table(&[reading(1)]);
        let mut segments_at = |(at, dump): (Timestamp, [TcpReading; 1])| {
            table.step(at, &dump, rate, &mut folds);
            (folds[&CLASS].segments_sent, folds[&CLASS].segments_lost)
        };
        assert_eq!(segments_at(at(11, 300, 3, 1)), (Some(200), Some(2)));
        assert_eq!(
            segments_at(at(12, 400, 3, 2)),
            (Some(100), Some(0)),
            "a late duplicate report reduces nothing counted"
        );
        assert_eq!(segments_at(at(13, 500, 5, 2)), (Some(100), Some(1)), "but the next loss");
        assert_eq!(segments_at(at(14, 10, 0, 0)), (None, None), "the counters restarted");
        assert_eq!(segments_at(at(15, 20, 15, 0)), (Some(10), Some(10)), "no more lost than sent");
    }

    #[test]
    fn only_joined_viewers_of_the_dump_count_and_each_once() {
        let (mut table, mut folds) = table(&[reading(1), reading(2), reading(3)]);
        table.assign(&[viewer(1), Assignment { role: Role::Publisher, ..viewer(2) }, viewer(99)]);
        table.step(Timestamp::from_secs(11), &[reading(1), reading(1), reading(2), reading(3)], rate, &mut folds);
        assert_eq!((folds.len(), folds[&CLASS].viewers), (1, 1));
        table.step(Timestamp::from_secs(12), &[reading(3)], rate, &mut folds);
        assert!(folds.is_empty(), "a session whose viewers left has no fold");
    }

    #[test]
    fn vanished_sockets_are_forgotten_but_not_at_once() {
        let (mut table, mut folds) = table(&[reading(1), reading(2)]);
        for dump in 0..FORGET_AFTER_DUMPS - 1 {
            table.step(Timestamp::from_secs(11 + dump), &[reading(1)], rate, &mut folds);
            assert_eq!(table.sockets.len(), 2, "dump {dump}");
        }
        table.step(Timestamp::from_secs(20), &[reading(1)], rate, &mut folds);
        assert_eq!(table.sockets.len(), 1);
    }

    #[test]
    fn a_start_is_known_only_between_close_dumps() {
        let (mut table, mut folds, mut found) = (PathTable::default(), Folds::new(), Vec::new());
        let mut first_seen = |millis, dump: &[TcpReading], id| {
            table.step(Timestamp::from_millis(millis), dump, rate, &mut folds);
            table.candidates(dump, &mut found);
            found.iter().find(|candidate| candidate.identity == id).unwrap().first_seen
        };
        assert_eq!(first_seen(0, &[reading(1)], 1), None, "there at the first dump");
        assert_eq!(first_seen(250, &[reading(1), reading(2)], 2), Some(Timestamp::from_millis(125)));
        assert_eq!(first_seen(500, &[reading(1), reading(2)], 2), Some(Timestamp::from_millis(125)));
        assert_eq!(first_seen(2_501, &[reading(3)], 3), None, "no dump for more than two seconds");
        assert_eq!(found[0].role, Some(Role::Viewer));
    }

    #[test]
    fn the_table_is_bounded() {
        let dump: Vec<TcpReading> = (0..MAX_TRACKED as u64 + 7).map(reading).collect();
        let (mut table, mut folds) = (PathTable::default(), Folds::new());
        table.step(Timestamp::from_secs(1), &dump, rate, &mut folds);
        assert_eq!((table.sockets.len(), table.untracked_total()), (MAX_TRACKED, 7));
    }

    proptest! {
        #[test]
        fn all_losses_of_a_connection_lie_between_net_and_gross(steps in proptest::collection::vec((0_u32..50, 0_u32..5, 0_u32..5), 1..60)) {
            let (mut table, mut folds) = table(&[reading(1)]);
            let mut now = reading(1);
            let (mut sent, mut lost, mut gross, mut net) = (0, 0, 0, 0_i64);
            for (index, (fresh, again, needless)) in steps.into_iter().enumerate() {
                now.data_segments_sent = now.data_segments_sent.map(|total| total + fresh + again);
                now.retransmitted_segments = now.retransmitted_segments.map(|total| total + again);
                now.dsack_segments = now.dsack_segments.map(|total| total + needless);
                table.step(Timestamp::from_secs(11 + index as u64), &[now], rate, &mut folds);
                sent += folds[&CLASS].segments_sent.unwrap();
                lost += folds[&CLASS].segments_lost.unwrap();
                gross += u64::from(again);
                net += i64::from(again) - i64::from(needless);
            }
            prop_assert_eq!(sent, u64::from(now.data_segments_sent.unwrap()) - 100);
            prop_assert!(lost <= gross && lost.cast_signed() >= net, "{net} <= {lost} <= {gross}");
        }

        #[test]
        fn any_dump_counts_each_viewer_once(
            dumps in proptest::collection::vec(proptest::collection::vec((0_u64..6, any::<[Option<u32>; 5]>(), any::<[Option<u64>; 2]>()), 0..12), 1..8),
            at in any::<[u32; 8]>(), egress in any::<Option<f64>>(),
        ) {
            let (mut table, mut folds) = table(&[reading(0), reading(1), reading(2)]);
            for (dump, at) in dumps.iter().zip(at) {
                let dump: Vec<TcpReading> = dump.iter().map(|&(identity, small, large)| TcpReading {
                    rtt: large[1].map(Duration::from_micros),
                    notsent_bytes: small[0],
                    wqueue_bytes: small[0].unwrap_or(9),
                    data_segments_sent: small[1],
                    retransmitted_segments: small[2],
                    dsack_segments: small[3],
                    send_window_bytes: small[4],
                    bytes_acked: large[0],
                    ..reading(identity)
                }).collect();
                table.step(Timestamp::from_millis(u64::from(at)), &dump, |_| egress, &mut folds);
                let joined: std::collections::BTreeSet<u64> = dump.iter().map(|r| r.identity).filter(|id| *id < 3).collect();
                let segments_at = folds.get(&CLASS).map_or(0, |fold| {
                    assert!(fold.segments_lost <= fold.segments_sent);
                    assert_eq!(fold.latencies().len() + u64::from(fold.joining + fold.unmeasured), u64::from(fold.viewers));
                    fold.viewers + fold.gone
                });
                // A socket that was absent too long comes back unassigned.
                prop_assert!(segments_at as usize <= joined.len());
            }
        }
    }
}
