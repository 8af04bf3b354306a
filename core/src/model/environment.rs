//! The environment of the classes: the node's load, its sources, its paths to other nodes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::SourceName;
use super::sample::Share;
use super::time::Timestamp;

/// The load of the node; each ratio 0 to 1, absent where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Processor time in use over all cores.
    pub cpu_ratio: Option<f64>,
    /// Memory not available to new work.
    pub memory_ratio: Option<f64>,
    /// The busiest interface's direction over its speed.
    pub nic_ratio: Option<f64>,
}

impl NodeLoad {
    /// Processor, memory, network.
    #[must_use]
    pub const fn parts(&self) -> [Option<f64>; 3] {
        [self.cpu_ratio, self.memory_ratio, self.nic_ratio]
    }
}

/// The path to another node since the last report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// The other node.
    pub peer: Arc<str>,
    /// When this was measured; the same instant again is the same report.
    pub at: Timestamp,
    /// The median round trip since the last report.
    pub rtt: Option<Duration>,
    /// Pings lost on the way to it, over those sent, since the last report.
    pub out: Option<Share>,
    /// Pings lost on the way back, over those it received, since the last report.
    pub back: Option<Share>,
    /// Since when no echo returns, though the other node announced no shutdown.
    pub silent: Option<Timestamp>,
}

/// The environment of the classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The node's load.
    pub node: NodeLoad,
    /// Each source, and since when it is silent, if it is.
    pub sources: Vec<(SourceName, Option<Timestamp>)>,
    /// The newest report on each path to another node.
    pub paths: Vec<PathReport>,
}
