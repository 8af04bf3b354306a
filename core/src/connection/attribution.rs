//! Which class each TCP connection serves, as the access log's lines report it. Decides how long a line stands for its
//! connection, and follows a viewer that moves to another class. A line that may belong to an earlier connection with
//! the same addresses and ports is not used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::hash::connection_hash;
use super::join::SessionIndex;
use crate::base::Hashed;
use crate::model::{Name, Protocol, SourceName, Timestamp};

/// What the lines of one connection reported since the last hand-over.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionReport {
    /// The class of its newest line.
    pub class: Name,
    /// How the class is delivered, where the lines imply it.
    pub protocol: Option<Protocol>,
    /// A keyed hash of the viewer.
    pub viewer: u64,
    /// When its newest line was logged.
    pub seen: Timestamp,
    /// Its newest media response.
    pub response: Option<ServedResponse>,
}

/// A media response that the server has written to the socket in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedResponse {
    /// When its media was available for sending: the first byte of the request, or the upstream's response where that
    /// came later.
    pub started: Timestamp,
    /// When its last byte was written to the socket.
    pub ended: Timestamp,
    /// How long it may take before its viewer falls behind, see [`playout_budget`]; `None` where the media's duration
    /// is not known.
    pub playout_budget: Option<Duration>,
    /// The worst lag behind its playout budget among the responses since the last report, measured when written.
    pub lag: Option<Duration>,
}

/// How long a response of media with this duration may take before its viewer falls behind the class.
///
/// A part (LL-HLS, low-latency DASH) is the newest media: its budget is zero. A whole segment was collected for its
/// full duration before anybody could request it, so a path that carries it within that time keeps up, and only the
/// excess is lag.
#[must_use]
pub(crate) const fn playout_budget(play_time: Duration) -> Duration {
    if play_time.as_nanos() > LONGEST_PART.as_nanos() { play_time } else { Duration::ZERO }
}

/// The attributed connections of all access logs of this node.
#[derive(Debug)]
pub struct AttributionTable {
    key: [u64; 2],
    connections: HashMap<u64, Attribution, Hashed>,
    classes: BTreeMap<SessionIndex, Class>,
    indexes: BTreeMap<SourceName, HashMap<Name, SessionIndex>>,
    next: u32,
    swept: Option<Timestamp>,
    refused: u64,
}

/// One class of one log.
#[derive(Clone, Debug)]
pub struct Class {
    /// The log's source.
    pub source: SourceName,
    /// The class.
    pub name: Name,
    /// How it is delivered, by the newest line that implies it.
    pub protocol: Option<Protocol>,
    /// When one of its connections was last found in a socket dump.
    pub joined: Option<Timestamp>,
    in_use: bool,
}

/// One attributed connection.
#[derive(Clone, Debug)]
pub(crate) struct Attribution {
    pub(crate) class: SessionIndex,
    pub(crate) viewer: u64,
    /// When its newest line was logged.
    pub(crate) seen: Timestamp,
    /// When its socket was last in a dump.
    socket_seen: Timestamp,
    /// The response reported since the last dump.
    pub(crate) new_response: Option<ServedResponse>,
    /// The newest response's playout budget.
    pub(crate) playout_budget: Option<Duration>,
}

impl AttributionTable {
    /// No connection yet; `key` is the one under which the reports' connections are hashed.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            key,
            connections: HashMap::default(),
            classes: BTreeMap::new(),
            indexes: BTreeMap::new(),
            next: 0,
            swept: None,
            refused: 0,
        }
    }

    /// Applies the reports of `source`, each with its connection's hash. Reports older than [`IDLE_LIMIT`] are dropped:
    /// a log that is read late does not describe present connections.
    pub fn apply(
        &mut self,
        source: &SourceName,
        now: Timestamp,
        reports: impl Iterator<Item = (u64, ConnectionReport)>,
    ) {
        for (connection, report) in reports {
            if now.since(report.seen) <= IDLE_LIMIT {
                self.apply_report(source, connection, &report);
            }
        }
        if self.swept.is_none_or(|swept| now.since(swept) >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.sweep(now);
        }
    }

    fn apply_report(&mut self, source: &SourceName, connection: u64, report: &ConnectionReport) {
        let room = self.connections.len() < MAX_ATTRIBUTIONS;
        if !room && !self.connections.contains_key(&connection) {
            self.refused += 1;
            return;
        }
        let class = self.class(source, report);
        let playout_budget = report.response.and_then(|response| response.playout_budget);
        let attribution = self.connections.entry(connection).or_insert_with(|| Attribution {
            class,
            viewer: report.viewer,
            seen: report.seen,
            socket_seen: report.seen,
            new_response: None,
            playout_budget,
        });
        if attribution.class != class {
            attribution.new_response = None;
        }
        let lag = attribution.new_response.and_then(|new_response| new_response.lag);
        attribution.new_response = report
            .response
            .map(|response| ServedResponse { lag: response.lag.max(lag), ..response })
            .or(attribution.new_response);
        (attribution.class, attribution.viewer, attribution.seen) =
            (class, report.viewer, attribution.seen.max(report.seen));
        attribution.playout_budget = playout_budget.or(attribution.playout_budget);
    }

    fn class(&mut self, source: &SourceName, report: &ConnectionReport) -> SessionIndex {
        let known = self.indexes.get(source).and_then(|indexes| indexes.get(&report.class));
        let index = known.copied().unwrap_or_else(|| {
            let index = SessionIndex(self.next);
            // Not reused while the process lives, which sees fewer than 4 billion classes.
            self.next = self.next.wrapping_add(1);
            let (source, name) = (SourceName::clone(source), report.class.clone());
            self.indexes.entry(SourceName::clone(&source)).or_default().insert(name.clone(), index);
            self.classes.insert(index, Class { source, name, protocol: None, joined: None, in_use: true });
            index
        });
        if let Some(class) = self.classes.get_mut(&index) {
            class.protocol = report.protocol.or(class.protocol);
        }
        index
    }

    fn sweep(&mut self, now: Timestamp) {
        let classes = &mut self.classes;
        for class in classes.values_mut() {
            class.in_use = false;
        }
        self.connections.retain(|_, attribution| {
            let is_kept = now.since(attribution.seen.max(attribution.socket_seen)) <= IDLE_LIMIT;
            if let Some(class) = classes.get_mut(&attribution.class).filter(|_| is_kept) {
                class.in_use = true;
            }
            is_kept
        });
        classes.retain(|_, class| class.in_use);
        for indexes in self.indexes.values_mut() {
            indexes.retain(|_, index| classes.contains_key(index));
        }
    }

    /// The attribution of the connection from `peer` to `port`, if a line logged after `since` reported it.
    pub(crate) fn find(
        &mut self,
        peer: SocketAddr,
        port: u16,
        at: Timestamp,
        since: Option<Timestamp>,
    ) -> Option<&mut Attribution> {
        // Logs with and without the listener's port may be in use side by side.
        let known_port = connection_hash(self.key, peer, port);
        let hash =
            if self.connections.contains_key(&known_port) { known_port } else { connection_hash(self.key, peer, 0) };
        let attribution = self.connections.get_mut(&hash)?;
        if since.is_some_and(|since| attribution.seen < since) {
            return None;
        }
        attribution.socket_seen = at;
        if let Some(class) = self.classes.get_mut(&attribution.class) {
            class.joined = Some(at);
        }
        Some(attribution)
    }

    /// A class by its index.
    #[must_use]
    pub fn class_of(&self, index: SessionIndex) -> Option<&Class> {
        self.classes.get(&index)
    }

    /// The classes of `source` with connections found in a recent dump: the kernel measures them.
    #[must_use]
    pub fn joined(&self, source: &SourceName, now: Timestamp) -> BTreeSet<Name> {
        let fresh = |class: &&Class| class.joined.is_some_and(|joined| now.since(joined) <= VALIDITY);
        let classes = self.classes.values().filter(|class| class.source == *source);
        classes.filter(fresh).map(|class| class.name.clone()).collect()
    }

    /// Number of connections remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no connection is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Reports refused because of [`MAX_ATTRIBUTIONS`]; a running total.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

/// Media up to this long is a part of a segment; LL-HLS parts are 0.2 to 1 s long.
pub(crate) const LONGEST_PART: Duration = Duration::from_secs(1);
/// Most connections remembered of all logs; reports of others are counted in [`AttributionTable::refused`].
pub(crate) const MAX_ATTRIBUTIONS: usize = 200_000;
/// A connection without a line and without a socket for this long is forgotten.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// How long a line stands for its connection's viewer; longer while the connection has a backlog.
pub(crate) const VALIDITY: Duration = Duration::from_secs(12);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [1, 2];

    fn report(class: &str, seen: u64) -> ConnectionReport {
        let class = Name::new(class).expect("a name");
        ConnectionReport {
            class,
            protocol: Some(Protocol::Hls),
            viewer: 7,
            seen: Timestamp::from_secs(seen),
            response: None,
        }
    }

    fn peer() -> SocketAddr {
        "10.0.0.9:4000".parse().expect("an address")
    }

    fn attributions(reports: impl IntoIterator<Item = (u16, ConnectionReport)>, now: u64) -> AttributionTable {
        let mut attributions = AttributionTable::new(KEY);
        let reports = reports.into_iter().map(|(port, report)| (connection_hash(KEY, peer(), port), report));
        attributions.apply(&"log".into(), Timestamp::from_secs(now), reports);
        attributions
    }

    fn count_names(attributions: &AttributionTable) -> usize {
        attributions.indexes.values().map(HashMap::len).sum()
    }

    fn name_of(attributions: &mut AttributionTable, port: u16, since: Option<u64>) -> Option<String> {
        let since = since.map(Timestamp::from_secs);
        let class = attributions.find(peer(), port, Timestamp::from_secs(100), since)?.class;
        Some(attributions.class_of(class)?.name.to_string())
    }

    #[test]
    fn a_connection_is_found_by_both_ends_or_by_the_peer_alone() {
        let mut known_port = attributions([(443, report("live/a", 99))], 100);
        assert_eq!(name_of(&mut known_port, 443, None).as_deref(), Some("live/a"));
        assert_eq!(name_of(&mut known_port, 80, None), None, "another listener");
        let mut unknown_port = attributions([(0, report("live/a", 99))], 100);
        assert_eq!(name_of(&mut unknown_port, 80, None).as_deref(), Some("live/a"));
    }

    #[test]
    fn a_line_older_than_the_socket_belongs_to_an_earlier_connection() {
        let mut attributions = attributions([(443, report("live/a", 95))], 100);
        assert_eq!(name_of(&mut attributions, 443, Some(96)), None);
        assert_eq!(name_of(&mut attributions, 443, Some(95)).as_deref(), Some("live/a"));
    }

    #[test]
    fn a_viewer_changes_class_and_the_old_class_is_dropped() {
        let mut attributions = attributions([(443, report("live/a", 99)), (443, report("live/b", 100))], 100);
        assert_eq!(name_of(&mut attributions, 443, None).as_deref(), Some("live/b"));
        attributions.apply(&"log".into(), Timestamp::from_secs(101), std::iter::empty());
        assert_eq!((attributions.classes.len(), count_names(&attributions), attributions.len()), (1, 1, 1));
        let joined = |source: &str, second| attributions.joined(&source.into(), Timestamp::from_secs(second)).len();
        assert_eq!(joined("log", 112), 1);
        assert_eq!((joined("log", 113), joined("other", 101)), (0, 0), "not in a dump for long; of another log");
    }

    #[test]
    fn idle_connections_are_forgotten_and_old_reports_dropped() {
        let mut attributions = attributions([(443, report("live/a", 100)), (80, report("live/b", 39))], 100);
        assert_eq!(attributions.len(), 1);
        attributions.find(peer(), 443, Timestamp::from_secs(150), None).expect("there");
        attributions.apply(&"log".into(), Timestamp::from_secs(210), std::iter::empty());
        assert_eq!(attributions.len(), 1, "its socket was there at 150");
        attributions.apply(&"log".into(), Timestamp::from_secs(211), std::iter::empty());
        assert!(attributions.is_empty() && attributions.classes.is_empty() && count_names(&attributions) == 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut attributions = AttributionTable::new(KEY);
        let reports = (0..MAX_ATTRIBUTIONS as u64 + 5).map(|hash| (hash, report("live/a", 100)));
        attributions.apply(&"log".into(), Timestamp::from_secs(100), reports);
        assert_eq!((attributions.len(), attributions.refused()), (MAX_ATTRIBUTIONS, 5));
    }

    #[test]
    fn the_newest_response_is_kept_with_the_worst_lag() {
        let served = |ended, lag| ServedResponse {
            started: Timestamp::from_secs(ended - 1),
            ended: Timestamp::from_secs(ended),
            playout_budget: Some(Duration::ZERO),
            lag: Some(Duration::from_millis(lag)),
        };
        let with = |response| ConnectionReport { response: Some(response), ..report("live/a", 100) };
        let mut attributions = attributions([(443, with(served(98, 900))), (443, with(served(99, 10)))], 100);
        let new_response =
            attributions.find(peer(), 443, Timestamp::from_secs(100), None).expect("there").new_response.take();
        let new_response = new_response.expect("news");
        assert_eq!(
            (new_response.ended, new_response.lag),
            (Timestamp::from_secs(99), Some(Duration::from_millis(900)))
        );
        assert_eq!(playout_budget(Duration::from_millis(333)), Duration::ZERO);
        assert_eq!(playout_budget(Duration::from_secs(2)), Duration::from_secs(2));
    }
}
