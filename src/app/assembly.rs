//! The composition: every stage, and what connects it with the next, in the order in which data flows. Decides what
//! each stage is given; refuses settings that one of them refuses, before anything runs.
//!
//! ```text
//! in                                                  out
//! media servers ── polls, hooks ──────┐             ┌─► otlp: spans, samples ───► collector
//! kernel ───────── connections ───────┤             ├─► notify: alerts ─────────► receivers
//! access logs ──── folds of viewers ──┤             ├─► history: samples ───────► API
//!   └ CMCD events of players          ├─► engine ───┼─► storage: journal, spool ► next start
//! players ──────── fold of beacons ───┤  (250 ms)   └─► snapshot ─┬─────────────► API, page
//! node, peers ──── load, paths ───────┤                           └─► metrics ──► /metrics, collector
//! platform ─────── API: commands ─────┘
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use liveqos_core::metrics::ShedReason;
use liveqos_core::model::{Name, NodeLoad, Observation, SourceName, Timestamp};
use liveqos_probes::probe::Kind;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::node_identity::NodeIdentity;
use super::outputs::{Outputs, StateStore, push_metrics};
use super::resume::{head, resumed};
use crate::api::{self, ApiState, MetricsPage};
use crate::config::Config;
use crate::engine::{self, Command, Commands, EngineIo, Gather, History, Published, RecordTo, Snapshot, Surroundings};
use crate::http::{BatchingRuntime, ListenerConfig, MAX_CONNECTIONS, server};
use crate::intake::access_log::event_queue::event_queue;
use crate::intake::access_log::settings::{group_key, random_key};
use crate::intake::access_log::{self, AccessLogSettings, EventReceiver, FollowerContext};
use crate::intake::kernel::{HttpEdge, TcpPoller};
use crate::intake::node::LoadReader;
use crate::intake::poll::{self, HttpClient, Now};
use crate::intake::{HookIntake, Observations, Source, SourceTable};
use crate::metrics::{NodeCollector, SessionSeries};
use crate::notify::Silences;
use crate::otlp::{Otlp, Signal};
use crate::peers::{PathTable, Peers};
use crate::platform::{SelfMetrics, clock};
use crate::players::{
    Beacons, ClientPolicy, CmcdIntake, EndedSessions, Key, PlayerListener, PlayerService, PlayerState, StreamLookup,
    dispatch_rule,
};
use crate::storage::{Opened, State};

/// All stages, built but not started.
pub(super) struct Assembly {
    identity: NodeIdentity,
    meters: SelfMetrics,
    cells: SharedCells,
    sources: Vec<Arc<Source>>,
    client: HttpClient,
    logs: LogInputs,
    players: PlayerState,
    observations: Observations,
    commands: Commands,
    queues: (mpsc::Receiver<Vec<Observation>>, mpsc::Receiver<Command>),
    outputs: Outputs,
    storage: Opened,
    metrics: Arc<MetricsPage>,
}

/// Values that one stage writes and others read.
#[derive(Clone)]
pub(super) struct SharedCells {
    /// State of the sources: intakes and peers → engine, API, metrics.
    pub(super) sources: Arc<ArcSwap<SourceTable>>,
    /// Hooks of media servers: a reload → API.
    pub(super) hooks: Arc<ArcSwap<HookIntake>>,
    /// Ports on which media servers serve viewers: a reload → kernel intake.
    pub(super) media_ports: Arc<ArcSwap<BTreeMap<SourceName, Vec<u16>>>>,
    /// Load of the node: node intake → engine.
    node: Arc<ArcSwap<NodeLoad>>,
    /// Paths to other nodes: peers → engine, API, metrics.
    paths: Arc<PathTable>,
    /// Classes that the platform ended: API → players.
    ended: Arc<EndedSessions>,
    /// What the engine publishes: → API, metrics, kernel intake.
    pub(super) published: Published,
    /// Recent samples: outputs → API.
    history: Arc<History>,
    /// Set when the threads of the intakes are to stop.
    pub(super) stopping: Arc<AtomicBool>,
}

/// Access logs to follow, CMCD events of players for one of them, and the key of viewers' networks.
struct LogInputs {
    logs: Vec<AccessLogSettings>,
    events: EventReceiver,
    group_key: [u64; 2],
}

/// A running daemon.
pub struct App {
    pub(super) address: SocketAddr,
    pub(super) player_listener: Option<PlayerListener>,
    pub(super) peers: Option<Peers>,
    pub(super) cells: SharedCells,
    pub(super) observations: Observations,
    pub(super) commands: Commands,
    pub(super) client: HttpClient,
    pub(super) polls: JoinSet<()>,
    pub(super) tasks: JoinSet<()>,
    pub(super) engine: std::thread::JoinHandle<()>,
    pub(super) otlp: Arc<Otlp>,
    pub(super) silences: Arc<ArcSwap<Silences>>,
    pub(super) state: Option<Arc<State>>,
    pub(super) stop: watch::Sender<bool>,
}

impl Assembly {
    /// Builds all stages for `config`, with `key` for the tokens of players and sources of these kinds.
    ///
    /// # Errors
    /// The first setting that a stage refuses.
    pub(super) fn build(config: &Config, key: Option<Key>, kinds: &[&'static Kind]) -> Result<Self> {
        let identity = NodeIdentity::of(config);
        let registry = prometheus::Registry::new_custom(None, Some(identity.labels()))?;
        let meters = SelfMetrics::new(&registry)?;

        let (observations, waiting_observations) = mpsc::channel(engine::MAX_WAITING);
        let (commands, waiting_commands) = mpsc::channel(engine::MAX_COMMANDS);
        let (published, ended) = (Published::new(clock::now()), Arc::<EndedSessions>::default());

        let sources = Source::all(&config.sources, kinds)?;
        let client = HttpClient::new()?;
        let (events, event_receiver) = event_queue();
        let group_key = group_key(&config.logs)?;
        let streams = Arc::clone(&published.snapshot) as Arc<dyn StreamLookup>;
        let trusted = config.cmcd.trusted()?;
        let players = PlayerState {
            policy: Arc::new(ClientPolicy::new(&config.ingest)?),
            beacons: Arc::new(Beacons::new(key.clone(), group_key, Arc::clone(&ended))),
            cmcd: Arc::new(CmcdIntake::new(key, trusted, events, Arc::clone(&ended), streams)),
            meters: meters.clone(),
        };
        let logs = access_log::log_inputs(&config.logs, players.cmcd.is_open());
        let table = source_table(config, &sources, &logs);
        let hooks = HookIntake::new(&sources, &table, now(), observations.clone())?;
        let logs = LogInputs { logs, events: event_receiver, group_key };

        let storage = Opened::open(&config.state, &config.otlp.spooled_targets())?;
        let history = Arc::new(History::new(config.history.samples, config.history.max_samples));
        let outputs = Outputs::start(config, &identity, &storage, Arc::clone(&history), &meters)?;

        let cells = SharedCells {
            sources: Arc::new(ArcSwap::from_pointee(table)),
            hooks: Arc::new(ArcSwap::from_pointee(hooks)),
            media_ports: Arc::new(ArcSwap::from_pointee(media_ports(&sources))),
            node: Arc::default(),
            paths: Arc::new(PathTable::new(&config.paths)),
            ended,
            published,
            history,
            stopping: Arc::default(),
        };
        let metrics = Arc::new(metrics_page(config, &identity, registry, &cells.published, &meters));
        let queues = (waiting_observations, waiting_commands);
        Ok(Self {
            identity,
            meters,
            cells,
            sources,
            client,
            logs,
            players,
            observations,
            commands,
            queues,
            outputs,
            storage,
            metrics,
        })
    }

    /// Starts all stages: first those that serve and push what there is, then the inputs, then the engine. `on_tick` is
    /// called after every tick.
    ///
    /// # Errors
    /// What could not be started; nothing runs then.
    pub(super) async fn start(
        self,
        config: &Config,
        record: &RecordTo,
        on_tick: impl Fn() + Send + 'static,
    ) -> Result<App> {
        let listener = TcpListener::bind(&config.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();

        self.push_metrics(config, &mut tasks)?;
        let player_runtime = BatchingRuntime::start(config.ingest.max_connections, stopped.clone())
            .context("starting the players' thread")?;
        tasks.spawn(server::serve(listener, self.main_listener(&player_runtime)?, stopped.clone()));
        let player_listener = PlayerListener::open(&config.ingest, &self.players, &player_runtime, stopped).await?;

        let Self { identity, meters, cells, sources, client, logs, players, observations, commands, .. } = self;
        let (otlp, silences) = (Arc::clone(&self.outputs.otlp), self.outputs.notifiers.silences());
        let table = cells.sources.load_full();
        let load = LoadReader::new(config.kernel.nic_bits_per_second, Arc::clone(&cells.node), meters.clone());
        tasks.spawn(load.run());
        let peers = Peers::start(&config.paths, &cells.paths, &table, &meters, &mut tasks)?;
        let polls = poll::start(&sources, &table, &client, &now(), &observations);
        cells.start_readers(config, logs, &observations, &meters)?;

        let Opened { state, found, .. } = self.storage;
        let mut recorder = record.begin(&head(config, &identity), &meters)?;
        let pipeline = resumed(config, &identity, &found.checkpoint, &mut recorder);
        let store = state.clone().map(|state| StateStore::new(state, Arc::clone(&otlp), meters.clone()));
        let io = EngineIo {
            gather: Box::new(players.beacons),
            surroundings: cells.surroundings(),
            deliver: Box::new(self.outputs),
            persist: store.map(|store| Box::new(store) as _),
            recorder,
            published: cells.published.clone(),
            meters,
            on_tick: Box::new(on_tick),
        };
        let (waiting_observations, waiting_commands) = self.queues;
        let engine = engine::start(pipeline, io, waiting_observations, waiting_commands)?;
        Ok(App {
            address,
            player_listener,
            peers,
            cells,
            observations,
            commands,
            client,
            polls,
            tasks,
            engine,
            otlp,
            silences,
            state,
            stop,
        })
    }

    /// Starts the push of metrics over OTLP, where a collector takes them.
    fn push_metrics(&self, config: &Config, tasks: &mut JoinSet<()>) -> Result<()> {
        let otlp = &self.outputs.otlp;
        if otlp.sends(Signal::Metrics) {
            let interval = config.otlp.metrics_interval()?;
            tasks.spawn(push_metrics(Arc::clone(otlp), Arc::clone(&self.metrics), interval));
        }
        Ok(())
    }

    /// What the main address serves: players' endpoints, API, page and metrics.
    fn main_listener(&self, player_runtime: &BatchingRuntime) -> Result<ListenerConfig<PlayerService>> {
        let SharedCells { sources, paths, published, .. } = &self.cells;
        let storage = self.storage.health_reader();
        let node_metrics = NodeCollector::new(&published.snapshot, sources, &self.outputs.otlp)?;
        let node_metrics = node_metrics.with_state(storage.clone()).with_paths(paths);
        self.metrics.registry.register(Box::new(node_metrics))?;
        let api = ApiState {
            node: self.identity.node.clone(),
            snapshot: Arc::clone(&published.snapshot),
            last_tick: Arc::clone(&published.last_tick),
            history: Arc::clone(&self.cells.history),
            sources: Arc::clone(sources),
            paths: Arc::clone(paths),
            storage,
            hooks: Arc::clone(&self.cells.hooks),
            commands: self.commands.clone(),
            ended: Arc::clone(&self.cells.ended),
            metrics: Arc::clone(&self.metrics),
            meters: self.meters.clone(),
        };
        Ok(ListenerConfig {
            service: PlayerService::new(&self.players, api::router(api)),
            tls: None,
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            shed_reason: ShedReason::HttpConnections,
            meters: self.meters.clone(),
            dispatch: Some(dispatch_rule(player_runtime)),
        })
    }
}

impl SharedCells {
    /// Starts the threads that read the kernel's connections and the access logs. Both share the connections that log
    /// lines name.
    fn start_readers(
        &self,
        config: &Config,
        inputs: LogInputs,
        out: &Observations,
        meters: &SelfMetrics,
    ) -> Result<()> {
        let LogInputs { logs, events, group_key } = inputs;
        let (edge, out, meters) = (HttpEdge::new(random_key()?), out.clone(), meters.clone());
        let stopping = Arc::clone(&self.stopping);
        if config.kernel.tcp_info {
            let (watchlist, ports) = (Arc::clone(&self.published.watchlist), Arc::clone(&self.media_ports));
            let poller = TcpPoller { watchlist, ports, edge: edge.clone(), out: out.clone(), meters: meters.clone() };
            let stopping = Arc::clone(&stopping);
            std::thread::Builder::new().name("paths".to_owned()).spawn(move || poller.run(&stopping))?;
        }
        let context = FollowerContext { out, edge, group_key, meters, stopping };
        access_log::start_all(&logs, (&config.cmcd.log, events), &self.sources.load(), &context)
    }

    fn surroundings(&self) -> Surroundings {
        let Self { sources, paths, node, .. } = self;
        Surroundings { sources: Arc::clone(sources), paths: Arc::clone(paths), node: Arc::clone(node) }
    }
}

impl Gather for Arc<Beacons> {
    fn gather(&mut self, now: Timestamp) -> Vec<Observation> {
        self.drain(now)
    }
}

impl StreamLookup for ArcSwap<Snapshot> {
    fn stream_of(&self, session: &Name) -> Option<Name> {
        let snapshot = self.load();
        snapshot.sessions.get(session).and_then(|state| Name::new(state.session.stream.as_str()).ok())
    }
}

/// An entry for each source, log and peer.
fn source_table(config: &Config, sources: &[Arc<Source>], logs: &[AccessLogSettings]) -> SourceTable {
    let table = logs.iter().fold(SourceTable::new(sources, None), |table, log| {
        table.with_log(log.shown_name(), log.status_kind_and_url())
    });
    config.paths.peers.iter().fold(table, |table, peer| table.with_peer(&peer.name, &peer.address))
}

fn metrics_page(
    config: &Config,
    identity: &NodeIdentity,
    registry: prometheus::Registry,
    published: &Published,
    meters: &SelfMetrics,
) -> MetricsPage {
    let left_out = meters.shed.with_label_values(&[ShedReason::SessionSeries.as_str()]);
    let snapshot = Arc::clone(&published.snapshot);
    let series = SessionSeries::new(&snapshot, identity.labels(), config.metrics.max_sessions, left_out);
    MetricsPage { registry, session_series: Arc::new(series), snapshot }
}

/// The ports on which each source serves viewers.
pub(super) fn media_ports(sources: &[Arc<Source>]) -> BTreeMap<SourceName, Vec<u16>> {
    sources.iter().map(|source| (source.name.clone(), source.media_ports.clone())).collect()
}

/// The clock of intakes.
pub(super) fn now() -> Now {
    Arc::new(clock::now)
}
