//! The state of each path to another node, as `/api/v1/sources`, `/metrics` and alert evaluation read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveqos_core::model::{PathReport, Timestamp};
use liveqos_core::node::{DirectionLoss, PathFigures, PathWindow};
use serde::Serialize;

use super::settings::PathSettings;

/// The state of all paths, in the order of the configuration.
#[derive(Debug, Default)]
pub struct PathTable {
    paths: Vec<Arc<PathEntry>>,
}

/// The state of one path.
#[derive(Clone, Debug, Serialize)]
pub struct PathStatus {
    /// The other node.
    pub peer: Arc<str>,
    /// Where it answers.
    pub address: String,
    /// When the last echo was received, in seconds since the Unix epoch.
    #[serde(rename = "heard_at", skip_serializing_if = "Option::is_none")]
    pub last_echo_at: Option<f64>,
    /// Pings decided since the start; those that are not decided yet count in none of the sums.
    pub sent: u64,
    /// Of these, lost on the way to the peer.
    pub lost_out: u64,
    /// Of these, received by the peer.
    #[serde(rename = "came")]
    pub arrived: u64,
    /// Of those received, lost on the way back.
    pub lost_back: u64,
    /// The newest measurements; absent while the path is silent.
    #[serde(flatten)]
    pub figures: PathFigures,
}

/// One path, written by the task that pings it.
#[derive(Debug)]
pub(super) struct PathEntry {
    peer: Arc<str>,
    address: String,
    window: Mutex<PathWindow>,
}

impl PathTable {
    /// The paths to the peers of `settings`, without measurements.
    #[must_use]
    pub fn new(settings: &PathSettings) -> Self {
        let entry = |peer: &super::settings::PeerSettings| {
            let (name, address) = (peer.name.as_str().into(), peer.address.clone());
            Arc::new(PathEntry { peer: name, address, window: Mutex::default() })
        };
        Self { paths: settings.peers.iter().map(entry).collect() }
    }

    /// What was measured on each path since the last call; paths without any echo so far are left out.
    #[must_use]
    pub fn reports(&self, now: Timestamp) -> Vec<PathReport> {
        self.paths.iter().filter_map(|path| path.window().report(&path.peer, now)).collect()
    }

    /// The state of every path at `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Vec<PathStatus> {
        let status = self.paths.iter().map(|path| {
            let window = path.window();
            let DirectionLoss { out, back } = window.sums();
            PathStatus {
                peer: Arc::clone(&path.peer),
                address: path.address.clone(),
                last_echo_at: window.last_echo().map(Timestamp::seconds),
                sent: out.whole as u64,
                lost_out: out.part as u64,
                arrived: back.whole as u64,
                lost_back: back.part as u64,
                figures: window.figures(now),
            }
        });
        status.collect()
    }

    /// The entry of each path.
    pub(super) fn entries(&self) -> &[Arc<PathEntry>] {
        &self.paths
    }
}

impl PathEntry {
    /// Records an echo: its round trip and the losses that it decided.
    pub(super) fn echo(&self, now: Timestamp, rtt: Duration, ways: DirectionLoss) {
        self.window().record(now, rtt, ways);
    }

    /// Records that the peer closed the connection.
    pub(super) fn closed(&self) {
        self.window().mark_departed();
    }

    /// A poisoned lock stays in use: a panic leaves each sum whole.
    fn window(&self) -> MutexGuard<'_, PathWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
