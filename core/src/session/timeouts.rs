//! How long the registry waits before it decides about a class: the defaults of `[sessions]` in the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the registry waits before it decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimeouts {
    /// How long a stream may have no reported id before its key becomes the session's id.
    pub identity_grace: Duration,
    /// How long the publisher may be away, with no viewer waiting, before the class is over.
    pub linger: Duration,
    /// How long the publisher may be away while viewers wait.
    pub publisher_grace: Duration,
    /// How long no source may report a class before it is closed.
    pub idle_timeout: Duration,
}

impl Default for SessionTimeouts {
    fn default() -> Self {
        Self {
            identity_grace: Duration::from_secs(3),
            linger: Duration::from_secs(2),
            publisher_grace: Duration::from_mins(1),
            idle_timeout: Duration::from_mins(1),
        }
    }
}
