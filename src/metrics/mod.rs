//! Where results go: the metrics page, recent history. Each is a leaf; [`crate::otlp::exporter`] and [`crate::notify::notifiers`] stand beside them.

pub mod collector;
pub mod exposition;
pub mod otlp;
mod series;
pub mod session_series;
