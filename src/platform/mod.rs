//! FACE

pub mod clock;
pub(crate) mod duration;
pub(crate) mod log;
pub(crate) mod rfc3339;
pub(crate) mod self_metrics;
pub(crate) mod suggest;
pub mod tls;
pub mod trace_id;

pub use self::self_metrics::SelfMetrics;
pub(crate) use self::tls::TlsError;
