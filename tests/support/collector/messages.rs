//! What a collector receives and how it responds.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::Code;

/// How the collector responds to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Takes it, but for this many spans.
    Partial(i64),
    /// Refuses with a gRPC code and `grpc-status-details-bin`.
    Code(Code, Vec<u8>),
    /// Refuses with an HTTP status and `Retry-After`.
    Http(u16, Option<&'static str>),
    /// Responds 200 with a body that is no protobuf.
    Html,
    /// Never responds.
    Hang,
    /// Takes it after this long.
    Slow(Duration),
}

/// A request that reached the collector.
#[derive(Clone, Debug)]
pub struct Received {
    /// `traces`, `metrics` or `logs`.
    pub signal: &'static str,
    /// Content encoding: `gzip`, `zstd` or none.
    pub encoding: String,
    /// The `authorization` header.
    pub authorization: String,
    /// Bytes before compression.
    pub len: usize,
    /// Whether it was accepted.
    pub taken: bool,
    /// When it arrived.
    pub at: Instant,
    /// Its message.
    pub body: Body,
}

/// The message of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// Spans.
    Traces(ExportTraceServiceRequest),
    /// Metrics.
    Metrics(ExportMetricsServiceRequest),
    /// Log records.
    Logs(ExportLogsServiceRequest),
}

impl Received {
    /// Its spans; panics where there is not one resource with one scope.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let Body::Traces(request) = &self.body else {
            return Vec::new();
        };
        let [resource] = request.resource_spans.as_slice() else {
            panic!("one resource");
        };
        let [scope] = resource.scope_spans.as_slice() else {
            panic!("one scope");
        };
        scope.spans.clone()
    }

    /// Its log records.
    #[must_use]
    pub fn logs(&self) -> Vec<LogRecord> {
        match &self.body {
            Body::Logs(request) => request.resource_logs[0].scope_logs[0].log_records.clone(),
            _ => Vec::new(),
        }
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        match &self.body {
            Body::Metrics(request) => request.resource_metrics[0].scope_metrics[0].metrics.clone(),
            _ => Vec::new(),
        }
    }
}
