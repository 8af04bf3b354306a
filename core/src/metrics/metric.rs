//! One row of the catalogue: the description of a metric, and where its value comes from.

use super::node_totals::FleetTotals;
use crate::model::{LatencyReading, LegSample};

/// One metric.
pub struct Metric {
    /// Prometheus name.
    pub name: &'static str,
    /// OpenTelemetry name.
    pub otel_name: &'static str,
    /// Kind of series.
    pub kind: Kind,
    /// Unit by UCUM, as OpenTelemetry writes it.
    pub unit: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names beside the constant ones.
    pub labels: &'static [&'static str],
    /// Where its value comes from.
    pub read: Read,
}

/// Kind of series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Classic histogram of these upper bounds.
    Histogram(&'static [f64]),
    /// Quantiles with the count and sum of all values.
    Summary,
}

/// Where a value comes from.
#[derive(Clone, Copy)]
pub enum Read {
    /// A value of a session's leg, labels `SESSION_LABELS`.
    Leg(fn(&LegSample) -> Option<f64>),
    /// The latencies of a session's leg, labels `SESSION_LABELS` and `quantile`, for each of [`QUANTILES`].
    LegLatency(fn(&LegSample) -> Option<&LatencyReading>),
    /// A running sum of the node, labels `FLEET_LABELS`.
    Fleet(fn(&FleetTotals) -> Option<f64>),
    /// A running histogram of the node, labels `FLEET_LABELS`.
    FleetBuckets(fn(&FleetTotals) -> Option<&super::node_totals::Buckets>),
    /// The shell sets it.
    Shell,
}

/// Labels of the per-session gauges.
pub(super) const SESSION_LABELS: &[&str] = &["session_id", "course_id", "leg"];
/// Labels of the sums that add up over the fleet.
pub(super) const FLEET_LABELS: &[&str] = &["stream_type", "scenario", "direction"];
/// The quantiles of a summary.
pub const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// A counter of the node that adds up over the fleet.
pub(crate) const fn fleet(
    name: &'static str,
    otel_name: &'static str,
    unit: &'static str,
    help: &'static str,
    read: fn(&FleetTotals) -> Option<f64>,
) -> Metric {
    Metric { name, otel_name, kind: Kind::Counter, unit, help, labels: FLEET_LABELS, read: Read::Fleet(read) }
}

/// A gauge of a session's leg.
pub(crate) const fn leg(
    name: &'static str,
    otel_name: &'static str,
    unit: &'static str,
    help: &'static str,
    read: fn(&LegSample) -> Option<f64>,
) -> Metric {
    Metric { name, otel_name, kind: Kind::Gauge, unit, help, labels: SESSION_LABELS, read: Read::Leg(read) }
}

/// A metric that the shell sets.
#[expect(clippy::too_many_arguments, reason = "a row of the table, in the order of its columns")]
pub(crate) const fn shell(
    name: &'static str,
    otel_name: &'static str,
    kind: Kind,
    unit: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric { name, otel_name, kind, unit, help, labels, read: Read::Shell }
}
