//! Prometheus families as OTLP metrics: cumulative sums, gauges, explicit-bucket histograms and summaries, by the
//! family's type. Values that are not a number are left out.

use bytes::Bytes;
use liveqos_core::base::hex;
use liveqos_core::model::Timestamp;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    self as proto, AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary,
    SummaryDataPoint, metric, number_data_point,
};
use prometheus::proto::{Metric as Row, MetricFamily, MetricType};
use prost::Message as _;

use super::exposition::{Exemplars, label_text};
use crate::engine::Exemplar;
use crate::otlp::encode::key_value;
use crate::otlp::{Record, Signal};

/// The OpenTelemetry name and UCUM unit of a Prometheus name; `None` keeps the Prometheus name, without a unit.
pub type Naming = fn(&str) -> Option<(&'static str, &'static str)>;

/// The exemplars of a histogram family by its Prometheus name; `None` where it has none.
pub type ExemplarsOf<'a> = &'a dyn Fn(&str) -> Option<Exemplars>;

/// The start of the counters, and when they were read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The start of the process, when all counters were zero.
    pub since: Timestamp,
    /// When the families were gathered.
    pub at: Timestamp,
}

/// One record for each family, or several where it has more than 1,024 points.
#[must_use]
pub fn records(
    families: &[MetricFamily],
    reading: Reading,
    naming: Naming,
    exemplars_of: ExemplarsOf<'_>,
) -> Vec<Record> {
    families
        .iter()
        .flat_map(|family| metrics_of(family, reading, naming, exemplars_of))
        .map(|(metric, items)| Record {
            signal: Signal::Metrics,
            bytes: Bytes::from(metric.encode_to_vec()),
            items,
            urgent: true,
        })
        .collect()
}

/// The metrics of one family, each with the number of its points.
fn metrics_of(
    family: &MetricFamily,
    reading: Reading,
    naming: Naming,
    exemplars_of: ExemplarsOf<'_>,
) -> Vec<(Metric, u32)> {
    let exemplars = exemplars_of(family.name()).unwrap_or_default();
    let (name, unit) = naming(family.name()).unwrap_or((family.name(), ""));
    let rows = family.get_metric().chunks(MAX_POINTS);
    rows.filter_map(|rows| data(family.get_field_type(), rows, reading, &exemplars))
        .map(|(data, items)| {
            let metric = Metric {
                name: name.to_owned(),
                description: family.help().to_owned(),
                unit: unit.to_owned(),
                data: Some(data),
                ..Metric::default()
            };
            (metric, u32::try_from(items).unwrap_or(u32::MAX))
        })
        .collect()
}

/// The points of `rows`; `None` where no row has a value.
fn data(kind: MetricType, rows: &[Row], reading: Reading, exemplars: &Exemplars) -> Option<(metric::Data, usize)> {
    let numbers = |value: fn(&Row) -> f64, since| -> Vec<_> {
        rows.iter().filter(|row| !value(row).is_nan()).map(|row| number(row, value(row), since, reading.at)).collect()
    };
    let temporality = AggregationTemporality::Cumulative.into();
    let (data, points) = match kind {
        MetricType::COUNTER => {
            let data_points = numbers(|row| row.get_counter().get_value(), Some(reading.since));
            let points = data_points.len();
            let sum = Sum { data_points, aggregation_temporality: temporality, is_monotonic: true };
            (metric::Data::Sum(sum), points)
        }
        MetricType::GAUGE => {
            let data_points = numbers(|row| row.get_gauge().get_value(), None);
            let points = data_points.len();
            (metric::Data::Gauge(Gauge { data_points }), points)
        }
        MetricType::HISTOGRAM => {
            let data_points: Vec<_> = rows.iter().map(|row| histogram(row, reading, exemplars)).collect();
            let points = data_points.len();
            let histogram = Histogram { data_points, aggregation_temporality: temporality };
            (metric::Data::Histogram(histogram), points)
        }
        MetricType::SUMMARY => {
            let data_points: Vec<_> = rows.iter().map(|row| summary(row, reading)).collect();
            let points = data_points.len();
            (metric::Data::Summary(Summary { data_points }), points)
        }
        MetricType::UNTYPED => return None,
    };
    (points > 0).then_some((data, points))
}

fn number(row: &Row, value: f64, since: Option<Timestamp>, at: Timestamp) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels(row),
        start_time_unix_nano: since.map_or(0, Timestamp::nanos),
        time_unix_nano: at.nanos(),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Prometheus buckets are cumulative; those of OTLP count the values between two bounds, the last one those above all
/// bounds.
fn histogram(row: &Row, reading: Reading, exemplars: &Exemplars) -> HistogramDataPoint {
    let all = row.get_histogram();
    let mut below = 0;
    let mut explicit_bounds = Vec::with_capacity(all.get_bucket().len());
    let mut bucket_counts = Vec::with_capacity(all.get_bucket().len() + 1);
    for bucket in all.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        explicit_bounds.push(bucket.upper_bound());
        bucket_counts.push(bucket.cumulative_count().saturating_sub(below));
        below = below.max(bucket.cumulative_count());
    }
    bucket_counts.push(all.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: labels(row),
        start_time_unix_nano: reading.since.nanos(),
        time_unix_nano: reading.at.nanos(),
        count: bucket_counts.iter().sum(),
        sum: Some(all.get_sample_sum()).filter(|sum| sum.is_finite()),
        bucket_counts,
        explicit_bounds,
        exemplars: exemplars.get(&label_text(row.get_label())).and_then(exemplar).into_iter().collect(),
        ..HistogramDataPoint::default()
    }
}

/// `None` where its trace id is invalid.
fn exemplar(worst: &Exemplar) -> Option<proto::Exemplar> {
    let trace_id = hex::decode_array::<16>(worst.trace_id.as_bytes()).filter(|id| *id != [0; 16])?;
    Some(proto::Exemplar {
        time_unix_nano: worst.at.nanos(),
        trace_id: trace_id.to_vec(),
        value: Some(proto::exemplar::Value::AsDouble(worst.value)),
        ..proto::Exemplar::default()
    })
}

fn summary(row: &Row, reading: Reading) -> SummaryDataPoint {
    let all = row.get_summary();
    let quantiles = all.get_quantile().iter().filter(|one| !one.value().is_nan());
    SummaryDataPoint {
        attributes: labels(row),
        start_time_unix_nano: reading.since.nanos(),
        time_unix_nano: reading.at.nanos(),
        count: all.sample_count(),
        sum: all.sample_sum(),
        quantile_values: quantiles
            .map(|one| ValueAtQuantile { quantile: one.quantile(), value: one.value() })
            .collect(),
        ..SummaryDataPoint::default()
    }
}

fn labels(row: &Row) -> Vec<KeyValue> {
    row.get_label()
        .iter()
        .map(|label| key_value(label.name(), any_value::Value::StringValue(label.value().to_owned())))
        .collect()
}

/// Most data points in one record, so that a family of thousands of sessions is split over several requests.
const MAX_POINTS: usize = 1_024;

#[cfg(test)]
mod tests {
    use prometheus::core::Collector as _;
    use prometheus::{CounterVec, GaugeVec, HistogramOpts, Opts};

    use super::*;

    const READING: Reading = Reading { since: Timestamp::from_secs(100), at: Timestamp::from_secs(115) };

    fn named(name: &str) -> Option<(&'static str, &'static str)> {
        (name == "liveqos_watch_seconds_total").then_some(("liveqos.watch", "s"))
    }

    fn read(families: &[MetricFamily]) -> Vec<Metric> {
        records(families, READING, named, &|_| None)
            .into_iter()
            .map(|record| Metric::decode(record.bytes).expect("a metric"))
            .collect()
    }

    #[test]
    fn a_counter_is_a_cumulative_sum_under_its_otel_name() {
        let counter =
            CounterVec::new(Opts::new("liveqos_watch_seconds_total", "Watched."), &["region"]).expect("a metric");
        counter.with_label_values(&["cn-north"]).inc_by(2.5);
        let metrics = read(&counter.collect());
        assert_eq!((metrics[0].name.as_str(), metrics[0].unit.as_str()), ("liveqos.watch", "s"));
        let Some(metric::Data::Sum(sum)) = &metrics[0].data else {
            panic!("not a sum: {metrics:?}");
        };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(2.5)));
        assert_eq!(point.start_time_unix_nano, READING.since.nanos());
        assert_eq!(point.time_unix_nano, READING.at.nanos());
        let region = any_value::Value::StringValue("cn-north".to_owned());
        assert_eq!(point.attributes, [key_value("region", region)]);
    }

    #[test]
    fn values_that_are_not_a_number_are_left_out() {
        let gauge = GaugeVec::new(Opts::new("g", "G."), &["leg"]).expect("a metric");
        gauge.with_label_values(&["rtmp"]).set(f64::NAN);
        assert_eq!(read(&gauge.collect()), [], "a family without a value is left out");
        gauge.with_label_values(&["hls"]).set(0.0);
        let metrics = read(&gauge.collect());
        assert_eq!((metrics[0].name.as_str(), metrics[0].unit.as_str()), ("g", ""));
        let Some(metric::Data::Gauge(gauge)) = &metrics[0].data else {
            panic!("not a gauge: {metrics:?}");
        };
        assert_eq!(gauge.data_points.len(), 1);
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(0.0)));
    }

    #[test]
    fn a_histogram_counts_between_its_bounds() {
        let opts = HistogramOpts::new("h_seconds", "H.").buckets(vec![0.1, 0.2, 0.5]);
        let histogram = prometheus::Histogram::with_opts(opts).expect("a metric");
        for value in [0.05, 0.2, 0.15, 9.0] {
            histogram.observe(value);
        }
        let metrics = read(&histogram.collect());
        let Some(metric::Data::Histogram(histogram)) = &metrics[0].data else {
            panic!("not a histogram: {metrics:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [0.1, 0.2, 0.5]);
        assert_eq!(point.bucket_counts, [1, 2, 0, 1], "in both formats a bound belongs to its bucket");
        assert_eq!((point.count, point.sum), (4, Some(9.4)));
    }

    #[test]
    fn an_exemplar_points_from_its_series_to_the_trace() {
        let opts = HistogramOpts::new("liveqos_latency_seconds", "L.").buckets(vec![0.2]);
        let histograms = prometheus::HistogramVec::new(opts, &["leg"]).expect("a metric");
        histograms.with_label_values(&["hls"]).observe(0.9);
        histograms.with_label_values(&["rtmp"]).observe(0.1);
        let trace_id = "9d5b219967131ccb6ff6e0346ac77d0a".to_owned();
        let worst = Exemplar { trace_id: trace_id.clone(), value: 0.9, at: Timestamp::from_secs(110) };
        let exemplars_of = |name: &str| {
            (name == "liveqos_latency_seconds").then(|| Exemplars::from([("leg=\"hls\"".to_owned(), worst.clone())]))
        };
        let record = records(&histograms.collect(), READING, named, &exemplars_of).remove(0);
        let Some(metric::Data::Histogram(read)) = Metric::decode(record.bytes).expect("a metric").data else {
            panic!("not a histogram");
        };
        let exemplars: Vec<_> = read.data_points.iter().map(|point| point.exemplars.as_slice()).collect();
        let [[exemplar], []] = exemplars[..] else { panic!("{exemplars:?}") };
        assert_eq!(hex::encode(&exemplar.trace_id), trace_id);
        assert_eq!(exemplar.value, Some(proto::exemplar::Value::AsDouble(0.9)));
        assert_eq!(exemplar.time_unix_nano, 110_000_000_000);
    }

    #[test]
    fn a_large_family_is_split() {
        let gauge = GaugeVec::new(Opts::new("g", "G."), &["session_id"]).expect("a metric");
        for n in 0..=MAX_POINTS {
            gauge.with_label_values(&[&n.to_string()]).set(1.0);
        }
        let items: Vec<_> = records(&gauge.collect(), READING, named, &|_| None).iter().map(|r| r.items).collect();
        assert_eq!(items, [1_024, 1]);
    }
}
