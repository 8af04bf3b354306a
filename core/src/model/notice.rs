//! Notices: an alert that fires or resolves, with the numbers behind it. Decides the names and texts of alerts. A cause
//! is named only where the evidence supports it; `unknown` is a valid answer.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::observation::SourceName;
use super::session::Session;
use super::time::Timestamp;

/// The alerts, by their public names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Alert {
    /// Delivery latency over the objective.
    LiveLatencyHigh,
    /// Viewers stall more than the objective allows.
    LiveStutterHigh,
    /// Loss towards viewers over the objective.
    LivePacketLossHigh,
    /// Viewers wait and no publisher sends.
    LiveStreamDown,
    /// Frames per second well below the publisher's baseline.
    LiveFpsLow,
    /// The node itself is short of processor, memory or network.
    LiveNodeOverloaded,
    /// The path between nodes is degraded.
    LivePathDegraded,
    /// A source stopped answering: what it watches is unknown, not healthy.
    LiveSourceDown,
}

impl Alert {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LiveLatencyHigh,
        Self::LiveStutterHigh,
        Self::LivePacketLossHigh,
        Self::LiveStreamDown,
        Self::LiveFpsLow,
        Self::LiveNodeOverloaded,
        Self::LivePathDegraded,
        Self::LiveSourceDown,
    ];

    /// The `alertname`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LiveLatencyHigh => "LiveLatencyHigh",
            Self::LiveStutterHigh => "LiveStutterHigh",
            Self::LivePacketLossHigh => "LivePacketLossHigh",
            Self::LiveStreamDown => "LiveStreamDown",
            Self::LiveFpsLow => "LiveFpsLow",
            Self::LiveNodeOverloaded => "LiveNodeOverloaded",
            Self::LivePathDegraded => "LivePathDegraded",
            Self::LiveSourceDown => "LiveSourceDown",
        }
    }

    /// The `severity` label.
    #[must_use]
    pub const fn severity(self) -> &'static str {
        match self {
            Self::LiveStreamDown | Self::LiveStutterHigh => "critical",
            _ => "warning",
        }
    }
}

/// What a notice is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A class.
    Session(Arc<Session>),
    /// A configured source.
    Source(SourceName),
    /// The node.
    Node,
    /// The path to another node, by that node's name.
    Peer(Arc<str>),
}

impl Subject {
    /// A text that distinguishes subjects of one alert.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Session(session) => session.id.as_str(),
            Self::Source(source) => source,
            Self::Node => "",
            Self::Peer(peer) => peer,
        }
    }
}

/// Where the fault lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The publisher's encoder or uplink.
    Publisher,
    /// This node.
    Node,
    /// The path between nodes.
    EdgePath,
    /// The viewers' access networks.
    ViewersAccess,
    /// The player.
    Player,
    /// The evidence does not show it.
    #[default]
    Unknown,
}

impl Cause {
    /// The label text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Node => "node",
            Self::EdgePath => "edge_path",
            Self::ViewersAccess => "viewers_access",
            Self::Player => "player",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether an alert began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeState {
    /// The alert holds.
    Firing,
    /// The alert no longer holds.
    Resolved,
}

/// The numbers behind a notice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The value that was judged, in `unit`.
    pub value: f64,
    /// The limit it was compared with.
    pub threshold: f64,
    /// `ratio`, `seconds` or `frames a second`.
    pub unit: &'static str,
    /// Size of the evidence, in `size_unit`.
    pub size: f64,
    /// `viewer-seconds`, `viewers`, `packets`, `seconds`, or pings by direction.
    pub size_unit: &'static str,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            "ratio" => write!(f, "{:.2} % (limit {:.2} %)", self.value * 100.0, self.threshold * 100.0)?,
            "seconds" => write!(f, "{:.0} ms (limit {:.0} ms)", self.value * 1e3, self.threshold * 1e3)?,
            unit => write!(f, "{:.1} {unit} (limit {:.1} {unit})", self.value, self.threshold)?,
        }
        write!(f, " over {:.0} {}", self.size, self.size_unit)
    }
}

/// A breach that is expected but has not happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Seconds until the limit is passed, by the trend.
    pub seconds: f64,
    /// The earliest that the noise of the trend allows, in seconds: one in ten comes earlier.
    pub soonest: f64,
    /// Confidence that the limit is passed within the horizon, 0 to 1.
    pub confidence: f64,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, soonest, sure) = (self.seconds, self.soonest, self.confidence * 100.0);
        write!(f, "the limit is expected in {seconds:.0} s, {soonest:.0} s at the soonest ({sure:.0} % sure)")
    }
}

/// An alert that began or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Which alert.
    pub alert: Alert,
    /// What it is about.
    pub subject: Subject,
    /// Whether it began or ended.
    pub state: NoticeState,
    /// The onset by the evidence, not the time of detection.
    pub started_at: Timestamp,
    /// When it was evaluated.
    pub at: Timestamp,
    /// The numbers: of the onset while firing, of the recovery when resolved.
    pub evidence: Evidence,
    /// Where the fault lies.
    pub cause: Cause,
    /// The evidence for the cause as text, the strongest first.
    pub why: Arc<[String]>,
    /// Set where the breach is only expected: a warning, not an incident.
    pub forecast: Option<Forecast>,
    /// Whether this is a further notice of a firing alert, because its cause became known or its evidence ended.
    pub renotified: bool,
}

impl Notice {
    /// The `severity` label; a forecast is never more than a warning.
    #[must_use]
    pub const fn severity(&self) -> &'static str {
        if self.forecast.is_some() { "warning" } else { self.alert.severity() }
    }

    /// One line of text: what, where, how much.
    #[must_use]
    pub fn summary(&self) -> String {
        let what = match self.alert {
            Alert::LiveLatencyHigh => "delivery latency (p95)",
            Alert::LiveStutterHigh => "stutter",
            Alert::LivePacketLossHigh => "loss towards viewers",
            Alert::LiveStreamDown => "no publisher while viewers wait",
            Alert::LiveFpsLow => "frames per second",
            Alert::LiveNodeOverloaded => "node load",
            Alert::LivePathDegraded => "path",
            Alert::LiveSourceDown => "source silent",
        };
        let subject = match &self.subject {
            Subject::Session(session) => format!("class {}: ", session.id),
            Subject::Source(source) => format!("source {source}: "),
            Subject::Node => String::new(),
            Subject::Peer(peer) => format!("to {peer}: "),
        };
        let ended = if self.state == NoticeState::Resolved { "resolved: " } else { "" };
        match self.forecast.filter(|_| self.state == NoticeState::Firing) {
            Some(forecast) => format!("{subject}{what} {}: {forecast}", self.evidence),
            None => format!("{ended}{subject}{what} {}", self.evidence),
        }
    }

    /// The full evidence: the numbers, then what supports the cause.
    #[must_use]
    pub fn description(&self) -> String {
        let mut out = self.evidence.to_string();
        if let Some(forecast) = self.forecast {
            out = format!("{out}; {forecast}");
        }
        if !self.why.is_empty() {
            out = format!("{out}; cause {}: {}", self.cause.as_str(), self.why.join("; "));
        }
        out
    }
}
