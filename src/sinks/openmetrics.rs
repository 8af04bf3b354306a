//! The OpenMetrics 1.0 text of gathered families, with exemplars, which the `prometheus` crate lacks. Decides names and units by the
//! catalogue (a counter family loses its `_total`); refuses timestamps, which would switch staleness off.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use crate::snapshot::Exemplar;

/// Content type to answer with where the scraper accepts it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Exemplars of one histogram family, by the text of its series' labels as [`label_text`] writes them.
pub type Exemplars = BTreeMap<String, Exemplar>;

/// The page. `exemplars` gives those of a family.
#[must_use]
pub fn encode(families: &[MetricFamily], exemplars: impl Fn(&str) -> Option<Exemplars>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for family in families {
        encode_family(family, exemplars(family.name()).as_ref(), &mut out);
    }
    out.push_str("# EOF\n");
    out
}

/// `{a="b",c="d"}` without the braces, escaped.
#[must_use]
pub fn label_text(labels: &[LabelPair]) -> String {
    let mut out = String::new();
    for (index, pair) in labels.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        put(&mut out, format_args!("{comma}{}=\"{}\"", pair.name(), escaped(pair.value())));
    }
    out
}

fn encode_family(family: &MetricFamily, exemplars: Option<&Exemplars>, out: &mut String) {
    let (name, kind) = match family.get_field_type() {
        MetricType::COUNTER => (family.name().trim_end_matches("_total"), "counter"),
        MetricType::HISTOGRAM => (family.name(), "histogram"),
        MetricType::SUMMARY => (family.name(), "summary"),
        MetricType::GAUGE => (family.name(), "gauge"),
        MetricType::UNTYPED => (family.name(), "unknown"),
    };
    put(out, format_args!("# TYPE {name} {kind}\n"));
    if let Some(unit) = UNITS.iter().find(|unit| name.ends_with(&format!("_{unit}"))) {
        put(out, format_args!("# UNIT {name} {unit}\n"));
    }
    put(out, format_args!("# HELP {name} {}\n", escaped(family.help())));
    for series in family.get_metric() {
        let labels = label_text(series.get_label());
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        match family.get_field_type() {
            MetricType::COUNTER => {
                put(out, format_args!("{name}_total{braced} {}\n", number(series.get_counter().get_value())));
            }
            MetricType::GAUGE => put(out, format_args!("{name}{braced} {}\n", number(series.get_gauge().get_value()))),
            MetricType::HISTOGRAM => {
                let exemplar = exemplars.and_then(|exemplars| exemplars.get(&labels));
                encode_histogram(name, &labels, series.get_histogram(), exemplar, out);
            }
            MetricType::SUMMARY => encode_summary(name, &labels, series.get_summary(), out),
            MetricType::UNTYPED => {}
        }
    }
}

fn encode_summary(name: &str, labels: &str, summary: &prometheus::proto::Summary, out: &mut String) {
    let comma = if labels.is_empty() { "" } else { "," };
    for one in summary.get_quantile() {
        let (quantile, value) = (number(one.quantile()), number(one.value()));
        put(out, format_args!("{name}{{{labels}{comma}quantile=\"{quantile}\"}} {value}\n"));
    }
    encode_totals(name, labels, summary.sample_sum(), summary.sample_count(), out);
}

fn encode_totals(name: &str, labels: &str, sum: f64, count: u64, out: &mut String) {
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    put(out, format_args!("{name}_sum{braced} {}\n{name}_count{braced} {count}\n", number(sum)));
}

fn encode_histogram(
    name: &str,
    labels: &str,
    histogram: &prometheus::proto::Histogram,
    exemplar: Option<&Exemplar>,
    out: &mut String,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut waiting = exemplar;
    let mut bucket = |le: &str, bound: f64, count: u64, out: &mut String| {
        put(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{le}\"}} {count}"));
        if let Some(exemplar) = waiting.take_if(|exemplar| exemplar.value <= bound) {
            let Exemplar { trace_id, value, at } = exemplar;
            put(out, format_args!(" # {{trace_id=\"{trace_id}\"}} {} {:.3}", number(*value), at.seconds()));
        }
        out.push('\n');
    };
    for one in histogram.get_bucket().iter().filter(|one| one.upper_bound().is_finite()) {
        bucket(&number(one.upper_bound()), one.upper_bound(), one.cumulative_count(), out);
    }
    bucket("+Inf", f64::INFINITY, histogram.get_sample_count(), out);
    encode_totals(name, labels, histogram.get_sample_sum(), histogram.get_sample_count(), out);
}

/// A number as OpenMetrics wants bounds and values: with a point or an exponent where it is not whole.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value:?}")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

const UNITS: [&str; 4] = ["seconds", "bytes", "ratio", "bits_per_second"];

#[cfg(test)]
mod tests {
    use liveqos_core::time::Timestamp;
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn families_are_written_by_the_standard() {
        let registry = Registry::new();
        let counter =
            IntCounterVec::new(Opts::new("liveqos_x_total", "Counts \"x\"."), &["kind"]).expect("good options");
        counter.with_label_values(&["a\"b\\c\nd"]).inc();
        let opts = HistogramOpts::new("liveqos_y_seconds", "Times y.").buckets(vec![0.1, 0.2]);
        let histogram = Histogram::with_opts(opts).expect("good options");
        histogram.observe(0.15);
        registry.register(Box::new(counter)).expect("new name");
        registry.register(Box::new(histogram)).expect("new name");
        let exemplar = Exemplar { trace_id: "00ff".to_owned(), value: 0.15, at: Timestamp::from_millis(1_500) };
        let page = encode(&registry.gather(), |name| {
            (name == "liveqos_y_seconds").then(|| Exemplars::from([(String::new(), exemplar.clone())]))
        });
        insta::assert_snapshot!(page, @r#"
        # TYPE liveqos_x counter
        # HELP liveqos_x Counts \"x\".
        liveqos_x_total{kind="a\"b\\c\nd"} 1.0
        # TYPE liveqos_y_seconds histogram
        # UNIT liveqos_y_seconds seconds
        # HELP liveqos_y_seconds Times y.
        liveqos_y_seconds_bucket{le="0.1"} 0
        liveqos_y_seconds_bucket{le="0.2"} 1 # {trace_id="00ff"} 0.15 1.500
        liveqos_y_seconds_bucket{le="+Inf"} 1
        liveqos_y_seconds_sum 0.15
        liveqos_y_seconds_count 1
        # EOF
        "#);
    }
}
