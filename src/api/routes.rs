//! The HTTP interface: page, metrics, API and hooks. Decides routes and answers; everything is read from a snapshot or
//! handed to the engine by a bounded queue, so that no reader delays a tick.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use liveqos_core::model::{TICK, Timestamp};
use serde_json::json;
use tokio::sync::mpsc;

use super::{metrics, sessions};
use crate::engine::snapshot::{capacity_json, notice_json};
use crate::engine::{Command, History, Snapshot};
use crate::http::{ApiError, body, error};
use crate::intake::{HookAnswer, HookIntake, SourceTable};
use crate::metrics::SessionSeries;
use crate::peers::PathTable;
use crate::platform::{SelfMetrics, clock};
use crate::players::{Beacons, ClientPolicy, CmcdIntake, EndedSessions, listener};
use crate::storage::Watch;

/// Largest body of any request.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The present.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The recent past.
    pub history: Arc<History>,
    /// The sources.
    pub sources: Arc<ArcSwap<SourceTable>>,
    /// The paths to other nodes.
    pub paths: Arc<PathTable>,
    /// Hooks of media servers.
    pub hooks: Arc<ArcSwap<HookIntake>>,
    /// Who of the players may ask how often.
    pub gate: Arc<ClientPolicy>,
    /// Event reports of players.
    pub cmcd: Arc<CmcdIntake>,
    /// Classes that the platform ended.
    pub ended: Arc<EndedSessions>,
    /// Reports of players.
    pub beacons: Arc<Beacons>,
    /// The way to the engine.
    pub orders: mpsc::Sender<Command>,
    /// All metrics but those of single classes.
    pub registry: prometheus::Registry,
    /// The metrics of single classes.
    pub session_series: Arc<SessionSeries>,
    /// The daemon's own counters.
    pub meters: SelfMetrics,
    /// When the engine last tick.
    pub last_tick: Arc<ArcSwap<Timestamp>>,
    /// How it stands with what must outlive the daemon.
    pub state: Watch,
    /// The node's name.
    pub node: String,
}

/// All routes.
pub(crate) fn router(shared: Shared) -> Router {
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
        .fallback(error::nothing_here)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(from_fn_with_state(shared.clone(), body::whole))
        // Its body is answered with success whatever becomes of it.
        .route("/v1/hooks/{server}", any(hook))
        .merge(listener::routes(&shared))
        .with_state(shared)
}

async fn livez() -> &'static str {
    "ok\n"
}

/// Ready while the engine ticks; a second line says where nothing outlives the daemon.
async fn readyz(State(shared): State<Shared>) -> Response {
    let silent = clock::now().since(**shared.last_tick.load());
    if silent < TICK * MISSED_TICKS {
        let health = shared.state.health();
        let why = health.why.map_or_else(String::new, |why| format!("nothing outlives the daemon: {why}\n"));
        return format!("ok\n{why}").into_response();
    }
    let message = format!("the last tick was {:.1} s ago", silent.as_secs_f64());
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_beating", message).into_response()
}

async fn alerts(State(shared): State<Shared>) -> Response {
    let snapshot = shared.snapshot.load();
    let alerts: Vec<_> = snapshot.alerts.iter().map(notice_json).collect();
    Json(json!({ "alerts": alerts })).into_response()
}

async fn sources(State(shared): State<Shared>) -> Response {
    let (state, now) = (shared.state.health(), clock::now());
    let (sources, paths) = (shared.sources.load().snapshot(now), shared.paths.status(now));
    let capacity = shared.snapshot.load().capacity.map(capacity_json);
    let mut out = json!({ "node": shared.node, "state": state, "sources": sources, "paths": paths });
    if let Some(capacity) = capacity {
        out["capacity"] = capacity;
    }
    Json(out).into_response()
}

/// A media server's hook. A known server is always answered with success: a refused hook may drop a class.
async fn hook(
    State(shared): State<Shared>,
    Path(server): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> HookAnswer {
    shared.hooks.load_full().receive(&server, &query.unwrap_or_default(), body).await
}

/// Ticks that may be missed before the daemon is not ready.
const MISSED_TICKS: u32 = 12;
/// Longest wait for the engine's answer to an order.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const PAGE: &str = include_str!("page.html");
