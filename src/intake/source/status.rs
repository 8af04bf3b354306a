//! The state of a source as the API shows it.

use std::collections::BTreeMap;

use liveqos_core::model::{SourceName, Timestamp};
use serde::Serialize;

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
