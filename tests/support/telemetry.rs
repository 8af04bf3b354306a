//! Telemetry of made-up classes: sessions, spans and samples as core makes them.

use std::sync::Arc;
use std::time::Duration;

use liveqos_core::model::{GRID, Name, Protocol, Scenario, Session, StreamKey, Timestamp};
use liveqos_core::trace::{Attributes, Event, LogEvent, Parent, Span, SpanCommand, SpanName, SpanRef, Value};

/// When all classes begin.
pub const START: Timestamp = Timestamp::from_secs(1_795_424_400);

/// The class of this number.
#[must_use]
pub fn session(number: u32) -> Arc<Session> {
    let id = format!("class-{number:05}");
    Arc::new(Session {
        stream: StreamKey::parse(&format!("live/{id}")).unwrap(),
        id: Name::new(&id).unwrap(),
        course_id: Some(Name::new(&format!("course-{}", number / 4)).unwrap()),
        teacher_id: Some(Name::new(&format!("t-{:08x}", number.wrapping_mul(2_654_435_761))).unwrap()),
        scenario: Scenario::LiveTeaching,
        student_count: None,
        trace_parent: None,
        trace_state: None,
        stream_type: Some(Protocol::Rtmp),
    })
}

/// A span of a minute at [`START`].
#[must_use]
pub fn span(session: &Arc<Session>, name: SpanName, ordinal: u64) -> Span {
    let root = SpanRef { name: SpanName::TeachingStart, ordinal: 0 };
    let this = SpanRef { name, ordinal };
    Span {
        session: Arc::clone(session),
        this,
        parent: if this == root { Parent::Platform } else { Parent::Span(root) },
        start: START,
        end: START + Duration::from_mins(1),
        error: None,
        attributes: vec![
            ("session.id", Value::Text(session.id.as_str().into())),
            ("education.scenario", Value::Static(session.scenario.as_str())),
        ],
        events: Vec::new(),
    }
}

/// `count` segments of a class, none of them urgent.
#[must_use]
pub fn segments(session: &Arc<Session>, count: u64) -> Vec<SpanCommand> {
    (1..=count)
        .map(|ordinal| SpanCommand::Export(Box::new(span(session, SpanName::TeachingConduct, ordinal))))
        .collect()
}

/// Sample number `tick` of a class, as a log event with these attributes.
#[must_use]
pub fn sample(session: &Arc<Session>, tick: u64, attributes: Attributes) -> SpanCommand {
    SpanCommand::Emit(Box::new(LogEvent {
        session: Arc::clone(session),
        span: SpanRef {
            name: SpanName::TeachingConduct,
            ordinal: (START + Duration::from_secs(tick / 12 * 60)).nanos(),
        },
        event: Event { name: "live.qos.sample", at: START + GRID * u32::try_from(tick).unwrap(), attributes },
    }))
}
