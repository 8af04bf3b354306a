//! The `[history]` table of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Recent samples kept in memory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySettings {
    /// Number of samples kept per class.
    pub samples: usize,
    /// Number of samples kept for all classes; the oldest are removed first.
    pub max_samples: usize,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { samples: 120, max_samples: 60_000 }
    }
}
