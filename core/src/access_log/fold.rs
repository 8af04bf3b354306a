//! The fold of an access log: each line becomes a request or an event report of its class's viewers. Lines that cannot
//! be read are counted by reason and never stop the fold.

use std::time::Duration;

use memchr::memchr;

use super::class_path::ClassPath;
use super::class_rule::ClassRule;
use super::connections::{LoggedConnections, LoggedResponse};
use super::field::Field;
use super::format::{LogFormat, unescape};
use super::layout_cache::Layouts;
use super::line::{Line, ParsedLine};
use super::rejects::{LineError, LineErrorCounts, MAX_LINE, PostCounts};
use super::request_target::{argument, instant, target};
use super::timestamp::{digits, seconds};
use crate::cmcd::{Cmcd, records};
use crate::model::{Observation, Protocol, SourceName, Timestamp};
use crate::viewer::{Address, FoldCounts, GroupRules, Origin, PlayerName, Request, ViewerFold, ViewerKey};

/// The fold of one log.
#[derive(Clone, Debug)]
pub struct LogFold {
    format: LogFormat,
    layouts: Layouts,
    pub(super) rule: ClassRule,
    pub(super) fold: ViewerFold,
    connections: LoggedConnections,
    pub(super) line_errors: LineErrorCounts,
    lines: u64,
    not_media: u64,
    pub(super) posts: PostCounts,
    scratch: Scratch,
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    plain: Vec<u8>,
    decoded: Vec<u8>,
    class: String,
}

impl LogFold {
    /// An empty fold for lines of `format`; `key` as in [`ViewerFold::new`].
    #[must_use]
    pub fn new(format: LogFormat, rule: ClassRule, source: SourceName, key: impl Into<ViewerKey>) -> Self {
        let key = key.into();
        Self {
            format,
            layouts: Layouts::default(),
            rule,
            connections: LoggedConnections::new(SourceName::clone(&source), key.words()),
            fold: ViewerFold::new(source, key),
            line_errors: LineErrorCounts::default(),
            lines: 0,
            not_media: 0,
            posts: PostCounts::default(),
            scratch: Scratch::default(),
        }
    }

    /// Sets the duration of one segment, for responses whose player does not report it.
    #[must_use]
    pub fn with_play_time(mut self, play_time: Option<Duration>) -> Self {
        self.connections.set_play_time(play_time);
        self
    }

    /// As [`ViewerFold::group_by`].
    #[must_use]
    pub fn grouped_by(mut self, rules: GroupRules) -> Self {
        self.fold.group_by(rules);
        self
    }

    /// The transport side of the lines.
    pub const fn connections(&mut self) -> &mut LoggedConnections {
        &mut self.connections
    }

    /// When a line was logged: the key by which several logs are merged.
    #[must_use]
    pub fn time_of(&self, line: &[u8]) -> Option<Timestamp> {
        instant(&self.format.split(line)?)
    }

    /// Folds one line, without its line end, and returns when it was logged; `None` for an empty line. A request that
    /// is not media is no error.
    ///
    /// # Errors
    /// [`LineError`]; it is counted already.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Timestamp>, LineError> {
        match self.parse(line)? {
            Some(parsed) => self.fold(&parsed).map(|()| Some(parsed.logged)),
            None => Ok(None),
        }
    }

    /// The first half of [`LogFold::line`]: parses a line, so that its instant is known before it is folded. `None`
    /// when it is empty.
    ///
    /// # Errors
    /// [`LineError`]; it is counted already.
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Result<Option<ParsedLine<'a>>, LineError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        self.lines += 1;
        let parsed = if line.len() > MAX_LINE {
            Err(LineError::Long)
        } else {
            let split = self.format.split_known(line, &mut self.layouts).ok_or(LineError::Form);
            split.and_then(|line| Ok(ParsedLine { logged: instant(&line).ok_or(LineError::Time)?, line }))
        };
        self.count_error(parsed).map(Some)
    }

    /// The second half of [`LogFold::line`]: folds a parsed line.
    ///
    /// # Errors
    /// [`LineError`]; it is counted already.
    pub fn fold(&mut self, parsed: &ParsedLine<'_>) -> Result<(), LineError> {
        let taken = self.take(&parsed.line, parsed.logged);
        self.count_error(taken)
    }

    fn count_error<T>(&mut self, outcome: Result<T, LineError>) -> Result<T, LineError> {
        if let Err(reason) = &outcome {
            *match reason {
                LineError::Long => &mut self.line_errors.long,
                LineError::Form => &mut self.line_errors.form,
                LineError::Time => &mut self.line_errors.time,
                LineError::Version => &mut self.line_errors.version,
            } += 1;
        }
        outcome
    }

    /// Counts a line that was not read because it is longer than [`MAX_LINE`].
    pub const fn count_too_long(&mut self) {
        self.lines += 1;
        self.line_errors.long += 1;
    }

    /// As [`ViewerFold::drain`].
    pub fn drain(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut out = self.fold.drain(now);
        out.append(&mut self.connections.drain(now));
        out
    }

    /// As [`ViewerFold::finish`].
    pub fn finish(&mut self, now: Timestamp) -> Vec<Observation> {
        let mut out = self.fold.finish(now);
        out.append(&mut self.connections.finish(now));
        out
    }

    /// Lines seen; lines that were neither media nor event reports; and the errors and fold counts in detail.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64, LineErrorCounts, FoldCounts) {
        (self.lines, self.not_media, self.line_errors, self.fold.counts())
    }

    /// Number of viewers and of classes remembered now.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.fold.sizes()
    }

    fn take(&mut self, line: &Line<'_>, logged: Timestamp) -> Result<(), LineError> {
        let body = line.raw(Field::Body);
        if !body.is_empty() {
            return self.take_event_post(logged, body);
        }
        let (path, query) = target(line).ok_or(LineError::Form)?;
        let Some(class) = self.rule.class_of(path) else {
            self.not_media += 1;
            return Ok(());
        };
        self.take_request(line, logged, &class, query)
    }

    fn take_request(
        &mut self,
        line: &Line<'_>,
        logged: Timestamp,
        class: &ClassPath<'_>,
        query: &[u8],
    ) -> Result<(), LineError> {
        let Scratch { plain, decoded, class: key } = &mut self.scratch;
        plain.clear();
        let headers =
            [Field::CmcdSession, Field::CmcdRequest, Field::CmcdObject, Field::CmcdStatus].map(|field| line.raw(field));
        let mut cmcd = Cmcd::default();
        if headers.iter().all(|header| header.is_empty()) {
            let logged_value = line.raw(Field::Cmcd);
            let mut value = if logged_value.is_empty() { argument(query, "CMCD") } else { logged_value };
            if memchr(b'\\', value).is_some() {
                unescape(value, plain);
                value = plain;
            }
            cmcd.take_query(value, decoded).map_err(|_| LineError::Version)?;
        } else {
            let [a, b, c, d] = headers.map(|header| {
                unescape(header, plain);
                plain.len()
            });
            cmcd.take_headers([&plain[..a], &plain[a..b], &plain[b..c], &plain[c..d]])
                .map_err(|_| LineError::Version)?;
        }
        self.line_errors.values += u64::from(cmcd.malformed);
        if class.is_manifest && cmcd.sid.is_none() {
            // A player's first manifest request, before it has a session id; the same viewer returns with media
            // requests.
            self.not_media += 1;
            return Ok(());
        }
        key.clear();
        self.rule.write_class_name(class, &cmcd, query, key);
        let duration = seconds(line.raw(Field::Duration)).unwrap_or_default();
        let served = line.raw(Field::Status).first().is_none_or(|digit| *digit == b'2');
        let protocol = class.protocol.or(cmcd.protocol());
        let request = Request {
            at: logged - duration.min(MAX_DURATION),
            class: key,
            viewer: [line.raw(Field::Address), line.raw(Field::UserAgent)],
            origin: origin(line, protocol),
            protocol,
            is_media: !class.is_manifest,
            is_served: served,
            bytes: digits(line.raw(Field::Bytes)),
        };
        // A failed request brings no media: its `bl` and `d` come again with the retry.
        if !served || class.is_manifest {
            cmcd.keep_identity();
        }
        self.fold.request(&request, &cmcd);
        let sid = cmcd.sid.map(|sid| [sid.raw(), b""]);
        let is_timed = served && request.is_media && class.protocol != Some(Protocol::HttpFlv);
        let response = LoggedResponse {
            logged,
            class: key,
            viewer: sid.unwrap_or(request.viewer),
            protocol: request.protocol,
            duration: request.bytes.filter(|_| is_timed).map(|_| duration.min(MAX_DURATION)),
            play_time: cmcd.d.map(|millis| Duration::from_millis(u64::from(millis))),
        };
        self.connections.record(line, &response);
        Ok(())
    }

    fn take_event_post(&mut self, logged: Timestamp, body: &[u8]) -> Result<(), LineError> {
        let plain = &mut self.scratch.plain;
        plain.clear();
        unescape(body, plain);
        let mut refused = false;
        for record in records(plain) {
            let Ok(cmcd) = Cmcd::parse(record) else {
                refused = true;
                continue;
            };
            self.line_errors.values += u64::from(cmcd.malformed);
            // The sender here may be a relay: only a viewer's own requests assign it to groups.
            self.fold.event(logged, self.rule.content_id(&cmcd), None, &cmcd);
        }
        if refused { Err(LineError::Version) } else { Ok(()) }
    }
}

/// Address, region and player of the viewer, as far as a line contains them.
fn origin<'a>(line: &Line<'a>, protocol: Option<Protocol>) -> Origin<'a> {
    Origin {
        address: Address::Logged { peer: line.raw(Field::Address), forwarded: line.raw(Field::Forwarded) },
        region: line.raw(Field::Region),
        player: PlayerName { reported: "", protocol, agent: line.raw(Field::UserAgent) },
    }
}

/// A longer request duration is cut to this: the field is wrong.
const MAX_DURATION: Duration = Duration::from_hours(1);
