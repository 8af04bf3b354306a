//! Every alert that can reach a person is explained, and the daemon and the rules mean the same by one name.

use std::collections::BTreeSet;

use liveqos_core::judge::Objectives;
use liveqos_core::notice::Alert;

use super::metrics::RULES;
use super::repository::text;
use super::rules::{Rule, rules};

#[test]
fn every_alert_is_explained_and_no_other() {
    let page = text("docs/alerts.md");
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let explained: BTreeSet<_> = headings.filter(|name| name.starts_with("Live")).map(str::to_owned).collect();
    let raised: BTreeSet<_> =
        alerting().into_iter().map(|rule| rule.name).chain(Alert::ALL.map(|alert| alert.as_str().to_owned())).collect();
    assert_eq!(explained, raised);
    for section in page.split("\n## ").filter(|section| section.starts_with("Live")) {
        for part in ["Means", "Evidence", "Do"] {
            assert!(
                section.contains(&format!("**{part}.**")),
                "{part} of {}",
                section.lines().next().unwrap_or_default()
            );
        }
    }
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
    let alerting: Vec<_> = rules(&text(RULES)).into_iter().filter(|rule| rule.alerts).collect();
    assert!(alerting.len() > 5, "only {} alerts were read", alerting.len());
    alerting
}
