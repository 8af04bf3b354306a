//! The way to each viewer of an HTTP edge, from dump to dump, for sockets that the access log claims. Decides how long
//! what a viewer asked for has been on its way beyond what keeps up with the class; what no line claims is told per
//! listener and of no class.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::attribution::{Attribution, AttributionTable, CLAIM_SPEAKS, ServedResponse};
use super::delivery::{FORGET_AFTER_DUMPS, Folds, GONE_AFTER, JOIN_BURST, MAX_TRACKED};
use super::join::SessionIndex;
use super::loss::TcpLoss;
use super::tcp_info::TcpReading;
use crate::base::Hashed;
use crate::model::Timestamp;

/// What is remembered of each socket of the edge's listeners between dumps. At most [`MAX_TRACKED`] sockets.
#[derive(Debug, Default)]
pub struct ResponseDelayTable {
    tracks: HashMap<u64, SocketHistory, Hashed>,
    listeners: BTreeMap<u16, Listener>,
    viewers: Vec<(SessionIndex, u64)>,
    dumps: u64,
    last: Option<Timestamp>,
    untracked: u64,
}

/// The connections of one listener in the newest dump, whether a line claims them or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Connections that carry a class.
    pub known: u64,
    /// Connections of which no line told: before their first answer, idle, or other work than classes.
    pub unknown: u64,
    /// Bytes written and not sent even once.
    pub backlog_bytes: u64,
    /// Segments with data sent since the dump before.
    pub segments_sent: u64,
    /// Of them sent again and not proven needless.
    pub segments_lost: u64,
    /// Round trips.
    pub rtts: Vec<Duration>,
}

impl ResponseDelayTable {
    /// Takes in one dump made at `at` and folds each socket that a line claims into its class's fold. `folds` is
    /// emptied first.
    ///
    /// Delivery latency of a viewer = time underway beyond the answer's allowance, plus RTT/2. Underway is an answer
    /// since its media could be sent: measured by the log up to its hand-over to the kernel, from there until a dump
    /// finds it acknowledged. Of an answer that is not logged yet it is the time for which dumps saw bytes wait. Both
    /// are floors by up to one dump. While answers follow each other without a rest, the last one's lag stands as the
    /// least. A viewer for whom nothing waits has all it asked for: half its round trip.
    pub fn step(&mut self, at: Timestamp, dump: &[TcpReading], claims: &mut AttributionTable, folds: &mut Folds) {
        folds.clear();
        self.listeners.values_mut().for_each(Listener::clear);
        self.viewers.clear();
        self.dumps += 1;
        for reading in dump {
            if !self.tracks.contains_key(&reading.identity) && self.tracks.len() >= MAX_TRACKED {
                self.untracked += 1;
                continue;
            }
            // A line told of this very socket if it is younger than the last dump without it; of one that was always
            // there, if younger than that.
            let since = self.last.unwrap_or(at);
            let track = self.tracks.entry(reading.identity).or_insert_with(|| SocketHistory::new(at, since));
            if track.dump == self.dumps {
                continue;
            }
            track.dump = self.dumps;
            let segments = track.loss.advance(reading);
            let listener = self.listeners.entry(reading.local.port()).or_default();
            listener.note(reading, segments);
            let claim = claims.find(reading.peer, reading.local.port(), at, Some(track.since));
            let Some((class, viewer)) = track.fold(at, reading, claim) else {
                listener.unknown += 1;
                continue;
            };
            listener.known += 1;
            let fold = folds.entry(class).or_default();
            // What was sent since the dump before belongs to one class only if the connection carried that one then
            // too.
            fold.count_segments(segments.filter(|_| track.was == Some(class)));
            track.was = Some(class);
            match viewer {
                Seen::Gone => fold.gone += 1,
                Seen::There { viewer, latency } => {
                    self.viewers.push((class, viewer));
                    fold.backlog_bytes += u64::from(reading.notsent_bytes.unwrap_or_default());
                    fold.zero_window += u32::from(reading.send_window_bytes == Some(0));
                    fold.note_rtt(reading.rtt);
                    match latency {
                        Latency::Joining => fold.joining += 1,
                        Latency::Unmeasured => fold.unmeasured += 1,
                        Latency::Of(latency) => fold.record(latency),
                    }
                }
            }
        }
        self.last = Some(at);
        self.tracks.retain(|_, track| self.dumps - track.dump < FORGET_AFTER_DUMPS);
        self.count_viewers(folds);
    }

    /// Players open several connections: viewers are told apart by the lines, not by the sockets.
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

    /// Forgets the listeners whose ports are not among these.
    pub fn keep_listeners(&mut self, ports: &[u16]) {
        self.listeners.retain(|port, _| ports.contains(port));
    }

    /// How often a socket was passed over because [`MAX_TRACKED`] were remembered already; a total.
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

    fn note(&mut self, reading: &TcpReading, segments: Option<(u32, u32)>) {
        let (sent, lost) = segments.unwrap_or_default();
        self.segments_sent += u64::from(sent);
        self.segments_lost += u64::from(lost);
        self.backlog_bytes += u64::from(reading.notsent_bytes.unwrap_or_default());
        self.rtts.extend(reading.rtt);
    }
}

/// What became of a claimed socket's viewer.
enum Seen {
    There { viewer: u64, latency: Latency },
    Gone,
}

enum Latency {
    Of(Duration),
    Joining,
    Unmeasured,
}

/// One socket's past.
#[derive(Debug)]
struct SocketHistory {
    appeared: Timestamp,
    /// A line older than this may be of an earlier connection between the same ends.
    since: Timestamp,
    dump: u64,
    was: Option<SessionIndex>,
    loss: TcpLoss,
    bytes_acked: Option<u64>,
    bytes_received: Option<u64>,
    looked: Timestamp,
    /// When bytes were last acknowledged, or none waited.
    progressed: Timestamp,
    /// Since when bytes wait that belong to no logged answer.
    busy_since: Option<Timestamp>,
    /// A logged answer of which the kernel still holds the end.
    tail: Option<Tail>,
    /// How late what is on its way was at the last dump.
    late: Duration,
    /// How late the answer before was, as long as the connection had no rest since.
    carried: Duration,
}

/// The end of an answer.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// The connection's byte after it.
    position: u64,
    started: Timestamp,
}

impl SocketHistory {
    fn new(at: Timestamp, since: Timestamp) -> Self {
        Self {
            appeared: at,
            since,
            dump: 0,
            was: None,
            loss: TcpLoss::default(),
            bytes_acked: None,
            bytes_received: None,
            looked: at,
            progressed: at,
            busy_since: None,
            tail: None,
            late: Duration::ZERO,
            carried: Duration::ZERO,
        }
    }

    /// Moves on to `reading`; `None` when no line speaks for the socket now.
    fn fold(
        &mut self,
        at: Timestamp,
        reading: &TcpReading,
        claim: Option<&mut Attribution>,
    ) -> Option<(SessionIndex, Seen)> {
        let waits = reading.wqueue_bytes > 0;
        if !waits || reading.bytes_acked.is_none() || reading.bytes_acked != self.bytes_acked {
            self.progressed = at;
        }
        let claim = claim.filter(|claim| waits || at.since(claim.seen) <= CLAIM_SPEAKS);
        let (news, allowance) = claim.as_ref().map_or((None, None), |claim| (claim.news, claim.allowance));
        let underway = self.underway(at, reading, news);
        let Some(claim) = claim else {
            self.was = None;
            return None;
        };
        claim.news = None;
        if at.since(self.progressed) > GONE_AFTER {
            return Some((claim.class, Seen::Gone));
        }
        let latency = if at.since(self.appeared) < JOIN_BURST {
            Latency::Joining
        } else {
            let late = allowance.map(|allowance| self.late(underway.saturating_sub(allowance), waits, news));
            let latency = late.zip(reading.rtt).map(|(late, rtt)| late.saturating_add(rtt / 2));
            latency.map_or(Latency::Unmeasured, Latency::Of)
        };
        Some((claim.class, Seen::There { viewer: claim.viewer, latency }))
    }

    /// How late the viewer is. One that is late and asks for the next at once is not in time because that has only
    /// begun.
    fn late(&mut self, late: Duration, waits: bool, news: Option<ServedResponse>) -> Duration {
        let was = std::mem::replace(&mut self.late, late);
        let handed = news.and_then(|news| news.late).unwrap_or_default();
        if !waits {
            self.carried = Duration::ZERO;
        } else if late < was || news.is_some() {
            self.carried = was.max(handed);
        }
        late.max(handed).max(self.carried)
    }

    /// How long what waits for the viewer has been on its way; zero when nothing waits.
    fn underway(&mut self, at: Timestamp, reading: &TcpReading, news: Option<ServedResponse>) -> Duration {
        let looked = std::mem::replace(&mut self.looked, at);
        let asked_again = self.bytes_received.zip(reading.bytes_received).is_none_or(|(was, is)| is > was);
        (self.bytes_acked, self.bytes_received) = (reading.bytes_acked, reading.bytes_received);
        if reading.wqueue_bytes == 0 {
            (self.busy_since, self.tail) = (None, None);
            return Duration::ZERO;
        }
        if self.tail.is_some_and(|tail| reading.bytes_acked.is_none_or(|acked| acked >= tail.position)) {
            self.tail = None;
        }
        if let Some(news) = news {
            // A player asks again when it has what it asked for. So a request after the answer's own leaves nothing of
            // it on the way, and where the two cannot be told apart nothing is claimed.
            let held = news.started < looked && !asked_again;
            let position = reading.bytes_acked.map(|acked| acked + u64::from(reading.wqueue_bytes));
            self.tail = position.filter(|_| held).map(|position| Tail { position, started: news.started });
            self.busy_since = Some(news.ended.min(at));
        }
        let busy_since = *self.busy_since.get_or_insert(at);
        at.since(self.tail.map_or(busy_since, |tail| tail.started.min(busy_since)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access_log::transport::connection_hash;
    use crate::connection::attribution::ConnectionReport;
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

    fn held(bytes: u32, acked: u64, identity: u64) -> TcpReading {
        TcpReading { wqueue_bytes: bytes, notsent_bytes: Some(bytes), bytes_acked: Some(acked), ..reading(identity) }
    }

    /// How long an answer took in ms, and its allowance.
    type Took = Option<(u64, Option<Duration>)>;

    /// The daemon in small: lines and dumps by the second and millisecond.
    struct Edge {
        table: ResponseDelayTable,
        claims: AttributionTable,
        folds: Folds,
    }

    impl Edge {
        /// Sockets that were there at the first dump, at 1,000 s.
        fn new(dump: &[TcpReading]) -> Self {
            let mut edge =
                Self { table: ResponseDelayTable::default(), claims: AttributionTable::new(KEY), folds: Folds::new() };
            edge.table.step(Timestamp::from_secs(1_000), dump, &mut edge.claims, &mut edge.folds);
            edge
        }

        /// A line logged at `millis`, of a segment that took `took` so far; by the viewer of the socket's number.
        fn line(&mut self, millis: u64, class: &str, socket: &TcpReading, took: Option<u64>) {
            self.word(millis, class, socket, (took.map(|took| (took, Some(SEGMENT))), socket.identity));
        }

        fn word(&mut self, millis: u64, class: &str, socket: &TcpReading, (took, viewer): (Took, u64)) {
            let seen = Timestamp::from_millis(millis);
            let answer = took.map(|(took, allowance)| {
                let underway = Duration::from_millis(took);
                let late = allowance.map(|allowance| underway.saturating_sub(allowance));
                ServedResponse { started: seen - underway, ended: seen, allowance, late }
            });
            let class = Name::new(class).expect("a name");
            let word = ConnectionReport { class, protocol: None, viewer, seen, answer };
            let hash = connection_hash(KEY, socket.peer, socket.local.port());
            self.claims.take(&"log".into(), seen, std::iter::once((hash, word)));
        }

        fn look(&mut self, millis: u64, dump: &[TcpReading]) {
            self.table.step(Timestamp::from_millis(millis), dump, &mut self.claims, &mut self.folds);
        }

        fn fold(&self, class: &str) -> Option<&crate::connection::summary::PathFold> {
            let mut folds = self.folds.iter();
            folds
                .find(|(index, _)| self.claims.class_of(**index).is_some_and(|it| it.name.as_str() == class))
                .map(|it| it.1)
        }

        fn late(&self) -> Option<u64> {
            self.fold("live/a")?.latencies().max_millis()
        }
    }

    #[test]
    fn a_viewer_that_has_all_it_asked_for_is_half_a_round_trip_away() {
        let sockets = [reading(1), reading(2)];
        let mut edge = Edge::new(&sockets);
        edge.line(1_003_000, "live/a", &sockets[0], Some(40));
        edge.look(1_003_250, &sockets);
        let fold = edge.fold("live/a").expect("joined");
        assert_eq!((fold.viewers, fold.joining, fold.latencies().max_millis()), (1, 0, Some(10)));
        let listener = &edge.table.listeners()[&443];
        assert_eq!((listener.known, listener.unknown, listener.rtts.len()), (1, 1, 2), "no line told of the second");
        edge.look(1_015_250, &sockets);
        assert!(edge.folds.is_empty(), "after 12 s without a line nobody watches there");
    }

    #[test]
    fn what_the_kernel_still_holds_of_an_answer_is_on_its_way_until_it_is_acknowledged() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.look(1_003_000, &[held(375_000, 100_000, 1)]);
        // Asked for at 2.9 s, handed to the kernel at 3.1 s: the kernel holds nearly all of it.
        edge.line(1_003_100, "live/a", &reading(1), Some(200));
        edge.look(1_003_250, &[held(370_000, 105_000, 1)]);
        assert_eq!(edge.late(), Some(10), "within its play time it is not late");
        edge.look(1_006_000, &[held(100_000, 375_000, 1)]);
        assert_eq!(edge.late(), Some(3_100 - 2_000 + 10));
        edge.look(1_006_900, &[held(1, 474_999, 1)]);
        assert_eq!(edge.late(), Some(4_000 - 2_000 + 10));
        edge.look(1_007_000, &[reading(1)]);
        assert_eq!(edge.late(), Some(10), "all of it is there");
    }

    #[test]
    fn an_answer_that_is_not_logged_yet_is_late_by_what_dumps_saw() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.line(1_001_000, "live/a", &reading(1), Some(10));
        edge.look(1_002_500, &[reading(1)]);
        edge.look(1_003_000, &[held(900_000, 100_000, 1)]);
        edge.look(1_008_000, &[held(900_000, 200_000, 1)]);
        assert_eq!(edge.late(), Some(5_000 - 2_000 + 10));
        edge.look(1_020_000, &[held(900_000, 300_000, 1)]);
        assert_eq!(edge.late(), Some(17_000 - 2_000 + 10), "its line is old, but it carries what was asked for");
    }

    #[test]
    fn a_viewer_that_asks_again_has_what_it_asked_for() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.look(1_003_000, &[held(300_000, 100_000, 1)]);
        edge.line(1_004_000, "live/a", &reading(1), Some(3_900));
        let again = TcpReading { bytes_received: Some(2_000), ..held(300_000, 500_000, 1) };
        edge.look(1_004_500, &[again]);
        assert_eq!(edge.late(), Some(3_900 - 2_000 + 10), "the finished answer itself was late by this");
        edge.look(1_004_750, &[TcpReading { bytes_acked: Some(600_000), ..again }]);
        assert_eq!(edge.late(), Some(1_910), "the next has only begun: that makes the viewer no less late");
        edge.look(1_008_000, &[TcpReading { bytes_acked: Some(700_000), ..again }]);
        assert_eq!(edge.late(), Some(4_000 - 2_000 + 10), "and is later now than the one before");
        edge.look(1_009_000, &[TcpReading { bytes_received: Some(2_000), ..reading(1) }]);
        assert_eq!(edge.late(), Some(10), "a rest: it has all it asked for");
    }

    #[test]
    fn join_burst_and_unknown_play_time_give_no_latency() {
        let mut edge = Edge::new(&[]);
        edge.look(1_000_250, &[reading(1)]);
        edge.line(1_000_300, "live/a", &reading(1), Some(10));
        edge.look(1_000_500, &[reading(1)]);
        assert_eq!(edge.fold("live/a").map(|fold| (fold.viewers, fold.joining)), Some((1, 1)));
        edge.word(1_002_400, "live/b", &reading(1), (Some((10, None)), 1));
        edge.look(1_002_500, &[reading(1)]);
        let fold = edge.fold("live/b").expect("joined");
        assert_eq!((fold.unmeasured, fold.latencies().len(), fold.rtt().is_some()), (0, 1, true), "it had one before");
        let mut edge = Edge::new(&[reading(1)]);
        edge.word(1_002_400, "live/b", &reading(1), (Some((10, None)), 1));
        edge.look(1_002_500, &[reading(1)]);
        assert_eq!(edge.fold("live/b").map(|fold| (fold.unmeasured, fold.latencies().len())), Some((1, 0)));
    }

    #[test]
    fn loss_belongs_to_the_class_that_was_carried_all_the_time() {
        let at = |sent, lost| {
            let mut now = reading(1);
            (now.data_segments_sent, now.retransmitted_segments) = (Some(sent), Some(lost));
            [now]
        };
        let mut edge = Edge::new(&at(100, 0));
        let told = |edge: &Edge, class: &str| edge.fold(class).map(|fold| (fold.segments_sent, fold.segments_lost));
        edge.line(1_003_000, "live/a", &reading(1), Some(1));
        edge.look(1_003_250, &at(200, 1));
        assert_eq!(told(&edge, "live/a"), Some((None, None)), "whose these were is not known");
        edge.look(1_003_500, &at(300, 4));
        assert_eq!(told(&edge, "live/a"), Some((Some(100), Some(3))));
        edge.line(1_003_600, "live/b", &reading(1), Some(1));
        edge.look(1_003_750, &at(400, 9));
        assert_eq!((told(&edge, "live/a"), told(&edge, "live/b")), (None, Some((None, None))));
        edge.look(1_004_000, &at(500, 10));
        assert_eq!(told(&edge, "live/b"), Some((Some(100), Some(1))));
        assert_eq!(edge.table.listeners()[&443].segments_lost, 1);
    }

    #[test]
    fn a_port_used_again_is_another_connection() {
        let mut edge = Edge::new(&[reading(1)]);
        edge.line(1_003_000, "live/a", &reading(1), Some(1));
        edge.look(1_003_250, &[reading(1)]);
        let reused = TcpReading { identity: 77, ..reading(1) };
        edge.look(1_003_500, &[reused]);
        assert!(edge.folds.is_empty(), "the old line was not of this socket");
        edge.line(1_003_600, "live/b", &reused, Some(1));
        edge.look(1_003_750, &[reused]);
        assert!(edge.fold("live/b").is_some());
    }

    #[test]
    fn viewers_are_counted_not_sockets_and_the_dead_are_gone() {
        let sockets = [reading(1), reading(2), reading(3)];
        let mut edge = Edge::new(&sockets);
        for (socket, viewer) in sockets.iter().zip([1, 1, 2]) {
            edge.word(1_003_000, "live/a", socket, (Some((5, Some(SEGMENT))), viewer));
        }
        edge.look(1_003_250, &sockets);
        assert_eq!(edge.fold("live/a").map(|fold| (fold.viewers, fold.latencies().len())), Some((2, 3)));
        edge.look(1_004_000, &[held(9, 100_000, 3)]);
        edge.look(1_125_000, &[held(9, 100_000, 3)]);
        assert_eq!(edge.fold("live/a").map(|fold| (fold.viewers, fold.gone)), Some((0, 1)));
    }

    #[test]
    fn a_closed_socket_is_forgotten() {
        let mut edge = Edge::new(&[reading(1)]);
        for look in 1..=FORGET_AFTER_DUMPS {
            edge.look(1_000_000 + look * 250, &[]);
        }
        assert!(edge.table.tracks.is_empty());
        edge.table.keep_listeners(&[80]);
        assert!(edge.table.listeners().is_empty());
    }

    proptest! {
        #[test]
        fn any_dump_and_line_is_taken_and_each_socket_counted_once(
            looks in proptest::collection::vec(
                (0_u64..30_000, proptest::collection::vec((0_u64..5, any::<[Option<u32>; 4]>(), any::<[Option<u64>; 3]>()), 0..8),
                 proptest::collection::vec((0_u64..5, 0_u64..40_000, 0..3_u8, any::<Option<u16>>()), 0..4)),
                1..12),
        ) {
            let mut edge = Edge::new(&[reading(0), reading(1)]);
            for (at, dump, lines) in looks {
                for (socket, millis, class, took) in lines {
                    edge.line(1_000_000 + millis, &format!("c{class}"), &reading(socket), took.map(u64::from));
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
                edge.look(1_000_000 + at, &dump);
                let distinct: std::collections::BTreeSet<u64> = dump.iter().map(|reading| reading.identity).collect();
                let listener = edge.table.listeners().get(&443).cloned().unwrap_or_default();
                prop_assert_eq!(listener.known + listener.unknown, distinct.len() as u64);
                let mut told = 0;
                for fold in edge.folds.values() {
                    prop_assert!(fold.segments_lost <= fold.segments_sent);
                    let sockets = fold.latencies().len() + u64::from(fold.joining + fold.unmeasured);
                    prop_assert!(u64::from(fold.viewers) <= sockets);
                    told += sockets + u64::from(fold.gone);
                }
                prop_assert_eq!(told, listener.known);
            }
        }
    }
}
