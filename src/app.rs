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
use liveqos_core::observation::SourceName;
use liveqos_core::pipe::{Beat, Pipe};
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
use crate::intake::paths::Paths;
use crate::intake::poll::{self, Observations};
use crate::intake::round::Now;
use crate::intake::source::Source;
use crate::intake::status::SourceTable;
use crate::meters::Meters;
use crate::otlp::Otlp;
use crate::otlp::record::Signal;
use crate::place::Place;
use crate::roster::Roster;
use crate::sinks::history::History;
use crate::sinks::prometheus::PageCollector;
use crate::sinks::webhook::Webhooks;
use crate::snapshot::Snapshot;
use crate::token::Key;

/// A running daemon.
pub struct App {
    address: SocketAddr,
    shared: Shared,
    observations: Observations,
    ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
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
        Self::start_with(config, beacon_key(config)?, alive).await
    }

    /// Starts everything, with this key for players' reports instead of the configured one.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(config: &Config, key: Option<Key>, alive: impl Fn() + Send + 'static) -> Result<Self> {
        let sources = Source::all(&config.sources, liveqos_probes::KINDS)?;
        let place = Place::of(config);
        let registry = prometheus::Registry::new();
        let meters = Meters::new(&registry)?;
        let fetcher = Fetcher::new()?;
        let otlp = Arc::new(Otlp::start(&config.otlp, &place.resource(config)).context("starting otlp")?);
        let webhooks = Webhooks::start(place.letterhead(config), &meters).context("starting webhooks")?;
        let history = Arc::new(History::new(config.history.samples, config.history.max_samples));
        let beacons = Arc::new(Beacons::new(key));
        let listener = TcpListener::bind(&config.listen)
            .await
            .with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr()?;

        let (observations, waiting) = mpsc::channel(beat::MAX_WAITING);
        let (orders, ordered) = mpsc::channel(beat::MAX_ORDERS);
        let table = SourceTable::new(&sources, None);
        let hooks = HookIntake::new(&sources, &table, now(), observations.clone())?;
        let polls = poll::start(&sources, &table, &fetcher, &now(), &observations);
        let shared = Shared {
            snapshot: Arc::default(),
            history: Arc::clone(&history),
            sources: Arc::new(ArcSwap::from_pointee(table)),
            hooks: Arc::new(ArcSwap::from_pointee(hooks)),
            beacons: Arc::clone(&beacons),
            orders,
            registry: registry.clone(),
            meters: meters.clone(),
            last_beat: Arc::new(ArcSwap::from_pointee(clock::now())),
            node: place.node.clone(),
        };
        let page = PageCollector::new(&shared, &otlp, &place, config.metrics.max_sessions)?;
        registry.register(Box::new(page))?;

        let (stop, stopped) = watch::channel(false);
        let stopping = Arc::new(AtomicBool::new(false));
        let (roster, node) = (Arc::<ArcSwap<Roster>>::default(), Arc::<ArcSwap<NodeLoad>>::default());
        let ports = Arc::new(ArcSwap::from_pointee(ports_of(&sources)));
        let mut tasks = JoinSet::new();
        tasks.spawn(http_server::serve(
            listener,
            api::router(shared.clone()),
            meters.clone(),
            stopped,
        ));
        tasks.spawn(Load::new(config.kernel.nic_bits_per_second, Arc::clone(&node), meters.clone()).run());
        if otlp.sends(Signal::Metrics) {
            tasks.spawn(push_metrics(
                Arc::clone(&otlp),
                registry.clone(),
                config.otlp.metrics_interval()?,
            ));
        }
        if config.kernel.tcp_info {
            let (roster, ports) = (Arc::clone(&roster), Arc::clone(&ports));
            let paths = Paths {
                roster,
                ports,
                out: observations.clone(),
                meters: meters.clone(),
            };
            let stopping = Arc::clone(&stopping);
            std::thread::Builder::new()
                .name("paths".to_owned())
                .spawn(move || paths.run(&stopping))?;
        }
        let around = Surround {
            snapshot: Arc::clone(&shared.snapshot),
            roster,
            sources: Arc::clone(&shared.sources),
            node,
            meters,
            last_beat: Arc::clone(&shared.last_beat),
            gather: Box::new(move |now| beacons.drain(now)),
            deliver: deliver(Arc::clone(&otlp), webhooks, history),
            alive: Box::new(alive),
        };
        let pipe = Pipe::new(&place.node, config.promised(), config.patience(), config.sessions.max);
        let heart = beat::start(pipe, around, waiting, ordered)?;
        Ok(Self {
            address,
            shared,
            observations,
            ports,
            fetcher,
            polls,
            tasks,
            otlp,
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

    /// The way in for a source inside this process.
    #[must_use]
    pub fn observations(&self) -> Observations {
        self.observations.clone()
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
        let table = SourceTable::new(&sources, Some(&self.shared.sources.load()));
        let hooks = HookIntake::new(&sources, &table, now(), self.observations.clone())?;
        let set = Order::Set(config.promised(), config.patience(), config.sessions.max);
        self.shared
            .orders
            .try_send(set)
            .ok()
            .context("the heart is busy; try again")?;
        self.polls = poll::start(&sources, &table, &self.fetcher, &now(), &self.observations);
        self.ports.store(Arc::new(ports_of(&sources)));
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
            let _: Result<_, _> = tokio::time::timeout(HEART_STOP, stopped).await;
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
            Ok(otlp) => otlp.stop(STOP_WITHIN - HEART_STOP - SPARE).await,
            Err(_) => return tracing::error!("otlp is still in use; what waits is lost"),
        };
        let lost: u64 = left.iter().map(|backlog| backlog.items).sum();
        if lost > 0 {
            tracing::warn!(lost, "stopped with telemetry that no collector took");
        }
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

async fn push_metrics(otlp: Arc<Otlp>, registry: prometheus::Registry, interval: Duration) {
    let started = clock::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = crate::otlp::metrics::Reading {
            since: started,
            at: clock::now(),
        };
        otlp.push_metrics(&registry.gather(), reading, |name| {
            liveqos_core::catalog::metric(name).map(|metric| (metric.otel_name, metric.unit))
        });
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
    sources
        .iter()
        .map(|source| (source.name.clone(), source.media_ports.clone()))
        .collect()
}

fn now() -> Now {
    Arc::new(clock::now)
}

const HEART_STOP: Duration = Duration::from_secs(1);
/// Of the time to stop, for what takes no time.
const SPARE: Duration = Duration::from_millis(500);
