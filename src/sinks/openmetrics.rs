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

/// `a="b",c="d"`: the labels of a series without their braces, escaped.
#[must_use]
pub fn label_text(labels: &[LabelPair]) -> String {
    let mut out = String::with_capacity(96);
    write_labels(labels, &mut out);
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
    if let Some(unit) = UNITS.iter().find(|unit| name.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'))) {
        put(out, format_args!("# UNIT {name} {unit}\n"));
    }
    put(out, format_args!("# HELP {name} "));
    write_escaped(family.help(), out);
    out.push('\n');
    for series in family.get_metric() {
        let labels = series.get_label();
        let line = |out: &mut String, end, more, value| write_line(name, end, labels, more, value, out);
        match family.get_field_type() {
            MetricType::COUNTER => line(out, "_total", None, Number::Float(series.get_counter().get_value())),
            MetricType::GAUGE => line(out, "", None, Number::Float(series.get_gauge().get_value())),
            MetricType::HISTOGRAM => {
                let exemplar = exemplars.and_then(|exemplars| exemplars.get(&label_text(labels)));
                encode_histogram(name, labels, series.get_histogram(), exemplar, out);
            }
            MetricType::SUMMARY => {
                let summary = series.get_summary();
                for one in summary.get_quantile() {
                    line(out, "", Some(("quantile", one.quantile())), Number::Float(one.value()));
                }
                line(out, "_sum", None, Number::Float(summary.sample_sum()));
                line(out, "_count", None, Number::Whole(summary.sample_count()));
            }
            MetricType::UNTYPED => {}
        }
    }
}

fn encode_histogram(
    name: &str,
    labels: &[LabelPair],
    histogram: &prometheus::proto::Histogram,
    exemplar: Option<&Exemplar>,
    out: &mut String,
) {
    let mut waiting = exemplar;
    let mut bucket = |bound: f64, count: u64, out: &mut String| {
        write_line(name, "_bucket", labels, Some(("le", bound)), Number::Whole(count), out);
        if let Some(exemplar) = waiting.take_if(|exemplar| exemplar.value <= bound) {
            let Exemplar { trace_id, value, at } = exemplar;
            out.pop();
            put(out, format_args!(" # {{trace_id=\"{trace_id}\"}} {value:?} {:.3}\n", at.seconds()));
        }
    };
    for one in histogram.get_bucket().iter().filter(|one| one.upper_bound().is_finite()) {
        bucket(one.upper_bound(), one.cumulative_count(), out);
    }
    bucket(f64::INFINITY, histogram.get_sample_count(), out);
    write_line(name, "_sum", labels, None, Number::Float(histogram.get_sample_sum()), out);
    write_line(name, "_count", labels, None, Number::Whole(histogram.get_sample_count()), out);
}

/// A value as it is written: floats with a point or an exponent, as OpenMetrics wants them.
#[derive(Clone, Copy)]
enum Number {
    Float(f64),
    Whole(u64),
}

/// One line: name and its end, labels and one more of a number, value.
#[expect(clippy::too_many_arguments, reason = "the parts of a line, in their order")]
fn write_line(name: &str, end: &str, labels: &[LabelPair], more: Option<(&str, f64)>, value: Number, out: &mut String) {
    out.push_str(name);
    out.push_str(end);
    if !labels.is_empty() || more.is_some() {
        out.push('{');
        write_labels(labels, out);
        if let Some((label, number)) = more {
            let comma = if labels.is_empty() { "" } else { "," };
            put(out, format_args!("{comma}{label}=\""));
            write_number(Number::Float(number), out);
            out.push('"');
        }
        out.push('}');
    }
    out.push(' ');
    write_number(value, out);
    out.push('\n');
}

fn write_labels(labels: &[LabelPair], out: &mut String) {
    for (index, pair) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(pair.name());
        out.push_str("=\"");
        write_escaped(pair.value(), out);
        out.push('"');
    }
}

fn write_number(number: Number, out: &mut String) {
    match number {
        Number::Whole(value) => put(out, format_args!("{value}")),
        Number::Float(value) if value.is_nan() => out.push_str("NaN"),
        Number::Float(value) if value.is_infinite() => out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
        Number::Float(value) => put(out, format_args!("{value:?}")),
    }
}

fn write_escaped(text: &str, out: &mut String) {
    for part in text.split_inclusive(['\\', '\n', '"']) {
        let plain = part.trim_end_matches(['\\', '\n', '"']);
        out.push_str(plain);
        match part[plain.len()..].chars().next() {
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some(quote) => {
                out.push('\\');
                out.push(quote);
            }
            None => {}
        }
    }
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
