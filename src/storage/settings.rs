//! `[state]` of the configuration: the folder and the bounds of each signal, 20 GB in all by default.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is kept on disk over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// Folder of the journal and the spool. Not set: systemd's state directory, else `/var/lib/liveqos` where that
    /// exists. Empty: nothing is kept, and a restart loses the open minute of each class and what no collector has
    /// accepted yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Most bytes of queued spans on disk; beyond it the oldest are dropped and counted.
    pub traces_bytes: u64,
    /// The same for metrics.
    pub metrics_bytes: u64,
    /// The same for log events.
    pub logs_bytes: u64,
}

impl StateSettings {
    /// Most bytes on disk, in the order of [`crate::otlp::Signal::ALL`].
    #[must_use]
    pub const fn caps(&self) -> [u64; 3] {
        [self.traces_bytes, self.metrics_bytes, self.logs_bytes]
    }

    /// The folder as set, else that of systemd, else the default one where it exists; `None` keeps nothing.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.dir {
            return Some(dir.clone()).filter(|dir| !dir.as_os_str().is_empty());
        }
        // systemd.exec(5): several are separated by colons.
        let systemd = std::env::var("STATE_DIRECTORY").ok();
        let systemd = systemd.iter().flat_map(|all| all.split(':')).find(|dir| !dir.is_empty()).map(PathBuf::from);
        systemd.or_else(|| Some(PathBuf::from(DEFAULT_DIR)).filter(|dir| dir.is_dir()))
    }
}

impl Default for StateSettings {
    fn default() -> Self {
        Self { dir: None, traces_bytes: 9_000_000_000, metrics_bytes: 2_000_000_000, logs_bytes: 9_000_000_000 }
    }
}

/// The default folder, which packages create.
const DEFAULT_DIR: &str = "/var/lib/liveqos";
