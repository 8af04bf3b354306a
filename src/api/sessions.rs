//! `/api/v1/sessions`: classes, their samples, their registration and their end. Decides what a registration may
//! contain; refuses a malformed one with the field that is wrong.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Descriptor, Name, Scenario, StreamKey, TraceParent, TraceState};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::state::ApiState;
use crate::engine::{Command, notice_json, sample_json, session_json};
use crate::http::ApiError;
use crate::platform::clock;

/// What the platform may announce of a class; every field is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Registration {
    course_id: Option<String>,
    teacher_id: Option<String>,
    scenario: Option<String>,
    stream: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    student_count: Option<u32>,
    interactions: Option<u64>,
}

/// `GET /api/v1/sessions`
pub(super) async fn list(State(state): State<ApiState>) -> Response {
    let snapshot = state.snapshot.load();
    let sessions: Vec<Value> = snapshot.sessions.values().map(session_json).collect();
    let cut_at = snapshot.cut_at.map(liveqos_core::model::Timestamp::seconds);
    Json(json!({ "node": state.node, "cut_at": cut_at, "sessions": sessions })).into_response()
}

/// `GET /api/v1/sessions/{id}`
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Response {
    let snapshot = state.snapshot.load();
    let Some(session) = snapshot.sessions.get(id.as_str()) else {
        return unknown(&id).into_response();
    };
    let mut out = session_json(session);
    let own = snapshot.alerts.iter().filter(|notice| notice.subject.key() == id);
    out["alerts"] = own.map(notice_json).collect();
    Json(out).into_response()
}

/// `GET /api/v1/sessions/{id}/samples`
pub(super) async fn samples(State(state): State<ApiState>, Path(id): Path<String>) -> Response {
    match state.history.of(&id) {
        Some(samples) => {
            let samples: Vec<Value> = samples.iter().map(|sample| sample_json(sample)).collect();
            Json(json!({ "session_id": id, "samples": samples })).into_response()
        }
        None => unknown(&id).into_response(),
    }
}

/// `PUT /api/v1/sessions/{id}`
pub(super) async fn register(State(state): State<ApiState>, Path(id): Path<String>, body: Bytes) -> Response {
    let (id, stream, descriptor) = match read(&id, &body) {
        Ok(read) => read,
        Err(error) => return error.into_response(),
    };
    let (answer, answered) = oneshot::channel();
    state.ended.forget(&id);
    let command = Command::Register(id.clone(), stream, Box::new(descriptor), answer);
    match execute(&state, command, answered).await {
        Ok(true) => Json(json!({ "session_id": id, "registered": true })).into_response(),
        Ok(false) => {
            let message = "too many classes are announced; announce closer to their start";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_registrations", message).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `DELETE /api/v1/sessions/{id}`
pub(super) async fn end(State(state): State<ApiState>, Path(id): Path<String>) -> Response {
    let Ok(name) = Name::new(&id) else {
        return unknown(&id).into_response();
    };
    let (answer, answered) = oneshot::channel();
    match execute(&state, Command::End(name.clone(), answer), answered).await {
        Ok(true) => {
            state.ended.record(&name, clock::now());
            Json(json!({ "session_id": id, "ended": true })).into_response()
        }
        Ok(false) => unknown(&id).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Has the engine execute a command.
///
/// # Errors
/// When its queue is full or it does not answer within [`ANSWER_TIMEOUT`].
async fn execute(state: &ApiState, command: Command, answered: oneshot::Receiver<bool>) -> Result<bool, ApiError> {
    let busy = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the daemon is busy or stopping; try again");
    if state.commands.try_send(command).is_err() {
        state.meters.shed(ShedReason::Orders, 1);
        return Err(busy());
    }
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(busy()),
    }
}

fn read(id: &str, body: &[u8]) -> Result<(Name, Option<StreamKey>, Descriptor), ApiError> {
    let wrong = |field, message: String| ApiError::new(StatusCode::BAD_REQUEST, "bad_registration", message).on(field);
    let registration: Registration = if body.is_empty() {
        Registration::default()
    } else {
        serde_json::from_slice(body).map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, "bad_json", format!("reading the registration: {error}"))
        })?
    };
    let name = |field, text: Option<String>| {
        text.map(|text| Name::new(&text).map_err(|error| wrong(field, error.to_string()))).transpose()
    };
    let stream = registration
        .stream
        .map(|text| StreamKey::parse(&text).map_err(|error| wrong("stream", error.to_string())))
        .transpose()?;
    let scenario = registration.scenario.map(|text| {
        let known = Scenario::ALL.map(Scenario::as_str).join(", ");
        Scenario::parse(&text).ok_or_else(|| wrong("scenario", format!("\"{text}\" is none of {known}")))
    });
    let trace_parent = registration
        .traceparent
        .map(|text| TraceParent::parse(&text).map_err(|error| wrong("traceparent", error.to_string())));
    let trace_state = registration
        .tracestate
        .map(|text| TraceState::parse(&text).map_err(|error| wrong("tracestate", error.to_string())));
    let id = Name::new(id).map_err(|error| wrong("id", error.to_string()))?;
    let descriptor = Descriptor {
        session_id: Some(id.clone()),
        course_id: name("course_id", registration.course_id)?,
        teacher_id: name("teacher_id", registration.teacher_id)?,
        scenario: scenario.transpose()?,
        student_count: registration.student_count,
        trace_parent: trace_parent.transpose()?,
        trace_state: trace_state.transpose()?,
        interactions: registration.interactions,
        ..Descriptor::default()
    };
    Ok((id, stream, descriptor))
}

/// Longest wait for the engine's answer to a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

fn unknown(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_session", format!("no class \"{id}\" is live on this node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_read_or_refused_by_field() {
        let body = br#"{"course_id":"c9","stream":"live/a","scenario":"exam","student_count":40}"#;
        let (id, stream, descriptor) = read("s1", body).expect("a good registration");
        assert_eq!((id.as_str(), stream.expect("a stream").as_str()), ("s1", "live/a"));
        assert_eq!((descriptor.scenario, descriptor.student_count), (Some(Scenario::Exam), Some(40)));
        for (body, field) in [
            (r#"{"scenario":"party"}"#, "scenario"),
            (r#"{"traceparent":"00-0-0-0"}"#, "traceparent"),
            (r#"{"tracestate":"ot"}"#, "tracestate"),
            (r#"{"stream":"  "}"#, "stream"),
            (r#"{"course_id":"a\nb"}"#, "course_id"),
        ] {
            let error = read("s1", body.as_bytes()).expect_err("refused");
            assert!(format!("{error:?}").contains(field), "{error:?}");
        }
        assert!(read("s1", b"{").is_err() && read("s1", br#"{"curse_id":"x"}"#).is_err());
    }
}
