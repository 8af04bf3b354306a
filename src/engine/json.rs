//! Classes, samples and notices as JSON, for the API and `liveqos replay --json`. Decides how a value looks; a value
//! that was not measured is left out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use liveqos_core::alert::Capacity;
use liveqos_core::base::hex;
use liveqos_core::model::{LegSample, Measured, Notice, Provenance, Sample, Share, Subject};
use serde::Serialize;
use serde_json::{Value, json};

use super::snapshot::SessionState;
use crate::platform::trace_id;

/// A class with its newest sample.
#[must_use]
pub(crate) fn session_json(state: &SessionState) -> Value {
    let session = &state.session;
    let mut out = json!({
        "session_id": session.id, "stream": session.stream, "scenario": session.scenario,
        "trace_id": state.trace_id, "opened_at": state.opened_at.seconds(),
    });
    put(&mut out, "course_id", session.course_id.as_ref());
    put(&mut out, "teacher_id", session.teacher_id.as_ref());
    put(&mut out, "student_count", session.student_count);
    put(&mut out, "traceparent", session.trace_parent);
    put(&mut out, "stream_type", session.stream_type);
    if let (Some(sample), Value::Object(map)) = (&state.sample, &mut out)
        && let Value::Object(figures) = sample_json(sample)
    {
        map.extend(figures);
    }
    out
}

/// The values of a sample; `sources` names the origin of each.
#[must_use]
pub(crate) fn sample_json(sample: &Sample) -> Value {
    let mut out = json!({
        "window": { "start": sample.window.start.seconds(), "end": sample.window.end.seconds() },
        "number": sample.number(),
    });
    let mut sources = BTreeMap::new();
    let mut figure = |name: &'static str, measured: Option<Measured<f64>>| {
        if let Some(Measured { value, source }) = measured {
            sources.insert(name, source);
            out[name] = number(value);
        }
    };
    figure("bitrate_bits_per_second", sample.bitrate());
    figure("fps", sample.fps());
    figure("latency_p95_seconds", sample.latency_p95_seconds());
    figure("packet_loss_ratio", sample.loss().map(|loss| loss.map(Share::ratio)));
    figure("viewers", sample.viewers().map(|viewers| viewers.map(f64::from)));
    let stuttering = sample.stutter_viewers();
    figure("stutter_viewers_ratio", stuttering.map(|share| share.map(Share::ratio)));
    figure("stutter_ratio", sample.stutter().map(|stutter| stutter.map(Share::ratio)));
    // Both sums beside the ratio, so that windows and classes can be added up.
    figure("stutter_seconds", sample.stutter().map(|stutter| stutter.map(|share| share.part)));
    figure("watch_seconds", sample.stutter().map(|stutter| stutter.map(|share| share.whole)));
    put(&mut out, "sources", Some(sources));
    put(&mut out, "coverage_ratio", sample.coverage().map(number));
    put(&mut out, "declared_fps", sample.declared_fps);
    put(&mut out, "publishing", sample.publishing);
    put(&mut out, "interactions", sample.interactions);
    put(&mut out, "partial", sample.partial.then_some(true));
    put(&mut out, "legs", Some(sample.legs.iter().map(leg_json).collect::<Vec<_>>()));
    out
}

/// How many more viewers the node can carry.
#[must_use]
pub(crate) fn capacity_json(capacity: Capacity) -> Value {
    json!({ "viewers": number(capacity.viewers), "room": capacity.additional_viewers.floor() as u64, "short": capacity.limiting_resource })
}

/// A notice, for people and programs.
#[must_use]
pub(crate) fn notice_json(notice: &Notice) -> Value {
    let mut out = json!({
        "alertname": notice.alert.as_str(), "severity": notice.severity(), "state": notice.state,
        "started_at": notice.started_at.seconds(), "at": notice.at.seconds(),
        "cause": notice.cause, "summary": notice.summary(), "evidence": notice.evidence,
    });
    put(&mut out, "why", Some(&*notice.why).filter(|why| !why.is_empty()));
    put(&mut out, "forecast", notice.forecast);
    match &notice.subject {
        Subject::Session(session) => {
            put(&mut out, "session_id", Some(&session.id));
            put(&mut out, "course_id", session.course_id.as_ref());
            put(&mut out, "trace_id", Some(hex::encode(&trace_id::trace_id(session))));
        }
        Subject::Source(source) => put(&mut out, "source", Some(source.as_ref())),
        Subject::Peer(peer) => put(&mut out, "peer", Some(peer.as_ref())),
        Subject::Node => {}
    }
    out
}

fn leg_json(leg: &LegSample) -> Value {
    let mut out = json!({ "leg": leg.leg.as_str() });
    let mut sources: BTreeMap<&'static str, Provenance> = BTreeMap::new();
    let mut figure = |out: &mut Value, name: &'static str, value: Option<Measured<f64>>| {
        if let Some(Measured { value, source }) = value {
            sources.insert(name, source);
            out[name] = number(value);
        }
    };
    figure(&mut out, "bitrate_bits_per_second", leg.bitrate);
    figure(&mut out, "fps", leg.fps);
    figure(&mut out, "viewers", leg.viewers.map(|viewers| viewers.map(f64::from)));
    figure(&mut out, "packet_loss_ratio", leg.loss.map(|loss| loss.map(Share::ratio)));
    let stuttering = leg.stutter_viewers.map(|share| share.map(Share::ratio));
    figure(&mut out, "stutter_viewers_ratio", stuttering);
    figure(&mut out, "stutter_ratio", leg.stutter.map(|stutter| stutter.map(Share::ratio)));
    if let Some(latency) = &leg.latency {
        let quantile = |q| latency.value.quantile_seconds(q);
        out["latency_seconds"] = json!({
            "p50": quantile(0.5), "p95": quantile(0.95), "p99": quantile(0.99),
            "max": latency.value.latencies.max_millis().map(|millis| millis as f64 / 1e3),
        });
        sources.insert("latency_seconds", latency.source);
    }
    if let Some(rtt) = leg.rtt {
        let seconds = |rtt: std::time::Duration| number(rtt.as_secs_f64());
        out["rtt_seconds"] = json!({ "p50": seconds(rtt.value.p50), "p95": seconds(rtt.value.p95) });
        sources.insert("rtt_seconds", rtt.source);
    }
    put(&mut out, "coverage_ratio", leg.coverage().map(number));
    put(&mut out, "stall_starts", leg.stall_starts);
    put(&mut out, "stutter_per_100s", leg.stutter_per_100s().map(number));
    put(&mut out, "requests", leg.requests);
    put(&mut out, "starved_viewers", leg.starved_viewers);
    put(&mut out, "viewers_sketch", leg.present.as_ref().map(|present| STANDARD.encode(present.to_bytes())));
    put(&mut out, "sources", Some(sources).filter(|sources| !sources.is_empty()));
    out
}

/// A JSON number rounded to six decimals, without decimals where it is whole.
fn number(value: f64) -> Value {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 { json!(rounded as i64) } else { json!(rounded) }
}

fn put(out: &mut Value, key: &str, value: Option<impl Serialize>) {
    if let Some(value) = value
        && let Ok(value) = serde_json::to_value(value)
    {
        out[key] = value;
    }
}
