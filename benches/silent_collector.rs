//! How soon a sample arrives at a collector that had hung for some seconds and responds again, by the product's own
//! pace and timeouts, in real time. `cargo bench --bench silent_collector`, four minutes; with `-- --test` one short
//! pass.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use liveqos::otlp::sampling::{Sampling, SamplingSettings};
use liveqos::otlp::{MemoryQueue, Otlp, OtlpSettings, Pace, Protocol, Resource};
use liveqos_testkit::collector::{Collector, Received, Reply};
use liveqos_testkit::telemetry::{START, sample, session};
use liveqos_testkit::wait::PATIENCE;

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let outages: &[u64] = if short { &[1] } else { &[3, 7, 11, 31] };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let delays = runtime.block_on(delays(protocol, outages));
        println!("{protocol:?}: seconds hung, and the delay of a sample after that: {delays:?}");
    }
}

async fn delays(protocol: Protocol, outages: &[u64]) -> Vec<(u64, Duration)> {
    let collector = if protocol == Protocol::Grpc { Collector::grpc() } else { Collector::http() };
    let settings = OtlpSettings { endpoint: Some(collector.url()), protocol, ..OtlpSettings::default() };
    let node = Resource { node: "edge-7".to_owned(), ..Resource::default() };
    let sampling = Sampling::new(&SamplingSettings::default(), "edge-7");
    let open = |_: &str| Ok(Arc::<MemoryQueue>::default() as _);
    let otlp = Otlp::start_with(&settings, &node, sampling, &open, Pace::default()).expect("good settings");
    let export = |cut: u64| otlp.take(&[sample(&session(1), cut, Vec::new())]);
    let (mut cut, mut delays) = (0, Vec::new());
    for hung in outages {
        export(cut);
        collector.wait(|received| has(received, cut)).await;
        collector.always(Some(Reply::Hang));
        for _ in 0..*hung {
            cut += 1;
            export(cut);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        collector.always(None);
        cut += 1;
        export(cut);
        let back = Instant::now();
        collector.wait(|received| has(received, cut)).await;
        delays.push((*hung, back.elapsed()));
        cut += 1;
    }
    otlp.stop(PATIENCE).await;
    delays
}

/// Whether the sample of this cut was taken.
fn has(received: &[Received], cut: u64) -> bool {
    let taken = received.iter().filter(|request| request.taken).flat_map(Received::logs);
    taken.into_iter().any(|log| (log.time_unix_nano - START.nanos()) / 5_000_000_000 == cut)
}
