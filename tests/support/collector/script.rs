//! What both protocols of a collector share: its script and the requests it has received.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use tokio::sync::Notify;

use super::messages::{Received, Reply};

#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) received: Mutex<Vec<Received>>,
    pub(super) next: Mutex<HashMap<&'static str, VecDeque<Reply>>>,
    pub(super) always: Mutex<Option<Reply>>,
    pub(super) arrived: Notify,
}

impl Script {
    /// How the next request of this signal is responded to.
    pub(super) fn next(&self, signal: &'static str) -> Option<Reply> {
        let scripted = self.next.lock().unwrap().get_mut(signal).and_then(VecDeque::pop_front);
        scripted.or_else(|| self.always.lock().unwrap().clone())
    }

    pub(super) fn keep(&self, received: Received) {
        self.received.lock().unwrap().push(received);
        self.arrived.notify_waiters();
    }
}

pub(super) fn trace_response(rejected: i64) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: (rejected > 0)
            .then(|| ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too old".to_owned() }),
    }
}

pub(super) const TRACES: &str = "traces";
pub(super) const METRICS: &str = "metrics";
pub(super) const LOGS: &str = "logs";
