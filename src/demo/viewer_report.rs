//! The class as its parts report it: the node like a media server, each viewer like a player.

use liveqos_core::model::{Protocol, ServerView, Total};
use serde_json::{Value, json};

use super::class::Class;
use super::viewer::ViewerTotals;

impl Class {
    /// The node's view of the class since its start.
    #[must_use]
    pub fn view(&self) -> ServerView {
        let (ingest, egress) = (self.ingest(), self.egress());
        let total = |value| Some(Total { base: 1, value });
        ServerView {
            publishing: Some(true),
            ingest_protocol: Some(Protocol::Webrtc),
            ingest_bytes: total(ingest.bytes),
            ingest_frames: total(ingest.frames),
            egress_bytes: total(egress.bytes),
            declared_fps: Some(DECLARED_FPS),
            viewers: Some(vec![(Protocol::Webrtc, egress.viewers)]),
            ..ServerView::default()
        }
    }
}

/// A viewer's report for the time between two readings, in the form of `/v1/beacon`.
#[must_use]
pub fn viewer_report(session: &str, sequence: u64, was: &ViewerTotals, now: &ViewerTotals) -> Value {
    let mut report = json!({
        "sessionId": session, "viewer": format!("viewer-{}", now.viewer), "sequence": sequence, "protocol": "webrtc",
        "exposure": (now.exposure.saturating_sub(was.exposure)).as_secs_f64(),
        "freezeCount": now.freezes - was.freezes,
        "totalFreezesDuration": (now.frozen.saturating_sub(was.frozen)).as_secs_f64(),
        "framesDecoded": now.frames - was.frames,
        "bytesReceived": now.bytes_received - was.bytes_received,
        "packetsReceived": now.packets_received - was.packets_received,
        "packetsLost": now.packets_lost - was.packets_lost,
    });
    if let Some(latency) = now.delivery_latency {
        report["deliveryLatency"] = json!(latency.as_secs_f64());
    }
    if let (None, Some(first)) = (was.first_frame, now.first_frame) {
        report["firstFrame"] = json!(first.as_secs_f64());
    }
    report
}

/// Frames per second of the clip.
const DECLARED_FPS: f64 = 25.0;
