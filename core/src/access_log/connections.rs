//! The transport side of an access log: reports that attribute the kernel's sockets to classes, and the round-trip
//! time, lag and QUIC loss that the lines themselves contain. Knows nothing of playback; connections, classes and
//! listeners beyond its bounds are counted and left out.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::line::Line;
use super::transport::{QuicTotals, TransportFields};
use crate::base::keyed_hash::sip_hash;
use crate::base::{Hashed, LatencyHistogram};
use crate::connection::{ConnectionReport, JOIN_BURST, ServedResponse, connection_hash, playout_budget};
use crate::model::{Fact, Name, Observation, PathView, Protocol, Rtt, SourceName, StreamKey, Timestamp};

/// The connections of one access log.
#[derive(Clone, Debug)]
pub struct LoggedConnections {
    key: [u64; 2],
    source: SourceName,
    play_time: Option<Duration>,
    connections: HashMap<u64, Connection, Hashed>,
    classes: Classes,
    reports: Option<HashMap<u64, ConnectionReport, Hashed>>,
    joined: BTreeSet<Name>,
    quic_views: Vec<(Name, PathView)>,
    drained: Option<Timestamp>,
    ports: Vec<u16>,
    counts: ConnectionCounts,
}

/// One response of the server, as logged.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoggedResponse<'a> {
    /// When it was logged: its last byte had been written to the socket.
    pub(super) logged: Timestamp,
    /// The class.
    pub(super) class: &'a str,
    /// What identifies the viewer: its CMCD `sid`, or address and user agent.
    pub(super) viewer: [&'a [u8]; 2],
    /// How the class is delivered, where the line implies it.
    pub(super) protocol: Option<Protocol>,
    /// From the first byte of the request to `logged`; `None` when no media was served.
    pub(super) duration: Option<Duration>,
    /// Duration of the requested media, where the player reports it (CMCD `d`).
    pub(super) play_time: Option<Duration>,
}

/// How many lines the bounds left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Lines of connections beyond [`MAX_CONNECTIONS`].
    pub connections: u64,
    /// Lines of classes beyond [`MAX_CLASSES`] or with an invalid name.
    pub classes: u64,
    /// Lines of listeners beyond [`MAX_PORTS`].
    pub ports: u64,
}

/// What is remembered of a connection between its lines.
#[derive(Clone, Copy, Debug)]
struct Connection {
    first: Timestamp,
    seen: Timestamp,
    quic: Option<QuicTotals>,
}

/// The connection of one line.
#[derive(Clone, Copy)]
struct LineConnection {
    hash: u64,
    is_joining: bool,
    /// Packets (sent, lost) of QUIC since the connection's previous line.
    packets: Option<(u64, u64)>,
}

/// What the lines of a class contained since the last drain.
#[derive(Clone, Debug, Default)]
struct Class {
    protocol: Option<Protocol>,
    seen: Timestamp,
    /// Over TCP, and over QUIC.
    figures: [Figures; 2],
}

/// What the lines of one transport contained.
#[derive(Clone, Debug, Default)]
struct Figures {
    viewers: Vec<u64>,
    rtts: Vec<Duration>,
    latencies: LatencyHistogram,
    packets: Option<(u64, u64)>,
}

impl LoggedConnections {
    /// No lines yet; `key` hashes connections and viewers.
    #[must_use]
    pub fn new(source: SourceName, key: [u64; 2]) -> Self {
        Self {
            key,
            source,
            play_time: None,
            connections: HashMap::default(),
            classes: Classes::default(),
            reports: None,
            joined: BTreeSet::new(),
            quic_views: Vec::new(),
            drained: None,
            ports: Vec::new(),
            counts: ConnectionCounts::default(),
        }
    }

    /// Sets the duration of one segment, for responses whose player does not report it.
    pub(super) const fn set_play_time(&mut self, play_time: Option<Duration>) {
        self.play_time = play_time;
    }

    /// Collects reports for [`LoggedConnections::take_reports`] from now on, hashed under the key of all logs of the
    /// node.
    pub fn keep_reports(&mut self, key: [u64; 2]) {
        self.key = key;
        self.reports.get_or_insert_default();
    }

    /// Records one line, if it contains anything of its connection.
    pub(super) fn record(&mut self, line: &Line<'_>, response: &LoggedResponse<'_>) {
        let Some(transport) = TransportFields::of(line) else {
            return;
        };
        let [first, second] = response.viewer;
        let viewer =
            if second.is_empty() { sip_hash(self.key, &[first]) } else { sip_hash(self.key, &response.viewer) };
        let served = response.duration.map(|duration| {
            self.served(response, duration.saturating_sub(transport.upstream_time.unwrap_or_default()))
        });
        let connection = transport.peer.and_then(|peer| self.connection(response.logged, peer, &transport));
        let index = self.classes.index(response.class);
        let Some((name, class)) = index.and_then(|index| self.classes.classes[index].as_mut()) else {
            self.counts.classes += 1;
            return;
        };
        class.protocol = response.protocol.or(class.protocol);
        class.seen = class.seen.max(response.logged);
        let figures = &mut class.figures[usize::from(transport.is_quic)];
        figures.viewers.push(viewer);
        if let Some((sent, lost)) = connection.and_then(|connection| connection.packets) {
            let (all, of_them) = figures.packets.unwrap_or_default();
            figures.packets = Some((all.saturating_add(sent), of_them.saturating_add(lost)));
        }
        if figures.rtts.len() < MAX_FIGURES {
            figures.rtts.extend(transport.rtt);
        }
        let is_joining = connection.is_some_and(|connection| connection.is_joining);
        if let (Some(lag), Some(rtt), false) = (served.and_then(|served| served.lag), transport.rtt, is_joining) {
            figures.latencies.record(lag.saturating_add(rtt / 2));
        }
        if let (Some(connection), Some(reports), false) = (connection, &mut self.reports, transport.is_quic) {
            record_report(reports, connection.hash, response, (name, viewer, served));
        }
    }

    fn served(&self, response: &LoggedResponse<'_>, sending_time: Duration) -> ServedResponse {
        let playout_budget = response.play_time.or(self.play_time).map(playout_budget);
        ServedResponse {
            started: response.logged - sending_time,
            ended: response.logged,
            playout_budget,
            lag: playout_budget.map(|playout_budget| sending_time.saturating_sub(playout_budget)),
        }
    }

    /// The state of the line's connection; `None` where the table is full.
    fn connection(&mut self, at: Timestamp, peer: SocketAddr, transport: &TransportFields) -> Option<LineConnection> {
        let port = transport.server_port.unwrap_or(0);
        if port > 0 && !transport.is_quic && !self.ports.contains(&port) {
            if self.ports.len() < MAX_PORTS {
                self.ports.push(port);
            } else {
                self.counts.ports += 1;
            }
        }
        let hash = connection_hash(self.key, peer, port);
        if self.connections.len() >= MAX_CONNECTIONS && !self.connections.contains_key(&hash) {
            self.counts.connections += 1;
            return None;
        }
        let fresh = Connection { first: at, seen: at, quic: None };
        let connection = self.connections.entry(hash).or_insert(fresh);
        connection.seen = connection.seen.max(at);
        let was = std::mem::replace(&mut connection.quic, transport.quic);
        let packets = transport.quic.zip(was).and_then(|(now, was)| now.since(was));
        Some(LineConnection { hash, is_joining: at.since(connection.first) < JOIN_BURST, packets })
    }

    /// The reports of all connections since the last call, each with its connection's hash.
    pub fn take_reports(&mut self) -> impl Iterator<Item = (u64, ConnectionReport)> {
        self.reports.iter_mut().flat_map(HashMap::drain)
    }

    /// Sets the classes whose sockets were recently found: the kernel measures their TCP connections, so the lines'
    /// figures for these are dropped. Their QUIC figures go to [`LoggedConnections::take_quic_views`].
    pub fn set_joined(&mut self, joined: BTreeSet<Name>) {
        self.joined = joined;
    }

    /// The QUIC figures of joined classes since the last call.
    pub fn take_quic_views(&mut self) -> Vec<(Name, PathView)> {
        std::mem::take(&mut self.quic_views)
    }

    /// The listeners' ports that the lines name.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// How many lines the bounds left out so far.
    #[must_use]
    pub const fn counts(&self) -> ConnectionCounts {
        self.counts
    }

    /// Once a second, the transport figures of each class, at most one observation a class.
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        if self.drained.is_some_and(|drained| now.since(drained) < DRAIN_INTERVAL) {
            return Vec::new();
        }
        self.finish(now)
    }

    /// The remaining figures, at the end of the input.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        self.drained = Some(now);
        self.connections.retain(|_, connection| now.since(connection.seen) <= IDLE_LIMIT);
        let mut out = Vec::new();
        for (name, class) in self.classes.classes.iter_mut().flatten() {
            let protocol = class.protocol.unwrap_or(Protocol::Mixed);
            let [tcp, quic] = class.figures.each_mut().map(|figures| figures.take(protocol));
            if self.joined.contains(name) {
                self.quic_views.extend(quic.map(|quic| (name.clone(), quic)));
                continue;
            }
            let both = match (tcp, quic) {
                (Some(mut tcp), Some(quic)) => {
                    tcp.add(&quic);
                    Some(tcp)
                }
                (tcp, quic) => tcp.or(quic),
            };
            out.extend(both.map(|view| {
                let (source, stream) = (self.source.clone(), StreamKey::of_session(name.clone()));
                Observation { source, stream, at: now, fact: Fact::Path(Box::new(view)) }
            }));
        }
        self.classes.sweep(now);
        out
    }
}

impl Figures {
    fn take(&mut self, protocol: Protocol) -> Option<PathView> {
        self.viewers.sort_unstable();
        self.viewers.dedup();
        let viewers = self.viewers.len() as u32;
        self.viewers.clear();
        let rtt = Rtt::of(&mut self.rtts);
        self.rtts.clear();
        let packets = self.packets.take();
        (viewers > 0 && (rtt.is_some() || packets.is_some())).then(|| PathView {
            protocol,
            viewers,
            latencies: std::mem::take(&mut self.latencies),
            segments_sent: packets.map(|(sent, _)| sent),
            segments_lost: packets.map(|(_, lost)| lost),
            rtt,
            backlog_bytes: 0,
            publisher_rtt: None,
        })
    }
}

/// Merges a line into the report of its connection.
fn record_report(
    reports: &mut HashMap<u64, ConnectionReport, Hashed>,
    hash: u64,
    response: &LoggedResponse<'_>,
    (name, viewer, served): (&Name, u64, Option<ServedResponse>),
) {
    if let Some(report) = reports.get_mut(&hash).filter(|report| report.class == *name) {
        let lag = report.response.and_then(|was| was.lag);
        report.response =
            served.map(|served| ServedResponse { lag: served.lag.max(lag), ..served }).or(report.response);
        (report.viewer, report.seen) = (viewer, report.seen.max(response.logged));
        report.protocol = response.protocol.or(report.protocol);
    } else {
        let (class, protocol, seen) = (name.clone(), response.protocol, response.logged);
        reports.insert(hash, ConnectionReport { class, protocol, viewer, seen, response: served });
    }
}

/// The classes of one log.
#[derive(Clone, Debug, Default)]
struct Classes {
    indexes: HashMap<Name, u32>,
    classes: Vec<Option<(Name, Class)>>,
}

impl Classes {
    /// The index of the class; `None` where its name is invalid or the table is full.
    fn index(&mut self, name: &str) -> Option<usize> {
        if let Some(index) = self.indexes.get(name) {
            return Some(*index as usize);
        }
        let name = Name::new(name).ok().filter(|trimmed| trimmed.as_str() == name)?;
        if self.indexes.len() >= MAX_CLASSES {
            return None;
        }
        let free = self.classes.iter().position(Option::is_none).unwrap_or(self.classes.len());
        if free == self.classes.len() {
            self.classes.push(None);
        }
        self.classes[free] = Some((name.clone(), Class::default()));
        self.indexes.insert(name, free as u32);
        Some(free)
    }

    /// Forgets the classes that no line named for [`IDLE_LIMIT`].
    fn sweep(&mut self, now: Timestamp) {
        for place in &mut self.classes {
            if let Some((name, _)) = place.take_if(|(_, class)| now.since(class.seen) > IDLE_LIMIT) {
                self.indexes.remove(&name);
            }
        }
    }
}

/// Most connections remembered of one log; lines of others are counted in [`ConnectionCounts::connections`].
pub(super) const MAX_CONNECTIONS: usize = 200_000;
/// Most classes of one log; lines of others are counted in [`ConnectionCounts::classes`].
pub(super) const MAX_CLASSES: usize = 4_000;
/// Most listeners of one log; lines of others are counted in [`ConnectionCounts::ports`].
pub(super) const MAX_PORTS: usize = 32;
/// Most round-trip times of one class kept in a second; of more, the first ones stand for the class.
pub(super) const MAX_FIGURES: usize = 4_096;
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);
const IDLE_LIMIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::format::LogFormat;

    const LINE: &str = r#"{"ip":"10.0.0.9","rp":4000,"sp":443,"rtt_us":20000}"#;

    fn record(fold: &mut LoggedConnections, text: &str, response: &LoggedResponse<'_>) {
        let format = LogFormat::json([]).expect("plain");
        fold.record(&format.split(text.as_bytes()).expect("a line"), response);
    }

    fn response(second: u64, duration: u64) -> LoggedResponse<'static> {
        LoggedResponse {
            logged: Timestamp::from_secs(second),
            class: "live/a",
            viewer: [b"v1", b""],
            protocol: Some(Protocol::Hls),
            duration: Some(Duration::from_millis(duration)),
            play_time: Some(Duration::from_secs(2)),
        }
    }

    fn view(fold: &mut LoggedConnections, second: u64) -> Option<PathView> {
        let mut out = fold.drain(Timestamp::from_secs(second));
        assert!(out.len() <= 1, "one class");
        match out.pop()?.fact {
            Fact::Path(view) => Some(*view),
            other => panic!("{other:?}"),
        }
    }

    fn fold() -> LoggedConnections {
        let mut fold = LoggedConnections::new("log".into(), [1, 2]);
        fold.keep_reports(fold.key);
        fold
    }

    #[test]
    fn lines_alone_give_round_trip_and_lag() {
        let mut fold = fold();
        record(&mut fold, LINE, &response(100, 9_000));
        let joining = view(&mut fold, 100).expect("a view");
        assert_eq!((joining.viewers, joining.latencies.len()), (1, 0), "the join burst is not lag");
        record(&mut fold, LINE, &response(103, 500));
        record(&mut fold, LINE, &response(104, 3_500));
        assert_eq!(view(&mut fold, 100), None, "once a second");
        let view = view(&mut fold, 104).expect("a view");
        let rtt = Duration::from_millis(20);
        assert_eq!(view.rtt, Some(Rtt { p50: rtt, p95: rtt }));
        assert_eq!((view.latencies.quantile_millis(0.0), view.latencies.max_millis()), (Some(10), Some(1_510)));
        assert_eq!((view.viewers, view.segments_sent, view.backlog_bytes), (1, None, 0));
    }

    #[test]
    fn all_time_of_a_part_is_lag_except_the_wait_for_the_packager() {
        let mut fold = fold();
        let part = |second, duration| LoggedResponse {
            play_time: Some(Duration::from_millis(333)),
            ..response(second, duration)
        };
        record(&mut fold, LINE, &part(100, 0));
        let line = r#"{"ip":"10.0.0.9","rp":4000,"sp":443,"rtt_us":20000,"uh":"0.300"}"#;
        record(&mut fold, line, &part(103, 350));
        assert_eq!(view(&mut fold, 103).and_then(|view| view.latencies.max_millis()), Some(60));
        let unknown = LoggedResponse { play_time: None, ..response(104, 900) };
        record(&mut fold, LINE, &unknown);
        assert_eq!(view(&mut fold, 104).map(|view| view.latencies.len()), Some(0), "unknown play time");
        fold.set_play_time(Some(Duration::from_secs(4)));
        record(&mut fold, LINE, &LoggedResponse { logged: Timestamp::from_secs(105), ..unknown });
        assert_eq!(view(&mut fold, 105).and_then(|view| view.latencies.max_millis()), Some(10));
    }

    #[test]
    fn reports_are_taken_once_and_name_the_newest_class() {
        let mut fold = fold();
        record(&mut fold, LINE, &response(100, 9_000));
        record(&mut fold, LINE, &response(101, 10));
        let reports: Vec<_> = fold.take_reports().collect();
        let [(hash, report)] = reports.as_slice() else {
            panic!("{reports:?}");
        };
        assert_eq!(*hash, connection_hash([1, 2], "10.0.0.9:4000".parse().expect("it"), 443));
        let served = report.response.expect("media");
        assert_eq!((served.ended, served.lag), (Timestamp::from_secs(101), Some(Duration::from_secs(7))));
        assert_eq!((fold.take_reports().count(), fold.ports()), (0, &[443][..]));
        record(&mut fold, LINE, &response(102, 10));
        record(&mut fold, LINE, &LoggedResponse { class: "live/b", duration: None, ..response(103, 0) });
        let reports: Vec<_> = fold.take_reports().collect();
        assert_eq!((reports.len(), reports[0].1.class.as_str(), reports[0].1.response), (1, "live/b", None));
        let mut silent = LoggedConnections::new("log".into(), [1, 2]);
        record(&mut silent, LINE, &response(100, 10));
        assert_eq!(silent.take_reports().count(), 0, "reports are not kept unless asked for");
    }

    #[test]
    fn quic_counts_packets_and_has_no_socket_of_the_kernel() {
        let mut fold = fold();
        let line = |sent, lost| {
            format!(
                r#"{{"ip":"10.0.0.9","rp":4000,"sp":443,"quic":"packets-sent={sent},packets-lost={lost},rtt-smoothed=30"}}"#
            )
        };
        record(&mut fold, &line(100, 9), &response(100, 10));
        assert_eq!(view(&mut fold, 100).map(|view| view.segments_sent), Some(None), "a first line has no difference");
        record(&mut fold, &line(300, 13), &response(103, 10));
        let view = view(&mut fold, 103).expect("a view");
        assert_eq!((view.segments_sent, view.segments_lost), (Some(200), Some(4)));
        assert_eq!(
            (view.rtt.map(|rtt| rtt.p50), view.latencies.max_millis()),
            (Some(Duration::from_millis(30)), Some(15))
        );
        assert_eq!((fold.take_reports().count(), fold.ports().len()), (0, 0));
    }

    #[test]
    fn a_joined_class_reports_only_quic_and_separately() {
        let mut fold = fold();
        let quic = r#"{"ip":"10.0.0.8","rp":4000,"quic":"rtt-smoothed=30"}"#;
        let both = |fold: &mut LoggedConnections, second| {
            record(fold, LINE, &response(second, 10));
            record(fold, quic, &LoggedResponse { viewer: [b"v2", b""], ..response(second, 10) });
        };
        both(&mut fold, 100);
        assert_eq!(view(&mut fold, 100).map(|view| view.viewers), Some(2));
        assert!(fold.take_quic_views().is_empty());
        fold.set_joined(BTreeSet::from([Name::new("live/a").expect("a name")]));
        both(&mut fold, 101);
        assert_eq!(view(&mut fold, 101), None);
        let quic_views = fold.take_quic_views();
        assert_eq!(
            (quic_views.len(), quic_views[0].1.viewers, quic_views[0].1.rtt.map(|rtt| rtt.p50.as_millis())),
            (1, 1, Some(30))
        );
    }

    #[test]
    fn classes_ports_and_names_are_bounded() {
        let mut fold = fold();
        for number in 0..MAX_CLASSES + 3 {
            record(&mut fold, LINE, &LoggedResponse { class: &format!("c{number}"), ..response(100, 1) });
        }
        record(&mut fold, LINE, &LoggedResponse { class: "a\u{1}", ..response(100, 1) });
        for port in 1..=40 {
            record(&mut fold, &format!(r#"{{"ip":"1.1.1.1","rp":9,"sp":{port}}}"#), &response(100, 1));
        }
        assert_eq!(fold.counts(), ConnectionCounts { connections: 0, classes: 44, ports: 41 - MAX_PORTS as u64 });
        assert_eq!(fold.ports().len(), MAX_PORTS);
        fold.drain(Timestamp::from_secs(200));
        assert_eq!((fold.classes.indexes.len(), fold.connections.len()), (0, 0), "idle entries are forgotten");
    }
}
