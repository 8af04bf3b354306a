//! How the paths to other nodes do: what `/api/v1/sources`, `/metrics` and the judge read. Decides nothing; each path
//! has a line of its own, written by who pings it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liveqos_core::model::{PathReport, Timestamp};
use liveqos_core::node::{PathFigures, PathWindow, Ways};
use serde::Serialize;

use super::settings::PathSettings;

/// All paths, in the order of the configuration.
#[derive(Debug, Default)]
pub struct PathTable {
    paths: Vec<Arc<PathEntry>>,
}

/// How one path does.
#[derive(Clone, Debug, Serialize)]
pub struct PathStatus {
    /// The other node.
    pub peer: Arc<str>,
    /// Where it answers.
    pub address: String,
    /// When something was last heard, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<f64>,
    /// Pings that were decided since the start; what is not decided yet is in none of them.
    pub sent: u64,
    /// Of these, lost on the way there.
    pub lost_out: u64,
    /// Of these, come there.
    pub came: u64,
    /// Of those that came, lost on the way back.
    pub lost_back: u64,
    /// What was measured lately; nothing while it is silent.
    #[serde(flatten)]
    pub figures: PathFigures,
}

/// One path's line.
#[derive(Debug)]
pub(super) struct PathEntry {
    peer: Arc<str>,
    address: String,
    course: Mutex<PathWindow>,
}

impl PathTable {
    /// The paths to the peers of `settings`, of which nothing is known yet.
    #[must_use]
    pub fn new(settings: &PathSettings) -> Self {
        let entry = |peer: &super::settings::PeerSettings| {
            let (name, address) = (peer.name.as_str().into(), peer.address.clone());
            Arc::new(PathEntry { peer: name, address, course: Mutex::default() })
        };
        Self { paths: settings.peers.iter().map(entry).collect() }
    }

    /// The news of every path that was ever heard, since the last call.
    #[must_use]
    pub fn words(&self, now: Timestamp) -> Vec<PathReport> {
        self.paths.iter().filter_map(|path| path.course().word(&path.peer, now)).collect()
    }

    /// How every path does at `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Vec<PathStatus> {
        let status = self.paths.iter().map(|path| {
            let course = path.course();
            let Ways { out, back } = course.sums();
            PathStatus {
                peer: Arc::clone(&path.peer),
                address: path.address.clone(),
                heard_at: course.heard().map(Timestamp::seconds),
                sent: out.whole as u64,
                lost_out: out.part as u64,
                came: back.whole as u64,
                lost_back: back.part as u64,
                figures: course.figures(now),
            }
        });
        status.collect()
    }

    /// The line of each path.
    pub(super) fn entries(&self) -> &[Arc<PathEntry>] {
        &self.paths
    }
}

impl PathEntry {
    /// An echo came back.
    pub(super) fn hear(&self, now: Timestamp, rtt: Duration, ways: Ways) {
        self.course().hear(now, rtt, ways);
    }

    /// The other node took leave.
    pub(super) fn part(&self) {
        self.course().part();
    }

    /// A holder that panicked leaves sums that are each whole, so they stay in use.
    fn course(&self) -> MutexGuard<'_, PathWindow> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
