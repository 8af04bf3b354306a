//! The attributes of a class's spans and events. Decides their keys (the customer's), units (bit/s, 1/s, ms, ratios)
//! and rounding. What was not measured has no attribute.

use super::span::{Attributes, Value};
use crate::model::{Figures, Measured, Notice, Protocol, Provenance, Session};

/// What every span carries, so that a sampling decision on part of a trace equals the one on the whole.
#[must_use]
pub(super) fn of_session(session: &Session) -> Attributes {
    let text = |name: &crate::model::Name| Value::Text(name.text());
    let mut out =
        vec![("session.id", text(&session.id)), ("education.scenario", Value::Static(session.scenario.as_str()))];
    out.extend(session.course_id.as_ref().map(|id| ("course.id", text(id))));
    out.extend(session.teacher_id.as_ref().map(|id| ("teacher.id", text(id))));
    out.extend(session.stream_type.map(|protocol| ("stream.type", Value::Static(protocol.as_str()))));
    out
}

/// Where the stream is found on this node: no query, no user, no token.
#[must_use]
pub(super) fn stream_url(session: &Session, node: &str) -> Value {
    let scheme = match session.stream_type {
        Some(Protocol::Rtmp) => "rtmp",
        Some(Protocol::Srt) => "srt",
        Some(Protocol::Rtsp) => "rtsp",
        _ => "http",
    };
    Value::Text(format!("{scheme}://{node}/{}", session.stream).into())
}

/// Figures as attributes, in the customer's keys and units; only values that were measured.
#[must_use]
pub(super) fn of_figures(figures: &Figures) -> Attributes {
    let mut out: Attributes = Vec::with_capacity(9);
    let mut sources = [None; 6];
    let mut put = |at: usize, key: &'static str, measured: Option<Measured<Value>>| {
        if let Some(Measured { value, source }) = measured {
            out.push((key, value));
            sources[at] = Some(source);
        }
    };
    let float = |parts: f64| move |value: f32| Value::Float(rounded(f64::from(value), parts));
    put(0, "live.bitrate", figures.bitrate.map(|m| m.map(|bits| Value::Int(bits.round() as i64))));
    put(1, "live.fps", figures.fps.map(|m| m.map(float(100.0))));
    put(2, "live.latency", figures.latency_millis.map(|m| m.map(float(1.0))));
    put(3, "live.packet_loss", figures.loss.map(|m| m.map(float(1e6))));
    put(4, "live.viewer_count", figures.viewers.map(|m| m.map(|count| Value::Int(i64::from(count)))));
    put(5, "live.stutter_ratio", figures.stutter.map(|m| m.map(float(1e6))));
    out.extend(figures.coverage.map(|share| ("live.coverage", float(1e6)(share))));
    out.extend(source_of(sources).map(|source| ("live.source", source)));
    if figures.partial {
        out.push(("live.partial", Value::Bool(true)));
    }
    out
}

/// The numbers and text of a notice.
#[must_use]
pub(super) fn of_notice(notice: &Notice) -> Attributes {
    let mut out = vec![
        ("live.alert", Value::Static(notice.alert.as_str())),
        ("live.severity", Value::Static(notice.severity())),
        ("live.cause", Value::Static(notice.cause.as_str())),
        ("live.evidence", Value::Text(notice.evidence.to_string().into())),
        ("live.evidence.value", Value::Float(rounded(notice.evidence.value, 1e6))),
        ("live.evidence.threshold", Value::Float(rounded(notice.evidence.threshold, 1e6))),
        ("live.evidence.size", Value::Float(rounded(notice.evidence.size, 10.0))),
    ];
    if !notice.why.is_empty() {
        out.push(("live.cause.evidence", Value::Text(notice.why.join("; ").into())));
    }
    out
}

/// A ratio to six digits.
pub(crate) fn ratio(value: f64) -> Value {
    Value::Float(rounded(value, 1e6))
}

/// `value` rounded to fractions of `1 / parts`: digits beyond the accuracy of the measurement only cost bytes.
pub(crate) fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The figures that have a provenance, in their order.
const FIGURES: [&str; 6] = ["bitrate", "fps", "latency", "packet_loss", "viewer_count", "stutter_ratio"];

/// One word when all values have the same provenance, else `value:provenance` pairs.
fn source_of(sources: [Option<Provenance>; 6]) -> Option<Value> {
    let mut known = sources.iter().flatten();
    let first = known.next()?;
    if known.all(|source| source == first) {
        return Some(Value::Static(first.as_str()));
    }
    let mut text = String::with_capacity(128);
    for (name, source) in FIGURES.iter().zip(sources) {
        let Some(source) = source else { continue };
        for part in [if text.is_empty() { "" } else { " " }, name, ":", source.as_str()] {
            text.push_str(part);
        }
    }
    Some(Value::Text(text.into()))
}
