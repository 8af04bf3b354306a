//! Ten minutes without a collector, a hundred times as fast: nothing is lost, nothing grows but what waits, and when it
//! is back what happens now is there before what waited.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::{ExportQueue as _, MemoryQueue, Otlp, OtlpSettings, Pace, Signal};
use liveqos::storage::{Opened, StateSettings};
use liveqos_testkit::collector::{Collector, Received, Reply};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::resetting_listener::ResettingListener;
use liveqos_testkit::telemetry::{START, sample, session};
use liveqos_testkit::wait::{PATIENCE, until};
use tonic::Code;

use crate::{grpc_to, http_to, main_target, node, sampling, start_on, stop};

/// Classes on the node, and cuts in ten minutes.
const CLASSES: u32 = 20;
pub(crate) const CUTS: u64 = 120;
/// A cut of 5 s.
const CUT: Duration = Duration::from_millis(50);
/// Cuts after the collector is back.
const AFTER: u64 = 6;
/// Records in a request.
const ITEMS: u64 = 64;

/// The product's pace, a hundred times as fast.
pub(crate) fn fast() -> Pace {
    let usual = Pace::default();
    Pace {
        items: ITEMS,
        interval: usual.interval / 100,
        linger: usual.linger / 100,
        first_retry: usual.first_retry / 100,
        max_retry: usual.max_retry / 100,
        ..usual
    }
}

async fn export(otlp: &Otlp, cuts: std::ops::Range<u64>) {
    for tick in cuts {
        otlp.take(&(0..CLASSES).map(|number| sample(&session(number), tick, Vec::new())).collect::<Vec<_>>());
        tokio::time::sleep(CUT).await;
    }
}

/// The cut of each log event that was taken and its class's trace, in the order of taking.
fn taken(received: &[Received]) -> Vec<(u64, Vec<u8>)> {
    let logs = received.iter().filter(|one| one.taken).flat_map(Received::logs);
    logs.map(|log| ((log.time_unix_nano - START.nanos()) / 5_000_000_000, log.trace_id)).collect()
}

/// How many different ones.
pub(crate) fn different(received: &[Received]) -> usize {
    taken(received).into_iter().collect::<BTreeSet<_>>().len()
}

/// Exports ten minutes of samples to what `settings` name, then goes on while `back` returns the collector.
/// Each sample comes once, or again where a collector fell silent that may have taken it.
async fn outage(settings: OtlpSettings, once: bool, back: impl AsyncFnOnce() -> Collector) {
    let queue = Arc::new(MemoryQueue::default());
    let otlp = start_on(&settings, &queue, fast());
    export(&otlp, 0..CUTS).await;
    let waiting = queue.backlog(Signal::Logs);
    assert_eq!(waiting.records, CUTS * u64::from(CLASSES), "all records wait, once");
    let collector = back().await;
    // As a busy collector does, so that what waited takes a while.
    collector.always(Some(Reply::Slow(CUT / 2)));
    export(&otlp, CUTS..CUTS + AFTER).await;
    let all = ((CUTS + AFTER) * u64::from(CLASSES)) as usize;
    let received = collector.wait(|received| different(received) >= all).await;
    assert_eq!(stop(otlp, PATIENCE).await.map(|left| left.records), [0; 3]);
    let order = taken(&received);
    assert_eq!(different(&received), all);
    assert!(order.len() == all || !once, "{} came for {all}", order.len());
    let first = order.iter().position(|(cut, _)| *cut >= CUTS).expect("a sample from after the return");
    assert!(first <= 8 * ITEMS as usize, "{first} records of {} went before what happens now", waiting.records);
    assert_eq!(queue.dropped(Signal::Logs), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn gone() {
    let port = ReservedPort::new();
    let address = port.address();
    outage(http_to(format!("http://{address}")), true, async || Collector::http_on(address)).await;
    let port = ReservedPort::new();
    let address = port.address();
    outage(grpc_to(format!("http://{address}")), true, async || Collector::grpc_on(address, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_and_hanging() {
    let http = [Reply::Http(429, None), Reply::Http(503, None), Reply::Http(503, Some("0")), Reply::Hang];
    let grpc = [Reply::Code(Code::Unavailable, Vec::new()), Reply::Hang];
    let collectors = http.into_iter().map(|reply| (Collector::http(), true, reply));
    let collectors = collectors.chain(grpc.into_iter().map(|reply| (Collector::grpc(), false, reply)));
    let mut outages = tokio::task::JoinSet::new();
    for (collector, http, reply) in collectors {
        let settings = if http { http_to(collector.url()) } else { grpc_to(collector.url()) };
        let hangs = matches!(reply, Reply::Hang);
        let timeout = if hangs { CUT * 20 } else { settings.timeout };
        collector.always(Some(reply));
        outages.spawn(outage(OtlpSettings { timeout, ..settings }, !hangs, async || collector));
    }
    while let Some(done) = outages.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resetting_connections() {
    for grpc in [false, true] {
        let port = ReservedPort::new();
        let address = port.address();
        let resetting = ResettingListener::start(address).await;
        let url = format!("http://{address}");
        let settings = if grpc { grpc_to(url) } else { http_to(url) };
        outage(settings, true, async || {
            resetting.stop().await;
            if grpc { Collector::grpc_on(address, None) } else { Collector::http_on(address) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collector_sees_what_happens_now_before_the_rest() {
    let collector = Collector::http();
    // 64 records in 300 ms, while 80 come.
    collector.always(Some(Reply::Slow(CUT * 6)));
    let queue = Arc::new(MemoryQueue::default());
    let otlp = start_on(&http_to(collector.url()), &queue, fast());
    export(&otlp, 0..CUTS).await;
    let last = collector.wait(|received| taken(received).iter().any(|(cut, _)| *cut == CUTS - 1)).await;
    let all = CUTS as usize * CLASSES as usize;
    let behind = all - different(&last);
    assert!(behind > 4 * ITEMS as usize, "it is too slow for all: only {behind} wait");
    collector.always(None);
    let received = collector.wait(|received| different(received) >= all).await;
    assert_eq!(taken(&received).len(), all, "each sample of each class once");
    stop(otlp, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_the_oldest_are_dropped_and_counted_and_the_newest_arrive() {
    let (folder, port) = (tempfile::tempdir().unwrap(), ReservedPort::new());
    let address = port.address();
    let cap = 100_000;
    let settings = StateSettings { dir: Some(folder.path().to_owned()), logs_bytes: cap, ..StateSettings::default() };
    let opened = Opened::open(&settings, &[("main".to_owned(), [true; 3])]).unwrap();
    let open = |name: &str| opened.export_queue(name);
    let url = format!("http://{address}");
    let otlp = Otlp::start_with(&http_to(url), &node(), sampling(), &open, fast()).unwrap();
    let state = opened.state.as_ref().unwrap();
    for tick in 0..CUTS {
        otlp.take(&(0..CLASSES).map(|number| sample(&session(number), tick, Vec::new())).collect::<Vec<_>>());
        assert_eq!(state.keep(Vec::new(), Vec::new()), 0);
        // A few at a time, as over ten minutes.
        assert!(tick % 4 != 3 || state.settled(PATIENCE));
    }
    let files = std::fs::read_dir(folder.path().join("spool/main")).unwrap();
    let on_disk: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= cap + SMALL, "{on_disk} bytes");
    let collector = Collector::http_on(address);
    let all = (CUTS * u64::from(CLASSES)) as usize;
    // A record that was being sent when it was dropped is counted once it is known that it was not taken.
    let dropped = || usize::try_from(main_target(&otlp).dropped(Signal::Logs)).unwrap();
    let received = until("what was not dropped", PATIENCE, async || {
        let received = collector.received();
        (different(&received) + dropped() >= all).then_some(received)
    })
    .await;
    let came: BTreeSet<_> = taken(&received).into_iter().collect();
    assert!(dropped() > all / 4 && came.len() > all / 4, "{} dropped, {} came", dropped(), came.len());
    assert_eq!(came.len() + dropped(), all, "each came or is counted");
    let oldest = came.first().unwrap().0;
    let newer = came.iter().filter(|(cut, _)| *cut > oldest).count();
    assert_eq!(newer, (CUTS - 1 - oldest) as usize * CLASSES as usize, "the newest of every class");
    stop(otlp, PATIENCE).await;
}

/// The cursor beside the segments.
const SMALL: u64 = 1 << 10;
