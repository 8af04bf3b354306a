//! What every stage uses: the clock, log, TLS, durations, ids, back-off and the daemon's own metrics.
//!
//! - **Decides** how time, durations, networks and certificates are read, how long a repeated attempt waits, and which
//!   ids a trace gets. It knows no source, class, player or exporter.
//! - **In**: the wall clock, files of certificates and keys, texts of settings.
//! - **Out**: plain values and functions, to every other stage of the shell.
//! - **May import** nothing of the shell; of core, base, model, trace, metrics and connection.

pub(crate) mod backoff;
pub(crate) mod cidr;
pub mod clock;
pub(crate) mod duration;
pub(crate) mod error_chain;
pub(crate) mod log;
pub mod retry_after;
pub(crate) mod rfc3339;
pub(crate) mod self_metrics;
pub(crate) mod suggest;
pub mod tls;
pub mod trace_id;

pub use self::self_metrics::SelfMetrics;
pub(crate) use self::tls::TlsError;
