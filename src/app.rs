//! The composition root: builds, starts and stops everything; the pipe on one screen. Decides the order in which parts come up and go
//! down; refuses to start on a bad setting, before anything runs.
//!
//! ```text
//! polls ─┐                      ┌─► otlp (spans, sample events)
//! hooks ─┤► observations ─► heart ─► webhooks
//! paths ─┤  (bounded)     (beat) ├─► history
//! beacons┘                      └─► snapshot ─► page, API, /metrics ─► otlp (metrics)
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use liveqos_core::judge::NodeLoad;
use liveqos_core::observation::{Observation, SourceName};
use liveqos_core::pipe::{Beat, Pipe};
use liveqos_probes::probe::Kind;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::api::{self, Shared};
use crate::beacon::Beacons;
use crate::beat::{self, Order, Surround};
use crate::clock;
use crate::config::Config;
use crate::http_server;
use crate::intake::fetch::Fetcher;
use crate::intake::hooks::HookIntake;
use crate::intake::load::Load;
use crate::intake::logs;
use crate::intake::paths::Paths;
use crate::intake::poll::{self, Observations};
use crate::intake::round::Now;
use crate::intake::source::Source;
use crate::intake::status::{SourceEntry, SourceTable};
use crate::meters::Meters;
use crate::otlp::record::Signal;
use crate::otlp::{Otlp, StartError};
use crate::place::Place;
use crate::roster::Roster;
use crate::sampling::Sampling;
use crate::sinks::history::History;
use crate::sinks::prometheus::{PageCollector, exemplars};
use crate::sinks::webhook::Webhooks;
use crate::snapshot::Snapshot;
use crate::token::Key;

/// A running daemon.
pub struct App {
    address: SocketAddr,
    shared: Shared,
    observations: Observations,
    media_ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    fetcher: Fetcher,
    polls: JoinSet<()>,
    tasks: JoinSet<()>,
    otlp: Arc<Otlp>,
    heart: std::thread::JoinHandle<()>,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
}

/// How long stopping may take in all.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

impl App {
    /// Starts everything. `alive` is told after every beat.
    ///
    /// # Errors
    /// What could not be started, and why; nothing runs then.
    pub async fn start(config: &Config, alive: impl Fn() + Send + 'static) -> Result<Self> {
        Self::start_with(config, beacon_key(config)?, liveqos_probes::KINDS, alive).await
    }

    /// Starts everything, with this key for players' reports instead of the configured one and these kinds of sources.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(
        config: &Config,
        key: Option<Key>,
        kinds: &[&'static Kind],
        alive: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let parts = Parts::build(config, key, kinds)?;
        let listener = TcpListener::bind(&config.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr()?;
        let page = PageCollector::new(
            &parts.shared.snapshot,
            &parts.shared.sources,
            &parts.otlp,
            config.metrics.max_sessions,
            parts.shared.meters.shed.with_label_values(&["session_series"]),
        )?;
        parts.shared.registry.register(Box::new(page))?;

        let (stop, stopped) = watch::channel(false);
        let stopping = Arc::new(AtomicBool::new(false));
        let (roster, node) = (Arc::<ArcSwap<Roster>>::default(), Arc::<ArcSwap<NodeLoad>>::default());
        let media_ports = Arc::new(ArcSwap::from_pointee(ports_of(&parts.sources)));
        let mut tasks = parts.start_tasks(config, &node)?;
        let router = api::router(parts.shared.clone());
        tasks.spawn(http_server::serve(listener, router, parts.shared.meters.clone(), stopped));
        let Parts { place, sources, fetcher, otlp, webhooks, shared, observations, waiting, ordered } = parts;
        let polls = poll::start(&sources, &shared.sources.load(), &fetcher, &now(), &observations);
        let meters = shared.meters.clone();
        if config.kernel.tcp_info {
            let (roster, ports, out) = (Arc::clone(&roster), Arc::clone(&media_ports), observations.clone());
            start_paths(Paths { roster, ports, out, meters: meters.clone() }, Arc::clone(&stopping))?;
        }
        start_logs(config, &shared, &observations, &stopping)?;
        let beacons = Arc::clone(&shared.beacons);
        let around = Surround {
            snapshot: Arc::clone(&shared.snapshot),
            roster,
            sources: Arc::clone(&shared.sources),
            node,
            meters,
            last_beat: Arc::clone(&shared.last_beat),
            gather: Box::new(move |now| beacons.drain(now)),
            deliver: deliver(Arc::clone(&otlp), webhooks, Arc::clone(&shared.history)),
            alive: Box::new(alive),
        };
        let pipe = Pipe::new(&place.node, config.promised(), config.patience(), config.sessions.max);
        let heart = beat::start(pipe, around, waiting, ordered)?;
        Ok(Self { address, shared, observations, media_ports, fetcher, polls, tasks, otlp, heart, stop, stopping })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
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

    /// Takes over new settings: sources, objectives, patience. What needs a restart is named in the answer.
    ///
    /// # Errors
    /// What is wrong with them; the old ones stay.
    pub fn reload(&mut self, config: &Config, was: &Config) -> Result<Vec<&'static str>> {
        let sources = Source::all(&config.sources, liveqos_probes::KINDS)?;
        let before = self.shared.sources.load();
        let table = SourceTable::new(&sources, Some(&before)).with_logs_of(&before);
        let hooks = HookIntake::new(&sources, &table, now(), self.observations.clone())?;
        let set = Order::Set(config.promised(), config.patience(), config.sessions.max);
        self.shared.orders.try_send(set).ok().context("the heart is busy; try again")?;
        self.polls = poll::start(&sources, &table, &self.fetcher, &now(), &self.observations);
        self.media_ports.store(Arc::new(ports_of(&sources)));
        self.shared.hooks.store(Arc::new(hooks));
        self.shared.sources.store(Arc::new(table));
        Ok(config.needs_restart(was))
    }

    /// Stops everything within [`STOP_WITHIN`]: intakes first, then the heart, then what it still has to deliver.
    pub async fn stop(mut self) {
        self.polls.abort_all();
        self.stopping.store(true, Ordering::Relaxed);
        let (done, stopped) = oneshot::channel();
        if self.shared.orders.send(Order::Stop(done)).await.is_ok() {
            // It answers at once or has stopped already.
            drop(tokio::time::timeout(HEART_STOP, stopped).await);
        }
        self.stop.send_replace(true);
        let heart = self.heart;
        if tokio::task::spawn_blocking(move || heart.join()).await.is_err() {
            tracing::error!("the heart's thread ended badly");
        }
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        drop(self.shared);
        let left = match Arc::try_unwrap(self.otlp) {
            Ok(otlp) => otlp.stop(LAST_EXPORT).await,
            Err(_) => return tracing::error!("otlp is still in use; what waits is lost"),
        };
        let lost: u64 = left.iter().map(|backlog| backlog.items).sum();
        if lost > 0 {
            tracing::warn!(lost, "stopped with telemetry that no collector took");
        }
    }
}

/// What is built before anything runs, so that a bad setting is found in time.
struct Parts {
    place: Place,
    sources: Vec<Arc<Source>>,
    fetcher: Fetcher,
    otlp: Arc<Otlp>,
    webhooks: Webhooks,
    shared: Shared,
    observations: Observations,
    waiting: mpsc::Receiver<Vec<Observation>>,
    ordered: mpsc::Receiver<Order>,
}

impl Parts {
    fn build(config: &Config, key: Option<Key>, kinds: &[&'static Kind]) -> Result<Self> {
        let sources = Source::all(&config.sources, kinds)?;
        let place = Place::of(config);
        let registry = prometheus::Registry::new_custom(None, Some(place.labels()))?;
        let meters = Meters::new(&registry)?;
        let fetcher = Fetcher::new()?;
        let (observations, waiting) = mpsc::channel(beat::MAX_WAITING);
        let (orders, ordered) = mpsc::channel(beat::MAX_ORDERS);
        let table = config
            .logs
            .iter()
            .fold(SourceTable::new(&sources, None), |table, log| table.with_log(log.shown_name(), &log.path));
        let hooks = HookIntake::new(&sources, &table, now(), observations.clone())?;
        let webhooks = Webhooks::start(place.letterhead(config), &meters).context("starting webhooks")?;
        let otlp = Arc::new(start_otlp(config, &place).context("starting otlp")?);
        let shared = Shared {
            snapshot: Arc::default(),
            history: Arc::new(History::new(config.history.samples, config.history.max_samples)),
            sources: Arc::new(ArcSwap::from_pointee(table)),
            hooks: Arc::new(ArcSwap::from_pointee(hooks)),
            beacons: Arc::new(Beacons::new(key)),
            orders,
            registry,
            meters,
            last_beat: Arc::new(ArcSwap::from_pointee(clock::now())),
            node: place.node.clone(),
        };
        Ok(Self { place, sources, fetcher, otlp, webhooks, shared, observations, waiting, ordered })
    }

    /// What runs beside heart and polls: the node's load, the metrics push.
    fn start_tasks(&self, config: &Config, node: &Arc<ArcSwap<NodeLoad>>) -> Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        let meters = self.shared.meters.clone();
        tasks.spawn(Load::new(config.kernel.nic_bits_per_second, Arc::clone(node), meters).run());
        if self.otlp.sends(Signal::Metrics) {
            let interval = config.otlp.metrics_interval()?;
            let (otlp, shared) = (Arc::clone(&self.otlp), &self.shared);
            tasks.spawn(push_metrics(otlp, shared.registry.clone(), Arc::clone(&shared.snapshot), interval));
        }
        Ok(tasks)
    }
}

fn deliver(otlp: Arc<Otlp>, webhooks: Webhooks, history: Arc<History>) -> Box<dyn FnMut(&Beat) + Send> {
    Box::new(move |beat| {
        for notice in &beat.notices {
            tracing::warn!(alert = notice.alert.as_str(), state = ?notice.state, "{}", notice.summary());
        }
        webhooks.take(&beat.notices);
        history.take(&beat.batch.samples);
        otlp.take(&beat.commands);
    })
}

fn start_otlp(config: &Config, place: &Place) -> Result<Otlp, StartError> {
    Otlp::start(&config.otlp, &place.resource(config), Sampling::new(&config.sampling, &place.node))
}

fn start_logs(config: &Config, shared: &Shared, out: &Observations, stopping: &Arc<AtomicBool>) -> Result<()> {
    for log in &config.logs {
        let entry = shared.sources.load().entry(log.shown_name());
        logs::start(log, entry, out.clone(), shared.meters.clone(), Arc::clone(stopping))?;
    }
    Ok(())
}

fn start_paths(paths: Paths, stopping: Arc<AtomicBool>) -> std::io::Result<()> {
    std::thread::Builder::new().name("paths".to_owned()).spawn(move || paths.run(&stopping)).map(drop)
}

async fn push_metrics(
    otlp: Arc<Otlp>,
    registry: prometheus::Registry,
    snapshot: Arc<ArcSwap<Snapshot>>,
    interval: Duration,
) {
    let started = clock::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = crate::otlp::metrics::Reading { since: started, at: clock::now() };
        let (families, snapshot) = (registry.gather(), snapshot.load_full());
        let naming = |name: &str| liveqos_core::catalog::metric(name).map(|metric| (metric.otel_name, metric.unit));
        otlp.push_metrics(&families, reading, naming, &|name| exemplars(name, &snapshot, &families));
    }
}

fn beacon_key(config: &Config) -> Result<Option<Key>> {
    let Some(path) = &config.beacon.key_file else {
        return Ok(None);
    };
    let bytes = std::fs::read(path).with_context(|| format!("reading beacon.key_file {}", path.display()))?;
    let key = Key::new(bytes.trim_ascii()).with_context(|| format!("beacon.key_file {}", path.display()))?;
    Ok(Some(key))
}

fn ports_of(sources: &[Arc<Source>]) -> BTreeMap<SourceName, Vec<u16>> {
    sources.iter().map(|source| (source.name.clone(), source.media_ports.clone())).collect()
}

fn now() -> Now {
    Arc::new(clock::now)
}

/// Of [`STOP_WITHIN`], for the heart's last word.
const HEART_STOP: Duration = Duration::from_secs(1);
/// Of [`STOP_WITHIN`], for what waits to be exported.
const LAST_EXPORT: Duration = Duration::from_millis(3_500);
