//! One live session: the reports of all its sources, folded. Decides what its sample contains and whether the class is
//! still live; a silent source alone does not end a class.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::leg::LiveLeg;
use super::server_view::ServerState;
use super::timeouts::SessionTimeouts;
use crate::base::SmallMap;
use crate::model::{
    Class, CloseReason, Descriptor, Fact, Known, Leg, LegSample, Measured, Name, Observation, Protocol, Provenance,
    Sample, ServerView, Session, SourceName, StreamKey, Timestamp, Window,
};

/// A live session.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its identity.
    pub session: Arc<Session>,
    pub(crate) opened: bool,
    descriptor: Descriptor,
    first_seen: Timestamp,
    last_seen: Timestamp,
    away_since: Option<Timestamp>,
    ended: bool,
    over: Option<(CloseReason, Timestamp)>,
    servers: SmallMap<(StreamKey, SourceName), ServerState>,
    legs: SmallMap<Protocol, LiveLeg>,
    publisher_rtt: Option<Duration>,
    /// After a restart: when it was last sampled before, until a source reports it again.
    unseen_since: Option<Timestamp>,
    /// Whether its [`Known`] part changed since it was last taken.
    changed: bool,
}

impl Live {
    pub(crate) fn new(stream: StreamKey, descriptor: Descriptor, at: Timestamp) -> Self {
        let session = Arc::new(descriptor.session(stream, None));
        Self {
            session,
            opened: false,
            descriptor,
            first_seen: at,
            last_seen: at,
            away_since: None,
            ended: false,
            over: None,
            servers: SmallMap::new(),
            legs: SmallMap::new(),
            publisher_rtt: None,
            unseen_since: None,
            changed: true,
        }
    }

    /// The class as it was when the daemon stopped, not reported since.
    pub(crate) fn resumed(class: &Class, now: Timestamp) -> Self {
        let mut live = Self::new(class.known.stream.clone(), class.known.descriptor.clone(), class.known.first_seen);
        if let Some(traced) = &class.traced {
            live.opened = true;
            let (trace_parent, trace_state) = (traced.trace_parent, traced.trace_state.clone());
            let opened = Session { trace_parent, trace_state, ..(*live.session).clone() };
            live.session = Arc::new(opened);
        }
        live.last_seen = now;
        live.ended = class.known.ended;
        live.unseen_since = Some(class.last_sampled.unwrap_or(class.known.first_seen));
        live.changed = false;
        live
    }

    /// Its identity, without its streams, as it is kept on disk.
    pub(crate) fn known(&self) -> Known {
        Known {
            stream: self.session.stream.clone(),
            streams: Vec::new(),
            descriptor: self.descriptor.clone(),
            first_seen: self.first_seen,
            ended: self.ended,
        }
    }

    /// Marks its [`Known`] part as changed.
    pub(crate) const fn touch(&mut self) {
        self.changed = true;
    }

    /// Whether its [`Known`] part changed since the last call.
    pub(crate) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        let at = observation.at;
        self.last_seen = self.last_seen.max(at);
        self.unseen_since = None;
        match observation.fact {
            Fact::Described(descriptor) => self.describe(*descriptor),
            Fact::Server(view) => self.update_server((observation.stream, observation.source), at, *view),
            Fact::Path(view) => {
                self.publisher_rtt = view.publisher_rtt.or(self.publisher_rtt);
                // Without viewers it reports the publisher alone, and that is no leg.
                if view.viewers > 0 || self.legs.get(&view.protocol).is_some() {
                    self.legs.at(view.protocol, LiveLeg::default).path(at, *view);
                }
            }
            Fact::Players(view) => {
                let protocol = view.protocol.unwrap_or(Protocol::Mixed);
                self.legs.at(protocol, LiveLeg::default).players(at, *view);
            }
            Fact::Gone => {
                let key = (observation.stream, observation.source);
                if self.servers.values().next().is_none() {
                    // The source listed it before the daemon restarted.
                    self.servers.at(key.clone(), ServerState::default);
                }
                if let Some(server) = self.servers.get_mut(&key) {
                    server.mark_gone(at);
                }
            }
        }
    }

    /// Takes over what the platform reports. The id and, once opened, the trace stay as they are.
    pub(crate) fn describe(&mut self, descriptor: Descriptor) {
        let before = self.descriptor.clone();
        self.descriptor.merge(descriptor);
        self.changed |= self.descriptor != before;
        let stream = self.session.stream.clone();
        let opened = self.opened.then_some(self.session.as_ref());
        let session = self.descriptor.session(stream, opened);
        if *self.session != session {
            self.session = Arc::new(session);
        }
    }

    /// Gives up the servers' state of `stream`, for the session it now belongs to; the legs stay.
    pub(crate) fn release(&mut self, stream: &StreamKey) -> Vec<((StreamKey, SourceName), ServerState)> {
        self.servers.take(|(key, _)| key == stream)
    }

    pub(crate) fn adopt(&mut self, servers: Vec<((StreamKey, SourceName), ServerState)>) {
        for (key, server) in servers {
            self.servers.at(key, || server);
        }
    }

    /// Takes over what was folded for a class that turned out to be this one.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (protocol, leg) in other.legs {
            self.legs.at(protocol, LiveLeg::default).absorb(leg);
        }
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.publisher_rtt = self.publisher_rtt.or(other.publisher_rtt);
    }

    /// The same session under the id that the platform reported, not opened yet.
    pub(crate) fn renamed(mut self, id: Name) -> Self {
        self.opened = false;
        self.changed = true;
        self.descriptor.session_id = Some(id);
        self.describe(Descriptor::default());
        self
    }

    pub(crate) fn end(&mut self, at: Timestamp) {
        self.ended = true;
        self.changed = true;
        self.away_since.get_or_insert(at);
    }

    fn update_server(&mut self, key: (StreamKey, SourceName), at: Timestamp, mut view: ServerView) {
        if let Some(protocol) = view.ingest_protocol
            && self.descriptor.stream_type.is_none()
        {
            self.describe(Descriptor { stream_type: Some(protocol), ..Descriptor::default() });
        }
        if view.publishing == Some(true) {
            self.away_since = None;
        }
        view.clients.truncate(MAX_CLIENTS);
        self.servers.at(key, ServerState::default).update(at, view);
    }

    /// When its first byte was seen: the publisher's start where a server reports a plausible one.
    pub(crate) fn started(&self) -> Timestamp {
        self.servers
            .values()
            .filter_map(ServerState::started)
            .min()
            .map_or(self.first_seen, |at| at.min(self.first_seen))
    }

    pub(crate) fn connection_id(&self) -> Option<&Name> {
        self.descriptor.connection_id.as_ref()
    }

    /// The publisher's round trip, where its connection was found.
    #[must_use]
    pub fn publisher_rtt(&self) -> Option<Duration> {
        self.publisher_rtt
    }

    /// Whether its identity is settled: reported by the platform, or the grace time is over.
    pub(crate) fn is_settled(&self, now: Timestamp, timeouts: &SessionTimeouts) -> bool {
        self.descriptor.session_id.is_some() || now.since(self.first_seen) >= timeouts.identity_grace
    }

    /// Whether there is a class at all: a publisher sends, or players report.
    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        self.publisher_state(now) == Some(true) || self.legs.values().any(|leg| leg.reporting_players(now).is_some())
    }

    /// Why it is over and since when, as of the last tick.
    pub(crate) const fn over(&self) -> Option<(CloseReason, Timestamp)> {
        self.over
    }

    /// Checks whether it is over. A publisher that returns before the cut cancels the end; an end by the platform
    /// stays.
    pub(crate) fn check_over(&mut self, now: Timestamp, timeouts: &SessionTimeouts) {
        self.over = self.find_end(now, timeouts);
    }

    fn find_end(&mut self, now: Timestamp, timeouts: &SessionTimeouts) -> Option<(CloseReason, Timestamp)> {
        if self.ended {
            return Some((CloseReason::Ended, self.away_since.unwrap_or(now)));
        }
        if now.since(self.last_seen) > timeouts.idle_timeout {
            let unseen = self.unseen_since.map(|last| (CloseReason::EndedUnseen, last));
            return unseen.or(Some((CloseReason::IdleTimeout, self.last_seen)));
        }
        if self.publisher_state(now)? {
            self.away_since = None;
            return None;
        }
        let newest = self.servers.values().map(ServerState::at).max().unwrap_or(now);
        let away_since = *self.away_since.get_or_insert(newest);
        let away = now.since(away_since);
        if self.viewers(now).values().any(|count| *count > 0) {
            (away >= timeouts.publisher_grace).then_some((CloseReason::PublisherLost, away_since))
        } else {
            (away >= timeouts.linger).then_some((CloseReason::Ended, away_since))
        }
    }

    /// Whether a publisher is connected: `Some(true)` as soon as one server reports it, `Some(false)` when all that
    /// report deny it, `None` when no current report says either.
    #[must_use]
    pub fn publisher_state(&self, now: Timestamp) -> Option<bool> {
        let mut denied = None;
        for server in self.servers.values() {
            match server.present(now).map(|view| view.publishing) {
                Some(Some(true)) => return Some(true),
                Some(Some(false)) => denied = Some(false),
                None if server.is_gone() => denied = Some(false),
                Some(None) | None => {}
            }
        }
        denied
    }

    /// Since when the publisher is away.
    #[must_use]
    pub fn away_since(&self) -> Option<Timestamp> {
        self.away_since
    }

    /// Viewers by protocol, as the servers count them.
    #[must_use]
    pub fn viewers(&self, now: Timestamp) -> BTreeMap<Protocol, u32> {
        let mut viewers = BTreeMap::new();
        for view in self.servers.values().filter_map(|server| server.present(now)) {
            for (protocol, count) in view.viewers.iter().flatten() {
                let sum: &mut u32 = viewers.entry(*protocol).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        viewers
    }

    /// The legs to the viewers.
    pub fn legs(&self) -> impl Iterator<Item = (Protocol, &LiveLeg)> {
        self.legs.iter().map(|(protocol, leg)| (*protocol, leg))
    }

    /// The state of each server's view of each stream.
    pub fn servers(&self) -> impl Iterator<Item = (&StreamKey, &SourceName, &ServerState)> {
        self.servers.iter().map(|((stream, source), server)| (stream, source, server))
    }

    /// Media bytes per second that each viewer should receive: what the publisher sends.
    #[must_use]
    pub fn media_rate(&self, now: Timestamp) -> Option<f64> {
        self.servers.values().find_map(|server| server.ingest_bitrate(now)).map(|bits| bits / 8.0)
    }

    /// The newest view of a server that sees the publisher, and its time.
    pub(crate) fn publishing(&self, now: Timestamp) -> Option<(Timestamp, &ServerView)> {
        let current = self.servers.values().filter_map(|server| Some((server.at(), server.present(now)?)));
        let mut sending = current.filter(|(_, view)| view.publishing == Some(true) && view.ingest_bytes.is_some());
        sending.next()
    }

    /// Frames per second that the encoder declares.
    #[must_use]
    pub fn declared_fps(&self, now: Timestamp) -> Option<f64> {
        self.servers.values().find_map(|server| server.present(now)?.declared_fps)
    }

    /// Cuts the window.
    pub(crate) fn cut(&mut self, window: Window) -> Sample {
        let now = window.end;
        let viewers = self.viewers(now);
        let mut legs = BTreeMap::new();
        for (protocol, live) in self.legs.iter_mut() {
            let mut leg = live.cut(Leg::Egress(*protocol));
            leg.viewers =
                live.reporting_players(now).map(|count| Measured { value: count, source: Provenance::Player });
            legs.insert(*protocol, leg);
        }
        for (protocol, count) in &viewers {
            let leg = legs.entry(*protocol).or_insert_with(|| LegSample::empty(Leg::Egress(*protocol)));
            leg.viewers = Some(Measured { value: *count, source: Provenance::Server });
        }
        let ingest = self.cut_servers(now, &mut legs);
        Sample {
            session: Arc::clone(&self.session),
            window,
            declared_fps: self.declared_fps(now),
            publishing: self.publisher_state(now),
            partial: self.servers.values().filter_map(|server| server.present(now)).any(|view| view.partial),
            interactions: self.descriptor.interactions,
            legs: ingest.into_iter().chain(legs.into_values()).collect(),
        }
    }

    /// The ingest leg; what the servers count of egress goes to `legs`.
    fn cut_servers(&mut self, now: Timestamp, legs: &mut BTreeMap<Protocol, LegSample>) -> Option<LegSample> {
        let by_server = |value| Some(Measured { value, source: Provenance::Server });
        let mut ingest: Option<LegSample> = None;
        let mut counted: Option<&StreamKey> = None;
        let mut by_servers = BTreeSet::new();
        for ((stream, _), server) in self.servers.iter_mut() {
            let (bytes_in, frames_in, bytes_out) = server.take_deltas();
            if bytes_in.is_some() || frames_in.is_some() {
                let leg = ingest.get_or_insert_with(|| LegSample::empty(Leg::Ingest));
                // Several sources count the same media of one stream; several streams of a class carry different media.
                if counted.replace(stream) == Some(stream) {
                    leg.bytes = leg.bytes.or(bytes_in);
                    leg.frames = leg.frames.or(frames_in);
                } else {
                    add(&mut leg.bytes, bytes_in);
                    add(&mut leg.frames, frames_in);
                }
                leg.bitrate = leg.bitrate.or(server.ingest_bitrate(now).and_then(by_server));
                leg.fps = leg.fps.or(server.ingest_fps(now).and_then(by_server));
            }
            if let (Some(protocol), Some(bytes)) = (server.egress_protocol(), bytes_out) {
                // The server counts the whole audience, players only themselves.
                if let Some(players) = legs.get_mut(&protocol).filter(|_| !by_servers.contains(&protocol)) {
                    players.bytes = None;
                }
                by_servers.insert(protocol);
                let leg = legs.entry(protocol).or_insert_with(|| LegSample::empty(Leg::Egress(protocol)));
                add(&mut leg.bytes, Some(bytes));
                leg.bitrate = leg.bitrate.or(server.egress_bitrate(now).and_then(by_server));
            }
        }
        ingest
    }
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// Most connections of one stream kept for the kernel's join: with more it would cost more than it is worth.
pub(super) const MAX_CLIENTS: usize = 20_000;
