//! The status of a source as the API shows it.

use std::collections::BTreeMap;

use liveqos_core::model::{SourceName, Timestamp};
use serde::Serialize;

/// The status of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceStatus {
    /// The source's name.
    pub name: SourceName,
    /// The source's kind.
    pub kind: &'static str,
    /// The base URL without user, password and query.
    pub url: String,
    /// `poll` or `push`.
    pub intake: &'static str,
    /// Whether the source answers.
    pub state: SourceState,
    /// Start of the state; `None` before the first request. As every instant here, JSON has it in seconds since the
    /// Unix epoch.
    #[serde(serialize_with = "seconds_or_none")]
    pub since: Option<Timestamp>,
    /// End of the last round without a failure.
    #[serde(serialize_with = "seconds_or_none")]
    pub last_success: Option<Timestamp>,
    /// Duration of the last round in seconds.
    pub last_duration_seconds: Option<f64>,
    /// The last failure; it remains when the source recovers.
    pub last_error: Option<LastError>,
    /// Number of rounds, good and failed.
    pub rounds: u64,
    /// Number of hooks that the source posted.
    pub hooks: u64,
    /// Number of failures by reason: the `reason` label of `liveqos_probe_failures_total`.
    pub failures: BTreeMap<&'static str, u64>,
    /// Number of observations read.
    pub observations: u64,
    /// Number of observations dropped because the queue to the engine was full.
    pub shed: u64,
    /// Streams in the last good round; `None` before the first.
    pub streams: Option<usize>,
}

/// Whether a source answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// The source answers.
    Up,
    /// The source does not answer.
    Down,
    /// Nothing is known yet; a push source has not posted yet.
    Unknown,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// The reason, as in the metric label.
    pub reason: &'static str,
    /// The message, of bounded length and without secrets.
    pub message: String,
    /// When it occurred.
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
