//! The `[metrics]` table of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The metrics page.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricSettings {
    /// Largest number of classes with series of their own; further ones only count in the node's sums.
    pub max_sessions: usize,
}

impl Default for MetricSettings {
    fn default() -> Self {
        Self { max_sessions: 2_000 }
    }
}
