//! The trace of a class as commands: which spans and events there are, their times and attributes.
//!
//! **Decides** when each span is exported and what its parent is (`plan`), how a minute of samples becomes a span
//! (`segment`), and the keys, units and rounding of attributes (`attributes`).
//!
//! **In**: the [`Batch`](crate::model::Batch) and the [`Notice`](crate::model::Notice)s of a tick.
//!
//! **Out**: [`SpanCommand`]s, to the OTLP exporter, which derives ids and encodes; [`Entry`](crate::model::Entry)s,
//! to the journal.
//!
//! **May import** base, model. Knows nothing of alerts beyond their notices.

mod attributes;
mod plan;
mod segment;
mod span;

pub(crate) use self::plan::SpanPlan;
pub use self::span::{Attributes, Event, LogEvent, Parent, Span, SpanCommand, SpanName, SpanRef, Value};
