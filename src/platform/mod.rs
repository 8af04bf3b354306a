//! FACE

pub mod clock;
pub mod duration;
pub mod log;
pub mod rfc3339;
pub mod self_metrics;
pub mod suggest;
pub mod tls;
pub mod trace_id;
