//! Where results go: the metrics page, recent history. Each is a leaf; [`crate::otlp`] and [`crate::notify`] stand beside them.

pub mod exposition;
pub mod history;
pub mod prometheus;
mod series;
pub mod session_series;
