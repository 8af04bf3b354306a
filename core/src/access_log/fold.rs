//! An access log folded line by line into what each class's viewers saw. Decides which lines are media requests and
//! which are event posts, and when each was; counts what cannot be read by its reason and never stops for it.

use std::time::Duration;

use memchr::memchr;

use super::class_path::ClassPath;
use super::class_pattern::ClassPattern;
use super::connections::{Answer, LoggedConnections};
use super::event_posts::PostCounts;
use super::field::Field;
use super::format::{Line, LogFormat, unescape};
use super::layout_cache::Layouts;
use super::request_target::{argument, instant, target};
use super::timestamp::{digits, seconds};
use crate::cmcd::{Cmcd, records};
use crate::model::{Observation, Protocol, SourceName, Timestamp};
use crate::viewer::{Address, FoldCounts, GroupRules, Origin, PlayerName, Request, ViewerFold, ViewerKey};

/// Where a class's identity lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassRule {
    /// In the path, as `app/name`; with an application's name that stands instead of the path's.
    Path(Option<String>),
    /// In CMCD's content id; a request without one by its path.
    ContentId,
    /// In the query argument of this name; a request without one by its path.
    Argument(String),
    /// Where this pattern says it in the path; a path that does not fit is of no class.
    Pattern(ClassPattern),
}

/// The fold of one log.
#[derive(Clone, Debug)]
pub struct LogFold {
    format: LogFormat,
    layouts: Layouts,
    pub(super) rule: ClassRule,
    pub(super) fold: ViewerFold,
    claims: LoggedConnections,
    pub(super) dirty: DirtyCounts,
    lines: u64,
    other: u64,
    pub(super) posts: PostCounts,
    scratch: Scratch,
}

/// Why a line was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dirty {
    /// Longer than [`MAX_LINE`].
    #[error("longer than {MAX_LINE} bytes")]
    Long,
    /// Not of the configured form.
    #[error("not of the configured form")]
    Form,
    /// No instant in it.
    #[error("no readable instant")]
    Time,
    /// A CMCD set of a version that is not known.
    #[error("cmcd of a newer version")]
    Version,
}

/// Lines left out, by reason, and values of CMCD left out within good lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirtyCounts {
    /// [`Dirty::Long`].
    pub long: u64,
    /// [`Dirty::Form`].
    pub form: u64,
    /// [`Dirty::Time`].
    pub time: u64,
    /// [`Dirty::Version`].
    pub version: u64,
    /// Malformed CMCD values in lines that were taken.
    pub values: u64,
}

/// A line taken apart.
#[derive(Clone, Debug)]
pub struct OpenedLine<'a> {
    /// When it was logged.
    pub logged: Timestamp,
    line: Line<'a>,
}

impl OpenedLine<'_> {
    /// What the line does not tell and figures would need, with the nginx variable that does.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let has = |field| !self.line.raw(field).is_empty();
        [
            (has(Field::Path) || has(Field::RequestLine) || has(Field::Body), "path ($uri)"),
            (has(Field::Status) || has(Field::Body), "status ($status)"),
            (has(Field::Bytes) || has(Field::Body), "bytes ($body_bytes_sent)"),
            (has(Field::Address) || has(Field::Body), "viewer's address ($remote_addr), for players without CMCD"),
        ]
        .into_iter()
        .filter_map(|(has, what)| (!has).then_some(what))
        .collect()
    }
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    plain: Vec<u8>,
    decoded: Vec<u8>,
    class: String,
}

impl LogFold {
    /// A fold of lines of `format`; `key` as in [`ViewerFold::new`].
    #[must_use]
    pub fn new(format: LogFormat, rule: ClassRule, source: SourceName, key: impl Into<ViewerKey>) -> Self {
        let key = key.into();
        Self {
            format,
            layouts: Layouts::default(),
            rule,
            claims: LoggedConnections::new(SourceName::clone(&source), key.words()),
            fold: ViewerFold::new(source, key),
            dirty: DirtyCounts::default(),
            lines: 0,
            other: 0,
            posts: PostCounts::default(),
            scratch: Scratch::default(),
        }
    }

    /// With the play time of one segment, for answers whose player does not tell it.
    #[must_use]
    pub fn with_play_time(mut self, play_time: Option<Duration>) -> Self {
        self.claims.set_play_time(play_time);
        self
    }

    /// As [`ViewerFold::group_by`].
    #[must_use]
    pub fn grouped_by(mut self, rules: GroupRules) -> Self {
        self.fold.group_by(rules);
        self
    }

    /// What its lines tell of connections.
    pub const fn claims(&mut self) -> &mut LoggedConnections {
        &mut self.claims
    }

    /// When a line was logged; what several logs are joined by.
    #[must_use]
    pub fn time_of(&self, line: &[u8]) -> Option<Timestamp> {
        instant(&self.format.split(line)?)
    }

    /// Folds one line, without its end. Gives when it was logged; empty lines and requests that are not media are well.
    ///
    /// # Errors
    /// [`Dirty`]; it is counted already.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Timestamp>, Dirty> {
        match self.open(line)? {
            Some(opened) => self.fold(&opened).map(|()| Some(opened.logged)),
            None => Ok(None),
        }
    }

    /// The first half of [`LogFold::line`]: takes a line apart, so that its instant is known before it is folded.
    /// `None` when it is empty.
    ///
    /// # Errors
    /// [`Dirty`]; it is counted already.
    pub fn open<'a>(&mut self, line: &'a [u8]) -> Result<Option<OpenedLine<'a>>, Dirty> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        self.lines += 1;
        let opened = if line.len() > MAX_LINE {
            Err(Dirty::Long)
        } else {
            let split = self.format.split_known(line, &mut self.layouts).ok_or(Dirty::Form);
            split.and_then(|line| Ok(OpenedLine { logged: instant(&line).ok_or(Dirty::Time)?, line }))
        };
        self.counted(opened).map(Some)
    }

    /// The second half: folds it.
    ///
    /// # Errors
    /// [`Dirty`]; it is counted already.
    pub fn fold(&mut self, opened: &OpenedLine<'_>) -> Result<(), Dirty> {
        let taken = self.take(&opened.line, opened.logged);
        self.counted(taken)
    }

    fn counted<T>(&mut self, outcome: Result<T, Dirty>) -> Result<T, Dirty> {
        if let Err(reason) = &outcome {
            *match reason {
                Dirty::Long => &mut self.dirty.long,
                Dirty::Form => &mut self.dirty.form,
                Dirty::Time => &mut self.dirty.time,
                Dirty::Version => &mut self.dirty.version,
            } += 1;
        }
        outcome
    }

    /// Counts a line that was not even read because it is longer than [`MAX_LINE`].
    pub const fn too_long(&mut self) {
        self.lines += 1;
        self.dirty.long += 1;
    }

    /// As [`ViewerFold::drain`].
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut out = self.fold.drain(now);
        out.append(&mut self.claims.drain(now));
        out
    }

    /// As [`ViewerFold::finish`].
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut out = self.fold.finish(now);
        out.append(&mut self.claims.finish(now));
        out
    }

    /// Lines seen, of them neither media nor event reports, and the rest in detail.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64, DirtyCounts, FoldCounts) {
        (self.lines, self.other, self.dirty, self.fold.counts())
    }

    /// Viewers and classes remembered now.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.fold.sizes()
    }

    fn take(&mut self, line: &Line<'_>, logged: Timestamp) -> Result<(), Dirty> {
        let body = line.raw(Field::Body);
        if !body.is_empty() {
            return self.events(logged, body);
        }
        let (path, query) = target(line).ok_or(Dirty::Form)?;
        let class = match &self.rule {
            ClassRule::Pattern(pattern) => pattern.read(path),
            _ => ClassPath::of(path),
        };
        let Some(class) = class else {
            self.other += 1;
            return Ok(());
        };
        self.request(line, logged, &class, query)
    }

    fn request(
        &mut self,
        line: &Line<'_>,
        logged: Timestamp,
        class: &ClassPath<'_>,
        query: &[u8],
    ) -> Result<(), Dirty> {
        let Scratch { plain, decoded, class: key } = &mut self.scratch;
        plain.clear();
        let headers = [Field::Session, Field::Request, Field::Object, Field::Told].map(|field| line.raw(field));
        let mut set = Cmcd::default();
        if headers.iter().all(|header| header.is_empty()) {
            let told = line.raw(Field::Cmcd);
            let mut told = if told.is_empty() { argument(query, "CMCD") } else { told };
            if memchr(b'\\', told).is_some() {
                unescape(told, plain);
                told = plain;
            }
            set.take_query(told, decoded).map_err(|_| Dirty::Version)?;
        } else {
            let [a, b, c, d] = headers.map(|header| {
                unescape(header, plain);
                plain.len()
            });
            set.take_headers([&plain[..a], &plain[a..b], &plain[b..c], &plain[c..d]]).map_err(|_| Dirty::Version)?;
        }
        self.dirty.values += u64::from(set.malformed);
        if class.is_manifest && set.sid.is_none() {
            // A player's first look, before it has a session; the same viewer comes back with its media.
            self.other += 1;
            return Ok(());
        }
        key.clear();
        name_class(&self.rule, class, &set, query, key);
        let took = seconds(line.raw(Field::Duration)).unwrap_or_default();
        let served = line.raw(Field::Status).first().is_none_or(|digit| *digit == b'2');
        let protocol = class.protocol.or(set.protocol());
        let request = Request {
            at: logged - took.min(MAX_TOOK),
            class: key,
            viewer: [line.raw(Field::Address), line.raw(Field::Agent)],
            origin: origin(line, protocol),
            protocol,
            is_media: !class.is_manifest,
            is_served: served,
            bytes: digits(line.raw(Field::Bytes)),
        };
        // A failed answer brings no media: its `bl` and `d` come again with the retry.
        if !served || class.is_manifest {
            set.keep_identity();
        }
        self.fold.request(&request, &set);
        let sid = set.sid.map(|sid| [sid.raw(), b""]);
        self.claims.answer(
            line,
            &Answer {
                logged,
                class: key,
                viewer: sid.unwrap_or(request.viewer),
                protocol: request.protocol,
                took: request
                    .bytes
                    .filter(|_| served && request.is_media)
                    .map(|_| took.min(MAX_TOOK))
                    .filter(|_| class.protocol != Some(Protocol::HttpFlv)),
                play_time: set.d.map(|millis| Duration::from_millis(u64::from(millis))),
            },
        );
        Ok(())
    }

    fn events(&mut self, logged: Timestamp, body: &[u8]) -> Result<(), Dirty> {
        let plain = &mut self.scratch.plain;
        plain.clear();
        unescape(body, plain);
        let mut refused = false;
        for record in records(plain) {
            let Ok(set) = Cmcd::parse(record) else {
                refused = true;
                continue;
            };
            self.dirty.values += u64::from(set.malformed);
            // Whoever passed the post on may be the peer here: the viewer's requests tell its groups.
            self.fold.event(logged, content_id(&self.rule, &set), None, &set);
        }
        if refused { Err(Dirty::Version) } else { Ok(()) }
    }
}

/// What a line says of where its viewer is and what it plays with.
fn origin<'a>(line: &Line<'a>, protocol: Option<Protocol>) -> Origin<'a> {
    Origin {
        address: Address::Told { peer: line.raw(Field::Address), forwarded: line.raw(Field::Forwarded) },
        region: line.raw(Field::Region),
        player: PlayerName { told: "", protocol, agent: line.raw(Field::Agent) },
    }
}

/// The class's key, by rule.
fn name_class(rule: &ClassRule, path: &ClassPath<'_>, set: &Cmcd<'_>, query: &[u8], key: &mut String) {
    let told = match rule {
        ClassRule::Path(_) | ClassRule::Pattern(_) => None,
        ClassRule::ContentId => content_id(rule, set),
        ClassRule::Argument(name) => std::str::from_utf8(argument(query, name)).ok().filter(|id| !id.is_empty()),
    };
    if let Some(told) = told {
        key.push_str(told);
        return;
    }
    let app = match rule {
        ClassRule::Path(Some(app)) | ClassRule::Pattern(ClassPattern { app, .. }) => app,
        _ => path.app,
    };
    key.push_str(app);
    if !app.is_empty() {
        key.push('/');
    }
    key.push_str(path.name);
}

/// CMCD's content id, where the rule names classes by it.
pub(super) fn content_id<'a>(rule: &ClassRule, set: &Cmcd<'a>) -> Option<&'a str> {
    match rule {
        ClassRule::ContentId => std::str::from_utf8(set.cid?.raw()).ok(),
        _ => None,
    }
}

/// Longest line, bytes: nginx caps a request's head at 8 KiB, event bodies come on top.
pub const MAX_LINE: usize = 65_536;
/// Longest request that is believed.
const MAX_TOOK: Duration = Duration::from_hours(1);
