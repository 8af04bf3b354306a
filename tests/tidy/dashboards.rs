//! The dashboards: every query names an exported metric, every panel has a description, and its red line is the
//! alert's.

use liveqos_core::model::Objectives;
use liveqos_testkit::dashboard::{panels, queries};
use serde_json::Value;

use super::metrics::strange_names;
use super::repository::{files, text};

#[test]
fn queries_name_only_what_is_exported() {
    for (path, json) in dashboards() {
        let queries = queries(&json);
        assert!(queries.len() > 20, "{path}: {} queries", queries.len());
        let unfilled: Vec<_> = queries.iter().filter(|(_, expr)| expr.contains('$')).collect();
        assert!(unfilled.is_empty(), "{path}: unknown variables in {unfilled:?}");
        let wrong: Vec<_> = queries.iter().flat_map(|(_, expr)| strange_names(expr, &[])).collect();
        assert!(wrong.is_empty(), "{path}: {wrong:#?}");
    }
}

#[test]
fn dashboards_are_provisioned_alike_everywhere() {
    for (path, json) in dashboards() {
        let dashboard: Value = serde_json::from_str(&json).expect("a dashboard is JSON");
        let name = path.rsplit('/').next().and_then(|file| file.strip_suffix(".json"));
        assert_eq!(dashboard["uid"].as_str(), name, "{path}: its uid is its file's name");
        assert_eq!(
            (&dashboard["editable"], &dashboard["schemaVersion"]),
            (&Value::from(false), &Value::from(39)),
            "{path}"
        );
        assert!(dashboard.get("id").is_none() && dashboard.get("__inputs").is_none(), "{path}: of one Grafana only");
        assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource", "{path}");
        let mut ids: Vec<_> = panels(&dashboard).iter().map(|panel| panel["id"].as_u64()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{path}: a panel's id stands twice");
        for panel in panels(&dashboard) {
            let at = format!("{path}: {}", panel["title"]);
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{at}: a description");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{at}: has a unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{at}");
        }
    }
}

#[test]
fn red_lines_are_the_alerts() {
    let objectives = Objectives::default();
    let limits = [
        ("liveqos_stutter_seconds_total", objectives.stutter_ratio),
        ("liveqos_session_stutter_ratio", objectives.stutter_ratio),
        ("liveqos_latency_seconds_bucket", objectives.latency_seconds),
        ("liveqos_session_latency_seconds", objectives.latency_seconds),
        ("liveqos_packet_lost_total", objectives.loss_ratio),
        ("liveqos_session_packet_loss_ratio", objectives.loss_ratio),
        ("liveqos_path_loss_ratio", objectives.loss_ratio),
        ("liveqos_node_cpu_ratio", objectives.load_ratio),
    ];
    for (path, json) in dashboards() {
        let dashboard: Value = serde_json::from_str(&json).expect("a dashboard is JSON");
        for (metric, limit) in limits {
            let shown: Vec<_> =
                panels(&dashboard).into_iter().filter(|panel| panel["targets"].to_string().contains(metric)).collect();
            assert!(!shown.is_empty(), "{path}: nothing shows {metric}");
            for panel in shown {
                assert_eq!(red_from(panel), Some(limit), "{path}: {} ({metric})", panel["title"]);
            }
        }
    }
}

/// From which value on a panel is red.
fn red_from(panel: &Value) -> Option<f64> {
    let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array()?;
    steps.iter().find(|step| step["color"] == "red")?["value"].as_f64()
}

fn dashboards() -> Vec<(String, String)> {
    let found: Vec<_> = files(&["json"]).into_iter().filter(|path| path.starts_with("dashboards/")).collect();
    assert!(!found.is_empty(), "no dashboard was found");
    found.into_iter().map(|path| (path.clone(), text(&path))).collect()
}
