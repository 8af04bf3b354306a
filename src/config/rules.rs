//! The settings of the rules in `liveqos-core`: how long a class is kept, and the objectives of alerts.

use std::time::Duration;

use liveqos_core::model::{Limits, Objectives};
use liveqos_core::session::SessionTimeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::platform::duration;

/// How long live classes are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// Largest number of live classes; observations of further ones are rejected and counted.
    pub max: usize,
    /// How long a stream may be without a name before its key becomes the class's id.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub identity_grace: Duration,
    /// How long the publisher may be away, without waiting viewers, before the class ends.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub linger: Duration,
    /// How long the publisher may be away while viewers wait.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub publisher_grace: Duration,
    /// How long a class may be without any observation before it ends.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub idle_timeout: Duration,
}

/// The objectives that alerts are compared with.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// Delivery latency that 95 % of a class's viewers must not exceed.
    #[serde(with = "crate::platform::duration")]
    #[schemars(schema_with = "duration::schema")]
    pub latency: Duration,
    /// Stalled time divided by exposure time of a class's viewers, 0 to 1.
    pub stutter_ratio: f64,
    /// Lost packets divided by expected packets towards viewers, 0 to 1.
    pub loss_ratio: f64,
    /// Lowest frame rate of a publisher divided by its usual frame rate, 0 to 1.
    pub fps_ratio: f64,
    /// Highest use of the node's processor, memory or network, 0 to 1.
    pub load_ratio: f64,
    /// Different objectives for viewers by WebRTC, SRT and RTSP.
    pub rtc: KindSettings,
    /// Different objectives for viewers by RTMP and HTTP-FLV.
    pub flv: KindSettings,
    /// Different objectives for viewers by HLS and DASH.
    pub hls: KindSettings,
}

/// The objectives for one kind of delivery; an omitted one is that of all viewers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KindSettings {
    /// Delivery latency that 95 % of a class's viewers must not exceed.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub latency: Option<Duration>,
    /// Stalled time divided by exposure time of a class's viewers, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stutter_ratio: Option<f64>,
    /// Lost packets divided by expected packets towards viewers, 0 to 1.
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
    /// The timeouts in the form of the rules.
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
        let timeouts = SessionTimeouts::default();
        Self {
            max: 2_000,
            identity_grace: timeouts.identity_grace,
            linger: timeouts.linger,
            publisher_grace: timeouts.publisher_grace,
            idle_timeout: timeouts.idle_timeout,
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
