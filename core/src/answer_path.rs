//! The way to each viewer of an HTTP edge, from dump to dump, for sockets that the access log claims. Decides how long what a viewer asked
//! for has been on its way beyond what keeps up with the class; what no line claims is told per listener and of no class.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::claim::{CLAIM_SPEAKS, Claim, Claims, Handed};
use crate::sip_hash::Hashed;
use crate::tcp::TcpReading;
use crate::tcp_join::SessionIndex;
use crate::tcp_loss::TcpLoss;
use crate::tcp_path::{FORGET_AFTER_DUMPS, Folds, GONE_AFTER, JOIN_BURST, MAX_TRACKED};
use crate::time::Timestamp;

/// What is remembered of each socket of the edge's listeners between dumps. At most [`MAX_TRACKED`] sockets.
#[derive(Debug, Default)]
pub struct AnswerTable {
    tracks: HashMap<u64, Track, Hashed>,
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

impl AnswerTable {
    /// Takes in one dump made at `at` and folds each socket that a line claims into its class's fold. `folds` is emptied first.
    ///
    /// Delivery latency of a viewer = time underway beyond the answer's allowance, plus RTT/2. Underway is an answer since its media could
    /// be sent: measured by the log up to its hand-over to the kernel, from there until a dump finds it acknowledged. Of an answer that is
    /// not logged yet it is the time for which dumps saw bytes wait. Both are floors by up to one dump. A viewer for whom nothing waits has
    /// all it asked for: half its round trip.
    pub fn step(&mut self, at: Timestamp, dump: &[TcpReading], claims: &mut Claims, folds: &mut Folds) {
        folds.clear();
        self.listeners.values_mut().for_each(Listener::clear);
        self.viewers.clear();
        self.dumps += 1;
        for reading in dump {
            if !self.tracks.contains_key(&reading.identity) && self.tracks.len() >= MAX_TRACKED {
                self.untracked += 1;
                continue;
            }
            // A line told of this very socket if it is younger than the last dump without it; of one that was always there, if younger than that.
            let since = self.last.unwrap_or(at);
            let track = self.tracks.entry(reading.identity).or_insert_with(|| Track::new(at, since));
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
            // What was sent since the dump before belongs to one class only if the connection carried that one then too.
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
struct Track {
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
}

/// The end of an answer.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// The connection's byte after it.
    position: u64,
    started: Timestamp,
}

impl Track {
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
        }
    }

    /// Moves on to `reading`; `None` when no line speaks for the socket now.
    fn fold(&mut self, at: Timestamp, reading: &TcpReading, claim: Option<&mut Claim>) -> Option<(SessionIndex, Seen)> {
        let waits = reading.wqueue_bytes > 0;
        if !waits || reading.bytes_acked.is_none() || reading.bytes_acked != self.bytes_acked {
            self.progressed = at;
        }
        let claim = claim.filter(|claim| waits || at.since(claim.seen) <= CLAIM_SPEAKS);
        let (news, allowance) =
            claim.as_ref().map_or((None, None), |claim| (claim.news, claim.allowance));
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
            let late = allowance.map(|allowance| underway.saturating_sub(allowance));
            let late = late.max(news.and_then(|news| news.late));
            let latency = late.zip(reading.rtt).map(|(late, rtt)| late.saturating_add(rtt / 2));
            latency.map_or(Latency::Unmeasured, Latency::Of)
        };
        Some((claim.class, Seen::There { viewer: claim.viewer, latency }))
    }

    /// How long what waits for the viewer has been on its way; zero when nothing waits.
    fn underway(&mut self, at: Timestamp, reading: &TcpReading, news: Option<Handed>) -> Duration {
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
            // A player asks again when it has what it asked for. So a request after the answer's own leaves nothing of it on the way, and
            // where the two cannot be told apart nothing is claimed.
            let held = news.started < looked && !asked_again;
            let position = reading.bytes_acked.map(|acked| acked + u64::from(reading.wqueue_bytes));
            self.tail = position.filter(|_| held).map(|position| Tail { position, started: news.started });
            self.busy_since = Some(news.ended.min(at));
        }
        let busy_since = *self.busy_since.get_or_insert(at);
        at.since(self.tail.map_or(busy_since, |tail| tail.started.min(busy_since)))
    }
}
