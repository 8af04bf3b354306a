//! The fold of CMCD requests and event reports: what each class's viewers experienced. Decides who is a viewer, to
//! which class it belongs and when it has left. Classes and viewers beyond its bounds are refused and counted.

use std::sync::Arc;
use std::time::Duration;

use super::class_table::{ClassFold, ClassTable};
use super::delta::PlaybackDelta;
use super::group_table::Membership;
use super::origin::{GroupRules, Origin};
use super::playback::Viewer;
use super::table::{Admission, ViewerTable};
use crate::base::ViewerSketch;
use crate::base::keyed_hash::sip_hash;
use crate::cmcd::Cmcd;
use crate::model::{Fact, GRID, Name, Observation, PlayerView, Protocol, SourceName, StreamKey, Timestamp};

/// The fold of one source. One line costs a hash, a lookup and arithmetic; only a new class or viewer allocates.
#[derive(Clone, Debug)]
pub struct ViewerFold {
    key: ViewerKey,
    source: SourceName,
    classes: ClassTable,
    viewers: ViewerTable,
    swept: Option<Timestamp>,
    /// Number of the sample window that lines count for: it ends with the first drain at or after the grid's next
    /// point.
    window: u32,
    counts: FoldCounts,
    rules: GroupRules,
}

/// The key of the hashes that stand for viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewerKey {
    /// A key of this process alone: its hashes cannot be compared with those of other nodes.
    Own([u64; 2]),
    /// A key of the fleet: sketches of present viewers are made, and merge with those of other nodes.
    Fleet([u64; 2]),
}

/// One request for an object of a class.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// When it was made.
    pub at: Timestamp,
    /// The class: its stream key or id.
    pub class: &'a str,
    /// What identifies a viewer that sends no `sid`: address, user agent, token.
    pub viewer: [&'a [u8]; 2],
    /// What assigns the viewer to groups; read once per viewer.
    pub origin: Origin<'a>,
    /// How the class is delivered, where the object's name implies it.
    pub protocol: Option<Protocol>,
    /// Whether it is for media rather than a manifest.
    pub is_media: bool,
    /// Whether it was served. A class is created only by served media: what does not exist cannot be served, so
    /// invented names create no classes.
    pub is_served: bool,
    /// Bytes of the response.
    pub bytes: Option<u64>,
}

/// Requests and reports that were accepted, dropped and refused; running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldCounts {
    /// Accepted requests.
    pub requests: u64,
    /// Accepted event reports.
    pub events: u64,
    /// Event reports dropped as repeated or too late.
    pub repeated: u64,
    /// Event reports that never arrived, by their sequence numbers.
    pub lost: u64,
    /// Event reports of viewers without a request, whose class is not known.
    pub unmatched: u64,
    /// Requests dropped because their class has not served any media yet.
    pub unserved: u64,
    /// Requests refused at [`MAX_SESSIONS`](super::MAX_SESSIONS) or because the class's name is invalid.
    pub refused_sessions: u64,
    /// Requests refused at [`MAX_VIEWERS`](super::MAX_VIEWERS).
    pub refused_viewers: u64,
    /// Classes with very few requests, evicted at [`MAX_SESSIONS`](super::MAX_SESSIONS) for a new one.
    pub displaced_sessions: u64,
    /// Viewers seen once or no longer present, evicted at [`MAX_VIEWERS`](super::MAX_VIEWERS) for a new one.
    pub displaced_viewers: u64,
    /// Groups of viewers merged into the others at [`MAX_NAMED`](super::group_table::MAX_NAMED).
    pub refused_groups: u64,
}

impl ViewerFold {
    /// An empty fold. `key` hashes viewers, so that no identifier is kept or can be guessed; `source` is the source
    /// named in the observations.
    #[must_use]
    pub fn new(source: SourceName, key: impl Into<ViewerKey>) -> Self {
        let key = key.into();
        Self {
            key,
            source,
            classes: ClassTable::new(key.words()),
            viewers: ViewerTable::default(),
            swept: None,
            window: 0,
            counts: FoldCounts::default(),
            rules: GroupRules { key: key.words(), ..GroupRules::default() },
        }
    }

    /// Sets how viewers are grouped from now on; until then the fold's own key is used, and no proxy is trusted.
    pub fn group_by(&mut self, rules: GroupRules) {
        self.rules = rules;
    }

    /// Folds one request.
    pub fn request(&mut self, request: &Request<'_>, cmcd: &Cmcd<'_>) {
        let Some(session) = self.class_of(request) else {
            return;
        };
        let key = self.key.words();
        let id = match cmcd.sid {
            Some(sid) => sip_hash(key, &[sid.raw()]),
            None => sip_hash(key, &request.viewer),
        };
        let Some(at) = self.viewer(id, session, request.at) else {
            self.counts.refused_viewers += 1;
            return;
        };
        let slot = self.viewers.get_mut(at);
        if slot.viewer.session != session {
            if let Some(evicted) = self.classes.get_mut(slot.viewer.session) {
                evicted.forget(slot.groups);
            }
            slot.viewer = Viewer::of(session);
            slot.groups = Membership::UNKNOWN;
            if let Some(joined) = self.classes.get_mut(session) {
                joined.viewers += 1;
            }
        }
        let Some(fold) = self.classes.get_mut(session) else {
            return;
        };
        if slot.groups == Membership::UNKNOWN {
            self.counts.refused_groups += u64::from(slot.assign_groups(fold, &self.rules, &request.origin));
        }
        let before = fold.delta;
        slot.viewer.request(request.at, cmcd, &mut fold.delta);
        slot.record_delta(request.at, before, fold);
        fold.record_start(&mut slot.viewer, cmcd);
        fold.protocol = request.protocol.or(fold.protocol);
        if request.is_media {
            fold.requests += 1;
            if cmcd.bs && slot.starved != self.window {
                slot.starved = self.window;
                fold.starved += 1;
            }
            if let Some(bytes) = request.bytes.filter(|_| request.is_served) {
                fold.bytes = Some(fold.bytes.unwrap_or(0).saturating_add(bytes));
            }
        }
        fold.record_activity();
        self.counts.requests += 1;
    }

    /// Folds one event report that arrived at `at`. It counts for the class of the viewer's requests. A viewer without
    /// requests is assigned to `class`, where the log implies it, and to the groups of `origin`, where that is known.
    pub fn event(&mut self, at: Timestamp, class: Option<&str>, origin: Option<&Origin<'_>>, cmcd: &Cmcd<'_>) {
        let Some(id) = cmcd.sid.map(|sid| sip_hash(self.key.words(), &[sid.raw()])) else {
            self.counts.unmatched += 1;
            return;
        };
        let known = self.viewers.find(id).or_else(|| {
            let session = self.classes.enter(class?)?;
            self.viewer(id, session, at)
        });
        let slot = known.map(|known| self.viewers.get_mut(known));
        let Some((slot, fold)) = slot.and_then(|slot| {
            let session = slot.viewer.session;
            Some((slot, self.classes.get_mut(session)?))
        }) else {
            self.counts.unmatched += 1;
            return;
        };
        if let Some(origin) = origin.filter(|_| slot.groups == Membership::UNKNOWN) {
            self.counts.refused_groups += u64::from(slot.assign_groups(fold, &self.rules, origin));
        }
        let before = fold.delta;
        slot.viewer.event(at, cmcd, &mut fold.delta);
        slot.record_delta(at, before, fold);
        fold.record_start(&mut slot.viewer, cmcd);
        fold.protocol = fold.protocol.or(cmcd.protocol());
        fold.record_activity();
        self.counts.events += 1;
    }

    /// The class of the viewer with this `sid`, where it is known.
    #[must_use]
    pub fn class_of_viewer(&self, sid: &[u8]) -> Option<&str> {
        let at = self.viewers.find(sip_hash(self.key.words(), &[sid]))?;
        self.classes.get(self.viewers.get(at).viewer.session)?.name.as_ref().map(Name::as_str)
    }

    /// What was reported since the last drain, at most one observation a class. All viewers are visited once a second.
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        if self.swept.is_none_or(|swept| now.floor(SWEEP_INTERVAL) != swept.floor(SWEEP_INTERVAL)) {
            self.sweep(now, false);
        }
        self.report(now)
    }

    /// The rest at the end of the input: counts every viewer up to its last report.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        self.sweep(now, true);
        self.report(now)
    }

    /// The running totals.
    #[must_use]
    pub const fn counts(&self) -> FoldCounts {
        FoldCounts { displaced_sessions: self.classes.displaced(), ..self.counts }
    }

    /// Number of viewers and of classes remembered now.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.viewers.len(), self.classes.len())
    }

    /// The class of a request; created where media was served.
    fn class_of(&mut self, request: &Request<'_>) -> Option<u32> {
        let known = self.classes.find(request.class);
        if known.is_some() {
            return known;
        }
        if !(request.is_media && request.is_served) {
            self.counts.unserved += 1;
            return None;
        }
        let made = self.classes.enter(request.class);
        self.counts.refused_sessions += u64::from(made.is_none());
        made
    }

    /// The viewer of this hash; created where there is room.
    fn viewer(&mut self, id: u64, session: u32, now: Timestamp) -> Option<usize> {
        match self.viewers.enter(id, session, (now - VIEWER_PRESENT).millis()) {
            Admission::Known(at) => {
                self.viewers.get_mut(at).is_known = true;
                Some(at)
            }
            Admission::New(at, evicted) => {
                if let Some(evicted) = evicted {
                    self.counts.displaced_viewers += 1;
                    if let Some(fold) = self.classes.get_mut(evicted.viewer.session) {
                        fold.forget(evicted.groups);
                    }
                }
                if let Some(fold) = self.classes.get_mut(session) {
                    fold.viewers += 1;
                }
                Some(at)
            }
            Admission::Full => None,
        }
    }

    fn sweep(&mut self, now: Timestamp, last: bool) {
        self.swept = Some(now);
        let sketches = matches!(self.key, ViewerKey::Fleet(_));
        for fold in self.classes.iter_mut() {
            (fold.present, fold.exposed, fold.stuttering) = (0, 0, 0);
            fold.sketch = sketches.then(ViewerSketch::default);
            fold.groups_due = true;
        }
        let (classes, millis) = (&mut self.classes, now.millis());
        self.viewers.retain(|slot| {
            // Its class was evicted, and it has not been seen since.
            let Some(fold) = classes.get_mut(slot.viewer.session) else {
                return false;
            };
            let before = fold.delta;
            slot.viewer.sweep(now, last, &mut fold.delta);
            slot.record_delta(now, before, fold);
            let idle = millis.saturating_sub(slot.viewer.seen);
            if idle <= VIEWER_PRESENT.as_millis() as u64 {
                let (exposed, stutters) = slot.recent.at(millis);
                fold.present += 1;
                fold.exposed += u32::from(exposed);
                fold.stuttering += u32::from(stutters);
                if let Some(sketch) = &mut fold.sketch {
                    sketch.insert(slot.id);
                }
            }
            let is_kept = idle <= VIEWER_KEPT.as_millis() as u64;
            if !is_kept {
                fold.forget(slot.groups);
            }
            is_kept
        });
        self.classes.sweep();
    }

    fn report(&mut self, now: Timestamp) -> Vec<Observation> {
        self.window = (now.nanos() / GRID.as_nanos() as u64) as u32;
        let mut out = Vec::new();
        for fold in self.classes.iter_mut() {
            let is_due = fold.active || fold.delta != PlaybackDelta::default() || fold.present != fold.present_reported;
            let Some(name) = fold.name.clone().filter(|_| is_due) else {
                continue;
            };
            fold.present_reported = fold.present;
            let delta = std::mem::take(&mut fold.delta);
            fold.active = false;
            self.counts.repeated += u64::from(delta.repeated);
            self.counts.lost += u64::from(delta.lost);
            let due = std::mem::take(&mut fold.groups_due);
            let groups = if due { fold.groups.take(fold.viewers) } else { Vec::new() };
            let fact = Fact::Players(Box::new(PlayerView { groups, ..fold.view(delta) }));
            let (source, stream) = (self.source.clone(), StreamKey::of_session(name));
            out.push(Observation { source, stream, at: now, fact });
        }
        out
    }
}

impl From<[u64; 2]> for ViewerKey {
    fn from(key: [u64; 2]) -> Self {
        Self::Own(key)
    }
}

impl ViewerKey {
    /// The key itself.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        match self {
            Self::Own(key) | Self::Fleet(key) => key,
        }
    }
}

impl ClassFold {
    fn view(&mut self, delta: PlaybackDelta) -> PlayerView {
        PlayerView {
            protocol: self.protocol,
            viewers: self.present,
            exposure: Duration::from_millis(delta.exposure_millis),
            stalled: Duration::from_millis(delta.stalled_millis),
            stall_starts: delta.starts,
            requests: Some(std::mem::take(&mut self.requests)),
            starved_viewers: Some(std::mem::take(&mut self.starved)),
            stutter_viewers: (self.exposed > 0).then_some((self.stuttering, self.exposed)),
            present: self.sketch.take().map(Arc::new),
            bytes: self.bytes.take(),
            first_frames: std::mem::take(&mut self.first_frames),
            ..PlayerView::default()
        }
    }

    /// Records a viewer's start time, once. dash.js 5.2 first sends 2 ms and then the true value.
    fn record_start(&mut self, viewer: &mut Viewer, cmcd: &Cmcd<'_>) {
        if let Some(millis) = cmcd.msd.filter(|millis| *millis >= MIN_START_MILLIS && !viewer.started) {
            viewer.started = true;
            if self.first_frames.len() < crate::model::MAX_FIRST_FRAMES {
                self.first_frames.push(Duration::from_millis(u64::from(millis)));
            }
        }
    }
}

/// A viewer without a report for this long is no longer present.
pub(super) const VIEWER_PRESENT: Duration = Duration::from_secs(12);
/// A viewer without a report for this long is forgotten; one that returns is new.
pub(super) const VIEWER_KEPT: Duration = Duration::from_secs(45);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const MIN_START_MILLIS: u32 = 10;
