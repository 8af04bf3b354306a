//! What an access log's lines tell of connections: the words by which the kernel's sockets are joined to classes, and
//! the round trip, lag and QUIC loss that the lines themselves carry. Decides nothing of viewers' players; refuses
//! connections beyond its bounds and counts them.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::format::Line;
use super::transport::{QuicTotals, TransportFields, connection_hash};
use crate::base::keyed_hash::sip_hash;
use crate::base::{Hashed, LatencyHistogram};
use crate::connection::attribution::allowance;
use crate::connection::{ConnectionReport, JOIN_BURST, ServedResponse};
use crate::model::{Fact, Name, Observation, PathView, Protocol, Rtt, SourceName, StreamKey, Timestamp};

/// The fold of one log's connections.
#[derive(Clone, Debug)]
pub struct LoggedConnections {
    key: [u64; 2],
    source: SourceName,
    play_time: Option<Duration>,
    connections: HashMap<u64, Connection, Hashed>,
    classes: Classes,
    words: Option<HashMap<u64, ConnectionReport, Hashed>>,
    joined: BTreeSet<Name>,
    beside: Vec<(Name, PathView)>,
    drained: Option<Timestamp>,
    ports: Vec<u16>,
    counts: ConnectionCounts,
}

/// One line's answer, as the log's fold reads it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// When its last byte was handed to the kernel, which is when it was logged.
    pub logged: Timestamp,
    /// The class.
    pub class: &'a str,
    /// What tells the viewer from others.
    pub viewer: [&'a [u8]; 2],
    /// How the class is delivered, where the line says so.
    pub protocol: Option<Protocol>,
    /// From the request's first byte to `logged`; `None` of what is not media that was served.
    pub took: Option<Duration>,
    /// Play time of its media, where the player says so (CMCD `d`).
    pub play_time: Option<Duration>,
}

/// What the fold's bounds cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Lines whose connection was beyond [`MAX_CONNECTIONS`].
    pub connections: u64,
    /// Lines whose class was beyond [`MAX_CLASSES`] or had no good name.
    pub classes: u64,
    /// Lines whose listener was beyond [`MAX_PORTS`].
    pub ports: u64,
}

/// What is remembered of a connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    first: Timestamp,
    seen: Timestamp,
    quic: Option<QuicTotals>,
}

/// A line's connection.
#[derive(Clone, Copy)]
struct Known {
    hash: u64,
    is_joining: bool,
    /// Packets (sent, lost) that QUIC told since the line before.
    packets: Option<(u64, u64)>,
}

/// What the lines of a class told since the last drain.
#[derive(Clone, Debug, Default)]
struct Class {
    protocol: Option<Protocol>,
    seen: Timestamp,
    /// Over TCP, and over QUIC.
    figures: [Figures; 2],
}

/// What the lines of one transport told.
#[derive(Clone, Debug, Default)]
struct Figures {
    viewers: Vec<u64>,
    rtts: Vec<Duration>,
    latencies: LatencyHistogram,
    packets: Option<(u64, u64)>,
}

impl LoggedConnections {
    /// An empty fold; `key` is that of connections' hashes.
    #[must_use]
    pub fn new(source: SourceName, key: [u64; 2]) -> Self {
        Self {
            key,
            source,
            play_time: None,
            connections: HashMap::default(),
            classes: Classes::default(),
            words: None,
            joined: BTreeSet::new(),
            beside: Vec::new(),
            drained: None,
            ports: Vec::new(),
            counts: ConnectionCounts::default(),
        }
    }

    /// Sets the play time of one segment, for answers whose player does not tell it.
    pub const fn set_play_time(&mut self, play_time: Option<Duration>) {
        self.play_time = play_time;
    }

    /// Keeps words from now on, for [`LoggedConnections::words`], under the key of all logs of the node.
    pub fn keep_words(&mut self, key: [u64; 2]) {
        self.key = key;
        self.words.get_or_insert_default();
    }

    /// Takes one line that told of its connection.
    pub fn answer(&mut self, line: &Line<'_>, answer: &Answer<'_>) {
        let Some(wire) = TransportFields::of(line) else {
            return;
        };
        let [first, second] = answer.viewer;
        let viewer = if second.is_empty() { sip_hash(self.key, &[first]) } else { sip_hash(self.key, &answer.viewer) };
        let handed = answer.took.map(|took| self.handed(answer, took.saturating_sub(wire.waited.unwrap_or_default())));
        let known = wire.peer.and_then(|peer| self.connection(answer.logged, peer, &wire));
        let index = self.classes.index(answer.class);
        let Some((name, class)) = index.and_then(|index| self.classes.classes[index].as_mut()) else {
            self.counts.classes += 1;
            return;
        };
        class.protocol = answer.protocol.or(class.protocol);
        class.seen = class.seen.max(answer.logged);
        let figures = &mut class.figures[usize::from(wire.is_quic)];
        figures.viewers.push(viewer);
        if let Some((sent, lost)) = known.and_then(|known| known.packets) {
            let (all, of_them) = figures.packets.unwrap_or_default();
            figures.packets = Some((all.saturating_add(sent), of_them.saturating_add(lost)));
        }
        if figures.rtts.len() < MAX_FIGURES {
            figures.rtts.extend(wire.rtt);
        }
        let is_joining = known.is_some_and(|known| known.is_joining);
        if let (Some(late), Some(rtt), false) = (handed.and_then(|handed| handed.late), wire.rtt, is_joining) {
            figures.latencies.record(late.saturating_add(rtt / 2));
        }
        if let (Some(known), Some(words), false) = (known, &mut self.words, wire.is_quic) {
            note(words, known.hash, answer, (name, viewer, handed));
        }
    }

    fn handed(&self, answer: &Answer<'_>, underway: Duration) -> ServedResponse {
        let allowance = answer.play_time.or(self.play_time).map(allowance);
        ServedResponse {
            started: answer.logged - underway,
            ended: answer.logged,
            allowance,
            late: allowance.map(|allowance| underway.saturating_sub(allowance)),
        }
    }

    /// What is known of a line's connection; `None` where there is no room for it.
    fn connection(&mut self, at: Timestamp, peer: SocketAddr, wire: &TransportFields) -> Option<Known> {
        let port = wire.server_port.unwrap_or(0);
        if port > 0 && !wire.is_quic && !self.ports.contains(&port) {
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
        let was = std::mem::replace(&mut connection.quic, wire.quic);
        let packets = wire.quic.zip(was).and_then(|(now, was)| now.since(was));
        Some(Known { hash, is_joining: at.since(connection.first) < JOIN_BURST, packets })
    }

    /// The words of all connections since the last call.
    pub fn words(&mut self) -> impl Iterator<Item = (u64, ConnectionReport)> {
        self.words.iter_mut().flat_map(HashMap::drain)
    }

    /// Sets the classes whose sockets were lately found: the kernel speaks for their TCP connections, and the lines'
    /// word on these is left out. What the lines tell of their QUIC connections goes to [`LoggedConnections::beside`].
    pub fn set_joined(&mut self, joined: BTreeSet<Name>) {
        self.joined = joined;
    }

    /// What lines told of QUIC connections of joined classes, once.
    pub fn beside(&mut self) -> Vec<(Name, PathView)> {
        std::mem::take(&mut self.beside)
    }

    /// The listeners' ports that lines named.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// What the bounds cost so far.
    #[must_use]
    pub const fn counts(&self) -> ConnectionCounts {
        self.counts
    }

    /// Once a second what the lines themselves told of each class's transport, at most one observation a class.
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        if self.drained.is_some_and(|drained| now.since(drained) < EVERY) {
            return Vec::new();
        }
        self.finish(now)
    }

    /// The end of the input: all that was not told yet.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        self.drained = Some(now);
        self.connections.retain(|_, connection| now.since(connection.seen) <= KEPT);
        let mut out = Vec::new();
        for (name, class) in self.classes.classes.iter_mut().flatten() {
            let protocol = class.protocol.unwrap_or(Protocol::Mixed);
            let [tcp, quic] = class.figures.each_mut().map(|figures| figures.take(protocol));
            if self.joined.contains(name) {
                self.beside.extend(quic.map(|quic| (name.clone(), quic)));
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

/// Notes what a line said of its connection.
fn note(
    words: &mut HashMap<u64, ConnectionReport, Hashed>,
    hash: u64,
    answer: &Answer<'_>,
    (name, viewer, handed): (&Name, u64, Option<ServedResponse>),
) {
    if let Some(word) = words.get_mut(&hash).filter(|word| word.class == *name) {
        let late = word.answer.and_then(|was| was.late);
        word.answer = handed.map(|handed| ServedResponse { late: handed.late.max(late), ..handed }).or(word.answer);
        (word.viewer, word.seen) = (viewer, word.seen.max(answer.logged));
        word.protocol = answer.protocol.or(word.protocol);
    } else {
        let (class, protocol, seen) = (name.clone(), answer.protocol, answer.logged);
        words.insert(hash, ConnectionReport { class, protocol, viewer, seen, answer: handed });
    }
}

/// The classes of one log.
#[derive(Clone, Debug, Default)]
struct Classes {
    indexes: HashMap<Name, u32>,
    classes: Vec<Option<(Name, Class)>>,
}

impl Classes {
    /// The place of a line's class; made where there is room.
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

    /// Forgets those that were silent for long.
    fn sweep(&mut self, now: Timestamp) {
        for place in &mut self.classes {
            if let Some((name, _)) = place.take_if(|(_, class)| now.since(class.seen) > KEPT) {
                self.indexes.remove(&name);
            }
        }
    }
}

/// Most connections remembered of one log; more are counted in [`ConnectionCounts::connections`].
pub(super) const MAX_CONNECTIONS: usize = 200_000;
/// Most classes of one log; more are counted in [`ConnectionCounts::classes`].
pub(super) const MAX_CLASSES: usize = 4_000;
/// Most listeners of one log; more are counted in [`ConnectionCounts::ports`].
pub(super) const MAX_PORTS: usize = 32;
/// Most round trips of one class kept in a second; a class of more is told by the first of them.
pub(super) const MAX_FIGURES: usize = 4_096;
const EVERY: Duration = Duration::from_secs(1);
const KEPT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::format::LogFormat;

    const LINE: &str = r#"{"ip":"10.0.0.9","rp":4000,"sp":443,"rtt_us":20000}"#;

    fn told(fold: &mut LoggedConnections, text: &str, answer: &Answer<'_>) {
        let format = LogFormat::json([]).expect("plain");
        fold.answer(&format.split(text.as_bytes()).expect("a line"), answer);
    }

    fn answer(second: u64, took: u64) -> Answer<'static> {
        Answer {
            logged: Timestamp::from_secs(second),
            class: "live/a",
            viewer: [b"v1", b""],
            protocol: Some(Protocol::Hls),
            took: Some(Duration::from_millis(took)),
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
        fold.keep_words(fold.key);
        fold
    }

    #[test]
    fn the_lines_alone_give_round_trip_and_lag() {
        let mut fold = fold();
        told(&mut fold, LINE, &answer(100, 9_000));
        let joining = view(&mut fold, 100).expect("told");
        assert_eq!((joining.viewers, joining.latencies.len()), (1, 0), "its join burst is no lag");
        told(&mut fold, LINE, &answer(103, 500));
        told(&mut fold, LINE, &answer(104, 3_500));
        assert_eq!(view(&mut fold, 100), None, "once a second");
        let view = view(&mut fold, 104).expect("told");
        let rtt = Duration::from_millis(20);
        assert_eq!(view.rtt, Some(Rtt { p50: rtt, p95: rtt }));
        assert_eq!((view.latencies.quantile_millis(0.0), view.latencies.max_millis()), (Some(10), Some(1_510)));
        assert_eq!((view.viewers, view.segments_sent, view.backlog_bytes), (1, None, 0));
    }

    #[test]
    fn parts_are_late_by_all_they_take_and_the_wait_for_the_packager_is_out_of_it() {
        let mut fold = fold();
        let part = |second, took| Answer { play_time: Some(Duration::from_millis(333)), ..answer(second, took) };
        told(&mut fold, LINE, &part(100, 0));
        let line = r#"{"ip":"10.0.0.9","rp":4000,"sp":443,"rtt_us":20000,"uh":"0.300"}"#;
        told(&mut fold, line, &part(103, 350));
        assert_eq!(view(&mut fold, 103).and_then(|view| view.latencies.max_millis()), Some(60));
        let unknown = Answer { play_time: None, ..answer(104, 900) };
        told(&mut fold, LINE, &unknown);
        assert_eq!(view(&mut fold, 104).map(|view| view.latencies.len()), Some(0), "of unknown play time");
        fold.set_play_time(Some(Duration::from_secs(4)));
        told(&mut fold, LINE, &Answer { logged: Timestamp::from_secs(105), ..unknown });
        assert_eq!(view(&mut fold, 105).and_then(|view| view.latencies.max_millis()), Some(10));
    }

    #[test]
    fn words_are_handed_on_once_and_the_newest_class_stands() {
        let mut fold = fold();
        told(&mut fold, LINE, &answer(100, 9_000));
        told(&mut fold, LINE, &answer(101, 10));
        let words: Vec<_> = fold.words().collect();
        let [(hash, word)] = words.as_slice() else {
            panic!("{words:?}");
        };
        assert_eq!(*hash, connection_hash([1, 2], "10.0.0.9:4000".parse().expect("it"), 443));
        let handed = word.answer.expect("media");
        assert_eq!((handed.ended, handed.late), (Timestamp::from_secs(101), Some(Duration::from_secs(7))));
        assert_eq!((fold.words().count(), fold.ports()), (0, &[443][..]));
        told(&mut fold, LINE, &answer(102, 10));
        told(&mut fold, LINE, &Answer { class: "live/b", took: None, ..answer(103, 0) });
        let words: Vec<_> = fold.words().collect();
        assert_eq!((words.len(), words[0].1.class.as_str(), words[0].1.answer), (1, "live/b", None));
        let mut silent = LoggedConnections::new("log".into(), [1, 2]);
        told(&mut silent, LINE, &answer(100, 10));
        assert_eq!(silent.words().count(), 0, "nobody asked for words");
    }

    #[test]
    fn quic_counts_packets_and_is_no_socket_of_the_kernel() {
        let mut fold = fold();
        let line = |sent, lost| {
            format!(
                r#"{{"ip":"10.0.0.9","rp":4000,"sp":443,"quic":"packets-sent={sent},packets-lost={lost},rtt-smoothed=30"}}"#
            )
        };
        told(&mut fold, &line(100, 9), &answer(100, 10));
        assert_eq!(view(&mut fold, 100).map(|view| view.segments_sent), Some(None), "the first has nothing before it");
        told(&mut fold, &line(300, 13), &answer(103, 10));
        let view = view(&mut fold, 103).expect("told");
        assert_eq!((view.segments_sent, view.segments_lost), (Some(200), Some(4)));
        assert_eq!(
            (view.rtt.map(|rtt| rtt.p50), view.latencies.max_millis()),
            (Some(Duration::from_millis(30)), Some(15))
        );
        assert_eq!((fold.words().count(), fold.ports().len()), (0, 0));
    }

    #[test]
    fn of_a_joined_class_only_quic_is_told_and_apart() {
        let mut fold = fold();
        let quic = r#"{"ip":"10.0.0.8","rp":4000,"quic":"rtt-smoothed=30"}"#;
        let both = |fold: &mut LoggedConnections, second| {
            told(fold, LINE, &answer(second, 10));
            told(fold, quic, &Answer { viewer: [b"v2", b""], ..answer(second, 10) });
        };
        both(&mut fold, 100);
        assert_eq!(view(&mut fold, 100).map(|view| view.viewers), Some(2));
        assert!(fold.beside().is_empty());
        fold.set_joined(BTreeSet::from([Name::new("live/a").expect("a name")]));
        both(&mut fold, 101);
        assert_eq!(view(&mut fold, 101), None);
        let beside = fold.beside();
        assert_eq!(
            (beside.len(), beside[0].1.viewers, beside[0].1.rtt.map(|rtt| rtt.p50.as_millis())),
            (1, 1, Some(30))
        );
    }

    #[test]
    fn made_up_classes_ports_and_names_are_bounded() {
        let mut fold = fold();
        for number in 0..MAX_CLASSES + 3 {
            told(&mut fold, LINE, &Answer { class: &format!("c{number}"), ..answer(100, 1) });
        }
        told(&mut fold, LINE, &Answer { class: "a\u{1}", ..answer(100, 1) });
        for port in 1..=40 {
            told(&mut fold, &format!(r#"{{"ip":"1.1.1.1","rp":9,"sp":{port}}}"#), &answer(100, 1));
        }
        assert_eq!(fold.counts(), ConnectionCounts { connections: 0, classes: 44, ports: 41 - MAX_PORTS as u64 });
        assert_eq!(fold.ports().len(), MAX_PORTS);
        fold.drain(Timestamp::from_secs(200));
        assert_eq!((fold.classes.indexes.len(), fold.connections.len()), (0, 0), "what is silent is forgotten");
    }
}
