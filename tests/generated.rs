//! Generated pages are current. `UPDATE=1 cargo test --test main generated` writes them.

use std::fmt::Write as _;
use std::path::Path;

use liveqos::config::reference;
use liveqos_core::metrics::{Kind, METRICS, ShedReason};

use super::tidy::directions::{CORE, SHELL};
use super::tidy::repository::{root, text};

fn check(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, text).expect("the repository can be written");
    }
    let held = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(held == text, "{path} is stale; run UPDATE=1 cargo test --test main generated");
}

#[test]
fn configuration_reference() {
    check("docs/config.md", &reference::markdown());
}

#[test]
fn metric_reference() {
    let mut text = String::from(
        "# Metrics\n\nGenerated from the catalogue (`core/src/metrics/catalog.rs`), the one source of all names.\n\n\
         `/metrics` gives classic text, or OpenMetrics with exemplars where the scraper accepts it; by OTLP the same values leave under \
         their OpenTelemetry names. A value that was not measured has no series. Series of a class disappear at most 30 s after its end.\n\
         Every metric also carries `region` and `edge`, where they are configured.\n\n\
         | metric | OpenTelemetry | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter".to_owned(),
            Kind::Gauge => "gauge".to_owned(),
            Kind::Summary => "summary of quantiles 0.5, 0.95, 0.99".to_owned(),
            Kind::Histogram(bounds) => {
                format!("histogram, bounds {}", bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(" "))
            }
        };
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        let (name, otel, unit, help) = (metric.name, metric.otel_name, metric.unit, metric.help);
        writeln!(text, "| `{name}` | `{otel}` | {kind} | `{unit}` | {labels} | {help} |").expect("a String takes all");
    }
    text.push_str(
        "\n## Reasons of `liveqos_shed_total`\n\nGenerated from `core/src/metrics/shed_reason.rs`. A reason that never occurred has \
         no series.\n\n| `reason` | one count is |\n| --- | --- |\n",
    );
    for reason in ShedReason::ALL {
        writeln!(text, "| `{}` | {} |", reason.as_str(), reason.meaning()).expect("a String takes all");
    }
    check("docs/metrics.md", &text);
}

#[test]
fn code_map() {
    let page = text("ARCHITECTURE.md");
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the map");
    let (_, after) = rest.split_once(END).expect("the map has an end");
    let mut map = String::new();
    for (crate_folder, stages) in [("core/src", CORE), ("src", SHELL)] {
        writeln!(map, "\n| `{crate_folder}/` | |\n|---|---|").expect("a String takes all");
        for (stage, _) in stages {
            let single = format!("{crate_folder}/{stage}.rs");
            let file = if root().join(&single).exists() { single } else { format!("{crate_folder}/{stage}/mod.rs") };
            writeln!(map, "| [{stage}]({file}) | {} |", first_sentence(&file)).expect("a String takes all");
        }
    }
    check("ARCHITECTURE.md", &format!("{before}{BEGIN}\n{map}\n{END}{after}"));
}

/// The first sentence of a module's documentation, without its full stop.
fn first_sentence(file: &str) -> String {
    let text = text(file);
    let lines: Vec<_> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let paragraph = lines.split(|line| line.is_empty()).next().unwrap_or_default().join(" ");
    let sentence = paragraph.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned();
    assert!(!sentence.is_empty(), "{file} does not say what it is for");
    sentence
}

const BEGIN: &str = "<!-- generated: code map -->";
const END: &str = "<!-- /generated -->";
