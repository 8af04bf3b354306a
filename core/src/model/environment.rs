//! What surrounds the sessions: the node's load, its sources, its paths to other nodes. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::SourceName;
use super::sample::Share;
use super::time::Timestamp;

/// How loaded the node is; each 0 to 1, absent where it cannot be told.
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

/// The path to another node since the last word on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// The other node.
    pub peer: Arc<str>,
    /// When this was measured; the same instant again is no news.
    pub at: Timestamp,
    /// The round trip now.
    pub rtt: Option<Duration>,
    /// Pings lost on the way to it, of those sent, since the last word.
    pub out: Option<Share>,
    /// Pings lost on the way back, of those that came there, since the last word.
    pub back: Option<Share>,
    /// Since when nothing comes back, though the other node took no leave.
    pub silent: Option<Timestamp>,
}

/// What surrounds the sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The node's load.
    pub node: NodeLoad,
    /// Each source and since when it is silent, where it is.
    pub sources: Vec<(SourceName, Option<Timestamp>)>,
    /// The newest word on each path to another node.
    pub paths: Vec<PathReport>,
}
