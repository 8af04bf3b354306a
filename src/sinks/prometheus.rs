//! The metrics page: the snapshot and the sources' state as metric families, by the catalogue. Decides which classes get series of
//! their own (at most so many, the rest counted); refuses any name that the catalogue does not have.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use liveqos_core::catalog::{METRICS, Metric, QUANTILES, Read};
use liveqos_core::fleet::{BREACHES, Buckets, FleetKey};
use liveqos_core::notice::Alert;
use liveqos_core::sample::{LegSample, Sample};
use liveqos_core::session::{Leg, Scenario};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};

use super::openmetrics::{Exemplars, label_text};
use crate::api::Shared;
use crate::clock;
use crate::intake::status::{SourceState, SourceStatus, SourceTable};
use crate::meters;
use crate::otlp::Otlp;
use crate::otlp::record::Signal;
use crate::otlp::stats;
use crate::place::Place;
use crate::snapshot::Snapshot;

/// Gathers everything that is read at the time of asking rather than counted as it happens.
pub struct PageCollector {
    snapshot: Arc<ArcSwap<Snapshot>>,
    sources: Arc<ArcSwap<SourceTable>>,
    otlp: Weak<Otlp>,
    place: [(&'static str, String); 2],
    max_sessions: usize,
    descs: Vec<Desc>,
}

impl PageCollector {
    /// A collector of what `shared` holds, of what `otlp` sent while it lives, with the labels `region` and `edge` of `place` on what
    /// adds up over the fleet; at most `max_sessions` classes get series of their own.
    ///
    /// # Errors
    /// When a row of the catalogue has a name or label that Prometheus does not take.
    pub fn new(shared: &Shared, otlp: &Arc<Otlp>, place: &Place, max_sessions: usize) -> prometheus::Result<Self> {
        let descs = METRICS
            .iter()
            .filter(|metric| !meters::OWN.contains(&metric.name))
            .map(|metric| {
                let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
                Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
            });
        Ok(Self {
            snapshot: Arc::clone(&shared.snapshot),
            sources: Arc::clone(&shared.sources),
            otlp: Arc::downgrade(otlp),
            place: [("region", place.region.clone()), ("edge", place.edge.clone())],
            max_sessions,
            descs: descs.collect::<prometheus::Result<_>>()?,
        })
    }
}

impl Collector for PageCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.snapshot.load();
        let sources = self.sources.load().snapshot(clock::now());
        let exports = self.otlp.upgrade().map(|otlp| export_counts(&otlp)).unwrap_or_default();
        let families = METRICS.iter().map(|metric| {
            let series = match metric.read {
                Read::Leg(read) => self.legs(&snapshot, |leg, labels| {
                    read(leg).into_iter().map(|v| gauge(labels.clone(), v)).collect()
                }),
                Read::LegQuantile(read) => self.legs(&snapshot, |leg, labels| quantiles(leg, labels, read)),
                Read::Fleet(read) => self.fleet(&snapshot, |totals, labels| counter(labels, read(totals))),
                Read::FleetBuckets(read) => self.fleet(&snapshot, |totals, labels| histogram(labels, read(totals))),
                Read::Shell => self.shell(metric, &snapshot, &sources, &exports),
            };
            family(metric, series)
        });
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

type Series = prometheus::proto::Metric;

impl PageCollector {
    fn legs(&self, snapshot: &Snapshot, read: impl Fn(&LegSample, &Vec<LabelPair>) -> Vec<Series>) -> Vec<Series> {
        let mut series = Vec::new();
        let samples = snapshot.sessions.values().filter_map(|state| state.sample.as_ref());
        for sample in samples.take(self.max_sessions) {
            for leg in &sample.legs {
                series.extend(read(leg, &session_labels(sample, leg.leg)));
            }
        }
        series
    }

    fn fleet(
        &self,
        snapshot: &Snapshot,
        read: impl Fn(&liveqos_core::fleet::FleetTotals, Vec<LabelPair>) -> Series,
    ) -> Vec<Series> {
        snapshot
            .fleet
            .totals()
            .map(|(key, totals)| read(totals, self.fleet_labels(*key)))
            .collect()
    }

    fn fleet_labels(&self, key: FleetKey) -> Vec<LabelPair> {
        let direction = if key.leg == Leg::Ingest { "in" } else { "out" };
        let mut labels = self.placed();
        labels.push(label("stream_type", key.leg.as_str()));
        labels.push(label("scenario", key.scenario.as_str()));
        labels.push(label("direction", direction));
        labels
    }

    fn placed(&self) -> Vec<LabelPair> {
        self.place.iter().map(|(name, value)| label(name, value)).collect()
    }

    fn shell(
        &self,
        metric: &Metric,
        snapshot: &Snapshot,
        sources: &[SourceStatus],
        exports: &[ExportCounts],
    ) -> Vec<Series> {
        match metric.name {
            "liveqos_viewer_count" => self.viewers(snapshot),
            "liveqos_session_active" => self.active(snapshot),
            "liveqos_sample_breach_total" => {
                let breaches = BREACHES.iter().zip(snapshot.fleet.breaches());
                breaches
                    .map(|(kind, count)| counter(self.with(&[("kind", kind)]), count as f64))
                    .collect()
            }
            "liveqos_probe_up" => each(sources, |source| {
                let up = match source.state {
                    SourceState::Up => 1.0,
                    SourceState::Down => 0.0,
                    SourceState::Unknown => return Vec::new(),
                };
                vec![gauge(source_labels(source), up)]
            }),
            "liveqos_probe_duration_seconds" => each(sources, |source| {
                source
                    .last_duration_seconds
                    .into_iter()
                    .map(|seconds| gauge(source_labels(source), seconds))
                    .collect()
            }),
            "liveqos_probe_failures_total" => each(sources, |source| {
                let failures = source.failures.iter();
                failures
                    .map(|(reason, count)| counter(with(source_labels(source), "reason", reason), *count as f64))
                    .collect()
            }),
            "liveqos_spool_bytes" => exports
                .iter()
                .map(|e| gauge(vec![label("signal", e.signal)], e.waiting_bytes as f64))
                .collect(),
            "liveqos_spool_dropped_total" => exports
                .iter()
                .map(|e| counter(vec![label("signal", e.signal)], e.dropped as f64))
                .collect(),
            "liveqos_export_total" => exports.iter().flat_map(export_outcomes).collect(),
            "liveqos_alert_firing" => {
                let firing = Alert::ALL.iter().map(|alert| (alert.as_str(), snapshot.firing(*alert)));
                firing
                    .map(|(name, count)| gauge(vec![label("alertname", name)], count as f64))
                    .collect()
            }
            "liveqos_build_info" => vec![gauge(vec![label("version", env!("CARGO_PKG_VERSION"))], 1.0)],
            // Instruments of their own.
            _ => Vec::new(),
        }
    }

    fn viewers(&self, snapshot: &Snapshot) -> Vec<Series> {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for sample in snapshot.sessions.values().filter_map(|state| state.sample.as_ref()) {
            for (leg, viewers) in sample.egress().filter_map(|leg| Some((leg, leg.viewers?))) {
                let key = (leg.leg.as_str(), sample.session.scenario.as_str());
                *counts.entry(key).or_default() += u64::from(viewers.value);
            }
        }
        let series = counts.into_iter().map(|((stream_type, scenario), count)| {
            gauge(
                self.with(&[("stream_type", stream_type), ("scenario", scenario)]),
                count as f64,
            )
        });
        series.collect()
    }

    fn active(&self, snapshot: &Snapshot) -> Vec<Series> {
        let count = |scenario| {
            snapshot
                .sessions
                .values()
                .filter(|state| state.session.scenario == scenario)
                .count()
        };
        let counts = Scenario::ALL.map(|scenario| (scenario, count(scenario)));
        let told = counts
            .into_iter()
            .filter(|(scenario, count)| *count > 0 || *scenario == Scenario::LiveTeaching);
        told.map(|(scenario, count)| gauge(self.with(&[("scenario", scenario.as_str())]), count as f64))
            .collect()
    }

    fn with(&self, pairs: &[(&str, &str)]) -> Vec<LabelPair> {
        let mut labels = self.placed();
        labels.extend(pairs.iter().map(|(name, value)| label(name, value)));
        labels
    }
}

fn session_labels(sample: &Sample, leg: Leg) -> Vec<LabelPair> {
    let course = sample.session.course_id.as_ref().map_or("", |id| id.as_str());
    vec![
        label("session_id", sample.session.id.as_str()),
        label("course_id", course),
        label("leg", leg.as_str()),
    ]
}

fn quantiles(leg: &LegSample, labels: &[LabelPair], read: fn(&LegSample, f64) -> Option<f64>) -> Vec<Series> {
    let told = QUANTILES
        .iter()
        .filter_map(|(quantile, text)| Some((text, read(leg, *quantile)?)));
    told.map(|(text, value)| gauge(with(labels.to_vec(), "quantile", text), value))
        .collect()
}

fn each(sources: &[SourceStatus], of: impl Fn(&SourceStatus) -> Vec<Series>) -> Vec<Series> {
    sources.iter().flat_map(of).collect()
}

fn source_labels(source: &SourceStatus) -> Vec<LabelPair> {
    vec![label("source", &source.name), label("kind", source.kind)]
}

/// What became of one signal's records.
struct ExportCounts {
    signal: &'static str,
    waiting_bytes: u64,
    dropped: u64,
    outcomes: [(&'static str, u64); 4],
}

fn export_counts(otlp: &Otlp) -> Vec<ExportCounts> {
    let stats = otlp.stats();
    let sent = Signal::ALL.into_iter().filter(|signal| otlp.sends(*signal));
    sent.map(|signal| {
        let counters = stats.of(signal);
        ExportCounts {
            signal: signal.as_str(),
            waiting_bytes: otlp.backlog(signal).bytes,
            dropped: otlp.dropped(signal),
            outcomes: [
                ("sent", stats::read(&counters.sent)),
                ("retried", stats::read(&counters.retried)),
                ("rejected", stats::read(&counters.rejected)),
                ("failed", stats::read(&counters.failed)),
            ],
        }
    })
    .collect()
}

/// The exemplars of a family: the worst class of the newest window, for the series of its leg and scenario.
#[must_use]
pub fn exemplars(name: &str, snapshot: &Snapshot, families: &[MetricFamily]) -> Option<Exemplars> {
    if name != "liveqos_latency_seconds" {
        return None;
    }
    let family = families.iter().find(|family| family.name() == name)?;
    let pointed = family.get_metric().iter().filter_map(|series| {
        let value = |name: &str| {
            series
                .get_label()
                .iter()
                .find(|pair| pair.name() == name)
                .map(LabelPair::value)
        };
        let (stream_type, scenario) = (value("stream_type")?, value("scenario")?);
        let is_of = |key: &FleetKey| key.leg.as_str() == stream_type && key.scenario.as_str() == scenario;
        let (_, exemplar) = snapshot.exemplars.iter().find(|(key, _)| is_of(key))?;
        Some((label_text(series.get_label()), exemplar.clone()))
    });
    Some(pointed.collect())
}

fn export_outcomes(counts: &ExportCounts) -> Vec<Series> {
    let outcomes = counts.outcomes.iter();
    outcomes
        .map(|(outcome, count)| {
            counter(
                vec![label("signal", counts.signal), label("outcome", outcome)],
                *count as f64,
            )
        })
        .collect()
}

fn family(metric: &Metric, series: Vec<Series>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        liveqos_core::catalog::Kind::Counter => MetricType::COUNTER,
        liveqos_core::catalog::Kind::Gauge => MetricType::GAUGE,
        liveqos_core::catalog::Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    family.set_metric(series);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn with(mut labels: Vec<LabelPair>, name: &str, value: &str) -> Vec<LabelPair> {
    labels.push(label(name, value));
    labels
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Series {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut series = Series::from_label(labels);
    series.set_gauge(gauge);
    series
}

fn counter(labels: Vec<LabelPair>, value: f64) -> Series {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut series = Series::from_label(labels);
    series.set_counter(counter);
    series
}

fn histogram(labels: Vec<LabelPair>, buckets: &Buckets) -> Series {
    let mut cumulative = 0;
    let bounded = buckets.bounds.iter().zip(&buckets.counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(bounded.collect());
    histogram.set_sample_count(buckets.counts.iter().sum());
    histogram.set_sample_sum(buckets.sum);
    let mut series = Series::from_label(labels);
    series.set_histogram(histogram);
    series
}
