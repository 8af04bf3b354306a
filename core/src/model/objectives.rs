//! The objectives: what is promised to viewers. Decides which limit holds for which kind of delivery.

use serde::{Deserialize, Serialize};

use super::session::Protocol;

/// The objectives of every class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    /// Delivery latency that 95 % of viewers must not exceed, in seconds.
    pub latency_seconds: f64,
    /// Stalled over exposure time, pooled over viewers, 0 to 1.
    pub stutter_ratio: f64,
    /// Packets lost over expected, before repair, 0 to 1.
    pub loss_ratio: f64,
    /// Frames per second over the publisher's own baseline, 0 to 1.
    pub fps_ratio: f64,
    /// Share of the node's processor, memory or network in use, 0 to 1.
    pub load_ratio: f64,
    /// What differs for `WebRTC`, SRT and RTSP.
    pub rtc: Limits,
    /// What differs for RTMP and FLV over HTTP.
    pub flv: Limits,
    /// What differs for HLS and DASH.
    pub hls: Limits,
}

/// Limits of one kind of delivery; `None`: the general limit holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Delivery latency, in seconds.
    pub latency_seconds: Option<f64>,
    /// Stalled over exposure time, 0 to 1.
    pub stutter_ratio: Option<f64>,
    /// Packets lost over expected, 0 to 1.
    pub loss_ratio: Option<f64>,
}

/// The limits that hold for one leg.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// Delivery latency, in seconds.
    pub latency: f64,
    /// Stalled over exposure time, 0 to 1.
    pub stutter: f64,
    /// Packets lost over expected, 0 to 1.
    pub loss: f64,
}

impl Objectives {
    /// The limits for viewers by `protocol`.
    #[must_use]
    pub fn of(&self, protocol: Protocol) -> Promise {
        let limits = match protocol {
            Protocol::Webrtc | Protocol::Srt | Protocol::Rtsp => self.rtc,
            Protocol::Rtmp | Protocol::HttpFlv => self.flv,
            Protocol::Hls | Protocol::Dash => self.hls,
            Protocol::Mixed => Limits::default(),
        };
        Promise {
            latency: limits.latency_seconds.unwrap_or(self.latency_seconds),
            stutter: limits.stutter_ratio.unwrap_or(self.stutter_ratio),
            loss: limits.loss_ratio.unwrap_or(self.loss_ratio),
        }
    }
}

impl Default for Objectives {
    fn default() -> Self {
        Self {
            latency_seconds: 0.2,
            stutter_ratio: 0.01,
            loss_ratio: 0.005,
            fps_ratio: 0.6,
            load_ratio: 0.95,
            rtc: Limits::default(),
            flv: Limits::default(),
            hls: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_delivery_may_differ_and_the_other_limits_hold() {
        let hls = Limits { latency_seconds: Some(4.0), ..Limits::default() };
        let objectives = Objectives { hls, ..Objectives::default() };
        assert_eq!(objectives.of(Protocol::Dash), Promise { latency: 4.0, stutter: 0.01, loss: 0.005 });
        assert_eq!(objectives.of(Protocol::Webrtc), Promise { latency: 0.2, stutter: 0.01, loss: 0.005 });
    }
}
