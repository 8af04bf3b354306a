//! The OpenTelemetry Collector itself, where there is one: `OTELCOL` names a program with the otlp receiver, the
//! `probabilistic_sampler` and the `otlphttp` exporter. Run with `OTELCOL=… cargo test --test otlp collector --
//! --ignored`.

use std::collections::BTreeSet;
use std::sync::Arc;

use liveqos::otlp::sampling::{Randomness, Threshold};
use liveqos::otlp::stats::read;
use liveqos::otlp::{Compression, OtlpSettings, Signal};
use liveqos::platform::trace_id::derived_trace_id;
use liveqos_core::trace::{SpanCommand, SpanName};
use liveqos_testkit::collector::{Body, Collector, Received};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::{Program, command};
use liveqos_testkit::telemetry::{session, span};
use liveqos_testkit::wait::PATIENCE;

use crate::{grpc_to, main_target, quick, start, stop};

const CLASSES: u32 = 4_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "no package has an OpenTelemetry Collector; with one: OTELCOL=PROGRAM cargo test --test otlp collector -- --ignored"]
async fn the_collectors_sampler_keeps_what_ours_keeps() {
    let program = std::env::var("OTELCOL").expect("OTELCOL names the program");
    let folder = tempfile::tempdir().unwrap();
    for (percent, share) in [("10", 0.1), ("5", 0.05), ("33.3", 0.333), ("0.7", 0.007)] {
        for (mode, compression) in [("equalizing", Compression::Gzip), ("proportional", Compression::Zstd)] {
            let behind = Collector::http();
            let port = ReservedPort::new();
            let file = folder.path().join("collector.yaml");
            std::fs::write(&file, config(port.number(), percent, mode, &behind.url())).unwrap();
            let mut command = command(&program);
            command.arg("--config").arg(format!("file:{}", file.display()));
            let _running = Program::start("otelcol", &mut command, folder.path(), false);
            let settings = OtlpSettings { compression, ..grpc_to(format!("http://{}", port.address())) };
            let otlp = start(&settings, quick());
            let roots = (0..CLASSES).map(|number| span(&Arc::clone(&session(number)), SpanName::TeachingStart, 0));
            otlp.take(&roots.map(|root| SpanCommand::Export(Box::new(root))).collect::<Vec<_>>());
            let stats = main_target(&otlp).stats();
            assert_eq!(stop(otlp, PATIENCE).await[0].records, 0);
            assert_eq!(read(&stats.of(Signal::Traces).sent), u64::from(CLASSES), "the collector acknowledged all");
            let kept = Threshold::of_share(share).unwrap();
            let ids = (0..CLASSES).map(|number| derived_trace_id(&format!("class-{number:05}")));
            let expected: BTreeSet<_> =
                ids.filter(|id| kept.keeps(Randomness::of_trace(u128::from_be_bytes(*id)))).collect();
            let received = behind.wait(|received| traces(received).len() >= expected.len()).await;
            assert_eq!(traces(&received), expected, "{percent} % {mode}");
            let spans = received.iter().flat_map(all_spans).map(|span| span.trace_state);
            assert_eq!(spans.collect::<BTreeSet<_>>(), [format!("ot=th:{kept}")].into(), "{percent} % {mode}");
        }
    }
}

fn config(port: u16, percent: &str, mode: &str, behind: &str) -> String {
    format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
         processors: {{probabilistic_sampler: {{sampling_percentage: {percent}, mode: {mode}}}}}\n\
         exporters: {{otlphttp: {{endpoint: '{behind}'}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{traces: {{receivers: [otlp], processors: [probabilistic_sampler], exporters: [otlphttp]}}}}\n"
    )
}

/// Of a request with any number of resources and scopes.
fn all_spans(received: &Received) -> Vec<opentelemetry_proto::tonic::trace::v1::Span> {
    let Body::Traces(request) = &received.body else { return Vec::new() };
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

fn traces(received: &[Received]) -> BTreeSet<[u8; 16]> {
    received.iter().flat_map(all_spans).map(|span| span.trace_id.try_into().unwrap()).collect()
}
