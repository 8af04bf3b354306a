//! Errors of the HTTP interface, as JSON `{"error":{"code","message","field"}}`. Decides their form; a message says
//! what to do.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error response.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<&'static str>,
}

impl ApiError {
    /// An error of this status, with a code for programs and a message for people.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None }
    }

    /// The same error, naming the field that is wrong.
    #[must_use]
    pub(crate) fn on(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }
}

/// 404: no route has this path.
pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path")
}

/// 405: the route has other methods.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not support this method")
}

/// 429 with `Retry-After: wait`, rounded up to whole seconds (RFC 6585, section 4).
#[must_use]
pub(crate) fn retry_later(code: &'static str, message: &str, wait: Duration) -> Response {
    let seconds = HeaderValue::from(wait.as_secs().max(1) + u64::from(wait.subsec_nanos() > 0));
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message);
    ([(header::RETRY_AFTER, seconds)], error).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(field) = self.field {
            error["field"] = json!(field);
        }
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}
