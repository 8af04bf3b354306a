//! What all alerts share: the numbers behind a finding, and the bars that a value is held against.

use super::hysteresis::Finding;
use crate::model::{Evidence, GRID, Timestamp};

/// The numbers behind a finding: the value against its threshold in `unit`, resting on `size` of `size_unit`.
pub(crate) fn evidence(
    value: f64,
    threshold: f64,
    unit: &'static str,
    (size, size_unit): (f64, &'static str),
) -> Evidence {
    Evidence { value, threshold, unit, size, size_unit }
}

/// What a level says against its limit.
pub(crate) fn against(evidence: Evidence, since: Timestamp) -> Finding {
    match evidence.value {
        value if value > evidence.threshold => Finding::Bad(evidence, since),
        value if value > evidence.threshold * CLEAR => Finding::Between,
        _ => Finding::Good(evidence),
    }
}

/// Whether `now` is the first look of a step.
pub(crate) fn is_step(before: Timestamp, now: Timestamp) -> bool {
    before.floor(GRID) != now.floor(GRID)
}

/// Clear under this share of the objective.
pub(crate) const CLEAR: f64 = 0.7;
/// A warning is this sure at least.
pub(crate) const SURE: f64 = 0.9;
