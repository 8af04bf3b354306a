//! The settings, typed, with their defaults. Decides precedence (defaults < file < `LIVEQOS_*` and `OTEL_*` < flags)
//! and refuses unknown keys with the nearest known one; what each key means stands beside it and becomes the reference.

use std::path::PathBuf;
use std::time::Duration;

use liveqos_core::model::{Limits, Objectives};
use liveqos_core::recording::Settings;
use liveqos_core::session::SessionTimeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::intake::SourceSettings;
use crate::intake::access_log::AccessLogSettings;
use crate::notify::AlertSettings;
use crate::otlp::sampling::SamplingSettings;
use crate::otlp::{OtlpSettings, Role};
use crate::peers::PathSettings;
use crate::platform::duration;
use crate::players::{CmcdSettings, IngestSettings};
use crate::storage::StateSettings;

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the page, the API and `/metrics`.
    pub listen: String,
    /// Look for media servers on this host when no source is configured.
    pub discover: bool,
    /// Who this node is.
    pub node: NodeSettings,
    /// How live classes are kept.
    pub sessions: SessionSettings,
    /// What is promised to viewers.
    pub objectives: ObjectiveSettings,
    /// What is read from this host's kernel.
    pub kernel: KernelSettings,
    /// The metrics page.
    pub metrics: MetricSettings,
    /// Recent samples kept in memory for the page and the API.
    pub history: HistorySettings,
    /// Who is told of alerts.
    pub alerts: AlertSettings,
    /// What players themselves may report.
    pub beacon: BeaconSettings,
    /// The ways in that face players: `/v1/cmcd` and `/v1/beacon`.
    pub ingest: IngestSettings,
    /// Event reports of players (CMCD v2) by `POST /v1/cmcd`.
    pub cmcd: CmcdSettings,
    /// Export of traces, sample events and metrics by OTLP.
    pub otlp: OtlpSettings,
    /// What outlives the daemon: the open minutes of classes, and what no collector has taken yet.
    pub state: StateSettings,
    /// The paths to other nodes, pinged over QUIC.
    pub paths: PathSettings,
    /// Which classes' traces are exported.
    pub sampling: SamplingSettings,
    /// The daemon's own log.
    pub log: LogSettings,
    /// The media servers to watch.
    #[serde(skip_serializing)]
    pub sources: Vec<SourceSettings>,
    /// Access logs of this edge, whose players send CMCD.
    #[serde(skip_serializing)]
    pub logs: Vec<AccessLogSettings>,
}

/// Who this node is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// The node's name in traces and alerts; the host's name where empty.
    pub name: String,
    /// Region, a label of the fleet's sums.
    pub region: String,
    /// Edge or point of presence, a label of the fleet's sums; the node's name where empty.
    pub edge: String,
    /// `origin` or `edge`.
    pub role: Role,
    /// Deployment environment, as in `deployment.environment.name`.
    pub environment: String,
}

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
    fn limits(&self) -> Limits {
        let latency_seconds = self.latency.map(|latency| latency.as_secs_f64());
        Limits { latency_seconds, stutter_ratio: self.stutter_ratio, loss_ratio: self.loss_ratio }
    }
}

/// What is read from this host's kernel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KernelSettings {
    /// Read TCP_INFO of the viewers' connections each tick (needs the media server's network namespace, no privilege).
    pub tcp_info: bool,
    /// Speed of the network interface in bits per second where the kernel does not tell; 0: as the kernel tells.
    pub nic_bits_per_second: u64,
}

/// The metrics page.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricSettings {
    /// Most classes with series of their own; the rest only count in the node's sums.
    pub max_sessions: usize,
}

/// Recent samples kept in memory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySettings {
    /// Samples kept of each class.
    pub samples: usize,
    /// Samples kept of all classes together; the oldest go first.
    pub max_samples: usize,
}

/// What players themselves may report.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BeaconSettings {
    /// File with the key (at least 32 bytes) that signs the tokens of classes; without it `/v1/beacon` is closed.
    pub key_file: Option<PathBuf>,
}

/// The daemon's own log, on standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,liveqos::otlp=debug`.
    pub level: String,
    /// `auto`: text on a terminal, else JSON.
    pub format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Who waits how long.
    #[must_use]
    pub fn patience(&self) -> SessionTimeouts {
        let sessions = &self.sessions;
        SessionTimeouts {
            identity_grace: sessions.identity_grace,
            linger: sessions.linger,
            publisher_grace: sessions.publisher_grace,
            idle_timeout: sessions.idle_timeout,
        }
    }

    /// The settings that differ from `was` and that a running daemon does not take over.
    #[must_use]
    pub fn needs_restart(&self, was: &Self) -> Vec<&'static str> {
        let differs = |of: fn(&Self) -> serde_json::Result<serde_json::Value>| of(self).ok() != of(was).ok();
        let mut out = Vec::new();
        for (name, changed) in [
            ("listen", self.listen != was.listen),
            ("node", differs(|config| serde_json::to_value(&config.node))),
            ("kernel", differs(|config| serde_json::to_value(&config.kernel))),
            ("metrics", differs(|config| serde_json::to_value(&config.metrics))),
            ("history", differs(|config| serde_json::to_value(&config.history))),
            ("alerts", differs(|config| serde_json::to_value(config.alerts.without_silences()))),
            ("beacon", differs(|config| serde_json::to_value(&config.beacon))),
            ("ingest", self.ingest.without_files() != was.ingest.without_files()),
            ("cmcd", self.cmcd != was.cmcd),
            ("otlp", differs(|config| serde_json::to_value(&config.otlp))),
            ("state", self.state != was.state),
            ("paths", self.paths != was.paths),
            ("sampling", self.sampling != was.sampling),
            ("log", differs(|config| serde_json::to_value(&config.log))),
            ("logs", self.logs != was.logs),
        ] {
            if changed {
                out.push(name);
            }
        }
        out
    }

    /// By what the rules decide.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings { objectives: self.promised(), patience: self.patience(), max_sessions: self.sessions.max }
    }

    /// What is promised.
    #[must_use]
    pub fn promised(&self) -> Objectives {
        let objectives = &self.objectives;
        Objectives {
            latency_seconds: objectives.latency.as_secs_f64(),
            stutter_ratio: objectives.stutter_ratio,
            loss_ratio: objectives.loss_ratio,
            fps_ratio: objectives.fps_ratio,
            load_ratio: objectives.load_ratio,
            rtc: objectives.rtc.limits(),
            flv: objectives.flv.limits(),
            hls: objectives.hls.limits(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9480".to_owned(),
            discover: true,
            node: NodeSettings::default(),
            sessions: SessionSettings::default(),
            objectives: ObjectiveSettings::default(),
            kernel: KernelSettings::default(),
            metrics: MetricSettings::default(),
            history: HistorySettings::default(),
            alerts: AlertSettings::default(),
            beacon: BeaconSettings::default(),
            ingest: IngestSettings::default(),
            cmcd: CmcdSettings::default(),
            otlp: OtlpSettings::default(),
            state: StateSettings::default(),
            paths: PathSettings::default(),
            sampling: SamplingSettings::default(),
            log: LogSettings::default(),
            sources: Vec::new(),
            logs: Vec::new(),
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

impl Default for KernelSettings {
    fn default() -> Self {
        Self { tcp_info: true, nic_bits_per_second: 0 }
    }
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self { max_sessions: 2_000 }
    }
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { samples: 120, max_samples: 60_000 }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}
