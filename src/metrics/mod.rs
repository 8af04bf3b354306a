//! Where results go: the metrics page, recent history. Each is a leaf; [`crate::otlp::exporter`] and
//! [`crate::notify::notifiers`] stand beside them.

pub mod collector;
pub mod exposition;
pub mod otlp;
mod series;
mod session_series;

pub use self::collector::NodeCollector;
pub use self::exposition::Form;
pub use self::session_series::SessionSeries;
