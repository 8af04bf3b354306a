//! What a collector refuses, delays or never answers, and what becomes of the records.

use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::stats::read;
use liveqos::otlp::{Backlog, MemoryQueue, Otlp, OtlpSettings, Pace, Protocol, Room, Signal, Verdict, check};
use liveqos::platform::trace_id::{derived_trace_id, span_id};
use liveqos_core::trace::{SpanName, SpanRef};
use liveqos_testkit::collector::{Collector, Reply};
use liveqos_testkit::ports::{LOOPBACK, ReservedPort};
use liveqos_testkit::telemetry::{sample, segments, session};
use liveqos_testkit::wait::PATIENCE;
use tonic::Code;
use tonic::transport::server::TcpIncoming;

use crate::{NODE, grpc_to, http_to, main_target, node, patient, quick, start, start_on, stop};

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_twice_delivers_each_once() {
    let collector = Collector::grpc();
    collector.script(Signal::Traces.as_str(), vec![Reply::Code(Code::Unavailable, Vec::new()); 2]);
    let otlp = start(&grpc_to(collector.url()), patient());
    otlp.take(&segments(&session(1), 1_024));
    let spans = collector.spans(1_024).await;
    let stats = main_target(&otlp).stats();
    stop(otlp, PATIENCE).await;
    assert_eq!(spans.len(), 1_024);
    assert_eq!(collector.received().len(), 3);
    let counters = stats.of(Signal::Traces);
    assert_eq!((read(&counters.sent), read(&counters.retried), read(&counters.requests)), (1_024, 2_048, 3));
    assert_eq!(counters.failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_in_part_is_not_sent_again() {
    for (collector, protocol) in [(Collector::grpc(), Protocol::Grpc), (Collector::http(), Protocol::HttpProtobuf)] {
        collector.script(Signal::Traces.as_str(), [Reply::Partial(3)]);
        let settings = OtlpSettings { protocol, ..grpc_to(collector.url()) };
        let otlp = start(&settings, quick());
        otlp.take(&segments(&session(1), 10));
        collector.wait(|received| !received.is_empty()).await;
        let stats = main_target(&otlp).stats();
        assert_eq!(stop(otlp, PATIENCE).await[0], Backlog::default());
        assert_eq!(collector.received().len(), 1);
        let counters = stats.of(Signal::Traces);
        assert_eq!((read(&counters.sent), read(&counters.rejected), read(&counters.retried)), (7, 3, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_counted_and_the_next_goes() {
    let collector = Collector::http();
    collector.script(Signal::Traces.as_str(), [Reply::Http(500, None), Reply::Html]);
    let otlp = start(&http_to(collector.url()), quick());
    let stats = main_target(&otlp).stats();
    for count in 1..=3 {
        otlp.take(&segments(&session(1), count));
        collector.wait(|received| received.len() as u64 == count).await;
    }
    stop(otlp, PATIENCE).await;
    assert_eq!(collector.received().len(), 3);
    let counters = stats.of(Signal::Traces);
    assert_eq!((read(&counters.failed), read(&counters.sent), read(&counters.retried)), (3, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let collector = Collector::http();
    collector.script(Signal::Traces.as_str(), [Reply::Http(503, Some("1")), Reply::Http(429, Some("0"))]);
    let otlp = start(&http_to(collector.url()), quick());
    otlp.take(&segments(&session(1), 5));
    assert_eq!(collector.spans(5).await.len(), 5);
    let received = collector.received();
    assert_eq!(received.len(), 3);
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(900), "the back-off alone is 20 ms: {waited:?}");
    stop(otlp, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_is_tried_again_only_where_the_collector_says_when() {
    // google.rpc.Status {details: [Any {type_url: ".../google.rpc.RetryInfo", value: {retry_delay: {seconds: 1}}}]}
    let mut details = b"\x1a\x32\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x01".to_vec();
    details[1] = u8::try_from(details.len() - 2).unwrap();
    let collector = Collector::grpc();
    let with_delay = Reply::Code(Code::ResourceExhausted, details);
    collector.script(Signal::Traces.as_str(), [with_delay, Reply::Code(Code::ResourceExhausted, Vec::new())]);
    let otlp = start(&grpc_to(collector.url()), quick());
    let stats = main_target(&otlp).stats();
    otlp.take(&segments(&session(1), 5));
    let received = collector.wait(|received| received.len() == 2).await;
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(900), "the back-off alone is 20 ms: {waited:?}");
    stop(otlp, PATIENCE).await;
    let counters = stats.of(Signal::Traces);
    assert_eq!((read(&counters.failed), read(&counters.sent)), (5, 0));
    assert_eq!(collector.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_receiver_loses_nothing_and_holds_up_nobody() {
    let collector = Collector::grpc();
    collector.script(Signal::Traces.as_str(), [Reply::Hang, Reply::Hang]);
    let settings = OtlpSettings { timeout: Duration::from_millis(200), ..grpc_to(collector.url()) };
    let otlp = start(&settings, quick());
    otlp.take(&segments(&session(1), 4));
    collector.wait(|received| received.iter().any(|r| r.signal == Signal::Traces.as_str())).await;
    otlp.take(&[sample(&session(1), 0, Vec::new())]);
    let received = collector.wait(|received| received.iter().any(|r| r.signal == Signal::Logs.as_str())).await;
    assert!(!received.iter().any(|r| r.signal == Signal::Traces.as_str() && r.taken), "logs did not wait for traces");
    let spans = collector.spans(4).await;
    assert_eq!(spans.len(), 4);
    assert_eq!(collector.received().iter().filter(|r| r.signal == Signal::Traces.as_str()).count(), 3);
    stop(otlp, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_back_gets_everything() {
    let port = ReservedPort::new();
    let first = Collector::grpc_on(port.address(), None);
    let otlp = start(&grpc_to(first.url()), quick());
    let stats = main_target(&otlp).stats();
    otlp.take(&segments(&session(1), 3));
    first.spans(3).await;
    first.close().await;
    otlp.take(&segments(&session(2), 3));
    noticed(&otlp).await;
    let second = Collector::grpc_on(port.address(), None);
    let spans = second.spans(3).await;
    assert!(spans.iter().all(|span| span.trace_id == derived_trace_id("class-00002")));
    assert_eq!(stop(otlp, PATIENCE).await[0], Backlog::default());
    assert_eq!(read(&stats.of(Signal::Traces).sent), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_the_oldest_and_counts_them() {
    let collector = Collector::grpc();
    let queue = Arc::new(MemoryQueue::with_room(Room { records: 3, bytes: 1 << 20 }));
    let otlp = start_on(&grpc_to(collector.url()), &queue, patient());
    otlp.take(&segments(&session(1), 5));
    assert_eq!((main_target(&otlp).dropped(Signal::Traces), main_target(&otlp).dropped(Signal::Logs)), (2, 0));
    stop(otlp, PATIENCE).await;
    let trace = derived_trace_id("class-00001");
    let id = |ordinal| {
        let name = SpanName::TeachingConduct;
        span_id(&trace, NODE, &SpanRef { name, ordinal }).to_vec()
    };
    let ids: Vec<_> = collector.spans(3).await.into_iter().map(|span| span.span_id).collect();
    assert_eq!(ids, [id(3), id(4), id(5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_keeps_its_deadline_before_a_black_hole_and_tells_what_is_left() {
    // Accepts connections in its backlog and never reads.
    let hole = std::net::TcpListener::bind(LOOPBACK).unwrap();
    let url = format!("http://{}", hole.local_addr().unwrap());
    for settings in [grpc_to(url.clone()), http_to(url)] {
        let settings = OtlpSettings { timeout: Duration::from_hours(1), ..settings };
        let otlp = start(&settings, quick());
        otlp.take(&segments(&session(1), 7));
        let left = stop(otlp, Duration::from_millis(200)).await;
        assert_eq!(left.map(|backlog| backlog.items), [7, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_tries_once_more_instead_of_waiting_for_the_back_off() {
    let collector = Collector::grpc();
    collector.script(Signal::Traces.as_str(), [Reply::Code(Code::Unavailable, Vec::new())]);
    let pace = Pace { first_retry: Duration::from_hours(1), max_retry: Duration::from_hours(1), ..quick() };
    let otlp = start(&grpc_to(collector.url()), pace);
    otlp.take(&segments(&session(1), 7));
    noticed(&otlp).await;
    assert_eq!(stop(otlp, PATIENCE).await[0], Backlog::default());
    assert_eq!(collector.spans(7).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_is_no_grpc_collector() {
    let answers = [(200, "<html>"), (503, "busy"), (401, "who?")];
    let mut all = Vec::new();
    for (status, text) in answers {
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        let router = axum::Router::new().fallback(move || async move { (status, text) });
        let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::from(router));
        let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let verdicts = check(&grpc_to(url), &node()).await.unwrap();
        all.push(verdicts[0].verdict.clone());
        server.abort();
    }
    let [html, busy, who] = all.as_slice() else { unreachable!() };
    assert!(matches!(html, Verdict::Final(why) if why.contains("Unknown")), "{html:?}");
    assert!(matches!(busy, Verdict::Retry { after: None, .. }), "{busy:?}");
    assert!(matches!(who, Verdict::Final(why) if why.contains("Unauthenticated")), "{who:?}");
}

/// Waits until the sender of spans knows that its last attempt failed.
async fn noticed(otlp: &Otlp) {
    let stats = main_target(otlp).stats();
    let trouble = tokio::time::timeout(PATIENCE, async {
        while stats.of(Signal::Traces).failure().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    trouble.await.expect("the failure is noticed");
}
