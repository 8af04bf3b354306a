//! The composition root: builds, starts and stops everything; the pipe on one screen. Decides the order in which parts
//! come up and go down; refuses to start on a bad setting, before anything runs.
//!
//! ```text
//! polls ─┐                      ┌─► otlp (spans, sample events)
//! hooks ─┤► observations ─► engine ─► notify
//! paths ─┤  (bounded)     (tick) ├─► history
//! beacons┘                      ├─► state (journal, spool)
//!                               └─► snapshot ─► page, API, /metrics ─► otlp (metrics)
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use liveqos_core::model::SourceName;
use liveqos_probes::probe::Kind;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::assembly::{Assembly, SharedCells, beacon_key, head, now, ports_of, resumed};
use crate::api::ApiState;
use crate::config::Config;
use crate::engine::{self, Command, EngineIo, RecordTo, Snapshot};
use crate::http::{BatchingRuntime, server};
use crate::intake::poll::{self, HttpClient};
use crate::intake::{HookIntake, Observations, Source, SourceEntry, SourceTable};
use crate::notify::Silences;
use crate::otlp::Otlp;
use crate::peers::Peers;
use crate::platform::tls;
use crate::players::{Key, PlayerListener};
use crate::storage::{Opened, State};

/// A running daemon.
pub struct App {
    address: SocketAddr,
    entrance: Option<PlayerListener>,
    peers: Option<Peers>,
    shared: ApiState,
    observations: Observations,
    media_ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    fetcher: HttpClient,
    polls: JoinSet<()>,
    tasks: JoinSet<()>,
    otlp: Arc<Otlp>,
    silences: Arc<ArcSwap<Silences>>,
    state: Option<Arc<State>>,
    engine: std::thread::JoinHandle<()>,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
}

impl App {
    /// Starts everything. `alive` is told after every tick.
    ///
    /// # Errors
    /// What could not be started, and why; nothing runs then.
    pub async fn start(config: &Config, record: &RecordTo, alive: impl Fn() + Send + 'static) -> Result<Self> {
        Self::start_with(config, beacon_key(config)?, liveqos_probes::KINDS, record, alive).await
    }

    /// Starts everything, with this key for players' reports instead of the configured one and these kinds of sources.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(
        config: &Config,
        key: Option<Key>,
        kinds: &[&'static Kind],
        record: &RecordTo,
        alive: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let parts = Assembly::build(config, key, kinds)?;
        let listener = TcpListener::bind(&config.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let ties = SharedCells::of(&parts.sources);
        let mut tasks = parts.start_tasks(config, &ties.node)?;
        let hall = BatchingRuntime::start(config.ingest.max_connections, stopped.clone())
            .context("starting the players' thread")?;
        tasks.spawn(server::serve(listener, parts.site(&hall)?, stopped.clone()));
        let entrance = PlayerListener::open(&config.ingest, &parts.players, &hall, stopped).await?;
        let peers = parts.start_peers(&config.paths, &mut tasks)?;
        let Assembly {
            place,
            sources,
            followed,
            fetcher,
            outlets,
            lasting,
            api: shared,
            players,
            observations,
            orders,
        } = parts;
        let Opened { state, found, .. } = lasting;
        let polls = poll::start(&sources, &shared.sources.load(), &fetcher, &now(), &observations);
        ties.start_readers(config, &shared, &observations, followed)?;
        let (otlp, silences) = (Arc::clone(&outlets.otlp), outlets.notifiers.silences());
        let mut recorder = record.begin(&head(config, &place), &shared.meters)?;
        let pipe = resumed(config, &place, &found.checkpoint, &mut recorder);
        let around = ties.surround(&shared, &players.beacons, outlets, state.clone(), alive);
        let around = EngineIo { record: recorder, ..around };
        let (waiting, ordered) = orders;
        let engine = engine::start(pipe, around, waiting, ordered)?;
        let SharedCells { media_ports, stopping, .. } = ties;
        Ok(Self {
            address,
            entrance,
            peers,
            shared,
            observations,
            media_ports,
            fetcher,
            polls,
            tasks,
            otlp,
            silences,
            state,
            engine,
            stop,
            stopping,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where players alone are listened to, where that is an address of its own.
    #[must_use]
    pub fn ingest_address(&self) -> Option<SocketAddr> {
        self.entrance.as_ref().map(PlayerListener::address)
    }

    /// Where pings of other nodes are answered.
    #[must_use]
    pub fn path_address(&self) -> Option<SocketAddr> {
        self.peers.as_ref().and_then(Peers::address)
    }

    /// The way in for a source inside this process.
    #[must_use]
    pub fn observations(&self) -> Observations {
        self.observations.clone()
    }

    /// Where a source inside this process tells how it does.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<Arc<SourceEntry>> {
        self.shared.sources.load().entry(name)
    }

    /// What readers see.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Takes over new settings: sources, objectives, patience, silences. What needs a restart is named in the answer.
    ///
    /// # Errors
    /// What is wrong with them; the old ones stay.
    pub fn reload(&mut self, config: &Config, was: &Config) -> Result<Vec<&'static str>> {
        let sources = Source::all(&config.sources, liveqos_probes::KINDS)?;
        let silences = Silences::new(&config.alerts.silences)?;
        let certificate = tls::server(&config.ingest.tls).context("ingest.tls")?;
        let credentials = self.peers.as_ref().map(Peers::read).transpose()?;
        let before = self.shared.sources.load();
        let table = SourceTable::new(&sources, Some(&before)).with_inputs_of(&before);
        let hooks = HookIntake::new(&sources, &table, now(), self.observations.clone())?;
        let set = Command::Set(Box::new(config.objectives()), config.timeouts(), config.sessions.max);
        self.shared.commands.try_send(set).ok().context("the engine is busy; try again")?;
        if let (Some(entrance), Some(certificate)) = (&self.entrance, certificate) {
            entrance.renew(certificate);
        }
        if let (Some(peers), Some(credentials)) = (&self.peers, credentials) {
            peers.renew(credentials);
        }
        self.polls = poll::start(&sources, &table, &self.fetcher, &now(), &self.observations);
        self.silences.store(Arc::new(silences));
        self.media_ports.store(Arc::new(ports_of(&sources)));
        self.shared.hooks.store(Arc::new(hooks));
        self.shared.sources.store(Arc::new(table));
        Ok(config.needs_restart(was))
    }

    /// Stops everything within 5 s: intakes first, then the engine, then what it still has to deliver.
    pub async fn stop(mut self) {
        self.polls.abort_all();
        self.stopping.store(true, Ordering::Relaxed);
        let (done, stopped) = oneshot::channel();
        if self.shared.commands.send(Command::Stop(done)).await.is_ok() {
            // It answers at once or has stopped already.
            drop(tokio::time::timeout(HEART_STOP, stopped).await);
        }
        self.stop.send_replace(true);
        let engine = self.engine;
        if tokio::task::spawn_blocking(move || engine.join()).await.is_err() {
            tracing::error!("the engine's thread ended badly");
        }
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        drop(self.shared);
        let state = self.state;
        let last_word = || state.as_ref().map(|state| state.keep(Vec::new(), self.otlp.take_changes()));
        last_word();
        let settle = state.clone();
        let settled = move || settle.is_none_or(|state| state.settled(SETTLE));
        let kept = tokio::task::spawn_blocking(settled).await.unwrap_or_default();
        let keeps = self.otlp.is_durable() && kept;
        if !keeps {
            // Nobody will judge what is held, so it leaves as far as there is time.
            self.otlp.release();
            last_word();
        }
        let left = match Arc::try_unwrap(self.otlp) {
            Ok(otlp) => otlp.stop(LAST_EXPORT).await,
            Err(_) => return tracing::error!("otlp is still in use; what waits is lost"),
        };
        if let Some(state) = state {
            // The thread ends by itself; this only waits for it.
            drop(tokio::task::spawn_blocking(move || state.stop(SETTLE)).await);
        }
        let waits: u64 = left.iter().map(|backlog| backlog.items).sum();
        match (waits, keeps) {
            (0, _) => {}
            (waits, true) => tracing::info!(waits, "stopped with telemetry on disk that is sent after the next start"),
            (lost, false) => tracing::warn!(lost, "stopped with telemetry that no collector took"),
        }
    }
}

/// Of the 5 s that a stop may take, for the engine's last word.
const HEART_STOP: Duration = Duration::from_secs(1);
/// Of the 5 s that a stop may take, for what waits to be exported.
const LAST_EXPORT: Duration = Duration::from_millis(2_500);
/// Of the 5 s that a stop may take, for the disk: before the last export and after it.
const SETTLE: Duration = Duration::from_millis(500);
