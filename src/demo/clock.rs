//! The clock of a demonstration class.

use liveqos_core::model::Timestamp;

/// Returns the present; a class reads no other clock for what it reports.
pub(super) type Clock = fn() -> Timestamp;
