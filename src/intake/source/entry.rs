//! Records what is known of one source and decides whether it is up or down. Reads no clock: every instant is an
//! argument.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveqos_core::model::{SourceName, Timestamp};
use liveqos_probes::probe::Intake;

use super::checked::Source;
use super::status::{LastError, SourceState, SourceStatus};

/// The result of one poll round.
#[derive(Debug)]
pub(crate) struct RoundReport {
    /// When the round ended.
    pub at: Timestamp,
    /// How long the round took.
    pub duration: Duration,
    /// Time until the next round begins.
    pub gap: Duration,
    /// Number of observations read.
    pub observations: usize,
    /// Number of different streams among them.
    pub streams: usize,
    /// Reason and message of each failure; a round without any is good.
    pub failures: Vec<(&'static str, String)>,
}

/// The record of one source in the table.
#[derive(Debug)]
pub struct SourceEntry {
    name: SourceName,
    kind: &'static str,
    url: String,
    intake: Intake,
    is_configured_source: bool,
    record: Mutex<Record>,
}

impl SourceEntry {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            name: source.name.clone(),
            kind: source.kind.name,
            url: source.shown_url(),
            intake: source.kind.intake,
            is_configured_source: true,
            record: Mutex::default(),
        }
    }

    /// An entry for an input without a `[[sources]]` table: an access log or a peer.
    pub(super) fn of_input(name: SourceName, kind: &'static str, url: String) -> Self {
        let (intake, record) = (Intake::Poll, Mutex::default());
        Self { name, kind, url, intake, is_configured_source: false, record }
    }

    pub(super) const fn name(&self) -> &SourceName {
        &self.name
    }

    /// Whether the entry belongs to a `[[sources]]` table, which a reload may change.
    pub(super) const fn is_configured_source(&self) -> bool {
        self.is_configured_source
    }

    /// Whether `source` is the same server: same kind and URL.
    pub(super) fn is_of(&self, source: &Source) -> bool {
        self.kind == source.kind.name && self.url == source.shown_url()
    }

    /// Polling began.
    pub(crate) fn started(&self, at: Timestamp) {
        self.record().began.get_or_insert(at);
    }

    /// Records the end of a round.
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

    /// Records a successful probe of an input without rounds.
    pub(crate) fn answered(&self, at: Timestamp) {
        let mut record = self.record();
        record.rounds += 1;
        record.succeeded(at);
    }

    /// Records a failed probe of an input without rounds.
    pub(crate) fn unanswered(&self, at: Timestamp, reason: &'static str, message: &str) {
        let mut record = self.record();
        record.rounds += 1;
        record.failed(reason, message, at);
        record.round_failed(at);
    }

    /// Records a hook: the number of observations read from it, or reason and message of the failure.
    pub(crate) fn hook(&self, at: Timestamp, outcome: Result<usize, (&'static str, String)>) {
        let mut record = self.record();
        record.hooks += 1;
        match outcome {
            Ok(observations) => {
                record.observations += observations as u64;
                // The state of a polled source depends on its rounds alone.
                if self.intake == Intake::Push {
                    record.succeeded(at);
                }
            }
            Err((reason, message)) => record.failed(reason, &message, at),
        }
    }

    /// Records observations that were dropped because the queue was full.
    pub(crate) fn shed(&self, observations: usize) {
        self.record().shed += observations as u64;
    }

    /// The state at `now`.
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

    /// Every counter is valid on its own, so a record stays usable after a panic of another holder.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Record {
    began: Option<Timestamp>,
    /// When the source came up, unless it is known to be down.
    up_since: Option<Timestamp>,
    last_success: Option<Timestamp>,
    /// Time from the last good round to the next.
    gap: Duration,
    /// Failed rounds in a row, when the first of them ended, and when the source counted as down because of their
    /// number.
    failed_rounds: u32,
    first_failure: Option<Timestamp>,
    down_by_count: Option<Timestamp>,
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
        (self.failed_rounds, self.first_failure, self.down_by_count) = (0, None, None);
    }

    fn round_failed(&mut self, at: Timestamp) {
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.first_failure.get_or_insert(at);
        if self.failed_rounds >= DOWN_AFTER_ROUNDS {
            self.down_by_count.get_or_insert(at);
        }
    }

    fn failed(&mut self, reason: &'static str, message: &str, at: Timestamp) {
        *self.failures.entry(reason).or_default() += 1;
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
        self.last_error = Some(LastError { reason, message, at });
    }

    /// A source is down after [`DOWN_AFTER_ROUNDS`] failed rounds in a row, or when a round fails and
    /// [`DOWN_AFTER_SILENCE`] (twice the interval where that is longer) has passed since the last good one, whichever
    /// comes first.
    fn state(&self, now: Timestamp) -> (SourceState, Option<Timestamp>) {
        let silent = self.first_failure.map(|failure| {
            let limit = DOWN_AFTER_SILENCE.max(self.gap.saturating_mul(2));
            let last_good = self.last_success.or(self.began).unwrap_or(failure);
            (last_good + limit).max(failure)
        });
        let down = [self.down_by_count, silent].into_iter().flatten().filter(|at| *at <= now).min();
        match (down, self.up_since) {
            (Some(at), _) => (SourceState::Down, Some(at)),
            (None, Some(at)) => (SourceState::Up, Some(at)),
            (None, None) => (SourceState::Unknown, self.began),
        }
    }
}

/// Failed rounds in a row after which a source is down.
pub(super) const DOWN_AFTER_ROUNDS: u32 = 3;
/// Time since the last good round after which a failing source is down.
pub(super) const DOWN_AFTER_SILENCE: Duration = Duration::from_secs(15);
/// Characters kept of an error message; a server may have chosen part of it.
pub(super) const MAX_MESSAGE_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::intake::source::table::SourceTable;
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
    fn a_source_goes_down_by_silence_only_after_a_failure() {
        let (table, entry) = table("kind = 'fake'");
        entry.started(Timestamp::from_secs(99));
        entry.round(&round(100, false));
        assert_eq!(state(&table, 1_000), (SourceState::Up, Some(100)), "a long pause is not a failure");
        entry.round(&round(108, true));
        assert_eq!(state(&table, 114), (SourceState::Up, Some(100)));
        assert_eq!(state(&table, 115), (SourceState::Down, Some(115)));
        entry.round(&round(116, false));
        assert_eq!(state(&table, 116), (SourceState::Up, Some(116)));
    }

    #[test]
    fn a_source_with_a_long_interval_is_not_down_at_its_first_failure() {
        let (table, entry) = table("kind = 'fake'");
        entry.round(&RoundReport { gap: Duration::from_mins(1), ..round(100, false) });
        entry.round(&round(160, true));
        assert_eq!(state(&table, 161).0, SourceState::Up);
        assert_eq!(state(&table, 220).0, SourceState::Down);
    }

    #[test]
    fn a_source_that_never_answered_goes_down() {
        let (table, entry) = table("kind = 'fake'");
        entry.started(Timestamp::from_secs(100));
        entry.round(&round(102, true));
        assert_eq!(state(&table, 114).0, SourceState::Unknown);
        assert_eq!(state(&table, 115), (SourceState::Down, Some(115)));
    }

    #[test]
    fn a_push_source_comes_up_by_its_hooks_and_never_goes_down() {
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
    fn a_reload_keeps_the_counters_of_unchanged_sources() {
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
    fn the_status_is_serialized_as_json() {
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
