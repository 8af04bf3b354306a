//! FACE

mod attributes;
mod plan;
mod segment;
mod span;

pub use self::attributes::Figures;
pub(crate) use self::plan::SpanPlan;
pub use self::segment::Reading;
pub(crate) use self::segment::Segment;
pub use self::span::{Attributes, Event, LogEvent, Parent, Span, SpanCommand, SpanName, SpanRef, Value};
