//! The settings of the rules in `liveqos-core`: how long a class is kept, and the objectives that alerts are held
//! against.

use std::time::Duration;

use liveqos_core::model::{Limits, Objectives};
use liveqos_core::session::SessionTimeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::duration;

/// How live classes are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// Most live classes; observations of further ones are refused and counted.
    pub max: usize,
    /// How long a stream may stay nameless before its key becomes the class's id.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub identity_grace: Duration,
    /// How long the publisher may be away, with nobody waiting, before the class is over.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub linger: Duration,
    /// How long the publisher may be away while viewers wait.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub publisher_grace: Duration,
    /// How long nothing may be heard of a class before it is given up.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub idle_timeout: Duration,
}

/// What is promised to viewers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// Delivery latency that 95 % of a class's viewers must not exceed.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub latency: Duration,
    /// Stalled over exposure time of a class's viewers, 0 to 1.
    pub stutter_ratio: f64,
    /// Packets lost over expected towards viewers, 0 to 1.
    pub loss_ratio: f64,
    /// Least frames per second of a publisher over those it usually sends, 0 to 1.
    pub fps_ratio: f64,
    /// Most use of processor, memory or network of the node, 0 to 1.
    pub load_ratio: f64,
    /// What differs for viewers by WebRTC, SRT and RTSP.
    pub rtc: KindSettings,
    /// What differs for viewers by RTMP and HTTP-FLV.
    pub flv: KindSettings,
    /// What differs for viewers by HLS and DASH.
    pub hls: KindSettings,
}

/// What is promised to viewers of one kind of delivery; what is left out is as for all.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KindSettings {
    /// Delivery latency that 95 % of a class's viewers must not exceed.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub latency: Option<Duration>,
    /// Stalled over exposure time of a class's viewers, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stutter_ratio: Option<f64>,
    /// Packets lost over expected towards viewers, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_ratio: Option<f64>,
}

impl KindSettings {
    pub(super) fn limits(&self) -> Limits {
        let latency_seconds = self.latency.map(|latency| latency.as_secs_f64());
        Limits { latency_seconds, stutter_ratio: self.stutter_ratio, loss_ratio: self.loss_ratio }
    }
}

impl SessionSettings {
    /// How long the rules wait in each case.
    pub(super) fn timeouts(&self) -> SessionTimeouts {
        SessionTimeouts {
            identity_grace: self.identity_grace,
            linger: self.linger,
            publisher_grace: self.publisher_grace,
            idle_timeout: self.idle_timeout,
        }
    }
}

impl ObjectiveSettings {
    /// The objectives in the form of the rules.
    pub(super) fn objectives(&self) -> Objectives {
        Objectives {
            latency_seconds: self.latency.as_secs_f64(),
            stutter_ratio: self.stutter_ratio,
            loss_ratio: self.loss_ratio,
            fps_ratio: self.fps_ratio,
            load_ratio: self.load_ratio,
            rtc: self.rtc.limits(),
            flv: self.flv.limits(),
            hls: self.hls.limits(),
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        let patience = SessionTimeouts::default();
        Self {
            max: 2_000,
            identity_grace: patience.identity_grace,
            linger: patience.linger,
            publisher_grace: patience.publisher_grace,
            idle_timeout: patience.idle_timeout,
        }
    }
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        let objectives = Objectives::default();
        Self {
            latency: Duration::from_secs_f64(objectives.latency_seconds),
            stutter_ratio: objectives.stutter_ratio,
            loss_ratio: objectives.loss_ratio,
            fps_ratio: objectives.fps_ratio,
            load_ratio: objectives.load_ratio,
            rtc: KindSettings::default(),
            flv: KindSettings::default(),
            hls: KindSettings::default(),
        }
    }
}
