//! Notices as the alert evaluator makes them.

use std::sync::Arc;

use liveqos_core::model::{
    Alert, Cause, Evidence, Notice, NoticeState, Scenario, Session, StreamKey, Subject, Timestamp,
};

/// A stutter alert of the class of this number, caused by the node.
#[must_use]
pub fn stutter(class: usize, state: NoticeState, started_at: Timestamp, at: Timestamp) -> Notice {
    let stream = StreamKey::new(None, "live", &format!("class{class}")).expect("a good name");
    let session = Session {
        id: stream.name().clone(),
        stream,
        course_id: None,
        teacher_id: None,
        scenario: Scenario::LiveTeaching,
        student_count: None,
        trace_parent: None,
        trace_state: None,
        stream_type: None,
    };
    Notice {
        alert: Alert::LiveStutterHigh,
        subject: Subject::Session(Arc::new(session)),
        state,
        started_at,
        at,
        evidence: Evidence { value: 0.041, threshold: 0.01, unit: "ratio", size: 380.0, size_unit: "viewer-seconds" },
        cause: Cause::Node,
        why: [].into(),
        forecast: None,
        renotified: false,
    }
}
