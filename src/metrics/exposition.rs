//! Metric families as text: Prometheus 0.0.4 or OpenMetrics 1.0, with the exemplars that the `prometheus` crate lacks.
//! An OpenMetrics counter family loses its `_total`. No timestamps: they would disable Prometheus's staleness handling.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::engine::Exemplar;

/// A text format that Prometheus scrapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus text 0.0.4.
    Classic,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Form {
    /// The form for a scraper that sends this `Accept` header.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Classic }
    }

    /// The `Content-Type` of the response.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Exemplars of one histogram family, by the text of its series' labels as [`label_text`] writes them.
pub type Exemplars = BTreeMap<String, Exemplar>;

/// Writes `families`. `exemplars` gives those of a family; the classic form has none.
pub fn encode(form: Form, families: &[MetricFamily], exemplars: impl Fn(&str) -> Option<Exemplars>, out: &mut String) {
    let mut labels = String::with_capacity(128);
    for family in families {
        let exemplars = exemplars(family.name()).filter(|_| form == Form::OpenMetrics);
        let name = head(form, (family.name(), family.get_field_type(), family.help()), out);
        for series in family.get_metric() {
            labels.clear();
            write_labels(series.get_label(), &mut labels);
            let exemplar = exemplars.as_ref().and_then(|exemplars| exemplars.get(&labels));
            encode_series(Line { form, name, labels: &labels }, (family.get_field_type(), series, exemplar), out);
        }
    }
}

/// Writes the end of the page.
pub fn finish(form: Form, out: &mut String) {
    if form == Form::OpenMetrics {
        out.push_str("# EOF\n");
    }
}

/// `a="b",c="d"`: the labels of a series without their braces, escaped.
#[must_use]
pub fn label_text(labels: &[LabelPair]) -> String {
    let mut out = String::with_capacity(96);
    write_labels(labels, &mut out);
    out
}

/// Writes the comments of a family of this name, type and help; returns the name that its lines begin with.
pub(crate) fn head<'a>(form: Form, (full, kind, help): (&'a str, MetricType, &str), out: &mut String) -> &'a str {
    let (name, kind) = match kind {
        MetricType::COUNTER if form == Form::OpenMetrics => (full.trim_end_matches("_total"), "counter"),
        MetricType::COUNTER => (full, "counter"),
        MetricType::HISTOGRAM => (full, "histogram"),
        MetricType::SUMMARY => (full, "summary"),
        MetricType::GAUGE => (full, "gauge"),
        MetricType::UNTYPED => (full, if form == Form::OpenMetrics { "unknown" } else { "untyped" }),
    };
    put(out, format_args!("# TYPE {name} {kind}\n"));
    let unit = UNITS.iter().find(|unit| name.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_')));
    if let Some(unit) = unit.filter(|_| form == Form::OpenMetrics) {
        put(out, format_args!("# UNIT {name} {unit}\n"));
    }
    put(out, format_args!("# HELP {name} "));
    write_escaped(help, form == Form::OpenMetrics, out);
    out.push('\n');
    name
}

fn encode_series(line: Line<'_>, (kind, series, exemplar): (MetricType, &Metric, Option<&Exemplar>), out: &mut String) {
    match kind {
        MetricType::COUNTER => {
            let suffix = if line.form == Form::OpenMetrics { "_total" } else { "" };
            line.write(suffix, None, Number::Float(series.get_counter().get_value()), out);
        }
        MetricType::GAUGE => line.write("", None, Number::Float(series.get_gauge().get_value()), out),
        MetricType::HISTOGRAM => encode_histogram(line, series.get_histogram(), exemplar, out),
        MetricType::SUMMARY => {
            let summary = series.get_summary();
            let quantiles = summary.get_quantile().iter().map(|one| (one.quantile(), one.value()));
            line.write_summary(quantiles, (summary.sample_sum(), summary.sample_count()), out);
        }
        MetricType::UNTYPED => {}
    }
}

fn encode_histogram(line: Line<'_>, histogram: &Histogram, exemplar: Option<&Exemplar>, out: &mut String) {
    let mut unplaced = exemplar;
    let mut bucket = |bound: f64, count: u64, out: &mut String| {
        line.write("_bucket", Some(("le", bound)), Number::Integer(count), out);
        if let Some(exemplar) = unplaced.take_if(|exemplar| exemplar.value <= bound) {
            let Exemplar { trace_id, value, at } = exemplar;
            out.pop();
            put(out, format_args!(" # {{trace_id=\"{trace_id}\"}} {value:?} {:.3}\n", at.seconds()));
        }
    };
    for one in histogram.get_bucket().iter().filter(|one| one.upper_bound().is_finite()) {
        bucket(one.upper_bound(), one.cumulative_count(), out);
    }
    bucket(f64::INFINITY, histogram.get_sample_count(), out);
    line.write("_sum", None, Number::Float(histogram.get_sample_sum()), out);
    line.write("_count", None, Number::Integer(histogram.get_sample_count()), out);
}

/// A value: OpenMetrics requires a point or an exponent in floats.
#[derive(Clone, Copy)]
pub(crate) enum Number {
    Float(f64),
    Integer(u64),
}

/// The common part of the lines of one series.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) form: Form,
    pub(crate) name: &'a str,
    /// In the form of [`label_text`].
    pub(crate) labels: &'a str,
}

impl Line<'_> {
    /// Writes one line: name and suffix, labels and one additional label with a number, value.
    pub(crate) fn write(&self, suffix: &str, extra: Option<(&str, f64)>, value: Number, out: &mut String) {
        out.push_str(self.name);
        out.push_str(suffix);
        if !self.labels.is_empty() || extra.is_some() {
            out.push('{');
            out.push_str(self.labels);
            if let Some((label, number)) = extra {
                out.push_str(if self.labels.is_empty() { "" } else { "," });
                out.push_str(label);
                out.push_str("=\"");
                self.write_number(Number::Float(number), out);
                out.push('"');
            }
            out.push('}');
        }
        out.push(' ');
        self.write_number(value, out);
        out.push('\n');
    }

    /// Writes a summary: its quantiles, and the sum and count of all values.
    pub(crate) fn write_summary(
        &self,
        quantiles: impl Iterator<Item = (f64, f64)>,
        (sum, count): (f64, u64),
        out: &mut String,
    ) {
        for (at, value) in quantiles {
            self.write("", Some(("quantile", at)), Number::Float(value), out);
        }
        self.write("_sum", None, Number::Float(sum), out);
        self.write("_count", None, Number::Integer(count), out);
    }

    fn write_number(&self, number: Number, out: &mut String) {
        match number {
            Number::Integer(value) => put(out, format_args!("{value}")),
            Number::Float(value) if value.is_nan() => out.push_str("NaN"),
            Number::Float(value) if value.is_infinite() => out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            Number::Float(value) if self.form == Form::Classic => put(out, format_args!("{value}")),
            Number::Float(value) => put(out, format_args!("{value:?}")),
        }
    }
}

fn write_labels(labels: &[LabelPair], out: &mut String) {
    for pair in labels {
        write_label(pair.name(), pair.value(), out);
    }
}

/// Appends a label to those in `out`.
pub(crate) fn write_label(name: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    write_escaped(value, true, out);
    out.push('"');
}

/// Appends `text`, escaped; `quotes` too, which labels need always and help texts only in OpenMetrics.
fn write_escaped(text: &str, quotes: bool, out: &mut String) {
    let special = |c: char| c == '\\' || c == '\n' || (quotes && c == '"');
    for part in text.split_inclusive(special) {
        let plain = part.trim_end_matches(special);
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

/// Name endings that OpenMetrics declares as units.
const UNITS: [&str; 4] = ["seconds", "bytes", "ratio", "bits_per_second"];

#[cfg(test)]
mod tests {
    use liveqos_core::model::Timestamp;
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn families_follow_the_formats() {
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
        let exemplar =
            |name: &str| (name == "liveqos_y_seconds").then(|| Exemplars::from([(String::new(), exemplar.clone())]));
        let page = |form| {
            let mut page = String::new();
            encode(form, &registry.gather(), exemplar, &mut page);
            finish(form, &mut page);
            page
        };
        insta::assert_snapshot!(page(Form::OpenMetrics), @r#"
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
        let classic = page(Form::Classic);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("encodes");
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(lines(&classic), lines(&text), "the same lines as the encoder of the prometheus crate");
    }
}
