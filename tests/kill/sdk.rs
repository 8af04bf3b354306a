//! The same load on the OpenTelemetry SDK, so that its share stands beside ours: a process that ends a span for each
//! sample of each class and one for each of its minutes, with the SDK's own batch processor and exporter, and writes
//! down how many it has ended.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use liveqos_testkit::collector::{Collector, Received};
use liveqos_testkit::program::{Program, command};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::signal::unix::{SignalKind, signal};

/// The process, and what it leaves behind.
pub(crate) struct Sdk {
    folder: PathBuf,
    collector: String,
    classes: usize,
}

impl Sdk {
    pub(crate) fn new(folder: PathBuf, collector: &Collector, classes: usize) -> Self {
        Self { folder, collector: collector.url(), classes }
    }

    /// Starts it anew: this very program, asked for the one test that is no test.
    pub(crate) fn start(&self) -> Program {
        let mut command = command(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "sdk::process"]);
        command.env(COLLECTOR, &self.collector).env(CLASSES, self.classes.to_string()).env(ENDED, self.ended_file());
        Program::start("sdk", &mut command, &self.folder, false)
    }

    /// How many spans all its lives have ended.
    pub(crate) fn ended(&self) -> u64 {
        std::fs::metadata(self.ended_file()).map_or(0, |about| about.len())
    }

    fn ended_file(&self) -> PathBuf {
        self.folder.join("sdk-ended")
    }
}

/// How many different spans `collector` took, and how many came.
pub(crate) fn arrived(collector: &Collector) -> (usize, usize) {
    let received = collector.received();
    let spans = received.iter().filter(|request| request.taken).flat_map(Received::spans);
    let ids: Vec<_> = spans.map(|span| (span.trace_id, span.span_id)).collect();
    (ids.iter().collect::<BTreeSet<_>>().len(), ids.len())
}

#[test]
#[ignore = "no test: the process that the kill test starts and kills beside liveqos"]
fn process() {
    // Without the variables it was not started by the kill test.
    if std::env::var_os(COLLECTOR).is_none() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(var(COLLECTOR)).build().unwrap();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
        let mut asked = signal(SignalKind::terminate()).unwrap();
        tokio::select! {
            () = end_spans(&provider) => {}
            _ = asked.recv() => {}
        }
        // It may have lost the collector: then this is an error, and what it held is gone.
        tokio::task::spawn_blocking(move || provider.shutdown()).await.unwrap().unwrap_or_default();
    });
}

/// Ends spans at every cut of the grid, for ever.
async fn end_spans(provider: &SdkTracerProvider) {
    let tracer = provider.tracer("liveqos");
    let classes: usize = var(CLASSES).parse().unwrap();
    let mut ended = File::options().create(true).append(true).open(var(ENDED)).unwrap();
    let mut end = |name: &'static str, class: usize, from: Duration, to: Duration| {
        let span = SpanBuilder::from_name(name)
            .with_start_time(SystemTime::UNIX_EPOCH + from)
            .with_attributes([KeyValue::new("session.id", format!("class-{class}")), KeyValue::new("live.fps", 25.0)]);
        let mut span = tracer.build(span);
        span.end_with_timestamp(SystemTime::UNIX_EPOCH + to);
        // A byte a span, with the kernel before anybody can be killed between two.
        ended.write_all(b".").unwrap();
    };
    loop {
        let cut = GRID * u32::try_from(now().as_nanos() / GRID.as_nanos() + 1).unwrap();
        tokio::time::sleep(cut.saturating_sub(now())).await;
        let minute = cut.as_secs().is_multiple_of(60);
        for class in 0..classes {
            end("sample", class, cut.saturating_sub(GRID), cut);
            if minute {
                end("minute", class, cut.saturating_sub(Duration::from_mins(1)), cut);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the load stands on the wall clock's grid as liveqos does")]
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the kill test"))
}

const COLLECTOR: &str = "SDK_COLLECTOR";
const CLASSES: &str = "SDK_CLASSES";
const ENDED: &str = "SDK_ENDED";
const GRID: Duration = Duration::from_secs(5);
