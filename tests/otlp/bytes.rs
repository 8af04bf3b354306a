//! What a sample costs on the wire: 20 classes for 5 minutes, as log events and as events inside their minute's span.

use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::stats::read;
use liveqos::otlp::{Compression, MemoryQueue, Otlp, OtlpSettings, Pace, Resource, Signal};
use liveqos_core::model::{GRID, Session};
use liveqos_core::trace::{Attributes, Event, SpanCommand, SpanName, Value};
use liveqos_testkit::collector::Collector;
use liveqos_testkit::telemetry::{START, sample, session, span};
use liveqos_testkit::wait::PATIENCE;

use crate::{grpc_to, node};

/// How the values of a sample are written.
#[derive(Clone, Copy, Debug)]
enum Digits {
    /// As the arithmetic leaves them.
    All,
    /// Rounded to what people read: whole bits per second and milliseconds, hundredths, millionths of a ratio.
    Read,
    /// Bits and milliseconds whole; the rest with 12 bits of mantissa, an error of at most 1/8,192 of the value.
    Short,
}

const SESSIONS: u32 = 20;
const SAMPLES: u64 = 60;
/// Samples of all classes.
const ALL: u64 = SESSIONS as u64 * SAMPLES;

/// Reproducible noise, evenly from 0 to 1.
fn noise(session: u32, tick: u64, value: u64) -> f64 {
    fastrand::Rng::with_seed(u64::from(session) << 40 | tick << 8 | value).f64()
}

fn values(number: u32, tick: u64, digits: Digits) -> Attributes {
    let of = |value| noise(number, tick, value);
    let rounded = |value: f64, step: f64| match digits {
        Digits::All => value,
        Digits::Read => (value / step).round() * step,
        Digits::Short => f64::from_bits((value.to_bits() + (1 << 39)) & !((1 << 40) - 1)),
    };
    let whole = |value: f64| match digits {
        Digits::All => Value::Float(value),
        Digits::Read | Digits::Short => Value::Int(value.round() as i64),
    };
    // Four of five windows are clean, as on a healthy node.
    let seldom = |value, scale: f64| if of(value) < 0.8 { 0.0 } else { of(value + 50) * scale };
    vec![
        ("live.bitrate", whole(1_500_000.0 + 300_000.0 * of(1))),
        ("live.fps", Value::Float(rounded(25.0 + of(2) - 0.5, 0.01))),
        ("live.latency", whole(90.0 + 60.0 * of(3))),
        ("live.packet_loss", Value::Float(rounded(0.002 * of(4), 1e-6))),
        ("live.viewer_count", Value::Int(70 + (of(5) * 6.0) as i64)),
        ("live.stutter_ratio", Value::Float(rounded(seldom(6, 0.004), 1e-6))),
        ("live.coverage", Value::Float(rounded(0.9 + 0.1 * of(7), 0.01))),
        ("live.source", Value::Static("player")),
    ]
}

fn identity(session: &Session) -> Attributes {
    vec![
        ("session.id", Value::Text(session.id.as_str().into())),
        ("course.id", Value::Text(session.course_id.as_ref().unwrap().as_str().into())),
        ("teacher.id", Value::Text(session.teacher_id.as_ref().unwrap().as_str().into())),
        ("education.scenario", Value::Static(session.scenario.as_str())),
        ("stream.type", Value::Static("rtmp")),
    ]
}

/// The samples of every class at `tick`, with the first `kept` attributes of its identity.
fn cut(tick: u64, kept: usize, digits: Digits) -> Vec<SpanCommand> {
    let one = |number| {
        let session = session(number);
        let mut attributes: Attributes = identity(&session).into_iter().take(kept).collect();
        attributes.extend(values(number, tick, digits));
        sample(&session, tick, attributes)
    };
    (0..SESSIONS).map(one).collect()
}

/// The minute of every class that ends with `minute`, samples inside as events.
fn minute(minute: u64, digits: Digits) -> Vec<SpanCommand> {
    let one = |number| {
        let session = session(number);
        let start = START + Duration::from_mins(minute);
        let mut segment = span(&session, SpanName::TeachingConduct, start.nanos());
        segment.attributes = identity(&session);
        segment.events = (0..12)
            .map(|tick| Event {
                name: "live.qos.sample",
                at: start + GRID * tick,
                attributes: values(number, minute * 12 + u64::from(tick), digits),
            })
            .collect();
        SpanCommand::Export(Box::new(segment))
    };
    (0..SESSIONS).map(one).collect()
}

/// Bytes of a sample in requests, as sent: `turns` are taken one after the other, each delivered before the next where
/// `fresh`, else all together.
async fn bytes_a_sample(turns: Vec<Vec<SpanCommand>>, signal: Signal, fresh: bool, compression: Compression) -> f64 {
    let collector = Collector::grpc();
    let pace = Pace {
        interval: if fresh { Duration::ZERO } else { Duration::from_hours(1) },
        linger: if fresh { Duration::ZERO } else { Duration::from_hours(1) },
        ..Pace::default()
    };
    let node = Resource {
        instance_id: "0b1c4cb0-6a3e-5d5b-9a57-8c7f6d2f1a11".to_owned(),
        host_name: "edge-bj-7.live.example.com".to_owned(),
        region: Some("cn-north-1".to_owned()),
        environment: Some("production".to_owned()),
        ..node()
    };
    let otlp = Otlp::start_with(
        &OtlpSettings { compression, ..grpc_to(collector.url()) },
        &node,
        crate::sampling(),
        &|_| Ok(Arc::new(MemoryQueue::default())),
        pace,
    )
    .unwrap();
    let stats = otlp.targets()[0].stats();
    for (turn, commands) in turns.into_iter().enumerate() {
        otlp.take(&commands);
        if fresh {
            collector.wait(|received| received.len() > turn).await;
        }
    }
    let left = otlp.stop(PATIENCE).await;
    assert_eq!(left.map(|backlog| backlog.records), [0; 3]);
    read(&stats.of(signal).wire_bytes) as f64 / ALL as f64
}

/// A row of the table: bytes a sample by gzip for each way to write values, and by zstd as people read them.
async fn row(name: &str, signal: Signal, fresh: bool, turns: impl Fn(Digits) -> Vec<Vec<SpanCommand>>) -> [f64; 4] {
    let mut row = [0.0; 4];
    let (gzip, zstd) = (Compression::Gzip, Compression::Zstd);
    let columns = [(Digits::All, gzip), (Digits::Read, gzip), (Digits::Short, gzip), (Digits::Read, zstd)];
    for (bytes, (digits, compression)) in row.iter_mut().zip(columns) {
        *bytes = bytes_a_sample(turns(digits), signal, fresh, compression).await;
    }
    print(&format!("{name:44} {:8.1} {:9.1} {:8.1} {:8.1}", row[0], row[1], row[2], row[3]));
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_stays_within_its_bytes() {
    let cuts = |kept| move |digits| (0..SAMPLES).map(|tick| cut(tick, kept, digits)).collect();
    let minutes = |digits| (0..SAMPLES / 12).map(|at| minute(at, digits)).collect();
    print("bytes a sample                               all digits  as read   short     zstd");
    let [_, all_together, _, all_zstd] =
        row("log event, 13 attributes, 1,024 a request", Signal::Logs, false, cuts(5)).await;
    row("log event, 13 attributes, 20 a request", Signal::Logs, true, cuts(5)).await;
    row("log event, session.id + 8, 1,024 a request", Signal::Logs, false, cuts(1)).await;
    let [_, fresh, _, fresh_zstd] = row("log event, session.id + 8, 20 a request", Signal::Logs, true, cuts(1)).await;
    row("span event, 100 spans a request", Signal::Traces, false, minutes).await;
    let [_, inside, _, inside_zstd] = row("span event, 20 spans a request", Signal::Traces, true, minutes).await;
    assert!(all_together <= 55.0, "a log event in a full batch: {all_together}");
    assert!(fresh <= 91.0, "a log event sent as it is cut: {fresh}");
    assert!(all_zstd <= 55.0 && fresh_zstd <= 91.0 && inside_zstd <= 55.0, "{all_zstd}, {fresh_zstd}, {inside_zstd}");
    assert!(inside <= 55.0, "an event in its minute's span: {inside}");
}

#[expect(clippy::print_stdout, reason = "the table is what one runs this test for")]
fn print(line: &str) {
    println!("{line}");
}
