//! The node's metrics, read when the page is requested: the snapshot's totals and the state of sources, paths and
//! exports as metric families of the catalogue. The series of single classes are those of [`super::session_series`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use liveqos_core::metrics::{BREACHES, FleetKey, FleetTotals, Kind, METRICS, Metric, Read};
use liveqos_core::model::{Alert, Leg, Scenario};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::exposition::{Exemplars, label_text};
use super::series::{Series, counter, gauge, histogram, labels_of, with};
use crate::engine::Snapshot;
use crate::intake::{SourceState, SourceStatus, SourceTable};
use crate::otlp::{Otlp, Signal, Target, stats};
use crate::peers::{PathStatus, PathTable};
use crate::platform::{clock, self_metrics};
use crate::storage::HealthReader;

/// Collects the metrics that are read at each request rather than counted when something happens.
pub struct NodeCollector {
    snapshot: Arc<ArcSwap<Snapshot>>,
    sources: Arc<ArcSwap<SourceTable>>,
    otlp: Weak<Otlp>,
    state: Option<HealthReader>,
    paths: Arc<PathTable>,
    descs: Vec<Desc>,
}

impl NodeCollector {
    /// A collector of `snapshot` and `sources` at each request, and of the counters of `otlp` for as long as that
    /// lives.
    ///
    /// # Errors
    /// When a row of the catalogue has a name or label that Prometheus does not accept.
    pub fn new(
        snapshot: &Arc<ArcSwap<Snapshot>>,
        sources: &Arc<ArcSwap<SourceTable>>,
        otlp: &Arc<Otlp>,
    ) -> prometheus::Result<Self> {
        let is_of_class = |metric: &Metric| matches!(metric.read, Read::Leg(_) | Read::LegLatency(_));
        let ours = METRICS.iter().filter(|metric| !is_of_class(metric) && !self_metrics::OWN.contains(&metric.name));
        let descs = ours.map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
        });
        Ok(Self {
            snapshot: Arc::clone(snapshot),
            sources: Arc::clone(sources),
            otlp: Arc::downgrade(otlp),
            state: None,
            paths: Arc::default(),
            descs: descs.collect::<prometheus::Result<_>>()?,
        })
    }

    /// The collector with `liveqos_state_kept`.
    #[must_use]
    pub fn with_state(self, state: HealthReader) -> Self {
        Self { state: Some(state), ..self }
    }

    /// The collector with the metrics of paths to other nodes.
    #[must_use]
    pub fn with_paths(self, paths: &Arc<PathTable>) -> Self {
        Self { paths: Arc::clone(paths), ..self }
    }
}

impl Collector for NodeCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.snapshot.load();
        let (now, sources) = (clock::now(), self.sources.load());
        let (sources, paths) = (sources.snapshot(now), self.paths.status(now));
        let exports = self.otlp.upgrade().map(|otlp| Exports::of(&otlp)).unwrap_or_default();
        let families = METRICS.iter().map(|metric| {
            let series = match metric.read {
                Read::Leg(_) | Read::LegLatency(_) => Vec::new(),
                Read::Fleet(read) => fleet(&snapshot, |totals, labels| Some(counter(labels, read(totals)?))),
                Read::FleetBuckets(read) => fleet(&snapshot, |totals, labels| Some(histogram(labels, read(totals)?))),
                Read::Shell if metric.name == "liveqos_state_kept" => {
                    self.state.iter().map(|state| gauge(Vec::new(), f64::from(u8::from(state.health().kept)))).collect()
                }
                Read::Shell if metric.name.starts_with("liveqos_path_") => {
                    paths.iter().filter_map(|path| path_series(metric.name, path)).collect()
                }
                Read::Shell => shell_series(metric, &snapshot, &sources, &exports),
            };
            family(metric, series)
        });
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn fleet(snapshot: &Snapshot, read: impl Fn(&FleetTotals, Vec<LabelPair>) -> Option<Series>) -> Vec<Series> {
    snapshot.fleet.totals().filter_map(|(key, totals)| read(totals, fleet_labels(*key))).collect()
}

fn fleet_labels(key: FleetKey) -> Vec<LabelPair> {
    let direction = if key.leg == Leg::Ingest { "receive" } else { "transmit" };
    labels_of(&[("stream_type", key.leg.as_str()), ("scenario", key.scenario.as_str()), ("direction", direction)])
}

fn shell_series(metric: &Metric, snapshot: &Snapshot, sources: &[SourceStatus], exports: &Exports) -> Vec<Series> {
    match metric.name {
        "liveqos_viewer_count" => viewers(snapshot),
        "liveqos_session_active" => active(snapshot),
        "liveqos_sample_breach_total" => {
            let breaches = BREACHES.iter().zip(snapshot.fleet.breaches());
            breaches.map(|(kind, count)| counter(labels_of(&[("kind", kind)]), count as f64)).collect()
        }
        "liveqos_alert_firing" => {
            let firing = Alert::ALL.iter().map(|alert| (alert.as_str(), snapshot.firing(*alert)));
            firing.map(|(name, count)| gauge(labels_of(&[("alertname", name)]), count as f64)).collect()
        }
        "liveqos_node_viewer_room" => {
            snapshot.capacity.iter().map(|capacity| gauge(Vec::new(), capacity.additional_viewers.floor())).collect()
        }
        "liveqos_build_info" => vec![gauge(labels_of(&[("version", env!("CARGO_PKG_VERSION"))]), 1.0)],
        name if name.starts_with("liveqos_probe_") => {
            sources.iter().flat_map(|source| source_series(name, source)).collect()
        }
        "liveqos_sampling_total" => {
            let decisions = exports.sampled.iter();
            decisions.map(|(name, count)| counter(labels_of(&[("decision", name)]), *count as f64)).collect()
        }
        // The rest are instruments of `SelfMetrics`, which the registry gathers itself.
        name => exports.counts.iter().flat_map(|counts| export_series(name, counts)).collect(),
    }
}

fn viewers(snapshot: &Snapshot) -> Vec<Series> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for sample in snapshot.sessions.values().filter_map(|state| state.sample.as_ref()) {
        for (leg, viewers) in sample.egress().filter_map(|leg| Some((leg, leg.viewers?))) {
            let key = (leg.leg.as_str(), sample.session.scenario.as_str());
            *counts.entry(key).or_default() += u64::from(viewers.value);
        }
    }
    let series = counts.into_iter().map(|((stream_type, scenario), count)| {
        gauge(labels_of(&[("stream_type", stream_type), ("scenario", scenario)]), count as f64)
    });
    series.collect()
}

fn active(snapshot: &Snapshot) -> Vec<Series> {
    let of = |scenario| snapshot.sessions.values().filter(|state| state.session.scenario == scenario).count();
    let counts = Scenario::ALL.map(|scenario| (scenario, of(scenario)));
    // One series is present even on an idle node, so that "no class" differs from "no daemon".
    let shown = counts.into_iter().filter(|(scenario, count)| *count > 0 || *scenario == Scenario::LiveTeaching);
    shown.map(|(scenario, count)| gauge(labels_of(&[("scenario", scenario.as_str())]), count as f64)).collect()
}

fn source_series(name: &str, source: &SourceStatus) -> Vec<Series> {
    let labels = || labels_of(&[("source", &source.name), ("kind", source.kind)]);
    match name {
        "liveqos_probe_up" => match source.state {
            SourceState::Up => vec![gauge(labels(), 1.0)],
            SourceState::Down => vec![gauge(labels(), 0.0)],
            SourceState::Unknown => Vec::new(),
        },
        "liveqos_probe_duration_seconds" => {
            source.last_duration_seconds.into_iter().map(|seconds| gauge(labels(), seconds)).collect()
        }
        _ => {
            let failures = source.failures.iter();
            failures.map(|(reason, count)| counter(with(labels(), "reason", reason), *count as f64)).collect()
        }
    }
}

fn path_series(name: &str, path: &PathStatus) -> Option<Series> {
    let figures = &path.figures;
    let value = if name == "liveqos_path_rtt_seconds" { figures.rtt_seconds } else { figures.loss_ratio() };
    Some(gauge(labels_of(&[("peer", &path.peer)]), value?))
}

fn export_series(name: &str, counts: &ExportCounts) -> Vec<Series> {
    let labels = || labels_of(&[("target", &counts.target), ("signal", counts.signal)]);
    match name {
        "liveqos_spool_bytes" => vec![gauge(labels(), counts.queued_bytes as f64)],
        "liveqos_spool_dropped_total" => vec![counter(labels(), counts.dropped as f64)],
        "liveqos_spool_damaged_total" => vec![counter(labels(), counts.damaged as f64)],
        "liveqos_export_total" => {
            let outcomes = counts.outcomes.iter();
            outcomes.map(|(outcome, count)| counter(with(labels(), "outcome", outcome), *count as f64)).collect()
        }
        _ => Vec::new(),
    }
}

/// The counters of the export.
#[derive(Default)]
struct Exports {
    sampled: Vec<(&'static str, u64)>,
    counts: Vec<ExportCounts>,
}

impl Exports {
    fn of(otlp: &Otlp) -> Self {
        Self { sampled: otlp.sampling_counts().read().to_vec(), counts: export_counts(otlp) }
    }
}

/// The counters of one signal to one target.
struct ExportCounts {
    target: String,
    signal: &'static str,
    queued_bytes: u64,
    dropped: u64,
    damaged: u64,
    outcomes: [(&'static str, u64); 4],
}

fn export_counts(otlp: &Otlp) -> Vec<ExportCounts> {
    let of = |target: &Target| -> Vec<ExportCounts> {
        let stats = target.stats();
        let gets = Signal::ALL.into_iter().filter(|signal| target.gets(*signal));
        gets.map(|signal| {
            let counters = stats.of(signal);
            ExportCounts {
                target: target.name().to_owned(),
                signal: signal.as_str(),
                queued_bytes: target.backlog(signal).bytes,
                dropped: target.dropped(signal),
                damaged: target.damaged(signal),
                outcomes: [
                    ("sent", stats::read(&counters.sent)),
                    ("retried", stats::read(&counters.retried)),
                    ("rejected", stats::read(&counters.rejected)),
                    ("failed", stats::read(&counters.failed)),
                ],
            }
        })
        .collect()
    };
    otlp.targets().iter().flat_map(of).collect()
}

/// The exemplars of a family: the worst class of the newest window, on the series of its leg and scenario; `None` for
/// families without exemplars.
#[must_use]
pub fn exemplars(name: &str, snapshot: &Snapshot, families: &[MetricFamily]) -> Option<Exemplars> {
    if name != "liveqos_latency_seconds" {
        return None;
    }
    let family = families.iter().find(|family| family.name() == name)?;
    let exemplars = family.get_metric().iter().filter_map(|series| {
        let value = |name: &str| series.get_label().iter().find(|pair| pair.name() == name).map(LabelPair::value);
        let (stream_type, scenario) = (value("stream_type")?, value("scenario")?);
        let is_of = |key: &FleetKey| key.leg.as_str() == stream_type && key.scenario.as_str() == scenario;
        let (_, exemplar) = snapshot.exemplars.iter().find(|(key, _)| is_of(key))?;
        Some((label_text(series.get_label()), exemplar.clone()))
    });
    Some(exemplars.collect())
}

/// The family of a catalogue row.
pub(super) fn family(metric: &Metric, series: Vec<Series>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(kind_of(metric));
    family.set_metric(series);
    family
}

/// The Prometheus type of a catalogue row.
pub(super) const fn kind_of(metric: &Metric) -> MetricType {
    match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
        Kind::Summary => MetricType::SUMMARY,
    }
}
