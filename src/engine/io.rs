//! What the engine reads and writes beside its queues: folds to gather from, sinks to deliver to, and values that it
//! shares with other stages.

use std::sync::Arc;

use arc_swap::ArcSwap;
use liveqos_core::model::{Checkpoint, Entry, Environment, NodeLoad, Observation, Timestamp};
use liveqos_core::pipeline::Tick;
use liveqos_core::recording::Event;

use super::recorder::Recorder;
use super::snapshot::Snapshot;
use crate::intake::kernel::ConnectionWatchlist;
use crate::intake::{SourceState, SourceTable};
use crate::peers::PathTable;
use crate::platform::SelfMetrics;

/// An intake that folds by itself and is asked at each tick.
pub(crate) trait Gather: Send {
    /// Its observations since the last call.
    fn gather(&mut self, now: Timestamp) -> Vec<Observation>;
}

/// The sinks of results. They must not block.
pub(crate) trait Deliver: Send {
    /// Passes the results of a tick on.
    fn deliver(&mut self, tick: &Tick);
}

/// The storage of what must survive a restart.
pub(crate) trait Persist: Send {
    /// Stores the entries of a tick, together with what was delivered just before. Gives, once, the state of an earlier
    /// run that could not be read at the start.
    fn persist(&mut self, entries: Vec<Entry>) -> Option<Box<Checkpoint>>;
}

/// Everything that the engine reads and writes beside its queues.
pub(crate) struct EngineIo {
    /// Where observations that an intake folded come from.
    pub gather: Box<dyn Gather>,
    /// What surrounds the classes.
    pub surroundings: Surroundings,
    /// Where results go.
    pub deliver: Box<dyn Deliver>,
    /// Where state is stored; `None` where nothing is.
    pub persist: Option<Box<dyn Persist>>,
    /// Where the input of the rules is recorded; `None` where it is not.
    pub recorder: Option<Recorder>,
    /// What readers see.
    pub published: Published,
    /// The daemon's own metrics.
    pub meters: SelfMetrics,
    /// Called after every tick, for the watchdog.
    pub on_tick: Box<dyn Fn() + Send>,
}

/// What other stages report of sources, paths and node; read at every tick.
pub(crate) struct Surroundings {
    /// State of the sources.
    pub sources: Arc<ArcSwap<SourceTable>>,
    /// State of the paths to other nodes.
    pub paths: Arc<PathTable>,
    /// Load of the node.
    pub node: Arc<ArcSwap<NodeLoad>>,
}

/// What the engine publishes for readers in other stages.
#[derive(Clone)]
pub(crate) struct Published {
    /// The newest state.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Viewers' connections that the kernel intake looks for.
    pub watchlist: Arc<ArcSwap<ConnectionWatchlist>>,
    /// When the last tick was.
    pub last_tick: Arc<ArcSwap<Timestamp>>,
}

impl Published {
    /// Nothing yet; the last tick counts as `now`, so that readiness is known before the first one.
    pub(crate) fn new(now: Timestamp) -> Self {
        let last_tick = Arc::new(ArcSwap::from_pointee(now));
        Self { snapshot: Arc::default(), watchlist: Arc::default(), last_tick }
    }
}

impl EngineIo {
    /// Records an event, where a recording is made.
    pub(super) fn record(&mut self, event: impl FnOnce() -> Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(event);
        }
    }
}

impl Surroundings {
    /// The surroundings at `now`, in the terms of the rules.
    pub(super) fn read(&self, now: Timestamp) -> Environment {
        let sources = self.sources.load().snapshot(now).into_iter().map(|source| {
            let down = source.state == SourceState::Down;
            (source.name, down.then(|| source.last_success.or(source.since).unwrap_or(now)))
        });
        Environment { node: **self.node.load(), sources: sources.collect(), paths: self.paths.reports(now) }
    }
}
