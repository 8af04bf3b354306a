//! All settings with their defaults. The doc comment of each key becomes its reference.

use liveqos_core::model::Objectives;
use liveqos_core::recording::Settings;
use liveqos_core::session::SessionTimeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{ObjectiveSettings, SessionSettings};
use crate::engine::HistorySettings;
use crate::intake::SourceSettings;
use crate::intake::access_log::AccessLogSettings;
use crate::intake::kernel::KernelSettings;
use crate::metrics::MetricSettings;
use crate::notify::AlertSettings;
use crate::otlp::sampling::SamplingSettings;
use crate::otlp::{OtlpSettings, Role};
use crate::peers::PathSettings;
use crate::platform::log::LogSettings;
use crate::players::{BeaconSettings, CmcdSettings, IngestSettings};
use crate::storage::StateSettings;

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the status page, the API and `/metrics`.
    pub listen: String,
    /// Search for media servers on this host if no source is configured.
    pub discover: bool,
    /// Identity of this node.
    pub node: NodeSettings,
    /// How long live classes are kept.
    pub sessions: SessionSettings,
    /// The objectives that alerts are compared with.
    pub objectives: ObjectiveSettings,
    /// What is read from this host's kernel.
    pub kernel: KernelSettings,
    /// The metrics page.
    pub metrics: MetricSettings,
    /// Recent samples kept in memory for the page and the API.
    pub history: HistorySettings,
    /// Who is notified of alerts.
    pub alerts: AlertSettings,
    /// Reports of players themselves.
    pub beacon: BeaconSettings,
    /// The endpoints for players: `/v1/cmcd` and `/v1/beacon`.
    pub ingest: IngestSettings,
    /// Event reports of players (CMCD v2) by `POST /v1/cmcd`.
    pub cmcd: CmcdSettings,
    /// Export of traces, sample events and metrics by OTLP.
    pub otlp: OtlpSettings,
    /// What survives a restart: the open minutes of classes, and what no collector has accepted yet.
    pub state: StateSettings,
    /// The paths to other nodes, measured by pings over QUIC.
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

/// Identity of this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// The node's name in traces and alerts; if empty, the host's name.
    pub name: String,
    /// Region, a label of the fleet's sums.
    pub region: String,
    /// Edge or point of presence, a label of the fleet's sums; if empty, the node's name.
    pub edge: String,
    /// `origin` or `edge`.
    pub role: Role,
    /// Deployment environment, as in `deployment.environment.name`.
    pub environment: String,
}

impl Config {
    /// The timeouts of the rules.
    #[must_use]
    pub fn timeouts(&self) -> SessionTimeouts {
        self.sessions.timeouts()
    }

    /// The settings that differ from `was` and take effect only after a restart.
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

    /// The settings of the rules.
    #[must_use]
    pub fn rule_settings(&self) -> Settings {
        Settings { objectives: self.objectives(), timeouts: self.timeouts(), max_sessions: self.sessions.max }
    }

    /// The objectives of the rules.
    #[must_use]
    pub fn objectives(&self) -> Objectives {
        self.objectives.objectives()
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
