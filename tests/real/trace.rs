//! A class's trace as the collector has it: which spans came, when, and what hangs under what.

use std::collections::BTreeSet;
use std::time::Instant;

use liveqos_testkit::collector::{Collector, Received};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;

/// All that the collector took.
pub(crate) struct Trace {
    pub(crate) spans: Vec<(Instant, Span)>,
    pub(crate) logs: Vec<LogRecord>,
    pub(crate) metrics: BTreeSet<String>,
}

impl Trace {
    pub(crate) fn of(collector: &Collector) -> Self {
        let received = collector.received();
        assert!(received.iter().all(|request| request.encoding == "gzip"));
        let spans = |request: &Received| request.spans().into_iter().map(|span| (request.at, span)).collect::<Vec<_>>();
        Self {
            spans: received.iter().flat_map(spans).collect(),
            logs: received.iter().flat_map(Received::logs).collect(),
            metrics: received.iter().flat_map(Received::metrics).map(|metric| metric.name).collect(),
        }
    }

    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().map(|(_, span)| span).filter(move |span| span.name == name)
    }

    /// The one span of this name.
    pub(crate) fn one(&self, name: &str) -> &Span {
        let mut named = self.spans.iter().map(|(_, span)| span).filter(|span| span.name == name);
        let found = named.next().unwrap_or_else(|| panic!("{name} did not come: {:?}", self.names()));
        assert!(named.next().is_none(), "{name} came twice");
        found
    }

    /// When the first span of this name came.
    pub(crate) fn arrival(&self, name: &str) -> Option<Instant> {
        self.spans.iter().find(|(_, span)| span.name == name).map(|(at, _)| *at)
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.spans.iter().map(|(_, span)| span.name.as_str()).collect()
    }

    pub(crate) fn events(&self, name: &str) -> Vec<&LogRecord> {
        self.logs.iter().filter(|log| log.event_name == name).collect()
    }
}

/// An attribute of a span as text.
pub(crate) fn text(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        Value::BoolValue(truth) => Some(truth.to_string()),
        _ => None,
    }
}
