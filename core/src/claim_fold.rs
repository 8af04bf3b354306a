//! What an access log's lines tell of connections: the words by which the kernel's sockets are joined to classes, and the round trip, lag
//! and QUIC loss that the lines themselves carry. Decides nothing of viewers' players; refuses connections beyond its bounds and counts them.

use std::collections::HashMap;
use std::time::Duration;

use crate::claim::{Handed, Word, allowance};
use crate::latencies::Latencies;
use crate::log_format::Line;
use crate::observation::{Fact, Observation, PathView, Rtt, SourceName};
use crate::session::{Name, Protocol, StreamKey};
use crate::sip_hash::{Hashed, sip_hash};
use crate::tcp_path::JOIN_BURST;
use crate::time::Timestamp;
use crate::wire::{QuicTotals, Wire, connection_hash};

/// The fold of one log's connections.
#[derive(Clone, Debug)]
pub struct ClaimFold {
    key: [u64; 2],
    source: SourceName,
    play_time: Option<Duration>,
    connections: HashMap<u64, Connection, Hashed>,
    classes: HashMap<Name, Class>,
    words: Option<HashMap<u64, Word, Hashed>>,
    drained: Option<Timestamp>,
    ports: Vec<u16>,
    counts: ClaimCounts,
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
pub struct ClaimCounts {
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

/// What the lines of a class told since the last drain.
#[derive(Clone, Debug, Default)]
struct Class {
    protocol: Option<Protocol>,
    seen: Timestamp,
    viewers: Vec<u64>,
    rtts: Vec<Duration>,
    latencies: Latencies,
    packets: Option<(u64, u64)>,
}

impl ClaimFold {
    /// An empty fold. `key` is that of all logs of the node; `play_time` that of one segment where players do not tell it.
    #[must_use]
    pub fn new(source: SourceName, key: [u64; 2], play_time: Option<Duration>) -> Self {
        Self {
            key,
            source,
            play_time,
            connections: HashMap::default(),
            classes: HashMap::new(),
            words: None,
            drained: None,
            ports: Vec::new(),
            counts: ClaimCounts::default(),
        }
    }

    /// With another play time of one segment.
    pub const fn set_play_time(&mut self, play_time: Option<Duration>) {
        self.play_time = play_time;
    }

    /// Keeps words from now on, for [`ClaimFold::words`].
    pub fn keep_words(&mut self) {
        self.words.get_or_insert_default();
    }

    /// Takes one line that told of its connection.
    pub fn answer(&mut self, line: &Line<'_>, answer: &Answer<'_>) {
        let Some(wire) = Wire::of(line) else {
            return;
        };
        let [first, second] = answer.viewer;
        let viewer =
            if second.is_empty() { sip_hash(self.key, &[first]) } else { sip_hash(self.key, &answer.viewer) };
        let handed = answer.took.map(|took| self.handed(answer, took.saturating_sub(wire.waited.unwrap_or_default())));
        let known = wire.peer.and_then(|peer| self.connection(answer.logged, peer, &wire));
        let Some(class) = class(&mut self.classes, answer) else {
            self.counts.classes += 1;
            return;
        };
        class.viewers.push(viewer);
        let (hash, joining, quic) = known.map_or((None, false, None), |(hash, joining, quic)| (Some(hash), joining, quic));
        if let Some((sent, lost)) = quic {
            let (all, of_them) = class.packets.unwrap_or_default();
            class.packets = Some((all.saturating_add(sent), of_them.saturating_add(lost)));
        }
        if class.rtts.len() < MAX_FIGURES {
            class.rtts.extend(wire.rtt);
        }
        if let (Some(late), Some(rtt), false) = (handed.and_then(|handed| handed.late), wire.rtt, joining) {
            class.latencies.record(late.saturating_add(rtt / 2));
        }
        if let (Some(hash), false) = (hash, wire.is_quic) {
            self.word(hash, answer, viewer, handed);
        }
    }

    fn handed(&self, answer: &Answer<'_>, underway: Duration) -> Handed {
        let allowance = answer.play_time.or(self.play_time).map(allowance);
        Handed {
            started: answer.logged - underway,
            ended: answer.logged,
            allowance,
            late: allowance.map(|allowance| underway.saturating_sub(allowance)),
        }
    }

    /// The connection's hash, whether it is in its join burst, and the packets (sent, lost) that QUIC told since its last line.
    fn connection(
        &mut self,
        at: Timestamp,
        peer: std::net::SocketAddr,
        wire: &Wire,
    ) -> Option<(u64, bool, Option<(u64, u64)>)> {
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
        let quic = wire.quic.zip(was).and_then(|(now, was)| now.since(was));
        Some((hash, at.since(connection.first) < JOIN_BURST, quic))
    }

    fn word(&mut self, hash: u64, answer: &Answer<'_>, viewer: u64, handed: Option<Handed>) {
        let Some(words) = &mut self.words else {
            return;
        };
        if let Some(word) = words.get_mut(&hash).filter(|word| word.class.as_str() == answer.class) {
            let late = word.answer.and_then(|was| was.late);
            word.answer = handed.map(|handed| Handed { late: handed.late.max(late), ..handed }).or(word.answer);
            (word.viewer, word.seen) = (viewer, word.seen.max(answer.logged));
            word.protocol = answer.protocol.or(word.protocol);
        } else if let Some((class, _)) = self.classes.get_key_value(answer.class) {
            let (class, protocol, seen) = (class.clone(), answer.protocol, answer.logged);
            words.insert(hash, Word { class, protocol, viewer, seen, answer: handed });
        }
    }

    /// The words of all connections since the last call.
    pub fn words(&mut self) -> impl Iterator<Item = (u64, Word)> {
        self.words.iter_mut().flat_map(HashMap::drain)
    }

    /// The listeners' ports that lines named.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// What the bounds cost so far.
    #[must_use]
    pub const fn counts(&self) -> ClaimCounts {
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
        let out = self.classes.iter_mut().filter_map(|(name, class)| {
            let view = class.take()?;
            let (source, stream) = (self.source.clone(), StreamKey::of_session(name.clone()));
            Some(Observation { source, stream, at: now, fact: Fact::Path(Box::new(view)) })
        });
        let out = out.collect();
        self.classes.retain(|_, class| now.since(class.seen) <= KEPT);
        out
    }
}

impl Class {
    fn take(&mut self) -> Option<PathView> {
        self.viewers.sort_unstable();
        self.viewers.dedup();
        let viewers = self.viewers.len() as u32;
        self.viewers.clear();
        let rtt = Rtt::of(&mut self.rtts);
        self.rtts.clear();
        let packets = self.packets.take();
        (viewers > 0 && (rtt.is_some() || packets.is_some())).then(|| PathView {
            protocol: self.protocol.unwrap_or(Protocol::Mixed),
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

/// The class of a line; made where there is room.
fn class<'a>(classes: &'a mut HashMap<Name, Class>, answer: &Answer<'_>) -> Option<&'a mut Class> {
    if !classes.contains_key(answer.class) {
        let name = Name::new(answer.class).ok().filter(|name| name.as_str() == answer.class)?;
        if classes.len() >= MAX_CLASSES {
            return None;
        }
        classes.insert(name, Class::default());
    }
    let class = classes.get_mut(answer.class)?;
    class.protocol = answer.protocol.or(class.protocol);
    class.seen = class.seen.max(answer.logged);
    Some(class)
}

/// Most connections remembered of one log; more are counted in [`ClaimCounts::connections`].
pub const MAX_CONNECTIONS: usize = 200_000;
/// Most classes of one log; more are counted in [`ClaimCounts::classes`].
pub const MAX_CLASSES: usize = 4_000;
/// Most listeners of one log; more are counted in [`ClaimCounts::ports`].
pub const MAX_PORTS: usize = 32;
/// Most round trips of one class kept in a second; a class of more is told by the first of them.
pub const MAX_FIGURES: usize = 4_096;
const EVERY: Duration = Duration::from_secs(1);
const KEPT: Duration = Duration::from_mins(1);
