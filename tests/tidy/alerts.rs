//! Every alert that can reach a person is explained, and the daemon and the rules mean the same by one name.

use std::collections::{BTreeMap, BTreeSet};

use liveqos_core::model::{Alert, Objectives};

use super::metrics::fleet_rules;
use super::repository::{files, text};
use super::rules::Rule;

#[test]
fn every_alert_is_explained_and_no_other() {
    let runbooks = files(&["md"]).into_iter().filter(|path| path.starts_with(RUNBOOKS));
    let pages: BTreeMap<_, _> = runbooks.map(|path| (name_of(&path), text(&path))).collect();
    let raised: BTreeSet<_> =
        alerting().into_iter().map(|rule| rule.name).chain(Alert::ALL.map(|alert| alert.as_str().to_owned())).collect();
    assert_eq!(pages.keys().cloned().collect::<BTreeSet<_>>(), raised);
    for (name, page) in pages {
        assert!(page.starts_with(&format!("# {name}\n")), "{name} has its name above it");
        for part in ["Means", "Evidence", "Do"] {
            assert!(page.contains(&format!("**{part}.**")), "{part} of {name}");
        }
    }
}

fn name_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().trim_end_matches(".md").to_owned()
}

#[test]
fn rules_and_daemon_agree() {
    let objectives = Objectives::default();
    for rule in alerting() {
        if let Some(alert) = Alert::ALL.into_iter().find(|alert| alert.as_str() == rule.name) {
            assert_eq!(rule.label("severity"), Some(alert.severity()), "{}", rule.name);
        }
        let limit = match rule.name.as_str() {
            "LiveStutterHigh" => objectives.stutter_ratio,
            "LiveLatencyHigh" => objectives.latency_seconds,
            "LivePacketLossHigh" => objectives.loss_ratio,
            _ => continue,
        };
        assert!(rule.expr.contains(&format!(" > {limit} ")), "{}: {}", rule.name, rule.expr);
    }
}

#[test]
fn an_alert_says_how_much_and_what_to_do() {
    for rule in alerting() {
        let summary = rule.text("summary").unwrap_or_default();
        assert!(summary.contains("{{ $value") || summary.contains(": 0 "), "{}: a summary has numbers", rule.name);
        assert!(rule.text("description").is_some(), "{}", rule.name);
        let page = format!("https://runbooks.example.com/liveqos/{}", rule.name);
        assert_eq!(rule.text("runbook_url"), Some(page.as_str()));
        assert!(matches!(rule.label("scope"), Some("region" | "node" | "fleet")), "{}", rule.name);
    }
}

fn alerting() -> Vec<Rule> {
    let alerting: Vec<_> = fleet_rules().into_iter().filter(|rule| rule.alerts).collect();
    assert!(alerting.len() > 5, "only {} alerts were read", alerting.len());
    alerting
}

const RUNBOOKS: &str = "docs/runbooks/";
