//! How each source does: up or down, since when, and what failed. Decides when a source counts as down; refuses to read
//! a clock, so every instant is an argument.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveqos_core::model::{SourceName, Timestamp};
use liveqos_probes::probe::Intake;
use serde::Serialize;

use super::access_log::{AccessLogSettings, LogSource};
use super::source::Source;

/// What `/api/v1/sources`, `/metrics` and the judge read.
#[derive(Clone, Debug)]
pub struct SourceTable {
    entries: Vec<Arc<SourceEntry>>,
}

impl SourceTable {
    /// A table of `sources`. After a reload, `before` hands on what is known of the sources that stayed what they were
    /// (same name, kind and URL), so that their counters do not start again.
    #[must_use]
    pub fn new(sources: &[Arc<Source>], before: Option<&Self>) -> Self {
        let entry = |source: &Arc<Source>| {
            let old = before.and_then(|before| before.entry(&source.name)).filter(|old| old.is_of(source));
            old.unwrap_or_else(|| Arc::new(SourceEntry::new(source)))
        };
        Self { entries: sources.iter().map(entry).collect() }
    }

    /// The table with an access log as well.
    #[must_use]
    pub fn with_log(mut self, log: &AccessLogSettings) -> Self {
        let (kind, url) = match log.source() {
            Ok(LogSource::Syslog(address)) => (SYSLOG, address.to_string()),
            Ok(LogSource::Posts) => (EVENT_POSTS, "/v1/cmcd".to_owned()),
            _ => (ACCESS_LOG, log.path.display().to_string()),
        };
        let (name, record) = (log.shown_name().into(), Mutex::default());
        self.entries.push(Arc::new(SourceEntry { name, kind, url, intake: Intake::Poll, record }));
        self
    }

    /// The table with a node that is pinged as well: its name, and the host and port where it answers.
    #[must_use]
    pub fn with_peer(mut self, name: &str, address: &str) -> Self {
        let (name, url, record) = (name.into(), address.to_owned(), Mutex::default());
        self.entries.push(Arc::new(SourceEntry { name, kind: PEER, url, intake: Intake::Poll, record }));
        self
    }

    /// The table with the access logs and peers of `before`, which a reload leaves as they are.
    #[must_use]
    pub fn with_standing_of(mut self, before: &Self) -> Self {
        self.entries.extend(before.entries.iter().filter(|entry| STANDING.contains(&entry.kind)).cloned());
        self
    }

    /// How every source does at `now`, in the order of the configuration.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Vec<SourceStatus> {
        self.entries.iter().map(|entry| entry.status(now)).collect()
    }

    /// Where the source of this name is written about.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Arc<SourceEntry>> {
        self.entries.iter().find(|entry| &*entry.name == name).cloned()
    }
}

/// How one source does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// Its kind.
    pub kind: &'static str,
    /// Its base URL without user, password and query.
    pub url: String,
    /// `poll` or `push`.
    pub intake: &'static str,
    /// Whether it answers.
    pub state: SourceState,
    /// Since when the state holds; `None` before anything was asked. In JSON seconds since the Unix epoch, as every
    /// instant here.
    #[serde(serialize_with = "seconds_or_none")]
    pub since: Option<Timestamp>,
    /// When it last answered everything well.
    #[serde(serialize_with = "seconds_or_none")]
    pub last_success: Option<Timestamp>,
    /// How long the last round took, in seconds.
    pub last_duration_seconds: Option<f64>,
    /// What failed last; stays when the source recovers, its instant tells.
    pub last_error: Option<LastError>,
    /// Rounds asked, good and bad.
    pub rounds: u64,
    /// Hook bodies posted by it.
    pub hooks: u64,
    /// What failed how often, by reason: the `reason` label of `liveqos_probe_failures_total`.
    pub failures: BTreeMap<&'static str, u64>,
    /// Observations read.
    pub observations: u64,
    /// Of them lost because the queue to the registry was full.
    pub shed: u64,
    /// Streams seen in the last good round; `None` before one.
    pub streams: Option<usize>,
}

/// Whether a source answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It does.
    Up,
    /// It does not.
    Down,
    /// Nothing is known yet; for a pushed source: it has not posted yet.
    Unknown,
}

/// A failure in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// Its reason, as in the metric label.
    pub reason: &'static str,
    /// Its text, of bounded length and without secrets.
    pub message: String,
    /// When it was met.
    #[serde(serialize_with = "seconds")]
    pub at: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn seconds<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.seconds())
}

#[expect(clippy::ref_option, reason = "the form that serde calls")]
fn seconds_or_none<S: serde::Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(Timestamp::seconds).serialize(serializer)
}

/// What one round came to.
#[derive(Debug)]
pub(crate) struct RoundReport {
    /// When it was over.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How long until the next one begins.
    pub gap: Duration,
    /// Observations read.
    pub observations: usize,
    /// Different streams among them.
    pub streams: usize,
    /// What failed; a round is good when nothing did.
    pub failures: Vec<(&'static str, String)>,
}

/// One source's line of the table.
#[derive(Debug)]
pub struct SourceEntry {
    name: SourceName,
    kind: &'static str,
    url: String,
    intake: Intake,
    record: Mutex<Record>,
}

impl SourceEntry {
    fn new(source: &Source) -> Self {
        Self {
            name: source.name.clone(),
            kind: source.kind.name,
            url: source.shown_url(),
            intake: source.kind.intake,
            record: Mutex::default(),
        }
    }

    fn is_of(&self, source: &Source) -> bool {
        self.kind == source.kind.name && self.url == source.shown_url()
    }

    /// Asking began.
    pub(crate) fn started(&self, at: Timestamp) {
        self.record().began.get_or_insert(at);
    }

    /// A round is over.
    pub(crate) fn round(&self, report: &RoundReport) {
        let mut record = self.record();
        record.rounds += 1;
        record.observations += report.observations as u64;
        record.duration = Some(report.duration);
        for (reason, message) in &report.failures {
            record.failed(reason, message, report.at);
        }
        if report.failures.is_empty() {
            record.gap = report.gap;
            record.streams = Some(report.streams);
            record.succeeded(report.at);
        } else {
            record.round_failed(report.at);
        }
    }

    /// It answered what it was asked since the last word.
    pub(crate) fn answered(&self, at: Timestamp) {
        let mut record = self.record();
        record.rounds += 1;
        record.succeeded(at);
    }

    /// It did not, and why.
    pub(crate) fn unanswered(&self, at: Timestamp, reason: &'static str, message: &str) {
        let mut record = self.record();
        record.rounds += 1;
        record.failed(reason, message, at);
        record.round_failed(at);
    }

    /// A hook body was posted, and read well (with so many observations) or not.
    pub(crate) fn hook(&self, at: Timestamp, outcome: Result<usize, (&'static str, String)>) {
        let mut record = self.record();
        record.hooks += 1;
        match outcome {
            Ok(observations) => {
                record.observations += observations as u64;
                // Whether a polled source is up is for its rounds to say.
                if self.intake == Intake::Push {
                    record.succeeded(at);
                }
            }
            Err((reason, message)) => record.failed(reason, &message, at),
        }
    }

    /// So many observations found the queue full.
    pub(crate) fn shed(&self, observations: usize) {
        self.record().shed += observations as u64;
    }

    /// How it does at `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> SourceStatus {
        let record = self.record();
        let (state, since) = record.state(now);
        SourceStatus {
            name: self.name.clone(),
            kind: self.kind,
            url: self.url.clone(),
            intake: match self.intake {
                Intake::Poll => "poll",
                Intake::Push => "push",
            },
            state,
            since,
            last_success: record.last_success,
            last_duration_seconds: record.duration.map(|duration| duration.as_secs_f64()),
            last_error: record.last_error.clone(),
            rounds: record.rounds,
            hooks: record.hooks,
            failures: record.failures.clone(),
            observations: record.observations,
            shed: record.shed,
            streams: record.streams,
        }
    }

    /// A holder that panicked leaves counters that are each whole, so they stay in use.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Record {
    began: Option<Timestamp>,
    /// When the source came up, while it is not known to be down.
    up_since: Option<Timestamp>,
    last_success: Option<Timestamp>,
    /// The pause after the last good round.
    gap: Duration,
    /// Failed rounds in a row, the first of them and the one that was too many.
    failed_rounds: u32,
    first_failure: Option<Timestamp>,
    too_many: Option<Timestamp>,
    duration: Option<Duration>,
    last_error: Option<LastError>,
    rounds: u64,
    hooks: u64,
    failures: BTreeMap<&'static str, u64>,
    observations: u64,
    shed: u64,
    streams: Option<usize>,
}

impl Record {
    fn succeeded(&mut self, at: Timestamp) {
        if self.state(at).0 != SourceState::Up {
            self.up_since = Some(at);
        }
        self.last_success = Some(at);
        (self.failed_rounds, self.first_failure, self.too_many) = (0, None, None);
    }

    fn round_failed(&mut self, at: Timestamp) {
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.first_failure.get_or_insert(at);
        if self.failed_rounds >= DOWN_AFTER_ROUNDS {
            self.too_many.get_or_insert(at);
        }
    }

    fn failed(&mut self, reason: &'static str, message: &str, at: Timestamp) {
        *self.failures.entry(reason).or_default() += 1;
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
        self.last_error = Some(LastError { reason, message, at });
    }

    /// Down after [`DOWN_AFTER_ROUNDS`] failed rounds in a row, or with a failed round after [`DOWN_AFTER_SILENCE`]
    /// without a good one (twice the pause between rounds where that is longer), whichever is first.
    fn state(&self, now: Timestamp) -> (SourceState, Option<Timestamp>) {
        let silent = self.first_failure.map(|failure| {
            let limit = DOWN_AFTER_SILENCE.max(self.gap.saturating_mul(2));
            let heard = self.last_success.or(self.began).unwrap_or(failure);
            (heard + limit).max(failure)
        });
        let down = [self.too_many, silent].into_iter().flatten().filter(|at| *at <= now).min();
        match (down, self.up_since) {
            (Some(at), _) => (SourceState::Down, Some(at)),
            (None, Some(at)) => (SourceState::Up, Some(at)),
            (None, None) => (SourceState::Unknown, self.began),
        }
    }
}

/// The kind of an access log in the table.
pub(super) const ACCESS_LOG: &str = "access-log";
/// Kind of an access log that comes by syslog.
pub(super) const SYSLOG: &str = "syslog";
/// Kind of the fold of posts where no log is configured.
pub(super) const EVENT_POSTS: &str = "cmcd";
/// Kind of a node that is pinged.
pub(super) const PEER: &str = "quic-path";
const STANDING: [&str; 4] = [ACCESS_LOG, SYSLOG, EVENT_POSTS, PEER];
/// Failed rounds in a row after which a source is down.
pub(super) const DOWN_AFTER_ROUNDS: u32 = 3;
/// Time without a good round after which a source that fails is down.
pub(super) const DOWN_AFTER_SILENCE: Duration = Duration::from_secs(15);
/// Characters kept of an error, part of which a server may have chosen.
pub(super) const MAX_MESSAGE_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::testing::{KINDS, settings};

    fn table(text: &str) -> (SourceTable, Arc<SourceEntry>) {
        let sources = Source::all(&[settings(text)], KINDS).expect("good");
        let table = SourceTable::new(&sources, None);
        let entry = table.entry(&sources[0].name).expect("an entry");
        (table, entry)
    }

    fn round(at: u64, failed: bool) -> RoundReport {
        let failures = if failed { vec![("connect", "refused".to_owned())] } else { Vec::new() };
        let (duration, gap) = (Duration::from_millis(2), Duration::from_secs(5));
        RoundReport { at: Timestamp::from_secs(at), duration, gap, observations: 4, streams: 2, failures }
    }

    fn state(table: &SourceTable, at: u64) -> (SourceState, Option<u64>) {
        let status = table.snapshot(Timestamp::from_secs(at)).remove(0);
        (status.state, status.since.map(|since| since.nanos() / 1_000_000_000))
    }

    #[test]
    fn three_failed_rounds_are_down_and_a_good_one_is_up() {
        let (table, entry) = table("kind = 'fake'");
        assert_eq!(state(&table, 0), (SourceState::Unknown, None));
        entry.started(Timestamp::from_secs(100));
        assert_eq!(state(&table, 100), (SourceState::Unknown, Some(100)));
        entry.round(&round(101, false));
        assert_eq!(state(&table, 101), (SourceState::Up, Some(101)));
        entry.round(&round(102, true));
        entry.round(&round(103, true));
        assert_eq!(state(&table, 103), (SourceState::Up, Some(101)), "two are not enough");
        entry.round(&round(104, true));
        entry.round(&round(105, true));
        assert_eq!(state(&table, 105), (SourceState::Down, Some(104)));
        entry.round(&round(106, false));
        assert_eq!(state(&table, 106), (SourceState::Up, Some(106)));
        let status = table.snapshot(Timestamp::from_secs(106)).remove(0);
        assert_eq!(status.failures, BTreeMap::from([("connect", 4)]));
        assert_eq!((status.rounds, status.observations, status.streams), (6, 24, Some(2)));
        assert_eq!(status.last_error.map(|error| error.at), Some(Timestamp::from_secs(105)));
    }

    #[test]
    fn silence_with_a_failure_is_down_and_without_one_is_not() {
        let (table, entry) = table("kind = 'fake'");
        entry.started(Timestamp::from_secs(99));
        entry.round(&round(100, false));
        assert_eq!(state(&table, 1_000), (SourceState::Up, Some(100)), "a long pause is no failure");
        entry.round(&round(108, true));
        assert_eq!(state(&table, 114), (SourceState::Up, Some(100)));
        assert_eq!(state(&table, 115), (SourceState::Down, Some(115)));
        entry.round(&round(116, false));
        assert_eq!(state(&table, 116), (SourceState::Up, Some(116)));
    }

    #[test]
    fn a_seldom_asked_source_is_not_down_at_its_first_failure() {
        let (table, entry) = table("kind = 'fake'");
        entry.round(&RoundReport { gap: Duration::from_mins(1), ..round(100, false) });
        entry.round(&round(160, true));
        assert_eq!(state(&table, 161).0, SourceState::Up);
        assert_eq!(state(&table, 220).0, SourceState::Down);
    }

    #[test]
    fn a_source_that_never_answered_goes_down_too() {
        let (table, entry) = table("kind = 'fake'");
        entry.started(Timestamp::from_secs(100));
        entry.round(&round(102, true));
        assert_eq!(state(&table, 114).0, SourceState::Unknown);
        assert_eq!(state(&table, 115), (SourceState::Down, Some(115)));
    }

    #[test]
    fn a_pushed_source_is_up_by_its_posts_and_never_down() {
        let (table, entry) = table("kind = 'pushed'");
        entry.hook(Timestamp::from_secs(5), Err(("malformed", "x\ny".repeat(400))));
        assert_eq!(state(&table, 500).0, SourceState::Unknown);
        entry.hook(Timestamp::from_secs(6), Ok(1));
        assert_eq!(state(&table, 5_000), (SourceState::Up, Some(6)));
        let error = table.snapshot(Timestamp::from_secs(6)).remove(0).last_error.expect("one");
        assert_eq!(error.message.len(), MAX_MESSAGE_CHARS);
        assert!(error.message.starts_with("x y"), "{}", error.message);
    }

    #[test]
    fn a_reload_keeps_the_counters_of_what_stayed() {
        let (before, entry) = table("kind = 'fake'");
        entry.round(&round(100, false));
        let rounds = |text: &str| {
            let sources = Source::all(&[settings(text)], KINDS).expect("good");
            SourceTable::new(&sources, Some(&before)).snapshot(Timestamp::from_secs(101))[0].rounds
        };
        assert_eq!(rounds("kind = 'fake'\ninterval = '1s'"), 1);
        assert_eq!(rounds("kind = 'fake'\nurl = 'http://127.0.0.1:1/'"), 0);
    }

    #[test]
    fn the_page_reads_it_as_json() {
        let (table, entry) = table("kind = 'fake'\nurl = 'http://h:1/?secret=x'");
        entry.round(&round(100, true));
        let json = serde_json::to_value(table.snapshot(Timestamp::from_secs(101))).expect("json");
        assert_eq!(json[0]["url"], "http://h:1/");
        assert_eq!(json[0]["state"], "unknown");
        assert_eq!(json[0]["intake"], "poll");
        assert_eq!(json[0]["failures"]["connect"], 1);
        assert!(!json.to_string().contains("secret"), "{json}");
    }
}
