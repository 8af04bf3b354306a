//! The queries of a Grafana dashboard (Classic JSON), ready for a Prometheus. Decides what stands for Grafana's
//! variables: every value of a template variable, and a rate window of three scrapes.

use serde_json::Value;

/// The title of each panel and an expression of it, variables filled in, in the order of the file; rows are entered.
#[must_use]
pub fn queries(json: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(json).expect("a dashboard is JSON");
    let variables = variables(&dashboard);
    let mut out = Vec::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        for expr in list(&panel["targets"]).iter().filter_map(|target| target["expr"].as_str()) {
            out.push((title.to_owned(), filled(expr, &variables)));
        }
    }
    out
}

/// All panels, also those inside rows; rows themselves are left out.
#[must_use]
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut out = Vec::new();
    for panel in list(&dashboard["panels"]) {
        if panel["type"] == "row" {
            out.extend(list(&panel["panels"]));
        } else {
            out.push(panel);
        }
    }
    out
}

/// The template variables by name, each with the expression for "all"; the longest names first, since one may begin
/// another.
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let mut out = vec![("__rate_interval".to_owned(), RATE_INTERVAL.to_owned())];
    for (name, text) in [("__interval", "5s"), ("__range", "1h")] {
        out.push((name.to_owned(), text.to_owned()));
    }
    for variable in list(&dashboard["templating"]["list"]) {
        let all = variable["allValue"].as_str().filter(|all| !all.is_empty()).unwrap_or(".+");
        out.push((variable["name"].as_str().unwrap_or_default().to_owned(), all.to_owned()));
    }
    out.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    out
}

fn filled(expr: &str, variables: &[(String, String)]) -> String {
    variables.iter().fold(expr.to_owned(), |expr, (name, text)| {
        expr.replace(&format!("${{{name}}}"), text).replace(&format!("${name}"), text)
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Three scrapes of 5 s.
const RATE_INTERVAL: &str = "15s";

#[test]
fn variables_are_filled_in_and_rows_entered() {
    let json = r#"{"templating": {"list": [{"name": "edge", "allValue": ".*"}, {"name": "edge_role"}]},
        "panels": [{"type": "row", "panels": [{"title": "in", "targets": [{"expr": "a{e=~\"${edge}\",r=~\"$edge_role\"}"}]}]},
                   {"title": "out", "targets": [{"expr": "rate(b[$__rate_interval])"}, {"expr": "c"}]}]}"#;
    let expected = [("in", "a{e=~\".*\",r=~\".+\"}"), ("out", "rate(b[15s])"), ("out", "c")];
    assert_eq!(queries(json), expected.map(|(title, expr)| (title.to_owned(), expr.to_owned())));
}
