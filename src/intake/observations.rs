//! The bounded queue of observations between the intakes and the engine. No intake waits for it: what finds it full is
//! dropped and counted.

use std::collections::BTreeSet;

use liveqos_core::model::{Fact, Observation};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::source::SourceEntry;

/// The sending side that all intakes share; each item is what one round, wake or hook gave.
pub(crate) type Observations = Sender<Vec<Observation>>;

/// Sends `observations` without waiting and counts those that found the queue full as shed by `entry`. False when the
/// receiver is gone.
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
