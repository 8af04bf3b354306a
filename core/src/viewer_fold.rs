//! Reports of many viewers folded into what each class's viewers saw: the player's word from CDN logs and event posts. Decides who is a
//! viewer, to which class it belongs and when it is gone; refuses classes and viewers beyond its bounds and counts them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::cmcd::Cmcd;
use crate::observation::{Fact, Observation, PlayerView, SourceName};
use crate::session::{Name, Protocol, StreamKey};
use crate::sip_hash::sip_hash;
use crate::time::Timestamp;
use crate::viewer::{Told, Viewer};

/// The fold. One line costs a hash, a lookup and arithmetic: no allocation but for a class or viewer that is new.
#[derive(Clone, Debug)]
pub struct ViewerFold {
    key: [u64; 2],
    source: SourceName,
    sessions: BTreeMap<Name, u32>,
    folds: Vec<SessionFold>,
    free: Vec<u32>,
    viewers: HashMap<u64, Viewer, BuildHasherDefault<Hashed>>,
    swept: Option<Timestamp>,
    counts: FoldCounts,
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
    /// How the class is delivered, where the object's name says so.
    pub protocol: Option<Protocol>,
    /// Media bytes of the answer; `None` of a manifest.
    pub media_bytes: Option<u64>,
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
    /// Requests refused at [`MAX_SESSIONS`] or because the class has no good name.
    pub refused_sessions: u64,
    /// Requests refused at [`MAX_VIEWERS`].
    pub refused_viewers: u64,
}

#[derive(Clone, Debug, Default)]
struct SessionFold {
    name: Option<Name>,
    protocol: Option<Protocol>,
    kept: u32,
    present: u32,
    told: Told,
    bytes: Option<u64>,
    first_frames: Vec<Duration>,
    heard: bool,
}

impl ViewerFold {
    /// An empty fold. `key` keeps identifiers of viewers from being kept or guessed; `source` is who is said to speak.
    #[must_use]
    pub fn new(source: SourceName, key: [u64; 2]) -> Self {
        Self {
            key,
            source,
            sessions: BTreeMap::new(),
            folds: Vec::new(),
            free: Vec::new(),
            viewers: HashMap::default(),
            swept: None,
            counts: FoldCounts::default(),
        }
    }

    /// Folds one request.
    pub fn request(&mut self, request: &Request<'_>, set: &Cmcd<'_>) {
        let Some(session) = self.session(request.class) else {
            self.counts.refused_sessions += 1;
            return;
        };
        let id = match set.sid {
            Some(sid) => sip_hash(self.key, &[sid.raw()]),
            None => sip_hash(self.key, &request.viewer),
        };
        let room = self.viewers.len() < MAX_VIEWERS;
        let viewer = match self.viewers.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) if room => {
                self.folds[session as usize].kept += 1;
                entry.insert(Viewer::of(session))
            }
            std::collections::hash_map::Entry::Vacant(_) => {
                self.counts.refused_viewers += 1;
                return;
            }
        };
        if viewer.session != session {
            self.folds[viewer.session as usize].kept -= 1;
            self.folds[session as usize].kept += 1;
            *viewer = Viewer::of(session);
        }
        let fold = &mut self.folds[session as usize];
        viewer.request(request.at, set, &mut fold.told);
        fold.start(viewer, set);
        fold.protocol = request.protocol.or(fold.protocol);
        if let Some(bytes) = request.media_bytes {
            fold.bytes = Some(fold.bytes.unwrap_or(0).saturating_add(bytes));
        }
        fold.heard = true;
        self.counts.requests += 1;
    }

    /// Folds one event report that arrived at `at`. Its class is that of the viewer's requests; a viewer without any is known by
    /// `class`, where the log says which class an event belongs to.
    pub fn event(&mut self, at: Timestamp, class: Option<&str>, set: &Cmcd<'_>) {
        let Some(id) = set.sid.map(|sid| sip_hash(self.key, &[sid.raw()])) else {
            self.counts.homeless += 1;
            return;
        };
        if !self.viewers.contains_key(&id) {
            let room = self.viewers.len() < MAX_VIEWERS;
            let Some(session) = class.filter(|_| room).and_then(|class| self.session(class)) else {
                self.counts.homeless += 1;
                return;
            };
            self.folds[session as usize].kept += 1;
            self.viewers.insert(id, Viewer::of(session));
        }
        if let Some(viewer) = self.viewers.get_mut(&id) {
            let fold = &mut self.folds[viewer.session as usize];
            viewer.event(at, set, &mut fold.told);
            fold.start(viewer, set);
            fold.protocol = fold.protocol.or(set.protocol());
            fold.heard = true;
            self.counts.events += 1;
        }
    }

    /// The class that the viewer of this `sid` is counted in, where it is known.
    #[must_use]
    pub fn class_of(&self, sid: &[u8]) -> Option<&str> {
        let viewer = self.viewers.get(&sip_hash(self.key, &[sid]))?;
        self.folds[viewer.session as usize].name.as_ref().map(Name::as_str)
    }

    /// What was told since the last drain: at most one observation a class. Viewers are looked through once a second.
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        if self.swept.is_none_or(|swept| now.since(swept) >= SWEEP) {
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
        self.counts
    }

    /// Viewers remembered now, and classes.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.viewers.len(), self.sessions.len())
    }

    fn sweep(&mut self, now: Timestamp, last: bool) {
        self.swept = Some(now);
        for fold in &mut self.folds {
            fold.present = 0;
        }
        let folds = &mut self.folds;
        self.viewers.retain(|_, viewer| {
            let fold = &mut folds[viewer.session as usize];
            viewer.sweep(now, last, &mut fold.told);
            let silent = now.since(Timestamp::from_millis(viewer.seen));
            fold.present += u32::from(silent <= VIEWER_PRESENT);
            let stays = silent <= VIEWER_KEPT;
            fold.kept -= u32::from(!stays);
            stays
        });
        let (folds, free) = (&mut self.folds, &mut self.free);
        self.sessions.retain(|_, index| {
            let fold = &mut folds[*index as usize];
            let stays = fold.kept > 0 || fold.heard || fold.told != Told::default();
            if !stays {
                *fold = SessionFold::default();
                free.push(*index);
            }
            stays
        });
    }

    fn take(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut out = Vec::new();
        for fold in &mut self.folds {
            let Some(name) = fold.name.clone().filter(|_| fold.heard || fold.told != Told::default()) else {
                continue;
            };
            let told = std::mem::take(&mut fold.told);
            fold.heard = false;
            self.counts.repeated += u64::from(told.repeated);
            self.counts.lost += u64::from(told.lost);
            let view = PlayerView {
                protocol: fold.protocol,
                viewers: fold.present,
                exposure: Duration::from_millis(told.exposure_millis),
                stalled: Duration::from_millis(told.stalled_millis),
                stall_starts: told.starts,
                bytes: fold.bytes.take(),
                first_frames: std::mem::take(&mut fold.first_frames),
                ..PlayerView::default()
            };
            let fact = Fact::Players(Box::new(view));
            let (source, stream) = (self.source.clone(), StreamKey::of_session(name));
            out.push(Observation { source, stream, at: now, fact });
        }
        out
    }

    /// The fold of a class; makes it where there is room.
    fn session(&mut self, class: &str) -> Option<u32> {
        if let Some(index) = self.sessions.get(class) {
            return Some(*index);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return None;
        }
        let name = Name::new(class).ok()?;
        if let Some(index) = self.sessions.get(&name) {
            return Some(*index);
        }
        let fold = SessionFold { name: Some(name.clone()), ..SessionFold::default() };
        let index = if let Some(index) = self.free.pop() {
            self.folds[index as usize] = fold;
            index
        } else {
            self.folds.push(fold);
            self.folds.len() as u32 - 1
        };
        self.sessions.insert(name, index);
        Some(index)
    }
}

impl SessionFold {
    /// Notes how long a viewer took to start, once. dash.js 5.2 sends 2 ms first and the truth after it.
    fn start(&mut self, viewer: &mut Viewer, set: &Cmcd<'_>) {
        if let Some(millis) = set.msd.filter(|millis| *millis >= LEAST_START_MILLIS && !viewer.started) {
            viewer.started = true;
            if self.first_frames.len() < crate::leg::MAX_FIRST_FRAMES {
                self.first_frames.push(Duration::from_millis(u64::from(millis)));
            }
        }
    }
}

/// Passes on what is a keyed hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Most classes folded at once; more are counted in [`FoldCounts::refused_sessions`].
pub const MAX_SESSIONS: usize = 4_000;
/// Most viewers remembered of all classes; more are counted in [`FoldCounts::refused_viewers`].
pub const MAX_VIEWERS: usize = 500_000;
/// A viewer that was not heard for so long is not there any more.
pub const VIEWER_PRESENT: Duration = Duration::from_secs(12);
/// A viewer that was not heard for so long is forgotten; one that comes back is new.
pub const VIEWER_KEPT: Duration = Duration::from_secs(45);
const SWEEP: Duration = Duration::from_secs(1);
const LEAST_START_MILLIS: u32 = 10;
