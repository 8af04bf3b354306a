//! What the handlers of the players' endpoints share.

use std::sync::Arc;

use super::beacon::Beacons;
use super::client_policy::ClientPolicy;
use super::cmcd::CmcdIntake;
use crate::platform::SelfMetrics;

/// State of the players' endpoints.
#[derive(Clone)]
pub(crate) struct PlayerState {
    /// Which clients may post how often.
    pub policy: Arc<ClientPolicy>,
    /// `POST /v1/beacon`.
    pub beacons: Arc<Beacons>,
    /// `/v1/cmcd`.
    pub cmcd: Arc<CmcdIntake>,
    /// The daemon's own metrics.
    pub meters: SelfMetrics,
}
