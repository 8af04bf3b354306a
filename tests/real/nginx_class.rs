//! One class on a real media server, from the first byte to the last series: what an operator reads, is notified of and
//! finds in the trace.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use liveqos::platform::clock;
use liveqos_core::base::hex;
use liveqos_core::model::GRID;
use liveqos_testkit::collector::Collector;
use liveqos_testkit::daemon::{self, Daemon, Launch};
use liveqos_testkit::ports::ReservedPort;
use liveqos_testkit::program::Program;
use liveqos_testkit::wait::{alone, until};
use liveqos_testkit::webhook::Webhook;
use serde_json::Value;

use super::ffmpeg::{FLV_TAG_BYTES, FLV_TAGS_PER_SECOND, Publisher, player};
use super::nginx::Nginx;
use super::relay::SlowRelay;
use super::trace::{Trace, text};

#[tokio::test(flavor = "multi_thread")]
async fn nginx_class() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let class = Class::start(folder.path()).await;
    // The class then opens in the middle of a window: its connection has been looked at before the first sample is cut.
    let now = clock::now();
    tokio::time::sleep((now.floor(GRID) + GRID).since(now)).await;
    let publisher = Publisher::start(folder.path(), &class.nginx.url(PUBLISHED));
    let first_byte = class.opens().await;
    let relay = SlowRelay::start(class.nginx.media, SLOW_BYTES_PER_SECOND).await;
    let viewers = class.viewers(folder.path(), relay.port);
    class.is_measured(&publisher).await;
    class.alarms().await;

    let over = Instant::now();
    let status = publisher.program.stop().await;
    drop((viewers, relay));
    assert!(status.code().is_some(), "the publisher ended itself: {status}");
    class.closes(over).await;
    class.trace_is_whole(first_byte).await;
    assert!(class.daemon.program.stop().await.success());
}

/// Everything around the class.
struct Class {
    nginx: Nginx,
    daemon: Daemon,
    collector: Collector,
    webhook: Webhook,
    _port: ReservedPort,
}

impl Class {
    async fn start(folder: &Path) -> Self {
        let (collector, webhook, port) = (Collector::grpc(), Webhook::start().await, ReservedPort::new());
        let nginx = Nginx::start(folder, port.number()).await;
        // This machine also encodes, and may build: an alert of its load is not wanted here.
        let config = format!(
            "[objectives]\nload_ratio = 1.0\n\
             [node]\nname = \"origin-1\"\nregion = \"test\"\n[otlp]\nendpoint = \"{}\"\nmetrics_interval = \"5s\"\n\
             [[alerts.webhooks]]\nurl = \"{}\"\n\
             [[sources]]\nkind = \"nginx-rtmp\"\nurl = \"{}\"\ninterval = \"1s\"\nmedia_ports = [{}]\n",
            collector.url(),
            webhook.url,
            nginx.stat,
            nginx.media
        );
        let daemon = Launch::new(&config).folder(folder).listen(port.address()).ready().await;
        Self { nginx, daemon, collector, webhook, _port: port }
    }

    /// Waits for the first byte at nginx, then for the class at the daemon and its root at the collector. Returns the
    /// first byte's instant.
    async fn opens(&self) -> Instant {
        let published = Instant::now();
        let first_byte = until("the first byte", Duration::from_secs(10), async || {
            self.nginx.number(STREAM, "bytes_in").await.filter(|bytes| *bytes > 0)
        });
        first_byte.await;
        let first_byte = Instant::now();
        let started = first_byte.duration_since(published);
        let session = until("the class", Duration::from_secs(10), async || self.daemon.session(SESSION).await).await;
        let seen = published.elapsed();
        assert!(seen <= Duration::from_secs(10), "the class was seen after {seen:?}");
        assert_eq!((&session["course_id"], &session["trace_id"]), (&COURSE.into(), &TRACE.into()));
        let root = until("the root", Duration::from_secs(10), async || {
            Trace::of(&self.collector).arrival("live.teaching.start")
        });
        let root = root.await.saturating_duration_since(first_byte);
        assert!(root <= Duration::from_secs(5), "the root came {root:?} after the first byte");
        eprintln!(
            "first byte {:.2} s after ffmpeg was started; after it the class was seen in {:.2} s, its root came in {:.2} s",
            started.as_secs_f64(),
            seen.as_secs_f64() - started.as_secs_f64(),
            root.as_secs_f64()
        );
        first_byte
    }

    fn viewers(&self, folder: &Path, slow: u16) -> [Program; 3] {
        let slow = format!("rtmp://127.0.0.1:{slow}/live/{STREAM}");
        [("player-1", self.nginx.url(STREAM)), ("player-2", self.nginx.url(STREAM)), ("player-slow", slow)]
            .map(|(name, url)| player(folder, name, &url))
    }

    /// The figures of the samples, against what is known of the class.
    async fn is_measured(&self, publisher: &Publisher) {
        let settled = until("three viewers, all of them measured", Duration::from_secs(30), async || {
            let samples = self.samples().await;
            let good = |sample: &&Value| sample["viewers"] == 3 && sample["coverage_ratio"] == 1;
            samples.iter().filter(good).filter_map(|sample| sample["number"].as_u64()).min()
        });
        let settled = settled.await;
        let samples = until("the samples", Duration::from_mins(1), async || {
            let mut samples = self.samples().await;
            samples.retain(|sample| sample["number"].as_u64() > Some(settled));
            (samples.len() >= SAMPLES).then_some(samples)
        });
        let samples = samples.await;
        for sample in &samples {
            assert_eq!((&sample["viewers"], &sample["coverage_ratio"]), (&3.into(), &1.into()), "{sample}");
            let latency = &rtmp(sample)["latency_seconds"];
            let (p50, p95) = (latency["p50"].as_f64().unwrap(), latency["p95"].as_f64().unwrap());
            eprintln!("delivery latency p50 {p50:.4} s, p95 {p95:.3} s, max {:.3} s", latency["max"]);
            assert!(p50 < 0.1 && p95 > 0.2, "two of three are quick, one is slow: {latency}");
        }
        bitrate_is_true(&samples, publisher).await;
    }

    async fn samples(&self) -> Vec<Value> {
        let answer = self.daemon.json(&format!("/api/v1/sessions/{SESSION}/samples")).await;
        answer.map_or_else(Vec::new, |mut answer| {
            let Value::Array(samples) = answer["samples"].take() else {
                return Vec::new();
            };
            samples
        })
    }

    async fn alarms(&self) {
        let call = until("LiveLatencyHigh at the webhook", Duration::from_secs(20), async || {
            self.webhook.call("LiveLatencyHigh", "firing")
        });
        let call = call.await;
        eprintln!("notified: {}", call["commonAnnotations"]["summary"]);
        assert_eq!((&call["version"], &call["commonLabels"]["session_id"]), (&"4".into(), &SESSION.into()));
        let alerts = self.daemon.json("/api/v1/alerts").await.unwrap();
        assert_eq!(alerts["alerts"][0]["alertname"], "LiveLatencyHigh", "{alerts}");
        let page = self.daemon.metrics().await;
        let firing = daemon::value(&page, "liveqos_alert_firing", &["alertname=\"LiveLatencyHigh\""]);
        let viewers = daemon::value(&page, "liveqos_session_viewers", &LABELS);
        assert_eq!((firing, viewers), (Some(1.0), Some(3.0)), "{page}");
    }

    async fn closes(&self, over: Instant) {
        until("the end of the class", Duration::from_secs(20), async || {
            let all = self.daemon.json("/api/v1/sessions").await?;
            all["sessions"].as_array()?.is_empty().then_some(())
        })
        .await;
        let closed = over.elapsed();
        until("the end of its series", Duration::from_mins(1), async || {
            (!self.daemon.metrics().await.contains(SESSION)).then_some(())
        })
        .await;
        let gone = over.elapsed();
        eprintln!(
            "closed {:.2} s after the last byte, its series gone after {:.2} s",
            closed.as_secs_f64(),
            gone.as_secs_f64()
        );
        assert!(closed <= Duration::from_secs(10) && gone <= Duration::from_secs(30), "{closed:?}, {gone:?}");
        until("the all-clear", Duration::from_secs(10), async || self.webhook.call("LiveLatencyHigh", "resolved"))
            .await;
        let alerts = self.webhook.alerts();
        assert_eq!(alerts, ["LiveLatencyHigh firing", "LiveLatencyHigh resolved"], "nothing else was wrong");
    }

    async fn trace_is_whole(&self, first_byte: Instant) {
        until("the whole trace", Duration::from_secs(30), async || {
            let trace = Trace::of(&self.collector);
            let whole =
                ["live.teaching.complete", "live.qos.incident"].iter().all(|name| trace.arrival(name).is_some());
            (whole && trace.metrics.contains("liveqos.session.bitrate")).then_some(())
        })
        .await;
        let trace = Trace::of(&self.collector);
        eprintln!("{} s of class gave the spans {:?}", first_byte.elapsed().as_secs(), trace.names());
        let ids: BTreeSet<&[u8]> = trace.spans.iter().map(|(_, span)| span.span_id.as_slice()).collect();
        assert_eq!(ids.len(), trace.spans.len(), "each span has an id of its own");
        assert!(trace.spans.iter().all(|(_, span)| hex::encode(&span.trace_id) == TRACE));

        let root = trace.one("live.teaching.start");
        assert_eq!(hex::encode(&root.parent_span_id), PLATFORM_SPAN);
        let complete = trace.one("live.teaching.complete");
        for (name, parent) in [
            ("live.teaching.complete", root),
            ("live.stream.establish", root),
            ("live.qos.incident", root),
            ("live.connection.establish", complete),
            ("live.stream.start", complete),
            ("live.stream.end", complete),
        ] {
            let span = trace.one(name);
            assert_eq!(span.parent_span_id, parent.span_id, "what {name} hangs under");
            assert_eq!(text(span, "course.id").as_deref(), Some(COURSE), "{name}");
        }
        let incident = trace.one("live.qos.incident");
        assert_eq!(text(incident, "live.alert").as_deref(), Some("LiveLatencyHigh"));
        assert!(incident.status.as_ref().is_some_and(|status| status.code == ERROR));
        let connection = trace.one("live.connection.establish");
        for key in ["connection.id", "connection.latency"] {
            assert!(text(connection, key).is_some(), "{key}: {connection:?}");
        }
        assert_eq!(text(complete, "total.viewers").as_deref(), Some("3"));
        samples_are_in_segments(&trace, &root.span_id);
    }
}

/// Every sample left as a log event and stands in the segment that the event names.
fn samples_are_in_segments(trace: &Trace, root: &[u8]) {
    let segments: Vec<_> = trace.named("live.teaching.conduct").collect();
    assert!(segments.iter().all(|segment| segment.parent_span_id == root));
    let last: Vec<_> = segments.iter().filter_map(|segment| text(segment, "live.segment.final")).collect();
    assert_eq!(last.iter().filter(|last| *last == "true").count(), 1, "{last:?}");
    let logs = trace.events("live.qos.sample");
    let mut logged: Vec<(&[u8], u64)> = logs.iter().map(|log| (&log.span_id[..], log.time_unix_nano)).collect();
    let events = segments.iter().flat_map(|segment| {
        let at = segment.events.iter().map(|event| event.time_unix_nano);
        at.map(|at| (&segment.span_id[..], at))
    });
    let mut events: Vec<_> = events.collect();
    logged.sort_unstable();
    events.sort_unstable();
    assert_eq!(logged, events);
    assert!(logs.iter().all(|log| hex::encode(&log.trace_id) == TRACE) && logs.len() >= SAMPLES);
}

/// The mean of the samples' bitrates against what ffmpeg wrote meanwhile. ffmpeg counts an FLV file: to the payload
/// that nginx counts (message bodies, without RTMP's chunk headers) it adds 15 bytes a tag, half a percent here, which
/// are taken off.
async fn bitrate_is_true(samples: &[Value], publisher: &Publisher) {
    let edge = |sample: &Value, edge: &str| sample["window"][edge].as_f64().unwrap();
    let (from, to) = (edge(&samples[0], "start"), edge(&samples[samples.len() - 1], "end"));
    let written = until("the report of ffmpeg", Duration::from_secs(5), async || publisher.written(from, to));
    let flv = written.await * 8.0 / (to - from);
    let sent = flv - FLV_TAG_BYTES * FLV_TAGS_PER_SECOND * 8.0;
    let rates: Vec<f64> = samples.iter().map(|sample| sample["bitrate_bits_per_second"].as_f64().unwrap()).collect();
    let measured = rates.iter().sum::<f64>() / rates.len() as f64;
    let off = measured / sent - 1.0;
    let worst = rates.iter().map(|rate| rate / sent - 1.0).max_by(|a, b| a.abs().total_cmp(&b.abs()));
    eprintln!(
        "bitrate over {:.0} s: {measured:.0} bit/s measured, {sent:.0} sent ({flv:.0} as FLV): {:+.2} %; the worst single sample {:+.2} %",
        to - from,
        off * 100.0,
        worst.unwrap() * 100.0
    );
    assert!(off.abs() < 0.03, "{rates:?} against {sent}");
}

fn rtmp(sample: &Value) -> &Value {
    let legs = sample["legs"].as_array().unwrap();
    legs.iter().find(|leg| leg["leg"] == "rtmp").unwrap()
}

const STREAM: &str = "class101";
const SESSION: &str = "s-101";
const COURSE: &str = "c-9";
const LABELS: [&str; 3] = ["session_id=\"s-101\"", "course_id=\"c-9\"", "leg=\"rtmp\""];
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PLATFORM_SPAN: &str = "00f067aa0ba902b7";
const PUBLISHED: &str =
    "class101?session_id=s-101&course_id=c-9&traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// A third of the media's pace.
const SLOW_BYTES_PER_SECOND: usize = 60_000;
const SAMPLES: usize = 6;
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
