//! One player's report, the body of `POST /v1/beacon`. Decides which values are in range; refuses a report without
//! class, viewer, sequence number or exposure as a whole, and leaves out any other wrong value alone.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::player_name::PlayerName;
use crate::base::LatencyHistogram;
use crate::model::{Name, PlayerView, Protocol};

/// Largest body of a report in bytes; one with all fields has about 400.
pub const MAX_BEACON_BYTES: usize = 4 * 1024;

/// Longest exposure of one report.
pub const MAX_EXPOSURE: Duration = Duration::from_mins(1);

/// Most message latencies of one report.
pub const MAX_MESSAGES: usize = 64;

/// Longest viewer id in bytes.
const MAX_VIEWER_ID: usize = 128;

/// The body as sent: growth of sums since the same viewer's last report.
///
/// Names, units (seconds, bytes, packets, frames) and meaning follow `inbound-rtp` and `candidate-pair` of W3C
/// webrtc-stats, where these have the value. A player leaves out a value that it does not know.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BeaconBody<'a> {
    /// The class.
    #[serde(borrow, alias = "session_id")]
    session_id: Cow<'a, str>,
    /// The viewer's opaque id, new for each viewing.
    #[serde(borrow)]
    viewer: Cow<'a, str>,
    /// Sequence number of the viewer's report, from 0; a report that is sent again keeps its number.
    sequence: u32,
    /// Seconds in playing or stalled state.
    exposure: f64,
    /// The delivery protocol.
    #[serde(default)]
    protocol: Value,
    /// Name and version of the player.
    #[serde(default)]
    player: Value,
    /// Latencies of this viewer's messages in seconds, each from sending a message to the platform's answer.
    #[serde(default)]
    message_latencies: Value,
    /// Freezes or stalls that began.
    #[serde(default)]
    freeze_count: Value,
    /// Seconds frozen or stalled, including a stall that has not ended.
    #[serde(default)]
    total_freezes_duration: Value,
    /// Frames decoded or rendered.
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
    /// Current delivery latency in seconds, where the player measures it better than by the round trip.
    #[serde(default)]
    delivery_latency: Value,
    /// Seconds from the request to the first frame, in the first report that has it.
    #[serde(default)]
    first_frame: Value,
}

/// Why a report cannot be read: the field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the report: {0}")]
pub struct MalformedBeacon(String);

/// A report with its values checked.
#[derive(Clone, Debug, PartialEq)]
pub struct BeaconReport<'a> {
    /// Sequence number among the viewer's reports.
    pub sequence: u32,
    /// The sums, of this viewer alone.
    pub view: PlayerView,
    /// Newest round trip to the node.
    pub round_trip: Option<Duration>,
    /// Delivery latency as the player reports it.
    pub latency: Option<Duration>,
    /// The player as the page names it; empty where it does not.
    pub player: &'a str,
    /// Values left out because they were wrong.
    pub bad_values: u32,
}

impl<'a> BeaconBody<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedBeacon> {
        let body: Self = serde_json::from_slice(body).map_err(|error| MalformedBeacon(error.to_string()))?;
        if body.viewer.is_empty() || body.viewer.len() > MAX_VIEWER_ID {
            return Err(MalformedBeacon(format!("viewer must have 1 to {MAX_VIEWER_ID} bytes")));
        }
        body.exposure()?;
        Ok(body)
    }

    /// The class.
    ///
    /// # Errors
    /// When its id is not a valid name.
    pub fn session(&self) -> Result<Name, MalformedBeacon> {
        Name::new(&self.session_id).map_err(|error| MalformedBeacon(format!("sessionId: {error}")))
    }

    /// The viewer's id.
    #[must_use]
    pub fn viewer(&self) -> &str {
        &self.viewer
    }

    /// Time in playing or stalled state.
    fn exposure(&self) -> Result<Duration, MalformedBeacon> {
        let exposure = Duration::try_from_secs_f64(self.exposure).ok().filter(|exposure| *exposure <= MAX_EXPOSURE);
        exposure.ok_or_else(|| {
            MalformedBeacon(format!("exposure: {} is not 0 to {} s", self.exposure, MAX_EXPOSURE.as_secs()))
        })
    }

    /// The values, each checked.
    ///
    /// # Errors
    /// When the exposure is negative or longer than [`MAX_EXPOSURE`].
    pub fn report(&self) -> Result<BeaconReport<'_>, MalformedBeacon> {
        let exposure = self.exposure()?;
        let mut reader = Reader { seconds: (exposure + AHEAD).as_secs_f64(), bad_values: 0 };
        let received = reader.count(&self.packets_received, MOST_PACKETS);
        // Duplicates may make the loss negative (RFC 3550, section 6.4.1); nothing was lost then.
        let lost = reader.signed(&self.packets_lost, MOST_PACKETS).map(|lost| lost.max(0.0) as u64);
        // A player may leave out a sum that did not grow.
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
        let (sequence, bad_values) = (self.sequence, reader.bad_values);
        Ok(BeaconReport { sequence, view, round_trip, latency, player, bad_values })
    }
}

/// Reads values one by one and counts those that are out of range.
struct Reader {
    /// Time in which sums may have grown, in seconds.
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
        self.good(value.as_str().filter(|player| PlayerName::is_valid(player)))
    }

    /// Each latency for itself; those beyond [`MAX_MESSAGES`] count as wrong.
    fn messages(&mut self, value: &Value) -> Option<LatencyHistogram> {
        present(value)?;
        let reported = self.good(value.as_array())?;
        let mut latencies = LatencyHistogram::default();
        for latency in reported.iter().take(MAX_MESSAGES) {
            let latency = self.good(Some(latency).filter(|latency| !latency.is_null()));
            self.duration(latency.unwrap_or(&Value::Null)).into_iter().for_each(|latency| latencies.record(latency));
        }
        self.bad_values += reported.len().saturating_sub(MAX_MESSAGES) as u32;
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

/// Most of each per second that a viewer can receive: 400 Mbit/s, and as many freezes as the freeze rule can find.
const MOST_BYTES: f64 = 50e6;
const MOST_PACKETS: f64 = 50e3;
const MOST_FRAMES: f64 = 250.0;
const MOST_FREEZES: f64 = 6.0;
/// How far sums may be ahead of the exposure: packets arrive before the first frame and while the page is hidden.
const AHEAD: Duration = Duration::from_secs(5);
/// Longest duration that is accepted.
const MAX_DURATION: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn body(more: &str) -> String {
        format!(r#"{{"sessionId":"s1","viewer":"v","sequence":3,"exposure":5{more}}}"#)
    }

    fn report(more: &str) -> BeaconReport<'static> {
        let body = BeaconBody::parse(body(more).leak().as_bytes()).expect("a report");
        Box::leak(Box::new(body)).report().expect("a good one")
    }

    fn latencies(millis: &[u64]) -> LatencyHistogram {
        let mut latencies = LatencyHistogram::default();
        for millis in millis {
            latencies.record(Duration::from_millis(*millis));
        }
        latencies
    }

    #[test]
    fn messages_are_checked_one_by_one() {
        let some = report(r#","messageLatencies":[0.25,-1,"1",null,7200,[],0]"#);
        assert_eq!((some.view.messages, some.bad_values), (Some(latencies(&[250, 0])), 5));
        let many = report(&format!(r#","messageLatencies":[{}0.1]"#, "0.1,".repeat(MAX_MESSAGES)));
        assert_eq!((many.view.messages.map(|taken| taken.len()), many.bad_values), (Some(MAX_MESSAGES as u64), 1));
        let none = report(r#","messageLatencies":[]"#);
        assert_eq!((none.view.messages, none.bad_values), (None, 0));
    }

    #[test]
    fn all_values_are_read_in_their_units() {
        let report = report(
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
        let (player, latency) = ("hls.js 1.7", None);
        assert_eq!(report, BeaconReport { sequence: 3, view, round_trip, latency, player, bad_values: 0 });
    }

    #[test]
    fn a_missing_value_is_absent_and_a_wrong_one_affects_no_other() {
        let empty = report("").view;
        assert_eq!((empty.frames, empty.packets_expected, empty.packets_lost), (None, None, None));
        let outage = report(r#","packetsLost":40"#).view;
        assert_eq!((outage.packets_expected, outage.packets_lost), (Some(40), Some(40)));
        let healed = report(r#","packetsReceived":9,"packetsLost":-4"#).view;
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
            let report = report(&format!(r#","totalFreezesDuration":1,{wrong}"#));
            assert_eq!((report.bad_values, report.view.stalled), (1, Duration::from_secs(1)), "{wrong}");
        }
    }

    #[test]
    fn stalled_time_is_at_most_the_exposure() {
        assert_eq!(report(r#","totalFreezesDuration":9"#).view.stalled, Duration::from_secs(5));
    }

    #[test]
    fn a_report_without_class_viewer_number_or_exposure_is_refused() {
        let long = "v".repeat(MAX_VIEWER_ID + 1);
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
            assert!(BeaconBody::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(BeaconBody::parse(body("").replace("s1", "a\\nb").as_bytes()).expect("parsed").session().is_err());
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
            let body = BeaconBody::parse(text.as_bytes()).unwrap();
            let report = body.report().unwrap();
            let view = report.view;
            prop_assert!(view.stalled <= view.exposure);
            prop_assert!(view.packets_lost <= view.packets_expected);
            let counted = view.messages.map_or(0, |messages| messages.len() as usize);
            prop_assert!(counted <= MAX_MESSAGES && counted + report.bad_values as usize >= messages.len());
            prop_assert!(view.frames.unwrap_or(0) <= 2_500 && view.bytes.unwrap_or(0) <= 500_000_000);
        }
    }
}
