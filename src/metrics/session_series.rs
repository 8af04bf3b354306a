//! The series of each live class: text at each scrape, metric families for the OTLP push. At most `max_sessions`
//! classes have series; the rest are counted. They are kept out of the Prometheus registry, whose data model allocates
//! ten strings for each series.

use std::sync::Arc;

use arc_swap::ArcSwap;
use liveqos_core::metrics::{METRICS, Metric, QUANTILES, Read};
use liveqos_core::model::{LatencyReading, LegSample, Sample};
use prometheus::proto::{LabelPair, MetricFamily};

use super::collector::{family, kind_of};
use super::exposition::{Form, Line, Number, head, write_label};
use super::series::{Series, gauge, label, summary};
use crate::engine::Snapshot;

/// The live classes' series.
pub struct SessionSeries {
    snapshot: Arc<ArcSwap<Snapshot>>,
    max_sessions: usize,
    left_out: prometheus::Counter,
    /// Labels that all series carry, sorted.
    node_labels: Vec<(String, String)>,
}

/// A value of one leg.
enum Value<'a> {
    Gauge(f64),
    Summary(&'a LatencyReading),
}

impl SessionSeries {
    /// Series of the classes in `snapshot` at each request, with `node_labels` on each. At most `max_sessions` classes
    /// have series; `left_out` counts the rest at each request.
    #[must_use]
    pub fn new(
        snapshot: &Arc<ArcSwap<Snapshot>>,
        node_labels: impl IntoIterator<Item = (String, String)>,
        max_sessions: usize,
        left_out: prometheus::Counter,
    ) -> Self {
        let mut node_labels: Vec<_> = node_labels.into_iter().collect();
        node_labels.sort();
        Self { snapshot: Arc::clone(snapshot), max_sessions, left_out, node_labels }
    }

    /// Writes all series in `form`.
    pub fn write(&self, form: Form, out: &mut String) {
        let snapshot = self.snapshot.load();
        let legs: Vec<_> = self.legs(&snapshot).collect();
        let labels: Vec<_> = legs.iter().map(|(sample, leg)| self.label_text(sample, leg)).collect();
        for metric in METRICS {
            let mut name = None;
            for ((_, leg), labels) in legs.iter().zip(&labels) {
                let Some(value) = read(metric, leg) else {
                    continue;
                };
                let name = *name.get_or_insert_with(|| head(form, (metric.name, kind_of(metric), metric.help), out));
                let line = Line { form, name, labels };
                match value {
                    Value::Gauge(value) => line.write("", None, Number::Float(value), out),
                    Value::Summary(latency) => {
                        let quantiles = QUANTILES.iter().filter_map(|at| Some((*at, latency.quantile_seconds(*at)?)));
                        line.write_summary(quantiles, (latency.total_seconds, latency.total_count), out);
                    }
                }
            }
        }
    }

    /// All series as metric families.
    #[must_use]
    pub fn families(&self) -> Vec<MetricFamily> {
        let snapshot = self.snapshot.load();
        let legs: Vec<_> = self.legs(&snapshot).collect();
        let families = METRICS.iter().map(|metric| {
            let series = legs.iter().filter_map(|(sample, leg)| {
                let value = read(metric, leg)?;
                Some(self.series(sample, leg, &value))
            });
            family(metric, series.collect())
        });
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }

    fn legs<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a Sample, &'a LegSample)> {
        self.left_out.inc_by(snapshot.sessions.len().saturating_sub(self.max_sessions) as f64);
        let samples = snapshot.sessions.values().filter_map(|state| state.sample.as_ref());
        let samples = samples.map(|sample| &**sample).take(self.max_sessions);
        samples.flat_map(|sample| sample.legs.iter().map(move |leg| (sample, leg)))
    }

    fn labels<'a>(&'a self, sample: &'a Sample, leg: &LegSample) -> impl Iterator<Item = (&'a str, &'a str)> {
        let course = sample.session.course_id.as_ref().map_or("", |id| id.as_str());
        let own = [("session_id", sample.session.id.as_str()), ("course_id", course), ("leg", leg.leg.as_str())];
        own.into_iter().chain(self.node_labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn label_text(&self, sample: &Sample, leg: &LegSample) -> String {
        let mut text = String::with_capacity(128);
        self.labels(sample, leg).for_each(|(name, value)| write_label(name, value, &mut text));
        text
    }

    fn series(&self, sample: &Sample, leg: &LegSample, value: &Value<'_>) -> Series {
        let labels: Vec<LabelPair> = self.labels(sample, leg).map(|(name, value)| label(name, value)).collect();
        match value {
            Value::Gauge(value) => gauge(labels, *value),
            Value::Summary(latency) => summary(labels, latency),
        }
    }
}

/// The value of a per-class metric; `None` where it is unknown.
fn read<'a>(metric: &Metric, leg: &'a LegSample) -> Option<Value<'a>> {
    match metric.read {
        Read::Leg(read) => read(leg).map(Value::Gauge),
        Read::LegLatency(read) => read(leg).map(Value::Summary),
        Read::Fleet(_) | Read::FleetBuckets(_) | Read::Shell => None,
    }
}
