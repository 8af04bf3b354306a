//! Export against real receivers: the generated OTLP services of tonic, and OTLP/HTTP on axum.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

mod bytes;
mod collector;
mod memory;
mod outage;
mod signal_config;
mod silence;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use liveqos::metrics::otlp::{self as metrics, Reading};
use liveqos::otlp::sampling::{Sampling, SamplingSettings};
use liveqos::otlp::stats::read;
use liveqos::otlp::{
    Backlog, Compression, ExportQueue, MemoryQueue, Otlp, OtlpSettings, Pace, Protocol, Resource, Role, Secret, Signal,
    Target, Verdict, check, encode,
};
use liveqos::platform::trace_id::{derived_trace_id, span_id};
use liveqos_core::trace::{SpanCommand, SpanName, Value};
use liveqos_testkit::collector::{Body, Collector, Received, Reply};
use liveqos_testkit::ports::LOOPBACK;
use liveqos_testkit::telemetry::{START, sample, segments, session, span};
use liveqos_testkit::wait::PATIENCE;
use opentelemetry_proto::tonic::metrics::v1::metric;
use tonic::Code;

const NODE: &str = "edge-7";

fn node() -> Resource {
    Resource { service_version: "0.1.0".to_owned(), node: NODE.to_owned(), role: Role::Edge, ..Resource::default() }
}

fn grpc_to(url: String) -> OtlpSettings {
    OtlpSettings {
        endpoint: Some(url),
        headers: [("authorization".to_owned(), Secret::new("Bearer x".to_owned()))].into(),
        ..OtlpSettings::default()
    }
}

fn http_to(url: String) -> OtlpSettings {
    OtlpSettings { protocol: Protocol::HttpProtobuf, ..grpc_to(url) }
}

/// Sends at once and repeats soon.
fn quick() -> Pace {
    Pace {
        interval: Duration::ZERO,
        linger: Duration::ZERO,
        first_retry: Duration::from_millis(5),
        max_retry: Duration::from_millis(20),
        ..Pace::default()
    }
}

/// Waits for a full batch, an urgent record or the end.
fn patient() -> Pace {
    Pace { interval: Duration::from_hours(1), ..quick() }
}

fn start(settings: &OtlpSettings, pace: Pace) -> Otlp {
    Otlp::start_with(settings, &node(), sampling(), &|_| Ok(Arc::new(MemoryQueue::default())), pace).unwrap()
}

/// The usual rates.
fn sampling() -> Sampling {
    Sampling::new(&SamplingSettings::default(), NODE)
}

/// Starts with this one queue.
fn start_on(settings: &OtlpSettings, queue: &Arc<MemoryQueue>, pace: Pace) -> Otlp {
    Otlp::start_with(settings, &node(), sampling(), &|_| Ok(Arc::<MemoryQueue>::clone(queue)), pace).unwrap()
}

/// The section's own target.
fn main_target(otlp: &Otlp) -> &Target {
    &otlp.targets()[0]
}

async fn stop(otlp: Otlp, deadline: Duration) -> [Backlog; 3] {
    let stopped = tokio::time::timeout(deadline + PATIENCE, otlp.stop(deadline)).await;
    stopped.expect("stop keeps its deadline")
}

/// All signals through `collector`, and what came of them.
async fn all_signals(collector: &Collector, settings: &OtlpSettings) {
    let otlp = start(settings, quick());
    let class = session(1);
    let root = span(&class, SpanName::TeachingStart, 0);
    let segment = span(&class, SpanName::TeachingConduct, 60);
    otlp.take(&[root.clone(), segment.clone()].map(|span| SpanCommand::Export(Box::new(span))));
    let log = sample(&class, 3, vec![("live.fps", Value::Float(25.0))]);
    otlp.take(std::slice::from_ref(&log));
    let counter = prometheus::IntCounter::new("liveqos_export_total", "Exported.").unwrap();
    counter.inc_by(7);
    let reading = Reading { since: START, at: START };
    let families = prometheus::core::Collector::collect(&counter);
    otlp.push_metrics(&metrics::records(&families, reading, |_| None, &|_| None));

    let spans = collector.spans(2).await;
    assert_eq!(spans, [encode::encode_span(&root, NODE, "ot=th:0"), encode::encode_span(&segment, NODE, "ot=th:0")]);
    let trace = derived_trace_id("class-00001");
    let root_id = span_id(&trace, NODE, &root.this);
    assert!(spans.iter().all(|span| span.trace_id == trace));
    assert_eq!(spans[0].span_id, root_id);
    assert!(spans[0].parent_span_id.is_empty());
    assert_eq!(spans[1].parent_span_id, root_id);

    let received = collector
        .wait(|received| Signal::ALL.iter().all(|signal| received.iter().any(|r| r.signal == signal.as_str())))
        .await;
    assert!(received.iter().all(|r| r.encoding == "gzip" && r.authorization == "Bearer x"));
    let logs: Vec<_> = received.iter().flat_map(Received::logs).collect();
    let SpanCommand::Emit(log) = &log else { unreachable!() };
    assert_eq!(logs, [encode::encode_event(log, NODE)]);
    let metrics: Vec<_> = received.iter().flat_map(Received::metrics).collect();
    assert_eq!(metrics[0].name, "liveqos_export_total");
    assert!(matches!(metrics[0].data, Some(metric::Data::Sum(_))));
    for request in &received {
        if let Body::Traces(request) = &request.body {
            assert_eq!(request.resource_spans[0].resource, Some(node().encode()));
        }
    }
    assert_eq!(stop(otlp, PATIENCE).await, [Backlog::default(); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_logs_and_metrics_arrive_as_commanded_by_grpc() {
    let collector = Collector::grpc();
    all_signals(&collector, &grpc_to(collector.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_logs_and_metrics_arrive_as_commanded_by_http() {
    let collector = Collector::http();
    all_signals(&collector, &http_to(collector.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_configured_authority_and_no_other() {
    let (certificate, key) = (include_str!("collector.pem"), include_str!("collector.key"));
    let identity = tonic::transport::Identity::from_pem(certificate, key);
    let collector = Collector::grpc_on(LOOPBACK, Some(identity));
    let url = format!("https://localhost:{}", collector.address.port());
    let trusting = OtlpSettings {
        ca_file: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/collector.pem").into()),
        ..grpc_to(url.clone())
    };
    all_signals(&collector, &trusting).await;
    let verdicts = check(&grpc_to(url), &node()).await.unwrap();
    assert!(verdicts.iter().all(|one| matches!(one.verdict, Verdict::Retry { .. })), "{verdicts:?}");
    let missing = OtlpSettings { ca_file: Some("/nowhere.pem".into()), ..grpc_to("https://localhost:1".to_owned()) };
    let error = Otlp::start(&missing, &node(), sampling()).unwrap_err().to_string();
    assert!(error.contains("/nowhere.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_1024_records_or_less_than_4_mib() {
    let collector = Collector::grpc();
    let otlp = start(&grpc_to(collector.url()), patient());
    let class = session(1);
    otlp.take(&segments(&class, 2_500));
    let received = collector.wait(|received| received.len() == 2).await;
    let counts: Vec<_> = received.iter().map(|r| r.spans().len()).collect();
    assert_eq!(counts, [1_024, 1_024], "full batches do not wait");
    // The collector has a request a moment before its answer is read.
    let settled = async {
        while main_target(&otlp).backlog(Signal::Traces).records > 452 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("both are acknowledged");
    assert_eq!(main_target(&otlp).backlog(Signal::Traces).records, 452);
    let mut large = span(&class, SpanName::TeachingConduct, 1);
    large.attributes.push(("stream.url", Value::Text("x".repeat(9_999).into())));
    otlp.take(&vec![SpanCommand::Export(Box::new(large)); 1_000]);
    let stats = main_target(&otlp).stats();
    assert_eq!(stop(otlp, PATIENCE).await[0], Backlog::default());
    let received = collector.received();
    let sizes: Vec<_> = received[2..].iter().map(|r| r.len).collect();
    assert!(sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() > 8 << 20, "limits cut by bytes: {sizes:?}");
    assert_eq!(read(&stats.of(Signal::Traces).sent), 3_500);
    let raw: usize = received.iter().map(|r| r.len).sum();
    assert_eq!(read(&stats.of(Signal::Traces).raw_bytes), raw as u64);
    assert!(read(&stats.of(Signal::Traces).wire_bytes) < raw as u64 / 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_compression_it_goes_as_it_is() {
    for (collector, protocol) in [(Collector::grpc(), Protocol::Grpc), (Collector::http(), Protocol::HttpProtobuf)] {
        let settings = OtlpSettings { protocol, compression: Compression::None, ..grpc_to(collector.url()) };
        let otlp = start(&settings, quick());
        otlp.take(&segments(&session(1), 1));
        assert_eq!(collector.spans(1).await.len(), 1);
        assert_eq!(collector.received()[0].encoding, "");
        stop(otlp, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_incidents_and_log_events_do_not_wait_for_a_batch() {
    let collector = Collector::grpc();
    let otlp = start(&grpc_to(collector.url()), patient());
    let class = session(1);
    otlp.take(&segments(&class, 3));
    otlp.take(&[sample(&class, 0, Vec::new())]);
    let received = collector.wait(|received| !received.is_empty()).await;
    assert_eq!((received.len(), received[0].signal), (1, Signal::Logs.as_str()));
    assert_eq!(main_target(&otlp).backlog(Signal::Traces).items, 3, "segments wait");
    for name in [SpanName::TeachingStart, SpanName::QosIncident] {
        let before = collector.received().len();
        otlp.take(&[SpanCommand::Export(Box::new(span(&class, name, 0)))]);
        collector.wait(|received| received.len() > before).await;
    }
    assert_eq!(collector.spans(5).await.len(), 5, "what waited goes along");
    stop(otlp, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_an_urgent_batch_is_urgent() {
    let collector = Collector::grpc();
    let otlp = start(&grpc_to(collector.url()), patient());
    otlp.take(&(0..2_500).map(|tick| sample(&session(1), tick, Vec::new())).collect::<Vec<_>>());
    let received = collector.wait(|received| received.len() == 3).await;
    let counts: Vec<_> = received.iter().map(|r| r.logs().len()).collect();
    assert_eq!(counts, [1_024, 1_024, 452]);
    stop(otlp, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_signal_that_is_off_are_not_kept() {
    let collector = Collector::grpc();
    let mut settings = grpc_to(collector.url());
    settings.traces.enabled = false;
    let queue = Arc::new(MemoryQueue::default());
    let otlp = start_on(&settings, &queue, quick());
    otlp.take(&segments(&session(1), 3));
    assert_eq!(queue.backlog(Signal::Traces), Backlog::default());
    assert!(!otlp.sends(Signal::Traces) && otlp.sends(Signal::Logs));
    assert_eq!(stop(otlp, PATIENCE).await, [Backlog::default(); 3]);
    assert!(collector.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_returns_the_verdict_of_each_endpoint() {
    let collector = Collector::grpc();
    collector.script(Signal::Logs.as_str(), [Reply::Code(Code::Unauthenticated, Vec::new())]);
    let verdicts = check(&grpc_to(collector.url()), &node()).await.unwrap();
    assert!(
        verdicts[0].signal == Signal::Traces && matches!(verdicts[0].verdict, Verdict::Delivered(_)),
        "{verdicts:?}"
    );
    assert!(verdicts[2].signal == Signal::Logs && matches!(verdicts[2].verdict, Verdict::Final(_)), "{verdicts:?}");
    let http = Collector::http();
    let verdicts = check(&grpc_to(http.url()), &node()).await.unwrap();
    assert!(!matches!(verdicts[0].verdict, Verdict::Delivered(_)), "not a gRPC server: {verdicts:?}");
}
