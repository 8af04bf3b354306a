//! The bounded queue of observations between the intakes and the engine. No intake waits for room in it: observations
//! that find it full are dropped and counted.

use std::collections::BTreeSet;

use liveqos_core::model::{Fact, Observation};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::source::SourceEntry;

/// The sending side that all intakes share. Each item holds the observations of one poll round, one wake of a follower
/// or one hook.
pub(crate) type Observations = Sender<Vec<Observation>>;

/// Sends `observations` without waiting; when the queue is full they are counted as shed by `entry`. Returns false when
/// the receiver is gone.
pub(crate) fn deliver(observations: Vec<Observation>, entry: &SourceEntry, out: &Observations) -> bool {
    if observations.is_empty() {
        return !out.is_closed();
    }
    match out.try_send(observations) {
        Ok(()) => true,
        Err(TrySendError::Full(lost)) => {
            entry.shed(lost.len());
            true
        }
        Err(TrySendError::Closed(_)) => false,
    }
}

/// The number of different streams that `observations` describe.
pub(crate) fn stream_count(observations: &[Observation]) -> usize {
    let streams: BTreeSet<_> = observations
        .iter()
        .filter(|observation| !matches!(observation.fact, Fact::Gone))
        .map(|observation| &observation.stream)
        .collect();
    streams.len()
}
