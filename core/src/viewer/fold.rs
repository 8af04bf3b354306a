//! Reports of many viewers folded into what each class's viewers saw: the player's word from CDN logs and event posts.
//! Decides who is a viewer, to which class it belongs and when it is gone; refuses classes and viewers beyond its
//! bounds and counts them.

use std::sync::Arc;
use std::time::Duration;

use super::class_table::{ClassFold, ClassTable};
use super::group_table::Membership;
use super::origin::{GroupRules, Origin};
use super::playback::{PlaybackDelta, Viewer};
use super::table::{Place, ViewerTable};
use crate::base::ViewerSketch;
use crate::base::keyed_hash::sip_hash;
use crate::cmcd::Cmcd;
use crate::model::{Fact, GRID, Name, Observation, PlayerView, Protocol, SourceName, StreamKey, Timestamp};

/// The fold. One line costs a hash, a lookup and arithmetic: no allocation but for a class or viewer that is new.
#[derive(Clone, Debug)]
pub struct ViewerFold {
    key: ViewerKey,
    source: SourceName,
    classes: ClassTable,
    viewers: ViewerTable,
    swept: Option<Timestamp>,
    /// Number of the window that lines belong to now: it ends with the first drain on or after the grid's next point.
    window: u32,
    counts: FoldCounts,
    rules: GroupRules,
}

/// The key of the hashes that stand for viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewerKey {
    /// Of this process alone: nobody can tell that its viewers are those of another node.
    Own([u64; 2]),
    /// Of the fleet: sketches of who is present are made, and join with those of other nodes.
    Fleet([u64; 2]),
}

/// One request for an object of a class.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// When it was made.
    pub at: Timestamp,
    /// The class: its stream key or id.
    pub class: &'a str,
    /// What tells this viewer from others where it sent no `sid`: address, user agent, token.
    pub viewer: [&'a [u8]; 2],
    /// What says which groups it is in; read once of a viewer.
    pub origin: Origin<'a>,
    /// How the class is delivered, where the object's name says so.
    pub protocol: Option<Protocol>,
    /// Whether media was asked for; else a manifest.
    pub is_media: bool,
    /// Whether it was served. A class comes into being by media that was: what is not there cannot be served, so names
    /// that somebody makes up are no classes.
    pub is_served: bool,
    /// Bytes of the answer.
    pub bytes: Option<u64>,
}

/// What the fold took, left out and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldCounts {
    /// Requests taken.
    pub requests: u64,
    /// Event reports taken.
    pub events: u64,
    /// Event reports left out as repeated or too late.
    pub repeated: u64,
    /// Event reports that never came, by their numbers.
    pub lost: u64,
    /// Event reports of viewers that made no request yet, so that their class is not known.
    pub homeless: u64,
    /// Requests left out because their class had not served any media yet.
    pub unserved: u64,
    /// Requests refused at [`MAX_SESSIONS`] or because the class has no good name.
    pub refused_sessions: u64,
    /// Requests refused at [`MAX_VIEWERS`].
    pub refused_viewers: u64,
    /// Classes of which nearly nothing was heard, forgotten at [`MAX_SESSIONS`] for a new one.
    pub displaced_sessions: u64,
    /// Viewers heard once or no longer present, forgotten at [`MAX_VIEWERS`] for a new one.
    pub displaced_viewers: u64,
    /// Groups of viewers that could not be told apart from others at [`super::group_table::MAX_NAMED`].
    pub refused_groups: u64,
}

impl ViewerFold {
    /// An empty fold. `key` keeps identifiers of viewers from being kept or guessed; `source` is who is said to speak.
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

    /// How its viewers are grouped from now on; until then by its own key, and no proxy is believed.
    pub fn group_by(&mut self, rules: GroupRules) {
        self.rules = rules;
    }

    /// Folds one request.
    pub fn request(&mut self, request: &Request<'_>, set: &Cmcd<'_>) {
        let Some(session) = self.class_of(request) else {
            return;
        };
        let key = self.key.words();
        let id = match set.sid {
            Some(sid) => sip_hash(key, &[sid.raw()]),
            None => sip_hash(key, &request.viewer),
        };
        let Some(at) = self.viewer(id, session, request.at) else {
            self.counts.refused_viewers += 1;
            return;
        };
        let slot = self.viewers.get_mut(at);
        if slot.viewer.session != session {
            if let Some(left) = self.classes.get_mut(slot.viewer.session) {
                left.forget(slot.groups);
            }
            slot.viewer = Viewer::of(session);
            slot.groups = Membership::UNKNOWN;
            if let Some(entered) = self.classes.get_mut(session) {
                entered.kept += 1;
            }
        }
        let Some(fold) = self.classes.get_mut(session) else {
            return;
        };
        if slot.groups == Membership::UNKNOWN {
            self.counts.refused_groups += u64::from(slot.join(fold, &self.rules, &request.origin));
        }
        let was = fold.told;
        slot.viewer.request(request.at, set, &mut fold.told);
        slot.fares(request.at, was, fold);
        fold.start(&mut slot.viewer, set);
        fold.protocol = request.protocol.or(fold.protocol);
        if request.is_media {
            fold.requests += 1;
            if set.bs && slot.starved != self.window {
                slot.starved = self.window;
                fold.starved += 1;
            }
            if let Some(bytes) = request.bytes.filter(|_| request.is_served) {
                fold.bytes = Some(fold.bytes.unwrap_or(0).saturating_add(bytes));
            }
        }
        fold.hear();
        self.counts.requests += 1;
    }

    /// Folds one event report that arrived at `at`. Its class is that of the viewer's requests; a viewer without any is
    /// known by `class`, where the log says which class an event belongs to, and so are its groups by `origin`, where
    /// that is known.
    pub fn event(&mut self, at: Timestamp, class: Option<&str>, origin: Option<&Origin<'_>>, set: &Cmcd<'_>) {
        let Some(id) = set.sid.map(|sid| sip_hash(self.key.words(), &[sid.raw()])) else {
            self.counts.homeless += 1;
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
            self.counts.homeless += 1;
            return;
        };
        if let Some(origin) = origin.filter(|_| slot.groups == Membership::UNKNOWN) {
            self.counts.refused_groups += u64::from(slot.join(fold, &self.rules, origin));
        }
        let was = fold.told;
        slot.viewer.event(at, set, &mut fold.told);
        slot.fares(at, was, fold);
        fold.start(&mut slot.viewer, set);
        fold.protocol = fold.protocol.or(set.protocol());
        fold.hear();
        self.counts.events += 1;
    }

    /// The class that the viewer of this `sid` is counted in, where it is known.
    #[must_use]
    pub fn class_of_viewer(&self, sid: &[u8]) -> Option<&str> {
        let at = self.viewers.find(sip_hash(self.key.words(), &[sid]))?;
        self.classes.get(self.viewers.get(at).viewer.session)?.name.as_ref().map(Name::as_str)
    }

    /// What was told since the last drain: at most one observation a class. Viewers are looked through once a second.
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        if self.swept.is_none_or(|swept| now.floor(SWEEP) != swept.floor(SWEEP)) {
            self.sweep(now, false);
        }
        self.take(now)
    }

    /// The end of the input: counts every viewer up to its last word and gives all that was not told yet.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        self.sweep(now, true);
        self.take(now)
    }

    /// What was taken, left out and refused so far.
    #[must_use]
    pub const fn counts(&self) -> FoldCounts {
        FoldCounts { displaced_sessions: self.classes.displaced(), ..self.counts }
    }

    /// Viewers remembered now, and classes.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.viewers.len(), self.classes.len())
    }

    /// The class of a request; makes it where media was served.
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

    /// The viewer of this hash; makes it where there is room.
    fn viewer(&mut self, id: u64, session: u32, now: Timestamp) -> Option<usize> {
        match self.viewers.enter(id, session, (now - VIEWER_PRESENT).millis()) {
            Place::Known(at) => {
                self.viewers.get_mut(at).is_known = true;
                Some(at)
            }
            Place::New(at, gone) => {
                if let Some(left) = gone {
                    self.counts.displaced_viewers += 1;
                    if let Some(fold) = self.classes.get_mut(left.viewer.session) {
                        fold.forget(left.groups);
                    }
                }
                if let Some(fold) = self.classes.get_mut(session) {
                    fold.kept += 1;
                }
                Some(at)
            }
            Place::Full => None,
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
            // Its class made room for another, and it was not heard since.
            let Some(fold) = classes.get_mut(slot.viewer.session) else {
                return false;
            };
            let was = fold.told;
            slot.viewer.sweep(now, last, &mut fold.told);
            slot.fares(now, was, fold);
            let silent = millis.saturating_sub(slot.viewer.seen);
            if silent <= VIEWER_PRESENT.as_millis() as u64 {
                let (exposed, stutters) = slot.recent.at(millis);
                fold.present += 1;
                fold.exposed += u32::from(exposed);
                fold.stuttering += u32::from(stutters);
                if let Some(sketch) = &mut fold.sketch {
                    sketch.insert(slot.id);
                }
            }
            let stays = silent <= VIEWER_KEPT.as_millis() as u64;
            if !stays {
                fold.forget(slot.groups);
            }
            stays
        });
        self.classes.sweep();
    }

    fn take(&mut self, now: Timestamp) -> Vec<Observation> {
        self.window = (now.nanos() / GRID.as_nanos() as u64) as u32;
        let mut out = Vec::new();
        for fold in self.classes.iter_mut() {
            let news = fold.heard || fold.told != PlaybackDelta::default() || fold.present != fold.present_told;
            let Some(name) = fold.name.clone().filter(|_| news) else {
                continue;
            };
            fold.present_told = fold.present;
            let told = std::mem::take(&mut fold.told);
            fold.heard = false;
            self.counts.repeated += u64::from(told.repeated);
            self.counts.lost += u64::from(told.lost);
            let due = std::mem::take(&mut fold.groups_due);
            let groups = if due { fold.groups.take(fold.kept) } else { Vec::new() };
            let fact = Fact::Players(Box::new(PlayerView { groups, ..fold.view(told) }));
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
    fn view(&mut self, told: PlaybackDelta) -> PlayerView {
        PlayerView {
            protocol: self.protocol,
            viewers: self.present,
            exposure: Duration::from_millis(told.exposure_millis),
            stalled: Duration::from_millis(told.stalled_millis),
            stall_starts: told.starts,
            requests: Some(std::mem::take(&mut self.requests)),
            starved_viewers: Some(std::mem::take(&mut self.starved)),
            stutter_viewers: (self.exposed > 0).then_some((self.stuttering, self.exposed)),
            present: self.sketch.take().map(Arc::new),
            bytes: self.bytes.take(),
            first_frames: std::mem::take(&mut self.first_frames),
            ..PlayerView::default()
        }
    }

    /// Notes how long a viewer took to start, once. dash.js 5.2 sends 2 ms first and the truth after it.
    fn start(&mut self, viewer: &mut Viewer, set: &Cmcd<'_>) {
        if let Some(millis) = set.msd.filter(|millis| *millis >= LEAST_START_MILLIS && !viewer.started) {
            viewer.started = true;
            if self.first_frames.len() < crate::model::MAX_FIRST_FRAMES {
                self.first_frames.push(Duration::from_millis(u64::from(millis)));
            }
        }
    }
}

/// A viewer that was not heard for so long is not there any more.
pub(super) const VIEWER_PRESENT: Duration = Duration::from_secs(12);
/// A viewer that was not heard for so long is forgotten; one that comes back is new.
pub(super) const VIEWER_KEPT: Duration = Duration::from_secs(45);
const SWEEP: Duration = Duration::from_secs(1);
const LEAST_START_MILLIS: u32 = 10;
