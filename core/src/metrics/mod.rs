//! The exported metrics: their catalogue, the node's running sums, the reasons of dropped work.
//!
//! **Decides** name, unit, kind and labels of every metric (`catalog`), what of a sample adds to which sum
//! (`node_totals`), and the values of `reason` in `liveqos_shed_total` (`shed_reason`). A metric that is not in
//! the catalogue is not exported.
//!
//! **In**: [`Sample`](crate::model::Sample)s with their [`Objectives`](crate::model::Objectives).
//!
//! **Out**: the catalogue and sums, to the Prometheus page, to OTLP and to docs/metrics.md.
//!
//! **May import** base, model.

pub mod catalog;
mod metric;
mod node_totals;
mod shed_reason;

pub use self::catalog::{METRICS, SKEW_BOUNDS};
pub use self::metric::{Kind, Metric, QUANTILES, Read};
pub use self::node_totals::{BREACHES, Buckets, Fleet, FleetKey, FleetTotals};
pub use self::shed_reason::ShedReason;
