//! All live sessions of the node. Decides which stream belongs to which class, and when a class opens, is sampled and
//! closes. Refuses sessions and announcements beyond its limits, and counts them.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;
use std::time::Duration;

use super::live_session::Live;
use super::timeouts::SessionTimeouts;
use crate::model::{
    Batch, Checkpoint, CloseReason, Closed, Descriptor, Entry, Fact, GRID, Known, Name, Observation, Opened, Session,
    StreamKey, Timestamp, Window,
};

/// Most announced classes that no source has reported yet.
pub(super) const MAX_REGISTRATIONS: usize = 20_000;

/// An announcement whose stream never came is dropped after this.
pub(super) const REGISTRATION_KEPT: Duration = Duration::from_hours(24);

/// What was refused at the limits so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Observations of streams beyond the limit of sessions.
    pub sessions: u64,
    /// Announcements beyond the limit of 20,000.
    pub registrations: u64,
}

/// The live sessions.
#[derive(Clone, Debug)]
pub struct Registry {
    timeouts: SessionTimeouts,
    max_sessions: usize,
    sessions: BTreeMap<Name, Box<Live>>,
    streams: BTreeMap<StreamKey, Name>,
    registrations: BTreeMap<StreamKey, (Timestamp, Descriptor)>,
    last_cut: Option<Timestamp>,
    renamed: Vec<Closed>,
    refused: Refused,
    /// Changes that must outlive the daemon, since they were last taken.
    entries: Vec<Entry>,
}

impl Registry {
    /// An empty registry of at most `max_sessions` live sessions.
    #[must_use]
    pub fn new(timeouts: SessionTimeouts, max_sessions: usize) -> Self {
        Self {
            timeouts,
            max_sessions,
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
            registrations: BTreeMap::new(),
            last_cut: None,
            renamed: Vec::new(),
            refused: Refused::default(),
            entries: Vec::new(),
        }
    }

    /// Applies new timeouts and a new limit, to live sessions too.
    pub fn set_timeouts(&mut self, timeouts: SessionTimeouts, max_sessions: usize) {
        self.timeouts = timeouts;
        self.max_sessions = max_sessions;
    }

    /// Folds an observation.
    pub fn observe(&mut self, observation: Observation) {
        let reported = match &observation.fact {
            Fact::Described(descriptor) => descriptor.session_id.clone(),
            Fact::Gone if !self.streams.contains_key(&observation.stream) => return,
            _ => None,
        };
        let Some(id) = self.session_of(&observation, reported) else {
            self.refused.sessions += 1;
            return;
        };
        if let Some(live) = self.sessions.get_mut(&id) {
            live.observe(observation);
        }
    }

    /// The platform announces a class, or reports more about a live one. Without `stream` it is the one whose key, or
    /// last part of it, is the id. Gives whether there was room.
    pub fn register(&mut self, id: &Name, stream: Option<StreamKey>, descriptor: Descriptor, at: Timestamp) -> bool {
        let descriptor = Descriptor { session_id: Some(id.clone()), ..descriptor };
        if let Some(live) = self.sessions.get_mut(id) {
            live.describe(descriptor.clone());
        }
        let Some(stream) = stream.or_else(|| StreamKey::parse(id.as_str()).ok()) else {
            return true;
        };
        if let Some(known) = self.stream_named(&stream) {
            let source = PLATFORM.with(Arc::clone);
            self.observe(Observation { source, stream: known, at, fact: Fact::Described(Box::new(descriptor)) });
            return true;
        }
        if self.registrations.len() >= MAX_REGISTRATIONS && !self.registrations.contains_key(&stream) {
            self.withdraw(|(since, _)| at.since(*since) >= REGISTRATION_KEPT);
            if self.registrations.len() >= MAX_REGISTRATIONS {
                self.refused.registrations += 1;
                return false;
            }
        }
        self.entries.push(Entry::Announced(stream.clone(), at, Box::new(descriptor.clone())));
        self.registrations.insert(stream, (at, descriptor));
        true
    }

    /// The platform ends a class. Gives whether it was known.
    pub fn end(&mut self, id: &Name, at: Timestamp) -> bool {
        let announced = self.registrations.len();
        self.withdraw(|(_, descriptor)| descriptor.session_id.as_ref() == Some(id));
        match self.sessions.get_mut(id) {
            Some(live) => {
                live.end(at);
                true
            }
            None => self.registrations.len() < announced,
        }
    }

    /// Forgets all live sessions; announcements stay.
    pub fn forget(&mut self) {
        self.sessions.clear();
        self.streams.clear();
        self.renamed.clear();
        self.last_cut = None;
        self.entries.push(Entry::Forgotten);
    }

    /// Restores what was live and announced when the daemon stopped. Gives the sessions that had opened.
    pub(crate) fn resume(&mut self, checkpoint: &Checkpoint, now: Timestamp) -> Vec<Arc<Session>> {
        let mut opened = Vec::new();
        for (id, class) in &checkpoint.classes {
            let live = Box::new(Live::resumed(class, now));
            opened.extend(live.opened.then(|| Arc::clone(&live.session)));
            self.streams.extend(class.known.streams.iter().map(|stream| (stream.clone(), id.clone())));
            self.sessions.insert(id.clone(), live);
        }
        let kept = checkpoint.announced.iter().filter(|(_, (since, _))| now.since(*since) < REGISTRATION_KEPT);
        self.registrations.extend(kept.map(|(stream, announced)| (stream.clone(), announced.clone())));
        // A window that was cut before is not cut again.
        self.last_cut = self.last_cut.or_else(|| checkpoint.last_cut().map(|cut| cut.max(now.floor(GRID))));
        opened
    }

    /// Whether neither the class nor any of its streams is known.
    pub(crate) fn is_new(&self, id: &Name, streams: &[StreamKey]) -> bool {
        !self.sessions.contains_key(id) && streams.iter().all(|stream| !self.streams.contains_key(stream))
    }

    /// Whether a class is announced for the stream, or live on it.
    pub(crate) fn is_announced(&self, stream: &StreamKey) -> bool {
        self.registrations.contains_key(stream) || self.streams.contains_key(stream)
    }

    /// Takes the changes that must outlive the daemon.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        let mut entries = std::mem::take(&mut self.entries);
        let changed = self.sessions.iter_mut().filter_map(|(id, live)| live.take_changed().then(|| (id, live.known())));
        let mut changed: BTreeMap<&Name, Known> = changed.collect();
        if !changed.is_empty() {
            for (stream, id) in &self.streams {
                if let Some(known) = changed.get_mut(id) {
                    known.streams.push(stream.clone());
                }
            }
        }
        entries.extend(changed.into_iter().map(|(id, known)| Entry::Known(id.clone(), Box::new(known))));
        entries
    }

    /// One tick: opens what is settled, cuts the window when a grid point was passed, and closes at the cut what is
    /// over.
    pub fn tick(&mut self, now: Timestamp) -> Batch {
        let mut batch = Batch { opened: self.open(now), ..Batch::default() };
        for live in self.sessions.values_mut() {
            live.check_over(now, &self.timeouts);
        }
        let last_cut = *self.last_cut.get_or_insert_with(|| now.floor(GRID));
        let Some(window) = Window::due(last_cut, now) else {
            return batch;
        };
        self.last_cut = Some(window.end);
        batch.window = Some(window);
        batch.closed = std::mem::take(&mut self.renamed);
        for live in self.sessions.values_mut().filter(|live| live.opened) {
            batch.samples.push(live.cut(window));
        }
        self.close(&mut batch);
        batch
    }

    /// The live sessions in the order of their ids, without those not opened yet.
    pub fn sessions(&self) -> impl Iterator<Item = &Live> {
        self.sessions.values().map(Box::as_ref).filter(|live| live.opened)
    }

    /// The live session of this id.
    #[must_use]
    pub fn session(&self, id: &Name) -> Option<&Live> {
        self.sessions.get(id).map(Box::as_ref)
    }

    /// What was refused at the limits.
    #[must_use]
    pub const fn refused(&self) -> Refused {
        self.refused
    }

    fn open(&mut self, now: Timestamp) -> Vec<Opened> {
        let mut opened = Vec::new();
        for live in self.sessions.values_mut().filter(|live| !live.opened) {
            if live.is_settled(now, &self.timeouts) && live.is_alive(now) {
                live.opened = true;
                let session = Arc::clone(&live.session);
                opened.push(Opened { session, at: live.started(), connection_id: live.connection_id().cloned() });
            }
        }
        opened
    }

    fn close(&mut self, batch: &mut Batch) {
        for (id, live) in self.sessions.extract_if(.., |_, live| live.over().is_some()) {
            self.entries.push(Entry::Gone(id));
            if let Some((reason, at)) = live.over().filter(|_| live.opened) {
                batch.closed.push(Closed { session: live.session, at, reason });
            }
        }
        let sessions = &self.sessions;
        self.streams.retain(|_, id| sessions.contains_key(id));
    }

    /// The id of the session that an observation belongs to; creates the session where there is room.
    fn session_of(&mut self, observation: &Observation, reported: Option<Name>) -> Option<Name> {
        let stream = &observation.stream;
        let known = self.streams.get(stream).cloned();
        let id = match (known, reported) {
            (Some(known), None) => return Some(known),
            (Some(known), Some(reported)) if known == reported => return Some(known),
            (Some(known), Some(reported)) => {
                self.rename(stream, &known, &reported, observation.at);
                return Some(reported);
            }
            (None, reported) => reported,
        };
        let mut descriptor = self.announced(stream).unwrap_or_default();
        if id.is_some() {
            descriptor.session_id.clone_from(&id);
        }
        let id = descriptor.session_id.clone().unwrap_or_else(|| stream.name().clone());
        if !self.sessions.contains_key(&id) {
            if self.sessions.len() >= self.max_sessions {
                return None;
            }
            self.sessions.insert(id.clone(), Box::new(Live::new(stream.clone(), descriptor, observation.at)));
        }
        self.streams.insert(stream.clone(), id.clone());
        if let Some(live) = self.sessions.get_mut(&id) {
            live.touch();
        }
        Some(id)
    }

    /// Moves a stream to another class than it was attributed to.
    fn rename(&mut self, stream: &StreamKey, was: &Name, reported: &Name, at: Timestamp) {
        self.streams.insert(stream.clone(), reported.clone());
        let shared = self.streams.values().any(|id| id == was);
        let Some(old) = self.sessions.get_mut(was) else {
            return;
        };
        let servers = old.release(stream);
        let mut live =
            Live::new(stream.clone(), Descriptor { session_id: Some(reported.clone()), ..Descriptor::default() }, at);
        if !shared {
            // The whole session was this stream: it continues under the new id with all that was folded.
            if let Some(old) = self.sessions.remove(was) {
                self.entries.push(Entry::Gone(was.clone()));
                if old.opened {
                    let session = Arc::clone(&old.session);
                    self.renamed.push(Closed { session, at, reason: CloseReason::Renamed });
                }
                live = old.renamed(reported.clone());
            }
        }
        match self.sessions.entry(reported.clone()) {
            btree_map::Entry::Vacant(empty) => empty.insert(Box::new(live)).adopt(servers),
            btree_map::Entry::Occupied(known) => {
                let known = known.into_mut();
                known.absorb(live);
                known.adopt(servers);
                known.touch();
            }
        }
    }

    fn announced(&mut self, stream: &StreamKey) -> Option<Descriptor> {
        let whole = self.registrations.contains_key(stream);
        let key = if whole { stream.clone() } else { stream.last_part()? };
        let (_, descriptor) = self.registrations.remove(&key)?;
        self.entries.push(Entry::Withdrawn(key));
        Some(descriptor)
    }

    fn withdraw(&mut self, which: impl Fn(&(Timestamp, Descriptor)) -> bool) {
        let gone = self.registrations.extract_if(.., |_, announced| which(announced));
        self.entries.extend(gone.map(|(stream, _)| Entry::Withdrawn(stream)));
    }

    /// The live stream with this key, or with this last part.
    fn stream_named(&self, stream: &StreamKey) -> Option<StreamKey> {
        if self.streams.contains_key(stream) {
            return Some(stream.clone());
        }
        self.streams.keys().find(|live| live.last_part().as_ref() == Some(stream)).cloned()
    }
}

thread_local! {
    static PLATFORM: Arc<str> = Arc::from("platform");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, ServerView, Total};

    const NGINX: &str = "nginx-rtmp";

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000) + Duration::from_millis(millis)
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a good name")
    }

    fn stream(text: &str) -> StreamKey {
        StreamKey::parse(text).expect("a good key")
    }

    fn fact(millis: u64, fact: Fact) -> Observation {
        Observation { source: NGINX.into(), stream: stream("live/c1"), at: at(millis), fact }
    }

    fn view(millis: u64, publishing: bool, viewers: u32) -> Observation {
        let view = ServerView {
            publishing: Some(publishing),
            ingest_bytes: Some(Total { base: 1, value: millis * 125 }),
            viewers: Some(vec![(Protocol::Rtmp, viewers)]),
            ..ServerView::default()
        };
        fact(millis, Fact::Server(Box::new(view)))
    }

    fn described(millis: u64, id: &str) -> Observation {
        let descriptor = Descriptor { session_id: Some(name(id)), ..Descriptor::default() };
        fact(millis, Fact::Described(Box::new(descriptor)))
    }

    /// Polls each second and ticks each 250 ms over `span`; gives what opened, the samples and what closed.
    fn run(registry: &mut Registry, span: std::ops::Range<u64>, poll: impl Fn(u64) -> Option<Observation>) -> Batch {
        let mut all = Batch::default();
        for millis in span.step_by(250) {
            if millis % 1_000 == 0
                && let Some(observation) = poll(millis)
            {
                registry.observe(observation);
            }
            let batch = registry.tick(at(millis));
            all.opened.extend(batch.opened);
            all.samples.extend(batch.samples);
            all.closed.extend(batch.closed);
        }
        all
    }

    #[test]
    fn a_class_opens_is_sampled_and_closes() {
        let mut registry = Registry::new(SessionTimeouts::default(), 10);
        let live = run(&mut registry, 0..20_250, |millis| Some(view(millis, true, 3)));
        assert_eq!(live.opened.len(), 1);
        assert_eq!(live.opened[0].session.id.as_str(), "live/c1", "no id was reported within the grace time");
        let sample = live.samples.last().expect("cut at 5, 10, 15 and 20 s");
        assert_eq!(live.samples.len(), 4);
        assert!((sample.bitrate().expect("two polls").value - 1_000_000.0).abs() < 1.0);
        assert_eq!(sample.viewers().map(|viewers| viewers.value), Some(3));
        assert_eq!(sample.fps(), None, "what a server does not report is absent");

        let over = run(&mut registry, 20_250..31_000, |millis| Some(fact(millis, Fact::Gone)));
        assert_eq!(over.closed.len(), 1);
        assert_eq!((over.closed[0].reason, over.closed[0].at), (CloseReason::Ended, at(21_000)));
        assert_eq!(registry.sessions().count(), 0);
    }

    #[test]
    fn a_reported_id_opens_at_once_and_a_late_one_renames() {
        let mut registry = Registry::new(SessionTimeouts::default(), 10);
        registry.observe(view(0, true, 0));
        registry.observe(described(100, "s1"));
        assert_eq!(registry.tick(at(250)).opened[0].session.id.as_str(), "s1");
        registry.observe(described(6_000, "s2"));
        let renamed = run(&mut registry, 6_000..10_250, |millis| Some(view(millis, true, 0)));
        assert_eq!(renamed.opened[0].session.id.as_str(), "s2");
        assert_eq!(renamed.closed[0].reason, CloseReason::Renamed);
        assert_eq!(renamed.closed[0].session.id.as_str(), "s1");
    }

    #[test]
    fn an_announced_class_is_known_by_its_stream_or_by_the_last_part() {
        for announced in [Some(stream("live/c1")), None] {
            let mut registry = Registry::new(SessionTimeouts::default(), 10);
            let id = if announced.is_some() { name("s9") } else { name("c1") };
            let class = Descriptor { course_id: Some(name("math")), ..Descriptor::default() };
            assert!(registry.register(&id, announced, class, at(0)));
            registry.observe(view(1_000, true, 0));
            let opened = registry.tick(at(1_250)).opened;
            assert_eq!((&opened[0].session.id, &opened[0].session.course_id), (&id, &Some(name("math"))));
        }
    }

    #[test]
    fn waiting_viewers_keep_a_class_open_for_a_minute() {
        let mut registry = Registry::new(SessionTimeouts::default(), 10);
        run(&mut registry, 0..10_000, |millis| Some(view(millis, true, 5)));
        let waiting = run(&mut registry, 10_000..65_000, |millis| Some(view(millis, false, 5)));
        assert!(waiting.closed.is_empty());
        let lost = run(&mut registry, 65_000..80_000, |millis| Some(view(millis, false, 5)));
        assert_eq!(lost.closed[0].reason, CloseReason::PublisherLost);
    }

    #[test]
    fn a_silent_source_ends_no_class_for_a_minute_and_its_figures_are_absent() {
        let mut registry = Registry::new(SessionTimeouts::default(), 10);
        run(&mut registry, 0..10_000, |millis| Some(view(millis, true, 5)));
        let silent = run(&mut registry, 10_000..60_000, |_| None);
        assert!(silent.closed.is_empty());
        let last = silent.samples.last().expect("still cut");
        assert_eq!((last.viewers(), last.bitrate(), last.publishing), (None, None, None));
        let given_up = run(&mut registry, 60_000..80_000, |_| None);
        assert_eq!(given_up.closed[0].reason, CloseReason::IdleTimeout);
    }

    #[test]
    fn sessions_beyond_the_limit_are_refused_and_counted() {
        let mut registry = Registry::new(SessionTimeouts::default(), 1);
        registry.observe(view(0, true, 0));
        let mut other = view(0, true, 0);
        other.stream = stream("live/c2");
        registry.observe(other);
        assert_eq!(registry.refused().sessions, 1);
    }

    #[test]
    fn two_streams_of_one_class_make_one_sample() {
        let mut registry = Registry::new(SessionTimeouts::default(), 10);
        let on = |observation: Observation, text| Observation { stream: stream(text), ..observation };
        let batch = run(&mut registry, 0..10_250, |_| None);
        assert!(batch.samples.is_empty());
        for text in ["live/camera", "live/screen"] {
            registry.observe(on(described(10_300, "s1"), text));
            registry.observe(on(view(10_300, true, 4), text));
        }
        let batch = run(&mut registry, 10_500..15_250, |_| None);
        assert_eq!(batch.samples.len(), 1);
        assert_eq!(batch.samples[0].viewers().map(|viewers| viewers.value), Some(8));
    }

    #[test]
    fn the_platform_ends_a_class() {
        let mut registry = Registry::new(SessionTimeouts::default(), 10);
        registry.observe(described(0, "s1"));
        run(&mut registry, 0..5_000, |millis| Some(view(millis, true, 5)));
        assert!(registry.end(&name("s1"), at(5_000)));
        assert!(!registry.end(&name("nobody"), at(5_000)));
        let ended = run(&mut registry, 5_250..10_250, |_| None);
        assert_eq!(ended.closed[0].reason, CloseReason::Ended);
    }
}
