//! The composition root: builds, starts and stops everything; the pipe on one screen. Decides the order in which parts come up and go
//! down; refuses to start on a bad setting, before anything runs.
//!
//! ```text
//! polls ─┐                      ┌─► otlp (spans, sample events)
//! hooks ─┤► observations ─► heart ─► notify
//! paths ─┤  (bounded)     (beat) ├─► history
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
use liveqos_core::checkpoint::{Checkpoint, Entry};
use liveqos_core::judge::NodeLoad;
use liveqos_core::observation::{Observation, SourceName};
use liveqos_core::pipe::{Beat, Pipe};
use liveqos_core::time::GRID;
use liveqos_probes::probe::Kind;
use prometheus::proto::MetricFamily;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::api::{self, Shared};
use crate::beacon::Beacons;
use crate::beat::{self, Order, Surround};
use crate::clock;
use crate::cmcd::CmcdIntake;
use crate::config::Config;
use crate::http_server::{self, MAX_CONNECTIONS, Site};
use crate::ingest::{Entrance, Gate};
use crate::intake::edge::Edge;
use crate::intake::fetch::Fetcher;
use crate::intake::hooks::HookIntake;
use crate::intake::load::Load;
use crate::intake::log_settings::{AccessLogSettings, random_key};
use crate::intake::logs::{self, Around};
use crate::intake::paths::Paths;
use crate::intake::poll::{self, Observations};
use crate::intake::posts::{PostTray, post_box};
use crate::intake::round::Now;
use crate::intake::source::Source;
use crate::intake::status::{SourceEntry, SourceTable};
use crate::meters::Meters;
use crate::notify::Notifiers;
use crate::notify::silence::Silences;
use crate::otlp::record::Signal;
use crate::otlp::{Otlp, Pace};
use crate::place::Place;
use crate::roster::Roster;
use crate::sampling::Sampling;
use crate::sinks::history::History;
use crate::sinks::prometheus::{NodeCollector, exemplars};
use crate::sinks::session_series::SessionSeries;
use crate::snapshot::Snapshot;
use crate::state::{Opened, State};
use crate::tls;
use crate::token::Key;

/// A running daemon.
pub struct App {
    address: SocketAddr,
    entrance: Option<Entrance>,
    shared: Shared,
    observations: Observations,
    media_ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    fetcher: Fetcher,
    polls: JoinSet<()>,
    tasks: JoinSet<()>,
    otlp: Arc<Otlp>,
    silences: Arc<ArcSwap<Silences>>,
    state: Option<Arc<State>>,
    /// Held as long as the daemon lives.
    _lock: Option<std::fs::File>,
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
        let node_metrics = NodeCollector::new(&parts.shared.snapshot, &parts.shared.sources, &parts.otlp)?;
        let node_metrics = node_metrics.with_state(parts.shared.state.clone());
        parts.shared.registry.register(Box::new(node_metrics))?;
        let (stop, stopped) = watch::channel(false);
        let stopping = Arc::new(AtomicBool::new(false));
        let (roster, node) = (Arc::<ArcSwap<Roster>>::default(), Arc::<ArcSwap<NodeLoad>>::default());
        let media_ports = Arc::new(ArcSwap::from_pointee(ports_of(&parts.sources)));
        let mut tasks = parts.start_tasks(config, &node)?;
        let router = api::router(parts.shared.clone());
        let meters = parts.shared.meters.clone();
        let site =
            Site { router, tls: None, max_connections: MAX_CONNECTIONS, shed_reason: "http_connections", meters };
        tasks.spawn(http_server::serve(listener, site, stopped.clone()));
        let entrance = Entrance::open(&config.ingest, &parts.shared, &mut tasks, stopped).await?;
        let Parts {
            place,
            sources,
            logs,
            tray,
            fetcher,
            otlp,
            opened,
            notifiers,
            shared,
            observations,
            waiting,
            ordered,
        } = parts;
        let Opened { state, checkpoint, lock, .. } = opened;
        let polls = poll::start(&sources, &shared.sources.load(), &fetcher, &now(), &observations);
        let meters = shared.meters.clone();
        let edge = Edge::new(random_key()?);
        if config.kernel.tcp_info {
            let (roster, ports, out) = (Arc::clone(&roster), Arc::clone(&media_ports), observations.clone());
            start_paths(
                Paths { roster, ports, edge: edge.clone(), out, meters: meters.clone() },
                Arc::clone(&stopping),
            )?;
        }
        let around =
            Around { out: observations.clone(), edge, meters: meters.clone(), stopping: Arc::clone(&stopping) };
        logs::start_all(&logs, (&config.cmcd.log, tray), &shared.sources.load(), &around)?;
        let (beacons, silences) = (Arc::clone(&shared.beacons), notifiers.silences());
        let around = Surround {
            snapshot: Arc::clone(&shared.snapshot),
            roster,
            sources: Arc::clone(&shared.sources),
            node,
            meters,
            last_beat: Arc::clone(&shared.last_beat),
            gather: Box::new(move |now| beacons.drain(now)),
            deliver: deliver(Arc::clone(&otlp), notifiers, Arc::clone(&shared.history)),
            keep: state.as_ref().map(Arc::clone).map(keep),
            alive: Box::new(alive),
        };
        let pipe = resumed(config, &place, &checkpoint);
        let heart = beat::start(pipe, around, waiting, ordered)?;
        Ok(Self {
            address,
            entrance,
            shared,
            observations,
            media_ports,
            fetcher,
            polls,
            tasks,
            otlp,
            silences,
            state,
            _lock: lock,
            heart,
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
        self.entrance.as_ref().map(Entrance::address)
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
        let before = self.shared.sources.load();
        let table = SourceTable::new(&sources, Some(&before)).with_logs_of(&before);
        let hooks = HookIntake::new(&sources, &table, now(), self.observations.clone())?;
        let set = Order::Set(config.promised(), config.patience(), config.sessions.max);
        self.shared.orders.try_send(set).ok().context("the heart is busy; try again")?;
        if let (Some(entrance), Some(certificate)) = (&self.entrance, certificate) {
            entrance.renew(certificate);
        }
        self.polls = poll::start(&sources, &table, &self.fetcher, &now(), &self.observations);
        self.silences.store(Arc::new(silences));
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
        // Before the last word to the disk, so that it is kept too.
        self.otlp.release();
        let state = self.state;
        if let Some(state) = &state {
            state.keep(Vec::new());
        }
        let settle = state.clone();
        let settled = move || settle.is_none_or(|state| state.settled(SETTLE));
        let kept = tokio::task::spawn_blocking(settled).await.unwrap_or_default();
        let keeps = self.otlp.keeps() && kept;
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

/// What is built before anything runs, so that a bad setting is found in time.
struct Parts {
    place: Place,
    sources: Vec<Arc<Source>>,
    logs: Vec<AccessLogSettings>,
    tray: PostTray,
    fetcher: Fetcher,
    otlp: Arc<Otlp>,
    opened: Opened,
    notifiers: Notifiers,
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
        let (posts, tray) = post_box();
        let cmcd = CmcdIntake::new(key.clone(), config.cmcd.trusted()?, posts);
        let logs = logs::followed(&config.logs, cmcd.is_open());
        let table = logs.iter().fold(SourceTable::new(&sources, None), SourceTable::with_log);
        let hooks = HookIntake::new(&sources, &table, now(), observations.clone())?;
        let notifiers = Notifiers::start(place.letterhead(config), &meters).context("starting receivers of alerts")?;
        let opened = Opened::open(&config.state, &config.otlp.waiting())?;
        let otlp = Arc::new(start_otlp(config, &place, &opened)?);
        let snapshot = Arc::default();
        let left_out = meters.shed.with_label_values(&["session_series"]);
        let series = SessionSeries::new(&snapshot, place.labels(), config.metrics.max_sessions, left_out);
        let shared = Shared {
            snapshot,
            session_series: Arc::new(series),
            history: Arc::new(History::new(config.history.samples, config.history.max_samples)),
            sources: Arc::new(ArcSwap::from_pointee(table)),
            hooks: Arc::new(ArcSwap::from_pointee(hooks)),
            gate: Arc::new(Gate::new(&config.ingest)?),
            cmcd: Arc::new(cmcd),
            ended: Arc::default(),
            beacons: Arc::new(Beacons::new(key)),
            orders,
            registry,
            meters,
            last_beat: Arc::new(ArcSwap::from_pointee(clock::now())),
            state: opened.watch(),
            node: place.node.clone(),
        };
        Ok(Self {
            place,
            sources,
            logs,
            tray,
            fetcher,
            otlp,
            opened,
            notifiers,
            shared,
            observations,
            waiting,
            ordered,
        })
    }

    /// What runs beside heart and polls: the node's load, the metrics push.
    fn start_tasks(&self, config: &Config, node: &Arc<ArcSwap<NodeLoad>>) -> Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        let meters = self.shared.meters.clone();
        tasks.spawn(Load::new(config.kernel.nic_bits_per_second, Arc::clone(node), meters).run());
        if self.otlp.sends(Signal::Metrics) {
            let interval = config.otlp.metrics_interval()?;
            let (registry, series) = (self.shared.registry.clone(), Arc::clone(&self.shared.session_series));
            let gather = move || [registry.gather(), series.families()].concat();
            let snapshot = Arc::clone(&self.shared.snapshot);
            tasks.spawn(push_metrics(Arc::clone(&self.otlp), gather, snapshot, interval));
        }
        Ok(tasks)
    }
}

fn deliver(otlp: Arc<Otlp>, notifiers: Notifiers, history: Arc<History>) -> Box<dyn FnMut(&Beat) + Send> {
    Box::new(move |beat| {
        for notice in &beat.notices {
            tracing::warn!(alert = notice.alert.as_str(), state = ?notice.state, "{}", notice.summary());
        }
        notifiers.take(&beat.notices);
        history.take(&beat.batch.samples);
        otlp.take(&beat.commands);
    })
}

fn start_otlp(config: &Config, place: &Place, opened: &Opened) -> Result<Otlp> {
    let sampling = Sampling::new(&config.sampling, &place.node);
    let open = |target: &str| opened.outbox(target);
    let otlp = Otlp::start_with(&config.otlp, &place.resource(config), sampling, &open, Pace::default());
    otlp.context("starting otlp")
}

fn keep(state: Arc<State>) -> Box<dyn FnMut(Vec<Entry>) + Send> {
    Box::new(move |entries| state.keep(entries))
}

/// Goes on with what lived when the daemon went down, unless the clock was set back meanwhile: instants of the future mean nothing.
fn resumed(config: &Config, place: &Place, checkpoint: &Checkpoint) -> Pipe {
    let mut pipe = Pipe::new(&place.node, config.promised(), config.patience(), config.sessions.max);
    let now = clock::now();
    let ahead = checkpoint.last_cut().map_or(Duration::ZERO, |cut| cut.since(now));
    if ahead > clock::WAITED_FOR + GRID {
        tracing::warn!(?ahead, "the clock was set back since the last run; its classes are not gone on with");
        return pipe;
    }
    pipe.resume(checkpoint, now);
    let (classes, announced) = (checkpoint.classes.len(), checkpoint.announced.len());
    if classes + announced > 0 {
        tracing::info!(classes, announced, "going on with what lived when the daemon went down");
    }
    pipe
}

fn start_paths(paths: Paths, stopping: Arc<AtomicBool>) -> std::io::Result<()> {
    std::thread::Builder::new().name("paths".to_owned()).spawn(move || paths.run(&stopping)).map(drop)
}

async fn push_metrics(
    otlp: Arc<Otlp>,
    gather: impl Fn() -> Vec<MetricFamily>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    interval: Duration,
) {
    let started = clock::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = crate::otlp::metrics::Reading { since: started, at: clock::now() };
        let (families, snapshot) = (gather(), snapshot.load_full());
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
const LAST_EXPORT: Duration = Duration::from_millis(2_500);
/// Of [`STOP_WITHIN`], for the disk: before the last export and after it.
const SETTLE: Duration = Duration::from_millis(500);
