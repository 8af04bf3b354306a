//! `GET /metrics`: classic text, or OpenMetrics with exemplars where the scraper accepts it.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::routes::Shared;
use crate::metrics::Form;
use crate::metrics::collector::exemplars;
use crate::metrics::exposition::{encode, finish};

/// The page.
pub(super) async fn page(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default());
    let families = shared.registry.gather();
    let mut page = String::with_capacity(64 * 1024);
    let snapshot = shared.snapshot.load();
    encode(form, &families, |name| exemplars(name, &snapshot, &families), &mut page);
    shared.session_series.write(form, &mut page);
    finish(form, &mut page);
    ([(header::CONTENT_TYPE, form.content_type())], page).into_response()
}
