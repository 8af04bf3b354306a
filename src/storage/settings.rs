//! Where what outlives the daemon is kept and how much of it. Decides the usual places; the limits of each signal add
//! up to 20 GB.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What outlives the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// Folder of the journal and the spool. Not set: systemd's state directory, else `/var/lib/liveqos` where that
    /// exists. Empty: nothing is kept, and a restart loses the open minute of each class and what no collector has
    /// taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Most bytes of spans that wait on disk; beyond it the oldest are dropped and counted.
    pub traces_bytes: u64,
    /// The same of metrics.
    pub metrics_bytes: u64,
    /// The same of log events.
    pub logs_bytes: u64,
}

impl StateSettings {
    /// Most bytes on disk, by signal.
    #[must_use]
    pub const fn caps(&self) -> [u64; 3] {
        [self.traces_bytes, self.metrics_bytes, self.logs_bytes]
    }

    /// The folder: as set, else the service manager's, else the usual one where it exists.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.dir {
            return Some(dir.clone()).filter(|dir| !dir.as_os_str().is_empty());
        }
        // systemd.exec(5): several are separated by colons.
        let systemd = std::env::var("STATE_DIRECTORY").ok();
        let systemd = systemd.iter().flat_map(|all| all.split(':')).find(|dir| !dir.is_empty()).map(PathBuf::from);
        systemd.or_else(|| Some(PathBuf::from(USUAL)).filter(|dir| dir.is_dir()))
    }
}

impl Default for StateSettings {
    fn default() -> Self {
        Self { dir: None, traces_bytes: 9_000_000_000, metrics_bytes: 2_000_000_000, logs_bytes: 9_000_000_000 }
    }
}

/// Where a package makes it.
const USUAL: &str = "/var/lib/liveqos";
