//! Routes of the page, the metrics, the API and the hooks. Everything is read from a snapshot or sent to the engine
//! through a bounded queue, so that no reader delays a tick.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use liveqos_core::model::TICK;
use serde_json::json;

use super::state::ApiState;
use super::{metrics, sessions};
use crate::engine::{capacity_json, notice_json};
use crate::http::{ApiError, body, method_not_allowed, not_found};
use crate::intake::HookAnswer;
use crate::platform::clock;

/// All routes.
pub(crate) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/metrics", get(metrics::page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/api/v1/sessions", get(sessions::list))
        .route("/api/v1/sessions/{id}", get(sessions::one).put(sessions::register).delete(sessions::end))
        .route("/api/v1/sessions/{id}/samples", get(sessions::samples))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/sources", get(sources))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.meters.clone(), body::buffer))
        // Not behind the body check: a hook is answered with success even when its body cannot be read.
        .route("/v1/hooks/{server}", any(hook))
        .with_state(state)
}

async fn livez() -> &'static str {
    "ok\n"
}

/// Ready while the engine ticks. Where nothing is kept on disk, a second line gives the reason.
async fn readyz(State(state): State<ApiState>) -> Response {
    let silent = clock::now().since(**state.last_tick.load());
    if silent < TICK * MISSED_TICKS {
        let health = state.storage.health();
        let why = health.why.map_or_else(String::new, |why| format!("nothing is kept across a restart: {why}\n"));
        return format!("ok\n{why}").into_response();
    }
    let message = format!("the last tick was {:.1} s ago", silent.as_secs_f64());
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_beating", message).into_response()
}

async fn alerts(State(state): State<ApiState>) -> Response {
    let snapshot = state.snapshot.load();
    let alerts: Vec<_> = snapshot.alerts.iter().map(notice_json).collect();
    Json(json!({ "alerts": alerts })).into_response()
}

async fn sources(State(state): State<ApiState>) -> Response {
    let (health, now) = (state.storage.health(), clock::now());
    let (sources, paths) = (state.sources.load().snapshot(now), state.paths.status(now));
    let capacity = state.snapshot.load().capacity.map(capacity_json);
    let mut out = json!({ "node": state.node, "state": health, "sources": sources, "paths": paths });
    if let Some(capacity) = capacity {
        out["capacity"] = capacity;
    }
    Json(out).into_response()
}

/// A media server's hook. A known server is always answered with success, because a media server may drop a class whose
/// hook is refused.
async fn hook(
    State(state): State<ApiState>,
    Path(server): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> HookAnswer {
    state.hooks.load_full().receive(&server, &query.unwrap_or_default(), body).await
}

/// Missed ticks after which the daemon is not ready.
const MISSED_TICKS: u32 = 12;
const PAGE: &str = include_str!("page.html");
