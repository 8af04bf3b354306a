//! The daemon under a service manager: it follows signals and reports by `NOTIFY_SOCKET`.

use std::time::{Duration, Instant};

use liveqos_testkit::collector::Collector;
use liveqos_testkit::daemon::{Daemon, Launch, write_config};
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::wait::{alone, until};

use super::notify::Manager;
use super::trace::{Trace, text};

#[tokio::test(flavor = "multi_thread")]
async fn signals() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let (collector, manager) = (Collector::grpc(), Manager::start(folder.path()));
    let (first, second) = (StatServer::one("class104").await, StatServer::one("class105").await);
    let source = |name: &str, url: &str| {
        format!("[[sources]]\nkind = \"nginx-rtmp\"\nname = \"{name}\"\nurl = \"{url}\"\ninterval = \"1s\"\n")
    };
    let base = format!("[otlp]\nendpoint = \"{}\"\n{}", collector.url(), source("first", &first.url));
    let socket = manager.path.to_str().unwrap();
    let mut daemon = Launch::new(&base).folder(folder.path()).variables(&[("NOTIFY_SOCKET", socket)]).ready().await;
    until("READY and the watchdog", WITHIN, async || {
        (manager.count("READY=1") == 1 && manager.count("WATCHDOG=1") > 0).then_some(())
    })
    .await;

    write_config(folder.path(), &format!("{base}{}", source("second", &second.url)));
    takes_over(&daemon, &manager).await;
    write_config(folder.path(), &format!("{base}[objectives]\nlatencyy = \"1s\"\n"));
    refuses(&daemon, &manager).await;

    until("a sample of each class", WITHIN, async || {
        (Trace::of(&collector).events("live.qos.sample").len() >= 2).then_some(())
    })
    .await;
    // The manager reads nothing in the meantime: its socket takes ten messages, and no tick may wait for the eleventh.
    until("ticks that the manager does not read", WITHIN, async || {
        (Trace::of(&collector).events("live.qos.sample").len() >= 4).then_some(())
    })
    .await;
    daemon.program.signal("TERM");
    let asked = Instant::now();
    until("STOPPING", WITHIN, async || (manager.count("STOPPING=1") == 1).then_some(())).await;
    let status = daemon.program.ended(WITHIN).await;
    let took = asked.elapsed();
    eprintln!("SIGTERM: ended after {:.2} s with {status}", took.as_secs_f64());
    assert!(status.success() && took <= Duration::from_secs(5), "{status} after {took:?}");
    every_sample_is_in_a_segment(&Trace::of(&collector));
}

/// A good new file: its second source is asked.
async fn takes_over(daemon: &Daemon, manager: &Manager) {
    daemon.program.signal("HUP");
    until("the second source", WITHIN, async || (up(daemon).await == ["first", "second"]).then_some(())).await;
    until("the report of the reload", WITHIN, async || {
        (manager.count("RELOADING=1") == 1 && manager.count("READY=1") == 2).then_some(())
    })
    .await;
}

/// A bad new file: the log has the reason, the old settings stay and the ticks go on.
async fn refuses(daemon: &Daemon, manager: &Manager) {
    daemon.program.signal("HUP");
    let refusal = until("the refusal in the log", WITHIN, async || {
        let log = daemon.program.log();
        log.lines().find(|line| line.contains("not reloaded")).map(str::to_owned)
    });
    let refusal = refusal.await;
    assert!(refusal.contains("the old settings stay") && refusal.contains("latencyy"), "{refusal}");
    until("the report of the refusal", WITHIN, async || (manager.count("READY=1") == 3).then_some(())).await;
    let ticks = manager.count("WATCHDOG=1");
    until("ticks after it", WITHIN, async || (manager.count("WATCHDOG=1") > ticks).then_some(())).await;
    assert_eq!(up(daemon).await, ["first", "second"]);
}

/// What was still open when the daemon was stopped was exported.
fn every_sample_is_in_a_segment(trace: &Trace) {
    let segments: Vec<_> = trace.named("live.teaching.conduct").collect();
    let samples: usize = segments.iter().map(|segment| segment.events.len()).sum();
    assert_eq!(samples, trace.events("live.qos.sample").len(), "{:?}", trace.names());
    assert!(
        segments.iter().all(|segment| text(segment, "live.segment.final").as_deref() == Some("false")),
        "the classes go on"
    );
    assert!(segments.len() >= 2 && trace.named("live.teaching.complete").next().is_none());
}

/// The names of the sources that answer.
async fn up(daemon: &Daemon) -> Vec<String> {
    let sources = daemon.json("/api/v1/sources").await.unwrap_or_default();
    let sources = sources["sources"].as_array().cloned().unwrap_or_default();
    let up = sources.iter().filter(|source| source["state"] == "up");
    up.filter_map(|source| source["name"].as_str().map(str::to_owned)).collect()
}

const WITHIN: Duration = Duration::from_secs(20);
