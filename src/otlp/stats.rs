//! Counters of the export: each item is counted once, when its outcome is certain. The outcomes are those of
//! `liveqos_export_total`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Signal;

/// Counters of one signal since the start, in spans, log records or data points unless stated otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Accepted by the collector.
    pub sent: AtomicU64,
    /// To be sent again after a failure; one item may count several times.
    pub retried: AtomicU64,
    /// Rejected by a collector that accepted the rest of the request (`partial_success`).
    pub rejected: AtomicU64,
    /// Refused for good with the whole request.
    pub failed: AtomicU64,
    /// Requests that ended, with any answer or none.
    pub requests: AtomicU64,
    /// Bytes of delivered requests before compression.
    pub raw_bytes: AtomicU64,
    /// Bytes of the same requests as sent.
    pub wire_bytes: AtomicU64,
    /// Why the last attempt failed; `None` after a delivery.
    failure: Mutex<Option<Arc<str>>>,
}

impl Counters {
    /// Why the last attempt failed; `None` where it was delivered, or none was made.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the outcome of an attempt; returns whether it changed from success to failure or back.
    pub(super) fn record(&self, failure: Option<&str>) -> bool {
        let mut last = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = last.is_some() != failure.is_some();
        *last = failure.map(Into::into);
        changed
    }
}

/// Counters of all signals; the queue counts what it drops.
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
