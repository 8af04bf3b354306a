//! FACE

mod attributes;
mod plan;
mod segment;
mod span;

pub(crate) use self::plan::SpanPlan;
pub use self::span::{Attributes, Event, LogEvent, Parent, Span, SpanCommand, SpanName, SpanRef, Value};
