//! Which class a TCP connection serves, by the word of the access log's lines. Decides how long a line speaks for its
//! connection and what becomes of one whose viewer moves on to another class; refuses a line that may be of an earlier
//! connection at the same address and port.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::join::SessionIndex;
use crate::access_log::transport::connection_hash;
use crate::base::Hashed;
use crate::model::{Name, Protocol, SourceName, Timestamp};

/// What the lines of one connection told since they were last handed on.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionReport {
    /// The class of its newest line.
    pub class: Name,
    /// How the class is delivered, where that is known.
    pub protocol: Option<Protocol>,
    /// A keyed hash of the viewer.
    pub viewer: u64,
    /// When its newest line was logged.
    pub seen: Timestamp,
    /// Its newest media answer.
    pub answer: Option<ServedResponse>,
}

/// A media answer that the server has handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedResponse {
    /// When its media was there to be sent: the request's first byte, or the upstream's answer where that came later.
    pub started: Timestamp,
    /// When its last byte was handed to the kernel.
    pub ended: Timestamp,
    /// How long it may take before its viewer falls behind, see [`allowance`]; `None` where its play time is not known.
    pub allowance: Option<Duration>,
    /// By how much the latest of the answers since the last word was beyond its allowance when it was handed on.
    pub late: Option<Duration>,
}

/// How long an answer with this play time may take before its viewer falls behind the class. A part (LL-HLS,
/// low-latency DASH) is newest media: nothing. A whole segment was collected for all of its play time before anybody
/// could ask for it, and a path that carries it within that time keeps up: only what goes beyond is lag.
#[must_use]
pub(crate) const fn allowance(play_time: Duration) -> Duration {
    if play_time.as_nanos() > LONGEST_PART.as_nanos() { play_time } else { Duration::ZERO }
}

/// The connections of all access logs of this node.
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
    /// The log.
    pub source: SourceName,
    /// The class.
    pub name: Name,
    /// How it is delivered, by the newest line that says so.
    pub protocol: Option<Protocol>,
    /// When one of its connections was last seen in a dump.
    pub joined: Option<Timestamp>,
    used: bool,
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Attribution {
    pub(crate) class: SessionIndex,
    pub(crate) viewer: u64,
    /// When its newest line was logged.
    pub(crate) seen: Timestamp,
    /// When its socket was last in a dump.
    held: Timestamp,
    /// What its lines told since the last dump.
    pub(crate) news: Option<ServedResponse>,
    /// The newest answer's allowance.
    pub(crate) allowance: Option<Duration>,
}

impl AttributionTable {
    /// No connection yet; `key` is the one that the words' hashes were made with.
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

    /// Takes what the lines of `source` told of connections, by their hashes. A word older than [`CLAIM_KEPT`] is left
    /// out: a log that is read late says nothing of the connections of now.
    pub fn take(&mut self, source: &SourceName, now: Timestamp, words: impl Iterator<Item = (u64, ConnectionReport)>) {
        for (connection, word) in words {
            if now.since(word.seen) <= CLAIM_KEPT {
                self.word(source, connection, &word);
            }
        }
        if self.swept.is_none_or(|swept| now.since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.sweep(now);
        }
    }

    fn word(&mut self, source: &SourceName, connection: u64, word: &ConnectionReport) {
        let room = self.connections.len() < MAX_CLAIMS;
        if !room && !self.connections.contains_key(&connection) {
            self.refused += 1;
            return;
        }
        let class = self.class(source, word);
        let allowance = word.answer.and_then(|answer| answer.allowance);
        let claim = self.connections.entry(connection).or_insert_with(|| Attribution {
            class,
            viewer: word.viewer,
            seen: word.seen,
            held: word.seen,
            news: None,
            allowance,
        });
        if claim.class != class {
            claim.news = None;
        }
        let late = claim.news.and_then(|news| news.late);
        claim.news = word.answer.map(|answer| ServedResponse { late: answer.late.max(late), ..answer }).or(claim.news);
        (claim.class, claim.viewer, claim.seen) = (class, word.viewer, claim.seen.max(word.seen));
        claim.allowance = allowance.or(claim.allowance);
    }

    fn class(&mut self, source: &SourceName, word: &ConnectionReport) -> SessionIndex {
        let known = self.indexes.get(source).and_then(|indexes| indexes.get(&word.class));
        let index = known.copied().unwrap_or_else(|| {
            let index = SessionIndex(self.next);
            // Never given twice while the process lives: 4 billion classes are more than it sees.
            self.next = self.next.wrapping_add(1);
            let (source, name) = (SourceName::clone(source), word.class.clone());
            self.indexes.entry(SourceName::clone(&source)).or_default().insert(name.clone(), index);
            self.classes.insert(index, Class { source, name, protocol: None, joined: None, used: true });
            index
        });
        if let Some(class) = self.classes.get_mut(&index) {
            class.protocol = word.protocol.or(class.protocol);
        }
        index
    }

    fn sweep(&mut self, now: Timestamp) {
        let classes = &mut self.classes;
        for class in classes.values_mut() {
            class.used = false;
        }
        self.connections.retain(|_, claim| {
            let stays = now.since(claim.seen.max(claim.held)) <= CLAIM_KEPT;
            if let Some(class) = classes.get_mut(&claim.class).filter(|_| stays) {
                class.used = true;
            }
            stays
        });
        classes.retain(|_, class| class.used);
        for indexes in self.indexes.values_mut() {
            indexes.retain(|_, index| classes.contains_key(index));
        }
    }

    /// The claim on the connection from `peer` to `port`, where a line since `since` told of it.
    pub(crate) fn find(
        &mut self,
        peer: SocketAddr,
        port: u16,
        at: Timestamp,
        since: Option<Timestamp>,
    ) -> Option<&mut Attribution> {
        // Logs that tell the listener's port and logs that do not may stand side by side.
        let told = connection_hash(self.key, peer, port);
        let hash = if self.connections.contains_key(&told) { told } else { connection_hash(self.key, peer, 0) };
        let claim = self.connections.get_mut(&hash)?;
        if since.is_some_and(|since| claim.seen < since) {
            return None;
        }
        claim.held = at;
        if let Some(class) = self.classes.get_mut(&claim.class) {
            class.joined = Some(at);
        }
        Some(claim)
    }

    /// A class by its number.
    #[must_use]
    pub fn class_of(&self, index: SessionIndex) -> Option<&Class> {
        self.classes.get(&index)
    }

    /// The classes of `source` of which connections were lately found in a dump, so that the kernel speaks for them.
    #[must_use]
    pub fn joined(&self, source: &SourceName, now: Timestamp) -> BTreeSet<Name> {
        let fresh = |class: &&Class| class.joined.is_some_and(|joined| now.since(joined) <= CLAIM_SPEAKS);
        let classes = self.classes.values().filter(|class| class.source == *source);
        classes.filter(fresh).map(|class| class.name.clone()).collect()
    }

    /// Connections remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no connection is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Words refused at [`MAX_CLAIMS`]; a total.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

/// The longest media object that is a part of a segment; LL-HLS parts are 0.2 to 1 s long.
pub(crate) const LONGEST_PART: Duration = Duration::from_secs(1);
/// Most connections remembered of all logs; more are counted in [`AttributionTable::refused`].
pub(crate) const MAX_CLAIMS: usize = 200_000;
/// A connection without a line and without a socket for so long is forgotten.
pub(crate) const CLAIM_KEPT: Duration = Duration::from_mins(1);
/// A line speaks for its connection's viewer so long, and beyond it while the connection carries what was asked for.
pub(crate) const CLAIM_SPEAKS: Duration = Duration::from_secs(12);
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [1, 2];

    fn word(class: &str, seen: u64) -> ConnectionReport {
        let class = Name::new(class).expect("a name");
        ConnectionReport {
            class,
            protocol: Some(Protocol::Hls),
            viewer: 7,
            seen: Timestamp::from_secs(seen),
            answer: None,
        }
    }

    fn peer() -> SocketAddr {
        "10.0.0.9:4000".parse().expect("an address")
    }

    fn claims(words: impl IntoIterator<Item = (u16, ConnectionReport)>, now: u64) -> AttributionTable {
        let mut claims = AttributionTable::new(KEY);
        let words = words.into_iter().map(|(port, word)| (connection_hash(KEY, peer(), port), word));
        claims.take(&"log".into(), Timestamp::from_secs(now), words);
        claims
    }

    fn named(claims: &AttributionTable) -> usize {
        claims.indexes.values().map(HashMap::len).sum()
    }

    fn name_of(claims: &mut AttributionTable, port: u16, since: Option<u64>) -> Option<String> {
        let since = since.map(Timestamp::from_secs);
        let class = claims.find(peer(), port, Timestamp::from_secs(100), since)?.class;
        Some(claims.class_of(class)?.name.to_string())
    }

    #[test]
    fn a_connection_is_found_by_both_ends_or_by_the_peer_alone() {
        let mut told = claims([(443, word("live/a", 99))], 100);
        assert_eq!(name_of(&mut told, 443, None).as_deref(), Some("live/a"));
        assert_eq!(name_of(&mut told, 80, None), None, "another listener");
        let mut untold = claims([(0, word("live/a", 99))], 100);
        assert_eq!(name_of(&mut untold, 80, None).as_deref(), Some("live/a"));
    }

    #[test]
    fn a_line_before_the_socket_was_there_is_of_an_earlier_connection() {
        let mut claims = claims([(443, word("live/a", 95))], 100);
        assert_eq!(name_of(&mut claims, 443, Some(96)), None);
        assert_eq!(name_of(&mut claims, 443, Some(95)).as_deref(), Some("live/a"));
    }

    #[test]
    fn a_viewer_moves_on_and_its_old_class_is_let_go() {
        let mut claims = claims([(443, word("live/a", 99)), (443, word("live/b", 100))], 100);
        assert_eq!(name_of(&mut claims, 443, None).as_deref(), Some("live/b"));
        claims.take(&"log".into(), Timestamp::from_secs(101), std::iter::empty());
        assert_eq!((claims.classes.len(), named(&claims), claims.len()), (1, 1, 1));
        let joined = |source: &str, second| claims.joined(&source.into(), Timestamp::from_secs(second)).len();
        assert_eq!(joined("log", 112), 1);
        assert_eq!((joined("log", 113), joined("other", 101)), (0, 0), "no dump had it for long; another log's");
    }

    #[test]
    fn what_is_silent_is_forgotten_and_what_is_old_is_not_taken() {
        let mut claims = claims([(443, word("live/a", 100)), (80, word("live/b", 39))], 100);
        assert_eq!(claims.len(), 1);
        claims.find(peer(), 443, Timestamp::from_secs(150), None).expect("there");
        claims.take(&"log".into(), Timestamp::from_secs(210), std::iter::empty());
        assert_eq!(claims.len(), 1, "its socket was there at 150");
        claims.take(&"log".into(), Timestamp::from_secs(211), std::iter::empty());
        assert!(claims.is_empty() && claims.classes.is_empty() && named(&claims) == 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut claims = AttributionTable::new(KEY);
        let words = (0..MAX_CLAIMS as u64 + 5).map(|hash| (hash, word("live/a", 100)));
        claims.take(&"log".into(), Timestamp::from_secs(100), words);
        assert_eq!((claims.len(), claims.refused()), (MAX_CLAIMS, 5));
    }

    #[test]
    fn the_latest_answer_stands_for_its_like_and_the_worst_for_lateness() {
        let handed = |ended, late| ServedResponse {
            started: Timestamp::from_secs(ended - 1),
            ended: Timestamp::from_secs(ended),
            allowance: Some(Duration::ZERO),
            late: Some(Duration::from_millis(late)),
        };
        let with = |answer| ConnectionReport { answer: Some(answer), ..word("live/a", 100) };
        let mut claims = claims([(443, with(handed(98, 900))), (443, with(handed(99, 10)))], 100);
        let news = claims.find(peer(), 443, Timestamp::from_secs(100), None).expect("there").news.take();
        let news = news.expect("news");
        assert_eq!((news.ended, news.late), (Timestamp::from_secs(99), Some(Duration::from_millis(900))));
        assert_eq!(allowance(Duration::from_millis(333)), Duration::ZERO);
        assert_eq!(allowance(Duration::from_secs(2)), Duration::from_secs(2));
    }
}
