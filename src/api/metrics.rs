//! `GET /metrics`: classic text, or OpenMetrics with exemplars where the scraper accepts it.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, TextEncoder};

use super::Shared;
use super::error::ApiError;
use crate::sinks::openmetrics;
use crate::sinks::prometheus::exemplars;

/// The page.
pub(super) async fn page(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let families = shared.registry.gather();
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("application/openmetrics-text") {
        let snapshot = shared.snapshot.load();
        let page = openmetrics::encode(&families, |name| exemplars(name, &snapshot, &families));
        return ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], page).into_response();
    }
    let encoder = TextEncoder::new();
    let mut page = Vec::with_capacity(64 * 1024);
    match encoder.encode(&families, &mut page) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], page).into_response(),
        Err(error) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding", error.to_string()).into_response(),
    }
}
