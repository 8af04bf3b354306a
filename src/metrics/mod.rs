//! The metrics page in Prometheus text and OpenMetrics, and the same metrics as OTLP records.
//!
//! - **Decides** which classes have series of their own, which series are left out, and the form of the text. Names,
//!   labels and helps are those of core's catalogue ([`liveqos_core::metrics::METRICS`]).
//! - **In**: the engine's snapshot, the state of sources, paths, exports and storage, and the Prometheus registry of
//!   [`crate::platform::SelfMetrics`].
//! - **Out**: text for `/metrics`, OTLP records for [`crate::otlp::Otlp::push_metrics`].
//! - **May import** platform, engine, otlp, storage, intake and peers; of core, base, metrics and model.

pub mod collector;
pub mod exposition;
pub mod otlp;
mod series;
mod session_series;
mod settings;

pub use self::collector::NodeCollector;
pub use self::exposition::Form;
pub use self::session_series::SessionSeries;
pub use self::settings::MetricSettings;
