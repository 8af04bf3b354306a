//! Spans and events of a class's trace as commands: names, times and attributes, without ids or wire format. Ids are
//! derived from a [`SpanRef`] where spans are encoded, so that a replay gives the same bytes.

use std::sync::Arc;

use crate::model::{Session, Timestamp};

/// The spans of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanName {
    /// Short root, exported within 5 s of the first byte.
    TeachingStart,
    /// The start of the stream.
    StreamEstablish,
    /// One minute of the class with its 5 s samples as events.
    TeachingConduct,
    /// A fault with its real start and end.
    QosIncident,
    /// The whole class, exported at its end.
    TeachingComplete,
    /// The publisher's connection.
    ConnectionEstablish,
    /// The first media.
    StreamStart,
    /// The interactions that the platform reported.
    Interaction,
    /// The last media.
    StreamEnd,
}

impl SpanName {
    /// The span name in traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TeachingStart => "live.teaching.start",
            Self::StreamEstablish => "live.stream.establish",
            Self::TeachingConduct => "live.teaching.conduct",
            Self::QosIncident => "live.qos.incident",
            Self::TeachingComplete => "live.teaching.complete",
            Self::ConnectionEstablish => "live.connection.establish",
            Self::StreamStart => "live.stream.start",
            Self::Interaction => "live.interaction",
            Self::StreamEnd => "live.stream.end",
        }
    }
}

/// Identifies a span of a session: its name, and an ordinal that distinguishes spans of one name (the start of its
/// minute, its incident or the class, in nanoseconds since the epoch). With trace id and node it gives the span id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanRef {
    /// The name.
    pub name: SpanName,
    /// The ordinal.
    pub ordinal: u64,
}

/// The parent of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing, or the platform's span where the session carries a trace parent.
    Platform,
    /// Another span of the same session on this node.
    Span(SpanRef),
}

/// An attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Arc<str>),
    /// A fixed text.
    Static(&'static str),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

/// Attributes in a fixed order, each key once.
pub type Attributes = Vec<(&'static str, Value)>;

/// An event within a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// When it happened.
    pub at: Timestamp,
    /// Its attributes.
    pub attributes: Attributes,
}

/// A finished span. Its status is *error* where `error` is set, else unset.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The session whose trace it belongs to.
    pub session: Arc<Session>,
    /// Its identity.
    pub this: SpanRef,
    /// Its parent.
    pub parent: Parent,
    /// Start.
    pub start: Timestamp,
    /// End, not before the start.
    pub end: Timestamp,
    /// Why it is an error, as text.
    pub error: Option<Arc<str>>,
    /// Attributes.
    pub attributes: Attributes,
    /// Events, ascending.
    pub events: Vec<Event>,
}

/// A log event that belongs to a span; it is visible in a backend before the span is.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEvent {
    /// The session whose trace it belongs to.
    pub session: Arc<Session>,
    /// The span it belongs to.
    pub span: SpanRef,
    /// The event.
    pub event: Event,
}

/// A command to the trace exporter.
#[derive(Clone, Debug, PartialEq)]
pub enum SpanCommand {
    /// Export this span.
    Export(Box<Span>),
    /// Send this event at once.
    Emit(Box<LogEvent>),
}
