//! One round of a source for `liveqos check` and `liveqos discover`, summed up for people.

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

/// What one round told, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Questions asked; none of a source that is only pushed to.
    pub requests: usize,
    /// Streams seen.
    pub streams: usize,
    /// Their viewers together; `None` where the server told of none of them.
    pub viewers: Option<u64>,
    /// How long the round took.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
}

impl fmt::Display for Summary {
    /// As `liveqos check` prints it behind the source's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requests == 0 {
            return f.write_str("waits to be pushed to");
        }
        write!(f, "streams: {}", self.streams)?;
        if let Some(viewers) = self.viewers {
            write!(f, ", viewers: {viewers}")?;
        }
        write!(f, ", answered within {} ms", self.duration.as_millis())
    }
}

/// One round of `source` with a new probe, as `liveqos check` does it. A source that is only pushed to is asked nothing
/// and is good.
///
/// # Errors
/// The round's first [`RoundError`].
pub(crate) async fn try_once(source: &Arc<Source>, fetcher: &HttpClient, now: &Now) -> Result<Summary, RoundError> {
    let started = Instant::now();
    let mut round = Round::default();
    if source.kind.intake == Intake::Poll {
        round = SourcePoller::new(source.clone(), fetcher.clone(), now.clone()).round().await;
    }
    if !round.failures.is_empty() {
        return Err(round.failures.swap_remove(0));
    }
    let (streams, viewers) = (stream_count(&round.observations), viewers(&round.observations));
    Ok(Summary { requests: round.requests, streams, viewers, duration: started.elapsed() })
}

/// The viewers of all streams together, by each one's last view.
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
