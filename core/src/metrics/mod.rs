//! FACE

pub mod catalog;
mod metric;
mod node_totals;
mod shed_reason;

pub use self::catalog::{METRICS, SKEW_BOUNDS};
pub use self::metric::{Kind, Metric, QUANTILES, Read};
pub use self::node_totals::{BREACHES, Buckets, Fleet, FleetKey, FleetTotals};
pub use self::shed_reason::ShedReason;
