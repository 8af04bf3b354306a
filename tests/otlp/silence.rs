//! A collector that takes connections and never answers, and one that is only slow: a silent one gets the request again
//! long before the timeout, a slow one is waited for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::{ExportQueue as _, MemoryQueue, Otlp, OtlpSettings, Pace, Signal};
use liveqos_testkit::collector::{Collector, Received, Reply};
use liveqos_testkit::telemetry::{START, sample, session};
use liveqos_testkit::wait::PATIENCE;

use crate::{grpc_to, http_to, quick, start_on, stop};

/// A time-out that no test lives to see.
const NEVER: Duration = Duration::from_hours(1);

/// Both protocols, each to a collector of its own.
fn both() -> [(Collector, OtlpSettings); 2] {
    let (grpc, http) = (Collector::grpc(), Collector::http());
    let (to_grpc, to_http) = (grpc_to(grpc.url()), http_to(http.url()));
    [(grpc, to_grpc), (http, to_http)].map(|(to, settings)| (to, OtlpSettings { timeout: NEVER, ..settings }))
}

fn pace(min_answer_timeout: Duration) -> Pace {
    Pace { min_answer_timeout, ..quick() }
}

/// The samples in requests, by their cut.
fn cuts<'a>(received: impl IntoIterator<Item = &'a Received>) -> Vec<u64> {
    let logs = received.into_iter().flat_map(Received::logs);
    logs.map(|log| (log.time_unix_nano - START.nanos()) / 5_000_000_000).collect()
}

fn taken(received: &[Received]) -> BTreeSet<u64> {
    cuts(received.iter().filter(|one| one.taken)).into_iter().collect()
}

fn export(otlp: &Otlp, cut: u64) {
    otlp.take(&[sample(&session(1), cut, Vec::new())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hung_is_asked_anew_long_before_the_time_out() {
    for (collector, settings) in both() {
        let queue = Arc::new(MemoryQueue::default());
        let otlp = start_on(&settings, &queue, pace(Duration::from_millis(20)));
        export(&otlp, 0);
        collector.wait(|received| taken(received).contains(&0)).await;
        collector.always(Some(Reply::Hang));
        export(&otlp, 1);
        // More than may stay unanswered.
        collector.wait(|received| received.len() > 8).await;
        export(&otlp, 2);
        collector.wait(|received| cuts(&received[received.len() - 1..]).contains(&2)).await;
        collector.always(None);
        export(&otlp, 3);
        collector.wait(|received| taken(received) == (0..4).collect()).await;
        assert_eq!(stop(otlp, PATIENCE).await.map(|left| left.records), [0; 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hung_through_a_backlog_shows_what_happens_now_first() {
    for (collector, settings) in both() {
        let queue = Arc::new(MemoryQueue::default());
        let otlp = start_on(&settings, &queue, Pace { items: 8, ..pace(Duration::from_millis(20)) });
        collector.always(Some(Reply::Hang));
        (0..200).for_each(|cut| export(&otlp, cut));
        collector.wait(|received| received.len() > 8).await;
        assert_eq!(queue.backlog(Signal::Logs).records, 200);
        collector.always(Some(Reply::Slow(Duration::from_millis(5))));
        export(&otlp, 200);
        let received = collector.wait(|received| taken(received).len() == 201).await;
        let order = cuts(received.iter().filter(|one| one.taken));
        let now = order.iter().position(|cut| *cut == 200).unwrap();
        assert!(now < 32, "{now} went before what happens now");
        assert_eq!(stop(otlp, PATIENCE).await.map(|left| left.records), [0; 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collector_is_waited_for_once_it_is_known() {
    for (collector, settings) in both() {
        let queue = Arc::new(MemoryQueue::default());
        let otlp = start_on(&settings, &queue, pace(Duration::from_millis(50)));
        // Its answers take ten times what is waited for at first.
        collector.always(Some(Reply::Slow(Duration::from_millis(500))));
        for cut in 0..6 {
            export(&otlp, cut);
            let gone = async {
                while queue.backlog(Signal::Logs).records > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, gone).await.expect("it is taken");
        }
        let received = collector.received();
        let again = |cut: u64| cuts(&received).iter().filter(|one| **one == cut).count();
        assert!(again(0) > 1, "at first it is doubted");
        assert_eq!((1..6).map(again).collect::<Vec<_>>(), [1; 5], "then it is known");
        stop(otlp, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_takes_over_from_one_that_hangs() {
    for ((hanging, settings), (second, _)) in both().into_iter().zip(both()) {
        hanging.always(Some(Reply::Hang));
        let settings = OtlpSettings { failover: vec![second.url()], ..settings };
        let otlp = start_on(&settings, &Arc::new(MemoryQueue::default()), pace(Duration::from_millis(50)));
        (0..3).for_each(|cut| export(&otlp, cut));
        second.wait(|received| taken(received) == (0..3).collect()).await;
        assert_eq!(stop(otlp, PATIENCE).await.map(|left| left.records), [0; 3]);
    }
}
