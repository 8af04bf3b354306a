//! Short constructors for series of the `prometheus` crate's data model.

use liveqos_core::metrics::{Buckets, QUANTILES};
use liveqos_core::model::LatencyReading;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, Quantile, Summary};

/// One series of a family.
pub(super) type Series = Metric;

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub(super) fn with(mut labels: Vec<LabelPair>, name: &str, value: &str) -> Vec<LabelPair> {
    labels.push(label(name, value));
    labels
}

pub(super) fn gauge(labels: Vec<LabelPair>, value: f64) -> Series {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut series = Series::from_label(labels);
    series.set_gauge(gauge);
    series
}

pub(super) fn counter(labels: Vec<LabelPair>, value: f64) -> Series {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut series = Series::from_label(labels);
    series.set_counter(counter);
    series
}

pub(super) fn histogram(labels: Vec<LabelPair>, buckets: &Buckets) -> Series {
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

/// A summary: the quantiles of the newest window, count and sum since the session began.
pub(super) fn summary(labels: Vec<LabelPair>, latency: &LatencyReading) -> Series {
    let quantiles = QUANTILES.iter().filter_map(|&at| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(at);
        quantile.set_value(latency.quantile_seconds(at)?);
        Some(quantile)
    });
    let mut summary = Summary::default();
    summary.set_quantile(quantiles.collect());
    summary.set_sample_count(latency.total_count);
    summary.set_sample_sum(latency.total_seconds);
    let mut series = Series::from_label(labels);
    series.set_summary(summary);
    series
}

/// Labels from pairs of name and value.
pub(super) fn labels_of(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs.iter().map(|(name, value)| label(name, value)).collect()
}
