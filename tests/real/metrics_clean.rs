//! The metrics page as Prometheus reads it: no complaint of promtool, a result for every shipped query, exemplars that
//! lead to a trace.

use std::process::Stdio;
use std::time::Duration;

use liveqos_testkit::daemon::{Daemon, get, liveqos};
use liveqos_testkit::dashboard;
use liveqos_testkit::node_certificates::write_certificates;
use liveqos_testkit::ports::{ReservedPort, udp_address};
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::wait::{alone, until};
use serde_json::Value;

use super::prometheus::Prometheus;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_clean() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let demo_port = ReservedPort::new();
    let demo = demo_port.address().to_string();
    let mut class = command(liveqos());
    class.args(["demo", "--seconds", "120", "--listen", &demo]);
    let class = Program::start("demo", &mut class, folder.path(), false);
    // The demo has no source to poll, so a daemon that has one is scraped too.
    let source = StatServer::one("class106").await.url;
    // And it pings itself, for the panels of paths.
    write_certificates(folder.path(), &["node"]);
    let [cert, key, ca] = ["node.pem", "node.key", "ca.pem"].map(|file| folder.path().join(file).display().to_string());
    let path = udp_address();
    let config = format!(
        "[[sources]]\nkind = \"nginx-rtmp\"\nurl = \"{source}\"\ninterval = \"1s\"\n\
         [paths]\nlisten = \"{path}\"\npeers = [{{ name = \"self\", address = \"{path}\", server_name = \"localhost\" }}]\n\
         [paths.tls]\ncert = {cert:?}\nkey = {key:?}\nca = {ca:?}\n"
    );
    let daemon = Daemon::start_in(folder.path(), &config).await;
    let prometheus = Prometheus::start(folder.path(), &[demo.clone(), daemon.address.to_string()]).await;

    targets_are_up(&prometheus).await;
    every_query_has_a_result(&prometheus).await;
    rules_are_evaluated(&prometheus).await;
    exemplars_lead_to_the_trace(&prometheus, &demo).await;
    for page in [get(&format!("http://{demo}/metrics")).await.unwrap(), daemon.metrics().await] {
        promtool_has_no_complaint(&page);
    }
    assert!(daemon.program.stop().await.success());
    drop(class);
}

async fn targets_are_up(prometheus: &Prometheus) {
    until("two scraped targets", Duration::from_mins(1), async || {
        let targets = prometheus.ask("targets", &[]).await.ok()?;
        let targets = targets["activeTargets"].as_array()?;
        for target in targets {
            let error = target["lastError"].as_str()?;
            assert!(error.is_empty() || error.contains("refused"), "scraping: {error}");
        }
        (targets.iter().filter(|target| target["health"] == "up").count() == 2).then_some(())
    })
    .await;
}

/// Every query of the shipped dashboard gives a series once the faults of the demo are visible.
async fn every_query_has_a_result(prometheus: &Prometheus) {
    let dashboard = include_str!("../../dashboards/liveqos-node-and-class.json");
    let mut queries = dashboard::queries(dashboard);
    // The demo's class has no messages.
    queries.retain(|(title, _)| !title.contains("Message latency"));
    assert!(queries.len() > 20, "the dashboard has {} queries", queries.len());
    let mut open = queries.clone();
    until("an answer to every query", Duration::from_secs(80), async || {
        let mut empty = Vec::new();
        for (title, expr) in std::mem::take(&mut open) {
            match prometheus.series(&expr).await {
                Ok(0) => empty.push((title, expr)),
                Ok(_) => {}
                Err(error) => panic!("{title}: {expr}: {error}"),
            }
        }
        open = empty;
        open.is_empty().then_some(())
    })
    .await;
    eprintln!("{} queries of the dashboard gave series", queries.len());
}

async fn rules_are_evaluated(prometheus: &Prometheus) {
    let groups = until("the evaluation of all rules", Duration::from_mins(1), async || {
        let rules = prometheus.ask("rules", &[]).await.ok()?;
        let groups = rules["groups"].as_array()?.clone();
        let all = || groups.iter().flat_map(rules_of);
        (all().count() > 0 && all().all(|rule| rule["health"] != "unknown")).then_some(groups)
    });
    for rule in groups.await.iter().flat_map(rules_of) {
        let (name, expr) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        assert_eq!(rule["health"], "ok", "{name}: {rule}");
        let what = format!("the recorded series {name}");
        // Viewers of the demo's class report no first frame and no messages.
        let reported = !name.contains("first_frame") && !name.contains("message_latency");
        if rule["type"] == "recording" && reported {
            until(&what, Duration::from_secs(40), async || prometheus.series(name).await.ok().filter(|n| *n > 0)).await;
        }
        prometheus.series(expr).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

async fn exemplars_lead_to_the_trace(prometheus: &Prometheus, demo: &str) {
    let sessions = get(&format!("http://{demo}/api/v1/sessions")).await.unwrap();
    let sessions: Value = serde_json::from_str(&sessions).unwrap();
    let trace = sessions["sessions"][0]["trace_id"].as_str().unwrap().to_owned();
    let now = liveqos::platform::clock::now().seconds();
    let (start, end) = ((now - 600.0).to_string(), (now + 60.0).to_string());
    let parameters = [("query", "liveqos_latency_seconds_bucket"), ("start", &start), ("end", &end)];
    let found = prometheus.ask("query_exemplars", &parameters).await.unwrap();
    let exemplars: Vec<&Value> =
        found.as_array().unwrap().iter().flat_map(|series| series["exemplars"].as_array().unwrap()).collect();
    eprintln!("{} exemplars, such as {}", exemplars.len(), exemplars[0]);
    assert!(exemplars.iter().all(|exemplar| exemplar["labels"]["trace_id"] == trace.as_str()));
}

fn promtool_has_no_complaint(page: &str) {
    use std::io::Write as _;
    let mut check = command("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let complaints: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !KNOWN.contains(line)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    // 3: only matters of style.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", output.status);
}

fn rules_of(group: &Value) -> &[Value] {
    group["rules"].as_array().map_or(&[], Vec::as_slice)
}

/// Matters of style in names that users rely on: media rates are in bits, and viewers are counted.
const KNOWN: [&str; 2] = [
    "liveqos_session_bitrate_bits_per_second use base unit \"bytes\" instead of \"bits\"",
    "liveqos_viewer_count non-histogram and non-summary metrics should not have \"_count\" suffix",
];
