//! Where the results of a tick go: OTLP, receivers of alerts, the history of samples, and storage.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use liveqos_core::metrics::{ShedReason, catalog};
use liveqos_core::model::{Checkpoint, Entry};
use liveqos_core::pipeline::Tick;

use super::node_identity::NodeIdentity;
use super::resume::is_resumable;
use crate::api::MetricsPage;
use crate::config::Config;
use crate::engine::{Deliver, History, Persist};
use crate::metrics;
use crate::metrics::collector::exemplars;
use crate::notify::Notifiers;
use crate::otlp::sampling::Sampling;
use crate::otlp::{Otlp, Pace};
use crate::platform::{SelfMetrics, clock};
use crate::storage::{Opened, PersistentState, State};

/// The sinks of results.
pub(super) struct Outputs {
    pub(super) otlp: Arc<Otlp>,
    pub(super) notifiers: Notifiers,
    history: Arc<History>,
}

impl Outputs {
    /// Starts the sinks. What storage found to be sent is sent.
    ///
    /// # Errors
    /// When receivers or collectors are not configured correctly.
    pub(super) fn start(
        config: &Config,
        identity: &NodeIdentity,
        storage: &Opened,
        history: Arc<History>,
        meters: &SelfMetrics,
    ) -> Result<Self> {
        let notifiers =
            Notifiers::start(identity.alert_context(config), meters).context("starting receivers of alerts")?;
        let otlp = Arc::new(start_otlp(config, identity, storage)?);
        Ok(Self { otlp, notifiers, history })
    }
}

impl Deliver for Outputs {
    fn deliver(&mut self, tick: &Tick) {
        for notice in &tick.notices {
            tracing::warn!(alert = notice.alert.as_str(), state = ?notice.state, "{}", notice.summary());
        }
        self.notifiers.take(&tick.notices);
        self.history.take(&tick.batch.samples);
        self.otlp.take(&tick.commands);
    }
}

/// Stores the state of each tick together with what OTLP queued.
pub(super) struct StateStore {
    state: Arc<State>,
    otlp: Arc<Otlp>,
    meters: SelfMetrics,
}

impl StateStore {
    pub(super) const fn new(state: Arc<State>, otlp: Arc<Otlp>, meters: SelfMetrics) -> Self {
        Self { state, otlp, meters }
    }
}

impl Persist for StateStore {
    fn persist(&mut self, entries: Vec<Entry>) -> Option<Box<Checkpoint>> {
        self.meters.shed(ShedReason::StateEntries, self.state.keep(entries, self.otlp.take_changes()));
        let PersistentState { checkpoint, holding } = *self.state.found()?;
        let resumes = is_resumable(&checkpoint);
        self.otlp.join(&holding, |_| resumes);
        resumes.then(|| Box::new(checkpoint))
    }
}

fn start_otlp(config: &Config, identity: &NodeIdentity, storage: &Opened) -> Result<Otlp> {
    let mut sampling = Sampling::new(&config.sampling, &identity.node);
    if storage.state.is_some() {
        let PersistentState { checkpoint, holding } = &storage.found;
        sampling = sampling.resumed(holding, |id| is_resumable(checkpoint) && checkpoint.classes.contains_key(id));
    }
    let open = |target: &str| storage.export_queue(target);
    let otlp = Otlp::start_with(&config.otlp, &identity.resource(config), sampling, &open, Pace::default());
    otlp.context("starting otlp")
}

/// Sends all metrics over OTLP at each `interval`.
pub(super) async fn push_metrics(otlp: Arc<Otlp>, page: Arc<MetricsPage>, interval: Duration) {
    let started = clock::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = metrics::otlp::Reading { since: started, at: clock::now() };
        let (families, snapshot) = (page.families(), page.snapshot.load_full());
        let naming = |name: &str| catalog::metric(name).map(|metric| (metric.otel_name, metric.unit));
        let exemplars = |name: &str| exemplars(name, &snapshot, &families);
        otlp.push_metrics(&metrics::otlp::records(&families, reading, naming, &exemplars));
    }
}
