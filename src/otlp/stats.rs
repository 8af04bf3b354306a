//! What became of every record, counted. Decides the outcomes that `liveqos_export_total` tells apart; refuses to
//! estimate: each is added once, when it is certain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Signal;

/// Counters of one signal since the start, in spans, log records or data points unless said otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Taken by the collector.
    pub sent: AtomicU64,
    /// Sent again after a refusal that asked for it; one record may count several times.
    pub retried: AtomicU64,
    /// Refused singly by a collector that took the rest of the request.
    pub rejected: AtomicU64,
    /// Refused for good with their whole request.
    pub failed: AtomicU64,
    /// Requests that were answered, whatever the answer.
    pub requests: AtomicU64,
    /// Bytes of requests that were delivered, before compression.
    pub raw_bytes: AtomicU64,
    /// Bytes of the same requests as sent.
    pub wire_bytes: AtomicU64,
    /// Why the last attempt failed; `None` once one was delivered.
    trouble: Mutex<Option<Arc<str>>>,
}

impl Counters {
    /// Why the last attempt failed, or `None` where it was delivered or none was made.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the outcome of an attempt; tells whether it differs in kind from the one before.
    pub(super) fn note(&self, trouble: Option<&str>) -> bool {
        let mut last = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = last.is_some() != trouble.is_some();
        *last = trouble.map(Into::into);
        turned
    }
}

/// Counters of all signals; what the outbox dropped is counted there.
#[derive(Debug, Default)]
pub struct Stats([Counters; 3]);

impl Stats {
    /// The counters of `signal`.
    #[must_use]
    pub fn of(&self, signal: Signal) -> &Counters {
        &self.0[signal.index()]
    }
}

/// The counter's value.
#[must_use]
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
