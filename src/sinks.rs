//! Where results go: the metrics page, recent history, webhooks. Each is a leaf; OTLP stands beside them in [`crate::otlp`].

pub mod history;
pub mod openmetrics;
pub mod prometheus;
mod series;
pub mod webhook;
