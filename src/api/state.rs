//! What the handlers of the API share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::FromRef;
use liveqos_core::model::Timestamp;

use super::metrics::MetricsPage;
use crate::engine::{Commands, History, Snapshot};
use crate::intake::{HookIntake, SourceTable};
use crate::peers::PathTable;
use crate::platform::SelfMetrics;
use crate::players::EndedSessions;
use crate::storage::HealthReader;

/// State of the API.
#[derive(Clone)]
pub(crate) struct ApiState {
    /// The node's name.
    pub node: String,
    /// What the engine published last.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// When the engine's last tick was.
    pub last_tick: Arc<ArcSwap<Timestamp>>,
    /// Recent samples.
    pub history: Arc<History>,
    /// State of the sources.
    pub sources: Arc<ArcSwap<SourceTable>>,
    /// State of the paths to other nodes.
    pub paths: Arc<PathTable>,
    /// Health of what is kept on disk.
    pub storage: HealthReader,
    /// Hooks of media servers.
    pub hooks: Arc<ArcSwap<HookIntake>>,
    /// Commands to the engine.
    pub commands: Commands,
    /// Classes that the platform ended.
    pub ended: Arc<EndedSessions>,
    /// `GET /metrics`.
    pub metrics: Arc<MetricsPage>,
    /// The daemon's own metrics.
    pub meters: SelfMetrics,
}

impl FromRef<ApiState> for Arc<MetricsPage> {
    fn from_ref(state: &ApiState) -> Self {
        Self::clone(&state.metrics)
    }
}
