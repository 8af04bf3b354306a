//! The address that serves players alone, and which connections of the main address are players'.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use axum::Router;
use liveqos_core::metrics::ShedReason;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::endpoints::{PlayerService, is_player_path, is_player_request};
use super::settings::IngestSettings;
use super::state::PlayerState;
use crate::http::{BatchingRuntime, DispatchRule, ListenerConfig, not_found, server};
use crate::platform::tls;

/// The address that serves players alone, and its certificate.
pub(crate) struct PlayerListener {
    address: SocketAddr,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl PlayerListener {
    /// Opens it on `runtime`, where one is configured.
    ///
    /// # Errors
    /// When the address cannot be bound or the certificate cannot be read.
    pub(crate) async fn open(
        settings: &IngestSettings,
        state: &PlayerState,
        runtime: &BatchingRuntime,
        stopped: watch::Receiver<bool>,
    ) -> Result<Option<Self>> {
        if settings.listen.is_empty() {
            return Ok(None);
        }
        let tls = tls::server(&settings.tls).context("ingest.tls")?.map(|tls| Arc::new(ArcSwap::from_pointee(tls)));
        let listener = TcpListener::bind(&settings.listen).await;
        let listener = listener.and_then(|listener| runtime.adopt(listener));
        let listener = listener.with_context(|| format!("listening on {} (ingest.listen)", settings.listen))?;
        let address = listener.local_addr()?;
        let config = ListenerConfig {
            service: PlayerService::new(state, Router::new().fallback(not_found)),
            tls: tls.clone(),
            permits: runtime.permits(),
            shed_reason: CONNECTIONS_SHED,
            meters: state.meters.clone(),
            dispatch: None,
        };
        runtime.spawn(server::serve(listener, config, stopped));
        Ok(Some(Self { address, tls }))
    }

    /// Its address.
    #[must_use]
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Uses a renewed certificate for new connections.
    pub(crate) fn renew(&self, certificate: ServerConfig) {
        if let Some(tls) = &self.tls {
            tls.store(Arc::new(certificate));
        }
    }
}

/// Which connections of the main address `runtime` serves: those whose first request is a player's.
#[must_use]
pub(crate) fn dispatch_rule(runtime: &BatchingRuntime) -> DispatchRule {
    DispatchRule {
        runtime: runtime.clone(),
        accepts: is_player_request,
        accepts_path: is_player_path,
        shed_reason: CONNECTIONS_SHED,
    }
}

/// The reason in `liveqos_shed_total` of a player's connection beyond `ingest.max_connections`.
const CONNECTIONS_SHED: ShedReason = ShedReason::IngestConnections;
