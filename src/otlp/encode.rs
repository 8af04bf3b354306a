//! Span commands as OTLP messages. A command encoded twice gives the same bytes, because ids, flags and the order of
//! fields depend on it alone. Nothing is added to the command but the derived id of a trace that the platform named.

use bytes::Bytes;
use liveqos_core::base::hex;
use liveqos_core::model::Session;
use liveqos_core::trace::{Attributes, Event, LogEvent, Parent, Span, SpanCommand, SpanName, Value};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{self as proto, span, status};
use prost::Message as _;

use super::record::{Record, Signal};
use crate::platform::trace_id;

/// The record of `command`, with the span ids of `node`; its spans carry `trace_state`.
#[must_use]
pub fn record(command: &SpanCommand, node: &str, trace_state: &str) -> Record {
    match command {
        SpanCommand::Export(span) => Record {
            signal: Signal::Traces,
            bytes: Bytes::from(encode_span(span, node, trace_state).encode_to_vec()),
            items: 1,
            urgent: is_urgent(span.this.name),
        },
        SpanCommand::Emit(event) => Record {
            signal: Signal::Logs,
            bytes: Bytes::from(encode_event(event, node).encode_to_vec()),
            items: 1,
            urgent: true,
        },
    }
}

/// `span` as an OTLP message.
#[must_use]
pub fn encode_span(span: &Span, node: &str, trace_state: &str) -> proto::Span {
    let trace = trace_id::trace_id(&span.session);
    let (parent_span_id, remote) = match (&span.parent, &span.session.trace_parent) {
        (Parent::Span(parent), _) => (trace_id::span_id(&trace, node, parent).to_vec(), false),
        (Parent::Platform, Some(platform)) => (platform.parent_id.to_vec(), true),
        (Parent::Platform, None) => (Vec::new(), false),
    };
    let mut attributes = key_values(&span.attributes);
    if span.this.name == SpanName::TeachingStart && span.session.trace_parent.is_some() {
        let derived = hex::encode(&trace_id::derived_trace_id(span.session.id.as_str()));
        attributes.push(key_value(DERIVED_ID, any_value::Value::StringValue(derived)));
    }
    proto::Span {
        trace_id: trace.to_vec(),
        span_id: trace_id::span_id(&trace, node, &span.this).to_vec(),
        trace_state: trace_state.to_owned(),
        parent_span_id,
        flags: trace_flags(&span.session) | HAS_IS_REMOTE | if remote { IS_REMOTE } else { 0 },
        name: span.this.name.as_str().to_owned(),
        kind: span::SpanKind::Internal.into(),
        start_time_unix_nano: span.start.nanos(),
        end_time_unix_nano: span.end.nanos(),
        attributes,
        events: span.events.iter().map(span_event).collect(),
        status: span
            .error
            .as_ref()
            .map(|why| proto::Status { message: why.to_string(), code: status::StatusCode::Error.into() }),
        ..proto::Span::default()
    }
}

/// `log` as an OTLP message. Its observed time is that of the event, so that a replay gives the same bytes.
#[must_use]
pub fn encode_event(log: &LogEvent, node: &str) -> LogRecord {
    let trace = trace_id::trace_id(&log.session);
    LogRecord {
        time_unix_nano: log.event.at.nanos(),
        observed_time_unix_nano: log.event.at.nanos(),
        attributes: key_values(&log.event.attributes),
        flags: trace_flags(&log.session),
        trace_id: trace.to_vec(),
        span_id: trace_id::span_id(&trace, node, &log.span).to_vec(),
        event_name: log.event.name.to_owned(),
        ..LogRecord::default()
    }
}

/// Whether people wait for the span: roots of classes, incidents.
const fn is_urgent(name: SpanName) -> bool {
    matches!(name, SpanName::TeachingStart | SpanName::QosIncident)
}

/// W3C trace flags: *sampled* always, because what is exported was recorded; *random* only where the platform set it
/// for its own trace id.
fn trace_flags(session: &Session) -> u32 {
    let platform = session.trace_parent.map_or(0, |parent| u32::from(parent.flags));
    SAMPLED | (platform & RANDOM)
}

fn span_event(event: &Event) -> span::Event {
    span::Event {
        time_unix_nano: event.at.nanos(),
        name: event.name.to_owned(),
        attributes: key_values(&event.attributes),
        dropped_attributes_count: 0,
    }
}

/// OTLP attributes in the order of `attributes`.
pub(crate) fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    attributes.iter().map(|(key, value)| key_value(key, any_value(value))).collect()
}

fn any_value(value: &Value) -> any_value::Value {
    match value {
        Value::Text(text) => any_value::Value::StringValue(text.to_string()),
        Value::Static(text) => any_value::Value::StringValue((*text).to_owned()),
        Value::Int(number) => any_value::Value::IntValue(*number),
        Value::Float(number) => any_value::Value::DoubleValue(*number),
        Value::Bool(truth) => any_value::Value::BoolValue(*truth),
    }
}

/// One attribute.
pub(crate) fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// W3C trace flag *sampled*.
const SAMPLED: u32 = 0x01;
/// W3C trace flag *random* (Trace Context, level 2).
const RANDOM: u32 = 0x02;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`.
const HAS_IS_REMOTE: u32 = 0x100;
/// `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const IS_REMOTE: u32 = 0x200;
/// Attribute on the root of a class whose trace the platform named: the trace id derived from the session id.
const DERIVED_ID: &str = "live.trace.derived_id";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use liveqos_core::model::{Name, Scenario, StreamKey, Timestamp, TraceParent};
    use liveqos_core::trace::SpanRef;

    use super::*;

    fn session(trace_parent: Option<&str>) -> Arc<Session> {
        Arc::new(Session {
            id: Name::new("class-101").expect("a name"),
            stream: StreamKey::parse("live/class-101").expect("a key"),
            course_id: None,
            teacher_id: None,
            scenario: Scenario::LiveTeaching,
            student_count: None,
            trace_parent: trace_parent.map(|text| TraceParent::parse(text).expect("a traceparent")),
            trace_state: None,
            stream_type: None,
        })
    }

    fn root(session: Arc<Session>) -> Span {
        Span {
            session,
            this: SpanRef { name: SpanName::TeachingStart, ordinal: 7 },
            parent: Parent::Platform,
            start: Timestamp::from_secs(10),
            end: Timestamp::from_secs(11),
            error: Some("encoder stopped".into()),
            attributes: vec![
                ("live.fps", Value::Float(25.0)),
                ("live.viewer_count", Value::Int(3)),
                ("live.publishing", Value::Bool(true)),
                ("stream.type", Value::Static("rtmp")),
                ("session.id", Value::Text("class-101".into())),
            ],
            events: vec![Event {
                name: "live.qos.sample",
                at: Timestamp::from_secs(10),
                attributes: vec![("live.bitrate", Value::Int(1))],
            }],
        }
    }

    #[test]
    fn a_span_encoded_twice_gives_the_same_bytes() {
        let command = SpanCommand::Export(Box::new(root(session(None))));
        let once = record(&command, "edge-7", "ot=th:0");
        assert_eq!(once, record(&command.clone(), "edge-7", "ot=th:0"));
        assert_ne!(once.bytes, record(&command, "edge-8", "ot=th:0").bytes, "another node has other span ids");
        assert!(once.urgent);
        let read = proto::Span::decode(once.bytes).expect("a span");
        let keys: Vec<_> = read.attributes.iter().map(|pair| pair.key.as_str()).collect();
        let order = ["live.fps", "live.viewer_count", "live.publishing", "stream.type", "session.id"];
        assert_eq!(keys, order, "the command's order");
        assert_eq!(read.events.len(), 1);
        assert_eq!(read.status.map(|status| (status.code, status.message)), Some((2, "encoder stopped".to_owned())));
    }

    #[test]
    fn a_local_root_has_no_parent() {
        let span = encode_span(&root(session(None)), "n", "");
        assert_eq!((span.parent_span_id.as_slice(), span.flags), (&[][..], 0x101));
        assert_eq!(span.trace_id, trace_id::derived_trace_id("class-101"));
    }

    #[test]
    fn the_platforms_trace_id_wins_and_the_derived_one_stays_findable() {
        let platform = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let span = encode_span(&root(session(Some(platform))), "n", "a=1");
        assert_eq!(span.trace_state, "a=1");
        assert_eq!(hex::encode(&span.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(hex::encode(&span.parent_span_id), "00f067aa0ba902b7");
        assert_eq!(span.flags, 0x301);
        let last = span.attributes.last().expect("attributes");
        let derived = hex::encode(&trace_id::derived_trace_id("class-101"));
        assert_eq!(last, &key_value(DERIVED_ID, any_value::Value::StringValue(derived)));
        let random = platform.replace("-00f0", "-00f1").replace("b7-00", "b7-03");
        assert_eq!(
            encode_span(&root(session(Some(&random))), "n", "").flags,
            0x303,
            "the random flag is the platform's"
        );
    }

    #[test]
    fn an_event_points_at_its_span() {
        let span = SpanRef { name: SpanName::TeachingConduct, ordinal: 9 };
        let log = LogEvent {
            session: session(None),
            span,
            event: Event {
                name: "live.qos.sample",
                at: Timestamp::from_secs(5),
                attributes: vec![("session.id", Value::Static("class-101"))],
            },
        };
        let read = encode_event(&log, "n");
        let trace = trace_id::derived_trace_id("class-101");
        assert_eq!(read.trace_id, trace);
        assert_eq!(read.span_id, trace_id::span_id(&trace, "n", &span));
        assert_eq!(read.time_unix_nano, 5_000_000_000);
        assert_eq!(read.observed_time_unix_nano, read.time_unix_nano);
        assert_eq!(read.event_name, "live.qos.sample");
        assert!(record(&SpanCommand::Emit(Box::new(log)), "n", "").urgent);
    }
}
