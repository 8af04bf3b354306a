//! Dashboards, rules and documents name only metrics and labels of the catalogue, and the reference names all of them.

use std::collections::BTreeSet;

use liveqos_core::metrics::catalog::metric;
use liveqos_core::metrics::{Kind, METRICS};

use super::promql::named;
use super::repository::{files, root, text};
use super::rules::{Rule, rules};

/// What is wrong with the names in an expression; `recorded` are the series that rules make.
pub(crate) fn strange_names(expr: &str, recorded: &[String]) -> Vec<String> {
    let named = named(expr);
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<&str> = GIVEN_LABELS.iter().copied().chain(made_labels(expr)).collect();
    for (series, matchers) in &named.series {
        let Some(of_series) = labels_of(series, recorded) else {
            wrong.push(format!("no metric is called \"{series}\" in {expr}"));
            continue;
        };
        let known = |label: &String| GIVEN_LABELS.contains(&label.as_str()) || of_series.contains(&label.as_str());
        let unknown = matchers.iter().filter(|label| !known(label));
        wrong.extend(unknown.map(|label| format!("{series} has no label {label} in {expr}")));
        labels.extend(of_series);
    }
    let unknown = named.grouping.iter().filter(|label| !labels.contains(label.as_str()));
    wrong.extend(unknown.map(|label| format!("nothing has the label {label} in {expr}")));
    wrong
}

/// The labels of a series, beside [`GIVEN_LABELS`]; `None` for one that is not exported.
fn labels_of(series: &str, recorded: &[String]) -> Option<Vec<&'static str>> {
    if series == "up" {
        return Some(Vec::new());
    }
    if recorded.iter().any(|name| name == series) {
        // A recorded series has at most the labels of what it is made of.
        return Some(METRICS.iter().flat_map(|metric| metric.labels).copied().collect());
    }
    if let Some(metric) = metric(series) {
        return match metric.kind {
            Kind::Histogram(_) => None,
            Kind::Summary => Some(metric.labels.iter().copied().chain(["quantile"]).collect()),
            Kind::Counter | Kind::Gauge => Some(metric.labels.to_vec()),
        };
    }
    let (name, own) = HISTOGRAM_SERIES.iter().find_map(|(end, own)| Some((series.strip_suffix(end)?, own)))?;
    let histogram = metric(name).filter(|metric| matches!(metric.kind, Kind::Histogram(_) | Kind::Summary))?;
    Some(histogram.labels.iter().chain(*own).copied().collect())
}

/// Labels that `label_replace` makes: the second of its texts.
fn made_labels(expr: &str) -> impl Iterator<Item = &str> {
    expr.match_indices("label_replace(").filter_map(|(at, _)| expr[at..].split("\", \"").next()?.rsplit('"').next())
}

/// Words that begin as metrics do; series that rules make, which carry colons, are left out.
fn metric_words(text: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    text.split(move |c| !part(c)).filter(|word| word.starts_with("liveqos_") && !word.contains(':'))
}

/// The rules of all files.
pub(crate) fn fleet_rules() -> Vec<Rule> {
    RULES.iter().flat_map(|file| rules(&text(file))).collect()
}

#[test]
fn rules_name_only_what_is_exported() {
    let rules = fleet_rules();
    let recorded: Vec<_> = rules.iter().filter(|rule| !rule.alerts).map(|rule| rule.name.clone()).collect();
    let wrong: Vec<_> = rules.iter().flat_map(|rule| strange_names(&rule.expr, &recorded)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let written: usize = RULES.iter().map(|file| text(file).matches("expr:").count()).sum();
    assert!(rules.len() > 10 && rules.len() == written, "{} rules read of {written}", rules.len());
}

#[test]
fn texts_name_only_what_is_exported() {
    let crates = ["liveqos_core", "liveqos_probes"];
    let exported = |word: &str| labels_of(word, &[]).is_some() || metric(word).is_some() || crates.contains(&word);
    let texts = files(&["md", "json", "yml"]).into_iter().map(|path| (text(&path), path));
    let wrong: Vec<_> = texts
        .flat_map(|(text, path)| {
            let unknown = metric_words(&text).filter(|word| !exported(word));
            unknown.map(|word| format!("{path}: {word}")).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reference_names_every_metric() {
    let path = "docs/metrics.md";
    if root().join(path).exists() {
        let reference = text(path);
        let words: BTreeSet<_> = metric_words(&reference).collect();
        let missing: Vec<_> = METRICS.iter().map(|metric| metric.name).filter(|name| !words.contains(name)).collect();
        assert!(missing.is_empty(), "{path} lacks {missing:?}");
    }
}

#[test]
fn strange_names_are_found() {
    let wrong = |expr| strange_names(expr, &["a:b".to_owned()]).len();
    assert_eq!(
        wrong("sum by (region) (rate(liveqos_watch_seconds_total{edge=~\".+\",scenario=\"exam\"}[1m])) / a:b"),
        0
    );
    assert_eq!(wrong("histogram_quantile(0.9, sum by (le) (rate(liveqos_latency_seconds_bucket[1m])))"), 0);
    assert_eq!(wrong("sum by (made) (label_replace(up, \"made\", \"x\", \"\", \"\"))"), 0);
    for expr in [
        "liveqos_watch_seconds",
        "liveqos_latency_seconds",
        "liveqos_viewer_count_bucket",
        "a:c",
        "{job=\"liveqos\"}",
        "liveqos_node_cpu_ratio{session_id=\"s\"}",
        "sum by (le) (liveqos_node_cpu_ratio)",
    ] {
        assert_eq!(wrong(expr), 1, "{expr}");
    }
}

/// The rule file.
pub(crate) const RULES: [&str; 2] = ["deploy/prometheus/liveqos.rules.yml", "deploy/prometheus/liveqos.slo.rules.yml"];
/// Labels that every series has: the node's constant ones and the scrape's.
const GIVEN_LABELS: [&str; 4] = ["region", "edge", "job", "instance"];
/// Endings of a histogram's series and the labels that they have for themselves.
const HISTOGRAM_SERIES: [(&str, &[&str]); 3] = [("_bucket", &["le"]), ("_sum", &[]), ("_count", &[])];
