//! An access log folded line by line into what each class's viewers saw. Decides which lines are media requests and which are event
//! posts, and when each was; counts what cannot be read by its reason and never stops for it.

use crate::class_path::ClassPath;
use crate::class_pattern::ClassPattern;
use crate::cmcd::{Cmcd, percent_decode, records};
use crate::log_field::Field;
use crate::log_format::{Line, LogFormat, unescape};
use crate::log_time::{common, iso, seconds};
use crate::observation::{Observation, SourceName};
use crate::session::Name;
use crate::time::Timestamp;
use crate::viewer_fold::{FoldCounts, Request, ViewerFold};

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
    rule: ClassRule,
    fold: ViewerFold,
    dirty: DirtyCounts,
    lines: u64,
    other: u64,
    posts: PostCounts,
    scratch: Scratch,
}

/// What a post of event reports may be counted for.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// Any class: each report for that of its viewer's requests; where there were none for this one, else by the rule.
    Any(Option<&'a str>),
    /// The class of these names alone; a viewer that is in another one is not touched.
    Only(&'a [Name]),
}

/// Reports of posts left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostCounts {
    /// Of viewers in another class than the one claimed.
    pub foreign: u64,
    /// Of more new viewers than [`MAX_NEW_VIEWERS`] in one post.
    pub crowded: u64,
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

#[derive(Clone, Debug, Default)]
struct Scratch {
    plain: Vec<u8>,
    decoded: Vec<u8>,
    class: String,
}

impl LogFold {
    /// A fold of lines of `format`; `key` as in [`ViewerFold::new`].
    #[must_use]
    pub fn new(format: LogFormat, rule: ClassRule, source: SourceName, key: [u64; 2]) -> Self {
        Self {
            format,
            rule,
            fold: ViewerFold::new(source, key),
            dirty: DirtyCounts::default(),
            lines: 0,
            other: 0,
            posts: PostCounts::default(),
            scratch: Scratch::default(),
        }
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

    /// The first half of [`LogFold::line`]: takes a line apart, so that its instant is known before it is folded. `None` when it is empty.
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
            let split = self.format.split(line).ok_or(Dirty::Form);
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

    /// Folds the records of a body that a player posted and that arrived at `at`. `later` gets the records whose class is not known yet:
    /// the line with the viewer's first request may still be on its way.
    pub fn post(&mut self, at: Timestamp, claim: Claim<'_>, body: &[u8], mut later: impl FnMut(&[u8])) {
        let mut new_viewers = 0;
        for record in records(body) {
            let Ok(set) = Cmcd::parse(record) else {
                self.dirty.version += 1;
                continue;
            };
            let known = set.sid.and_then(|sid| self.fold.class_of(sid.raw()));
            let is_new = set.sid.is_some() && known.is_none();
            let class = match (claim, known) {
                (Claim::Only(names), Some(class)) if names.iter().all(|name| name.as_str() != class) => {
                    self.posts.foreign += 1;
                    continue;
                }
                (Claim::Only(names), _) => names.first().map(Name::as_str),
                (Claim::Any(told), _) => told.or_else(|| content_id(&self.rule, &set)),
            };
            new_viewers += usize::from(is_new && class.is_some());
            if is_new && class.is_none() {
                later(record);
            } else if is_new && new_viewers > MAX_NEW_VIEWERS {
                self.posts.crowded += 1;
            } else {
                self.dirty.values += u64::from(set.malformed);
                self.fold.event(at, class, &set);
            }
        }
    }

    /// What was left out of posts.
    #[must_use]
    pub const fn post_counts(&self) -> PostCounts {
        self.posts
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
        self.fold.drain(now)
    }

    /// As [`ViewerFold::finish`].
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        self.fold.finish(now)
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
        decoded.clear();
        let headers = [Field::Session, Field::Request, Field::Object, Field::Told].map(|field| line.raw(field));
        let set = if headers.iter().any(|header| !header.is_empty()) {
            let ends = headers.map(|header| {
                unescape(header, plain);
                plain.len()
            });
            let [a, b, c, d] = ends;
            Cmcd::of_headers([&plain[..a], &plain[a..b], &plain[b..c], &plain[c..d]])
        } else {
            let told = line.raw(Field::Cmcd);
            unescape(if told.is_empty() { argument(query, "CMCD") } else { told }, plain);
            percent_decode(plain, decoded);
            Cmcd::parse(decoded)
        };
        let set = set.map_err(|_| Dirty::Version)?;
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
        let bytes = number(line.raw(Field::Bytes)).filter(|_| served && !class.is_manifest);
        let request = Request {
            at: logged - took.min(MAX_TOOK),
            class: key,
            viewer: [line.raw(Field::Address), line.raw(Field::Agent)],
            protocol: class.protocol.or(set.protocol()),
            media_bytes: bytes,
        };
        // A failed answer brings no media: its `bl` and `d` come again with the retry.
        let set = if served && !class.is_manifest { set } else { identity(&set) };
        self.fold.request(&request, &set);
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
            self.fold.event(logged, content_id(&self.rule, &set), &set);
        }
        if refused { Err(Dirty::Version) } else { Ok(()) }
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
fn content_id<'a>(rule: &ClassRule, set: &Cmcd<'a>) -> Option<&'a str> {
    match rule {
        ClassRule::ContentId => std::str::from_utf8(set.cid?.raw()).ok(),
        _ => None,
    }
}

/// Who it is, without what it says of an object.
fn identity<'a>(set: &Cmcd<'a>) -> Cmcd<'a> {
    Cmcd { sid: set.sid, cid: set.cid, msd: set.msd, ..Cmcd::default() }
}

/// Path and query of what was asked for.
fn target<'a>(line: &Line<'a>) -> Option<(&'a str, &'a [u8])> {
    let path = line.raw(Field::Path);
    let path = if path.is_empty() {
        line.raw(Field::RequestLine).split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    } else {
        path
    };
    let path = std::str::from_utf8(path).ok()?;
    let query = line.raw(Field::Query);
    let own = path.split_once('?').map_or(&b""[..], |(_, query)| query.as_bytes());
    Some((path, if query.is_empty() { own } else { query }))
}

/// The value of a query argument as it stands.
fn argument<'a>(query: &'a [u8], name: &str) -> &'a [u8] {
    let value = |pair: &'a [u8]| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    query.split(|byte| *byte == b'&').find_map(value).unwrap_or_default()
}

fn instant(line: &Line<'_>) -> Option<Timestamp> {
    let since = seconds(line.raw(Field::Seconds))
        .or_else(|| iso(line.raw(Field::Iso)))
        .or_else(|| common(line.raw(Field::Local)))?;
    Some(Timestamp::from_secs(0) + since)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Longest line, bytes: nginx caps a request's head at 8 KiB, event bodies come on top.
pub const MAX_LINE: usize = 65_536;
/// Most viewers that one post may bring: a page has one player, rarely more.
pub const MAX_NEW_VIEWERS: usize = 4;
/// Longest request that is believed.
const MAX_TOOK: std::time::Duration = std::time::Duration::from_hours(1);
