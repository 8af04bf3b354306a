//! `/metrics` at 500 live classes, beside the same series written by hand with `format!`: how much the registry, the
//! labels and the encoders cost. `cargo bench --bench metrics_page`; with `-- --test` one small pass.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use liveqos::engine::Snapshot;
use liveqos::intake::SourceTable;
use liveqos::metrics::collector::exemplars;
use liveqos::metrics::exposition::{encode, finish};
use liveqos::metrics::{Form, NodeCollector, SessionSeries};
use liveqos::otlp::sampling::{Sampling, SamplingSettings};
use liveqos::otlp::{Otlp, OtlpSettings, Resource};
use liveqos_core::base::LatencyHistogram;
use liveqos_core::model::{
    Environment, Fact, Objectives, Observation, PlayerView, Protocol, ServerView, StreamKey, Timestamp, Total,
};
use liveqos_core::pipeline::Pipeline;
use liveqos_core::session::SessionTimeouts;
use prometheus::Registry;

const SESSIONS: usize = 500;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let passes = if std::env::args().any(|argument| argument == "--test") { 3 } else { 300 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sampling = Sampling::new(&SamplingSettings::default(), "n");
    let otlp = runtime.block_on(async { Otlp::start(&OtlpSettings::default(), &Resource::default(), sampling) });
    let otlp = Arc::new(otlp.expect("nothing to connect to"));
    let snapshot = Arc::new(ArcSwap::from_pointee(classes()));
    let sources = Arc::new(ArcSwap::from_pointee(SourceTable::new(&[], None)));
    let registry = Registry::new();
    let left_out = prometheus::Counter::new("left_out", "Classes without series.").expect("a good name");
    let node = NodeCollector::new(&snapshot, &sources, &otlp).expect("good rows");
    registry.register(Box::new(node)).expect("new names");
    let series = SessionSeries::new(&snapshot, [], SESSIONS, left_out);

    let page = |form| {
        let families = registry.gather();
        let mut text = String::with_capacity(64 * 1024);
        encode(form, &families, |name| exemplars(name, &snapshot.load(), &families), &mut text);
        series.write(form, &mut text);
        finish(form, &mut text);
        text.len()
    };
    let (classic, open) = (|| page(Form::Classic), || page(Form::OpenMetrics));
    let by_hand = || by_hand(&snapshot.load()).len();
    let (classic, open, by_hand) = (median(passes, classic), median(passes, open), median(passes, by_hand));
    let ratio = |time: Duration| time.as_secs_f64() / by_hand.0.as_secs_f64();
    println!("{SESSIONS} classes, median of {passes} passes");
    println!("classic text  {:>9.3?}  {:>7} bytes  {:.1} x by hand", classic.0, classic.1, ratio(classic.0));
    println!("OpenMetrics   {:>9.3?}  {:>7} bytes  {:.1} x by hand", open.0, open.1, ratio(open.0));
    println!("by hand       {:>9.3?}  {:>7} bytes", by_hand.0, by_hand.1);
}

/// The median time of a pass, and what it gave.
fn median(passes: usize, mut pass: impl FnMut() -> usize) -> (Duration, usize) {
    let bytes = pass();
    let mut times: Vec<Duration> = (0..passes)
        .map(|_| {
            let began = Instant::now();
            black_box(pass());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[passes / 2], bytes)
}

/// Every per-class value of the page, without families, registry or label model.
fn by_hand(snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(1 << 20);
    for sample in snapshot.sessions.values().filter_map(|state| state.sample.as_ref()) {
        for leg in &sample.legs {
            let id = &sample.session.id;
            let mut put = |name: &str, value: Option<f64>| {
                if let Some(value) = value {
                    let name_of_leg = leg.leg.as_str();
                    writeln!(out, "{name}{{session_id=\"{id}\",course_id=\"\",leg=\"{name_of_leg}\"}} {value}")
                        .expect("a String takes all");
                }
            };
            put("liveqos_session_bitrate_bits_per_second", leg.bitrate.map(|m| m.value));
            put("liveqos_session_fps", leg.fps.map(|m| m.value));
            put("liveqos_session_packet_loss_ratio", leg.loss.map(|m| m.value.ratio()));
            put("liveqos_session_viewers", leg.viewers.map(|m| f64::from(m.value)));
            put("liveqos_session_stutter_ratio", leg.stutter.map(|m| m.value.ratio()));
            put("liveqos_session_coverage_ratio", leg.coverage());
            for quantile in [0.5, 0.95, 0.99] {
                let value = leg.latency.as_ref().and_then(|latency| latency.value.quantile_seconds(quantile));
                put("liveqos_session_latency_seconds", value);
            }
        }
    }
    out
}

/// 500 live classes of twenty viewers with all that can be reported.
fn classes() -> Snapshot {
    let mut pipe = Pipeline::new("bench", Objectives::default(), SessionTimeouts::default(), SESSIONS);
    let mut snapshot = Snapshot::default();
    for tick in 0..44_u64 {
        let at = Timestamp::from_secs(1_000_000) + Duration::from_millis(tick * 250);
        for class in 0..SESSIONS {
            let stream = StreamKey::new(None, "live", &format!("class-{class:05}")).expect("a good name");
            let observed = |fact| Observation { source: "bench".into(), stream: stream.clone(), at, fact };
            pipe.observe(observed(Fact::Server(Box::new(server(tick)))));
            pipe.observe(observed(Fact::Players(Box::new(players(class)))));
        }
        snapshot.take(&pipe.tick(at, &Environment::default()));
        snapshot.fleet = pipe.fleet().clone();
    }
    assert_eq!(snapshot.sessions.len(), SESSIONS);
    snapshot
}

fn server(tick: u64) -> ServerView {
    let total = |value| Some(Total { base: 1, value });
    ServerView {
        publishing: Some(true),
        ingest_bytes: total(tick * 50_000),
        ingest_frames: total(tick * 6),
        egress_bytes: total(tick * 1_000_000),
        viewers: Some(vec![(Protocol::Rtmp, 20)]),
        ..ServerView::default()
    }
}

fn players(class: usize) -> PlayerView {
    let mut latencies = LatencyHistogram::default();
    (0..20).for_each(|viewer| latencies.record(Duration::from_millis(20 + viewer * 7 + class as u64 % 13)));
    PlayerView {
        protocol: Some(Protocol::Rtmp),
        viewers: 20,
        exposure: Duration::from_secs(5),
        stalled: Duration::from_millis(11),
        packets_expected: Some(5_000),
        packets_lost: Some(7),
        frames: Some(125),
        latencies: Some(latencies),
        ..PlayerView::default()
    }
}
