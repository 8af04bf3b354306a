//! Ten minutes without a collector, a hundred times as fast: nothing is lost, nothing grows but what waits, and when it is back what
//! happens now is there before what waited.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::outbox::{MemoryOutbox, Outbox as _};
use liveqos::otlp::record::Signal;
use liveqos::otlp::settings::OtlpSettings;
use liveqos::otlp::{Otlp, Pace};
use tokio::io::AsyncReadExt as _;
use tonic::Code;

use crate::classes::{START, sample, session};
use crate::receiver::{Collector, LOOPBACK, PATIENCE, Received, Reply};
use crate::{grpc_to, http_to, start_on, stop};

/// Classes on the node, and cuts in ten minutes.
const CLASSES: u32 = 20;
const CUTS: u64 = 120;
/// A cut of 5 s.
const CUT: Duration = Duration::from_millis(50);
/// Cuts after the collector is back.
const AFTER: u64 = 6;
/// Records in a request.
const ITEMS: u64 = 64;

/// The product's pace, a hundred times as fast.
fn fast() -> Pace {
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

async fn teach(otlp: &Otlp, cuts: std::ops::Range<u64>) {
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
fn different(received: &[Received]) -> usize {
    taken(received).into_iter().collect::<BTreeSet<_>>().len()
}

/// Teaches for ten minutes into what `settings` name, then on while `back` gives the collector that is there again. Each sample comes
/// once, or again where a collector fell silent that may have taken it.
async fn outage(settings: OtlpSettings, once: bool, back: impl AsyncFnOnce() -> Collector) {
    let outbox = Arc::new(MemoryOutbox::default());
    let otlp = start_on(&settings, &outbox, fast());
    teach(&otlp, 0..CUTS).await;
    let waiting = outbox.backlog(Signal::Logs);
    assert_eq!(waiting.records, CUTS * u64::from(CLASSES), "all that was told waits, once");
    let collector = back().await;
    // As a busy collector does, so that what waited takes a while.
    collector.mood(Some(Reply::Slow(CUT / 2)));
    teach(&otlp, CUTS..CUTS + AFTER).await;
    let all = ((CUTS + AFTER) * u64::from(CLASSES)) as usize;
    let received = collector.wait(|received| different(received) >= all).await;
    assert_eq!(stop(otlp, PATIENCE).await.map(|left| left.records), [0; 3]);
    let order = taken(&received);
    assert_eq!(different(&received), all);
    assert!(order.len() == all || !once, "{} came for {all}", order.len());
    let first = order.iter().position(|(cut, _)| *cut >= CUTS).expect("a sample from after the return");
    assert!(first <= 8 * ITEMS as usize, "{first} records of {} went before what happens now", waiting.records);
    assert_eq!(outbox.dropped(Signal::Logs), 0);
}

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gone() {
    let address = nowhere();
    outage(http_to(format!("http://{address}")), true, async || Collector::http_on(address)).await;
    let address = nowhere();
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
        collector.mood(Some(reply));
        outages.spawn(outage(OtlpSettings { timeout, ..settings }, !hangs, async || collector));
    }
    while let Some(done) = outages.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resetting_connections() {
    for grpc in [false, true] {
        let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let resets = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                // Something has come, and is thrown away with the connection.
                let _read = connection.read(&mut [0; 64]).await;
                connection.set_zero_linger().unwrap();
            }
        });
        let url = format!("http://{address}");
        let settings = if grpc { grpc_to(url) } else { http_to(url) };
        outage(settings, true, async || {
            resets.abort();
            assert!(resets.await.unwrap_err().is_cancelled());
            if grpc { Collector::grpc_on(address, None) } else { Collector::http_on(address) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collector_sees_what_happens_now_before_the_rest() {
    let collector = Collector::http();
    // 64 records in 300 ms, while 80 come.
    collector.mood(Some(Reply::Slow(CUT * 6)));
    let outbox = Arc::new(MemoryOutbox::default());
    let otlp = start_on(&http_to(collector.url()), &outbox, fast());
    teach(&otlp, 0..CUTS).await;
    let last = collector.wait(|received| taken(received).iter().any(|(cut, _)| *cut == CUTS - 1)).await;
    let all = CUTS as usize * CLASSES as usize;
    let behind = all - different(&last);
    assert!(behind > 4 * ITEMS as usize, "it is too slow for all: only {behind} wait");
    collector.mood(None);
    let received = collector.wait(|received| different(received) >= all).await;
    assert_eq!(taken(&received).len(), all, "each sample of each class once");
    stop(otlp, PATIENCE).await;
}
