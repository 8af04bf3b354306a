//! Delivery latency and loss of each viewer of an HTTP server, from socket dump to socket dump, for sockets that the
//! access log attributes to a class. Decides how long a response has been in flight beyond its playout budget. Sockets
//! that no line attributes count for their listener only.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::attribution::{Attribution, AttributionTable, ServedResponse, VALIDITY};
use super::delivery::{FORGET_AFTER_DUMPS, Folds, GONE_AFTER, JOIN_BURST, MAX_TRACKED};
use super::join::SessionIndex;
use super::loss::TcpLoss;
use super::tcp_info::TcpReading;
use crate::base::Hashed;
use crate::model::Timestamp;

/// The history of each socket on the server's listeners, of at most [`MAX_TRACKED`] sockets.
#[derive(Debug, Default)]
pub struct ResponseDelayTable {
    histories: HashMap<u64, SocketHistory, Hashed>,
    listeners: BTreeMap<u16, Listener>,
    viewers: Vec<(SessionIndex, u64)>,
    dumps: u64,
    last: Option<Timestamp>,
    untracked: u64,
}

/// The connections of one listener in the newest dump, attributed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Connections attributed to a class.
    pub known: u64,
    /// Connections that no line attributes: before their first response, idle, or serving something else.
    pub unknown: u64,
    /// Bytes written and not yet sent even once.
    pub backlog_bytes: u64,
    /// Segments with data sent since the previous dump.
    pub segments_sent: u64,
    /// Segments retransmitted and not proven needless since the previous dump.
    pub segments_lost: u64,
    /// Round-trip times of its connections.
    pub rtts: Vec<Duration>,
}

impl ResponseDelayTable {
    /// Folds one dump, made at `at`: each attributed socket goes into its class's fold in `folds`, which is cleared
    /// first.
    ///
    /// Delivery latency of a viewer = time in flight beyond the response's playout budget, plus RTT/2. A logged
    /// response is in flight from when its media was available for sending (by the log, until it was written) to the
    /// dump that finds it acknowledged. A response that is not logged yet is in flight for as long as dumps saw bytes
    /// wait. Both are lower bounds, short by up to one dump interval. While responses follow each other without a
    /// pause, the previous one's lag is the least. A viewer with an empty backlog has all it requested: its latency is
    /// half the round-trip time.
    pub fn step(&mut self, at: Timestamp, dump: &[TcpReading], attributions: &mut AttributionTable, folds: &mut Folds) {
        folds.clear();
        self.listeners.values_mut().for_each(Listener::clear);
        self.viewers.clear();
        self.dumps += 1;
        for reading in dump {
            if !self.histories.contains_key(&reading.identity) && self.histories.len() >= MAX_TRACKED {
                self.untracked += 1;
                continue;
            }
            // A line belongs to this socket if it is younger than the last dump without it; for a socket of the first
            // dump, if it is younger than that dump.
            let since = self.last.unwrap_or(at);
            let history = self.histories.entry(reading.identity).or_insert_with(|| SocketHistory::new(at, since));
            if history.dump == self.dumps {
                continue;
            }
            history.dump = self.dumps;
            let segments = history.loss.advance(reading);
            let listener = self.listeners.entry(reading.local.port()).or_default();
            listener.record(reading, segments);
            let attribution = attributions.find(reading.peer, reading.local.port(), at, Some(history.since));
            let Some((class, viewer)) = history.fold(at, reading, attribution) else {
                listener.unknown += 1;
                continue;
            };
            listener.known += 1;
            let fold = folds.entry(class).or_default();
            // Segments since the previous dump belong to one class only if the connection already carried that class
            // then.
            fold.count_segments(segments.filter(|_| history.class == Some(class)));
            history.class = Some(class);
            match viewer {
                ViewerState::Gone => fold.gone += 1,
                ViewerState::Present { viewer, latency } => {
                    self.viewers.push((class, viewer));
                    fold.backlog_bytes += u64::from(reading.notsent_bytes.unwrap_or_default());
                    fold.zero_window += u32::from(reading.send_window_bytes == Some(0));
                    fold.record_rtt(reading.rtt);
                    match latency {
                        Latency::Joining => fold.joining += 1,
                        Latency::Unmeasured => fold.unmeasured += 1,
                        Latency::Of(latency) => fold.record(latency),
                    }
                }
            }
        }
        self.last = Some(at);
        self.histories.retain(|_, history| self.dumps - history.dump < FORGET_AFTER_DUMPS);
        self.count_viewers(folds);
    }

    /// A player opens several connections, so viewers are counted by their identity in the log, not by socket.
    fn count_viewers(&mut self, folds: &mut Folds) {
        self.viewers.sort_unstable();
        self.viewers.dedup();
        for (class, _) in &self.viewers {
            if let Some(fold) = folds.get_mut(class) {
                fold.viewers += 1;
            }
        }
    }

    /// Each listener's connections in the newest dump.
    #[must_use]
    pub const fn listeners(&self) -> &BTreeMap<u16, Listener> {
        &self.listeners
    }

    /// Forgets the listeners of other ports.
    pub fn keep_listeners(&mut self, ports: &[u16]) {
        self.listeners.retain(|port, _| ports.contains(port));
    }

    /// How often a socket was skipped because [`MAX_TRACKED`] were remembered already; a running total.
    #[must_use]
    pub const fn untracked_total(&self) -> u64 {
        self.untracked
    }
}

impl Listener {
    fn clear(&mut self) {
        let mut rtts = std::mem::take(&mut self.rtts);
        rtts.clear();
        *self = Self { rtts, ..Self::default() };
    }

    fn record(&mut self, reading: &TcpReading, segments: Option<(u32, u32)>) {
        let (sent, lost) = segments.unwrap_or_default();
        self.segments_sent += u64::from(sent);
        self.segments_lost += u64::from(lost);
        self.backlog_bytes += u64::from(reading.notsent_bytes.unwrap_or_default());
        self.rtts.extend(reading.rtt);
    }
}

/// The viewer of an attributed socket.
enum ViewerState {
    Present { viewer: u64, latency: Latency },
    Gone,
}

enum Latency {
    Of(Duration),
    Joining,
    Unmeasured,
}

/// The history of one socket.
#[derive(Debug)]
struct SocketHistory {
    appeared: Timestamp,
    /// An older line may belong to an earlier connection with the same addresses and ports.
    since: Timestamp,
    dump: u64,
    class: Option<SessionIndex>,
    loss: TcpLoss,
    bytes_acked: Option<u64>,
    bytes_received: Option<u64>,
    last_dump: Timestamp,
    /// When bytes were last acknowledged, or the backlog was empty.
    progressed: Timestamp,
    /// Since when bytes wait that belong to no logged response.
    unlogged_since: Option<Timestamp>,
    /// A logged response whose end is not acknowledged yet.
    unacknowledged: Option<ResponseEnd>,
    /// Lag of what was in flight at the last dump.
    lag: Duration,
    /// Lag of the previous response, until the backlog is empty once.
    carried_lag: Duration,
}

/// The end of a response in the connection's byte stream.
#[derive(Clone, Copy, Debug)]
struct ResponseEnd {
    /// Position of the byte after it.
    position: u64,
    started: Timestamp,
}

impl SocketHistory {
    fn new(at: Timestamp, since: Timestamp) -> Self {
        Self {
            appeared: at,
            since,
            dump: 0,
            class: None,
            loss: TcpLoss::default(),
            bytes_acked: None,
            bytes_received: None,
            last_dump: at,
            progressed: at,
            unlogged_since: None,
            unacknowledged: None,
            lag: Duration::ZERO,
            carried_lag: Duration::ZERO,
        }
    }

    /// Advances to `reading`; `None` when no line stands for the socket now.
    fn fold(
        &mut self,
        at: Timestamp,
        reading: &TcpReading,
        attribution: Option<&mut Attribution>,
    ) -> Option<(SessionIndex, ViewerState)> {
        let has_backlog = reading.wqueue_bytes > 0;
        if !has_backlog || reading.bytes_acked.is_none() || reading.bytes_acked != self.bytes_acked {
            self.progressed = at;
        }
        let attribution = attribution.filter(|attribution| has_backlog || at.since(attribution.seen) <= VALIDITY);
        let (new_response, playout_budget) = attribution
            .as_ref()
            .map_or((None, None), |attribution| (attribution.new_response, attribution.playout_budget));
        let in_flight = self.time_in_flight(at, reading, new_response);
        let Some(attribution) = attribution else {
            self.class = None;
            return None;
        };
        attribution.new_response = None;
        if at.since(self.progressed) > GONE_AFTER {
            return Some((attribution.class, ViewerState::Gone));
        }
        let latency = if at.since(self.appeared) < JOIN_BURST {
            Latency::Joining
        } else {
            let lag = playout_budget
                .map(|playout_budget| self.lag(in_flight.saturating_sub(playout_budget), has_backlog, new_response));
            let latency = lag.zip(reading.rtt).map(|(lag, rtt)| lag.saturating_add(rtt / 2));
            latency.map_or(Latency::Unmeasured, Latency::Of)
        };
        Some((attribution.class, ViewerState::Present { viewer: attribution.viewer, latency }))
    }

    /// The viewer's lag. A viewer that is late and requests the next segment at once is not in time just because that
    /// request is new.
    fn lag(&mut self, lag: Duration, has_backlog: bool, new_response: Option<ServedResponse>) -> Duration {
        let previous = std::mem::replace(&mut self.lag, lag);
        let logged_lag = new_response.and_then(|new_response| new_response.lag).unwrap_or_default();
        if !has_backlog {
            self.carried_lag = Duration::ZERO;
        } else if lag < previous || new_response.is_some() {
            self.carried_lag = previous.max(logged_lag);
        }
        lag.max(logged_lag).max(self.carried_lag)
    }

    /// How long the viewer's backlog has been in flight; zero without one.
    fn time_in_flight(
        &mut self,
        at: Timestamp,
        reading: &TcpReading,
        new_response: Option<ServedResponse>,
    ) -> Duration {
        let last_dump = std::mem::replace(&mut self.last_dump, at);
        let requested_again =
            self.bytes_received.zip(reading.bytes_received).is_none_or(|(previous, is)| is > previous);
        (self.bytes_acked, self.bytes_received) = (reading.bytes_acked, reading.bytes_received);
        if reading.wqueue_bytes == 0 {
            (self.unlogged_since, self.unacknowledged) = (None, None);
            return Duration::ZERO;
        }
        if self
            .unacknowledged
            .is_some_and(|unacknowledged| reading.bytes_acked.is_none_or(|acked| acked >= unacknowledged.position))
        {
            self.unacknowledged = None;
        }
        if let Some(new_response) = new_response {
            // A player requests again when it has the previous response. So a request after the response's own proves
            // that nothing of it is in flight; where the two cannot be distinguished, nothing is counted.
            let backlogged = new_response.started < last_dump && !requested_again;
            let position = reading.bytes_acked.map(|acked| acked + u64::from(reading.wqueue_bytes));
            self.unacknowledged =
                position.filter(|_| backlogged).map(|position| ResponseEnd { position, started: new_response.started });
            self.unlogged_since = Some(new_response.ended.min(at));
        }
        let unlogged_since = *self.unlogged_since.get_or_insert(at);
        at.since(
            self.unacknowledged.map_or(unlogged_since, |unacknowledged| unacknowledged.started.min(unlogged_since)),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connection::attribution::ConnectionReport;
    use crate::connection::connection_hash;
    use crate::model::Name;

    const KEY: [u64; 2] = [1, 2];
    const SEGMENT: Duration = Duration::from_secs(2);

    fn reading(identity: u64) -> TcpReading {
        let peer = format!("10.0.0.9:{}", 4_000 + identity).parse().expect("an address");
        TcpReading {
            rtt: Some(Duration::from_millis(20)),
            notsent_bytes: Some(0),
            bytes_acked: Some(100_000),
            bytes_received: Some(1_000),
            data_segments_sent: Some(100),
            retransmitted_segments: Some(0),
            dsack_segments: Some(0),
            ..TcpReading::bare("10.0.0.1:443".parse().expect("an address"), peer, identity)
        }
    }

    fn backlogged(bytes: u32, acked: u64, identity: u64) -> TcpReading {
        TcpReading { wqueue_bytes: bytes, notsent_bytes: Some(bytes), bytes_acked: Some(acked), ..reading(identity) }
    }

    /// Duration of a response in ms, and its playout budget.
    type Timing = Option<(u64, Option<Duration>)>;

    /// A miniature of the daemon: lines and dumps at given milliseconds.
    struct Edge {
        table: ResponseDelayTable,
        attributions: AttributionTable,
        folds: Folds,
    }

    impl Edge {
        /// Sockets that were there at the first dump, at 1,000 s.
        fn new(dump: &[TcpReading]) -> Self {
            let mut edge = Self {
                table: ResponseDelayTable::default(),
                attributions: AttributionTable::new(KEY),
                folds: Folds::new(),
            };
            edge.table.step(Timestamp::from_secs(1_000), dump, &mut edge.attributions, &mut edge.folds);
            edge
        }

        /// A line logged at `millis`, of a segment that took `duration`, by the viewer of the socket's number.
        fn line(&mut self, millis: u64, class: &str, socket: &TcpReading, duration: Option<u64>) {
            self.report(millis, class, socket, (duration.map(|duration| (duration, Some(SEGMENT))), socket.identity));
        }

        fn report(&mut self, millis: u64, class: &str, socket: &TcpReading, (duration, viewer): (Timing, u64)) {
            let seen = Timestamp::from_millis(millis);
            let response = duration.map(|(duration, playout_budget)| {
                let in_flight = Duration::from_millis(duration);
                let lag = playout_budget.map(|playout_budget| in_flight.saturating_sub(playout_budget));
                ServedResponse { started: seen - in_flight, ended: seen, playout_budget, lag }
            });
            let class = Name::new(class).expect("a name");
            let report = ConnectionReport { class, protocol: None, viewer, seen, response };
            let hash = connection_hash(KEY, socket.peer, socket.local.port());
            self.attributions.apply(&"log".into(), seen, std::iter::once((hash, report)));
        }

        fn dump(&mut self, millis: u64, dump: &[TcpReading]) {
            self.table.step(Timestamp::from_millis(millis), dump, &mut self.attributions, &mut self.folds);
        }

        fn fold(&self, class: &str) -> Option<&crate::connection::summary::PathFold> {
            let mut folds = self.folds.iter();
            folds
                .find(|(index, _)| self.attributions.class_of(**index).is_some_and(|it| it.name.as_str() == class))
                .map(|it| it.1)
        }

        fn lag(&self) -> Option<u64> {
            self.fold("live/a")?.latencies().max_millis()
        }
    }

    #[test]
    fn a_viewer_without_backlog_has_half_a_round_trip() {
        let sockets = [reading(1), reading(2)];
        let mut edge = Edge::new(&sockets);
        edge.line(1_003_000, "live/a", &sockets[0], Some(40));
        edge.dump(1_003_250, &sockets);
        let fold = edge.fold("live/a").expect("joined");
        assert_eq!((fold.viewers, fold.joining, fold.latencies().max_millis()), (1, 0, Some(10)));
        let listener = &edge.table.listeners()[&443];
        assert_eq!((listener.known, listener.unknown, listener.rtts.len()), (1, 1, 2), "no line attributes the second");
        edge.dump(1_015_250, &sockets);
        assert!(edge.folds.is_empty(), "no viewer after 12 s without a line");
    }

    #[test]
    fn a_written_response_is_in_flight_until_it_is_acknowledged() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.dump(1_003_000, &[backlogged(375_000, 100_000, 1)]);
        // Requested at 2.9 s, written to the socket at 3.1 s: the kernel holds nearly all of it.
        edge.line(1_003_100, "live/a", &reading(1), Some(200));
        edge.dump(1_003_250, &[backlogged(370_000, 105_000, 1)]);
        assert_eq!(edge.lag(), Some(10), "not late within its budget");
        edge.dump(1_006_000, &[backlogged(100_000, 375_000, 1)]);
        assert_eq!(edge.lag(), Some(3_100 - 2_000 + 10));
        edge.dump(1_006_900, &[backlogged(1, 474_999, 1)]);
        assert_eq!(edge.lag(), Some(4_000 - 2_000 + 10));
        edge.dump(1_007_000, &[reading(1)]);
        assert_eq!(edge.lag(), Some(10), "all of it is acknowledged");
    }

    #[test]
    fn an_unlogged_response_is_late_by_what_dumps_saw() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.line(1_001_000, "live/a", &reading(1), Some(10));
        edge.dump(1_002_500, &[reading(1)]);
        edge.dump(1_003_000, &[backlogged(900_000, 100_000, 1)]);
        edge.dump(1_008_000, &[backlogged(900_000, 200_000, 1)]);
        assert_eq!(edge.lag(), Some(5_000 - 2_000 + 10));
        edge.dump(1_020_000, &[backlogged(900_000, 300_000, 1)]);
        assert_eq!(edge.lag(), Some(17_000 - 2_000 + 10), "its line is old, but it has a backlog");
    }

    #[test]
    fn a_viewer_that_requests_again_has_the_previous_response() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.dump(1_003_000, &[backlogged(300_000, 100_000, 1)]);
        edge.line(1_004_000, "live/a", &reading(1), Some(3_900));
        let again = TcpReading { bytes_received: Some(2_000), ..backlogged(300_000, 500_000, 1) };
        edge.dump(1_004_500, &[again]);
        assert_eq!(edge.lag(), Some(3_900 - 2_000 + 10), "the finished response itself was late by this");
        edge.dump(1_004_750, &[TcpReading { bytes_acked: Some(600_000), ..again }]);
        assert_eq!(edge.lag(), Some(1_910), "the next has only begun: the viewer is as late as before");
        edge.dump(1_008_000, &[TcpReading { bytes_acked: Some(700_000), ..again }]);
        assert_eq!(edge.lag(), Some(4_000 - 2_000 + 10), "later now than the previous one");
        edge.dump(1_009_000, &[TcpReading { bytes_received: Some(2_000), ..reading(1) }]);
        assert_eq!(edge.lag(), Some(10), "a pause: it has all it requested");
    }

    #[test]
    fn join_burst_and_unknown_play_time_give_no_latency() {
        let mut edge = Edge::new(&[]);
        edge.dump(1_000_250, &[reading(1)]);
        edge.line(1_000_300, "live/a", &reading(1), Some(10));
        edge.dump(1_000_500, &[reading(1)]);
        assert_eq!(edge.fold("live/a").map(|fold| (fold.viewers, fold.joining)), Some((1, 1)));
        edge.report(1_002_400, "live/b", &reading(1), (Some((10, None)), 1));
        edge.dump(1_002_500, &[reading(1)]);
        let fold = edge.fold("live/b").expect("joined");
        assert_eq!(
            (fold.unmeasured, fold.latencies().len(), fold.rtt().is_some()),
            (0, 1, true),
            "from its earlier class"
        );
        let mut edge = Edge::new(&[reading(1)]);
        edge.report(1_002_400, "live/b", &reading(1), (Some((10, None)), 1));
        edge.dump(1_002_500, &[reading(1)]);
        assert_eq!(edge.fold("live/b").map(|fold| (fold.unmeasured, fold.latencies().len())), Some((1, 0)));
    }

    #[test]
    fn loss_belongs_to_the_class_carried_since_the_previous_dump() {
        let at = |sent, lost| {
            let mut now = reading(1);
            (now.data_segments_sent, now.retransmitted_segments) = (Some(sent), Some(lost));
            [now]
        };
        let mut edge = Edge::new(&at(100, 0));
        let segments_of =
            |edge: &Edge, class: &str| edge.fold(class).map(|fold| (fold.segments_sent, fold.segments_lost));
        edge.line(1_003_000, "live/a", &reading(1), Some(1));
        edge.dump(1_003_250, &at(200, 1));
        assert_eq!(segments_of(&edge, "live/a"), Some((None, None)), "their class is not known");
        edge.dump(1_003_500, &at(300, 4));
        assert_eq!(segments_of(&edge, "live/a"), Some((Some(100), Some(3))));
        edge.line(1_003_600, "live/b", &reading(1), Some(1));
        edge.dump(1_003_750, &at(400, 9));
        assert_eq!((segments_of(&edge, "live/a"), segments_of(&edge, "live/b")), (None, Some((None, None))));
        edge.dump(1_004_000, &at(500, 10));
        assert_eq!(segments_of(&edge, "live/b"), Some((Some(100), Some(1))));
        assert_eq!(edge.table.listeners()[&443].segments_lost, 1);
    }

    #[test]
    fn a_reused_port_is_another_connection() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.line(1_003_000, "live/a", &reading(1), Some(1));
        edge.dump(1_003_250, &[reading(1)]);
        let reused = TcpReading { identity: 77, ..reading(1) };
        edge.dump(1_003_500, &[reused]);
        assert!(edge.folds.is_empty(), "the old line was not of this socket");
        edge.line(1_003_600, "live/b", &reused, Some(1));
        edge.dump(1_003_750, &[reused]);
        assert!(edge.fold("live/b").is_some());
    }

    #[test]
    fn viewers_are_counted_not_sockets_and_dead_ones_are_gone() {
        let sockets = [reading(1), reading(2), reading(3)];
        let mut edge = Edge::new(&sockets);
        for (socket, viewer) in sockets.iter().zip([1, 1, 2]) {
            edge.report(1_003_000, "live/a", socket, (Some((5, Some(SEGMENT))), viewer));
        }
        edge.dump(1_003_250, &sockets);
        assert_eq!(edge.fold("live/a").map(|fold| (fold.viewers, fold.latencies().len())), Some((2, 3)));
        edge.dump(1_004_000, &[backlogged(9, 100_000, 3)]);
        edge.dump(1_125_000, &[backlogged(9, 100_000, 3)]);
        assert_eq!(edge.fold("live/a").map(|fold| (fold.viewers, fold.gone)), Some((0, 1)));
    }

    #[test]
    fn a_closed_socket_is_forgotten() {
        let mut edge = Edge::new(&[reading(1)]);
        for dump in 1..=FORGET_AFTER_DUMPS {
            edge.dump(1_000_000 + dump * 250, &[]);
        }
        assert!(edge.table.histories.is_empty());
        edge.table.keep_listeners(&[80]);
        assert!(edge.table.listeners().is_empty());
    }

    proptest! {
        #[test]
        fn any_dump_and_line_counts_each_socket_once(
            dumps in proptest::collection::vec(
                (0_u64..30_000, proptest::collection::vec((0_u64..5, any::<[Option<u32>; 4]>(), any::<[Option<u64>; 3]>()), 0..8),
                 proptest::collection::vec((0_u64..5, 0_u64..40_000, 0..3_u8, any::<Option<u16>>()), 0..4)),
                1..12),
        ) {
            let mut edge = Edge::new(&[reading(0), reading(1)]);
            for (at, dump, lines) in dumps {
                for (socket, millis, class, duration) in lines {
                    edge.line(1_000_000 + millis, &format!("c{class}"), &reading(socket), duration.map(u64::from));
                }
                let dump: Vec<TcpReading> = dump.iter().map(|&(identity, small, large)| TcpReading {
                    rtt: large[2].map(Duration::from_nanos),
                    notsent_bytes: small[0],
                    wqueue_bytes: small[0].unwrap_or(0),
                    data_segments_sent: small[1],
                    retransmitted_segments: small[2],
                    dsack_segments: small[3],
                    bytes_acked: large[0],
                    bytes_received: large[1],
                    ..reading(identity)
                }).collect();
                edge.dump(1_000_000 + at, &dump);
                let distinct: std::collections::BTreeSet<u64> = dump.iter().map(|reading| reading.identity).collect();
                let listener = edge.table.listeners().get(&443).cloned().unwrap_or_default();
                prop_assert_eq!(listener.known + listener.unknown, distinct.len() as u64);
                let mut counted = 0;
                for fold in edge.folds.values() {
                    prop_assert!(fold.segments_lost <= fold.segments_sent);
                    let sockets = fold.latencies().len() + u64::from(fold.joining + fold.unmeasured);
                    prop_assert!(u64::from(fold.viewers) <= sockets);
                    counted += sockets + u64::from(fold.gone);
                }
                prop_assert_eq!(counted, listener.known);
            }
        }
    }
}
