//! The `[kernel]` table of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is read from this host's kernel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KernelSettings {
    /// Read TCP_INFO of the viewers' connections each tick (requires the media server's network namespace, no
    /// privilege).
    pub tcp_info: bool,
    /// Speed of the network interface in bits per second, if the kernel does not report it; 0: as the kernel reports
    /// it.
    pub nic_bits_per_second: u64,
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self { tcp_info: true, nic_bits_per_second: 0 }
    }
}
