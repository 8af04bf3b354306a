//! One trial round of a source for `liveqos check` and `liveqos discover`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use liveqos_core::model::{Fact, Observation, StreamKey};
use liveqos_probes::probe::Intake;
use serde::Serialize;
use tokio::time::Instant;

use super::http_client::HttpClient;
use super::round::{Now, Round, RoundError, SourcePoller};
use crate::intake::observations::stream_count;
use crate::intake::source::Source;

/// What one round found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Requests sent; 0 for a source that only pushes.
    pub requests: usize,
    /// Number of streams.
    pub streams: usize,
    /// Viewers of all streams; `None` where the server reports none.
    pub viewers: Option<u64>,
    /// Duration of the round.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
}

impl fmt::Display for Summary {
    /// As `liveqos check` prints it after the source's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requests == 0 {
            return f.write_str("waits for hooks");
        }
        write!(f, "streams: {}", self.streams)?;
        if let Some(viewers) = self.viewers {
            write!(f, ", viewers: {viewers}")?;
        }
        write!(f, ", answered within {} ms", self.duration.as_millis())
    }
}

/// Runs one round of `source` with a new probe. A source that only pushes is not polled and is good.
///
/// # Errors
/// The round's first [`RoundError`].
pub(crate) async fn try_once(source: &Arc<Source>, client: &HttpClient, now: &Now) -> Result<Summary, RoundError> {
    let started = Instant::now();
    let mut round = Round::default();
    if source.kind.intake == Intake::Poll {
        round = SourcePoller::new(source.clone(), client.clone(), now.clone()).round().await;
    }
    if !round.failures.is_empty() {
        return Err(round.failures.swap_remove(0));
    }
    let (streams, viewers) = (stream_count(&round.observations), viewers(&round.observations));
    Ok(Summary { requests: round.requests, streams, viewers, duration: started.elapsed() })
}

/// The viewers of all streams, by the last view of each.
fn viewers(observations: &[Observation]) -> Option<u64> {
    let mut last: BTreeMap<&StreamKey, u64> = BTreeMap::new();
    for observation in observations {
        if let Fact::Server(view) = &observation.fact
            && let Some(viewers) = &view.viewers
        {
            last.insert(&observation.stream, viewers.iter().map(|(_, count)| u64::from(*count)).sum());
        }
    }
    (!last.is_empty()).then(|| last.values().sum())
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
