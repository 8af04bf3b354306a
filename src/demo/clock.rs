//! The clock that a demonstration class is given.

use liveqos_core::model::Timestamp;

/// Gives the present instant; the class reads no other clock for what it reports.
pub(super) type Clock = fn() -> Timestamp;
