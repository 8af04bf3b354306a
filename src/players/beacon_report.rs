//! One report of a player, as it stands in the body of `POST /v1/beacon`. Decides what a value may be; refuses a report
//! without class, viewer, number or viewing time whole, and any other wrong value singly.

use std::borrow::Cow;
use std::time::Duration;

use liveqos_core::base::LatencyHistogram;
use liveqos_core::model::{Name, PlayerView, Protocol};
use liveqos_core::viewer::PlayerName;
use serde::Deserialize;
use serde_json::Value;

/// Largest body of a report in bytes; a full one has about 400.
pub(super) const MAX_REPORT: usize = 4 * 1024;

/// Longest span one report may speak for.
pub const MAX_SPAN: Duration = Duration::from_mins(1);

/// Most messages that one report tells of.
pub const MAX_MESSAGES: usize = 64;

/// Longest mark of a viewer in bytes.
pub(super) const MAX_VIEWER: usize = 128;

/// Sums since the same viewer's last report. Names, units (seconds, bytes, packets, frames) and meaning as
/// `inbound-rtp` and `candidate-pair` of W3C webrtc-stats, where it has them, as growth since the last report. A value
/// that the player does not know is left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report<'a> {
    /// The class.
    #[serde(borrow, alias = "session_id")]
    session_id: Cow<'a, str>,
    /// The viewer's own opaque mark, new for each viewing.
    #[serde(borrow)]
    viewer: Cow<'a, str>,
    /// Number of this report among the viewer's, from 0; a report that is sent again keeps it.
    sequence: u32,
    /// Seconds in playing or stalled state.
    exposure: f64,
    /// How the class is delivered.
    #[serde(default)]
    protocol: Value,
    /// What plays it, name and version.
    #[serde(default)]
    player: Value,
    /// How long messages of this viewer took, each in seconds: from sending one to the platform's answer to it.
    #[serde(default)]
    message_latencies: Value,
    /// Freezes or stalls that began.
    #[serde(default)]
    freeze_count: Value,
    /// Seconds frozen or stalled, a still open gap included.
    #[serde(default)]
    total_freezes_duration: Value,
    /// Frames decoded or shown.
    #[serde(default)]
    frames_decoded: Value,
    /// Media payload bytes received.
    #[serde(default)]
    bytes_received: Value,
    /// Packets received.
    #[serde(default)]
    packets_received: Value,
    /// Packets lost before repair; may be negative by RFC 3550.
    #[serde(default)]
    packets_lost: Value,
    /// Newest round trip to the node, in seconds (`currentRoundTripTime`).
    #[serde(default)]
    round_trip_time: Value,
    /// Delivery latency now, in seconds, where the player knows it better than by the round trip.
    #[serde(default)]
    delivery_latency: Value,
    /// Seconds from asking to the first frame, in the first report that knows it.
    #[serde(default)]
    first_frame: Value,
}

/// Why a report cannot be read: the field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the report: {0}")]
pub struct Malformed(pub String);

/// What a good report says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said<'a> {
    /// The sums, of this viewer alone.
    pub view: PlayerView,
    /// Newest round trip to the node.
    pub round_trip: Option<Duration>,
    /// Delivery latency by the player's own word.
    pub latency: Option<Duration>,
    /// What plays, by the page's word; empty where it gave none.
    pub player: &'a str,
    /// Values left out because they were wrong.
    pub bad_values: u32,
}

impl<'a> Report<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let report: Self = serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))?;
        if report.viewer.is_empty() || report.viewer.len() > MAX_VIEWER {
            return Err(Malformed(format!("viewer must have 1 to {MAX_VIEWER} bytes")));
        }
        report.watched()?;
        Ok(report)
    }

    /// The class.
    ///
    /// # Errors
    /// [`Malformed`] when its id is no name.
    pub(super) fn session(&self) -> Result<Name, Malformed> {
        Name::new(&self.session_id).map_err(|error| Malformed(format!("sessionId: {error}")))
    }

    /// The viewer's mark.
    #[must_use]
    pub(super) fn viewer(&self) -> &str {
        &self.viewer
    }

    /// The report's number.
    #[must_use]
    pub(super) const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Time in playing or stalled state.
    ///
    /// # Errors
    /// [`Malformed`] when it is negative or over [`MAX_SPAN`].
    pub(super) fn watched(&self) -> Result<Duration, Malformed> {
        let watched = Duration::try_from_secs_f64(self.exposure).ok().filter(|watched| *watched <= MAX_SPAN);
        watched.ok_or_else(|| Malformed(format!("exposure: {} is not 0 to {} s", self.exposure, MAX_SPAN.as_secs())))
    }

    /// What it says.
    ///
    /// # Errors
    /// [`Malformed`] as [`Report::watched`].
    pub(super) fn said(&self) -> Result<Said<'_>, Malformed> {
        let exposure = self.watched()?;
        let mut reader = Reader { seconds: (exposure + AHEAD).as_secs_f64(), bad_values: 0 };
        let received = reader.count(&self.packets_received, MOST_PACKETS);
        // Duplicates may make the loss negative: then nothing was lost.
        let lost = reader.signed(&self.packets_lost, MOST_PACKETS).map(|lost| lost.max(0.0) as u64);
        // A sum that did not grow may be left out beside the one that did.
        let expected = received.or(lost.map(|_| 0)).map(|received| received.saturating_add(lost.unwrap_or(0)));
        let first_frame = reader.duration(&self.first_frame);
        let player = reader.player(&self.player).unwrap_or_default();
        let view = PlayerView {
            protocol: reader.protocol(&self.protocol),
            viewers: 1,
            exposure,
            stalled: reader.duration(&self.total_freezes_duration).unwrap_or_default().min(exposure),
            stall_starts: reader.count(&self.freeze_count, MOST_FREEZES).map_or(0, |count| count as u32),
            frames: reader.count(&self.frames_decoded, MOST_FRAMES),
            bytes: reader.count(&self.bytes_received, MOST_BYTES),
            packets_lost: expected.map(|_| lost.unwrap_or(0)),
            packets_expected: expected,
            first_frames: first_frame.into_iter().collect(),
            messages: reader.messages(&self.message_latencies),
            ..PlayerView::default()
        };
        let round_trip = reader.duration(&self.round_trip_time);
        let latency = reader.duration(&self.delivery_latency);
        Ok(Said { view, round_trip, latency, player, bad_values: reader.bad_values })
    }
}

/// Reads values one by one and counts those that cannot be.
struct Reader {
    seconds: f64,
    bad_values: u32,
}

impl Reader {
    fn count(&mut self, value: &Value, most_per_second: f64) -> Option<u64> {
        let count = self.signed(value, most_per_second)?;
        self.good((count >= 0.0).then_some(count as u64))
    }

    fn signed(&mut self, value: &Value, most_per_second: f64) -> Option<f64> {
        let most = most_per_second * self.seconds;
        present(value)?;
        self.good(value.as_f64().filter(|number| number.abs() <= most))
    }

    fn duration(&mut self, value: &Value) -> Option<Duration> {
        present(value)?;
        let seconds = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.good(seconds.filter(|duration| *duration <= MAX_DURATION))
    }

    fn protocol(&mut self, value: &Value) -> Option<Protocol> {
        present(value)?;
        self.good(Protocol::deserialize(value).ok())
    }

    fn player<'a>(&mut self, value: &'a Value) -> Option<&'a str> {
        present(value)?;
        self.good(value.as_str().filter(|player| PlayerName::is_told_well(player)))
    }

    /// Each message for itself; what is beyond [`MAX_MESSAGES`] counts as wrong.
    fn messages(&mut self, value: &Value) -> Option<LatencyHistogram> {
        present(value)?;
        let told = self.good(value.as_array())?;
        let mut latencies = LatencyHistogram::default();
        for latency in told.iter().take(MAX_MESSAGES) {
            let latency = self.good(Some(latency).filter(|latency| !latency.is_null()));
            self.duration(latency.unwrap_or(&Value::Null)).into_iter().for_each(|latency| latencies.record(latency));
        }
        self.bad_values += told.len().saturating_sub(MAX_MESSAGES) as u32;
        (!latencies.is_empty()).then_some(latencies)
    }

    fn good<T>(&mut self, value: Option<T>) -> Option<T> {
        self.bad_values += u32::from(value.is_none());
        value
    }
}

fn present(value: &Value) -> Option<()> {
    (!value.is_null()).then_some(())
}

/// More of these a second no viewer gets: 400 Mbit/s, and a freeze each time the rule can find one.
const MOST_BYTES: f64 = 50e6;
const MOST_PACKETS: f64 = 50e3;
const MOST_FRAMES: f64 = 250.0;
const MOST_FREEZES: f64 = 6.0;
/// Sums may run ahead of the viewing time: packets come before there is a picture and while nobody looks.
const AHEAD: Duration = Duration::from_secs(5);
/// Longest duration that is believed.
const MAX_DURATION: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn body(more: &str) -> String {
        format!(r#"{{"sessionId":"s1","viewer":"v","sequence":3,"exposure":5{more}}}"#)
    }

    fn said(more: &str) -> Said<'static> {
        let report = Report::read(body(more).leak().as_bytes()).expect("a report");
        Box::leak(Box::new(report)).said().expect("a good one")
    }

    fn latencies(millis: &[u64]) -> LatencyHistogram {
        let mut latencies = LatencyHistogram::default();
        for millis in millis {
            latencies.record(Duration::from_millis(*millis));
        }
        latencies
    }

    #[test]
    fn messages_are_taken_one_by_one() {
        let some = said(r#","messageLatencies":[0.25,-1,"1",null,7200,[],0]"#);
        assert_eq!((some.view.messages, some.bad_values), (Some(latencies(&[250, 0])), 5));
        let many = said(&format!(r#","messageLatencies":[{}0.1]"#, "0.1,".repeat(MAX_MESSAGES)));
        assert_eq!((many.view.messages.map(|taken| taken.len()), many.bad_values), (Some(MAX_MESSAGES as u64), 1));
        let none = said(r#","messageLatencies":[]"#);
        assert_eq!((none.view.messages, none.bad_values), (None, 0));
    }

    #[test]
    fn all_of_the_stats_are_taken_in_their_units() {
        let said = said(
            r#","protocol":"webrtc","freezeCount":2,"totalFreezesDuration":0.75,"framesDecoded":125,"bytesReceived":250000,
            "packetsReceived":297.0,"packetsLost":3,"roundTripTime":0.041,"firstFrame":1.5,"jitter":0.002,
            "player":"hls.js 1.7","messageLatencies":[0.08,0.1]"#,
        );
        let view = PlayerView {
            protocol: Some(Protocol::Webrtc),
            viewers: 1,
            exposure: Duration::from_secs(5),
            stalled: Duration::from_millis(750),
            stall_starts: 2,
            frames: Some(125),
            bytes: Some(250_000),
            packets_expected: Some(300),
            packets_lost: Some(3),
            first_frames: vec![Duration::from_millis(1_500)],
            messages: Some(latencies(&[80, 100])),
            ..PlayerView::default()
        };
        let round_trip = Some(Duration::from_millis(41));
        assert_eq!(said, Said { view, round_trip, latency: None, player: "hls.js 1.7", bad_values: 0 });
    }

    #[test]
    fn what_is_not_told_is_absent_and_a_wrong_value_spoils_no_other() {
        let silent = said("").view;
        assert_eq!((silent.frames, silent.packets_expected, silent.packets_lost), (None, None, None));
        let outage = said(r#","packetsLost":40"#).view;
        assert_eq!((outage.packets_expected, outage.packets_lost), (Some(40), Some(40)));
        let healed = said(r#","packetsReceived":9,"packetsLost":-4"#).view;
        assert_eq!((healed.packets_expected, healed.packets_lost), (Some(9), Some(0)));
        for wrong in [
            r#""framesDecoded":-1"#,
            r#""framesDecoded":"9""#,
            r#""framesDecoded":1e9"#,
            r#""bytesReceived":1e300"#,
            r#""packetsReceived":[]"#,
            r#""roundTripTime":-1"#,
            r#""firstFrame":7200"#,
            r#""protocol":"pigeon""#,
            r#""freezeCount":61"#,
            r#""player":"a\nb""#,
            r#""player":7"#,
            r#""messageLatencies":0.1"#,
            r#""messageLatencies":[-0.1]"#,
        ] {
            let said = said(&format!(r#","totalFreezesDuration":1,{wrong}"#));
            assert_eq!((said.bad_values, said.view.stalled), (1, Duration::from_secs(1)), "{wrong}");
        }
    }

    #[test]
    fn stalled_is_never_more_than_watched() {
        assert_eq!(said(r#","totalFreezesDuration":9"#).view.stalled, Duration::from_secs(5));
    }

    #[test]
    fn without_class_viewer_number_or_time_it_is_no_report() {
        let long = "v".repeat(MAX_VIEWER + 1);
        for wrong in [
            "[".to_owned(),
            "{}".to_owned(),
            body("").replace("\"v\"", "\"\""),
            body("").replace("\"v\"", &format!("\"{long}\"")),
            body("").replace(":3", ":-3"),
            body("").replace(":5", ":-5"),
            body("").replace(":5", ":61"),
            body("").replace(":5", ":\"5\""),
        ] {
            assert!(Report::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Report::read(body("").replace("s1", "a\\nb").as_bytes()).expect("read").session().is_err());
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_bound(values in prop::collection::vec(any::<f64>(), 8), messages in prop::collection::vec(any::<f64>(), 0..99)) {
            let names = ["freezeCount", "totalFreezesDuration", "framesDecoded", "bytesReceived", "packetsReceived", "packetsLost",
                "roundTripTime", "firstFrame"];
            let mut more = String::new();
            for (name, value) in names.iter().zip(&values).filter(|(_, value)| value.is_finite()) {
                write!(more, r#","{name}":{value:e}"#).unwrap();
            }
            let messages: Vec<_> = messages.iter().filter(|value| value.is_finite()).map(|value| format!("{value:e}")).collect();
            write!(more, r#","messageLatencies":[{}]"#, messages.join(",")).unwrap();
            let text = body(&more);
            let report = Report::read(text.as_bytes()).unwrap();
            let said = report.said().unwrap();
            let view = said.view;
            prop_assert!(view.stalled <= view.exposure);
            prop_assert!(view.packets_lost <= view.packets_expected);
            let told = view.messages.map_or(0, |messages| messages.len() as usize);
            prop_assert!(told <= MAX_MESSAGES && told + said.bad_values as usize >= messages.len());
            prop_assert!(view.frames.unwrap_or(0) <= 2_500 && view.bytes.unwrap_or(0) <= 500_000_000);
        }
    }
}
