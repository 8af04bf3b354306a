//! What all alerts share: the numbers behind a finding, and the bars that a value is compared with.

use super::hysteresis::Finding;
use crate::model::{Evidence, GRID, Timestamp};

/// The numbers behind a finding: a value and its threshold in `unit`, resting on `size` of `size_unit`.
pub(crate) fn evidence(
    value: f64,
    threshold: f64,
    unit: &'static str,
    (size, size_unit): (f64, &'static str),
) -> Evidence {
    Evidence { value, threshold, unit, size, size_unit }
}

/// The finding of a value against its threshold.
pub(crate) fn against(evidence: Evidence, since: Timestamp) -> Finding {
    match evidence.value {
        value if value > evidence.threshold => Finding::Bad(evidence, since),
        value if value > evidence.threshold * CLEAR => Finding::Between,
        _ => Finding::Good(evidence),
    }
}

/// Whether `now` is the first evaluation in a step of the 5 s grid.
pub(crate) fn is_step(before: Timestamp, now: Timestamp) -> bool {
    before.floor(GRID) != now.floor(GRID)
}

/// An alert clears under this share of the objective.
pub(crate) const CLEAR: f64 = 0.7;
/// Lowest confidence of a warning.
pub(crate) const SURE: f64 = 0.9;
