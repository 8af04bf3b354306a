//! kill -9 at random instants, and an orderly restart now and then: what the collector has in the end is what it would have had without.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use liveqos::otlp::record::Signal;
use tonic::Code;

use super::classes::Classes;
use super::daemon::Daemon;
use super::program::free_port;
use super::receiver::{Collector, Reply};
use super::seen::Seen;
use super::wait::{alone, until};

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_every_sample_arrives_once_and_every_trace_is_whole() {
    let _machine = alone().await;
    let kills: usize = std::env::var("KILLS").map_or(20, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (collector, classes, port) = (Collector::grpc(), Classes::serve(CLASSES).await, free_port());
    let config = format!(
        "[kernel]\ntcp_info = false\n[state]\ndir = \"{}\"\n[otlp]\nendpoint = \"{}\"\n[otlp.metrics]\nenabled = false\n\
         [[sources]]\nkind = \"nginx-rtmp\"\nname = \"many\"\nurl = \"{}\"\ninterval = \"1s\"\n",
        folder.path().join("state").display(),
        collector.url(),
        classes.url
    );
    let start = async || Daemon::start(folder.path(), port, &config).await;
    let mut daemon = start().await;
    let live = async |daemon: &Daemon| {
        let sessions = daemon.json("/api/v1/sessions").await?;
        Some(sessions["sessions"].as_array()?.len())
    };
    until("all classes", WITHIN, async || (live(&daemon).await? == CLASSES).then_some(())).await;

    let mut down = Duration::ZERO;
    for kill in 0..kills {
        let chance = RandomState::new().hash_one(kill);
        if chance.is_multiple_of(3) {
            // One for each life or less, so that none is left for the end: refusals in a row are waited for longer and longer.
            collector.script(Signal::Logs, [Reply::Code(Code::Unavailable, Vec::new())]);
            collector.script(Signal::Traces, [Reply::Code(Code::Unavailable, Vec::new())]);
        }
        tokio::time::sleep(Duration::from_millis(chance % LONGEST_LIFE_MILLIS)).await;
        let killed = Instant::now();
        // Every fourth time as an upgrade does it.
        daemon.program.signal(if kill % 4 == 3 { "TERM" } else { "KILL" });
        daemon.program.ended(WITHIN).await;
        daemon = start().await;
        assert_eq!(live(&daemon).await, Some(CLASSES), "they are there again at once");
        down = down.max(killed.elapsed());
    }
    classes.end();
    until("the end of all classes", WITHIN, async || (live(&daemon).await? == 0).then_some(())).await;
    until("all ends at the collector", WITHIN, async || {
        seldom().await;
        (Seen::of(&collector).count("live.teaching.complete") == CLASSES).then_some(())
    })
    .await;
    assert!(daemon.program.stop().await.success());

    let seen = Seen::of(&collector);
    let samples = seen.all_whole();
    let missing = seen.most_missing();
    eprintln!(
        "{kills} kills, {CLASSES} classes: {samples} samples and {} spans, each once in effect; {} came again byte for byte; of one class at \
         most {missing} samples were never cut or lost, one a kill allowed; longest down {down:?}",
        seen.traces.values().map(std::collections::BTreeMap::len).sum::<usize>(),
        seen.duplicates,
    );
    assert_eq!(seen.traces.len(), CLASSES);
    assert!(missing <= kills, "more than one sample a kill");
}

/// What the collector has is much: it is not looked through all the time.
pub(crate) async fn seldom() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

const CLASSES: usize = 200;
/// Longer than a window and shorter than two, so that kills fall on every part of it.
const LONGEST_LIFE_MILLIS: u64 = 7_000;
const WITHIN: Duration = Duration::from_mins(2);
