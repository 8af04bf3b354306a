//! Starts the tasks that ping peers and the one that answers pings, and renews their certificates at a reload.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use quinn::{ClientConfig, Endpoint};
use tokio::task::JoinSet;

use super::connection::PeerError;
use super::credentials::{CredentialError, Credentials};
use super::prober::Prober;
use super::settings::{NodeTlsSettings, PathSettings, PeerSettings};
use super::status::PathTable;
use super::{prober, responder};
use crate::intake::SourceTable;
use crate::platform::SelfMetrics;

/// The running paths: what a reload renews.
pub struct Peers {
    tls: NodeTlsSettings,
    client: Arc<ArcSwap<ClientConfig>>,
    endpoint: Option<Endpoint>,
}

impl Peers {
    /// Starts a task for each peer, and one that answers pings where `paths.listen` is set; `None` where neither is
    /// configured.
    ///
    /// # Errors
    /// When the certificates cannot be used, or the address cannot be listened on.
    pub fn start(
        settings: &PathSettings,
        table: &PathTable,
        sources: &SourceTable,
        meters: &SelfMetrics,
        tasks: &mut JoinSet<()>,
    ) -> Result<Option<Self>> {
        if !settings.is_used() {
            return Ok(None);
        }
        let Credentials { client, server } = Credentials::read(&settings.tls)?;
        let client = Arc::new(ArcSwap::from_pointee(client));
        let listen = (!settings.listen.is_empty()).then(|| settings.listen.parse()).transpose();
        let open = |address: SocketAddr| Endpoint::server(server, address);
        let endpoint = listen.context("paths.listen")?.map(open).transpose();
        let endpoint = endpoint.with_context(|| format!("paths.listen: listening on {} (UDP)", settings.listen))?;
        if let Some(endpoint) = &endpoint {
            tasks.spawn(responder::run(endpoint.clone(), meters.clone()));
        }
        for (peer, path) in settings.peers.iter().zip(table.entries()) {
            let Some(source) = sources.entry(&peer.name) else { continue };
            let (peer, path, client) = (peer.clone(), Arc::clone(path), Arc::clone(&client));
            let interval = settings.interval;
            tasks.spawn(Prober { peer, interval, client, path, source, meters: meters.clone() }.run());
        }
        Ok(Some(Self { tls: settings.tls.clone(), client, endpoint }))
    }

    /// The address where pings are answered.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().and_then(|endpoint| endpoint.local_addr().ok())
    }

    /// Reads the certificates again.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn read(&self) -> Result<Credentials, CredentialError> {
        Credentials::read(&self.tls)
    }

    /// Uses `credentials` for connections that are opened from now on.
    pub fn renew(&self, credentials: Credentials) {
        self.client.store(Arc::new(credentials.client));
        if let Some(endpoint) = &self.endpoint {
            endpoint.set_server_config(Some(credentials.server));
        }
    }
}

/// Connects to a peer and pings it until the first echo; returns the round trip.
///
/// # Errors
/// [`PeerError`].
pub async fn try_once(peer: &PeerSettings, credentials: &Credentials) -> Result<Duration, PeerError> {
    prober::try_once(peer, credentials.client.clone()).await
}
