//! Classes that sampling holds back, killed before anything was wrong with them: those that fail later are there whole,
//! from their first span on; those that never fail never leave.

use std::time::Duration;

use liveqos_core::model::Timestamp;
use liveqos_testkit::collector::Collector;
use liveqos_testkit::daemon::Daemon;
use liveqos_testkit::stat_server::StatServer;
use liveqos_testkit::wait::{alone, until};

use super::full_disk::samples;
use super::kills::seldom;
use super::seen::Seen;

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_held_back_is_judged_over_kills() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let (collector, classes) = (Collector::grpc(), StatServer::many(CLASSES).await);
    let config = format!(
        "[kernel]\ntcp_info = false\n[state]\ndir = \"{}\"\n[otlp]\nendpoint = \"{}\"\n[otlp.metrics]\nenabled = false\n\
         [sampling]\nlive_teaching = 0.0\n\
         [[sources]]\nkind = \"nginx-rtmp\"\nname = \"many\"\nurl = \"{}\"\ninterval = \"1s\"\n",
        folder.path().join("state").display(),
        collector.url(),
        classes.url
    );
    let mut daemon = Daemon::start_in(folder.path(), &config).await;
    until("all classes", WITHIN, async || (daemon.live().await? == CLASSES).then_some(())).await;
    let mut first_kill = None;
    for signal in ["KILL", "TERM", "KILL"] {
        // Two cuts, so that there is something to hold.
        tokio::time::sleep(Duration::from_secs(11)).await;
        first_kill.get_or_insert_with(liveqos::platform::clock::now);
        daemon = killed(daemon, signal, folder.path(), &config).await;
        assert_eq!(daemon.live().await, Some(CLASSES), "they are there again at once");
    }
    let seen = Seen::of(&collector);
    assert!(
        seen.traces.is_empty() && seen.samples.is_empty(),
        "nothing was wrong: nothing leaves, also at an orderly end"
    );

    classes.take_away(FAILING);
    until("the classes that fail", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).traces.len() == FAILING).then_some(())
    })
    .await;
    classes.take_away(0);
    daemon = killed(daemon, "KILL", folder.path(), &config).await;
    let before = samples(&collector);
    until("what comes after the fault and the kill", WITHIN, async || {
        seldom().await;
        (samples(&collector) >= before + 2 * FAILING).then_some(())
    })
    .await;
    classes.end();
    until("the end of all classes", WITHIN, async || (daemon.live().await? == 0).then_some(())).await;
    until("the ends of those that failed", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).count("live.teaching.complete") == FAILING).then_some(())
    })
    .await;
    assert!(daemon.program.stop().await.success());

    all_of_those_that_failed(&Seen::of(&collector), first_kill.unwrap());
}

/// Panics where more or less is there than the classes that failed, each whole from before the first kill.
fn all_of_those_that_failed(seen: &Seen, first_kill: Timestamp) {
    let samples = seen.all_whole();
    assert_eq!((seen.traces.len(), seen.count("live.teaching.start")), (FAILING, FAILING), "and no other");
    assert!(seen.count("live.qos.incident") >= FAILING);
    for samples in seen.samples.values() {
        assert!(samples.keys().filter(|at| **at < first_kill.nanos()).count() >= 2, "whole from its beginning");
    }
    assert!(seen.most_missing() <= 4, "at most a sample a kill");
    eprintln!(
        "{FAILING} of {CLASSES} held classes failed: {samples} samples, every trace whole; {} came again",
        seen.duplicates
    );
}

async fn killed(mut daemon: Daemon, signal: &str, folder: &std::path::Path, config: &str) -> Daemon {
    daemon.program.signal(signal);
    daemon.program.ended(WITHIN).await;
    Daemon::start_in(folder, config).await
}

const CLASSES: usize = 20;
/// Those of them whose publisher goes away.
const FAILING: usize = 8;
const WITHIN: Duration = Duration::from_mins(2);
