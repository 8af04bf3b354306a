//! The running daemon: start, reload and stop. Decides the order in which stages stop and how long each may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use liveqos_probes::probe::Kind;
use tokio::sync::oneshot;

use super::assembly::{App, Assembly, media_ports, now};
use crate::config::Config;
use crate::engine::{Command, RecordTo, Snapshot};
use crate::intake::{HookIntake, Observations, Source, SourceEntry, SourceTable, poll};
use crate::notify::Silences;
use crate::peers::Peers;
use crate::platform::tls;
use crate::players::{Key, PlayerListener};

impl App {
    /// Starts everything. `on_tick` is called after every tick.
    ///
    /// # Errors
    /// What could not be started, and why; nothing runs then.
    pub async fn start(config: &Config, record: &RecordTo, on_tick: impl Fn() + Send + 'static) -> Result<Self> {
        Self::start_with(config, beacon_key(config)?, liveqos_probes::KINDS, record, on_tick).await
    }

    /// Starts everything, with this key for players' tokens instead of the configured one, and with sources of these
    /// kinds.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(
        config: &Config,
        key: Option<Key>,
        kinds: &[&'static Kind],
        record: &RecordTo,
        on_tick: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        Assembly::build(config, key, kinds)?.start(config, record, on_tick).await
    }

    /// The main address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that serves players alone, where there is one.
    #[must_use]
    pub fn ingest_address(&self) -> Option<SocketAddr> {
        self.player_listener.as_ref().map(PlayerListener::address)
    }

    /// The address that answers pings of other nodes, where there is one.
    #[must_use]
    pub fn path_address(&self) -> Option<SocketAddr> {
        self.peers.as_ref().and_then(Peers::address)
    }

    /// Where a source inside this process sends observations.
    #[must_use]
    pub fn observations(&self) -> Observations {
        self.observations.clone()
    }

    /// Where a source inside this process reports its state.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<Arc<SourceEntry>> {
        self.cells.sources.load().entry(name)
    }

    /// What readers see.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.cells.published.snapshot.load_full()
    }

    /// Applies new settings: sources, objectives, timeouts, silences, certificates. Returns the names of changed
    /// settings that need a restart.
    ///
    /// # Errors
    /// What is wrong with the new settings; the old ones stay.
    pub fn reload(&mut self, config: &Config, before: &Config) -> Result<Vec<&'static str>> {
        let sources = Source::all(&config.sources, liveqos_probes::KINDS)?;
        let silences = Silences::new(&config.alerts.silences)?;
        let certificate = tls::server(&config.ingest.tls).context("ingest.tls")?;
        let credentials = self.peers.as_ref().map(Peers::read).transpose()?;
        let known = self.cells.sources.load();
        let table = SourceTable::new(&sources, Some(&known)).with_inputs_of(&known);
        let hooks = HookIntake::new(&sources, &table, now(), self.observations.clone())?;
        let set = Command::Set(Box::new(config.objectives()), config.timeouts(), config.sessions.max);
        self.commands.try_send(set).ok().context("the engine is busy; try again")?;
        if let (Some(listener), Some(certificate)) = (&self.player_listener, certificate) {
            listener.renew(certificate);
        }
        if let (Some(peers), Some(credentials)) = (&self.peers, credentials) {
            peers.renew(credentials);
        }
        self.polls = poll::start(&sources, &table, &self.client, &now(), &self.observations);
        self.silences.store(Arc::new(silences));
        self.cells.media_ports.store(Arc::new(media_ports(&sources)));
        self.cells.hooks.store(Arc::new(hooks));
        self.cells.sources.store(Arc::new(table));
        Ok(config.needs_restart(before))
    }

    /// Stops everything within 5 s: first the inputs, then the engine, then the outputs, which send what they have.
    pub async fn stop(mut self) {
        self.polls.abort_all();
        self.cells.stopping.store(true, Ordering::Relaxed);
        let (stopped, engine_stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(stopped)).await.is_ok() {
            // The engine answers at once, or it has stopped already.
            drop(tokio::time::timeout(ENGINE_STOP, engine_stopped).await);
        }
        self.stop.send_replace(true);
        let engine = self.engine;
        if tokio::task::spawn_blocking(move || engine.join()).await.is_err() {
            tracing::error!("the engine's thread panicked");
        }
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let state = self.state;
        let store_changes = || state.as_ref().map(|state| state.keep(Vec::new(), self.otlp.take_changes()));
        store_changes();
        let settling = state.clone();
        let settled = move || settling.is_none_or(|state| state.settled(SETTLE));
        let stored = tokio::task::spawn_blocking(settled).await.unwrap_or_default();
        let survives = self.otlp.is_durable() && stored;
        if !survives {
            // No later run decides about held traces, so they are sent as far as there is time.
            self.otlp.release();
            store_changes();
        }
        let backlogs = match Arc::try_unwrap(self.otlp) {
            Ok(otlp) => otlp.stop(LAST_EXPORT).await,
            Err(_) => return tracing::error!("otlp is still in use; what was not sent is lost"),
        };
        if let Some(state) = state {
            // The writer's thread ends by itself; this only waits for it.
            drop(tokio::task::spawn_blocking(move || state.stop(SETTLE)).await);
        }
        let unsent: u64 = backlogs.iter().map(|backlog| backlog.items).sum();
        match (unsent, survives) {
            (0, _) => {}
            (unsent, true) => tracing::info!(unsent, "stopped; unsent telemetry is sent after the next start"),
            (lost, false) => tracing::warn!(lost, "stopped; stopped; telemetry that no collector accepted is lost"),
        }
    }
}

/// The configured key of players' tokens.
fn beacon_key(config: &Config) -> Result<Option<Key>> {
    let Some(path) = &config.beacon.key_file else {
        return Ok(None);
    };
    let bytes = std::fs::read(path).with_context(|| format!("reading beacon.key_file {}", path.display()))?;
    let key = Key::new(bytes.trim_ascii()).with_context(|| format!("beacon.key_file {}", path.display()))?;
    Ok(Some(key))
}

/// Of the 5 s that a stop may take: for the engine's last results.
const ENGINE_STOP: Duration = Duration::from_secs(1);
/// Of the 5 s that a stop may take: for the last export.
const LAST_EXPORT: Duration = Duration::from_millis(2_500);
/// Of the 5 s that a stop may take: for the disk, before the last export and after it.
const SETTLE: Duration = Duration::from_millis(500);
