//! The parts that the daemon is made of, built before anything runs, and what ties them together. Decides what each is
//! given; refuses settings that one of them refuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Checkpoint, GRID, Name, NodeLoad, Observation, SourceName};
use liveqos_core::pipeline::{Pipeline, Tick};
use liveqos_core::recording::{Event, Head};
use liveqos_probes::probe::Kind;
use prometheus::proto::MetricFamily;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::node_identity::NodeIdentity;
use crate::api::{self, ApiState, MetricsPage};
use crate::config::Config;
use crate::engine::{self, Command, EngineIo, History, Keep, Recorder, Snapshot};
use crate::http::{BatchingRuntime, ListenerConfig, MAX_CONNECTIONS};
use crate::intake::access_log::event_queue::event_queue;
use crate::intake::access_log::settings::{group_key, random_key};
use crate::intake::access_log::{self, AccessLogSettings, EventReceiver, FollowerContext};
use crate::intake::kernel::{ConnectionWatchlist, HttpEdge, TcpPoller};
use crate::intake::node::LoadReader;
use crate::intake::poll::{HttpClient, Now};
use crate::intake::{HookIntake, Observations, Source, SourceTable};
use crate::metrics::collector::exemplars;
use crate::metrics::{self, NodeCollector, SessionSeries};
use crate::notify::Notifiers;
use crate::otlp::sampling::Sampling;
use crate::otlp::{Otlp, Pace, Signal};
use crate::peers::{PathSettings, PathTable, Peers};
use crate::platform::{SelfMetrics, clock};
use crate::players::{
    Beacons, ClientPolicy, CmcdIntake, EndedSessions, Key, PlayerService, PlayerState, StreamLookup, dispatch_rule,
};
use crate::storage::{Lasting, Opened, State};

/// What is built before anything runs, so that a bad setting is found in time.
pub(super) struct Assembly {
    pub(super) place: NodeIdentity,
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) followed: LogInputs,
    pub(super) fetcher: HttpClient,
    pub(super) outlets: Outputs,
    pub(super) lasting: Opened,
    pub(super) api: ApiState,
    pub(super) players: PlayerState,
    pub(super) observations: Observations,
    pub(super) orders: (mpsc::Receiver<Vec<Observation>>, mpsc::Receiver<Command>),
}

/// The logs that are followed, what players post beside them, and the key of their viewers' networks.
pub(super) struct LogInputs {
    logs: Vec<AccessLogSettings>,
    tray: EventReceiver,
    group_key: [u64; 2],
}

/// Where results leave the daemon.
pub(super) struct Outputs {
    pub(super) otlp: Arc<Otlp>,
    pub(super) notifiers: Notifiers,
}

impl Assembly {
    pub(super) fn build(config: &Config, key: Option<Key>, kinds: &[&'static Kind]) -> Result<Self> {
        let sources = Source::all(&config.sources, kinds)?;
        let place = NodeIdentity::of(config);
        let registry = prometheus::Registry::new_custom(None, Some(place.labels()))?;
        let meters = SelfMetrics::new(&registry)?;
        let fetcher = HttpClient::new()?;
        let (observations, waiting) = mpsc::channel(engine::MAX_WAITING);
        let (orders, ordered) = mpsc::channel(engine::MAX_COMMANDS);
        let (posts, tray) = event_queue();
        let (snapshot, ended) = (Arc::<ArcSwap<Snapshot>>::default(), Arc::<EndedSessions>::default());
        let streams = Arc::clone(&snapshot) as Arc<dyn StreamLookup>;
        let cmcd = CmcdIntake::new(key.clone(), config.cmcd.trusted()?, posts, Arc::clone(&ended), streams);
        let logs = access_log::log_inputs(&config.logs, cmcd.is_open());
        let table = logs.iter().fold(SourceTable::new(&sources, None), |table, log| {
            table.with_log(log.shown_name(), log.status_kind_and_url())
        });
        let peers = config.paths.peers.iter();
        let table = peers.fold(table, |table, peer| table.with_peer(&peer.name, &peer.address));
        let hooks = HookIntake::new(&sources, &table, now(), observations.clone())?;
        let notifiers = Notifiers::start(place.letterhead(config), &meters).context("starting receivers of alerts")?;
        let lasting = Opened::open(&config.state, &config.otlp.spooled_targets())?;
        let otlp = Arc::new(start_otlp(config, &place, &lasting)?);
        let left_out = meters.shed.with_label_values(&[ShedReason::SessionSeries.as_str()]);
        let series = SessionSeries::new(&snapshot, place.labels(), config.metrics.max_sessions, left_out);
        let group_key = group_key(&config.logs)?;
        let players = PlayerState {
            policy: Arc::new(ClientPolicy::new(&config.ingest)?),
            beacons: Arc::new(Beacons::new(key, group_key, Arc::clone(&ended))),
            cmcd: Arc::new(cmcd),
            meters: meters.clone(),
        };
        let session_series = Arc::new(series);
        let metrics = MetricsPage { registry, session_series, snapshot: Arc::clone(&snapshot) };
        let api = ApiState {
            node: place.node.clone(),
            snapshot,
            last_tick: Arc::new(ArcSwap::from_pointee(clock::now())),
            history: Arc::new(History::new(config.history.samples, config.history.max_samples)),
            sources: Arc::new(ArcSwap::from_pointee(table)),
            paths: Arc::new(PathTable::new(&config.paths)),
            storage: lasting.watch(),
            hooks: Arc::new(ArcSwap::from_pointee(hooks)),
            commands: orders,
            ended,
            metrics: Arc::new(metrics),
            meters,
        };
        let outlets = Outputs { otlp, notifiers };
        let (followed, orders) = (LogInputs { logs, tray, group_key }, (waiting, ordered));
        Ok(Self { place, sources, followed, fetcher, outlets, lasting, api, players, observations, orders })
    }

    /// What the node's own address serves; from here on the page of metrics tells of everything.
    pub(super) fn site(&self, hall: &BatchingRuntime) -> Result<ListenerConfig<PlayerService>> {
        let node_metrics = NodeCollector::new(&self.api.snapshot, &self.api.sources, &self.outlets.otlp)?;
        let node_metrics = node_metrics.with_state(self.api.storage.clone()).with_paths(&self.api.paths);
        self.api.metrics.registry.register(Box::new(node_metrics))?;
        Ok(ListenerConfig {
            service: PlayerService::new(&self.players, api::router(self.api.clone())),
            tls: None,
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            shed_reason: ShedReason::HttpConnections,
            meters: self.api.meters.clone(),
            dispatch: Some(dispatch_rule(hall)),
        })
    }

    /// What runs beside engine and polls: the node's load, the metrics push.
    pub(super) fn start_tasks(&self, config: &Config, node: &Arc<ArcSwap<NodeLoad>>) -> Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        let meters = self.api.meters.clone();
        tasks.spawn(LoadReader::new(config.kernel.nic_bits_per_second, Arc::clone(node), meters).run());
        if self.outlets.otlp.sends(Signal::Metrics) {
            let interval = config.otlp.metrics_interval()?;
            let (registry, series) = (self.api.metrics.registry.clone(), Arc::clone(&self.api.metrics.session_series));
            let gather = move || [registry.gather(), series.families()].concat();
            let snapshot = Arc::clone(&self.api.snapshot);
            tasks.spawn(push_metrics(Arc::clone(&self.outlets.otlp), gather, snapshot, interval));
        }
        Ok(tasks)
    }

    /// What pings other nodes and answers them.
    pub(super) fn start_peers(&self, settings: &PathSettings, tasks: &mut JoinSet<()>) -> Result<Option<Peers>> {
        let ApiState { paths, sources, meters, .. } = &self.api;
        Peers::start(settings, paths, &sources.load(), meters, tasks)
    }
}

/// What intakes and engine share.
#[derive(Default)]
pub(super) struct SharedCells {
    roster: Arc<ArcSwap<ConnectionWatchlist>>,
    pub(super) node: Arc<ArcSwap<NodeLoad>>,
    pub(super) media_ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    pub(super) stopping: Arc<AtomicBool>,
}

impl SharedCells {
    pub(super) fn of(sources: &[Arc<Source>]) -> Self {
        Self { media_ports: Arc::new(ArcSwap::from_pointee(ports_of(sources))), ..Self::default() }
    }

    /// Starts the threads that read the kernel's connections and access logs.
    pub(super) fn start_readers(
        &self,
        config: &Config,
        shared: &ApiState,
        out: &Observations,
        followed: LogInputs,
    ) -> Result<()> {
        let LogInputs { logs, tray, group_key } = followed;
        let (edge, meters) = (HttpEdge::new(random_key()?), shared.meters.clone());
        if config.kernel.tcp_info {
            let (watchlist, ports) = (Arc::clone(&self.roster), Arc::clone(&self.media_ports));
            let paths = TcpPoller { watchlist, ports, edge: edge.clone(), out: out.clone(), meters: meters.clone() };
            start_paths(paths, Arc::clone(&self.stopping))?;
        }
        let around =
            FollowerContext { out: out.clone(), edge, group_key, meters, stopping: Arc::clone(&self.stopping) };
        access_log::start_all(&logs, (&config.cmcd.log, tray), &shared.sources.load(), &around)
    }

    /// What the engine looks at and hands its results to.
    pub(super) fn surround(
        &self,
        shared: &ApiState,
        beacons: &Arc<Beacons>,
        outlets: Outputs,
        state: Option<Arc<State>>,
        alive: impl Fn() + Send + 'static,
    ) -> EngineIo {
        let (beacons, otlp) = (Arc::clone(beacons), Arc::clone(&outlets.otlp));
        EngineIo {
            snapshot: Arc::clone(&shared.snapshot),
            roster: Arc::clone(&self.roster),
            sources: Arc::clone(&shared.sources),
            paths: Arc::clone(&shared.paths),
            node: Arc::clone(&self.node),
            meters: shared.meters.clone(),
            last_tick: Arc::clone(&shared.last_tick),
            gather: Box::new(move |now| beacons.drain(now)),
            deliver: deliver(outlets, Arc::clone(&shared.history)),
            keep: state.map(|state| keep(state, otlp, shared.meters.clone())),
            found: None,
            record: None,
            alive: Box::new(alive),
        }
    }
}

impl StreamLookup for ArcSwap<Snapshot> {
    fn stream_of(&self, session: &Name) -> Option<Name> {
        let snapshot = self.load();
        snapshot.sessions.get(session).and_then(|state| Name::new(state.session.stream.as_str()).ok())
    }
}

fn deliver(outlets: Outputs, history: Arc<History>) -> Box<dyn FnMut(&Tick) + Send> {
    let Outputs { otlp, notifiers } = outlets;
    Box::new(move |tick| {
        for notice in &tick.notices {
            tracing::warn!(alert = notice.alert.as_str(), state = ?notice.state, "{}", notice.summary());
        }
        notifiers.take(&tick.notices);
        history.take(&tick.batch.samples);
        otlp.take(&tick.commands);
    })
}

fn start_otlp(config: &Config, place: &NodeIdentity, opened: &Opened) -> Result<Otlp> {
    let mut sampling = Sampling::new(&config.sampling, &place.node);
    if opened.state.is_some() {
        let Lasting { checkpoint, holding } = &opened.found;
        sampling = sampling.resumed(holding, |id| is_gone_on_with(checkpoint) && checkpoint.classes.contains_key(id));
    }
    let open = |target: &str| opened.export_queue(target);
    let otlp = Otlp::start_with(&config.otlp, &place.resource(config), sampling, &open, Pace::default());
    otlp.context("starting otlp")
}

/// Keeps what a tick told; gives what was found of before in a folder that could not be read at the start.
fn keep(state: Arc<State>, otlp: Arc<Otlp>, meters: SelfMetrics) -> Box<Keep> {
    Box::new(move |entries| {
        meters.shed(ShedReason::StateEntries, state.keep(entries, otlp.take_changes()));
        let Lasting { checkpoint, holding } = *state.found()?;
        let goes_on = is_gone_on_with(&checkpoint);
        otlp.join(&holding, |_| goes_on);
        goes_on.then(|| Box::new(checkpoint))
    })
}

/// Whether what was found may go on: not where the clock was set back meanwhile, for instants of the future mean
/// nothing.
fn is_gone_on_with(checkpoint: &Checkpoint) -> bool {
    checkpoint.last_cut().is_none_or(|cut| cut.since(clock::now()) <= clock::MAX_WAIT + GRID)
}

/// Goes on with what lived when the daemon went down.
pub(super) fn resumed(
    config: &Config,
    place: &NodeIdentity,
    checkpoint: &Checkpoint,
    record: &mut Option<Recorder>,
) -> Pipeline {
    let mut pipe = Pipeline::new(&place.node, config.objectives(), config.timeouts(), config.sessions.max);
    if !is_gone_on_with(checkpoint) {
        tracing::warn!("the clock was set back since the last run; its classes are not gone on with");
        return pipe;
    }
    let now = clock::now();
    pipe.resume(checkpoint, now);
    if let Some(recorder) = record {
        Event::resumed(checkpoint, now).for_each(|word| {
            recorder.note(|| word);
        });
    }
    let (classes, announced) = (checkpoint.classes.len(), checkpoint.announced.len());
    if classes + announced > 0 {
        tracing::info!(classes, announced, "going on with what lived when the daemon went down");
    }
    pipe
}

/// The first line of a recording.
pub(super) fn head(config: &Config, place: &NodeIdentity) -> Head {
    Head::new(place.node.clone(), clock::now(), config.rule_settings())
}

fn start_paths(paths: TcpPoller, stopping: Arc<AtomicBool>) -> std::io::Result<()> {
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
        let reading = metrics::otlp::Reading { since: started, at: clock::now() };
        let (families, snapshot) = (gather(), snapshot.load_full());
        let naming =
            |name: &str| liveqos_core::metrics::catalog::metric(name).map(|metric| (metric.otel_name, metric.unit));
        let exemplars = |name: &str| exemplars(name, &snapshot, &families);
        otlp.push_metrics(&metrics::otlp::records(&families, reading, naming, &exemplars));
    }
}

pub(super) fn beacon_key(config: &Config) -> Result<Option<Key>> {
    let Some(path) = &config.beacon.key_file else {
        return Ok(None);
    };
    let bytes = std::fs::read(path).with_context(|| format!("reading beacon.key_file {}", path.display()))?;
    let key = Key::new(bytes.trim_ascii()).with_context(|| format!("beacon.key_file {}", path.display()))?;
    Ok(Some(key))
}

pub(super) fn ports_of(sources: &[Arc<Source>]) -> BTreeMap<SourceName, Vec<u16>> {
    sources.iter().map(|source| (source.name.clone(), source.media_ports.clone())).collect()
}

pub(super) fn now() -> Now {
    Arc::new(clock::now)
}
